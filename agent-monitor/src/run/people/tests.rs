//! The people side of the daemon over a fake kernel, fake processes and a real database.

use std::sync::Arc;

use super::*;
use crate::control::Daemon as _;
use crate::control::people::PeopleDaemon as _;
use crate::decode::encode::{head, record};
use crate::model::{Agent, Ancestor, BoundBy, File, Hold, Process, Source, Time, Verdict};
use crate::people::hands::fake::FakeHands;
use crate::people::who::fake::FakeDirectory;
use crate::run::port::{HeldThread, Whom};
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
fn a_person_sees_what_the_parents_did_before_their_session_was_open() {
    let office = office();
    let core = &office.bench.core;
    let agent = |session: Option<&str>| {
        let (id, session) = ("bot".to_owned(), session.map(str::to_owned));
        Arc::new(Agent { id, session, bound_by: BoundBy::User, delegator: None, bound_delay_ms: None })
    };
    let did = |pid, at, session, path: &str| {
        let ancestry = match pid {
            PID => vec![Ancestor { pid: PID - 1, exe: None, start_time: Some(Time::from_unix_nanos(3)) }],
            _ => Vec::new(),
        };
        Event {
            verdict: Some(Verdict::Allow),
            agent: Some(agent(session)),
            process: Some(Arc::new(Process { pid, start_time: Some(at), ancestry, ..Process::default() })),
            file: Some(File { path: Some(path.to_owned()), ..File::default() }),
            ..Event::new(core.clock.now(), Kind::FileOpen, Source::Lsm)
        }
    };
    core.store.append(did(PID - 1, Time::from_unix_nanos(1), None, "/of/an/older/process/of/its/number"));
    core.store.append(did(PID - 1, Time::from_unix_nanos(3), None, "/of/its/parent"));
    core.store.append(did(PID - 2, Time::from_unix_nanos(3), None, "/of/another"));
    core.store.append(did(PID - 2, Time::from_unix_nanos(3), Some("run"), "/of/its/session"));
    core.store.append(did(PID, Time::from_unix_nanos(4), Some("run"), "/of/itself"));
    for session in [None, Some("run")] {
        let held = Event {
            verdict: Some(Verdict::Hold),
            hold: Some(Hold { digest: format!("{:016x}", 5), held: true, again: false }),
            ..did(PID, Time::from_unix_nanos(4), session, "/held")
        };
        let seen = core.recent(&core.store.append(held));
        let paths: Vec<_> = seen
            .iter()
            .filter_map(|event| event.file.as_ref()?.path.as_deref())
            .filter(|path| *path != "/held")
            .collect();
        let expected = ["/of/its/parent", "/of/its/session", "/of/itself"];
        let expected: Vec<_> =
            expected.into_iter().filter(|path| session.is_some() || *path != "/of/its/session").collect();
        assert_eq!(paths, expected);
    }
}

#[test]
fn an_exec_that_is_told_late_takes_no_act_away_that_waits() {
    let office = office();
    let core = &office.bench.core;
    office.hold(0xfe);
    let exec = |time: Time| {
        let process = Process { pid: PID, ..Process::default() };
        let exec = Event::new(time, Kind::ProcessExec, Source::TpBtf);
        let event = core.store.append(Event { process: Some(Arc::new(process)), ..exec });
        core.inbox.hear(&lock(&core.live).engine, &event);
        core.people_round();
        core.approvals(None, false).unwrap().approvals.len()
    };
    assert_eq!(exec(Time::from_unix_nanos(1)), 1, "its record was read after that of the act");
    assert_eq!(exec(core.clock.now()), 0, "the thread that waited is gone");
}

/// This process, as it would call.
fn me() -> Peer {
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    Peer::of(&socket).unwrap()
}

