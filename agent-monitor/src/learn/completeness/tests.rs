//! Tests.

use std::sync::Arc;

use super::*;
use crate::model::{Agent, Gap};

fn gap(kind: Kind, agent: Option<&str>, count: u64) -> Event {
    let time = Time::from_unix_nanos(5);
    let gap = Gap {
        reason: "ring_full".to_owned(),
        kind: Some("file.open".to_owned()),
        agent: agent.map(str::to_owned),
        count,
        first: time,
        last: time,
    };
    Event::gap(time, kind, gap)
}

fn after(events: &[Event]) -> Completeness {
    let mut book = Book::default();
    events.iter().for_each(|event| book.take(event, "a"));
    book.close(90, BTreeMap::new())
}

#[test]
fn nothing_lost_is_complete() {
    let known = after(&[gap(Kind::GapRing, Some("other"), 7)]);
    assert!(known.complete && known.reasons.is_empty());
    assert_eq!((known.lost, known.percent), (0, Some(100.0)));
    assert!(!Book::default().close(0, BTreeMap::new()).complete, "nothing seen is not complete");
}

#[test]
fn one_gap_is_enough() {
    for event in [gap(Kind::GapRing, Some("a"), 10), gap(Kind::GapCopy, None, 10)] {
        let known = after(&[event]);
        assert!(!known.complete);
        assert_eq!((known.lost, known.percent), (10, Some(90.0)));
    }
    let known = after(&[gap(Kind::GapHook, None, 0)]);
    assert!(!known.complete && known.percent.is_none(), "not counted is not a figure");
    let known = after(&[gap(Kind::GapDaemon, None, 0)]);
    assert_eq!(known.daemon_down.len(), 1);
    let left = BTreeMap::from([("the path is truncated".to_owned(), 1)]);
    assert!(!Book::default().close(9, left).complete);
}

#[test]
fn late_bindings_and_calls_are_told() {
    let event = |kind, source, bound_by, bound_delay_ms| {
        let agent = Agent { id: "a".to_owned(), session: None, bound_by, delegator: None, bound_delay_ms };
        Event { agent: Some(Arc::new(agent)), ..Event::new(Time::from_unix_nanos(0), kind, source) }
    };
    let bound = |by, delay| after(&[event(Kind::AgentBound, Source::Daemon, by, delay)]).complete;
    assert!(bound(BoundBy::Exe, None));
    assert!(!bound(BoundBy::Argv, Some(3)));
    assert!(!bound(BoundBy::Backfill, None));
    assert!(!after(&[event(Kind::FileOpen, Source::RawTracepoint, BoundBy::Exe, None)]).complete);
}
