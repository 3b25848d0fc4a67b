//! Tests of replay against a small scope.

use std::sync::Arc;

use super::*;
use crate::model::{Access, Agent, BoundBy, File, Kind, Source, Time};

/// Refuses places below `/no`, and moving what has something below it that is refused.
#[derive(Debug)]
struct Small;

fn opinion(stop: bool) -> Result<Opinion, String> {
    let (verdict, rule) =
        if stop { (Verdict::Deny, "scope.file[0]") } else { (Verdict::Allow, "scope.default") };
    Ok(Opinion { verdict, rule: rule.to_owned() })
}

impl Rulebook for Small {
    fn place(&mut self, path: &str, dev: Option<&str>, asked: u32, moved: bool) -> Result<Opinion, String> {
        if dev == Some("9:9") {
            return Err("gone".to_owned());
        }
        let over = path == "/kept" && asked == ask::WRITE;
        opinion(path.starts_with("/no/") || over || (moved && path == "/holder"))
    }
    fn net(&mut self, _: IpAddr, _: u16, _: u8, _: u8) -> Result<Opinion, String> {
        opinion(false)
    }
    fn unix_abstract(&mut self, _: &[u8], _: u32) -> Result<Opinion, String> {
        opinion(false)
    }
    fn power(&mut self, _: usize) -> Result<Opinion, String> {
        opinion(true)
    }
    fn capability(&mut self, _: usize) -> Result<Opinion, String> {
        opinion(true)
    }
}

fn file(kind: Kind, path: &str, to: Option<&str>, was: model::Verdict) -> Event {
    let agent = Agent {
        id: "a".to_owned(),
        session: None,
        bound_by: BoundBy::Exe,
        delegator: None,
        bound_delay_ms: None,
    };
    let file = File {
        path: Some(path.to_owned()),
        new_path: to.map(str::to_owned),
        access: vec![Access::Read],
        dev: Some("254:1".to_owned()),
        ..File::default()
    };
    let event = Event::new(Time::from_unix_nanos(0), kind, Source::Lsm);
    Event { agent: Some(Arc::new(agent)), verdict: Some(was), file: Some(file), ..event }
}

fn run(events: &[Event]) -> Report {
    let mut replay = Replay::new("a");
    events.iter().for_each(|event| replay.take(event, &mut Small));
    replay.finish(&[("scope.file[0]".to_owned(), 4), ("scope.net[0]".to_owned(), 9)])
}

use model::Verdict::{Allow, Deny};

#[test]
fn changes_are_grouped_by_rule_and_object() {
    let no = file(Kind::FileOpen, "/no/x", None, Allow);
    let report = run(&[
        no.clone(),
        no,
        file(Kind::FileOpen, "/yes", None, Deny),
        file(Kind::FileOpen, "/yes", None, Allow),
        file(Kind::FileOpen, "/no/x", None, Deny),
    ]);
    assert_eq!((report.events, report.unchanged, report.unjudged()), (5, 2, 0));
    assert_eq!((report.total(Change::Denied), report.total(Change::Allowed)), (2, 1));
    let (first, group) = &report.changes[0];
    assert_eq!((first.rule.as_str(), first.object.as_str(), group.count), ("scope.file[0]", "read /no/x", 2));
    assert_eq!(report.unused, [("scope.net[0]".to_owned(), 9)]);
    assert_eq!(report.json()["newly_denied"][0]["count"], 2);
}

#[test]
fn what_cannot_be_judged_is_counted() {
    let mut cut = file(Kind::FileOpen, "/yes", None, Allow);
    if let Some(file) = &mut cut.file {
        file.truncated = true;
    }
    let mut gone = file(Kind::FileOpen, "/yes", None, Allow);
    if let Some(file) = &mut gone.file {
        file.dev = Some("9:9".to_owned());
    }
    let report = run(&[cut, gone]);
    assert_eq!((report.unjudged(), report.unchanged), (2, 0));
    assert_eq!(report.not_judged.keys().collect::<Vec<_>>(), ["gone", "the path is truncated"]);
}

#[test]
fn renames_say_what_they_leave_open() {
    let moved = |from: &str, to: &str| run(&[file(Kind::FileRename, from, Some(to), Allow)]);
    assert_eq!(moved("/a", "/b").unchanged, 1);
    assert_eq!(moved("/a", "/no/b").total(Change::Denied), 1);
    assert_eq!(moved("/holder", "/b").unjudged(), 1, "perhaps a directory");
    assert_eq!(moved("/a", "/kept").unjudged(), 1, "perhaps replaced");
    assert_eq!(moved("/holder", "/no/b").total(Change::Denied), 1, "refused whatever is open");
}

#[test]
fn others_are_passed_over_and_gaps_counted() {
    let mut other = file(Kind::FileOpen, "/no/x", None, Allow);
    other.agent = None;
    let time = Time::from_unix_nanos(0);
    let gap = crate::engine::gaps::gap(Kind::GapRing, "ring_full", 3, time, time);
    let report = run(&[other, gap]);
    assert_eq!((report.events, report.gaps, report.changes.len()), (0, 1, 0));
}
