//! `bench`: what an act costs with the monitor absent, attached, observing and enforcing, on this host's kernel.

use std::process::ExitCode;

use anyhow::Result;

use crate::{shell, workspace};

/// The command. Figures are ratios of one interleaved run; a VM gives none that mean anything but
/// `cargo xtask vm KERNEL --filter bench,--ignored` runs the same there, for level full.
pub(crate) fn command() -> Result<ExitCode> {
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
        "bench",
        "--nocapture",
    ]);
    shell::run(&mut run)?;
    Ok(ExitCode::SUCCESS)
}
