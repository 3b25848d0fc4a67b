//! Tests of requests and decisions over a real database, without a kernel.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::approvals::decide::Say;
use super::approvals::{Answer, Asked, DecideError, Decision, Form, Request};
use super::store::Opened;
use super::who::fake::FakeDirectory;
use super::who::{Approvers, Directory as _, Person};
use super::*;
use crate::model::{Agent, BoundBy, File, Hold, Process, Time, Verdict};
use crate::registry::record::{Approver, OnDaemonLoss};

pub(super) const SECOND: u64 = 1_000_000_000;

pub(super) fn at(second: u64) -> Now {
    Now { wall: Time::from_unix_nanos(i128::from(1_000_000 + second) * 1_000_000_000), boot: second * SECOND }
}

pub(super) struct Bench {
    dir: tempfile::TempDir,
    pub(super) people: People,
    pub(super) done: Done,
}

pub(super) fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open(&dir.path().join("state.sqlite"), "boot-1", at(0)).unwrap();
    Bench { dir, people: People::new(db, Settings::default()), done: Done::default() }
}

pub(super) fn key(tgid: u32) -> TaskKey {
    TaskKey { tgid, start: u64::from(tgid) * 10 }
}

pub(super) fn request(tgid: u32, digest: u64, held: bool, session: u64) -> Request {
    let hold = Hold { digest: format!("{digest:016x}"), held, again: false };
    let agent = Agent {
        id: "bot".to_owned(),
        session: None,
        bound_by: BoundBy::Exe,
        delegator: None,
        bound_delay_ms: None,
    };
    let event = Event {
        verdict: Some(Verdict::Hold),
        hold: Some(hold),
        agent: Some(Arc::new(agent)),
        process: Some(Arc::new(Process { pid: tgid, ..Process::default() })),
        file: Some(File { path: Some(format!("/srv/{digest}")), ..File::default() }),
        ..Event::new(at(0).wall, Kind::FileOpen, Source::Lsm)
    };
    Request { agent: 7, key: key(tgid), session, digest, held, event, id: "bot".to_owned(), timeout: None }
}

pub(super) fn oncall(need: usize) -> Approvers {
    Approvers { named: vec![Approver::Group("oncall".to_owned())], need, own: BTreeSet::from([200]) }
}

impl Bench {
    fn ask(&mut self, request: &Request, second: u64) -> Asked {
        self.people.ask(request, at(second), &mut self.done).unwrap()
    }

