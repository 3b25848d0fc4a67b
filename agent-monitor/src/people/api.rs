//! Bodies of the control API about approvals, sessions, grants and the life of agents. Fields are added, never renamed.

use serde::{Deserialize, Serialize};

use super::who::Caller;
use crate::model::{Event, Time};

/// Answer to `GET /v1/approvals`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalList {
    /// [`crate::model::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What waits first, the longest waiting first; then what was decided, the latest first.
    pub approvals: Vec<ApprovalView>,
    /// Agents of which further requests are denied at once.
    pub floods: Vec<FloodView>,
}

/// An agent that asks too much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloodView {
    /// The agent.
    pub agent: String,
    /// Since when.
    pub since: Time,
    /// Requests denied at once.
    pub denied: u64,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalView {
    /// Its number.
    pub id: i64,
    /// The agent.
    pub agent: String,
    /// Digest of the exact action: what an approval is bound to.
    pub digest: String,
    /// `pending`, `approved`, `denied`, `expired`, `gone`.
    pub state: String,
    /// The process is stopped inside the action; otherwise the action was refused and the next try may pass.
    pub held: bool,
    /// How often it was asked; identical requests are merged.
    pub count: u64,
    /// The processes that wait.
    pub waiting: Vec<u32>,
    /// When it was first asked.
    pub asked: Time,
    /// When it is denied by itself.
    pub expires: Time,
    /// Milliseconds until then; 0 when decided.
    pub left_ms: u64,
    /// The action, as it is in the record.
    pub event: Event,
    /// Who has said yes so far.
    pub votes: Vec<VoteView>,
    /// How many different people must; 0 where the agent is gone.
    pub need: usize,
    /// Who may.
    pub approvers: String,
    /// What was approved: `once`, `for 600s`, `session`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
    /// When it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Time>,
    /// By whom; absent for the daemon itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Where that call came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
}

/// One yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteView {
    /// User id.
    pub uid: u32,
    /// Its name.
    pub user: Option<String>,
    /// What was said yes to.
    pub form: String,
    /// When.
    pub at: Time,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Where that call came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
}

/// Answer to `GET /v1/approvals/{id}`: one request with what a person needs to decide it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalDetail {
    /// [`crate::model::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The request.
    #[serde(flatten)]
    pub approval: ApprovalView,
    /// Who answers for the agent.
    pub owner: Option<String>,
    /// What the agent is for.
    pub purpose: Option<String>,
    /// The session of the first process that waits.
    pub session: Option<SessionView>,
    /// What each form of approval would let pass, in words.
    pub forms: Vec<FormView>,
    /// The latest actions of this process and its session, oldest first.
    pub recent: Vec<Event>,
}

/// A form of approval and what it means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormView {
    /// `once`, `for`, `session`.
    pub form: String,
    /// What would pass.
    pub means: String,
    /// More than this one action.
    pub widens: bool,
}

/// Body of `POST /v1/approvals/{id}/approve`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// `once` (the default), `for` or `session`.
    #[serde(default)]
    pub form: Option<String>,
    /// With `for`: seconds, 1 to 86400.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// Why, for the record.
    #[serde(default)]
    pub why: Option<String>,
    /// The digest that the person saw; refused when the request is another one.
    #[serde(default)]
    pub digest: Option<String>,
}

/// Body of `POST /v1/approvals/{id}/deny`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyRequest {
    /// Why, for the record.
    #[serde(default)]
    pub why: Option<String>,
    /// Also suspend the agent.
    #[serde(default)]
    pub suspend: bool,
}

/// Answer to a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionReply {
    /// The request.
    pub id: i64,
    /// Its state now: `pending` while more people are asked.
    pub state: String,
    /// Who have said yes.
    pub votes: usize,
    /// How many are needed.
    pub need: usize,
    /// The request that the processes not covered by this decision wait in now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<i64>,
    /// What it means, in words.
    pub means: String,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Its id (UUIDv7).
    pub id: String,
    /// Its number in the kernel, 16 hex digits: what older events show.
    pub number: String,
    /// The agent.
    pub agent: String,
    /// What the run is for.
    pub task: Option<String>,
    /// `active` or `ended`.
    pub state: String,
    /// The process it began with.
    pub root_pid: Option<u32>,
    /// How that was bound.
    pub bound_by: String,
    /// Who started it; absent where a rule recognised it.
    pub by: Option<String>,
    /// When it began.
    pub started: Time,
    /// When it ends by itself.
    pub expires: Option<Time>,
    /// Milliseconds until then.
    pub left_ms: Option<u64>,
    /// Its own scope as TOML, where it has one.
    pub scope: Option<String>,
    /// Processes of it now.
    pub processes: u64,
    /// When it ended.
    pub ended: Option<Time>,
    /// By whom.
    pub ended_by: Option<String>,
    /// Why.
    pub why: Option<String>,
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantView {
    /// Its number.
    pub id: i64,
    /// The agent.
    pub agent: String,
    /// Only for this session.
    pub session: Option<String>,
    /// What it adds, as TOML.
    pub scope: String,
    /// Why.
    pub reason: String,
    /// `proposed`, `active`, `revoked`, `expired`, `used`.
    pub state: String,
    /// Who gave it.
    pub by: Option<String>,
    /// When.
    pub added: Time,
    /// When it ends.
    pub expires: Option<Time>,
    /// Milliseconds until then.
    pub left_ms: Option<u64>,
    /// How many actions it was for; `null` does not count.
    pub uses: Option<u32>,
    /// How many are left.
    pub uses_left: Option<u32>,
    /// How many people have agreed.
    pub agreed: usize,
    /// How many must.
    pub need: usize,
    /// When it ended.
    pub ended: Option<Time>,
    /// By whom.
    pub ended_by: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// Where the call of the one who gave it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
}

