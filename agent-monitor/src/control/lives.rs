//! Routes about the life of agents.

use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::people::{Body, LivesDaemon};
use super::routes::{Shared, blocking, json, parse};
use super::{ApiError, Peer};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/agents/{id}/people", get(people))
        .route(
            "/v1/agents/{id}/suspend",
            post(|s, p, i, b| call(s, p, i, b, |d, p, i, r| d.suspend(p, i, &r))),
        )
        .route("/v1/agents/{id}/resume", post(|s, p, i, b| call(s, p, i, b, |d, p, i, r| d.resume(p, i, &r))))
        .route("/v1/agents/{id}/retire", post(|s, p, i, b| call(s, p, i, b, |d, p, i, r| d.retire(p, i, &r))))
        .route("/v1/agents/{id}/renew", post(|s, p, i, b| call(s, p, i, b, |d, p, i, r| d.renew(p, i, &r))))
        .route(
            "/v1/agents/{id}/unregister",
            post(|s, p, i, b| call(s, p, i, b, |d, p, i, r| d.unregister(p, i, &r))),
        )
        .route(
            "/v1/agents/{id}/confirm",
            post(|s, p, i, b| call(s, p, i, b, |d, p, i, r| d.confirm(p, i, &r))),
        )
        .route(
            "/v1/agents/{id}/reviewed",
            post(|s, p, i, b| call(s, p, i, b, |d, p, i, r| d.reviewed(p, i, &r))),
        )
}

fn none() -> ApiError {
    ApiError::new(503, "this daemon keeps no lives of agents", "see the daemon's log")
}

/// Reads the body, has the daemon do it, answers.
async fn call<R: DeserializeOwned + Send + 'static, T: Serialize + Send + 'static>(
    State(Shared { daemon, .. }): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    body: Body,
    work: fn(&dyn LivesDaemon, &Peer, &str, R) -> Result<T, ApiError>,
) -> Result<Response, ApiError> {
    let request: R = parse(body)?;
    let done = blocking(move || daemon.lives().ok_or_else(none).and_then(|d| work(d, &peer, &id, request)));
    json(&done.await??)
}

async fn people(
    State(Shared { daemon, .. }): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    json(&blocking(move || daemon.lives().ok_or_else(none).and_then(|d| d.about_people(&id))).await??)
}