    fn fresh(&mut self, tgid: u32, digest: u64) -> i64 {
        match self.ask(&request(tgid, digest, true, 0), 1) {
            Asked::New(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn say(&mut self, id: i64, uid: u32, answer: Answer, need: usize) -> Result<Decision, DecideError> {
        let person = FakeDirectory.person(uid);
        let say = Say { person: &person, answer, why: Some("because"), digest: None };
        self.people.decide(id, say, &oncall(need), &FakeDirectory, at(2), &mut self.done)
    }

    pub(super) fn take(&mut self) -> (Vec<Effect>, Vec<Kind>) {
        let Done { effects, events } = std::mem::take(&mut self.done);
        (effects, events.iter().map(|event| event.kind).collect())
    }

    /// The daemon ends without a word; another begins.
    fn crash(self, boot: &str, now: Now) -> (Self, Opened) {
        let Self { dir, people, .. } = self;
        drop(people);
        let (db, opened) = Db::open(&dir.path().join("state.sqlite"), boot, now).unwrap();
        (Self { dir, people: People::new(db, Settings::default()), done: Done::default() }, opened)
    }
}

const ONCE: Answer = Answer::Approve(Form::Once);

fn put(effects: &[Effect]) -> Vec<Ticket> {
    let ticket = |effect: &Effect| if let Effect::Put(ticket) = effect { Some(*ticket) } else { None };
    effects.iter().filter_map(ticket).collect()
}

#[test]
fn an_approval_puts_its_ticket_before_it_wakes() {
    let mut bench = bench();
    let id = bench.fresh(11, 0xabc);
    assert_eq!(bench.take(), (vec![], vec![Kind::ApprovalRequested]));
    let decision = bench.say(id, 100, ONCE, 1).unwrap();
    assert_eq!(decision, Decision { state: "approved", votes: 1, need: 1, rest: None });
    let (effects, kinds) = bench.take();
    let ticket = Ticket {
        agent: 7,
        digest: 0xabc,
        whom: Whom::Task(key(11)),
        pass: true,
        expires: 62 * SECOND,
        uses: 1,
    };
    assert_eq!(effects, [Effect::Put(ticket), Effect::Wake(key(11)), Effect::Carried(id)]);
    assert_eq!(kinds, [Kind::ApprovalApproved]);
    // Twice, and after a denial.
    assert!(
        matches!(bench.say(id, 101, ONCE, 1), Err(DecideError::Over { by: Some(by), .. }) if by == "ann")
    );
    assert!(matches!(bench.say(99, 100, ONCE, 1), Err(DecideError::Unknown(99))));
    assert_eq!(bench.take(), (vec![], vec![]));
}

#[test]
fn a_denial_and_a_time_out_refuse_and_wake() {
    let mut bench = bench();
    let id = bench.fresh(11, 1);
    let late = bench.fresh(12, 2);
    bench.take();
    bench.say(id, 101, Answer::Deny, 2).unwrap();
    let (effects, kinds) = bench.take();
    assert!(put(&effects).iter().all(|ticket| !ticket.pass));
    assert_eq!(effects[1..], [Effect::Wake(key(11)), Effect::Carried(id)]);
    assert_eq!(kinds, [Kind::ApprovalDenied], "one person who says no is enough");
    bench.people.expire(at(600), &mut bench.done).unwrap();
    assert_eq!(bench.take().0, []);
    bench.people.expire(at(601), &mut bench.done).unwrap();
    let (effects, kinds) = bench.take();
    assert!(!put(&effects)[0].pass && effects.contains(&Effect::Wake(key(12))));
    assert_eq!(kinds, [Kind::ApprovalExpired]);
    assert!(matches!(bench.say(late, 100, ONCE, 1), Err(DecideError::Over { .. })));
}

#[test]
fn too_late_is_too_late_also_before_the_tick() {
    let mut bench = bench();
    let id = bench.fresh(11, 1);
    bench.take();
    let person = FakeDirectory.person(100);
    let say = Say { person: &person, answer: ONCE, why: None, digest: None };
    let result = bench.people.decide(id, say, &oncall(1), &FakeDirectory, at(700), &mut bench.done);
    assert!(matches!(result, Err(DecideError::Over { .. })), "{result:?}");
    assert!(put(&bench.take().0).iter().all(|ticket| !ticket.pass));
}

#[test]
fn the_wrong_people_are_refused_and_told() {
    let mut bench = bench();
    let id = bench.fresh(11, 1);
    bench.take();
    for uid in [0, 102, 200, 4242] {
        assert!(matches!(bench.say(id, uid, ONCE, 1), Err(DecideError::NotAllowed(_))), "{uid}");
        assert!(matches!(bench.say(id, uid, Answer::Deny, 1), Err(DecideError::NotAllowed(_))), "{uid}");
        assert_eq!(bench.take(), (vec![], vec![Kind::ApprovalRefused; 2]));
    }
    let person = FakeDirectory.person(100);
    let say = Say { person: &person, answer: ONCE, why: None, digest: Some("0000000000000002") };
    let other = bench.people.decide(id, say, &oncall(1), &FakeDirectory, at(2), &mut bench.done);
    assert!(matches!(other, Err(DecideError::Digest { .. })));
}

#[test]
fn four_eyes_are_two_people_who_mean_the_same() {
    let mut bench = bench();
    let id = bench.fresh(11, 1);
    bench.take();
    let first = bench.say(id, 100, ONCE, 2).unwrap();
    assert_eq!((first.state, first.votes, first.need), ("pending", 1, 2));
    assert_eq!(bench.take(), (vec![], vec![Kind::ApprovalVoted]));
    assert!(matches!(bench.say(id, 100, ONCE, 2), Err(DecideError::Twice(_))));
    let wider = Answer::Approve(Form::For(Duration::from_secs(60)));
    assert!(matches!(bench.say(id, 101, wider, 2), Err(DecideError::Differs { .. })));
    assert_eq!(bench.take().0, []);
    assert_eq!(bench.say(id, 101, ONCE, 2).unwrap().state, "approved");
    assert!(put(&bench.take().0)[0].pass);
}

#[test]
fn identical_requests_are_one_and_once_is_for_one() {
    let mut bench = bench();
    let id = bench.fresh(11, 1);
    assert_eq!(bench.ask(&request(12, 1, true, 0), 1), Asked::Merged(id));
    assert_eq!(bench.ask(&request(11, 1, true, 0), 1), Asked::Merged(id), "after a stray SIGCONT");
    assert_ne!(bench.fresh(13, 2), id, "another action is another request");
    let found = bench.people.approval(id).unwrap().unwrap();
    let view = bench.people.view(found, &oncall(1), at(2)).unwrap();
    assert_eq!((view.count, view.waiting), (3, vec![11, 12]));
    bench.take();
    let rest = bench.say(id, 100, ONCE, 1).unwrap().rest.unwrap();
    let (effects, _) = bench.take();
    assert_eq!(put(&effects)[0].whom, Whom::Task(key(11)));
    assert!(!effects.contains(&Effect::Wake(key(12))), "the other waits on");
    assert_eq!(bench.people.waiters(rest).unwrap().iter().map(|w| w.key).collect::<Vec<_>>(), [key(12)]);
    bench.say(rest, 101, Answer::Approve(Form::For(Duration::from_secs(60))), 1).unwrap();
    let ticket = put(&bench.take().0)[0];
    assert_eq!((ticket.whom, ticket.uses, ticket.expires), (Whom::Agent, u32::MAX, 62 * SECOND));
}

#[test]
fn a_session_approval_covers_its_session() {
    let mut bench = bench();
    let Asked::New(id) = bench.ask(&request(11, 1, true, 5), 1) else { panic!() };
    bench.ask(&request(12, 1, true, 6), 1);
    bench.ask(&request(13, 1, true, 5), 1);
    bench.take();
    let rest = bench.say(id, 100, Answer::Approve(Form::Session), 1).unwrap().rest.unwrap();
    let (effects, _) = bench.take();
    assert_eq!(put(&effects)[0].whom, Whom::Session(5));
    assert!(effects.contains(&Effect::Wake(key(13))) && !effects.contains(&Effect::Wake(key(12))));
    assert_eq!(bench.people.waiters(rest).unwrap()[0].session, 6);
    let none = bench.fresh(14, 9);
    assert!(matches!(bench.say(none, 100, Answer::Approve(Form::Session), 1), Err(DecideError::NoSession)));
    let long = Answer::Approve(Form::For(Duration::from_secs(90_000)));
    assert!(matches!(bench.say(none, 100, long, 1), Err(DecideError::Span)));
}

#[test]
fn what_cannot_be_held_passes_at_the_next_try() {
    let mut bench = bench();
    let Asked::New(id) = bench.ask(&request(11, 1, false, 0), 1) else { panic!() };
    bench.say(id, 100, ONCE, 1).unwrap();
    let (effects, _) = bench.take();
    let ticket = put(&effects)[0];
    assert_eq!((ticket.whom, ticket.uses, ticket.expires), (Whom::Agent, 1, 602 * SECOND));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Wake(_))));
}

