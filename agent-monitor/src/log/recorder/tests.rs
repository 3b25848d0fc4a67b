//! The thread and its queue: order, gaps, a disk that fills, the end.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::log::fake::{Place, event, moment, settings};
use crate::log::reader::{self, Window};
use crate::log::segment::Peek;

fn start(place: &Place, settings: Settings) -> Arc<Recorder> {
    let second = AtomicU64::new(1000);
    let clock = move || moment(second.fetch_add(1, Ordering::Relaxed));
    let none = Sockets::at(Path::new("/nonexistent"), Path::new("/nonexistent"));
    Recorder::start(place.state.path(), settings, "host", none, clock).unwrap().0
}

fn events(place: &Place) -> Vec<Event> {
    let mut out = Vec::new();
    reader::records(&place.dir(), &place.options(), &Window::default(), |_, json| {
        out.push(serde_json::from_slice(json).unwrap());
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    out
}

#[test]
fn everything_is_written_in_order_and_sealed_at_the_end() {
    let place = Place::new();
    let log = start(&place, settings());
    (1..=20_000).for_each(|number| log.offer(&Arc::new(event(number))));
    log.close();
    let seqs: Vec<u64> = events(&place).iter().filter(|e| e.kind == Kind::FileOpen).map(|e| e.seq).collect();
    assert_eq!(seqs, (1..=20_000).collect::<Vec<_>>());
    let status = log.status();
    assert_eq!((status.state.as_str(), status.lost, status.copies), ("closed", 0, Copied::Absent));
    assert!(place.verify().ok, "{:?}", place.verify());
}

#[test]
fn a_flood_is_cut_into_segments_of_their_size() {
    let place = Place::new();
    let segment_bytes = 64 << 10;
    let log = start(&place, Settings { segment_bytes, queue: 50_000, ..settings() });
    (1..=20_000).for_each(|number| log.offer(&Arc::new(event(number))));
    log.close();
    let mut lengths = Vec::new();
    reader::records(&place.dir(), &place.options(), &Window::default(), |_, json| {
        lengths.push(json.len() as u64);
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    let mut starts: Vec<usize> = crate::log::segment::list(&place.dir())
        .unwrap()
        .iter()
        .map(|segment| segment.first as usize)
        .collect();
    starts.push(lengths.len());
    starts.sort_unstable();
    let longest = starts.windows(2).map(|pair| lengths[pair[0]..pair[1]].iter().sum::<u64>()).max().unwrap();
    assert!(longest < segment_bytes * 3 / 2, "{longest}");
    assert_eq!(log.status().lost, 0);
    assert!(place.verify().ok, "{:?}", place.verify());
}

#[test]
fn a_full_queue_is_one_counted_gap_and_delivered_plus_counted_is_all() {
    let place = Place::new();
    let log = start(&place, Settings { queue: 16, ..settings() });
    (1..=5000).for_each(|number| log.offer(&Arc::new(event(number))));
    log.close();
    let all = events(&place);
    let written = all.iter().filter(|event| event.kind == Kind::FileOpen).count() as u64;
    let missed: u64 = all.iter().filter_map(|event| event.gap.as_ref()).map(|gap| gap.count).sum();
    assert_eq!((written + missed, missed), (5000, log.status().lost));
    assert!(missed > 0);
}

#[test]
fn holds_and_removals_are_in_the_record() {
    let place = Place::filled(8000, 500, settings());
    let hold = retention::Hold {
        id: "1".into(),
        agent: Some("nobody".into()),
        since: None,
        until: None,
        reason: "case".into(),
        by: "me".into(),
        time: Time::EPOCH,
    };
    retention::keep_holds(place.state.path(), &[hold]).unwrap();
    let before = crate::log::segment::list(&place.dir()).unwrap().len();
    let log = start(&place, Settings { max_bytes: Some(1), max_age: None, ..settings() });
    log.close();
    assert!(crate::log::segment::list(&place.dir()).unwrap().len() < before);
    let report = place.verify();
    assert!(report.ok && report.first > 0, "{report:?}");
    assert_eq!(report.removed_by_rule, [(0, report.first)]);
    assert!(Peek::of(b"{}").is_none());
}
