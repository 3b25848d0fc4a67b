//! Enforcement without the daemon: killed, stopped, ended, replaced. An agent tries what is forbidden all the while, and
//! every attempt is counted.

use agent_monitor_tests::harness::actor::{Actor, Mark, Run};
use agent_monitor_tests::harness::case::{Case, Verdict};
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::monitor::{Daemon, Setup};
use agent_monitor_tests::harness::registry::{Match, Record};
use agent_monitor_tests::harness::{PATIENCE, client, world};
use agent_monitor_tests::sys::{bpf, wait};
use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) const CASES: &[Case] = &[
    Case::vm("killed", killed),
    Case::vm("stopped_by_a_signal", stopped_by_a_signal),
    Case::vm("ended_and_started_again", ended_and_started_again),
    Case::both("adopted_while_attempts_run", adopted_while_attempts_run),
    Case::vm("taken_over_while_attempts_run", taken_over_while_attempts_run),
    Case::vm("two_daemons", two_daemons),
    Case::both("detach_removes_everything", detach_removes_everything),
    Case::both("detach_refuses", detach_refuses),
];

/// An enforced agent that may not reach one port and, at level full, not open one file.
pub(crate) struct Fixture {
    pub(crate) daemon: Daemon,
    pub(crate) bot: String,
    stranger: String,
    secret: String,
    pub(crate) full: bool,
}

/// The one fixture of the cases that leave it as they found it: starting a daemon takes seconds under emulation.
static SHARED: Mutex<Option<Fixture>> = Mutex::new(None);

