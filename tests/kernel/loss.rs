//! Family `loss`: what cannot be delivered is counted, and the sums are exact.

use agent_monitor_tests::harness::actor::{Actor, Run};
use agent_monitor_tests::harness::case::{Case, Verdict};
use agent_monitor_tests::harness::meter::{Meter, table};
use agent_monitor_tests::harness::monitor::{Daemon, Setup};
use agent_monitor_tests::harness::world::{self, AGENT, World};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] =
    &[Case::both("full_ring", full_ring), Case::both("storm_20s", || soak(Duration::from_secs(20)))];

/// Run with `--ignored` only.
pub(crate) const LONG: &[Case] = &[Case::both("soak_10min", || soak(Duration::from_secs(600)))];

/// What a storm is made of; of each of these the sum is known exactly.
const KINDS: [&str; 5] = ["process.fork", "process.exec", "process.exit", "file.open", "network.connect"];

/// Opens and connects of one round, beside its fork, exec and exit.
const OPENS: u64 = 20;
const CONNECTS: u64 = 5;

/// How long the daemon may take to work off a full ring.
const CATCH_UP: Duration = Duration::from_secs(180);

type Sums = BTreeMap<String, u64>;

/// What one run of the storm makes: so much to begin and end with, and so much per round.
struct Model {
    fixed: Sums,
    per_round: Sums,
}

struct Storm {
    meter: Meter,
    daemon: Daemon,
    agent: String,
    model: Model,
    /// What the meter must come to.
    expected: Sums,
}

fn start_actor(daemon: &Daemon, agent: &str, how_long: &str) -> Actor {
    let dir = format!("dir={}", daemon.setup.scratch.dir("storm").display());
    let words = [&dir, how_long, &format!("opens={OPENS}"), &format!("connects={CONNECTS}")];
    Actor::start(agent, &[&["storm"], &words[..]].concat())
}

/// Measures with a feed that loses nothing.
fn measure(world: &World) -> Model {
    let sums = || {
        world.feed.with(|events| {
            assert!(!events.iter().any(|e| e.kind == "gap.ring"), "lost events before the storm");
            let of = |kind: &&str| {
                let fits = |e: &&_| is_of(e, kind);
                ((*kind).to_owned(), events.iter().filter(fits).count() as u64)
            };
            KINDS.iter().map(of).collect::<Sums>()
        })
    };
    let cost = |step: &dyn Fn()| {
        let before = sums();
        step();
        sums().into_iter().map(|(kind, sum)| (kind.clone(), sum - before[&kind])).collect::<Sums>()
    };
    let storm = |rounds: &str| {
        start_actor(&world.daemon, &world.agent, rounds).finish().all_ok();
        world.settle_now();
    };
    // The first run makes the files that later ones find.
    storm("rounds=1");
    let settling = cost(&|| world.settle_now());
    let (ten, thirty) = (cost(&|| storm("rounds=10")), cost(&|| storm("rounds=30")));
    let per_round: Sums = ten.iter().map(|(kind, sum)| (kind.clone(), (thirty[kind] - sum) / 20)).collect();
    let fixed: Sums =
        ten.iter().map(|(kind, sum)| (kind.clone(), sum - settling[kind] - 10 * per_round[kind])).collect();
    for (kind, sum) in &thirty {
        assert_eq!(
            *sum,
            fixed[kind] + settling[kind] + 30 * per_round[kind],
            "{kind} is not linear: {ten:?} {thirty:?}"
        );
    }
    for (kind, exact) in
        [("process.fork", 1), ("process.exec", 1), ("process.exit", 1), ("network.connect", CONNECTS)]
    {
        assert_eq!(per_round[kind], exact, "{kind} per round: {per_round:?}");
    }
    // The kernel opens the program too, and a level may show that.
    let opens = per_round["file.open"];
    assert!(opens == OPENS || opens == OPENS + 1, "file.open per round: {opens}, the storm opens {OPENS}");
    Model { fixed, per_round }
}

fn is_of(event: &agent_monitor_tests::harness::event::Event, kind: &str) -> bool {
    event.kind == kind && event.agent_id() == Some(AGENT)
}

