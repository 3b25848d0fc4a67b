//! Settings of the daemon, and of the CLI as far as it shares them (where the socket and the registry are).
//!
//! A setting comes from a flag, else from the environment, else from the file, else from its default. Flags and
//! environment arrive as one [`Layer`] (clap reads both), the file as another. The file is optional only at its
//! default place. Here nothing is checked against the host; `run` does that.

mod log;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::people::settings::{Layer as ApprovalLayer, Settings};
pub use log::LogLayer;

use crate::log::Settings as LogSettings;
use crate::record::Limits;
use crate::redact::{OwnRule, Redactor, RuleError};
use crate::registry::record::Approver;
use crate::registry::{Code, Diagnostic, Severity, source::Source};

/// Where the file is looked for.
pub const FILE: &str = "/etc/agent-monitor/agent-monitor.toml";
/// Default of [`Config::registry`].
pub const REGISTRY: &str = "/etc/agent-monitor/agents.d";
/// Default of [`Config::state_dir`].
pub const STATE_DIR: &str = "/var/lib/agent-monitor";
/// Default of [`Config::socket`].
pub const SOCKET: &str = "/run/agent-monitor/control.sock";
/// Default of [`Config::ring_bytes`], in KiB.
pub const RING_KIB: usize = 8192;
/// Default of [`Config::bpffs`].
pub const BPFFS: &str = "/sys/fs/bpf/agent-monitor";

/// What is reported of processes without an agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unattributed {
    /// Nothing.
    None,
    /// That they start.
    #[default]
    Exec,
    /// All they do, as for agents.
    All,
}

impl Unattributed {
    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Exec => "exec",
            Self::All => "all",
        }
    }
}

/// What `run` writes to its standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// One readable line per event.
    #[default]
    Text,
    /// The JSON contract, one event per line.
    Jsonl,
    /// No events.
    None,
}

/// What becomes of an agent that runs and that no record knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShadowAct {
    /// Nothing, not even a finding.
    Off,
    /// A finding.
    #[default]
    Audit,
    /// A finding, and what it does waits for a person; what every program needs to start does not.
    Hold,
    /// A finding, and it may do nothing.
    Deny,
    /// A finding, and its end.
    Kill,
}

impl ShadowAct {
    /// Whether the kernel has a part in it. Programs that are known on this host are then met at their exec, before the
    /// new image runs; others some milliseconds later.
    #[must_use]
    pub const fn stops(self) -> bool {
        matches!(self, Self::Hold | Self::Deny | Self::Kill)
    }

    /// The word of the settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Audit => "audit",
            Self::Hold => "hold",
            Self::Deny => "deny",
            Self::Kill => "kill",
        }
    }
}

/// Policy about agents without a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shadow {
    /// What is done.
    pub act: ShadowAct,
    /// Who is let alone: `user:NAME`, `unit:NAME`, `path:GLOB`.
    pub except: Vec<String>,
    /// Who decides about what is held; nobody but root where none is named.
    pub approvers: Vec<Approver>,
}

impl Shadow {
    /// Whether what is held waits for root alone. Then nobody may decide about what runs as root: an approver is never of
    /// the agent's own user.
    #[must_use]
    pub fn root_decides_alone(&self) -> bool {
        let root = |approver: &Approver| matches!(approver, Approver::User(name) if name == "root");
        self.act == ShadowAct::Hold && self.approvers.iter().all(root)
    }

    /// Exceptions of a kind (`user`, `unit`, `path`), without the kind.
    pub fn excepted<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> {
        self.except
            .iter()
            .filter_map(|rule| rule.split_once(':'))
            .filter(move |(of, _)| *of == kind)
            .map(|(_, rest)| rest)
    }
}

/// Checked settings of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The directory of records.
    pub registry: PathBuf,
    /// What the daemon keeps.
    pub state_dir: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Group that may call the socket, by name or number; `None` leaves the daemon's group.
    pub socket_group: Option<String>,
    /// Where links and maps are pinned.
    pub bpffs: PathBuf,
    /// The kernel's types (BTF), where another file than the kernel's own is to be read.
    pub btf: Option<PathBuf>,
    /// What is reported of processes without an agent.
    pub unattributed: Unattributed,
    /// A throw-away state directory, an example registry and a scripted agent.
    pub demo: bool,
    /// One bad record refuses the start, instead of only itself.
    pub strict: bool,
    /// What is written to standard output.
    pub stream: Stream,
    /// Bounds of the record in memory.
    pub limits: Limits,
    /// Bytes of the event ring: a power of two, 4 KiB to 1 GiB.
    pub ring_bytes: u32,
    /// Works as on a host without BPF LSM.
    pub force_partial: bool,
    /// Forgets what an earlier daemon left in force: its bindings, scopes and approvals in the kernel.
    pub fresh: bool,
    /// A clean end takes everything out of the kernel, also while agents are enforced.
    pub detach_on_exit: bool,
    /// How long people have, and how they are told.
    pub approval: Settings,
    /// The durable log.
    pub log: LogSettings,
    /// Redaction rules of the operator's own; they compile.
    pub redact: Vec<OwnRule>,
    /// What becomes of agents without a record.
    pub shadow: Shadow,
}