#[test]
fn the_api_decides_by_the_peers_credentials() {
    use crate::people::api::{ApproveRequest, DenyRequest};
    let office = office();
    let core = &office.bench.core;
    office.hold(0xa);
    office.hold(0xb);
    let (peer, root) = (me(), me().uid() == 0);
    let form =
        |form: &str, seconds| ApproveRequest { form: Some(form.to_owned()), seconds, ..Default::default() };
    for (request, status) in
        [(form("for", None), 400), (form("ever", None), 400), (form("once", Some(1)), 400)]
    {
        assert_eq!(core.approve(&peer, 1, &request).unwrap_err().status, status);
    }
    let why = ApproveRequest { why: Some("a\nb".to_owned()), ..Default::default() };
    assert_eq!(core.approve(&peer, 1, &why).unwrap_err().status, 400);
    assert_eq!(core.approve(&peer, 99, &form("once", None)).unwrap_err().status, 404);
    let digest = Some("000000000000000c".to_owned());
    let other = core.approve(&peer, 1, &ApproveRequest { digest, ..Default::default() });
    assert_eq!(other.unwrap_err().status, 409);
    let approved = core.approve(&peer, 1, &form("once", None));
    let denied = core.deny(&peer, 2, &DenyRequest { why: None, suspend: true });
    if !root {
        assert_eq!((approved.unwrap_err().status, denied.unwrap_err().status), (403, 403));
        assert!(office.bench.kernel.inner().tickets.is_empty());
        return;
    }
    assert_eq!(
        (approved.unwrap().state, denied.unwrap().state),
        ("approved".to_owned(), "denied".to_owned())
    );
    assert!(core.agents().iter().any(|agent| agent.state == "suspended"));
    let page = core.store.query(&crate::record::Filter::default(), None);
    let from = |event: &Event| event.detail.as_ref()?.get("caller")?.get("pid")?.as_u64();
    let mine = page.events.iter().filter(|event| from(event) == Some(u64::from(std::process::id())));
    let kinds: Vec<Kind> = mine.map(|event| event.kind).collect();
    for kind in [Kind::ApprovalApproved, Kind::ApprovalDenied, Kind::AgentSuspended] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
    let tickets = office.bench.kernel.inner().tickets.clone();
    assert_eq!(
        tickets.iter().map(|ticket| (ticket.digest, ticket.pass)).collect::<Vec<_>>(),
        [(10, true), (11, false)]
    );
    assert_eq!(core.approve(&peer, 1, &form("once", None)).unwrap_err().status, 409);
}

#[test]
fn time_denies_and_the_heart_beats_while_somebody_can_approve() {
    let office = office();
    let mut pulse = office.bench.kernel.clone();
    office.hold(1);
    office.bench.core.people_tick();
    // Whatever else takes long: the beat waits for no lock.
    let busy = lock(&office.bench.core.people);
    office.bench.core.beat(&mut pulse);
    drop(busy);
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
    office.bench.core.beat(&mut pulse);
    assert_eq!(office.bench.kernel.inner().heartbeat, beat);
    assert!(office.kinds().contains(&Kind::ApprovalFailed));
    query_only(false);
    office.bench.core.people_tick();
    office.bench.core.beat(&mut pulse);
    assert!(office.bench.kernel.inner().heartbeat > beat);
}

#[test]
fn a_stopped_process_of_which_nobody_knows_is_judged_again() {
    let office = office();
    let core = &office.bench.core;
    let index = office.bench.index("bot");
    let held = |digests: &[u64]| {
        let thread = |digest: &u64| HeldThread { key: office.key, agent: index, digest: *digest };
        office.bench.kernel.inner().held = digests.iter().map(thread).collect();
    };
    held(&[3]);
    // What was not known a moment ago may be on its way.
    let offer = || {
        for _ in 1..ENOUGH {
            let acts = office.hands.0.lock().unwrap().acts.len();
            core.offer_again(lock(&core.people).as_mut().unwrap(), 1);
            assert_eq!(office.hands.0.lock().unwrap().acts.len(), acts);
        }
        core.offer_again(lock(&core.people).as_mut().unwrap(), 1);
    };
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
    held(&[]);
    offer();
    assert_eq!(office.acts(), [], "its own job control stopped it");
    held(&[3]);
    offer();
    assert_eq!(office.acts(), [(office.key, Act::Wake)]);
    office.hold(4);
    office.hands.0.lock().unwrap().conditions.insert(office.key, Condition::Stopped);
    held(&[4]);
    offer();
    assert_eq!(office.acts(), [], "its request is known");
    held(&[4, 3]);
    offer();
    assert_eq!(office.acts(), [(office.key, Act::Wake)], "what is decided waits for what is not");
}