impl Storm {
    fn prepare(setup: Setup) -> Self {
        world::close();
        let world = World::start(setup);
        let meter = Meter::start(&world.daemon, AGENT, &KINDS);
        let model = measure(&world);
        let count = |kind: &&str| {
            let count = world.feed.with(|events| events.iter().filter(|e| is_of(e, kind)).count());
            ((*kind).to_owned(), count as u64)
        };
        let expected = KINDS.iter().map(count).collect();
        // The feed keeps every event; a storm would fill the memory with them.
        let World { feed, daemon, agent, .. } = world;
        drop(feed);
        let storm = Self { meter, daemon, agent, model, expected };
        storm.accounted("before the storm");
        storm
    }

    /// Adds what a run did to what is expected.
    fn book(&mut self, run: &Run) {
        let mark = run.mark("STORM");
        let rounds = mark.number("forks");
        let counts = ["execs", "opens", "connects", "failed"].map(|key| mark.number(key));
        assert_eq!(counts, [rounds, rounds * OPENS, rounds * CONNECTS, 0], "the storm itself: {mark:?}");
        for (kind, sum) in &mut self.expected {
            *sum += self.model.fixed[kind] + rounds * self.model.per_round[kind];
        }
    }

    /// Waits until everything expected was delivered or counted as lost, and not one event more.
    #[track_caller]
    fn accounted(&self, when: &str) {
        let all = self.meter.wait(CATCH_UP, |counts| counts.iter().all(|(k, c)| c.sum() == self.expected[k]));
        assert!(
            all,
            "{when}: delivered+missed+lost is {}\nexpected {:?}\nbooked nowhere: {:?}\n{}",
            table(&self.meter.counts()),
            self.expected,
            self.meter.unbooked(),
            self.daemon.output()
        );
    }

    /// A last small storm: had an earlier event been told twice, or come after it was called lost, the sums
    /// would now be too great.
    fn close(&mut self) {
        let run = start_actor(&self.daemon, &self.agent, "rounds=3").finish();
        self.book(&run);
        self.accounted("after one more small storm");
        assert_eq!(self.meter.unbooked(), Vec::<String>::new(), "gaps that no kind accounts for");
    }

    fn lost(&self) -> u64 {
        self.meter.counts().values().map(|c| c.lost).sum()
    }
}

/// The daemon does not read while the storm runs: what the ring cannot hold is counted, by kind and agent.
fn full_ring() -> Verdict {
    let mut storm = Storm::prepare(Setup::new().arg("--ring-kib").arg("256"));
    // However little the others need: ask for more until a ring overflows.
    for rounds in [2_000, 8_000, 32_000] {
        storm.daemon.freeze();
        let run =
            start_actor(&storm.daemon, &storm.agent, &format!("rounds={rounds}")).finish_within(CATCH_UP);
        storm.daemon.thaw();
        storm.book(&run);
        storm.accounted(&format!("after {rounds} rounds against a daemon that stands still"));
        if storm.lost() > 0 {
            break;
        }
    }
    assert!(storm.lost() > 0, "no ring ever filled: {}", table(&storm.meter.counts()));
    storm.close();
    println!("\nFIGURES loss::full_ring: {}", table(&storm.meter.counts()));
    Ok(())
}

fn soak(length: Duration) -> Verdict {
    let mut storm = Storm::prepare(Setup::new());
    let start = Instant::now();
    let limit = length + CATCH_UP;
    let how_long = format!("seconds={}", length.as_secs());
    let run = start_actor(&storm.daemon, &storm.agent, &how_long).finish_within(limit);
    storm.book(&run);
    storm.accounted("after the storm");
    storm.close();
    let counts = storm.meter.counts();
    let all: u64 = counts.values().map(|c| c.sum()).sum();
    println!(
        "\nFIGURES loss::soak: {} events in {:.0} s, all accounted for (delivered+missed by the reader+lost): {}",
        all,
        start.elapsed().as_secs_f64(),
        table(&counts)
    );
    Ok(())
}
