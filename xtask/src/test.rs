//! `test`: every lane that this machine can run, one count line at the end.

mod check;
mod deny;
mod kernel;
mod unit;

use std::env;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;

use crate::shell;
use crate::tally::Tally;

/// Skips that are allowed in CI: a package registry did not answer, which is not ours to repair.
const REGISTRY: &str = "registry:";

/// Options of `test`.
#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// What to run; all lanes if none is named
    lanes: Vec<Lane>,
    /// Only tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
}

/// A kind of proof, by what it needs.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lane {
    /// Formatting, lints, house rules
    Check,
    /// Unit, property, golden and CLI tests; needs nothing
    Unit,
    /// Kernel tests on this host's own kernel; needs root
    Host,
    /// Kernel tests on every kernel of the matrix, in QEMU
    Vm,
}

/// The command.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    let strict = env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    run(args, strict)
}

/// Runs the lanes and reports. When `strict`, what was skipped counts as not proven.
pub(crate) fn run(args: &Args, strict: bool) -> Result<ExitCode> {
    let lanes = if args.lanes.is_empty() { Lane::value_variants() } else { &args.lanes };
    let mut total = Tally::default();
    for lane in lanes {
        let name = lane.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string());
        println!("\n=== {name}");
        let start = Instant::now();
        let filter = args.filter.as_deref();
        let tally = match lane {
            // A filter asks for certain tests, and the rules of the house are none.
            Lane::Check if filter.is_some() && args.lanes.is_empty() => continue,
            Lane::Check => check::run(),
            Lane::Unit => unit::run(filter),
            Lane::Host if !shell::is_root() => Ok(Tally::skip("the whole lane", "needs root")),
            Lane::Host => kernel::host(filter),
            Lane::Vm => kernel::matrix(filter),
        };
        // One lane that cannot even start must not keep the others from running.
        let tally = tally.unwrap_or_else(|error| Tally::fail(format!("{error:#}")));
        println!("=== {name}: {} in {:.0} s", tally.line(), start.elapsed().as_secs_f64());
        total.add(&format!("{name}: "), tally);
    }
    Ok(report(&total, strict))
}

fn report(total: &Tally, strict: bool) -> ExitCode {
    println!();
    for (name, reason) in &total.skips {
        println!("skipped  {name}: {reason}");
    }
    for name in &total.failures {
        println!("FAILED   {name}");
    }
    let good = verdict(total, strict);
    if let Err(reason) = &good {
        println!("not good: {reason}");
    }
    println!("{}", total.line());
    if good.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn verdict(total: &Tally, strict: bool) -> Result<(), &'static str> {
    if total.failed > 0 {
        return Err("there are failures");
    }
    if total.passed == 0 {
        return Err("nothing ran");
    }
    let unexplained = total.skips.iter().any(|(_, reason)| !reason.starts_with(REGISTRY));
    if strict && (unexplained || total.skips.len() < total.skipped) {
        return Err("in CI a skipped test is a failure");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_fails_only_in_ci_and_only_if_it_is_ours() {
        let mut total = Tally::pass();
        total.add("host: ", Tally::skip("a", "registry: no answer"));
        assert_eq!(verdict(&total, true), Ok(()));
        total.add("host: ", Tally::skip("b", "no BPF LSM"));
        assert_eq!(verdict(&total, false), Ok(()));
        assert!(verdict(&total, true).is_err());
    }

    #[test]
    fn nothing_ran_is_a_failure() {
        assert_eq!(verdict(&Tally::default(), false), Err("nothing ran"));
    }

    #[test]
    fn a_skip_without_a_name_is_not_excused() {
        let total = Tally { passed: 1, skipped: 1, ..Tally::default() };
        assert!(verdict(&total, true).is_err());
    }
}
