//! The kernel tests: the daemon on a real kernel, watched through its command line only.
//!
//! One file per family, each with a table of cases (`family::case`). Cases run one after another: they count
//! events and loaded programs, and the machines are small.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod actors;
mod agents;
mod bad_input;
mod bench;
mod binding;
mod budget;
mod demo;
mod escape;
mod evidence;
mod fail;
mod file;
mod hold;
mod hooks;
mod landlock;
mod lifecycle;
mod load;
mod loss;
mod network;
mod people;
mod pins;
mod privilege;
mod process;
mod scope_examples;
mod survive;
mod sweep;
mod tamper;

use agent_monitor_tests::harness::case::Case;
use agent_monitor_tests::harness::lane::{Lane, lane};
use agent_monitor_tests::harness::parked;
use agent_monitor_tests::harness::world;
use libtest_mimic::Arguments;

/// Families in the order they run: what everything else rests on comes first.
const FAMILIES: &[(&str, &[Case])] = &[
    ("actor", actors::CASES),
    ("load", load::CASES),
    ("budget", budget::CASES),
    ("hooks", hooks::CASES),
    ("process", process::CASES),
    ("file", file::CASES),
    ("network", network::CASES),
    ("privilege", privilege::CASES),
    ("binding", binding::CASES),
    ("lifecycle", lifecycle::CASES),
    ("people", people::CASES),
    ("escape", escape::CASES),
    ("survive", survive::CASES),
    ("pins", pins::CASES),
    ("fail", fail::CASES),
    ("tamper", tamper::CASES),
    ("hold", hold::CASES),
    ("evidence", evidence::CASES),
    ("demo", demo::CASES),
    ("loss", loss::CASES),
    ("landlock", landlock::CASES),
    ("scope_examples", scope_examples::CASES),
    ("bad_input", bad_input::CASES),
    ("agents", agents::CASES),
    ("sweep", sweep::CASES),
];

/// Families about the daemon rather than about the kernel under it: they run on the host and on one kernel of the matrix,
/// and elsewhere when they are asked for by name. Each starts many daemons, and under emulation the kernel's verifier takes
/// most of a minute for one.
const ONCE: &[&str] =
    &["load", "lifecycle", "people", "evidence", "loss", "scope_examples", "bad_input", "sweep"];
/// The kernel they run on: the one whose verifier is fastest.
const ONCE_ON: &str = "6.1.";

fn runs_here(family: &str, asked: bool) -> bool {
    let here = || {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        lane() == Lane::Host || release.starts_with(ONCE_ON)
    };
    asked || !ONCE.contains(&family) || here()
}

/// Before each case: fixtures of other families than this one end. Two daemons would judge every act twice.
fn enter(family: &str) {
    if family != "escape" {
        escape::stage::close();
    }
    if family != "hold" {
        hold::desk::close();
    }
    if !matches!(family, "survive" | "fail") {
        survive::close();
    }
    // Its case takes the file system of the pins away.
    parked::own_programs(family == "pins");
}

fn main() {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    let asked = args.filter.is_some();
    let families = FAMILIES
        .iter()
        .filter(|(family, _)| runs_here(family, asked))
        .flat_map(|(family, cases)| cases.iter().filter_map(|c| c.trial(family, enter)));
    let mut trials: Vec<_> = families.collect();
    // The cases before it passed in a boot that the emulator ended.
    if let Ok(from) = std::env::var("AGENT_MONITOR_FROM")
        && let Some(at) = trials.iter().position(|trial| trial.name() == from)
    {
        trials.drain(..at);
    }
    // Asked for by name only: listed otherwise, it would be a skip that no lane can avoid.
    if args.ignored || args.include_ignored {
        trials.extend(
            bench::LONG
                .iter()
                .filter_map(|case| case.trial("bench", enter))
                .map(|t| t.with_ignored_flag(true)),
        );
        trials.extend(
            sweep::LONG
                .iter()
                .filter_map(|case| case.trial("bench", enter))
                .map(|t| t.with_ignored_flag(true)),
        );
        trials.extend(
            loss::LONG.iter().filter_map(|case| case.trial("loss", enter)).map(|t| t.with_ignored_flag(true)),
        );
    }
    let conclusion = libtest_mimic::run(&args, trials);
    world::close();
    escape::stage::close();
    hold::desk::close();
    survive::close();
    parked::remove();
    conclusion.exit();
}
