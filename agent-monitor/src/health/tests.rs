//! Tests of health and metrics.

use std::sync::Arc;

use super::*;
use crate::model::{Agent, BoundBy, Gap, Process, Source};
use crate::record::Extent;

fn event(kind: Kind, agent: Option<&str>) -> Event {
    let agent = agent.map(|id| {
        Arc::new(Agent {
            id: id.to_owned(),
            session: None,
            bound_by: BoundBy::Exe,
            delegator: None,
            bound_delay_ms: None,
        })
    });
    let process = Some(Arc::new(Process { pid: 7, ..Process::default() }));
    let time = Time::from_unix_nanos(1_000_000_000);
    Event { agent, process, verdict: Some(Verdict::Allow), ..Event::new(time, kind, Source::Lsm) }
}

fn gap(reason: &str, count: u64) -> Event {
    let gap = Gap {
        reason: reason.to_owned(),
        kind: None,
        agent: None,
        count,
        first: Time::EPOCH,
        last: Time::EPOCH,
    };
    Event::gap(Time::EPOCH, Kind::GapRing, gap)
}

fn busy() -> Health {
    let health = Health::new(Time::from_unix_nanos(500_000_000));
    for (kind, agent) in
        [(Kind::FileOpen, Some("a")), (Kind::FileOpen, Some("b")), (Kind::FileCreate, Some("a"))]
    {
        health.observe(&event(kind, agent));
    }
    health.observe(&event(Kind::ProcessExec, None));
    health.observe(&gap("ring_full", 40));
    health.observe(&gap("ring_full", 2));
    health.ring("ordinary", 4096, 65_536);
    health.ring("ordinary", 128, 65_536);
    health.bound_processes([("a", 3), ("b", 1)]);
    health.registry(2, 1);
    health.request("/v1/events", 200);
    health.refused_peer("bound_to_agent");
    health.missed_by_subscribers(9);
    health
}

#[test]
fn the_text_for_prometheus_keeps_its_form() {
    let extent =
        Extent { events: 6, bytes: 3000, newest_seq: 8, evicted: 2, subscribers: 1, ..Extent::default() };
    insta::assert_snapshot!(metrics::render(&busy(), extent).unwrap());
}

#[test]
fn the_summary_adds_up() {
    let summary = busy().summary();
    assert_eq!((summary.events, summary.gaps, summary.subscriber_missed), (6, 2, 9));
    assert_eq!(summary.by_kind["file.open"], 2);
    assert_eq!(summary.by_agent["a"], 2);
    assert_eq!(summary.by_agent[UNATTRIBUTED], 1);
    assert_eq!(summary.lost["ring_full"], 42);
    assert_eq!(summary.by_verdict["allow"], 4);
}

#[test]
fn names_are_bounded() {
    let health = Health::new(Time::EPOCH);
    for n in 0..MAX_AGENTS + 100 {
        health.observe(&event(Kind::FileOpen, Some(&format!("agent-{n}"))));
        health.observe(&event(Kind::FileCreate, Some(&format!("agent-{n}"))));
        health.observe(&gap(&format!("reason-{n}"), 1));
        health.ring(&format!("ring-{n}"), 1, 1);
        health.request(&format!("/{n}"), 404);
    }
    let summary = health.summary();
    assert_eq!(summary.by_agent.len(), MAX_AGENTS + 1);
    assert_eq!(summary.by_agent[OTHER], 200);
    assert_eq!(summary.lost.values().sum::<u64>(), MAX_AGENTS as u64 + 100);
    let counts = health.counts();
    assert!(counts.losses.len() <= MAX_NAMES + 1 && counts.rings.len() <= MAX_NAMES);
    assert!(counts.requests.len() <= MAX_NAMES * 4 + 1);
}

#[test]
fn a_log_that_is_not_written_shows() {
    const NOT_WRITTEN: &str = "agent_monitor_log_state{state=\"not_written\"} 1.0\n";
    let health = busy();
    let status = LogStatus { state: "full".into(), lost: 3, ..Default::default() }.beside(Vec::new());
    health.log(Some(status));
    let text = metrics::render(&health, Extent::default()).unwrap();
    for row in [
        "agent_monitor_log_writing 0.0\n",
        "agent_monitor_log_lost_total 3\n",
        NOT_WRITTEN,
        "log_state{state=\"ok\"} 0.0\n",
    ] {
        assert!(text.contains(row), "{text}");
    }
}