/// Some of the settings, from one place. As TOML it is the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Layer {
    /// See [`Config::registry`].
    pub registry: Option<PathBuf>,
    /// See [`Config::state_dir`].
    pub state_dir: Option<PathBuf>,
    /// See [`Config::socket`].
    pub socket: Option<PathBuf>,
    /// See [`Config::socket_group`].
    pub socket_group: Option<String>,
    /// See [`Config::bpffs`].
    pub bpffs: Option<PathBuf>,
    /// See [`Config::btf`].
    pub btf: Option<PathBuf>,
    /// See [`Config::unattributed`].
    pub unattributed: Option<Unattributed>,
    /// See [`Config::strict`].
    pub strict: Option<bool>,
    /// See [`Config::stream`].
    pub stream: Option<Stream>,
    /// KiB of the event ring, a power of two.
    pub ring_kib: Option<usize>,
    /// See [`Config::force_partial`].
    pub force_partial: Option<bool>,
    /// See [`Config::detach_on_exit`].
    pub detach_on_exit: Option<bool>,
    /// See [`Shadow::act`].
    pub shadow: Option<ShadowAct>,
    /// See [`Shadow::except`].
    pub shadow_except: Option<Vec<String>>,
    /// See [`Shadow::approvers`]: `user:NAME`, `group:NAME`, or a name that stands for both.
    pub shadow_approvers: Option<Vec<String>>,
    /// Table `[record]`.
    pub record: RecordLayer,
    /// Table `[approval]`.
    pub approval: ApprovalLayer,
    /// Table `[log]`.
    pub log: LogLayer,
    /// Tables `[[redact]]`.
    pub redact: Vec<OwnRule>,
    /// Flag only: in a file it would undo every restart.
    #[serde(skip)]
    pub fresh: bool,
    /// Flag only.
    #[serde(skip)]
    pub demo: bool,
}

/// Bounds of the record in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RecordLayer {
    /// Events held at most, 1 … 16 777 216.
    pub events: Option<usize>,
    /// MiB held at most, 1 … 65 536.
    pub mebibytes: Option<usize>,
}

/// Why the settings do not hold.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The text is wrong at a place.
    #[error("{}", .0.message)]
    Text(Box<Diagnostic>),
    /// A value is out of its range.
    #[error("{key} = {value} is out of range: {range}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: usize,
        /// What is possible.
        range: &'static str,
    },
    /// A value of `[approval]` does not hold.
    #[error("{0}")]
    Approval(String),
    /// A redaction rule cannot be used.
    #[error(transparent)]
    Redact(#[from] RuleError),
    /// An exception from the policy about shadow agents is of no known kind.
    #[error("shadow-except: `{rule}` is neither user:NAME, unit:NAME nor path:GLOB")]
    Exception {
        /// The exception.
        rule: String,
    },
    /// Somebody who is to decide about shadow agents has no name.
    #[error("shadow-approvers: `{name}` is neither user:NAME, group:NAME nor a name")]
    Approver {
        /// What was written.
        name: String,
    },
    /// A path must be absolute, for a daemon has no place of its own.
    #[error("{key}: {} is not absolute", path.display())]
    Relative {
        /// The key.
        key: &'static str,
        /// Its value.
        path: PathBuf,
    },
}

