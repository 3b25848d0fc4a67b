//! Tests of keys and choices.

use std::sync::Arc;

use agent_monitor::model::{
    Access, Agent, Ancestor, BoundBy, Event, File, Hold, Kind, Network, Process, Source, Verdict,
};
use agent_monitor::people::api::{FormView, SessionView};

use super::*;

fn at(second: i128) -> Time {
    Time::from_unix_nanos((1_795_300_000 + second) * 1_000_000_000)
}

fn event(kind: Kind, pid: u32) -> Event {
    let agent = Agent {
        id: "release-bot".to_owned(),
        session: Some("0193a1b2-0000-7000-8000-000000000001".to_owned()),
        bound_by: BoundBy::Launch,
        delegator: None,
        bound_delay_ms: None,
    };
    let process = Process {
        pid,
        exe: Some("/usr/bin/git".to_owned()),
        args: ["git", "push", "origin", "main"].map(str::to_owned).to_vec(),
        cwd: Some("/srv/releases".to_owned()),
        user: Some("release-bot".to_owned()),
        ancestry: vec![Ancestor { pid: 4100, exe: Some("/usr/bin/node".to_owned()), start_time: None }],
        ..Process::default()
    };
    Event {
        seq: u64::from(pid),
        verdict: Some(Verdict::Hold),
        rule: Some("scope.net[1]".to_owned()),
        labels: vec!["pii".to_owned()],
        hold: Some(Hold { digest: format!("{pid:016x}"), held: true, again: false }),
        agent: Some(Arc::new(agent)),
        process: Some(Arc::new(process)),
        ..Event::new(at(0), kind, Source::Lsm)
    }
}

fn view(id: i64, event: Event, count: u64) -> ApprovalView {
    ApprovalView {
        id,
        agent: "release-bot".to_owned(),
        digest: format!("{id:016x}"),
        state: "pending".to_owned(),
        held: true,
        count,
        waiting: vec![4121],
        asked: at(0),
        expires: at(600),
        left_ms: 492_000,
        event,
        votes: Vec::new(),
        need: 1,
        approvers: "group:oncall".to_owned(),
        form: None,
        decided: None,
        decided_by: None,
        why: None,
        caller: None,
    }
}

fn detail_of(approval: ApprovalView) -> ApprovalDetail {
    let session = SessionView {
        id: "0193a1b2-0000-7000-8000-000000000001".to_owned(),
        number: "8000000000000001".to_owned(),
        agent: "release-bot".to_owned(),
        task: Some("release 4.2".to_owned()),
        state: "active".to_owned(),
        root_pid: Some(4100),
        bound_by: "launch".to_owned(),
        by: Some("carol".to_owned()),
        started: at(-60),
        expires: None,
        left_ms: None,
        scope: None,
        processes: 3,
        ended: None,
        ended_by: None,
        why: None,
    };
    let read = Event {
        verdict: Some(Verdict::Allow),
        rule: Some("scope.file[0]".to_owned()),
        hold: None,
        network: None,
        file: Some(File {
            path: Some("/srv/customers/list.csv".to_owned()),
            access: vec![Access::Read],
            ..File::default()
        }),
        ..event(Kind::FileOpen, 4121)
    };
    let form = FormView { form: "once".to_owned(), means: "this one".to_owned(), widens: false };
    ApprovalDetail {
        schema_version: 1,
        approval,
        owner: Some("platform@example.com".to_owned()),
        purpose: Some("cuts release branches and tags".to_owned()),
        session: Some(session),
        forms: vec![form],
        recent: vec![read],
    }
}

fn listed(ids: &[i64]) -> ApprovalList {
    let one = |id: &i64| match id % 2 {
        1 => {
            let network = Network {
                remote: "203.0.113.7:443".parse().ok(),
                protocol: Some("tcp".to_owned()),
                name: Some("github.example.com".to_owned()),
                ..Network::default()
            };
            view(*id, Event { network: Some(network), ..event(Kind::NetworkConnect, 4121) }, 3)
        }
        _ => {
            let path = Some("/srv/releases/key.pem".to_owned());
            let file = File { path, access: vec![Access::Write], ..File::default() };
            view(*id, Event { file: Some(file), ..event(Kind::FileOpen, 4130) }, 1)
        }
    };
    ApprovalList { schema_version: 1, approvals: ids.iter().map(one).collect(), floods: Vec::new() }
}