#[test]
fn a_flood_is_denied_visible_and_hides_nothing() {
    let mut bench = bench();
    let first = bench.fresh(1, 1);
    for n in 2..=20 {
        bench.fresh(n, u64::from(n));
    }
    bench.take();
    for n in 21..=40 {
        assert_eq!(bench.ask(&request(n, u64::from(n), true, 0), 1), Asked::Flooded);
    }
    let (effects, kinds) = bench.take();
    assert_eq!(kinds, [Kind::ApprovalFlood], "one record");
    assert_eq!(put(&effects).iter().filter(|ticket| !ticket.pass).count(), 20);
    assert_eq!(bench.ask(&request(50, 1, true, 0), 1), Asked::Merged(first), "the same again is merged");
    assert_eq!(bench.people.floods()[0].denied, 20);
    let listed = bench.people.list(Some("bot"), false).unwrap();
    assert_eq!((listed.len(), listed[0].id), (20, first), "the earlier ones stay, the first first");
    bench.say(first, 100, Answer::Deny, 1).unwrap();
    bench.people.flush(at(3), &mut bench.done).unwrap();
    assert_eq!(bench.take().1, [Kind::ApprovalDenied, Kind::ApprovalFlood]);
    assert!(bench.people.floods().is_empty());
}

#[test]
fn the_dead_need_no_answer() {
    let mut bench = bench();
    let id = bench.fresh(11, 1);
    bench.ask(&request(12, 1, true, 0), 1);
    bench.take();
    bench.people.bury(&mut |k| k != key(11), "it ended", at(3), &mut bench.done).unwrap();
    assert_eq!(bench.take(), (vec![], vec![]));
    assert_eq!(bench.people.waiters(id).unwrap().len(), 1);
    bench.people.bury(&mut |_| false, "it ended", at(3), &mut bench.done).unwrap();
    assert_eq!(bench.take().1, [Kind::ApprovalGone]);
}