impl Layer {
    /// Reads `explicit`, or the default file if there is one.
    ///
    /// # Errors
    /// When the file cannot be read or is wrong.
    pub fn from_file(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        let path = explicit.unwrap_or(Path::new(FILE));
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if explicit.is_none() && error.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// Reads the text of a configuration file; `path` is for messages.
    ///
    /// # Errors
    /// With the place, for unknown keys too.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let source = Source::new(path, text);
            let at = source.position(error.span().unwrap_or(0..0));
            let code =
                if error.message().starts_with("unknown field") { Code::UnknownKey } else { Code::Syntax };
            let diagnostic = Diagnostic::new(&source, Severity::Error, code, at, error.message());
            ConfigError::Text(Box::new(diagnostic.hint("the keys are those of `agent-monitor run --help`")))
        })
    }

    /// This layer, with `below` where it says nothing.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            registry: self.registry.or(below.registry),
            state_dir: self.state_dir.or(below.state_dir),
            socket: self.socket.or(below.socket),
            socket_group: self.socket_group.or(below.socket_group),
            bpffs: self.bpffs.or(below.bpffs),
            btf: self.btf.or(below.btf),
            unattributed: self.unattributed.or(below.unattributed),
            strict: self.strict.or(below.strict),
            stream: self.stream.or(below.stream),
            record: RecordLayer {
                events: self.record.events.or(below.record.events),
                mebibytes: self.record.mebibytes.or(below.record.mebibytes),
            },
            approval: self.approval.over(below.approval),
            ring_kib: self.ring_kib.or(below.ring_kib),
            force_partial: self.force_partial.or(below.force_partial),
            detach_on_exit: self.detach_on_exit.or(below.detach_on_exit),
            log: self.log.over(below.log),
            redact: if self.redact.is_empty() { below.redact } else { self.redact },
            shadow: self.shadow.or(below.shadow),
            shadow_except: self.shadow_except.or(below.shadow_except),
            shadow_approvers: self.shadow_approvers.or(below.shadow_approvers),
            demo: self.demo || below.demo,
            fresh: self.fresh || below.fresh,
        }
    }

    /// Fills in the defaults and checks the ranges.
    ///
    /// # Errors
    /// Names the first value that does not hold.
    pub fn finish(self) -> Result<Config, ConfigError> {
        let Limits { events, bytes, subscribers, queue } = Limits::default();
        let events = self.record.events.unwrap_or(events);
        let mebibytes = self.record.mebibytes.unwrap_or(bytes >> 20);
        in_range("record.events", events, 1..=1 << 24, "1 to 16777216 events")?;
        in_range("record.mebibytes", mebibytes, 1..=1 << 16, "1 to 65536 MiB")?;
        let ring_kib = self.ring_kib.unwrap_or(RING_KIB);
        in_range("ring-kib", ring_kib, 4..=1 << 20, "a power of two from 4 to 1048576 KiB")?;
        if !ring_kib.is_power_of_two() {
            let range = "a power of two from 4 to 1048576 KiB";
            return Err(ConfigError::Range { key: "ring-kib", value: ring_kib, range });
        }
        Redactor::new([0; 32], &self.redact)?;
        Ok(Config {
            log: self.log.finish()?,
            redact: self.redact,
            registry: absolute("registry", self.registry, REGISTRY)?,
            state_dir: absolute("state-dir", self.state_dir, STATE_DIR)?,
            socket: absolute("socket", self.socket, SOCKET)?,
            socket_group: self.socket_group,
            bpffs: absolute("bpffs", self.bpffs, BPFFS)?,
            btf: self.btf,
            unattributed: self.unattributed.unwrap_or_default(),
            demo: self.demo,
            fresh: self.fresh,
            strict: self.strict.unwrap_or(false),
            stream: self.stream.unwrap_or_default(),
            limits: Limits { events, bytes: mebibytes << 20, subscribers, queue },
            ring_bytes: u32::try_from(ring_kib << 10).unwrap_or(1 << 30),
            force_partial: self.force_partial.unwrap_or(false),
            detach_on_exit: self.detach_on_exit.unwrap_or(false),
            approval: self.approval.finish().map_err(ConfigError::Approval)?,
            shadow: shadow(self.shadow, self.shadow_except, self.shadow_approvers)?,
        })
    }
}

fn shadow(
    act: Option<ShadowAct>,
    except: Option<Vec<String>>,
    approvers: Option<Vec<String>>,
) -> Result<Shadow, ConfigError> {
    let except = except.unwrap_or_default();
    let approvers = approvers.unwrap_or_default();
    let approvers = approvers
        .iter()
        .map(|text| Approver::parse(text).ok_or_else(|| ConfigError::Approver { name: text.clone() }))
        .collect::<Result<Vec<_>, _>>()?;
    let known = |rule: &&String| {
        ["user:", "unit:", "path:"]
            .iter()
            .any(|kind| rule.strip_prefix(kind).is_some_and(|rest| !rest.is_empty()))
    };
    match except.iter().find(|rule| !known(rule)) {
        Some(rule) => Err(ConfigError::Exception { rule: rule.clone() }),
        None => Ok(Shadow { act: act.unwrap_or_default(), except, approvers }),
    }
}

