//! The routes: one function each, and the check that stands before all of them.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api::{AgentList, CheckRequest, ErrorBody, ExecRequest, Status};
use super::events::EventsQuery;
use super::{ApiError, Daemon, Peer};
use crate::model::SCHEMA_VERSION;

/// Bytes of a request body at most.
const BODY_LIMIT: usize = 64 * 1024;

/// Bytes of a body that holds a record, every byte of it escaped.
const RECORD_LIMIT: usize = 8 * crate::registry::parse::MAX_RECORD_BYTES;

/// `seq` of the oldest event held, on answers of `/v1/events`.
const OLDEST_SEQ: HeaderName = HeaderName::from_static("x-oldest-seq");
/// `seq` of the newest event.
const NEWEST_SEQ: HeaderName = HeaderName::from_static("x-newest-seq");
/// Events that made room since the start.
const EVICTED: HeaderName = HeaderName::from_static("x-evicted");

/// What every call needs.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) daemon: Arc<dyn Daemon>,
    /// User of the daemon, and group of the socket.
    pub(super) owner: u32,
    pub(super) gid: u32,
}

/// The caller of a connection, or why it cannot be told.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) Result<Peer, Arc<super::peer::PeerError>>);

pub(super) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/doctor", get(doctor))
        .route("/v1/agents", get(agents))
        .route("/v1/agents/reload", post(reload))
        .route("/v1/agents/check", post(check_record).layer(DefaultBodyLimit::max(RECORD_LIMIT)))
        .route("/v1/agents/{id}", get(agent))
        .route("/v1/events", get(events))
        .route("/v1/exec", post(exec))
        .merge(super::people::routes())
        .merge(super::runs::routes())
        .merge(super::lives::routes())
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(shared.clone(), admit))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(shared)
}

