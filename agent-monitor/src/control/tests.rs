//! Tests of the control API.

use std::path::PathBuf;
use std::time::Duration;

use axum::body::Bytes;
use hyper::Method;
use tempfile::TempDir;

use super::api::*;
use super::client::{Client, ClientError};
use super::fake::FakeDaemon;
use super::*;
use crate::health::doctor::Level;
use crate::model::{Event, Kind, Source, Time};
use crate::record::Limits;

struct Running {
    fake: Arc<FakeDaemon>,
    client: Client,
    handle: Option<Handle>,
    path: PathBuf,
    _directory: TempDir,
}

fn running(limits: Limits) -> Running {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("run/control.sock");
    let fake = FakeDaemon::new(limits);
    let server = Server::bind(&SocketConfig { path: path.clone(), group: None }).unwrap();
    let handle = server.spawn(Arc::clone(&fake) as Arc<dyn Daemon>).unwrap();
    Running { fake, client: Client::new(&path), handle: Some(handle), path, _directory: directory }
}

fn refused<T>(result: Result<T, ClientError>) -> (u16, ErrorBody) {
    match result.map(|_| ()) {
        Err(ClientError::Refused { status, body }) => (status, body),
        other => panic!("not refused: {other:?}"),
    }
}

fn event(second: i128) -> Event {
    Event::new(Time::from_unix_nanos(second * 1_000_000_000), Kind::FileOpen, Source::Lsm)
}

