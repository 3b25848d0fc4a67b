//! Routes about people: approvals, sessions, grants, the life of agents.
//!
//! | route | |
//! |---|---|
//! | `GET /v1/approvals` | [`ApprovalList`]; `agent=ID`, `all=true` |
//! | `GET /v1/approvals/{id}` | [`ApprovalDetail`] |
//! | `POST /v1/approvals/{id}/approve` | [`ApproveRequest`] → [`DecisionReply`] |
//! | `POST /v1/approvals/{id}/deny` | [`DenyRequest`] → [`DecisionReply`] |
//! | `GET /v1/sessions` | [`SessionList`]; `agent=ID`, `all=true` |
//! | `GET /v1/sessions/{id}` | [`SessionDetail`] |
//! | `POST /v1/sessions/{id}/end` | [`EndRequest`] → [`SessionView`] |
//! | `GET /v1/grants` | [`GrantList`]; `agent=ID`, `all=true` |
//! | `POST /v1/grants` | [`GrantRequest`] → [`GrantView`] |
//! | `POST /v1/grants/{id}/confirm` | → [`GrantView`] |
//! | `POST /v1/grants/{id}/revoke` | [`WhyRequest`] → [`GrantView`] |
//! | `POST /v1/agents/{id}/suspend`, `resume`, `retire` | [`WhyRequest`] → [`LifeReply`] |
//! | `POST /v1/agents/{id}/renew` | [`RenewRequest`] → [`LifeReply`] |
//! | `POST /v1/agents/{id}/confirm` | [`ConfirmRequest`] → [`StepView`] |
//! | `POST /v1/agents/{id}/reviewed` | [`ReviewedRequest`] → [`AgentPeople`] |
//! | `GET /v1/agents/{id}/people` | [`AgentPeople`] |

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};

use super::api::Reloaded;
use super::routes::{Shared, blocking, json, parse};
use super::{ApiError, Daemon, Peer};
use crate::people::api::{
    AgentPeople, ApprovalDetail, ApprovalList, ApproveRequest, ConfirmRequest, DecisionReply, DenyRequest,
    EndRequest, GrantList, GrantRequest, GrantView, LifeReply, RenewRequest, ReviewedRequest, SessionDetail,
    SessionList, SessionView, StepView, WhyRequest,
};

/// What these routes ask of the daemon. Who may decide is the daemon's to say, by the peer's credentials.
pub trait PeopleDaemon: Send + Sync {
    /// What waits for a person; with `all` also what was decided.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn approvals(&self, agent: Option<&str>, all: bool) -> Result<ApprovalList, ApiError>;

    /// One request with all that is needed to decide it.
    ///
    /// # Errors
    /// When there is none.
    fn approval(&self, id: i64) -> Result<ApprovalDetail, ApiError>;

    /// The peer says yes.
    ///
    /// # Errors
    /// When it may not, or it is too late.
    fn approve(&self, peer: &Peer, id: i64, request: &ApproveRequest) -> Result<DecisionReply, ApiError>;

    /// The peer says no.
    ///
    /// # Errors
    /// When it may not, or it is too late.
    fn deny(&self, peer: &Peer, id: i64, request: &DenyRequest) -> Result<DecisionReply, ApiError>;
}

/// What the routes about sessions and grants ask of the daemon.
pub trait RunsDaemon: Send + Sync {
    /// Sessions; with `all` also those that have ended.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn sessions(&self, agent: Option<&str>, all: bool) -> Result<SessionList, ApiError>;

    /// One session.
    ///
    /// # Errors
    /// When there is none.
    fn session(&self, id: &str) -> Result<SessionDetail, ApiError>;

    /// Ends a session.
    ///
    /// # Errors
    /// When there is none, or it has ended.
    fn end_session(&self, peer: &Peer, id: &str, request: &EndRequest) -> Result<SessionView, ApiError>;

    /// Grants; with `all` also those that are over.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn grants(&self, agent: Option<&str>, all: bool) -> Result<GrantList, ApiError>;

    /// Gives a grant, or proposes it.
    ///
    /// # Errors
    /// When the peer may not, or the grant makes no sense.
    fn add_grant(&self, peer: &Peer, request: &GrantRequest) -> Result<GrantView, ApiError>;

    /// Agrees to a proposed grant.
    ///
    /// # Errors
    /// When the peer may not, or it is not proposed.
    fn confirm_grant(&self, peer: &Peer, id: i64) -> Result<GrantView, ApiError>;

    /// Takes a grant back.
    ///
    /// # Errors
    /// When there is none, or it is over.
    fn revoke_grant(&self, peer: &Peer, id: i64, request: &WhyRequest) -> Result<GrantView, ApiError>;
}

/// What the routes about the life of agents ask of the daemon.
pub trait LivesDaemon: Send + Sync {
    /// Stops the whole tree of an agent; nothing new of it goes ahead.
    ///
    /// # Errors
    /// When there is no such agent, or it is not active.
    fn suspend(&self, peer: &Peer, id: &str, request: &WhyRequest) -> Result<LifeReply, ApiError>;

    /// Lets a suspended agent go on where it stood.
    ///
    /// # Errors
    /// When the peer may not, or it is not suspended.
    fn resume(&self, peer: &Peer, id: &str, request: &WhyRequest) -> Result<LifeReply, ApiError>;