/// The shared fixture, for a case while no other has it.
pub(crate) struct Shared(MutexGuard<'static, Option<Fixture>>);

impl Deref for Shared {
    type Target = Fixture;

    fn deref(&self) -> &Fixture {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for Shared {
    fn deref_mut(&mut self) -> &mut Fixture {
        self.0.as_mut().unwrap()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // What a case that failed leaves behind is nothing that the next one must meet.
        if std::thread::panicking() {
            drop(self.0.take());
        }
    }
}

/// The fixture with its daemon running, enforcing and undisturbed.
#[track_caller]
pub(crate) fn shared() -> Shared {
    let mut slot = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if slot.as_ref().is_some_and(|fixture| !fixture.daemon.runs()) {
        drop(slot.take());
    }
    let fixture = slot.get_or_insert_with(|| Fixture::new(Setup::new()));
    fixture.holds("at the beginning of a case");
    Shared(slot)
}

/// Ends the shared fixture.
pub(crate) fn close() {
    drop(SHARED.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Nobody listens there.
pub(crate) const PORT: &str = "127.0.0.1:4002";

impl Fixture {
    pub(crate) fn new(setup: Setup) -> Self {
        world::close();
        let bot = setup.scratch.program(&actor_program(), "bot");
        let stranger = setup.scratch.program(&actor_program(), "stranger");
        let secret = setup.scratch.file("secret/f", "content");
        let dir = setup.scratch.text("secret");
        let scope = format!(
            "[scope]\ndefault = \"allow\"\n[[scope.file]]\npath = \"{dir}/**\"\nverdict = \"deny\"\n\
             [[scope.net]]\nto = \"{PORT}\"\nverdict = \"deny\"\n"
        );
        let record = Record::new("bot").on(Match::exe(&bot)).enforce().degrade().scope(&scope);
        let daemon = setup.record(&record).start();
        let full = daemon.cli_json(&["status", "-o", "json"])["level"] == "full";
        Self { daemon, bot, stranger, secret, full }
    }

    /// What this level stops before it happens.
    pub(crate) fn acts(&self, times: usize) -> Vec<&str> {
        let mut round = vec!["tcp-connect", PORT, "+"];
        if self.full {
            round.extend(["open", &self.secret, "read", "+"]);
        }
        let mut words: Vec<&str> = round.iter().copied().cycle().take(round.len() * times).collect();
        words.pop();
        words
    }

    /// Attempts that run in the background, in a new process of the agent's.
    fn attempts(&self, times: usize) -> Actor {
        Actor::start(&self.bot, &self.acts(times))
    }

    /// The agent is refused now, and somebody else is not.
    pub(crate) fn holds(&self, when: &str) {
        all_refused(&self.attempts(5).finish(), when);
        self.stranger_passes(when);
    }

    pub(crate) fn stranger_passes(&self, when: &str) {
        let acts = ["tcp-connect", PORT, "+", "open", &self.secret, "read"];
        let run = Actor::start(&self.stranger, &acts).finish();
        let passed = |mark: &Mark| mark.ok || mark.facts["errno"] == "ECONNREFUSED";
        assert!(run.marks.len() == 2 && run.marks.iter().all(passed), "a stranger, {when}: {:?}", run.marks);
    }
}

pub(crate) fn is_refused(mark: &Mark) -> bool {
    matches!(mark.facts.get("errno").map(String::as_str), Some("EACCES" | "EPERM"))
}

fn all_refused(run: &Run, when: &str) {
    assert!(!run.marks.is_empty(), "no attempts {when}");
    let passed: Vec<_> = run.marks.iter().filter(|mark| !is_refused(mark)).collect();
    assert!(
        passed.is_empty(),
        "{} of {} attempts passed {when}: {:?}",
        passed.len(),
        run.marks.len(),
        passed[0]
    );
}

fn killed() -> Verdict {
    let mut fixture = shared();
    fixture.holds("before");
    let running = fixture.attempts(400);
    fixture.daemon.end_by(libc::SIGKILL);
    all_refused(&running.finish(), "while the daemon was killed");
    fixture.holds("after the daemon was killed");
    fixture.daemon.restart();
    fixture.holds("under the next daemon");
    Ok(())
}

fn stopped_by_a_signal() -> Verdict {
    let fixture = shared();
    fixture.daemon.freeze();
    fixture.holds("while the daemon is stopped");
    fixture.daemon.thaw();
    fixture.holds("after it goes on");
    Ok(())
}

/// A clean end leaves in force what is enforced, and says so.
fn ended_and_started_again() -> Verdict {
    let mut fixture = shared();
    for round in 0..3 {
        let running = fixture.attempts(200);
        let status = fixture.daemon.end_by(libc::SIGTERM);
        assert!(status.success(), "{status}\n{}", fixture.daemon.output());
        all_refused(&running.finish(), "while the daemon ended");
        fixture.holds(&format!("after the end of daemon {round}"));
        fixture.daemon.restart();
    }
    let said = "enforcement goes on without the daemon";
    assert!(fixture.daemon.output().contains(said), "{}", fixture.daemon.output());
    fixture.holds("at last");
    Ok(())
}

/// Loaded programs that were not among these.
fn new_programs(before: &BTreeSet<u32>) -> usize {
    bpf::ids(bpf::Kind::Program).unwrap().difference(before).count()
}

/// Kills the daemon and starts it again while `actors` try what is forbidden, `times` times each; how many attempts there were.
fn restarted_under_attempts(fixture: &mut Shared, actors: usize, times: usize) -> usize {
    let running: Vec<Actor> = (0..actors).map(|_| fixture.attempts(times)).collect();
    fixture.daemon.end_by(libc::SIGKILL);
    fixture.daemon.restart();
    let runs: Vec<Run> = running.into_iter().map(Actor::finish).collect();
    runs.iter().for_each(|run| all_refused(run, "during a take-over"));
    runs.iter().map(|run| run.marks.len()).sum()
}

/// Not one attempt passes while one program set takes the place of the other.
fn taken_over_while_attempts_run() -> Verdict {
    let mut fixture = shared();
    let mut attempts = 0;
    // With other settings the programs are others too; the last are those that daemons of other cases adopt.
    for unattributed in ["none", "exec"] {
        let before = bpf::ids(bpf::Kind::Program).unwrap();
        fixture.daemon.setup.unattributed = unattributed;
        attempts += restarted_under_attempts(&mut fixture, 2, 900);
        assert!(new_programs(&before) > OF_NO_HOOK, "the programs were not replaced");
    }
    println!("\nFIGURES survive: {attempts} attempts during two take-overs, none passed");
    Ok(())
}

/// Programs that each daemon loads for itself: the task iterator and the probe for BPF LSM.
const OF_NO_HOOK: usize = 2;

/// A daemon of the same build and settings goes on with the programs that are there; what it enforces and records goes on.
fn adopted_while_attempts_run() -> Verdict {
    let mut fixture = shared();
    let before = bpf::ids(bpf::Kind::Program).unwrap();
    restarted_under_attempts(&mut fixture, 2, 60);
    let fresh = new_programs(&before);
    assert!(fresh <= OF_NO_HOOK, "{fresh} programs were loaded anew");
    fixture.holds("under adopted programs");
    let run = fixture.attempts(1).finish();
    let recorded = || {
        let pid = run.pid.to_string();
        let told = fixture.daemon.cli(&["events", "--pid", &pid, "--verdict", "deny", "-o", "jsonl"]);
        String::from_utf8_lossy(&told.stdout).lines().count() >= run.marks.len()
    };
    assert!(wait::until(PATIENCE, recorded), "refusals of {} are not recorded", run.pid);
    Ok(())
}

/// Each enforces its own agents and leaves the other's alone.
fn two_daemons() -> Verdict {
    let first = shared();
    let second = Fixture::new(Setup::new());
    first.holds("the first");
    second.holds("the second");
    let run = Actor::start(&first.bot, &["open", &second.secret, "read"]).finish();
    run.all_ok();
    let Fixture { daemon, secret, .. } = second;
    drop(daemon);
    first.holds("the first, after the second is gone");
    let run = Actor::start(&first.bot, &["open", &secret, "read"]).finish();
    assert!(run.marks.iter().all(|mark| mark.ok || mark.facts["errno"] == "ENOENT"), "{:?}", run.marks);
    Ok(())
}

fn detach(fixture: &Fixture, more: &[&str]) -> std::process::Output {
    let bpffs = fixture.daemon.setup.bpffs();
    client::run(&[&["detach", "--bpffs", bpffs.to_str().unwrap()], more].concat())
}

fn detach_removes_everything() -> Verdict {
    // All programs of the host are counted.
    close();
    let mut fixture = Fixture::new(Setup::new());
    let running = detach(&fixture, &[]);
    assert_eq!(running.status.code(), Some(1), "{}", client::describe(&running));
    assert!(client::describe(&running).contains("a daemon (pid"), "{}", client::describe(&running));
    let during = bpf::ids(bpf::Kind::Program).unwrap();
    fixture.daemon.end_by(libc::SIGTERM);
    let output = detach(&fixture, &[]);
    assert!(output.status.success(), "{}", client::describe(&output));
    let fewer = || bpf::ids(bpf::Kind::Program).unwrap().len() + 10 < during.len();
    assert!(wait::until(PATIENCE, fewer), "programs are still there");
    let run = Actor::start(&fixture.bot, &["open", &fixture.secret, "read"]).finish();
    run.all_ok();
    let again = detach(&fixture, &[]);
    assert_eq!(again.status.code(), Some(1), "{}", client::describe(&again));
    assert!(client::describe(&again).contains("nothing is pinned"), "{}", client::describe(&again));
    Ok(())
}

/// An agent's process does not end its own supervision.
fn detach_refuses() -> Verdict {
    let mut fixture = shared();
    fixture.daemon.end_by(libc::SIGTERM);
    let bpffs = fixture.daemon.setup.bpffs();
    let program = agent_monitor_tests::harness::lane::monitor_program();
    let words = ["run", program.to_str().unwrap(), "detach", "--bpffs", bpffs.to_str().unwrap()];
    let run = Actor::start(&fixture.bot, &words).finish();
    let status = run.mark("run").facts.get("status").cloned().unwrap_or_default();
    assert_ne!(status, "0", "an agent detached the monitor: {:?}", run.marks);
    fixture.holds("after an agent tried to detach");
    assert!(detach(&fixture, &[]).status.success());
    Ok(())
}
