//! Runs the tests of the copy: once to see which test reaches which switch, then those tests for each mutant.
//!
//! A test that never reaches a switch cannot notice it, so a mutant that its own tests let pass has met the whole
//! library's tests. The quick tests come first, and the first failure ends the run.

use std::borrow::BorrowMut;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::copy::Binary;
use super::find::Mutant;

/// As many at a time.
const WORKERS: usize = 2;

/// A test that takes longer than this is run after the others.
const QUICK: u64 = 250;

/// Allowed to a run besides ten times what its tests take without a mutant.
const GRACE: Duration = Duration::from_secs(15);

/// So many tests may fail without a mutant, on a machine that is busy; they then count for nothing.
const UNRELIABLE: usize = 12;

/// The longest run of all tests without a mutant.
const LONGEST: Duration = Duration::from_secs(20 * 60);

/// What the tests of one binary reach.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Tests by the switch that they reach
    tests: BTreeMap<u32, BTreeSet<String>>,
    /// Milliseconds by test
    times: BTreeMap<String, u64>,
}

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Noticed,
    /// The tests did not come to an end
    TimedOut,
    Survived,
    /// No test comes this way
    Unreached,
    /// No time was left
    LeftOut,
}

/// All tests without a mutant. What they reach is kept beside the binary for as long as that is the same.
/// With `only`, of the tests whose names contain one of these.
pub(crate) fn reach(binary: &Binary, only: &[String]) -> Result<Reach> {
    let path = binary.path.with_extension(if only.is_empty() { "reached" } else { "reached-some" });
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if !only.is_empty() || time(&path) < time(&binary.path) {
        record(binary, &path, only)?;
    }
    Ok(parse(&fs::read_to_string(&path).unwrap_or_default()))
}

fn record(binary: &Binary, path: &Path, only: &[String]) -> Result<()> {
    let fresh = path.with_extension("reaching");
    if fresh.exists() {
        fs::remove_file(&fresh)?;
    }
    let mut command = test(binary);
    command.env("AGENT_MONITOR_MUTANTS_REACHED", &fresh).arg("--test-threads=2").args(only);
    let mut failed = Vec::new();
    match end(command, LONGEST, |test| {
        failed.push(test.to_string());
        failed.len() <= UNRELIABLE
    })? {
        End::Passed => {}
        End::Failed(_) if (1..=UNRELIABLE).contains(&failed.len()) => {}
        End::Failed(what) => {
            bail!(
                "the tests fail in the copy without a mutant: {what}, {failed:?} ({})",
                binary.path.display()
            )
        }
        End::Overdue => bail!("the tests without a mutant took more than {} s", LONGEST.as_secs()),
    }
    let mut text = fs::read_to_string(&fresh).unwrap_or_default();
    for test in failed {
        println!("mutants: {test} fails without a mutant, and is left aside");
        let other = |line: &&str| line.rsplit('\t').next() != Some(test.as_str());
        text = text.lines().filter(other).map(|line| format!("{line}\n")).collect();
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn parse(text: &str) -> Reach {
    let mut reach = Reach::default();
    for line in text.lines() {
        let mut fields = line.splitn(3, '\t');
        let (Some(what), Some(number), Some(test)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        match what {
            "at" => {
                if let Ok(id) = number.parse() {
                    reach.tests.entry(id).or_default().insert(test.to_string());
                }
            }
            "time" => _ = reach.times.insert(test.to_string(), number.parse().unwrap_or(0)),
            _ => {}
        }
    }
    reach
}

impl Reach {
    /// As if these tests were not.
    pub(crate) fn leave_out(&mut self, those: impl Fn(&str) -> bool) {
        self.tests.values_mut().for_each(|tests| tests.retain(|test| !those(test)));
    }

    /// The tests that reach a mutant: quick ones, slow ones.
    fn of(&self, id: u32) -> [Vec<&str>; 2] {
        let time = |test: &str| self.times.get(test).copied().unwrap_or(QUICK + 1);
        let tests = self.tests.get(&id).into_iter().flatten().map(String::as_str);
        let (quick, slow) = tests.partition(|test| time(test) <= QUICK);
        [quick, slow]
    }

    fn limit(&self, tests: &[&str]) -> Duration {
        let sum: u64 = tests.iter().map(|test| self.times.get(*test).copied().unwrap_or(1000)).sum();
        GRACE + Duration::from_millis(sum * 10)
    }
}

/// Tries each mutant; what is not tried before `deadline` is left out.
pub(crate) fn all(
    binaries: &[(Binary, Reach)],
    mutants: &[Mutant],
    deadline: Option<Instant>,
) -> Result<Vec<Outcome>> {
    let outcomes = Mutex::new(vec![Outcome::LeftOut; mutants.len()]);
    let (next, start) = (AtomicUsize::new(0), Instant::now());
    let work = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(mutant) = mutants.get(number) else { return Ok(()) };
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(());
            }
            let outcome = one(binaries, mutant.id)?;
            if let Ok(mut outcomes) = outcomes.lock() {
                outcomes[number] = outcome;
            }
            if number > 0 && number.is_multiple_of(100) {
                println!("mutants: {number} of {} after {} s", mutants.len(), start.elapsed().as_secs());
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a worker of the mutants died"),
        })
    })?;
    outcomes.into_inner().ok().context("a worker of the mutants died")
}