    /// Ends an agent for ever and takes the steps of its off-boarding.
    ///
    /// # Errors
    /// When the peer may not, or it is retired already.
    fn retire(&self, peer: &Peer, id: &str, request: &WhyRequest) -> Result<LifeReply, ApiError>;

    /// Moves the end date.
    ///
    /// # Errors
    /// When the peer may not, or the record cannot be written.
    fn renew(&self, peer: &Peer, id: &str, request: &RenewRequest) -> Result<LifeReply, ApiError>;

    /// Unbinds an agent: its file is removed, and its last good record is forgotten.
    ///
    /// # Errors
    /// When the peer may not, or there is no such agent, or its file cannot be removed.
    fn unregister(&self, peer: &Peer, id: &str, request: &WhyRequest) -> Result<Reloaded, ApiError>;

    /// A person confirms a step of the off-boarding.
    ///
    /// # Errors
    /// When the peer may not, or there is no such step.
    fn confirm(&self, peer: &Peer, id: &str, request: &ConfirmRequest) -> Result<StepView, ApiError>;

    /// A person has reviewed the agent.
    ///
    /// # Errors
    /// When the peer may not.
    fn reviewed(&self, peer: &Peer, id: &str, request: &ReviewedRequest) -> Result<AgentPeople, ApiError>;

    /// What people did about an agent.
    ///
    /// # Errors
    /// When nothing is known of it.
    fn about_people(&self, id: &str) -> Result<AgentPeople, ApiError>;
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/approvals", get(approvals))
        .route("/v1/approvals/{id}", get(approval))
        .route("/v1/approvals/{id}/approve", post(approve))
        .route("/v1/approvals/{id}/deny", post(deny))
}

/// The label of a path in the metrics, for paths of this file.
pub(super) fn pattern(path: &str) -> Option<&'static str> {
    let parts: Vec<&str> = path.strip_prefix("/v1/")?.split('/').collect();
    Some(match parts.as_slice() {
        ["approvals"] => "/v1/approvals",
        ["approvals", _] => "/v1/approvals/{id}",
        ["approvals", _, "approve"] => "/v1/approvals/{id}/approve",
        ["approvals", _, "deny"] => "/v1/approvals/{id}/deny",
        ["sessions"] => "/v1/sessions",
        ["sessions", _] => "/v1/sessions/{id}",
        ["sessions", _, "end"] => "/v1/sessions/{id}/end",
        ["agents", _, "people"] => "/v1/agents/{id}/people",
        ["agents", _, "suspend" | "resume" | "retire" | "renew" | "unregister" | "confirm" | "reviewed"] => {
            "/v1/agents/{id}/life"
        }
        ["grants"] => "/v1/grants",
        ["grants", _, "confirm"] => "/v1/grants/{id}/confirm",
        ["grants", _, "revoke"] => "/v1/grants/{id}/revoke",
        _ => return None,
    })
}

pub(super) type Body = Result<Bytes, BytesRejection>;

/// Runs `work` over the daemon, off the thread that serves everyone.
pub(super) async fn ask<T: Send + 'static>(
    daemon: Arc<dyn Daemon>,
    work: impl FnOnce(&dyn PeopleDaemon) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let none = || ApiError::new(503, "this daemon asks no people", "see the daemon's log");
    blocking(move || daemon.people().ok_or_else(none).and_then(work)).await?
}

/// A number in a path.
pub(super) fn number(text: &str) -> Result<i64, ApiError> {
    let error = |_| ApiError::new(400, format!("`{text}` is no number"), "agent-monitor approval list");
    text.parse().map_err(error)
}

/// Fields of a query string, each once; others are an error.
fn query(
    query: Option<&str>,
    known: &[&str],
) -> Result<std::collections::BTreeMap<String, String>, ApiError> {
    let mut fields = std::collections::BTreeMap::new();
    for (field, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if !known.contains(&&*field) {
            return Err(ApiError::new(400, format!("no field `{field}`"), known.join(", ")));
        }
        fields.insert(field.into_owned(), value.into_owned());
    }
    Ok(fields)
}

/// `agent=ID` and `all=true`.
pub(super) fn which(text: Option<&str>) -> Result<(Option<String>, bool), ApiError> {
    let mut fields = query(text, &["agent", "all"])?;
    let all = match fields.remove("all").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            return Err(ApiError::new(400, format!("all: `{other}` is neither true nor false"), "all=true"));
        }
    };
    Ok((fields.remove("agent"), all))
}

async fn approvals(
    State(Shared { daemon, .. }): State<Shared>,
    RawQuery(text): RawQuery,
) -> Result<Response, ApiError> {
    let (agent, all) = which(text.as_deref())?;
    json(&ask(daemon, move |people| people.approvals(agent.as_deref(), all)).await?)
}

async fn approval(
    State(Shared { daemon, .. }): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = number(&id)?;
    json(&ask(daemon, move |people| people.approval(id)).await?)
}

async fn approve(
    State(Shared { daemon, .. }): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let id = number(&id)?;
    let request: ApproveRequest = parse(body)?;
    json(&ask(daemon, move |people| people.approve(&peer, id, &request)).await?)
}

async fn deny(
    State(Shared { daemon, .. }): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let id = number(&id)?;
    let request: DenyRequest = parse(body)?;
    json(&ask(daemon, move |people| people.deny(&peer, id, &request)).await?)
}
