//! What an act costs with the monitor absent, attached and not concerned, observing, and enforcing with more and more
//! rules: ratios in one interleaved run. Asked for by name only (`cargo xtask bench`).

mod hold;

use std::fmt::Write as _;

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::actor::Actor;
use agent_monitor_tests::harness::case::{Case, Verdict};
use agent_monitor_tests::harness::lane::{self, Lane, actor_program};
use agent_monitor_tests::harness::monitor::Setup;
use agent_monitor_tests::harness::registry::{Match, Record};
use agent_monitor_tests::harness::world;
use agent_monitor_tests::sys::wait;

pub(crate) const LONG: &[Case] = &[
    Case::both("cost", || cost(Setup::new())),
    Case::vm("cost_at_level_partial", || cost(Setup::new().arg("--force-partial"))),
    Case::both("log", log),
    Case::vm("hold_latency", hold::latency),
    Case::vm("hold_not_held", hold::not_held),
];

/// Interleaved rounds; each measures every variant once. A machine whose clock counts instructions needs few.
fn rounds() -> usize {
    if lane::lane() == Lane::Vm { 5 } else { 21 }
}
/// What is done, with how many acts of it in one measurement.
const WORK: &[(&str, &str, f64)] = &[
    ("open", "opens=20000", 20_000.0),
    ("connect", "connects=5000", 5_000.0),
    ("create+unlink", "files=2000", 2_000.0),
    // Of the smallest program there is, which does nothing but end: the worst case.
    ("fork+exec", "forks=300", 300.0),
    // Of dynamically linked programs, with as many opens with each as a shell or a compiler makes.
    ("exec+open storm", "programs=100 opens=4000", 4_100.0),
];
const RULES: &[usize] = &[10, 100, 1000];

/// A default-allow scope that denies places nobody goes to, with as many rules for files and networks.
fn scope(rules: usize) -> String {
    let mut text = "[scope]\ndefault = \"allow\"\n".to_owned();
    for n in 0..rules {
        write!(text, "[[scope.file]]\npath = \"/srv/bench/{n}/data/**\"\nverdict = \"deny\"\n").unwrap();
        let (a, b) = (n / 250, n % 250);
        write!(text, "[[scope.net]]\nto = \"10.{a}.{b}.0/24\"\nverdict = \"deny\"\n").unwrap();
    }
    text
}

/// Microseconds of processor time of who does the work, its children with it: what else runs on the machine, the daemon
/// included, is not in it.
fn micros(program: &str, dir: &str, work: &str) -> f64 {
    let mut words = vec!["storm".to_owned(), format!("dir={dir}"), "rounds=1".to_owned()];
    words.extend(work.split(' ').map(str::to_owned));
    let others = ["opens=", "connects=", "files=", "forks=", "programs="]
        .into_iter()
        .filter(|kind| !work.contains(kind));
    words.extend(others.map(|kind| format!("{kind}0")));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let run = Actor::start(program, &words).finish();
    run.all_ok();
    run.mark("storm").number("cpu") as f64 / 1e3
}

fn cost(mut setup: Setup) -> Verdict {
    world::close();
    let mut programs = vec![("not bound".to_owned(), setup.scratch.program(&actor_program(), "stranger"))];
    let observer = setup.scratch.program(&actor_program(), "observer");
    setup = setup.record(&Record::new("observer").on(Match::exe(&observer)));
    programs.push(("observing".to_owned(), observer));
    for rules in RULES {
        let name = format!("bot{rules}");
        let program = setup.scratch.program(&actor_program(), &name);
        let record = Record::new(&name).on(Match::exe(&program)).enforce().degrade().scope(&scope(*rules));
        setup = setup.record(&record);
        programs.push((format!("{rules}+{rules} rules"), program));
    }
    let dir = setup.scratch.dir("work").to_str().unwrap().to_owned();
    let mut daemon = setup.arg("--detach-on-exit").start();
    let level = daemon.cli_json(&["status", "-o", "json"])["level"].as_str().unwrap_or("?").to_owned();
    // measured[work][variant] = one figure per round; variant 0 is "absent".
    let mut measured = vec![vec![Vec::new(); programs.len() + 1]; WORK.len()];
    for round in 1..=rounds() {
        // Who watches the machine takes a long silence for its end.
        println!("\nround {round} of {}", rounds());
        for (work, (_, what, _)) in WORK.iter().enumerate() {
            for (variant, (_, program)) in programs.iter().enumerate() {
                measured[work][variant + 1].push(micros(program, &dir, what));
            }
        }
        let status = daemon.end_by(libc::SIGTERM);
        assert!(status.success(), "{}", daemon.output());
        for (work, (_, what, _)) in WORK.iter().enumerate() {
            measured[work][0].push(micros(&programs[0].1, &dir, what));
        }
        daemon.restart();
    }
    let mut text = format!(
        "level {level}; processor time, ratios to the monitor absent, median (quartiles) of {} interleaved rounds\n",
        rounds()
    );
    let names = std::iter::once("absent, us/act").chain(programs.iter().map(|(name, _)| name.as_str()));
    let head: String = names.map(|name| format!("{name:>20}")).collect();
    writeln!(text, "{:<15} {head}{:>20}", "", "1000 to 10 rules").unwrap();
    for ((name, _, acts), variants) in WORK.iter().zip(&measured) {
        let base = median(&variants[0]);
        write!(text, "{name:<15} {:>20.2}", base / acts).unwrap();
        // Each round against the figure of the same round.
        for figures in &variants[1..] {
            write!(text, "{:>20}", ratio(figures, &variants[0])).unwrap();
        }
        writeln!(text, "{:>20}", ratio(&variants[variants.len() - 1], &variants[variants.len() - 3]))
            .unwrap();
    }
    println!("\nFIGURES bench: {text}");
    Ok(())
}