/// Answer to `GET /v1/sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionList {
    /// [`crate::model::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Active ones first, the oldest first.
    pub sessions: Vec<SessionView>,
}

/// Answer to `GET /v1/sessions/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionDetail {
    /// [`crate::model::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The session.
    #[serde(flatten)]
    pub session: SessionView,
    /// Its processes now.
    pub pids: Vec<u32>,
    /// Grants for it.
    pub grants: Vec<GrantView>,
    /// Its latest actions, oldest first.
    pub recent: Vec<Event>,
}

/// Body of `POST /v1/sessions/{id}/end`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndRequest {
    /// Why, for the record.
    #[serde(default)]
    pub why: Option<String>,
    /// Also end its processes.
    #[serde(default)]
    pub kill: bool,
}

/// Answer to `GET /v1/grants`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantList {
    /// [`crate::model::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Those in force first, the latest first.
    pub grants: Vec<GrantView>,
}

/// Body of `POST /v1/grants`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// The agent; may be left out with a session.
    #[serde(default)]
    pub agent: Option<String>,
    /// Only for this session.
    #[serde(default)]
    pub session: Option<String>,
    /// `PATH` or `PATH:access,access`.
    #[serde(default)]
    pub file: Vec<String>,
    /// Peers.
    #[serde(default)]
    pub net: Vec<String>,
    /// Programs.
    #[serde(default)]
    pub exec: Vec<String>,
    /// How long, in seconds: 1 to 30 days.
    pub seconds: u64,
    /// For how many actions, 1 to 1,000,000; left out, it does not count.
    #[serde(default)]
    pub uses: Option<u32>,
    /// Why.
    pub reason: String,
}

/// Body of calls that only say why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhyRequest {
    /// Why, for the record.
    #[serde(default)]
    pub why: Option<String>,
}

/// One step of an off-boarding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    /// Its number.
    pub number: i64,
    /// `remove_file`, `disable_unit`, `manual`.
    pub kind: String,
    /// On what.
    pub target: String,
    /// `done`, `absent`, `failed`, `open`.
    pub result: String,
    /// What was seen.
    pub evidence: serde_json::Value,
    /// SHA-256 of what was removed, of what the program said, or of the note.
    pub sha256: Option<String>,
    /// When.
    pub at: Time,
    /// Who.
    pub by: Option<String>,
}

/// Body of `POST /v1/agents/{id}/renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// The new end date.
    pub until: Time,
    /// Why, for the record.
    #[serde(default)]
    pub why: Option<String>,
}

/// Body of `POST /v1/agents/{id}/confirm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmRequest {
    /// The step's number.
    pub step: i64,
    /// What was done, for the evidence.
    #[serde(default)]
    pub note: Option<String>,
}

/// Body of `POST /v1/agents/{id}/reviewed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewedRequest {
    /// When the next review is due.
    pub due: Time,
}

/// Answer to changes of a life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LifeReply {
    /// [`crate::model::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The agent.
    pub agent: String,
    /// `active`, `suspended`, `retired`, `expired`.
    pub state: String,
    /// Processes that were stopped or ended.
    pub processes: usize,
    /// Everything of it is as it should be.
    pub complete: bool,
    /// The control group that was frozen.
    pub frozen: Option<String>,
    /// What the kernel refused.
    pub failed: Vec<String>,
    /// When it ends now.
    pub expires: Option<Time>,
    /// The steps of its off-boarding.
    pub steps: Vec<StepView>,
}

/// What people did about an agent: `GET /v1/agents/{id}/people`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentPeople {
    /// [`crate::model::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The agent.
    pub agent: String,
    /// Its state.
    pub state: String,
    /// Since when, where it ever changed.
    pub since: Option<Time>,
    /// By whom.
    pub by: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// When it last did anything.
    pub active: Option<Time>,
    /// When it was last reviewed.
    pub reviewed: Option<Time>,
    /// By whom.
    pub reviewed_by: Option<String>,
    /// When the next review is due.
    pub review_due: Option<Time>,
    /// Decisions by person and state; the person is absent for what time did.
    pub decisions: Vec<DecisionCount>,
    /// Its grants, the latest first.
    pub grants: Vec<GrantView>,
    /// Sessions in all, and now.
    pub sessions: (u64, u64),
    /// The steps of its off-boarding.
    pub steps: Vec<StepView>,
}

/// How often somebody decided so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionCount {
    /// Who.
    pub by: Option<String>,
    /// `approved`, `denied`, `expired`, `gone`.
    pub state: String,
    /// Requests.
    pub requests: u64,
    /// How often these were asked.
    pub asked: u64,
}