fn one(binaries: &[(Binary, Reach)], id: u32) -> Result<Outcome> {
    let mut reached = false;
    for quick in [0, 1] {
        for (binary, reach) in binaries {
            let tests = &reach.of(id)[quick];
            if tests.is_empty() {
                continue;
            }
            reached = true;
            let mut command = test(binary);
            command.env("AGENT_MONITOR_MUTANT", id.to_string()).args(["--test-threads=1", "--exact"]);
            match end(command.args(tests).stderr(Stdio::null()), reach.limit(tests), |_| false)? {
                End::Passed => {}
                End::Failed(_) => return Ok(Outcome::Noticed),
                End::Overdue => return Ok(Outcome::TimedOut),
            }
        }
    }
    Ok(if reached { Outcome::Survived } else { Outcome::Unreached })
}

fn test(binary: &Binary) -> Command {
    let mut command = Command::new(&binary.path);
    command.current_dir(&binary.dir).env("CARGO_MANIFEST_DIR", &binary.dir);
    // A failure is enough: neither its smallest case nor a new snapshot is of use.
    command.env("PROPTEST_MAX_SHRINK_ITERS", "0").env("INSTA_UPDATE", "no").env("RUST_BACKTRACE", "0");
    command.arg("--format=pretty");
    command
}

enum End {
    Passed,
    /// The first test that failed, or how the binary died
    Failed(String),
    Overdue,
}

/// Runs to the end, or to the first failed test after which `go_on` does not want more.
fn end(
    mut command: impl BorrowMut<Command>,
    limit: Duration,
    mut go_on: impl FnMut(&str) -> bool,
) -> Result<End> {
    let command = command.borrow_mut();
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start a test binary of the copy")?;
    let (sender, lines) = mpsc::channel();
    if let Some(pipe) = child.stdout.take() {
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
    }
    let deadline = Instant::now() + limit;
    let ended = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            // What a test prints may stand before it on its line.
            Ok(line) if line.ends_with("FAILED") => {
                let name = line.split_whitespace().nth(1).unwrap_or("a test").to_string();
                if !go_on(&name) {
                    break End::Failed(name);
                }
            }
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => break End::Overdue,
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait()?;
                break if status.success() { End::Passed } else { End::Failed(status.to_string()) };
            }
        }
    };
    // It has ended by itself, or nothing that it does any more counts.
    child.kill().ok();
    child.wait()?;
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_tests_come_first() {
        let text = "at\t7\ta::slow\nat\t7\ta::quick\nat\t8\ta::slow\ntime\t2\ta::quick\ntime\t900\ta::slow\n";
        let reach = parse(text);
        assert_eq!(reach.of(7), [vec!["a::quick"], vec!["a::slow"]]);
        assert_eq!(reach.of(9), [Vec::<&str>::new(), Vec::new()]);
        assert_eq!(reach.limit(&["a::slow"]), GRACE + Duration::from_secs(9));
    }

    #[test]
    fn a_failure_an_end_and_a_loop_are_distinguished() {
        let run = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            end(command, Duration::from_millis(500), |_| false).unwrap()
        };
        assert!(
            matches!(run("echo 'test a::b ... FAILED'; exec sleep 60"), End::Failed(name) if name == "a::b")
        );
        assert!(matches!(run("echo 'test a::b ... ok'"), End::Passed));
        assert!(matches!(run("kill -9 $$"), End::Failed(_)));
        assert!(matches!(run("exec sleep 60"), End::Overdue));
    }
}
