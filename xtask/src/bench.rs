//! `bench`: what an act costs with the monitor absent, attached, observing and enforcing, on this host's kernel; or in a
//! virtual machine, for what only level full has.

use std::process::ExitCode;

use anyhow::Result;

use crate::{shell, vm, workspace};

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// In a virtual machine of this kernel, at level full: only ratios of one run mean anything there
    #[arg(long, value_name = "KERNEL")]
    vm: Option<String>,
    /// Only benchmarks whose name contains this
    #[arg(long, default_value = "bench")]
    filter: String,
}

/// The command. Figures are ratios of one interleaved run.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    if let Some(kernel) = &args.vm {
        return vm::bench(kernel, &args.filter);
    }
    crate::build::daemon(crate::build::Profile::Release)?;
    let daemon = workspace::target()?.join("release/agent-monitor");
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
        &args.filter,
        "--nocapture",
    ]);
    shell::run(&mut run)?;
    Ok(ExitCode::SUCCESS)
}
