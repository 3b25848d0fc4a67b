//! Tests of sessions.

use super::*;
use crate::people::tests::{SECOND, at, bench, key};

const NEW: NewSession<'static> = NewSession {
    agent: "bot",
    index: 7,
    task: Some("ticket 5"),
    ttl: Some(Duration::from_secs(60)),
    scope: None,
    root: None,
    bound_by: "launch",
    by: None,
};

#[test]
fn a_session_ends_by_time_by_hand_and_with_its_processes() {
    let mut bench = bench();
    let timed = bench.people.open_session(&NEW, at(1), &mut bench.done).unwrap();
    let entry = SessionEntry { id: timed.number, agent: 7, expires: 61 * SECOND, ended: false, policy: 0 };
    assert_eq!(bench.take(), (vec![Effect::Session(entry)], vec![Kind::SessionStarted]));
    assert_eq!(uuid::Uuid::parse_str(&timed.id).unwrap().as_u64_pair().1, timed.number);
    let root = NewSession { ttl: None, root: Some(key(5)), bound_by: "exe", ..NEW };
    let matched = bench.people.open_session(&root, at(2), &mut bench.done).unwrap();
    assert_eq!(matched.entry().expires, u64::MAX);
    let same = bench.people.open_session(&root, at(3), &mut bench.done).unwrap();
    assert_eq!(same.number, matched.number, "one session for one run");
    bench.take();
    bench.people.end_sessions(&mut |_| true, at(60), &mut bench.done).unwrap();
    assert_eq!(bench.take().0, []);
    bench.people.end_sessions(&mut |_| true, at(61), &mut bench.done).unwrap();
    assert_eq!(
        bench.take(),
        (vec![Effect::Session(SessionEntry { ended: true, ..entry })], vec![Kind::SessionEnded])
    );
    bench.people.end_sessions(&mut |session| session.root != Some(key(5)), at(62), &mut bench.done).unwrap();
    assert_eq!(bench.take().1, [Kind::SessionEnded]);
    let by = Person { uid: 0, user: Some("root".to_owned()), caller: None };
    assert!(!bench.people.end_session(&matched, Some(&by), "x", at(63), &mut bench.done).unwrap());
    assert_eq!(bench.people.sessions(None, true).unwrap().len(), 2);
    assert!(bench.people.sessions(None, false).unwrap().is_empty());
}

#[test]
fn a_restart_puts_sessions_back_and_a_reboot_ends_them() {
    let mut bench = bench();
    bench.people.open_session(&NEW, at(1), &mut bench.done).unwrap();
    bench.take();
    let same = Opened { rebooted: false, clean: false, down: 0 };
    bench.people.restart_sessions(same, at(9), &mut bench.done).unwrap();
    let (effects, kinds) = bench.take();
    assert!(
        matches!(effects[0], Effect::Session(SessionEntry { ended: false, expires, .. }) if expires == 61 * SECOND)
    );
    assert_eq!(kinds, []);
    let other = Opened { rebooted: true, clean: true, down: 0 };
    bench.people.restart_sessions(other, at(9), &mut bench.done).unwrap();
    assert_eq!(bench.take().1, [Kind::SessionEnded]);
}

#[test]
fn a_scope_is_read_or_refused_with_its_place() {
    let scope = read_scope("[scope]\n[[scope.file]]\npath = \"/srv/**\"\naccess = [\"read\"]\n").unwrap();
    assert_eq!(scope.file.len(), 1);
    let error = read_scope("[scope]\n[[scope.file]]\npath = 7\naccess = [\"read\"]\n").unwrap_err();
    assert!(error.contains('3'), "{error}");
    assert!(read_scope("").is_err());
    let mut bench = bench();
    let scoped = NewSession { scope: Some("[scope]\ndefault = \"deny\"\n"), ..NEW };
    bench.people.open_session(&scoped, at(1), &mut bench.done).unwrap();
    bench.people.open_session(&NEW, at(1), &mut bench.done).unwrap();
    let active = bench.people.active_sessions().unwrap();
    assert_eq!((active.len(), active[0].expires_boot), (1, 61 * SECOND));
}

mod neighbours;