#[test]
fn a_crash_between_disk_and_kernel_passes_nothing() {
    let mut bench = bench();
    let decided = bench.fresh(11, 1);
    let waits = bench.fresh(12, 2);
    bench.say(decided, 100, ONCE, 1).unwrap();
    // What was to be done is lost with the daemon.
    let (mut bench, opened) = bench.crash("boot-1", at(5));
    let wait = |_: &str| OnDaemonLoss::Wait;
    let restart = bench.people.restart(opened, &wait, at(5), &mut bench.done).unwrap();
    assert_eq!((restart.undone, restart.waiting, restart.refused), (1, 1, 0));
    let (effects, _) = bench.take();
    assert_eq!(effects, [Effect::Wake(key(11)), Effect::Carried(decided)], "it is judged and asks again");
    bench.people.carried(decided).unwrap();
    let (mut bench, opened) = bench.crash("boot-1", at(6));
    let deny = |_: &str| OnDaemonLoss::Deny;
    let restart = bench.people.restart(opened, &deny, at(6), &mut bench.done).unwrap();
    assert_eq!((restart.undone, restart.waiting, restart.refused), (0, 0, 1));
    let (effects, kinds) = bench.take();
    assert!(put(&effects).iter().all(|ticket| !ticket.pass) && effects.contains(&Effect::Wake(key(12))));
    assert_eq!(kinds, [Kind::ApprovalDenied]);
    assert_eq!(bench.people.approval(waits).unwrap().unwrap().state, "denied");
}

#[test]
fn after_a_reboot_nobody_waits_and_nothing_is_touched() {
    let mut bench = bench();
    let id = bench.fresh(11, 1);
    let (mut bench, opened) = bench.crash("boot-2", at(5));
    assert!(opened.rebooted);
    bench.people.restart(opened, &|_| OnDaemonLoss::Wait, at(5), &mut bench.done).unwrap();
    assert_eq!(bench.take(), (vec![Effect::Carried(id)], vec![Kind::ApprovalGone]));
}

#[test]
fn a_database_that_cannot_be_written_denies() {
    let mut bench = bench();
    let id = bench.fresh(11, 1);
    bench.take();
    let pages: i64 =
        bench.people.db.read(|conn| conn.query_row("PRAGMA page_count", [], |row| row.get(0))).unwrap();
    bench.people.db.read(|conn| conn.pragma_update(None, "max_page_count", pages)).unwrap();
    // Longer than what is left on the last pages.
    let mut long = request(12, 2, true, 0);
    long.event.file = Some(File { path: Some("x".repeat(60_000)), ..File::default() });
    let mut failed = bench.people.ask(&long, at(1), &mut bench.done);
    assert!(matches!(failed, Err(StoreError::Full(_))), "{failed:?}");
    let (effects, _) = bench.take();
    assert!(!put(&effects)[0].pass && effects.contains(&Effect::Wake(key(12))), "denied at once");
    bench.people.db.read(|conn| conn.pragma_update(None, "query_only", true)).unwrap();
    assert!(matches!(bench.say(id, 100, ONCE, 1), Err(DecideError::Store(_))));
    assert_eq!(bench.take().0, [], "no ticket for what is not on disk");
    failed = bench.people.ask(&request(13, 3, true, 0), at(1), &mut bench.done);
    assert!(failed.is_err() && !put(&bench.take().0)[0].pass);
}

#[test]
fn people_are_named() {
    assert_eq!(Person { uid: 5, user: None, caller: None }.label(), "uid 5");
}

mod callers;
mod neighbours;
mod random;
