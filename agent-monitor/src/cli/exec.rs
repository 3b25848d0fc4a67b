//! `exec`: become a process of an agent, then the command, in place.
//!
//! The daemon binds this very process before it becomes the command, so that the command never runs unbound.
//! From then on this process may not call the daemon any more.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use agent_monitor::control::api::{ExecReply, ExecRequest};
use agent_monitor::registry::AgentId;
use anyhow::Context as _;
use clap::Args;

use super::exit::Failure;
use super::{Shared, block_on};

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The registered agent
    #[arg(long, value_name = "ID")]
    agent: String,
    /// What this run is for
    #[arg(long, value_name = "TEXT")]
    task: Option<String>,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(crate) fn run(args: &ExecArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let [program, rest @ ..] = args.command.as_slice() else {
        return Err(Failure::usage("no command", "agent-monitor exec --agent ID -- CMD…").into());
    };
    if let Err(error) = args.agent.parse::<AgentId>() {
        return Err(
            Failure::usage(format!("--agent `{}`: {error}", args.agent), "agent-monitor agent list").into()
        );
    }
    let request =
        ExecRequest { agent: args.agent.clone(), task: args.task.clone(), pid: Some(std::process::id()) };
    let client = shared.client()?;
    // The connection ends here, and its descriptor is close-on-exec besides.
    let _bound: ExecReply = block_on(client.post("/v1/exec", &request))??;
    // Also gives the command the default SIGPIPE back.
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}