mod lives {
    //! Lives of agents: suspended, resumed, retired, expired.

    use super::*;
    use crate::people::who::Person;
    use crate::run::port::LifeState;

    impl Office {
        /// The kernel knows the process as the agent's.
        fn bound(&self) -> u32 {
            let index = self.bench.index("bot");
            let tag =
                agent_monitor_ebpf::task::TaskTag { agent: index, ..agent_monitor_ebpf::task::TaskTag::NONE };
            self.bench.kernel.task(self.key.tgid, self.key.start, 1, tag);
            self.hands.0.lock().unwrap().conditions.insert(self.key, Condition::Runs);
            index
        }

        fn condition(&self) -> Condition {
            self.hands.0.lock().unwrap().conditions[&self.key]
        }

        fn side<T>(&self, work: impl FnOnce(&mut Side) -> T) -> T {
            work(lock(&self.bench.core.people).as_mut().unwrap())
        }

        fn life(&self, index: u32) -> LifeState {
            self.bench.kernel.inner().lives[&index].state
        }

        fn write(&self, expires: &str, more: &str) {
            let text = format!(
                "[agent]\nid = \"bot\"\nowner = \"o@example.com\"\npurpose = \"p\"\nexpires = {expires}\n{more}\n[[match]]\nuser = 4242\n"
            );
            std::fs::write(self.bench.dir.path().join("agents.d/bot.toml"), text).unwrap();
        }
    }

    fn ann() -> Person {
        Person { uid: 100, user: Some("ann".to_owned()), caller: None }
    }

    #[test]
    fn suspended_is_told_first_then_stopped_and_a_decision_does_not_wake_it() {
        let office = office();
        let core = &office.bench.core;
        let index = office.bound();
        office.hold(5);
        office.acts();
        let reply = office.side(|side| core.suspend_by(side, "bot", &ann(), "odd").unwrap());
        assert!(reply.complete && reply.state == "suspended" && reply.processes == 1, "{reply:?}");
        assert_eq!((office.life(index), office.condition()), (LifeState::Suspended, Condition::Stopped));
        let acts = office.acts();
        assert_eq!(acts, [(office.key, Act::Stop)]);
        // A time-out while suspended: the ticket is there, the process stays as it is.
        let mut done = Done::default();
        let later = Now { boot: u64::MAX, ..core.moment() };
        office.side(|side| {
            side.people.expire(later, &mut done).unwrap();
            core.perform(side, done, later);
        });
        assert_eq!(office.acts(), []);
        assert!(core.agents().iter().any(|agent| agent.state == "suspended"));
        let row = office.side(|side| side.people.life("bot").unwrap().unwrap());
        office.side(|side| {
            core.change_life(side, "bot", LifeState::Active, Some(&ann()), "fine").unwrap();
            assert!(core.resume_tree(side, &row, index).is_empty());
        });
        assert_eq!((office.life(index), office.condition()), (LifeState::Active, Condition::Runs));
    }

