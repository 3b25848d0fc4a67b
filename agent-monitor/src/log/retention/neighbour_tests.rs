//! The bounds of a legal hold and of the rules, each with the neighbour beyond it.

use super::*;
use crate::log::fake::{Place, settings, time};

fn hold(agent: Option<&str>, since: Option<u64>, until: Option<u64>) -> Hold {
    Hold {
        id: "hold-1".to_owned(),
        agent: agent.map(str::to_owned),
        since: since.map(time),
        until: until.map(time),
        reason: "case".to_owned(),
        by: "me".to_owned(),
        time: Time::EPOCH,
    }
}

/// The index of some closed segment, over these seconds and agents.
fn index(place: &Place, times: Option<(u64, u64)>, agents: &[&str]) -> Index {
    let segments = segment::list(&place.dir()).unwrap();
    let mut file = segment::open(&segments[0].path).unwrap();
    let mut index = sealed::index(&mut file).unwrap();
    let one = index.agents.values().next().copied().unwrap();
    index.times = times.map(|(first, last)| (time(first), time(last)));
    index.agents = agents.iter().map(|agent| ((*agent).to_owned(), one)).collect();
    index
}

#[test]
fn a_hold_covers_what_may_hold_something_of_it() {
    let place = Place::filled(8000, 500, settings());
    let of = |times, agents: &[&str]| index(&place, times, agents);
    let some = || of(Some((10, 20)), &["bot", "cat"]);
    for (agent, covers) in [(None, true), (Some("bot"), true), (Some("cat"), true), (Some("dog"), false)] {
        assert_eq!(hold(agent, None, None).covers(&some()), covers, "{agent:?}");
    }
    // Where there were too many agents to list, any of them may be there.
    assert!(hold(Some("dog"), None, None).covers(&of(Some((10, 20)), &["*"])));
    for (since, until, covers) in [
        (Some(15), None, true),
        (Some(20), None, true),
        (Some(21), None, false),
        (None, Some(15), true),
        (None, Some(11), true),
        (None, Some(10), false),
        (Some(15), Some(16), true),
        (Some(5), Some(30), true),
        (Some(0), Some(10), false),
        (Some(21), Some(30), false),
    ] {
        assert_eq!(hold(Some("bot"), since, until).covers(&some()), covers, "{since:?} {until:?}");
    }
    assert!(!hold(None, None, None).covers(&of(None, &["bot"])), "a segment without a record");
}

#[test]
fn a_holds_file_that_cannot_be_read_lets_nothing_go() {
    let place = Place::new();
    let state = place.state.path();
    assert_eq!(holds(state).unwrap(), []);
    let two = [hold(Some("bot"), Some(1), None), hold(None, None, Some(9))];
    keep_holds(state, &two).unwrap();
    assert_eq!(holds(state).unwrap(), two);
    let path = state.join(crate::log::HOLDS);
    fs::write(&path, "[{").unwrap();
    assert_eq!(holds(state).unwrap_err().action, "read the holds");
    fs::write(&path, "[{\"id\": 3}]").unwrap();
    assert!(holds(state).is_err());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(holds(state).is_err(), "not even there is a hold that is missing");
}

#[test]
fn the_size_rule_removes_no_more_than_is_needed_and_the_age_rule_what_is_older() {
    let place = Place::filled(8000, 500, settings());
    let dir = place.dir();
    let segments = segment::list(&dir).unwrap();
    let sizes: Vec<u64> = segments.iter().map(|segment| segment.path.metadata().unwrap().len()).collect();
    let all: u64 = sizes.iter().sum();
    let removed = |max_age, max_bytes, now| {
        let plan = plan(&dir, &[], time(now), max_age, max_bytes).unwrap();
        assert_eq!(plan.bytes, all);
        plan.remove.len()
    };
    assert_eq!(removed(None, Some(all), 10), 0, "exactly as much as may be");
    assert_eq!(removed(None, Some(all - 1), 10), 1);
    assert_eq!(removed(None, Some(all - sizes[0]), 10), 1);
    assert_eq!(removed(None, Some(all - sizes[0] - 1), 10), 2);
    assert_eq!(removed(None, None, 1_000_000), 0, "no rule");
    let mut file = segment::open(&segments[0].path).unwrap();
    let (_, last) = sealed::index(&mut file).unwrap().times.unwrap();
    let since = |now: Time| u64::try_from((now.unix_nanos() - last.unix_nanos()) / 1_000_000_000).unwrap();
    let exact = Duration::from_secs(since(time(1000)));
    assert_eq!(removed(Some(exact), None, 1000), 0, "it is exactly as old as it may be");
    assert_eq!(removed(Some(exact - Duration::from_secs(1)), None, 1000), 1);
}

#[test]
fn damage_is_evidence_and_the_rest_goes_in_runs() {
    let place = Place::filled(12_000, 500, settings());
    let dir = place.dir();
    let segments = segment::list(&dir).unwrap();
    assert!(segments.len() >= 5, "{segments:?}");
    let before = plan(&dir, &[], time(10), None, Some(1)).unwrap();
    assert_eq!((before.held, before.ranges().len()), (0, 1));
    assert_eq!(before.ranges()[0], (0, segments[segments.len() - 2].first));
    let damaged = &segments[1];
    let bytes = fs::read(&damaged.path).unwrap();
    fs::write(&damaged.path, &bytes[..bytes.len() / 2]).unwrap();
    let after = plan(&dir, &[], time(10), None, Some(1)).unwrap();
    assert_eq!((after.held, after.remove.len()), (1, before.remove.len() - 1));
    let ranges = after.ranges();
    assert_eq!((ranges.len(), ranges[0]), (2, (0, damaged.first)));
    assert_eq!(ranges[1].0, segments[2].first);
    // What goes before the first that stays needs no subtrees; what goes behind it does.
    remove(&dir, &after).unwrap();
    assert!(!segments[0].path.exists() && damaged.path.exists() && !segments[2].path.exists());
    assert!(!segments[0].path.with_extension("gone").exists());
    assert!(segments[2].path.with_extension("gone").exists());
    let kept: usize = after.remove[1..].iter().map(|(_, index)| index.peaks.len()).sum();
    assert_eq!(gone(&dir).len(), kept);
    fs::write(dir.join("noise.gone"), "x").unwrap();
    assert_eq!(gone(&dir).len(), kept);
}
