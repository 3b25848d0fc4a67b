//! No sequence of requests, decisions, crashes, reboots and clock steps lets something pass that no allowed person decided.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Ask { tgid: u32, digest: u64, held: bool, session: u64 },
    Say { nth: usize, uid: u32, answer: Answer, lost: bool },
    Pass { seconds: u64 },
    SetClock { seconds: i64 },
    Tick,
    Die { tgid: u32 },
    Crash,
    Reboot { clock: i64 },
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        3 => Just(Answer::Approve(Form::Once)),
        1 => (1u64..100_000).prop_map(|s| Answer::Approve(Form::For(Duration::from_secs(s)))),
        1 => Just(Answer::Approve(Form::Session)),
        2 => Just(Answer::Deny),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let uid = prop_oneof![Just(0), Just(100), Just(101), Just(102), Just(200)];
    prop_oneof![
        5 => (1u32..6, 1u64..4, any::<bool>(), 0u64..3)
            .prop_map(|(tgid, digest, held, session)| Step::Ask { tgid, digest, held, session }),
        6 => (0usize..4, uid, answer(), proptest::bool::weighted(0.2))
            .prop_map(|(nth, uid, answer, lost)| Step::Say { nth, uid, answer, lost }),
        2 => (1u64..800).prop_map(|seconds| Step::Pass { seconds }),
        1 => (-2000i64..2000).prop_map(|seconds| Step::SetClock { seconds }),
        3 => Just(Step::Tick),
        1 => (1u32..6).prop_map(|tgid| Step::Die { tgid }),
        1 => Just(Step::Crash),
        1 => (-2000i64..2000).prop_map(|clock| Step::Reboot { clock }),
    ]
}

/// What people really decided, kept beside the code under test.
#[derive(Debug, Default)]
struct Truth {
    /// Who has said yes to which request, and to what.
    yes: BTreeMap<i64, BTreeSet<(u32, String)>>,
    /// Tickets that may be: digest, to what.
    allowed: Vec<(u64, Form)>,
    /// Tickets that were put.
    passed: usize,
}

struct Model {
    bench: Bench,
    now: Now,
    boot: u32,
    need: usize,
    loss: OnDaemonLoss,
    truth: Truth,
}

impl Model {
    /// Does what was asked for, and checks every ticket against what people decided.
    fn carry_out(&mut self) {
        let Done { effects, .. } = std::mem::take(&mut self.bench.done);
        let mut ticketed = BTreeSet::new();
        for effect in effects {
            match effect {
                Effect::Put(ticket) => {
                    if let Whom::Task(key) = ticket.whom {
                        ticketed.insert(key);
                    }
                    if ticket.pass {
                        self.check(ticket);
                    }
                }
                Effect::Carried(id) => self.bench.people.carried(id).unwrap(),
                _ => {}
            }
        }
    }

    fn check(&mut self, ticket: Ticket) {
        let fits = |(digest, form): &(u64, Form)| {
            *digest == ticket.digest
                && match form {
                    Form::Once => ticket.uses == 1,
                    Form::For(span) => {
                        ticket.whom == Whom::Agent && ticket.expires <= self.now.boot + when::nanos(*span)
                    }
                    Form::Session => matches!(ticket.whom, Whom::Session(session) if session != 0),
                }
        };
        let found = self.truth.allowed.iter().position(fits);
        let found = found.unwrap_or_else(|| panic!("nobody allowed {ticket:?}; {:?}", self.truth));
        // Each decision is for one ticket.
        self.truth.allowed.remove(found);
        self.truth.passed += 1;
    }

