//! Bodies of the control API. Fields are added, never renamed.

use serde::{Deserialize, Serialize};

use crate::health::Summary;
use crate::health::doctor::Level;
use crate::log::recorder::LogStatus;
use crate::model::{Mode, Time};
use crate::record::Extent;
use crate::scope::hold::{RuleCounts, RuleState};

/// Answer to `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`crate::model::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// State of the daemon.
    #[serde(flatten)]
    pub daemon: DaemonStatus,
    /// What is held in memory.
    pub record: Extent,
    /// Totals since the start.
    pub totals: Summary,
}

/// The part of the status that only the running daemon knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub started: Time,
    /// `uname -r`.
    pub kernel: String,
    /// What this host can do.
    pub level: Level,
    /// What is lost on this host, one sentence each.
    pub degraded: Vec<String>,
    /// `none`, `exec` or `all`.
    pub unattributed: String,
    /// The directory of records.
    pub registry: String,
    /// Agents registered.
    pub agents: u64,
    /// Records that were refused at the last load.
    pub refused: Vec<RefusedRecord>,
    /// Agents whose last good record is in force instead of what is on disk.
    #[serde(default)]
    pub stale: Vec<StaleAgent>,
    /// What of the records that were in force was lost with the state directory, one sentence each.
    #[serde(default)]
    pub records_lost: Vec<String>,
    /// The directory of the daemon's state and log.
    #[serde(default)]
    pub state_dir: String,
    /// Processes bound now.
    pub bound_processes: u64,
    /// The durable log; absent where there is to be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogStatus>,
    /// Agents without a record.
    #[serde(default)]
    pub shadow: ShadowStatus,
}

/// What becomes of agents without a record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowStatus {
    /// `off`, `audit`, `hold`, `deny` or `kill`.
    pub policy: String,
    /// Programs on this host that the kernel meets at their exec, before the new image runs.
    pub programs: u64,
    /// What this policy cannot do here, one sentence each.
    pub limits: Vec<String>,
}

/// A record that was not taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecord {
    /// Its file.
    pub file: String,
    /// Why, with line and column where there is one.
    pub reason: String,
    /// The agent that it names, where it can be parsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The agent is retired, and its file is still there: nothing needs to be done.
    #[serde(default)]
    pub ended: bool,
}

/// An agent whose last good record is in force instead of what is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleAgent {
    /// The agent.
    pub agent: String,
    /// The file of its record.
    pub file: String,
    /// Why.
    pub reason: String,
    /// Since when, wall clock.
    pub since: Time,
    /// What to do about it.
    pub cure: String,
}

/// Answer to `GET /v1/agents`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentList {
    /// [`crate::model::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// By id.
    pub agents: Vec<AgentSummary>,
    /// Record files that are not in force.
    #[serde(default)]
    pub refused: Vec<RefusedRecord>,
}

/// One registered agent in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSummary {
    /// Its id.
    pub id: String,
    /// Who answers for it.
    pub owner: String,
    /// What it is for.
    pub purpose: String,
    /// Whether its verdicts are carried out.
    pub mode: Mode,
    /// `active`, `observing`, `stale`, `suspended`, `retired`, `expired`.
    pub state: String,
    /// When it ends.
    pub expires: Option<Time>,
    /// The file of its record.
    pub file: Option<String>,
    /// Processes bound now; `null` where the daemon was not asked.
    pub processes: Option<u64>,
    /// Its last good record is in force instead of what is on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<StaleAgent>,
    /// Where its rules are enforced on this host, base sets included.
    #[serde(default)]
    pub rules: RuleCounts,
    /// Sessions that are open.
    #[serde(default)]
    pub sessions: u64,
    /// When it last did anything, wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,
    /// Acts that wait for a person.
    #[serde(default)]
    pub requests: u64,
}

/// Answer to `GET /v1/agents/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentDetail {
    /// [`crate::model::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The line of the list.
    #[serde(flatten)]
    pub summary: AgentSummary,
    /// The whole record, as JSON of the registry's types.
    pub record: serde_json::Value,
    /// Its scope as TOML, for those who plan by it; empty where none is declared.
    #[serde(default)]
    pub scope: String,
    /// The record as TOML, with its file and end date in front.
    #[serde(default)]
    pub toml: String,
    /// Every rule, base sets included, and where it is enforced on this host.
    #[serde(default)]
    pub enforced: Vec<RuleState>,
    /// Live processes: each tree from its root down, children after their parent.
    pub tree: Vec<ProcessRow>,
}

