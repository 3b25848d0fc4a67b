//! `test`: every lane that this machine can run, one count line at the end.

mod changed;
mod check;
mod deny;
mod kernel;
mod unit;

use std::env;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;

use crate::tally::Tally;
use crate::{shell, timing};

/// Skips that are allowed in CI: a package registry did not answer, which is not ours to repair.
const REGISTRY: &str = "registry:";

/// The kernel of `--quick`: the one whose verifier is fastest among those that run no families of their own.
const QUICK_KERNEL: &str = "6.12";

/// Options of `test`.
#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// What to run; all lanes if none is named
    lanes: Vec<Lane>,
    /// Only tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// All lanes, but one kernel in place of the whole matrix: for the inner loop
    #[arg(long)]
    quick: bool,
    /// Like --quick, and only what the changes since this revision can reach; what is left out is listed
    #[arg(long, value_name = "REVISION", num_args = 0..=1, default_missing_value = "HEAD")]
    changed: Option<String>,
    /// Unit lane: only this part of the library (a module such as `sweep`), nothing else is compiled
    #[arg(long, value_name = "MODULE", conflicts_with = "filter")]
    part: Option<String>,
}

impl Args {
    /// `--quick` and nothing else.
    pub(crate) fn quick() -> Self {
        Self { quick: true, ..Self::default() }
    }
}

/// A kind of proof, by what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Lane {
    /// Formatting, lints, house rules
    Check,
    /// Unit, property, golden and CLI tests; needs nothing
    Unit,
    /// Kernel tests on this host's own kernel; needs root
    Host,
    /// Kernel tests on every kernel of the matrix, in QEMU
    Vm,
}

impl Lane {
    /// As it is written on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
    }
}

/// What is to run, worked out from the options.
pub(crate) struct Plan {
    lanes: Vec<Lane>,
    filter: Option<String>,
    part: Option<String>,
    /// Kernels of the VM lane; empty means the whole matrix
    kernels: Vec<String>,
}

impl Plan {
    fn of(args: &Args) -> Result<Self> {
        let mut lanes =
            if args.lanes.is_empty() { Lane::value_variants().to_vec() } else { args.lanes.clone() };
        // A filter asks for certain tests, and the rules of the house are none.
        if args.filter.is_some() && args.lanes.is_empty() {
            lanes.retain(|lane| *lane != Lane::Check);
        }
        let mut part = args.part.clone();
        if part.is_some() {
            lanes = vec![Lane::Unit];
        }
        if let Some(base) = &args.changed {
            let reach = changed::since(base)?;
            println!("{}", reach.explain(&lanes));
            lanes.retain(|lane| reach.lanes.contains(lane));
            part = part.or(reach.part);
        }
        let narrow = args.quick || args.changed.is_some();
        let kernels = if narrow { vec![QUICK_KERNEL.to_string()] } else { Vec::new() };
        if narrow && lanes.contains(&Lane::Vm) {
            println!("left out: the kernels other than {QUICK_KERNEL}");
        }
        Ok(Self { lanes, filter: args.filter.clone(), part, kernels })
    }

    fn run(&self, lane: Lane) -> Result<Tally> {
        let filter = self.filter.as_deref();
        match lane {
            Lane::Check => check::run(),
            Lane::Unit => unit::run(filter, self.part.as_deref()),
            Lane::Host if !shell::is_root() => Ok(Tally::skip("the whole lane", "needs root")),
            Lane::Host => kernel::host(filter),
            Lane::Vm => kernel::matrix(filter, &self.kernels),
        }
    }
}

/// A lane that has run.
pub(crate) struct Done {
    pub(crate) lane: Lane,
    pub(crate) tally: Tally,
    pub(crate) elapsed: Duration,
}

impl Done {
    /// A lane whose thread panicked: that is a fault of this program, and nothing is proven.
    fn broken(lane: Lane) -> Self {
        let tally = Tally::fail("the lane ended without a result: a fault in xtask, see above");
        Self { lane, tally, elapsed: Duration::ZERO }
    }
}

/// The command.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    let strict = env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    run(args, strict)
}

/// Runs the lanes and reports. When `strict`, what was skipped counts as not proven.
pub(crate) fn run(args: &Args, strict: bool) -> Result<ExitCode> {
    let mut total = Tally::default();
    for done in lanes(args)? {
        total.add(&format!("{}: ", done.lane.name()), done.tally);
    }
    Ok(report(&total, strict))
}

/// Runs the lanes that the options name; how each went.
pub(crate) fn lanes(args: &Args) -> Result<Vec<Done>> {
    let plan = &Plan::of(args)?;
    let has = |lane: &Lane| plan.lanes.contains(lane);
    // What takes a minute first: a formatting error does not wait for an emulator.
    let mut done: Vec<Done> = [Lane::Check].into_iter().filter(has).map(|lane| one(plan, lane)).collect();
    // The machines take longest, and a machine or a compiler alone does not keep two processors busy. The host's tests come
    // before the unit lane, whose build replaces the programs that they start.
    let beside: [&[Lane]; 2] = [&[Lane::Vm], &[Lane::Host, Lane::Unit]];
    thread::scope(|scope| {
        let run = |lanes: &'static [Lane]| {
            let lanes = lanes.iter().filter(|lane| plan.lanes.contains(lane));
            lanes.map(|lane| one(plan, *lane)).collect::<Vec<Done>>()
        };
        let started: Vec<_> =
            beside.into_iter().map(|lanes| (lanes, scope.spawn(move || run(lanes)))).collect();
        for (lanes, run) in started {
            let broken = |_| lanes.iter().filter(|lane| has(lane)).map(|lane| Done::broken(*lane)).collect();
            done.extend(run.join().unwrap_or_else(broken));
        }
    });
    done.sort_by_key(|done| done.lane);
    Ok(done)
}

fn one(plan: &Plan, lane: Lane) -> Done {
    let name = lane.name();
    println!("\n=== {name}");
    let start = Instant::now();
    // One lane that cannot even start must not keep the others from running.
    let tally = plan.run(lane).unwrap_or_else(|error| Tally::fail(format!("{error:#}")));
    let elapsed = start.elapsed();
    println!("=== {name}: {} in {:.0} s", tally.line(), elapsed.as_secs_f64());
    if !tally.cases.is_empty() {
        print!("the slowest of {name}:\n{}", timing::slowest(&tally.cases));
    }
    if plan.filter.is_none() && plan.part.is_none() && plan.kernels.is_empty() {
        timing::compare(&name, elapsed).into_iter().for_each(|warning| println!("{warning}"));
    }
    Done { lane, tally, elapsed }
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

    #[test]
    fn quick_leaves_out_kernels_only() {
        let plan = Plan::of(&Args::quick()).unwrap();
        assert_eq!(plan.lanes, Lane::value_variants());
        assert_eq!(plan.kernels, [QUICK_KERNEL]);
        let whole = Plan::of(&Args::default()).unwrap();
        assert_eq!(whole.lanes, Lane::value_variants());
        assert!(whole.kernels.is_empty());
    }

    #[test]
    fn a_part_is_a_matter_of_the_unit_lane() {
        let plan = Plan::of(&Args { part: Some("sweep".to_string()), ..Args::default() }).unwrap();
        assert_eq!(plan.lanes, [Lane::Unit]);
    }
}
