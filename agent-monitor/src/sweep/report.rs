//! What a sweep says: finds, what was looked at and what was not. Plain data; the names are the JSON contract.
//!
//! Texts that come from the host are escaped without loss ([`crate::model::text`]); who prints them escapes for the
//! terminal. A secret's value is never in here, only names.

use serde::{Deserialize, Serialize};

use crate::model::Time;

/// Version of the JSON contract of reports and of each find. Fields are added, never renamed.
pub const SCHEMA_VERSION: u32 = 1;

/// One sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// When, where and by what.
    pub sweep: Sweep,
    /// The host that was looked at.
    pub host: HostId,
    /// The finds, shadow agents first, the surest first.
    pub finds: Vec<Find>,
    /// Finds of the baseline that are not there any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Find>,
    /// What was looked at, and what was not, and why.
    pub coverage: Vec<Coverage>,
}

/// When, where and by what a sweep was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// UUIDv7.
    pub id: String,
    /// Start.
    pub time: Time,
    /// How long it took, milliseconds.
    pub millis: u64,
    /// Version of agent-monitor.
    pub tool_version: String,
    /// Version of the embedded signature pack, with the number of files that extend it (`2026.11.26+1`).
    pub pack_version: String,
    /// The directory that was looked into instead of this host (`--root`).
    pub root: Option<String>,
    /// Effective uid of the sweep: anybody but root sees less.
    pub uid: u32,
}

/// Identity of a host, on every line of a fleet's collection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostId {
    /// Host name.
    pub name: String,
    /// SHA-256 over the machine id and a constant, first 32 hex digits: stable, and tells no machine id.
    pub id: Option<String>,
    /// `PRETTY_NAME` of os-release.
    pub os: Option<String>,
    /// Kernel release, where the host itself was swept.
    pub kernel: Option<String>,
}

/// What kind of thing a product is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProductKind {
    /// Agent at the command line.
    CliAgent,
    /// Agent inside an editor.
    IdeAgent,
    /// Editor with an agent of its own.
    Ide,
    /// Desktop application with agents.
    DesktopApp,
    /// Framework that agents are written with, or a script that uses one.
    Framework,
    /// Agent that runs by itself.
    AutonomousAgent,
    /// Platform on which agents are clicked together.
    WorkflowPlatform,
    /// Server that offers tools to agents.
    McpServer,
    /// Server of models on this host.
    ModelServer,
    /// Gateway to model providers.
    Gateway,
    /// Library that speaks to models; no agent by itself.
    Sdk,
    /// Something that agents use; no agent by itself.
    Component,
}

impl ProductKind {
    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CliAgent => "cli_agent",
            Self::IdeAgent => "ide_agent",
            Self::Ide => "ide",
            Self::DesktopApp => "desktop_app",
            Self::Framework => "framework",
            Self::AutonomousAgent => "autonomous_agent",
            Self::WorkflowPlatform => "workflow_platform",
            Self::McpServer => "mcp_server",
            Self::ModelServer => "model_server",
            Self::Gateway => "gateway",
            Self::Sdk => "sdk",
            Self::Component => "component",
        }
    }

    /// Whether the registry is to know it.
    #[must_use]
    pub fn is_agent(self) -> bool {
        !matches!(self, Self::Sdk | Self::Component)
    }
}

/// What was found: a product, as far as it could be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Id in the signature pack; `home-made` for programs that behave like an agent and are in no pack.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Its kind.
    pub kind: ProductKind,
    /// Which one, where a product is a group: package, server or script.
    pub variant: Option<String>,
    /// Version, where something said it.
    pub version: Option<String>,
}

/// How sure, in words: `high` from 80, `medium` from 50.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Under 50.
    Low,
    /// From 50.
    Medium,
    /// From 80.
    High,
}

impl Level {
    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// How sure something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confidence {
    /// 0 to 100.
    pub score: u8,
    /// In words.
    pub level: Level,
}