#[tokio::test]
async fn readers_are_answered() {
    let run = running(Limits::default());
    run.fake.store().append(event(1));
    let status: Status = run.client.get("/v1/status").await.unwrap();
    assert_eq!((status.daemon.level, status.record.newest_seq, status.totals.events), (Level::Partial, 1, 1));
    let agents: AgentList = run.client.get("/v1/agents").await.unwrap();
    assert_eq!(agents.agents.len(), 1);
    let agent: AgentDetail = run.client.get("/v1/agents/bot").await.unwrap();
    assert_eq!(agent.summary.id, "bot");
    let doctor: Report = run.client.get("/v1/doctor").await.unwrap();
    assert_eq!(doctor.level, Level::Partial);
    assert_eq!(run.client.text("/healthz").await.unwrap(), "ok\n");
    let metrics = run.client.text("/metrics").await.unwrap();
    assert!(metrics.contains("agent_monitor_events_total{kind=\"file.open\",verdict=\"\"} 1\n"), "{metrics}");
    assert!(
        metrics.contains("control_requests_total{route=\"/v1/agents/{id}\",status=\"200\"} 1\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn mistakes_are_answered_with_a_place_and_a_hint() {
    let run = running(Limits::default());
    let post = |path: &'static str, body: &'static [u8]| {
        run.client.call(Method::POST, path, Bytes::from_static(body))
    };
    let (status, body) = refused(post("/v1/exec", b"{\"agent\":\n  7}").await);
    assert_eq!((status, body.line, body.column), (400, Some(2), Some(3)));
    let (status, body) = refused(post("/v1/exec", b"{\"agent\":\"bot\",\"uid\":0}").await);
    assert!(status == 400 && body.error.contains("uid"), "{body:?}");
    let (status, _) = refused(post("/v1/exec", &[b' '; 100_000]).await);
    assert_eq!(status, 413);
    let (status, body) = refused(post("/v1/exec", b"{\"agent\":\"bot\",\"pid\":1}").await);
    assert!(status == 400 && body.error.contains("not the caller"), "{body:?}");
    let (status, body) = refused(post("/v1/exec", b"{\"agent\":\"nobody\"}").await);
    assert!(status == 404 && body.error.contains("nobody") && !body.hint.is_empty(), "{body:?}");
    assert_eq!(refused(post("/v1/agents/reload", b"").await).0, 409);
    assert_eq!(refused(post("/v1/status", b"").await).0, 405);
    for (path, word) in [
        ("/v1/nothing", "no route"),
        ("/v1/agents/nobody", "nobody"),
        ("/v1/events?kind=file.opened", "file.opened"),
        ("/v1/events?colour=red", "colour"),
        ("/v1/events?limit=-1", "limit"),
        ("/v1/events?follow=perhaps", "follow"),
    ] {
        let (status, body) = refused(run.client.text(path).await);
        assert!((400..=404).contains(&status) && body.error.contains(word), "{path}: {body:?}");
    }
}

#[tokio::test]
async fn a_bound_caller_is_refused_from_then_on() {
    let run = running(Limits::default());
    let request = ExecRequest {
        agent: "bot".to_owned(),
        task: Some("t".to_owned()),
        ttl_seconds: None,
        scope: None,
        pid: None,
        not_held: Vec::new(),
        landlock: false,
    };
    let reply: ExecReply = run.client.post("/v1/exec", &request).await.unwrap();
    assert_eq!((reply.agent.as_str(), reply.session.as_deref()), ("bot", Some("t")));
    for path in ["/v1/status", "/v1/events", "/metrics", "/healthz", "/nothing"] {
        let (status, body) = refused(run.client.text(path).await);
        assert!(status == 403 && body.error.contains("bound to agent `bot`"), "{path}: {body:?}");
    }
    assert_eq!(refused(run.client.post::<ExecReply>("/v1/exec", &request).await).0, 403);
    run.fake.bindings().clear();
    run.fake.set_blind(true);
    let (status, body) = refused(run.client.text("/v1/status").await);
    assert!(status == 403 && body.error.contains("cannot tell"), "what is not known is refused: {body:?}");
    run.fake.set_blind(false);
    let metrics = run.client.text("/metrics").await.unwrap();
    assert!(metrics.contains("control_refused_total{reason=\"bound_to_agent\"} 6\n"), "{metrics}");
}

#[tokio::test]
async fn events_are_filtered_limited_and_say_what_is_gone() {
    let run = running(Limits { events: 4, ..Limits::default() });
    (1..=6).for_each(|second| drop(run.fake.store().append(event(second))));
    let all = run.client.text("/v1/events?kind=file").await.unwrap();
    let all: Vec<Event> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(all.iter().map(|event| event.seq).collect::<Vec<_>>(), [0, 3, 4, 5, 6]);
    assert_eq!(all[0].gap.as_ref().map(|gap| gap.count), Some(2));
    assert_eq!(run.client.text("/v1/events?limit=2").await.unwrap().lines().count(), 2);
    assert_eq!(run.client.text("/v1/events?kind=network").await.unwrap().lines().count(), 1);
    let response = run.client.call(Method::GET, "/v1/events", Bytes::new()).await.unwrap();
    assert_eq!(response.headers()["x-oldest-seq"], "3");
}

#[tokio::test]
async fn a_slow_follower_gets_a_gap_and_the_sums_agree() {
    let run = running(Limits { queue: 16, ..Limits::default() });
    let mut lines = run.client.lines("/v1/events?follow=true").await.unwrap();
    run.fake.store().append(event(0));
    assert!(lines.next().await.unwrap().is_some(), "it follows");
    let total = 20_000u32;
    (1..=total).for_each(|second| drop(run.fake.store().append(event(second.into()))));
    run.fake.store().close();
    let (mut seen, mut missed, mut last) = (0, 0, 1);
    while let Some(line) = lines.next().await.unwrap() {
        let event: Event = serde_json::from_str(&line).unwrap();
        match event.gap {
            Some(gap) => {
                assert_eq!(event.kind, Kind::GapSubscriber);
                missed += gap.count;
            }
            None => {
                assert!(event.seq > last, "in order");
                last = event.seq;
                seen += 1;
            }
        }
    }
    assert!(missed > 0, "20,000 events went through a queue of 16");
    assert_eq!(seen + missed, u64::from(total));
    assert_eq!(run.fake.health().summary().subscriber_missed, missed);
}

#[tokio::test]
async fn followers_end_with_a_limit_and_at_shutdown() {
    let mut run = running(Limits::default());
    run.fake.store().append(event(1));
    let limited = run.client.clone();
    let limited =
        tokio::spawn(async move { limited.text("/v1/events?follow=true&since=1970-01-01&limit=2").await });
    let mut endless = run.client.lines("/v1/events?follow=true").await.unwrap();
    run.fake.store().append(event(2));
    assert_eq!(limited.await.unwrap().unwrap().lines().count(), 2);
    assert!(endless.next().await.unwrap().is_some());
    let handle = run.handle.take().unwrap();
    let stopped = tokio::task::spawn_blocking(|| handle.shutdown());
    assert!(endless.next().await.unwrap().is_none(), "a clean end");
    tokio::time::timeout(Duration::from_secs(10), stopped).await.unwrap().unwrap().unwrap();
    assert!(!run.path.exists(), "the socket is removed");
    assert!(matches!(run.client.text("/healthz").await, Err(ClientError::Unreachable { .. })));
}

#[tokio::test]
async fn one_daemon_per_socket_and_the_dead_make_room() {
    use std::os::unix::fs::PermissionsExt as _;
    let run = running(Limits::default());
    let config = SocketConfig { path: run.path.clone(), group: None };
    match Server::bind(&config) {
        Err(BindError::AnotherDaemon { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    assert_eq!(run.client.text("/healthz").await.unwrap(), "ok\n", "the first one lives on");
    assert_eq!(std::fs::metadata(&run.path).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(std::fs::metadata(run.path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o755);

    let directory = TempDir::new().unwrap();
    let path = directory.path().join("c.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind by the dead");
    drop(Server::bind(&SocketConfig { path: path.clone(), group: None }).unwrap());
    assert!(!path.exists());
    let foreign = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(matches!(
        Server::bind(&SocketConfig { path: path.clone(), group: None }),
        Err(BindError::AnotherDaemon { pid: Some(_), .. })
    ));
    drop(foreign);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    assert!(matches!(
        Server::bind(&SocketConfig { path: path.clone(), group: None }),
        Err(BindError::NotASocket(_))
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}