/// A live process of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRow {
    /// Its pid.
    pub pid: u32,
    /// Its parent.
    pub ppid: Option<u32>,
    /// Distance from the root of its tree within the agent.
    pub depth: u32,
    /// When it was made.
    pub start_time: Option<Time>,
    /// Executable.
    pub exe: Option<String>,
    /// Arguments, escaped by [`crate::model::text`].
    pub args: Vec<String>,
    /// Name of its user, or the number.
    pub user: Option<String>,
    /// How it was bound.
    pub bound_by: crate::model::BoundBy,
    /// How late, for bindings from user space.
    pub bound_delay_ms: Option<u64>,
    /// Its session.
    pub session: Option<String>,
    /// The agent that started this one.
    pub delegator: Option<String>,
}

/// Answer to `POST /v1/agents/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Agents registered now.
    pub agents: u64,
    /// Ids that are new.
    pub added: Vec<String>,
    /// Ids whose record changed.
    pub changed: Vec<String>,
    /// Ids that are gone.
    pub removed: Vec<String>,
    /// Records that were refused.
    pub refused: Vec<RefusedRecord>,
    /// Agents whose last good record is in force instead of what is on disk.
    #[serde(default)]
    pub stale: Vec<StaleAgent>,
}

impl Reloaded {
    /// Whether something on disk is not in force, retired agents apart.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        !self.stale.is_empty() || self.refused.iter().any(|refused| !refused.ended)
    }
}

/// Body of `POST /v1/agents/check`: what would become of a record, without changing anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// The record.
    pub text: String,
    /// Its name in messages.
    pub name: String,
}

/// Answer to `POST /v1/agents/check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReply {
    /// [`crate::model::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Whether it would be put in force.
    pub ok: bool,
    /// What this host can do.
    pub level: Level,
    /// The agent, where the text could be parsed.
    pub agent: Option<String>,
    /// The problems as text for a terminal, one below the other.
    pub problems: String,
    /// The errors in one line each.
    pub errors: Vec<String>,
    /// What differs from the record in force; empty for a new agent.
    pub changes: Vec<String>,
    /// Where its rules would be enforced.
    pub rules: RuleCounts,
    /// Every rule.
    pub enforced: Vec<RuleState>,
    /// Processes that are bound to the agent now, and would be under the new record at once.
    pub running: Vec<u32>,
    /// Processes that run now and would be bound.
    pub binds: Vec<u32>,
}

/// Body of `POST /v1/exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// The agent to become.
    pub agent: String,
    /// What the run is for.
    #[serde(default)]
    pub task: Option<String>,
    /// The run ends by itself after so many seconds.
    #[serde(default)]
    pub ttl_seconds: Option<u64>,
    /// TOML with a `[scope]`: the run may do what both this and the agent's scope permit.
    #[serde(default)]
    pub scope: Option<String>,
    /// The caller's own pid as it sees it, for the log; the socket's credentials decide.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Declared rules that the launch does not hold, in words; told in the record.
    #[serde(default)]
    pub not_held: Vec<String>,
    /// The launch confines the command by Landlock.
    #[serde(default)]
    pub landlock: bool,
}

/// Answer to `POST /v1/exec`: the caller is bound now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecReply {
    /// The agent.
    pub agent: String,
    /// The session that was opened, where there is one.
    pub session: Option<String>,
}

/// Body of every error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: String,
    /// What to do about it.
    pub hint: String,
    /// Line in the body that was sent, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column in that line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
}

/// An error with its HTTP status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", body.error)]
pub struct ApiError {
    /// HTTP status, 400–599.
    pub status: u16,
    /// What the caller reads.
    pub body: ErrorBody,
}

impl ApiError {
    /// An error with `status`, what went wrong and what to do.
    #[must_use]
    pub fn new(status: u16, error: impl Into<String>, hint: impl Into<String>) -> Self {
        let body = ErrorBody { error: error.into(), hint: hint.into(), line: None, column: None };
        Self { status, body }
    }

    /// There is no agent `id`.
    #[must_use]
    pub fn no_agent(id: &str) -> Self {
        Self::new(404, format!("no agent `{id}` is registered"), "agent-monitor agent list")
    }
}