    fn say(&mut self, nth: usize, uid: u32, answer: Answer) {
        let listed = self.bench.people.list(None, true).unwrap();
        let Some(found) = listed.get(nth).cloned() else { return };
        let person = FakeDirectory.person(uid);
        let say = Say { person: &person, answer, why: None, digest: None };
        let approvers = oncall(self.need);
        let result = self.bench.people.decide(
            found.id,
            say,
            &approvers,
            &FakeDirectory,
            self.now,
            &mut self.bench.done,
        );
        let may = matches!(uid, 100 | 101);
        let Ok(decision) = result else { return };
        assert!(may, "{uid} may not decide");
        assert!(found.state == "pending" && !found.deadline.over(self.now), "it was open");
        let Answer::Approve(form) = answer else { return };
        let yes = self.truth.yes.entry(found.id).or_default();
        yes.insert((uid, form.to_string()));
        let same = yes.iter().filter(|(_, said)| *said == form.to_string());
        let people: BTreeSet<u32> = same.map(|(uid, _)| *uid).collect();
        if decision.state == "approved" {
            assert!(people.len() >= self.need, "{people:?}");
            self.truth.allowed.push((found.digest, form));
        }
    }

    fn begin_again(self, boot: u32) -> Self {
        let Self { bench, now, need, loss, truth, .. } = self;
        let (bench, opened) = bench.crash(&format!("boot-{boot}"), now);
        let mut model = Self { bench, now, boot, need, loss, truth };
        let loss = model.loss;
        model.bench.people.restart(opened, &|_| loss, model.now, &mut model.bench.done).unwrap();
        model.carry_out();
        model
    }

    fn step(mut self, step: Step) -> Self {
        let shift = |time: Time, seconds: i64| {
            Time::from_unix_nanos(time.unix_nanos() + i128::from(seconds) * 1_000_000_000)
        };
        match step {
            Step::Ask { tgid, digest, held, session } => {
                let request = request(tgid, digest, held, session);
                self.bench.people.ask(&request, self.now, &mut self.bench.done).unwrap();
            }
            Step::Say { nth, uid, answer, lost } => {
                self.say(nth, uid, answer);
                if lost {
                    // What was decided and not done is lost with the daemon; nothing may make up for it.
                    self.bench.done = Done::default();
                    self.truth.allowed.clear();
                    let boot = self.boot;
                    return self.begin_again(boot);
                }
            }
            Step::Pass { seconds } => {
                self.now.boot += seconds * SECOND;
                self.now.wall = shift(self.now.wall, i64::try_from(seconds).unwrap());
            }
            Step::SetClock { seconds } => self.now.wall = shift(self.now.wall, seconds),
            Step::Tick => {
                self.bench.people.expire(self.now, &mut self.bench.done).unwrap();
                self.bench.people.flush(self.now, &mut self.bench.done).unwrap();
                self.bench.people.db().seen(self.now, false).unwrap();
            }
            Step::Die { tgid } => {
                let alive = &mut |k: TaskKey| k.tgid != tgid;
                self.bench.people.bury(alive, "it ended", self.now, &mut self.bench.done).unwrap();
            }
            Step::Crash => {
                let boot = self.boot;
                return self.begin_again(boot);
            }
            Step::Reboot { clock } => {
                self.bench.done = Done::default();
                self.truth.allowed.clear();
                self.now = Now { wall: shift(self.now.wall, clock), boot: 3 * SECOND };
                let boot = self.boot + 1;
                return self.begin_again(boot);
            }
        }
        self.carry_out();
        self
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn nothing_passes_that_nobody_allowed(
        steps in proptest::collection::vec(step(), 1..40),
        need in 1usize..3,
        deny in any::<bool>(),
    ) {
        let loss = if deny { OnDaemonLoss::Deny } else { OnDaemonLoss::Wait };
        let mut model = Model { bench: bench(), now: at(1), boot: 1, need, loss, truth: Truth::default() };
        for step in steps {
            model = model.step(step);
        }
    }
}

#[test]
fn the_model_sees_what_passes() {
    let mut model = Model {
        bench: bench(),
        now: at(1),
        boot: 1,
        need: 1,
        loss: OnDaemonLoss::Deny,
        truth: Truth::default(),
    };
    model = model.step(Step::Ask { tgid: 1, digest: 1, held: true, session: 0 });
    model = model.step(Step::Say { nth: 0, uid: 100, answer: ONCE, lost: false });
    assert_eq!(model.truth.passed, 1);
}