pub(in super::super) fn app() -> App {
    let mut app = App::new("ann".to_owned());
    app.clock(at(108), Duration::ZERO);
    app
}

pub(in super::super) fn two() -> App {
    let mut app = app();
    app.list(listed(&[17, 18]));
    let chosen = app.waiting[0].clone();
    app.detail(detail_of(chosen));
    app.clock(at(110), Duration::ZERO);
    app
}

fn answer(id: i64, says: Says) -> Do {
    Do::Answer(Answer { id, digest: format!("{id:016x}"), says })
}

#[test]
fn what_comes_and_goes_does_not_move_the_choice() {
    let mut app = two();
    assert!(app.take_bell() && !app.take_bell());
    assert_eq!(app.key(Key::Down), Do::Nothing);
    assert_eq!((app.chosen(), app.detail.is_some()), (Some(18), false));
    assert_eq!(app.key(Key::Letter('o')), Do::Nothing, "nothing is decided before it is shown");
    app.list(listed(&[17, 18, 19]));
    assert!(app.take_bell());
    assert_eq!(app.chosen(), Some(18));
    app.list(listed(&[18, 19]));
    assert_eq!((app.chosen(), app.position()), (Some(18), 0));
    app.list(listed(&[19]));
    assert_eq!(app.chosen(), Some(19));
    app.key(Key::Up);
    assert_eq!(app.chosen(), Some(19));
    app.list(listed(&[]));
    assert_eq!(app.chosen(), None);
    assert_eq!(app.key(Key::Letter('d')), Do::Nothing);
}

#[test]
fn narrow_answers_go_at_once_and_wide_ones_are_asked_back() {
    let mut app = two();
    assert_eq!(app.key(Key::Letter('o')), answer(17, Says::Once));
    assert_eq!(app.key(Key::Letter('d')), answer(17, Says::Deny));
    for (key, says) in [('m', Says::For(10)), ('s', Says::Session), ('x', Says::DenyAndSuspend)] {
        assert_eq!(app.key(Key::Letter(key)), Do::Nothing);
        assert_eq!(app.key(Key::Letter('o')), Do::Nothing, "any other key is no");
        assert!(app.confirm.is_none());
        app.key(Key::Letter(key));
        assert_eq!(app.key(Key::Letter('y')), answer(17, says));
    }
    app.key(Key::Letter('m'));
    (0..3).for_each(|_| drop(app.key(Key::Letter('-'))));
    assert_eq!(app.key(Key::Letter('y')), answer(17, Says::For(1)));
    assert_eq!(app.key(Key::Letter('q')), Do::Leave);
}

#[test]
fn a_question_is_void_when_what_it_is_about_is_gone() {
    let mut app = two();
    app.key(Key::Letter('m'));
    app.list(listed(&[18]));
    assert!(app.confirm.is_none() && app.message.is_some());
    let next = app.waiting[0].clone();
    app.detail(detail_of(next));
    assert_eq!(app.key(Key::Letter('y')), Do::Nothing, "the yes was for another one");
    app.clock(at(112), Duration::ZERO);
    app.key(Key::Letter('m'));
    assert!(app.confirm.is_some());
    app.link(Some("gone".to_owned()));
    assert!(app.confirm.is_none());
    assert_eq!(app.key(Key::Letter('o')), Do::Nothing, "no daemon, no answer");
}

#[test]
fn what_has_just_come_up_is_not_decided_by_the_key_for_the_one_before() {
    let mut app = two();
    assert_eq!(app.key(Key::Letter('o')), answer(17, Says::Once));
    app.list(listed(&[18]));
    let next = app.waiting[0].clone();
    app.detail(detail_of(next.clone()));
    assert_eq!(app.key(Key::Letter('o')), Do::Nothing);
    app.clock(at(111), Duration::ZERO);
    app.detail(detail_of(next));
    assert_eq!(app.key(Key::Letter('o')), answer(18, Says::Once));
}
