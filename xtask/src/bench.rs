//! `bench`: what an act costs with the monitor absent, attached, observing and enforcing, on this host's kernel.

use std::process::ExitCode;

use anyhow::Result;

use crate::{shell, workspace};

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// `cost`, `log` or `log-scale` [default: the first two]
    part: Option<String>,
    /// Records that `log-scale` generates, in about 60 bytes each on the disk of the target directory
    #[arg(long, default_value_t = 50_000_000)]
    records: u64,
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

/// The command. Figures are ratios of one interleaved run; a VM gives none that mean anything but
/// `cargo xtask vm KERNEL --filter bench,--ignored` runs the same there, for level full.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    let part = args.part.as_deref();
    if part == Some("log-scale") {
        return log_scale(args.records);
    }
    let filter = part.map_or_else(|| "bench".to_owned(), |part| format!("bench::{part}"));
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
        &filter,
        "--nocapture",
    ]);
    shell::run(&mut run)?;
    Ok(ExitCode::SUCCESS)
}
