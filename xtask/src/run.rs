//! `run`: builds the daemon and runs it in the foreground.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::build::{self, Profile};
use crate::{shell, workspace};

/// The daemon's own exit code for "not enough privilege".
const NOT_ENOUGH_PRIVILEGE: u8 = 4;

/// Options of `run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// On a throw-away state directory, with example agents that do something
    #[arg(long)]
    demo: bool,
    /// Handed to `agent-monitor run`
    #[arg(last = true)]
    args: Vec<String>,
}

/// The command; on success it does not return, the daemon takes this process over.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    // Before the build, which takes minutes.
    if !shell::is_root() {
        eprintln!("error: the daemon loads BPF programs and needs root: run `cargo xtask run` as root");
        return Ok(ExitCode::from(NOT_ENOUGH_PRIVILEGE));
    }
    let path = build::daemon(if args.demo { Profile::Demo } else { Profile::Release })?;
    let mut daemon = shell::product(&path);
    daemon.arg("run");
    if args.demo {
        daemon.arg("--demo");
    }
    daemon.args(&args.args);
    println!(
        "running {} {}",
        workspace::shown(&path),
        shell::line(&daemon).trim_start_matches("agent-monitor ")
    );
    Err(daemon.exec()).with_context(|| format!("cannot start {}", path.display()))
}
