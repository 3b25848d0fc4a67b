//! Tests of the store.

use super::*;
use crate::model::Source;

fn at(second: u64) -> Time {
    Time::from_unix_nanos(i128::from(second) * 1_000_000_000)
}

fn event(second: u64) -> Event {
    Event::new(at(second), Kind::FileOpen, Source::Lsm)
}

fn store(limits: Limits) -> Store {
    Store::new(limits, Arc::new(Health::new(Time::EPOCH)))
}

fn seqs(events: &[Arc<Event>]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

fn since(second: u64) -> Filter {
    FilterSpec { since: Some(at(second).to_string()), ..FilterSpec::default() }.compile(at(0)).unwrap()
}

#[test]
fn seq_has_no_holes_and_the_oldest_make_room() {
    let store = store(Limits { events: 3, ..Limits::default() });
    for second in 1..=5 {
        assert_eq!(store.append(event(second)).seq, second);
    }
    let page = store.query(&Filter::default(), None);
    assert_eq!(seqs(&page.events), [3, 4, 5]);
    assert_eq!((page.extent.oldest_seq, page.extent.newest_seq, page.extent.evicted), (3, 5, 2));
}

#[test]
fn a_query_that_reaches_too_far_back_says_so() {
    let store = store(Limits { events: 3, ..Limits::default() });
    (1..=5).for_each(|second| drop(store.append(event(second))));
    let gap = store.query(&Filter::default(), None).gap.and_then(|event| event.gap).unwrap();
    assert_eq!((gap.count, gap.first, gap.last), (2, at(1), at(2)));
    assert!(store.query(&since(2), None).gap.is_some());
    assert!(store.query(&since(3), None).gap.is_none());
    let newest = store.query(&Filter::default(), Some(2));
    assert_eq!(seqs(&newest.events), [4, 5]);
    assert!(newest.gap.is_none(), "enough was held for what was asked");
}

#[test]
fn bytes_are_bounded_too() {
    let weight = event(1).weight();
    let store = store(Limits { bytes: weight * 4, ..Limits::default() });
    (1..=50).for_each(|second| drop(store.append(event(second))));
    assert_eq!(store.extent().events, 4);
    assert!(store.extent().bytes <= weight as u64 * 4);
}

#[test]
fn following_starts_where_history_ends() {
    let store = store(Limits::default());
    store.append(event(1));
    store.append(event(2));
    let (page, mut live) = store.subscribe(Filter::default(), true).unwrap();
    store.append(event(3));
    assert_eq!(seqs(&page.events), [1, 2]);
    assert_eq!(live.try_next().map(|event| event.seq), Some(3));
    assert!(live.try_next().is_none());
    let (page, _live) = store.subscribe(Filter::default(), false).unwrap();
    assert!(page.events.is_empty());
}

#[test]
fn a_slow_follower_is_told_what_it_missed_and_where() {
    let store = store(Limits { queue: 3, ..Limits::default() });
    let (_, mut slow) = store.subscribe(Filter::default(), false).unwrap();
    let (_, mut other) = store.subscribe(since(8), false).unwrap();
    (1..=8).for_each(|second| drop(store.append(event(second))));
    let mut got = Vec::new();
    for _ in 0..4 {
        got.extend(slow.try_next());
    }
    store.append(event(9));
    got.extend(slow.try_next());
    assert_eq!(seqs(&got), [1, 2, 3, 0, 9]);
    assert_eq!(got[3].kind, Kind::GapSubscriber);
    let gap = got[3].gap.as_ref().unwrap();
    assert_eq!((gap.count, gap.first, gap.last), (5, at(4), at(8)));
    assert_eq!(store.health.summary().subscriber_missed, 5);
    assert_eq!(other.try_next().map(|event| event.seq), Some(8), "the neighbour missed nothing");
}

#[test]
fn what_a_follower_gets_and_what_it_is_told_it_missed_adds_up() {
    let store = store(Limits { queue: 4, ..Limits::default() });
    let (_, mut live) = store.subscribe(Filter::default(), false).unwrap();
    let mut seen = 0;
    for second in 1..=1_000 {
        store.append(event(second));
        if second % 7 < 3 {
            seen += live.try_next().map_or(0, |event| event.gap.as_ref().map_or(1, |gap| gap.count));
        }
    }
    while let Some(event) = live.try_next() {
        seen += event.gap.as_ref().map_or(1, |gap| gap.count);
    }
    assert_eq!(seen, 1_000);
}

#[test]
fn followers_are_bounded_and_leave_no_trace() {
    let store = store(Limits { subscribers: 2, ..Limits::default() });
    let first = store.subscribe(Filter::default(), false).unwrap();
    let _second = store.subscribe(Filter::default(), false).unwrap();
    assert_eq!(store.subscribe(Filter::default(), false).err(), Some(TooManySubscribers(2)));
    drop(first);
    assert_eq!(store.extent().subscribers, 1);
    assert!(store.subscribe(Filter::default(), false).is_ok());
}

#[tokio::test]
async fn a_waiting_follower_wakes_for_an_event_and_for_the_end() {
    let store = Arc::new(store(Limits::default()));
    let (_, mut live) = store.subscribe(Filter::default(), false).unwrap();
    let reader = tokio::spawn(async move {
        let first = live.next().await.map(|event| event.seq);
        (first, live.next().await.is_none())
    });
    tokio::task::yield_now().await;
    store.append(event(1));
    tokio::task::yield_now().await;
    store.close();
    assert_eq!(reader.await.unwrap(), (Some(1), true));
}
