//! A damaged log stays visible: over restarts, with and without its note, until it is moved away.

use std::ops::ControlFlow;

use super::*;
use crate::log::fake::{Place, event, moment, settings, time};
use crate::log::reader::{self, Window};
use crate::log::segment;
use crate::log::writer::{Opened, Writer};
use crate::model::{Event, Kind};
use crate::record::FilterSpec;

fn open(place: &Place, second: u64) -> (Writer, Opened) {
    Writer::open(&place.dir(), place.keys(), settings(), "host", &moment(second)).unwrap()
}

/// A log with three checkpoints, of which the last does not hold any more.
fn damaged() -> Place {
    let place = Place::new();
    let (mut writer, _) = open(&place, 0);
    for second in 1..4 {
        (0..5).for_each(|number| writer.append(&event(number + second * 10)));
        writer.checkpoint(&moment(second), false).unwrap();
    }
    let path = segment::path(&place.dir(), 0, false);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("/srv/32\""));
    fs::write(&path, text.replacen("/srv/32\"", "/srv/99\"", 1)).unwrap();
    place
}

/// What `events --kind 'log.*'` selects.
fn of_the_log(place: &Place) -> Vec<Event> {
    let spec = FilterSpec { kind: vec!["log.*".to_owned()], ..FilterSpec::default() };
    let filter = spec.compile(time(0)).unwrap();
    let mut out = Vec::new();
    let read = reader::records(&place.dir(), &place.options(), &Window::default(), |_, json| {
        let event: Event = serde_json::from_slice(json).unwrap();
        out.extend(filter.matches(&event).then_some(event));
        ControlFlow::Continue(())
    });
    assert!(read.unwrap().damage.is_empty());
    out
}

fn field(event: &Event, key: &str) -> String {
    let value = &event.detail.as_ref().unwrap()[key];
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn the_new_log_names_the_old_one_and_its_last_verified_checkpoint() {
    let place = damaged();
    let (mut writer, opened) = open(&place, 60);
    writer.checkpoint(&moment(61), true).unwrap();
    let aside = opened.aside.unwrap();
    let last = LastVerified { checkpoint: 2, records: 11, time: time(2) };
    assert_eq!(aside.last_verified, Some(last));
    let events = of_the_log(&place);
    let kinds: Vec<Kind> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [Kind::LogOpened, Kind::LogSetAside, Kind::LogClosed]);
    let named = &events[1];
    assert_eq!(field(named, "path"), aside.path);
    assert_eq!(
        (field(named, "verified_checkpoint"), field(named, "verified_records")),
        ("2".into(), "11".into())
    );
    assert!(field(named, "reason").contains("record 13"), "{named:?}");
}

#[test]
fn it_lasts_over_restarts_until_it_is_moved_away_note_or_no_note() {
    let place = damaged();
    let state = place.state.path();
    assert_eq!(set_aside(state), []);
    drop(open(&place, 60));
    let found = set_aside(state);
    let [aside] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((aside.at, aside.last_verified.as_ref().unwrap().checkpoint), (Some(time(60)), 2));
    drop(open(&place, 70));
    assert_eq!(set_aside(state), found);
    // A note that is lost or replaced hides nothing.
    let note = note_of(Path::new(&aside.path));
    fs::write(&note, r#"{"path":"/elsewhere"}"#).unwrap();
    let unknown = SetAside { path: aside.path.clone(), ..SetAside::default() };
    assert_eq!(set_aside(state), std::slice::from_ref(&unknown));
    fs::remove_file(&note).unwrap();
    assert_eq!(set_aside(state), std::slice::from_ref(&unknown));
    assert!(unknown.text().contains("its note is missing"));
    fs::write(state.join("log.damaged-is-no-directory"), "").unwrap();
    fs::rename(&aside.path, state.join("evidence")).unwrap();
    assert_eq!(set_aside(state), []);
}

#[test]
fn a_crash_right_after_it_was_set_aside_does_not_keep_the_new_log_from_naming_it() {
    let place = damaged();
    let (writer, opened) = open(&place, 60);
    let aside = opened.aside.unwrap();
    // Nothing was flushed: the new log has no record.
    drop(writer);
    let (mut writer, opened) = open(&place, 70);
    assert_eq!(opened.aside, Some(aside));
    writer.checkpoint(&moment(71), true).unwrap();
    drop(writer);
    assert_eq!(of_the_log(&place)[1].kind, Kind::LogSetAside);
    // Said once: not again at the next start.
    let (mut writer, opened) = open(&place, 80);
    assert_eq!(opened.aside, None);
    writer.checkpoint(&moment(81), true).unwrap();
    let named = of_the_log(&place).iter().filter(|event| event.kind == Kind::LogSetAside).count();
    assert_eq!(named, 1);
}

#[test]
fn conditions_and_what_is_to_be_done() {
    let aside = SetAside { path: "/s/log.damaged-1".into(), ..SetAside::default() };
    let good = LogStatus { state: "writing".into(), ..LogStatus::default() };
    let cut = LogStatus { cut: Some((29, "/s/log/x.torn".into())), ..good.clone() };
    let full = LogStatus {
        state: "full".into(),
        problem: Some("no space".into()),
        since: Some(time(7)),
        ..cut.clone()
    };
    let rows = [
        (good.clone().beside(Vec::new()), Condition::Ok, vec![(LOG, true)]),
        (cut.clone().beside(Vec::new()), Condition::Recovered, vec![(LOG, true)]),
        (cut.beside(vec![aside.clone()]), Condition::SetAside, vec![(LOG, true), (LOG_SET_ASIDE, false)]),
        (full.beside(vec![aside]), Condition::NotWritten, vec![(LOG, false), (LOG_SET_ASIDE, false)]),
    ];
    for (status, condition, checks) in rows {
        assert_eq!(status.condition, condition);
        assert!(status.has(condition));
        assert_eq!(status.has(Condition::Ok), condition == Condition::Ok);
        let made = status.checks();
        assert_eq!(made.iter().map(|check| (check.name.as_str(), check.ok)).collect::<Vec<_>>(), checks);
        assert!(made.iter().all(|check| check.ok != check.fix.is_some()), "{made:?}");
        let text = status.findings().join("\n");
        assert_eq!(text.contains("29 bytes"), status.cut.is_some(), "{text}");
        assert_eq!(
            text.contains(&format!("since {}: no space", time(7))),
            condition == Condition::NotWritten
        );
    }
}
