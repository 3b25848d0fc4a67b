//! The people side of the daemon over a fake kernel, fake processes and a real database.

use std::sync::Arc;

use super::*;
use crate::control::people::PeopleDaemon as _;
use crate::decode::encode::{head, record};
use crate::model::{Agent, BoundBy, File, Hold, Process, Source, Verdict};
use crate::people::hands::fake::FakeHands;
use crate::people::who::fake::FakeDirectory;
use crate::run::port::Whom;
use crate::run::tests::{Bench, bench};
use agent_monitor_ebpf::event::FileBody;
use agent_monitor_ebpf::header::{Header, Kind as RawKind};
use zerocopy::FromZeros as _;

/// A daemon with one agent, `bot`, number `index`, and one process of it, stopped.
struct Office {
    bench: Bench,
    hands: FakeHands,
    key: TaskKey,
}

const PID: u32 = 4_200_000;

fn office() -> Office {
    let bench = bench();
    bench.record("bot", "user = 4242");
    bench.core.load().unwrap();
    let hands = FakeHands::default();
    let path = bench.core.config.state_dir.join(STATE_FILE);
    let (db, opened) = Db::open(&path, "boot", bench.core.moment()).unwrap();
    bench.core.admit_people(db, opened, Box::new(hands.clone()), Box::new(FakeDirectory));
    let body = FileBody { ..FileBody::new_zeroed() };
    let head = Header { uid: 4243, ..head(RawKind::FileOpen, 5, PID, 7, bench.index("bot")) };
    bench.feed(record(head, &body, &[]));
    let key = lock(&bench.core.live).engine.tree().latest(PID).unwrap().key;
    hands.0.lock().unwrap().conditions.insert(key, Condition::Stopped);
    Office { bench, hands, key }
}

impl Office {
    fn hold(&self, digest: u64) {
        let agent = Agent {
            id: "bot".to_owned(),
            session: None,
            bound_by: BoundBy::User,
            delegator: None,
            bound_delay_ms: None,
        };
        let event = Event {
            verdict: Some(Verdict::Hold),
            hold: Some(Hold { digest: format!("{digest:016x}"), held: true, again: false }),
            agent: Some(Arc::new(agent)),
            process: Some(Arc::new(Process { pid: PID, ..Process::default() })),
            file: Some(File { path: Some("/srv/x".to_owned()), ..File::default() }),
            ..Event::new(self.bench.core.clock.now(), Kind::FileOpen, Source::Lsm)
        };
        let core = &self.bench.core;
        core.inbox.hear(&lock(&core.live).engine, &core.store.append(event));
        core.people_round();
    }

    fn acts(&self) -> Vec<(TaskKey, Act)> {
        std::mem::take(&mut self.hands.0.lock().unwrap().acts)
    }

    fn kinds(&self) -> Vec<Kind> {
        self.bench
            .kinds()
            .into_iter()
            .filter(|kind| kind.family() == crate::model::Family::Approval)
            .collect()
    }
}

#[test]
fn what_the_engine_sees_waits_and_a_person_lets_it_go_on() {
    let office = office();
    office.hold(0xfe);
    let list = office.bench.core.approvals(None, false).unwrap();
    let [one] = list.approvals.as_slice() else { panic!("{list:?}") };
    assert_eq!((one.agent.as_str(), one.held, one.waiting.as_slice()), ("bot", true, &[PID][..]));
    assert_eq!((one.approvers.as_str(), one.need), ("root", 1));
    let detail = office.bench.core.approval(one.id).unwrap();
    assert_eq!(detail.forms.iter().filter(|form| form.widens).count(), 1);
    let mut guard = lock(&office.bench.core.people);
    let side = guard.as_mut().unwrap();
    let approvers = office.bench.core.approvers_of("bot");
    assert!(
        [4242, 4243].iter().all(|uid| approvers.own.contains(uid)),
        "the record's user, and that of a process"
    );
    let (now, mut done) = (office.bench.core.moment(), Done::default());
    let person = side.directory.person(0);
    let answer = crate::people::approvals::Answer::Approve(crate::people::approvals::Form::Once);
    let say = crate::people::approvals::decide::Say { person: &person, answer, why: None, digest: None };
    side.people.decide(one.id, say, &approvers, &FakeDirectory, now, &mut done).unwrap();
    office.bench.core.perform(side, done, now);
    drop(guard);
    assert_eq!(office.acts(), [(office.key, Act::Wake)]);
    let tickets = office.bench.kernel.inner().tickets.clone();
    assert_eq!(tickets.len(), 1);
    assert!(tickets[0].pass && tickets[0].whom == Whom::Task(office.key) && tickets[0].uses == 1);
    assert_eq!(office.kinds(), [Kind::ApprovalRequested, Kind::ApprovalApproved]);
}

#[test]
fn time_denies_and_the_heart_beats_while_somebody_can_approve() {
    let office = office();
    office.hold(1);
    office.bench.core.people_tick();
    assert!(office.bench.kernel.inner().heartbeat > 0);
    lock(&office.bench.core.people)
        .as_mut()
        .unwrap()
        .people
        .expire(Now { boot: u64::MAX, ..office.bench.core.moment() }, &mut Done::default())
        .unwrap();
    // A database that cannot be written: no heartbeat, what comes is denied.
    let query_only = |on: bool| {
        let mut guard = lock(&office.bench.core.people);
        let side = guard.as_mut().unwrap();
        side.people.db().read(|conn| conn.pragma_update(None, "query_only", on)).unwrap();
    };
    query_only(true);
    office.acts();
    office.hold(2);
    assert_eq!(office.acts(), [(office.key, Act::Wake)]);
    let ticket = *office.bench.kernel.inner().tickets.last().unwrap();
    assert!(!ticket.pass && ticket.digest == 2);
    let beat = office.bench.kernel.inner().heartbeat;
    office.bench.core.people_tick();
    assert_eq!(office.bench.kernel.inner().heartbeat, beat);
    assert!(office.kinds().contains(&Kind::ApprovalFailed));
    query_only(false);
    office.bench.core.people_tick();
    assert!(office.bench.kernel.inner().heartbeat > beat);
}

#[test]
fn a_stopped_process_of_which_nobody_knows_is_judged_again() {
    let office = office();
    let core = &office.bench.core;
    let index = office.bench.index("bot");
    let tag = agent_monitor_ebpf::task::TaskTag { agent: index, ..agent_monitor_ebpf::task::TaskTag::NONE };
    office.bench.kernel.task(office.key.tgid, office.key.start, 1, tag);
    let offer = || core.offer_again(lock(&core.people).as_mut().unwrap());
    offer();
    assert_eq!(office.acts(), [], "an agent that is never held may be stopped for other reasons");
    office.bench.record("bot", "user = 4242\n[scope]\ndefault = \"hold\"");
    core.load().unwrap();
    office.hold(3);
    offer();
    assert_eq!(office.acts(), [], "its request is known");
    let mut done = Done::default();
    let later = Now { boot: u64::MAX, ..core.moment() };
    lock(&core.people).as_mut().unwrap().people.expire(later, &mut done).unwrap();
    offer();
    assert_eq!(office.acts(), [(office.key, Act::Wake)]);
}