impl Confidence {
    /// From a score of 0 to 100.
    #[must_use]
    pub fn of(score: u8) -> Self {
        let level = match score {
            80.. => Level::High,
            50..80 => Level::Medium,
            _ => Level::Low,
        };
        Self { score: score.min(100), level }
    }
}

/// How far a product is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Only things it left behind.
    Traces,
    /// Something starts it or refers to it.
    Configured,
    /// Its program is there.
    Installed,
    /// It runs.
    Running,
}

impl State {
    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Configured => "configured",
            Self::Installed => "installed",
            Self::Running => "running",
        }
    }
}

/// What the registry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryState {
    /// No record knows it.
    Shadow,
    /// A record knew it whose end date has passed.
    Expired,
    /// A person has retired the agent that its record names: it is never to run again.
    Retired,
    /// The registry could not be read.
    Unknown,
    /// A record knows it.
    Registered,
    /// No agent by itself; nothing to register.
    Component,
}

impl RegistryState {
    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Expired => "expired",
            Self::Retired => "retired",
            Self::Unknown => "unknown",
            Self::Registered => "registered",
            Self::Component => "component",
        }
    }
}

/// What the registry says, and of whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// In a word.
    pub state: RegistryState,
    /// Id of the agent, where a record was found.
    pub agent: Option<String>,
}

/// A process of a find.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Process id on the host.
    pub pid: u32,
    /// When it was made.
    pub start_time: Option<Time>,
    /// Executable, as its own mount namespace names it.
    pub exe: Option<String>,
    /// Script or module that an interpreter runs.
    pub script: Option<String>,
    /// Arguments; what may be a secret is replaced, long ones are cut.
    pub args: Vec<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// Real uid.
    pub uid: Option<u32>,
    /// systemd unit.
    pub unit: Option<String>,
    /// Container id.
    pub container: Option<String>,
    /// Addresses it listens on.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub listens: Vec<String>,
    /// Only carries the mark that the agent sets for its children; which process the agent is is not known.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub marked: bool,
}

/// A parent of a process: who started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Process id.
    pub pid: u32,
    /// Executable or name.
    pub exe: Option<String>,
    /// Real uid.
    pub uid: Option<u32>,
}

/// Whose it is, as far as known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Uid that it runs as, or whose home it lies in; absent for what belongs to the system.
    pub uid: Option<u32>,
    /// Name of that user.
    pub user: Option<String>,
    /// User who logged in, whatever uid it runs as now.
    pub login_user: Option<String>,
    /// Number of the login session.
    pub session: Option<u32>,
    /// systemd unit.
    pub unit: Option<String>,
    /// Container id.
    pub container: Option<String>,
    /// From the process to the one that the system started, nearest first.
    pub started_by: Vec<Parent>,
}

/// An MCP server in a client's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpServer {
    /// Its name there.
    pub name: String,
    /// `stdio`, `http`, `sse`, or what the file says.
    pub transport: String,
    /// Command and arguments, or URL; secrets replaced.
    pub command: String,
    /// What it reaches, where known: `files /srv`, `GitHub`, a host.
    pub reach: Option<String>,
    /// Its tools write, as far as known.
    pub writes: Option<bool>,
    /// Names of the variables that it is given.
    pub env: Vec<String>,
    /// The configuration file.
    pub config: String,
    /// It is switched off there.
    pub disabled: bool,
}

/// How much a line of evidence says about the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// Little: shared names, things that others have too.
    Weak,
    /// Something.
    Medium,
    /// Enough alone.
    Strong,
}

/// One thing that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Kind of source: `process`, `package`, `state` …
    pub source: String,
    /// How much it says.
    pub strength: Strength,
    /// What was seen; never a secret's value.
    pub what: String,
    /// Where: a path, or `pid N`.
    pub at: String,
    /// When it was made or last changed.
    pub when: Option<Time>,
}