/// CPU seconds of the daemon's thread of this name.
fn thread_seconds(pid: u32, name: &str) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let read =
        |path: std::path::PathBuf, file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
    let mine = tasks.flatten().map(|task| task.path()).find(|task| read(task.clone(), "comm").trim() == name);
    let stat = read(mine.unwrap(), "stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// What a record costs: CPU time of the writing thread, and bytes on the disk, growing and closed.
fn log() -> Verdict {
    world::close();
    let setup = Setup::new();
    let program = setup.scratch.program(&actor_program(), "observer");
    let dir = setup.scratch.dir("work").to_str().unwrap().to_owned();
    let state = setup.scratch.path("state/log");
    let daemon = setup.record(&Record::new("observer").on(Match::exe(&program))).start();
    let records = || {
        let status = daemon.cli_json(&["status", "-o", "json"]);
        let log = &status["log"];
        let count = |key: &str| log[key].as_u64().unwrap();
        (count("records"), count("lost"), count("waiting"), count("waiting_peak"))
    };
    let started = std::time::Instant::now();
    let words = format!("dir={dir}");
    let storm = Actor::start(
        &program,
        &["storm", &words, "seconds=60", "opens=40", "connects=10", "forks=1", "files=0"],
    );
    storm.finish_within(std::time::Duration::from_secs(180)).all_ok();
    let written = wait::until(PATIENCE, || records().2 == 0);
    assert!(written, "the log does not catch up: {:?}", records());
    let seconds = started.elapsed().as_secs_f64();
    let (count, lost, _, peak) = records();
    let (log, rings) = (thread_seconds(daemon.pid(), "log"), thread_seconds(daemon.pid(), "rings"));
    let size = |end: &str| -> u64 {
        let entries = std::fs::read_dir(&state).unwrap().flatten().map(|entry| entry.path());
        entries
            .filter(|path| path.extension().is_some_and(|e| e == end))
            .map(|path| path.metadata().unwrap().len())
            .sum()
    };
    let (closed, open) = (size("zst"), size("open"));
    let per = |seconds: f64| seconds * 1e6 / count as f64;
    println!(
        "\nFIGURES log: {count} records in {seconds:.1} s ({:.0}/s), {lost} lost by the log, {peak} waited at most; \
         CPU per record: thread log {:.1} us, thread rings {:.1} us; {:.0} bytes on disk per record \
         ({closed} closed, {open} growing)",
        count as f64 / seconds,
        per(log),
        per(rings),
        (closed + open) as f64 / count as f64,
    );
    Ok(())
}

/// Median and quartiles of what each round says.
fn ratio(figures: &[f64], to: &[f64]) -> String {
    let ratios: Vec<f64> = figures.iter().zip(to).map(|(with, without)| with / without).collect();
    format!("{:.2} ({:.2}-{:.2})", median(&ratios), quantile(&ratios, 0.25), quantile(&ratios, 0.75))
}

fn median(figures: &[f64]) -> f64 {
    quantile(figures, 0.5)
}

fn quantile(figures: &[f64], part: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}
