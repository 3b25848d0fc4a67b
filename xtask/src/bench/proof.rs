//! `bench proof`: how long building, testing and a first look take, as the table that CONTRIBUTING.md states.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::shell::{self, Limits};
use crate::{test, workspace};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// `cargo xtask test`, all lanes
    Lanes,
    /// `cargo xtask test --quick`
    Quick,
    /// `cargo xtask run --demo` in a clean clone without bpf-linker, to the first event of an agent
    DemoFirst,
    /// The same when it is built
    DemoAgain,
    /// A one-line change in a part of the library, and the unit tests of that part
    OneLine,
    /// A shell script as a machine's whole work
    Script,
}

/// One row of the table.
struct Row {
    what: String,
    took: Duration,
    how: String,
}

impl Row {
    fn new(what: &str, took: Duration, how: &str) -> Self {
        Self { what: what.to_string(), took, how: how.to_string() }
    }
}

/// Longest time that a step may be silent, and as a whole.
const LIMITS: Limits = Limits { silence: Duration::from_secs(900), total: Duration::from_secs(3600) };

/// Measures these steps, all if none is named, and prints the rows as CONTRIBUTING.md has them.
pub(super) fn run(steps: &[Step]) -> Result<()> {
    let steps = if steps.is_empty() { Step::value_variants() } else { steps };
    let mut rows = Vec::new();
    for step in steps {
        rows.extend(match step {
            Step::Lanes => lanes(&test::Args::default(), "cargo xtask test")?,
            Step::Quick => {
                let done = lanes(&test::Args::quick(), "cargo xtask test --quick")?;
                let took = done.last().map_or(Duration::ZERO, |row| row.took);
                vec![Row::new("quick", took, "`cargo xtask test --quick`")]
            }
            Step::DemoFirst => vec![demo_first()?],
            Step::DemoAgain => vec![demo_again()?],
            Step::OneLine => vec![one_line()?],
            Step::Script => vec![script()?],
        });
    }
    println!("\n| step | time | command |\n|---|---|---|");
    for Row { what, took, how } in rows {
        println!("| `{what}` | {:.0} s | {how} |", took.as_secs_f64());
    }
    Ok(())
}

fn lanes(args: &test::Args, how: &str) -> Result<Vec<Row>> {
    let start = Instant::now();
    let mut rows = Vec::new();
    for done in test::lanes(args)? {
        if done.tally.failed > 0 {
            bail!(
                "lane {} has failures, and its time means nothing: {:?}",
                done.lane.name(),
                done.tally.failures
            );
        }
        let how = format!("`cargo xtask test {}`: {}", done.lane.name(), done.tally.line());
        rows.push(Row { what: done.lane.name(), took: done.elapsed, how });
    }
    rows.push(Row::new("all", start.elapsed(), &format!("`{how}`")));
    Ok(rows)
}

/// In a clone of what is committed, with nothing built and a cache of its own.
fn demo_first() -> Result<Row> {
    let home = tempfile::Builder::new().prefix("agent-monitor-proof-").tempdir()?;
    let clone = home.path().join("clone");
    shell::output(Command::new("git").arg("clone").arg("--quiet").arg(workspace::root()?).arg(&clone))?;
    let took = demo(&clone, Some(&home.path().join("cache")))?;
    Ok(Row::new("demo-first", took, "`cargo xtask run --demo` from a clean clone, to the first event"))
}

fn demo_again() -> Result<Row> {
    let root = workspace::root()?;
    demo(&root, None)?;
    Ok(Row::new("demo-again", demo(&root, None)?, "`cargo xtask run --demo` when built, to the first event"))
}

/// Time until the demo shows an event of its agent; then it is ended as by Ctrl-C.
fn demo(root: &Path, cache: Option<&Path>) -> Result<Duration> {
    let start = Instant::now();
    let mut cargo = Command::new("cargo");
    cargo.args(["xtask", "run", "--demo"]).current_dir(root).env_remove("CARGO_TARGET_DIR");
    for variable in ["CARGO_MANIFEST_DIR", "AGENT_MONITOR_BPF_OBJECT"] {
        cargo.env_remove(variable);
    }
    if let Some(cache) = cache {
        fs::create_dir_all(cache)?;
        cargo.env("AGENT_MONITOR_CACHE", cache);
    }
    let child = shell::piped(cargo.stderr(Stdio::inherit()))?;
    let pid = rustix::process::Pid::from_child(&child);
    let mut seen = None;
    shell::watch(child, LIMITS, |line| {
        println!("demo | {line}");
        if seen.is_none() && line.contains(" demo-agent ") {
            seen = Some(start.elapsed());
            // Cargo hands its place to the daemon. One that has ended meanwhile needs no signal.
            rustix::process::kill_process(pid, rustix::process::Signal::INT).ok();
        }
    })?;
    seen.context("the demo ended without an event of its agent")
}

/// The file that is changed, and the part that it belongs to.
const CHANGED: (&str, &str) = ("agent-monitor/src/sweep/correlate.rs", "sweep");

fn one_line() -> Result<Row> {
    let path = workspace::root()?.join(CHANGED.0);
    let before = fs::read_to_string(&path)?;
    let tests = || shell::run(workspace::cargo()?.args(["xtask", "test", "--part", CHANGED.1]));
    tests()?;
    let line = "\n#[cfg(test)]\nconst _: &str = \"a line for a measurement\";\n";
    fs::write(&path, format!("{before}{line}"))?;
    let start = Instant::now();
    let result = tests();
    let took = start.elapsed();
    fs::write(&path, before)?;
    result?;
    Ok(Row::new(
        "one-line",
        took,
        &format!("`cargo xtask test --part {}` after a one-line change", CHANGED.1),
    ))
}

fn script() -> Result<Row> {
    let script = tempfile::Builder::new().suffix(".sh").tempfile()?;
    fs::write(script.path(), "agent-monitor --version\n")?;
    let run = || {
        let mut cargo = workspace::cargo()?;
        cargo.args(["xtask", "vm", "6.12", "--quiet", "--script"]).arg(script.path());
        shell::run(&mut cargo)
    };
    run()?;
    let start = Instant::now();
    run()?;
    Ok(Row::new("script", start.elapsed(), "`cargo xtask vm 6.12 --script FILE`"))
}
