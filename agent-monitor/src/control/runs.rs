//! Routes about sessions and grants.

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};

use super::people::{Body, RunsDaemon, number, which};
use super::routes::{Shared, blocking, json, parse};
use super::{ApiError, Daemon, Peer};
use crate::people::api::{EndRequest, GrantRequest, WhyRequest};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/sessions", get(sessions))
        .route("/v1/sessions/{id}", get(session))
        .route("/v1/sessions/{id}/end", post(end))
        .route("/v1/grants", get(grants).post(add))
        .route("/v1/grants/{id}/confirm", post(confirm))
        .route("/v1/grants/{id}/revoke", post(revoke))
}

async fn ask<T: Send + 'static>(
    daemon: std::sync::Arc<dyn Daemon>,
    work: impl FnOnce(&dyn RunsDaemon) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let none = || ApiError::new(503, "this daemon has no sessions", "see the daemon's log");
    blocking(move || daemon.runs().ok_or_else(none).and_then(work)).await?
}

async fn sessions(
    State(Shared { daemon, .. }): State<Shared>,
    RawQuery(text): RawQuery,
) -> Result<Response, ApiError> {
    let (agent, all) = which(text.as_deref())?;
    json(&ask(daemon, move |runs| runs.sessions(agent.as_deref(), all)).await?)
}

async fn session(
    State(Shared { daemon, .. }): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    json(&ask(daemon, move |runs| runs.session(&id)).await?)
}

async fn end(
    State(Shared { daemon, .. }): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let request: EndRequest = parse(body)?;
    json(&ask(daemon, move |runs| runs.end_session(&peer, &id, &request)).await?)
}

async fn grants(
    State(Shared { daemon, .. }): State<Shared>,
    RawQuery(text): RawQuery,
) -> Result<Response, ApiError> {
    let (agent, all) = which(text.as_deref())?;
    json(&ask(daemon, move |runs| runs.grants(agent.as_deref(), all)).await?)
}

async fn add(
    State(Shared { daemon, .. }): State<Shared>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Response, ApiError> {
    let request: GrantRequest = parse(body)?;
    json(&ask(daemon, move |runs| runs.add_grant(&peer, &request)).await?)
}

async fn confirm(
    State(Shared { daemon, .. }): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = number(&id)?;
    json(&ask(daemon, move |runs| runs.confirm_grant(&peer, id)).await?)
}

async fn revoke(
    State(Shared { daemon, .. }): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let id = number(&id)?;
    let request: WhyRequest = parse(body)?;
    json(&ask(daemon, move |runs| runs.revoke_grant(&peer, id, &request)).await?)
}