/// Lets a call through, or not; counts it either way.
async fn admit(
    State(shared): State<Shared>,
    ConnectInfo(Caller(caller)): ConnectInfo<Caller>,
    mut request: Request,
    next: Next,
) -> Response {
    let route = pattern(request.uri().path());
    let daemon = Arc::clone(&shared.daemon);
    let acts = request.method() == Method::POST;
    let checked = blocking(move || {
        let peer = check(&shared, &caller)?;
        // Here, where no lock of the daemon is held: the caller's own memory is read.
        acts.then(|| peer.caller());
        Ok(peer)
    });
    let mut response = match checked.await.flatten() {
        Ok(peer) => {
            request.extensions_mut().insert(peer);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    daemon.health().request(route, response.status().as_u16());
    // One call per connection: one that waits for the next call would only take a place.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn check(shared: &Shared, caller: &Result<Peer, Arc<super::peer::PeerError>>) -> Result<Peer, ApiError> {
    let health = shared.daemon.health();
    let unknown = |error: String| {
        health.refused_peer("unknown_peer");
        ApiError::new(403, error, "call from a process on this host, and keep it alive during the call")
    };
    let peer = caller.as_ref().map_err(|error| unknown(error.to_string()))?;
    if !peer.is_alive() {
        return Err(unknown("the process that opened this connection has ended".to_owned()));
    }
    if !peer.may_call(shared.owner, shared.gid) {
        health.refused_peer("not_allowed");
        let error = format!("user {} may not call the control API", peer.uid());
        return Err(ApiError::new(403, error, "run as root, or as a member of the socket's group"));
    }
    match shared.daemon.binding_of(peer) {
        Ok(None) => Ok(peer.clone()),
        Ok(Some(agent)) => {
            health.refused_peer("bound_to_agent");
            let detail = crate::model::Detail::from_iter([
                ("agent".to_owned(), agent.as_str().into()),
                ("pid".to_owned(), peer.pid().into()),
                ("uid".to_owned(), peer.uid().into()),
            ]);
            let kind = crate::model::Kind::TamperControl;
            let event = crate::model::Event::new(crate::clock::now(), kind, crate::model::Source::Daemon);
            shared.daemon.store().append(crate::model::Event { detail: Some(detail), ..event });
            let error = format!(
                "process {} is bound to agent `{agent}`: agents may not call the control API",
                peer.pid()
            );
            Err(ApiError::new(403, error, "call from outside the agent's process tree"))
        }
        Err(reason) => {
            Err(unknown(format!("cannot tell whether process {} is bound to an agent: {reason}", peer.pid())))
        }
    }
}

/// The daemon's answers may take locks and read files: not on the thread that serves everyone.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let failed = |error: tokio::task::JoinError| {
        tracing::error!(%error, "a control call failed");
        ApiError::new(500, "the daemon failed on this call", "see the daemon's log")
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

async fn status(State(Shared { daemon, .. }): State<Shared>) -> Result<Response, ApiError> {
    let status = blocking(move || Status {
        schema_version: SCHEMA_VERSION,
        daemon: daemon.status(),
        record: daemon.store().extent(),
        totals: daemon.health().summary(),
    });
    json(&status.await?)
}

async fn doctor(State(Shared { daemon, .. }): State<Shared>) -> Result<Response, ApiError> {
    json(&blocking(move || daemon.doctor()).await?)
}

async fn agents(State(Shared { daemon, .. }): State<Shared>) -> Result<Response, ApiError> {
    let list = blocking(move || AgentList {
        schema_version: SCHEMA_VERSION,
        agents: daemon.agents(),
        refused: daemon.status().refused,
    });
    json(&list.await?)
}

async fn agent(
    State(Shared { daemon, .. }): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let name = id.clone();
    let agent = blocking(move || daemon.agent(&name)).await?;
    json(&agent.ok_or_else(|| ApiError::no_agent(&id))?)
}

async fn reload(State(Shared { daemon, .. }): State<Shared>) -> Result<Response, ApiError> {
    json(&blocking(move || daemon.reload()).await??)
}

async fn check_record(
    State(Shared { daemon, .. }): State<Shared>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let request: CheckRequest = parse(body)?;
    json(&blocking(move || daemon.check_record(&request)).await??)
}

async fn exec(
    State(Shared { daemon, .. }): State<Shared>,
    axum::Extension(peer): axum::Extension<Peer>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let request: ExecRequest = parse(body)?;
    if request.pid.is_some_and(|pid| pid != peer.pid()) {
        let error = format!("pid {} is not the caller, which is {}", request.pid.unwrap_or(0), peer.pid());
        return Err(ApiError::new(400, error, "a process binds itself; call from the process to be bound"));
    }
    json(&blocking(move || daemon.bind_caller(&peer, &request)).await??)
}

async fn events(
    State(Shared { daemon, .. }): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = EventsQuery::parse(&query.unwrap_or_default(), crate::clock::now())?;
    let (body, extent) = blocking(move || query.answer(daemon.store())).await??;
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson".to_owned()),
        (OLDEST_SEQ, extent.oldest_seq.to_string()),
        (NEWEST_SEQ, extent.newest_seq.to_string()),
        (EVICTED, extent.evicted.to_string()),
    ];
    Ok((headers, body).into_response())
}

async fn metrics(State(Shared { daemon, .. }): State<Shared>) -> Result<Response, ApiError> {
    let text = crate::health::metrics::render(daemon.health(), daemon.store().extent());
    let text = text
        .map_err(|e| ApiError::new(500, format!("cannot write the metrics: {e}"), "see the daemon's log"))?;
    Ok(([(header::CONTENT_TYPE, crate::health::metrics::CONTENT_TYPE)], text).into_response())
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::new(
        404,
        format!("no route {}", uri.path()),
        "/v1/status, /v1/doctor, /v1/agents, /v1/events, /v1/approvals, /metrics",
    )
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(405, format!("{} takes no {method}", uri.path()), "GET to read, POST for reload and exec")
}

pub(super) fn json(value: &impl Serialize) -> Result<Response, ApiError> {
    let failed = |e: serde_json::Error| {
        ApiError::new(500, format!("cannot write the answer: {e}"), "see the daemon's log")
    };
    let text = serde_json::to_string(value).map_err(failed)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

pub(super) fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    let body = body.map_err(|rejection| {
        let hint = format!("at most {BODY_LIMIT} bytes of JSON");
        ApiError::new(rejection.status().as_u16(), rejection.body_text(), hint)
    })?;
    serde_json::from_slice(&body).map_err(|error| {
        let mut answer =
            ApiError::new(400, error.to_string(), r#"a JSON object such as {"agent":"release-bot"}"#);
        (answer.body.line, answer.body.column) = (Some(error.line()), Some(error.column()));
        answer
    })
}

/// The label of a path in the metrics: bounded.
fn pattern(path: &str) -> &'static str {
    const FIXED: [&str; 9] = [
        "/healthz",
        "/metrics",
        "/v1/status",
        "/v1/doctor",
        "/v1/agents",
        "/v1/agents/reload",
        "/v1/agents/check",
        "/v1/events",
        "/v1/exec",
    ];
    FIXED.into_iter().find(|fixed| *fixed == path).unwrap_or(match path.strip_prefix("/v1/agents/") {
        Some(id) if !id.contains('/') => "/v1/agents/{id}",
        _ => super::people::pattern(path).unwrap_or("other"),
    })
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let ErrorBody { error, .. } = &self.body;
        let text = serde_json::to_string(&self.body).unwrap_or_else(|_| error.clone());
        (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
    }
}
