//! `vm`: the kernel tests in one virtual machine per kernel.

mod initramfs;
mod interpreters;
pub(crate) mod kernel;
mod qemu;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::{programs, setup, timing, workspace};
use kernel::Kernel;
pub(crate) use qemu::Outcome;

/// Options of `vm`.
#[derive(Clone, clap::Args)]
pub(crate) struct Args {
    /// Kernel series such as 6.12, or `newest`; the whole matrix if none is named
    kernels: Vec<String>,
    /// Only tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// A shell on the console in place of the tests (one kernel)
    #[arg(long)]
    shell: bool,
    /// A shell script as the machine's whole work in place of the tests; its exit code is the verdict. `monitor-up [ARG…]`
    /// starts the daemon with `agent-monitor run ARG…` and comes back when it answers; `actor` does what tests observe
    #[arg(long, value_name = "FILE", conflicts_with_all = ["shell", "filter"])]
    script: Option<PathBuf>,
    /// Memory of each machine
    #[arg(long, value_name = "MB", default_value_t = MEM)]
    mem: u32,
    /// Added to the kernel command line, e.g. `lsm=yama` for a machine without BPF LSM
    #[arg(long, value_name = "WORDS")]
    append: Option<String>,
    /// Files and folders of this host to have in the machine at the same path, e.g. /usr/bin/node
    #[arg(long, value_name = "PATH", env = "AGENT_MONITOR_VM_WITH", value_delimiter = ':')]
    with: Vec<PathBuf>,
    /// Machines at a time
    #[arg(long, value_name = "N", default_value_t = JOBS)]
    jobs: usize,
    /// Do not show what the machines print (it is in target/vm/KERNEL.log)
    #[arg(long, short)]
    quiet: bool,
    /// One processor in place of two
    #[arg(long)]
    alone: bool,
    /// One processor whose clock counts instructions: for figures that do not depend on what else this machine does
    #[arg(long)]
    counted: bool,
}

impl Args {
    /// The whole matrix, as the `vm` lane of `test` runs it.
    pub(crate) fn matrix(filter: Option<&str>) -> Self {
        Self {
            kernels: Vec::new(),
            filter: filter.map(ToString::to_string),
            shell: false,
            script: None,
            mem: MEM,
            append: None,
            with: Vec::new(),
            jobs: JOBS,
            quiet: false,
            alone: false,
            counted: false,
        }
    }
}

/// The benchmarks of this name in a machine that counts instructions, with the daemon as the tests have it: the hooks are the
/// same.
pub(crate) fn bench(kernel: &str, filter: &str) -> Result<ExitCode> {
    let append = Some(format!("am.args=--ignored,--nocapture,{filter}"));
    command(&Args { kernels: vec![kernel.to_string()], append, counted: true, ..Args::matrix(None) })
}

/// The command.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    let kernels = prepare(&args.kernels)?;
    if args.shell {
        let [kernel] = kernels.as_slice() else {
            bail!("--shell takes one kernel, e.g. `cargo xtask vm 6.12 --shell`")
        };
        let initramfs = initramfs::build(kernel, &base(args)?)?;
        return qemu::shell(kernel, &initramfs, &machine(args)?);
    }
    let mut good = true;
    for outcome in run(&kernels, args)? {
        println!("{}", outcome.summary());
        print!("{}", timing::slowest(&outcome.cases));
        good &= outcome.passed();
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sets up what the machines need; an empty list means the whole matrix.
pub(crate) fn prepare(kernels: &[String]) -> Result<Vec<Kernel>> {
    let all: Vec<String> = kernel::SERIES.iter().map(ToString::to_string).collect();
    setup::ensure_vm(if kernels.is_empty() { &all } else { kernels }, false)
}

/// Builds, boots the kernels, and returns what became of each, in the order given.
pub(crate) fn run(kernels: &[Kernel], args: &Args) -> Result<Vec<Outcome>> {
    let machine = &machine(args)?;
    let base = base(args)?;
    // The longest runs first, so that none is left over at the end: the oldest kernel, where the families run that run once,
    // and then the newer the kernel, the longer its verifier takes.
    let mut order: VecDeque<usize> = (0..kernels.len()).rev().collect();
    order.rotate_right(1);
    let waiting = Mutex::new(order);
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let worker = || -> Result<Vec<(usize, Outcome)>> {
        let mut done = Vec::new();
        while let Some((number, kernel)) = next().and_then(|number| Some((number, kernels.get(number)?))) {
            done.push((number, boot(kernel, &initramfs::build(kernel, &base)?, machine)?));
        }
        Ok(done)
    };
    let mut outcomes = thread::scope(|scope| -> Result<Vec<_>> {
        let workers: Vec<_> = (0..args.jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        let done = workers.into_iter().map(|run| run.join().unwrap_or_else(|_| bail!("a watcher panicked")));
        Ok(done.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    })?;
    outcomes.sort_by_key(|(number, _)| *number);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

/// Builds what the machines do, and packs the part that is the same for all kernels.
fn base(args: &Args) -> Result<PathBuf> {
    let programs = if args.script.is_some() { programs::build_for_script() } else { programs::build() };
    initramfs::base(&programs?, &args.with, args.script.as_deref())
}

/// Boots a kernel, and once more, without what the emulator does wrong, when the emulator is to blame.
fn boot(kernel: &Kernel, initramfs: &Path, machine: &qemu::Machine) -> Result<Outcome> {
    let outcome = qemu::run(kernel, initramfs, machine)?;
    if !outcome.lost_a_patch() {
        return Ok(outcome);
    }
    println!("{}", outcome.summary());
    let mut again = qemu::Machine { alone: true, ..machine.clone() };
    let from = outcome.interrupted().map(ToString::to_string);
    again.words.extend(from.iter().map(|case| format!("am.from={case}")));
    println!(
        "vm {}: the emulator lost a patched instruction; once more, with one processor, {}",
        kernel.series,
        from.as_ref().map_or_else(|| "all cases".to_string(), |case| format!("from {case} on"))
    );
    let second = qemu::run(kernel, initramfs, &again)?;
    Ok(if from.is_some() { second.after(outcome) } else { second })
}

fn machine(args: &Args) -> Result<qemu::Machine> {
    let mut words: Vec<String> = args.append.iter().cloned().collect();
    if args.shell {
        words.push("am.shell".to_string());
    }
    if args.script.is_some() {
        words.push("am.script".to_string());
    }
    if let Some(filter) = &args.filter {
        if filter.contains(|c: char| c == ',' || c == '"' || c.is_whitespace()) {
            bail!("a filter goes onto a kernel command line: no blanks, commas or quotes");
        }
        words.push(format!("am.args={filter}"));
    }
    Ok(qemu::Machine {
        mem: args.mem,
        words,
        quiet: args.quiet,
        logs: workspace::target()?.join("vm"),
        alone: args.alone,
        counted: args.counted,
    })
}

/// Each machine has two processors, but a test waits more than it computes.
const JOBS: usize = 2;

/// Megabytes of a machine. All of its files are in it, and since 6.19 BPF gets memory for tasks only where some lies free: the
/// kernel does not make room for it.
const MEM: u32 = 2048;

/// Longest time for one kernel, with another one beside it on two processors.
const TOTAL: Duration = Duration::from_secs(70 * 60);

/// Longest time without a line: under emulation the verifier alone can take a minute for a program.
const SILENCE: Duration = Duration::from_secs(480);
