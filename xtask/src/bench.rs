//! `bench`: what an act costs with the monitor absent, attached, observing and enforcing, on this host's kernel; or in a
//! virtual machine, for what only level full has.

mod proof;

use std::process::ExitCode;

use anyhow::Result;

use crate::{shell, vm, workspace};

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// `cost`, `log`, `sweep`, `hold` (with --vm only), `log-scale` or `proof` [default: all but the last two]
    part: Option<String>,
    /// What `proof` measures [default: everything]
    #[arg(value_enum)]
    steps: Vec<proof::Step>,
    /// Records that `log-scale` generates, in about 60 bytes each on the disk of the target directory
    #[arg(long, default_value_t = 50_000_000)]
    records: u64,
    /// In a virtual machine of this kernel, at level full: only ratios of one run mean anything there
    #[arg(long, value_name = "KERNEL")]
    vm: Option<String>,
}

/// Asks a generated log of many days, and measures time and memory.
fn log_scale(records: u64) -> Result<ExitCode> {
    crate::build::object()?;
    let mut run = crate::build::host_cargo()?;
    run.args([
        "test",
        "--release",
        "-p",
        "agent-monitor",
        "--test",
        "scale",
        "--",
        "--ignored",
        "--nocapture",
    ]);
    shell::run(run.env("AGENT_MONITOR_RECORDS", records.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

/// The command. Figures are ratios of one interleaved run.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    let part = args.part.as_deref();
    if part == Some("log-scale") {
        return log_scale(args.records);
    }
    if part == Some("proof") {
        proof::run(&args.steps)?;
        return Ok(ExitCode::SUCCESS);
    }
    let filter = part.map_or_else(|| "bench".to_owned(), |part| format!("bench::{part}"));
    if let Some(kernel) = &args.vm {
        return vm::bench(kernel, &filter);
    }
    let daemon = crate::build::daemon(crate::build::Profile::Release)?;
    let mut build = workspace::cargo()?;
    shell::run(build.args(["build", "-p", "agent-monitor-tests", "--bins"]))?;
    let mut run = workspace::cargo()?;
    run.env("AGENT_MONITOR_BIN", daemon);
    run.args([
        "test",
        "-p",
        "agent-monitor-tests",
        "--test",
        "kernel",
        "--",
        "--ignored",
        &filter,
        "--nocapture",
    ]);
    shell::run(&mut run)?;
    Ok(ExitCode::SUCCESS)
}