    #[test]
    fn retired_is_for_ever_and_its_record_is_in_force_as_one_that_may_nothing() {
        let office = office();
        let core = &office.bench.core;
        let index = office.bound();
        let token = office.bench.dir.path().join("token");
        std::fs::write(&token, "secret").unwrap();
        let off = format!("[offboarding]\nremove_files = [\"{}\"]", token.display());
        office.write("2099-01-01T00:00:00Z", "");
        let path = office.bench.dir.path().join("agents.d/bot.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}\n{off}\n")).unwrap();
        core.load().unwrap();
        office.hold(5);
        let halted = office.side(|side| core.retire_agent(side, "bot", Some(&ann()), "done").unwrap());
        assert!(token.exists());
        core.load().unwrap();
        // As if the daemon had ended here: the next one takes the steps.
        core.people_tick();
        assert!(halted.complete && halted.processes.len() == 1);
        assert_eq!((office.life(index), office.condition()), (LifeState::Retired, Condition::Gone));
        assert!(!token.exists());
        let steps = office.side(|side| side.people.steps("bot").unwrap());
        assert!(steps.len() == 1 && steps[0].result == "done" && steps[0].sha256.is_some());
        let refused = core.load().unwrap().refused;
        assert!(refused[0].reason.contains("retired"), "{refused:?}");
        let image = office.bench.kernel.inner().applied.last().cloned().unwrap();
        assert!(image.users.contains_key(&4242), "its programs are still recognised as its own");
        assert!(core.agents().iter().any(|agent| agent.id == "bot" && agent.state == "retired"));
        assert!(core.approvals(None, false).unwrap().approvals.is_empty(), "what it asked for is over");
        // Whatever of it starts again is ended.
        office.hands.0.lock().unwrap().conditions.insert(office.key, Condition::Runs);
        core.people_tick();
        assert_eq!(office.condition(), Condition::Gone);
        assert!(office.bench.kinds().contains(&Kind::FindingViolation));
    }

    #[test]
    fn an_end_date_ends_and_a_later_one_brings_back() {
        let office = office();
        let core = &office.bench.core;
        let index = office.bound();
        core.people_tick();
        assert_eq!(office.life(index), LifeState::Active);
        office.write("2020-01-01T00:00:00Z", "");
        core.load().unwrap();
        assert_eq!(office.life(index), LifeState::Expired, "before its record is in force");
        core.people_tick();
        assert_eq!(office.condition(), Condition::Gone);
        assert!(office.bench.kinds().contains(&Kind::AgentExpired));
        office.write("2099-01-01T00:00:00Z", "");
        core.load().unwrap();
        core.people_tick();
        assert_eq!(office.life(index), LifeState::Active);
        assert!(office.bench.kinds().contains(&Kind::AgentResumed));
    }

    #[test]
    fn a_record_says_how_long_its_acts_wait() {
        let office = office();
        let left = || {
            let list = office.bench.core.approvals(None, false).unwrap();
            list.approvals.iter().map(|one| one.left_ms).collect::<Vec<_>>()
        };
        office.hold(1);
        office.write("2099-01-01T00:00:00Z", "hold_timeout = \"20s\"");
        office.bench.core.load().unwrap();
        office.hold(2);
        let left = left();
        assert!(left[0] > 500_000 && (1..=20_000).contains(&left[1]), "{left:?}");
    }

    #[test]
    fn an_idle_agent_is_retired() {
        let office = office();
        let core = &office.bench.core;
        let index = office.bound();
        office.write("2099-01-01T00:00:00Z", "retire_when_idle = \"1h\"");
        core.load().unwrap();
        core.people_tick();
        assert_eq!(office.life(index), LifeState::Active);
        let long_ago = core.clock.now().before(Duration::from_secs(3700));
        office
            .side(|side| {
                side.people.db().write(|tx| {
                    let at = crate::people::store::wall_nanos(long_ago);
                    tx.execute("UPDATE life SET active_wall = ?", [at]).map(drop)
                })
            })
            .unwrap();
        core.people_tick();
        assert_eq!(office.life(index), LifeState::Retired);
    }
}
