//! Where a call came from is kept with every act of a person, and with nothing that time did.

use super::*;
use crate::export::sentence;
use crate::people::grants::NewGrant;
use crate::people::life::offboard::Step;
use crate::people::sessions::NewSession;
use crate::people::who::{Caller, Environment};
use crate::run::port::LifeState;

fn from(pid: u32) -> Caller {
    let environment = Environment { sudo_user: Some("eve".to_owned()), ..Environment::default() };
    let (login, tty) = ("uid".to_owned(), "pts/3".to_owned());
    Caller { pid, login, login_uid: Some(101), login_session: Some(12), tty, environment }
}

fn calling(uid: u32, pid: u32) -> Person {
    FakeDirectory.calling(uid, &from(pid))
}

/// Kinds of the events so far, and the pid that each says it was called from; 0 for none.
fn told_from(bench: &mut Bench) -> Vec<(Kind, u64)> {
    let pid = |event: &Event| event.detail.as_ref()?.get("caller")?.get("pid")?.as_u64();
    let events = std::mem::take(&mut bench.done).events;
    events.iter().map(|event| (event.kind, pid(event).unwrap_or(0))).collect()
}

fn decide(bench: &mut Bench, id: i64, by: &Person, answer: Answer, need: usize) -> bool {
    let say = Say { person: by, answer, why: None, digest: None };
    bench.people.decide(id, say, &oncall(need), &FakeDirectory, at(2), &mut bench.done).is_ok()
}

#[test]
fn decisions_keep_where_they_came_from_also_after_a_restart() {
    let mut bench = bench();
    let (yes, no, late) = (bench.fresh(11, 1), bench.fresh(12, 2), bench.fresh(13, 3));
    bench.take();
    assert!(!decide(&mut bench, yes, &calling(102, 5), ONCE, 2), "eve may not");
    assert!(decide(&mut bench, yes, &calling(100, 6), ONCE, 2));
    assert!(decide(&mut bench, yes, &calling(101, 7), ONCE, 2));
    assert!(decide(&mut bench, no, &calling(100, 8), Answer::Deny, 2));
    bench.people.expire(at(100_000), &mut bench.done).unwrap();
    let expect = [
        (Kind::ApprovalRefused, 5),
        (Kind::ApprovalVoted, 6),
        (Kind::ApprovalApproved, 7),
        (Kind::ApprovalDenied, 8),
        (Kind::ApprovalExpired, 0),
    ];
    assert_eq!(told_from(&mut bench), expect);
    let (bench, _) = bench.crash("boot-1", at(9));
    let view = |id| {
        let found = bench.people.approval(id).unwrap().unwrap();
        bench.people.view(found, &oncall(2), at(9)).unwrap()
    };
    let bob = from(7).named(|_| Some("bob".to_owned()));
    assert_eq!((bob.login.as_str(), view(yes).caller.as_ref()), ("bob (101)", Some(&bob)));
    let votes: Vec<_> = view(yes).votes.into_iter().map(|vote| vote.caller.unwrap().pid).collect();
    assert_eq!(votes, [6, 7]);
    assert_eq!(view(no).caller.map(|caller| caller.pid), Some(8));
    assert_eq!(view(late).caller, None);
}

#[test]
fn grants_sessions_and_lives_keep_it_too() {
    let mut bench = bench();
    let done = &mut bench.done;
    let grant = |by| NewGrant {
        agent: "bot",
        session: None,
        scope: "[scope]\n[[scope.file]]\npath = \"/srv/x\"\naccess = [\"read\"]\n",
        ttl: Duration::from_secs(60),
        uses: None,
        reason: "ticket 5",
        by,
    };
    let (people, oncall) = (&mut bench.people, oncall(2));
    let [eve, ann, bob] = [calling(102, 1), calling(100, 2), calling(101, 3)];
    assert!(people.add_grant(&grant(&eve), &oncall, &FakeDirectory, at(1), done).is_err());
    let made = people.add_grant(&grant(&ann), &oncall, &FakeDirectory, at(1), done).unwrap();
    people.confirm_grant(made.id, &bob, &oncall, &FakeDirectory, at(1), done).unwrap();
    people.revoke_grant(made.id, &calling(100, 4), None, at(2), done).unwrap();
    let kept = people.grant(made.id).unwrap().unwrap();
    assert_eq!(people.grant_view(kept, 2, at(2)).caller.map(|caller| caller.pid), Some(2));
    let by = calling(0, 5);
    let new = NewSession {
        agent: "bot",
        index: 7,
        task: None,
        ttl: None,
        scope: None,
        root: None,
        bound_by: "launch",
        by: Some(&by),
    };
    let session = people.open_session(&new, at(2), done).unwrap();
    people.end_session(&session, Some(&calling(0, 6)), "over", at(3), done).unwrap();
    people.set_life("bot", LifeState::Suspended, Some(&calling(0, 7)), "x", at(3), done).unwrap();
    people.set_life("bot", LifeState::Active, Some(&calling(0, 8)), "x", at(4), done).unwrap();
    people.set_reviewed("bot", &calling(0, 9), at(99).wall, at(4), done).unwrap();
    people.set_life("bot", LifeState::Retired, Some(&calling(0, 10)), "x", at(5), done).unwrap();
    people.set_life("other", LifeState::Retired, None, "it was idle for too long", at(5), done).unwrap();
    let step = Step {
        kind: "manual",
        target: "t".to_owned(),
        result: "open",
        evidence: serde_json::json!({}),
        sha256: None,
    };
    people.keep_steps("bot", &[step], Some(&calling(0, 11)), at(6), done).unwrap();
    people.confirm_step("bot", 1, &calling(0, 12), None, at(7), done).unwrap().unwrap();
    let sentence = sentence::of(done.events.iter().find(|event| event.kind == Kind::AgentSuspended).unwrap());
    let expect = "called from: login bob (101), login session 12, tty pts/3, pid 7; the environment says: sudo user eve";
    assert!(sentence.contains(expect), "{sentence}");
    let expect = [
        (Kind::GrantRefused, 1),
        (Kind::GrantProposed, 2),
        (Kind::GrantAdded, 3),
        (Kind::GrantRevoked, 4),
        (Kind::SessionStarted, 5),
        (Kind::SessionEnded, 6),
        (Kind::AgentSuspended, 7),
        (Kind::AgentResumed, 8),
        (Kind::AgentReviewed, 9),
        (Kind::AgentRetired, 10),
        (Kind::AgentRetired, 0),
        (Kind::AgentOffboarded, 11),
        (Kind::AgentOffboarded, 12),
    ];
    assert_eq!(told_from(&mut bench), expect);
}
