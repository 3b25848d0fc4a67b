//! One daemon for all tests that only watch: starting one takes seconds under emulation.
//!
//! It knows one agent, recognised by a copy of the actor; tests tell their events apart by pid and by path.

use super::actor::{Actor, Run};
use super::feed::Feed;
use super::lane::actor_program;
use super::monitor::{Daemon, Setup};
use super::registry::{Match, Record};
use super::{PATIENCE, expect::Expect};
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Id of the agent in the shared world.
pub const AGENT: &str = "actor";

/// The scope of [`AGENT`]: everything is marked. `bpf()` is the monitor's own to protect unless a rule opens it.
const SCOPE: &str = "[scope]\ndefault = \"audit\"\n[[scope.privilege]]\nkind = \"bpf\"\n";

/// A daemon with a feed, an agent program and a stranger.
#[derive(Debug)]
pub struct World {
    // Dropped in this order: the follower before its daemon.
    pub feed: Feed,
    pub daemon: Daemon,
    /// The agent's program.
    pub agent: String,
    /// The same program, registered nowhere.
    pub stranger: String,
    /// What a first event said about its origin: `lsm` at level full.
    pub source: String,
}

/// The one world that runs now, by name: two at a time would slow each other down.
static CURRENT: Mutex<Option<(&'static str, World)>> = Mutex::new(None);

/// The world a test holds; nobody else has it meanwhile.
pub struct Held(MutexGuard<'static, Option<(&'static str, World)>>);

impl Deref for Held {
    type Target = World;

    fn deref(&self) -> &World {
        &self.0.as_ref().unwrap().1
    }
}

/// The world with nothing but [`AGENT`] in it.
#[track_caller]
pub fn shared() -> Held {
    named("shared", || World::start(Setup::new()))
}

/// The world of this name, made by `build` when another one (or none, or a dead one) is running.
#[track_caller]
pub fn named(name: &'static str, build: impl FnOnce() -> World) -> Held {
    let mut slot = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh = slot.as_ref().is_some_and(|(known, world)| *known == name && !world.feed.ended());
    if !fresh {
        drop(slot.take());
        *slot = Some((name, build()));
    }
    Held(slot)
}

/// Ends the running world unless a test holds it: another daemon is about to start.
pub fn make_way() {
    if let Ok(mut slot) = CURRENT.try_lock() {
        drop(slot.take());
    }
}

/// Ends the running world: for tests that count what is loaded, and before the runner exits.
pub fn close() {
    drop(CURRENT.lock().unwrap_or_else(PoisonError::into_inner).take());
}

impl World {
    /// A daemon by `setup` that also knows [`AGENT`], with its feed flowing.
    #[track_caller]
    pub fn start(setup: Setup) -> Self {
        let agent = setup.scratch.program(&actor_program(), "agent");
        let stranger = setup.scratch.program(&actor_program(), "stranger");
        let daemon = setup.record(&Record::new(AGENT).on(Match::exe(&agent)).scope(SCOPE)).start();
        let feed = daemon.feed();
        let source = first_event(&daemon, &feed, &agent);
        Self { feed, daemon, agent, stranger, source }
    }

    /// Performs acts as the agent, to their end, and waits until all their events are in the feed.
    #[track_caller]
    pub fn act(&self, words: &[&str]) -> Run {
        self.act_by(&self.agent, words)
    }

    /// The same by another program of the agent's. The last event is an open of a file of its own: events of one
    /// ring arrive in order, so with it and the exit everything before is in.
    #[track_caller]
    pub fn act_by(&self, program: &str, words: &[&str]) -> Run {
        let fence = self.fence_file();
        let words = [words, &["+", "open", &fence, "read"]].concat();
        let run = Actor::start(program, &words).finish();
        self.settle(&run, &fence);
        run
    }

    /// A file that nobody has opened yet.
    pub fn fence_file(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.daemon.setup.scratch.file(&format!("fence/{number}"), "")
    }

    /// Waits until the open of `fence` and the end of the actor are in the feed.
    #[track_caller]
    pub fn settle(&self, run: &Run, fence: &str) {
        let fenced = self.feed.wait_for(PATIENCE, |e| e.kind == "file.open" && e.path() == Some(fence));
        assert!(fenced, "the last open of the actor is not in the feed\n{}", self.report(run.pid));
        let ended = self.feed.wait_for(PATIENCE, |e| e.kind == "process.exit" && e.pid() == Some(run.pid));
        assert!(ended, "the end of the actor is not in the feed\n{}", self.report(run.pid));
    }

    /// Waits until events that come from now on are in: an act of the agent's own.
    #[track_caller]
    pub fn settle_now(&self) {
        self.act(&["noop"]);
    }

    fn report(&self, pid: u32) -> String {
        let lines: Vec<String> = self.feed.with(|events| {
            let of_pid = events.iter().filter(|e| e.pid() == Some(pid));
            of_pid.map(super::expect::brief).collect()
        });
        let broken = self.feed.broken_lines();
        format!("{} events of pid {pid}:\n{}\nbroken lines: {broken:?}", lines.len(), lines.join("\n"))
    }

    /// Begins to say what is expected of the agent.
    pub fn expect(&self, what: impl Into<String>) -> Expect<'_> {
        self.feed.expect(what).agent(AGENT)
    }

    /// True when the family hooks are BPF LSM.
    pub fn is_full(&self) -> bool {
        self.source == "lsm"
    }

    /// Sources that hooks on objects may name at this level.
    pub fn object_sources(&self) -> &'static [&'static str] {
        if self.is_full() {
            &["lsm"]
        } else {
            &["raw_tracepoint", "tracepoint", "tp_btf", "cgroup", "raw_tp"]
        }
    }
}

/// Acts until the first event comes, since following begins at a moment nobody announces; its source.
#[track_caller]
fn first_event(daemon: &Daemon, feed: &Feed, agent: &str) -> String {
    let file = daemon.setup.scratch.file("fence/first", "");
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        Actor::start(agent, &["open", &file, "read"]).finish().all_ok();
        let soon = std::time::Duration::from_millis(500);
        if feed.wait_for(soon, |e| e.kind == "file.open" && e.path() == Some(&*file)) {
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "no event of the agent arrives; {} events, broken lines {:?}\n{}",
            feed.with(<[_]>::len),
            feed.broken_lines(),
            daemon.output()
        );
    }
    let source = |events: &[super::event::Event]| {
        let first = events.iter().find(|e| e.kind == "file.open" && e.path() == Some(&*file));
        first.map(|e| e.source.clone())
    };
    feed.with(source).unwrap()
}