fn in_range(
    key: &'static str,
    value: usize,
    range: std::ops::RangeInclusive<usize>,
    words: &'static str,
) -> Result<(), ConfigError> {
    if range.contains(&value) { Ok(()) } else { Err(ConfigError::Range { key, value, range: words }) }
}

fn absolute(key: &'static str, path: Option<PathBuf>, default: &str) -> Result<PathBuf, ConfigError> {
    let path = path.unwrap_or_else(|| PathBuf::from(default));
    if path.is_absolute() { Ok(path) } else { Err(ConfigError::Relative { key, path }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Layer, ConfigError> {
        Layer::parse(Path::new("a.toml"), text)
    }

    #[test]
    fn upper_layers_win_and_defaults_fill() {
        let file = parse("socket = \"/a\"\nunattributed = \"all\"\n[record]\nevents = 5\n").unwrap();
        let flags = Layer { socket: Some("/b".into()), demo: true, ..Layer::default() };
        let config = flags.over(file).finish().unwrap();
        assert_eq!((config.socket, config.unattributed), (PathBuf::from("/b"), Unattributed::All));
        assert_eq!((config.limits.events, config.limits.bytes), (5, Limits::default().bytes));
        assert!(config.demo && !config.strict && config.registry == Path::new(REGISTRY));
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, code, line, column) in [
            ("\n  sockets = \"/a\"", Code::UnknownKey, 2, 3),
            ("socket = 7", Code::Syntax, 1, 10),
            ("strict = \n", Code::Syntax, 1, 10),
            ("[record]\nevents = -1", Code::Syntax, 2, 10),
        ] {
            match parse(text) {
                Err(ConfigError::Text(diagnostic)) => {
                    assert_eq!((diagnostic.at.line, diagnostic.at.column), (line, column), "{text}");
                    assert_eq!(diagnostic.code, code, "{}", diagnostic.message);
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn shadow_policy_and_its_exceptions() {
        let text = "shadow = \"kill\"\nshadow-except = [\"user:ci\", \"path:/opt/*\"]\n\
                    shadow-approvers = [\"group:oncall\"]\n";
        let shadow = parse(text).unwrap().finish().unwrap().shadow;
        assert_eq!((shadow.act, shadow.except.len()), (ShadowAct::Kill, 2));
        assert_eq!(shadow.excepted("path").collect::<Vec<_>>(), ["/opt/*"]);
        assert_eq!(shadow.approvers, [Approver::Group("oncall".to_owned())]);
        let alone = |text: &str| parse(text).unwrap().finish().unwrap().shadow.root_decides_alone();
        assert!(alone("shadow = \"hold\"") && alone("shadow = \"hold\"\nshadow-approvers = [\"user:root\"]"));
        assert!(!alone("shadow = \"deny\"") && !alone("shadow = \"hold\"\nshadow-approvers = [\"ann\"]"));
        assert_eq!(parse("").unwrap().finish().unwrap().shadow, Shadow::default());
        for act in ["off", "audit", "hold", "deny", "kill"] {
            let layer = parse(&format!("shadow = \"{act}\"\n")).unwrap();
            assert_eq!(layer.finish().unwrap().shadow.act.as_str(), act);
        }
        assert!(parse("shadow = \"freeze\"\n").is_err(), "what cannot be done is refused");
        let nobody = parse("shadow-approvers = [\"user:\"]\n").unwrap().finish();
        assert!(matches!(nobody, Err(ConfigError::Approver { .. })));
        let wrong = parse("shadow-except = [\"group:x\"]\n").unwrap().finish();
        assert!(matches!(wrong, Err(ConfigError::Exception { .. })));
    }

    #[test]
    fn ranges_and_relative_paths_are_refused() {
        let none = Layer::default();
        let record = RecordLayer { events: Some(0), mebibytes: None };
        assert!(matches!(Layer { record, ..none.clone() }.finish(), Err(ConfigError::Range { .. })));
        let relative = Layer { registry: Some("agents".into()), ..none };
        assert!(matches!(relative.finish(), Err(ConfigError::Relative { key: "registry", .. })));
        assert!(matches!(Layer::from_file(Some(Path::new("/nonexistent"))), Err(ConfigError::Read { .. })));
    }
}
