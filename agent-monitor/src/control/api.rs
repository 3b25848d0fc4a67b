//! Bodies of the control API. Fields are added, never renamed.

use serde::{Deserialize, Serialize};

use crate::health::Summary;
use crate::health::doctor::Level;
use crate::log::recorder::LogStatus;
use crate::model::{Mode, Time};
use crate::record::Extent;

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecord {
    /// Its file.
    pub file: String,
    /// Why, with line and column where there is one.
    pub reason: String,
}

/// Answer to `GET /v1/agents`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentList {
    /// [`crate::model::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// By id.
    pub agents: Vec<AgentSummary>,
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
    /// `active`, `suspended`, `retired`, `expired`.
    pub state: String,
    /// When it ends.
    pub expires: Option<Time>,
    /// The file of its record.
    pub file: Option<String>,
    /// Processes bound now; `null` where the daemon was not asked.
    pub processes: Option<u64>,
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
