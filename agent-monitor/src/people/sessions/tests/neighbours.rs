//! Two agents, runs and processes: what ends or lists one leaves the other.

use super::*;
use crate::people::tests::Bench;

fn open(bench: &mut Bench, agent: &'static str, root: Option<TaskKey>, ttl: Option<u64>) -> Session {
    let new = NewSession { agent, root, ttl: ttl.map(Duration::from_secs), ..NEW };
    bench.people.open_session(&new, at(1), &mut bench.done).unwrap()
}

fn numbers(sessions: &[Session]) -> Vec<u64> {
    sessions.iter().map(|session| session.number).collect()
}

#[test]
fn a_process_that_got_the_pid_later_is_another_run() {
    let mut bench = bench();
    let first = open(&mut bench, "bot", Some(TaskKey { tgid: 5, start: 10 }), None);
    let reused = open(&mut bench, "bot", Some(TaskKey { tgid: 5, start: 11 }), None);
    let beside = open(&mut bench, "bot", Some(TaskKey { tgid: 6, start: 10 }), None);
    let mut all = vec![first.number, reused.number, beside.number];
    all.dedup();
    assert_eq!(all.len(), 3);
    assert_eq!(open(&mut bench, "bot", first.root, None).number, first.number);
    // Where the run has ended, the same process begins another one.
    bench.people.end_session(&first, None, "x", at(2), &mut bench.done).unwrap();
    assert!(bench.people.session_of_root(TaskKey { tgid: 5, start: 10 }).unwrap().is_none());
    let again = open(&mut bench, "bot", first.root, None);
    assert_ne!(again.number, first.number);
    assert_ne!(open(&mut bench, "bot", None, None).number, open(&mut bench, "bot", None, None).number);
}

#[test]
fn lists_and_counts_are_of_one_agent() {
    let mut bench = bench();
    let one = open(&mut bench, "bot", None, None);
    let cat = open(&mut bench, "cat", None, None);
    let two = open(&mut bench, "bot", None, None);
    let by = Person { uid: 4, user: None, caller: None };
    assert!(bench.people.end_session(&one, Some(&by), "enough", at(2), &mut bench.done).unwrap());
    let list = |agent, all| numbers(&bench.people.sessions(agent, all).unwrap());
    assert_eq!(list(None, false), [cat.number, two.number]);
    assert_eq!(list(None, true), [cat.number, two.number, one.number]);
    assert_eq!((list(Some("cat"), true), list(Some("bot"), false)), (vec![cat.number], vec![two.number]));
    assert_eq!(bench.people.session_counts("bot").unwrap(), (2, 1));
    assert_eq!(bench.people.session_counts("cat").unwrap(), (1, 1));
    assert_eq!(bench.people.session(&cat.id).unwrap().unwrap().number, cat.number);
    let ended = bench.people.session_by_number(one.number).unwrap().unwrap();
    assert!(!ended.active && ended.entry().ended);
    assert_eq!(ended.ended, (Some(at(2).wall), Some("uid 4".into()), Some("enough".into())));
}

#[test]
fn only_what_is_over_or_has_no_process_ends() {
    let mut bench = bench();
    let timed = open(&mut bench, "bot", None, Some(10));
    let dead = open(&mut bench, "cat", Some(key(5)), None);
    let lives = open(&mut bench, "bot", Some(key(6)), None);
    bench.take();
    bench.people.end_sessions(&mut |session| session.number != dead.number, at(11), &mut bench.done).unwrap();
    assert_eq!(numbers(&bench.people.sessions(None, false).unwrap()), [lives.number]);
    let why = |bench: &Bench, session: &Session| {
        bench.people.session_by_number(session.number).unwrap().unwrap().ended.2.unwrap()
    };
    assert!(why(&bench, &timed).contains("time") && why(&bench, &dead).contains("processes"));
    let events = std::mem::take(&mut bench.done.events);
    let agents: Vec<_> = events.iter().map(|event| event.detail.as_ref().unwrap()["agent"].clone()).collect();
    assert_eq!(agents, ["bot", "cat"]);
}

#[test]
fn a_session_is_shown_as_it_is() {
    let mut bench = bench();
    let by = Person { uid: 0, user: Some("root".to_owned()), caller: None };
    let new = NewSession { root: Some(key(5)), by: Some(&by), ..NEW };
    let open = bench.people.open_session(&new, at(1), &mut bench.done).unwrap();
    let events = std::mem::take(&mut bench.done.events);
    let detail = events[0].detail.as_ref().unwrap();
    let fields = [
        ("task", "\"ticket 5\""),
        ("by", "\"root\""),
        ("bound_by", "\"launch\""),
        ("pid", "5"),
        ("scope", "false"),
    ];
    for (field, value) in fields {
        let text = detail[field].to_string();
        assert_eq!(text, value, "{field}: {detail:?}");
    }
    let view = open.clone().view(3, at(21));
    assert_eq!(
        (view.left_ms, view.processes, view.state.as_str(), view.root_pid),
        (Some(40_000), 3, "active", Some(5))
    );
    assert_eq!(view.number, format!("{:016x}", open.number));
    bench.people.end_session(&open, None, "x", at(22), &mut bench.done).unwrap();
    let view = bench.people.session(&open.id).unwrap().unwrap().view(0, at(23));
    assert_eq!((view.left_ms, view.state.as_str(), view.why.as_deref()), (None, "ended", Some("x")));
    // One that has ended is put back by no restart.
    bench.take();
    let same = Opened { rebooted: false, clean: true, down: 0 };
    bench.people.restart_sessions(same, at(24), &mut bench.done).unwrap();
    assert_eq!(bench.take(), (vec![], vec![]));
}

#[test]
fn a_scope_that_is_not_declared_is_none() {
    assert!(read_scope("[scope]\n").is_ok());
    assert!(read_scope("# nothing\n").unwrap_err().contains("declares no"));
    let error = read_scope("[scope]\ndefault = \"perhaps\"\n").unwrap_err();
    assert!(error.starts_with("2:"), "{error}");
}