/// Something that makes a find worse.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Risk {
    /// `runs_as_root`, `unsafe_flags`, `keys_in_reach`, `listens_beyond_loopback`, `mcp_writes`,
    /// `credentials_world_readable`.
    pub mark: String,
    /// What exactly; names only.
    pub detail: String,
}

/// What to do about a find.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fix {
    /// In a sentence.
    pub advice: String,
    /// Name of the record that `sweep --propose DIR` writes.
    pub record: String,
}

/// Since the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Was not in the baseline.
    New,
    /// As in the baseline.
    Seen,
    /// In the baseline, with another state, version, registry state, or more risks.
    Changed,
    /// Only in the baseline.
    Gone,
}

impl Change {
    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Seen => "seen",
            Self::Changed => "changed",
            Self::Gone => "gone",
        }
    }
}

/// One product of one owner in one place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Find {
    /// The same for the same product, owner and place, from sweep to sweep: `shadow-` and 12 hex digits.
    pub id: String,
    /// What it is.
    pub product: Product,
    /// How sure that it is that product.
    pub identity: Confidence,
    /// How sure that it is really there, and not only what is left of it.
    pub presence: Confidence,
    /// How far it is there.
    pub state: State,
    /// What the registry says.
    pub registry: Registry,
    /// Whose it is.
    pub owner: Owner,
    /// Files and directories that are it.
    pub paths: Vec<String>,
    /// Its processes.
    pub processes: Vec<ProcessRef>,
    /// MCP servers that it is configured with.
    pub mcp_servers: Vec<McpServer>,
    /// Everything that was seen of it, strongest first.
    pub evidence: Vec<Evidence>,
    /// What makes it worse.
    pub risks: Vec<Risk>,
    /// What to do.
    pub fix: Option<Fix>,
    /// Since the baseline, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// Times that shell histories name it (`--history`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_count: Option<u64>,
}

impl Find {
    /// A shadow agent that one should act on: unregistered, expired or retired, and that it is one and is there are both surer
    /// than low. What only left traces is reported and is none.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        self.is_unregistered() && self.presence.level > Level::Low
    }

    /// The same where nothing but traces may be left of it.
    #[must_use]
    pub fn is_unregistered(&self) -> bool {
        matches!(self.registry.state, RegistryState::Shadow | RegistryState::Expired | RegistryState::Retired)
            && self.identity.level > Level::Low
    }
}

/// How far a source was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Looked {
    /// All of it.
    Whole,
    /// Not all of it; `detail` says what is missing.
    Partly,
    /// Not at all, for want of permission.
    NotPermitted,
    /// Not at all, since nobody asked for it or it makes no sense here.
    NotLooked,
    /// It did not answer in time.
    TimedOut,
}

impl Looked {
    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Partly => "partly",
            Self::NotPermitted => "not_permitted",
            Self::NotLooked => "not_looked",
            Self::TimedOut => "timed_out",
        }
    }
}

/// What was looked at: "nothing found" and "not looked" are different answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Coverage {
    /// The source: `processes`, `home /home/a`, `container 0123…` …
    pub source: String,
    /// How far.
    pub looked: Looked,
    /// Things looked at.
    pub count: u64,
    /// What is missing, and why.
    pub detail: Option<String>,
}

/// One line of `-o jsonl`: a find that stands for itself wherever it is collected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// The host.
    pub host: HostId,
    /// The sweep.
    pub sweep: Sweep,
    /// The find.
    #[serde(flatten)]
    pub find: Find,
}

impl Report {
    /// The report as self-contained lines, what is gone included.
    pub fn lines(&self) -> impl Iterator<Item = Line> + '_ {
        self.finds.iter().chain(&self.gone).map(|find| Line {
            schema_version: SCHEMA_VERSION,
            host: self.host.clone(),
            sweep: self.sweep.clone(),
            find: find.clone(),
        })
    }

    /// Number of shadow agents to act on.
    #[must_use]
    pub fn shadows(&self) -> usize {
        self.finds.iter().filter(|find| find.is_shadow()).count()
    }
}
