//! `exec`: become a process of an agent, then the command, in place.
//!
//! The daemon binds this very process before it becomes the command, so that the command never runs unbound.
//! From then on this process may not call the daemon any more.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use std::path::Path;

use agent_monitor::control::api::{AgentDetail, ExecReply, ExecRequest, Status};
use agent_monitor::control::client::Client;
use agent_monitor::health::doctor::Level;
use agent_monitor::model::Mode;
use agent_monitor::registry::AgentId;
use agent_monitor::registry::parse::parse_scope;
use agent_monitor::scope::base;
use agent_monitor::scope::landlock::{self, Differs, Plan};
use anyhow::Context as _;
use clap::Args;

use super::confine::{self, Ability};
use super::exit::{FAILURE, Failure, note};
use super::{Shared, block_on};

/// Rules that are not held, as far as they are sent to the daemon; all are printed.
const TOLD_MAX: usize = 200;

/// Bytes of a session's own scope: what a call of the daemon takes.
const SCOPE_MAX: u64 = 48 << 10;

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The registered agent
    #[arg(long, value_name = "ID")]
    agent: String,
    /// What this run is for
    #[arg(long, value_name = "TEXT")]
    task: Option<String>,
    /// The run ends by itself after so long
    #[arg(long, value_name = "TIME", value_parser = super::approval::span)]
    ttl: Option<std::time::Duration>,
    /// A file with a [scope]: the run may do what both this and the agent's scope permit
    #[arg(long, value_name = "FILE")]
    scope: Option<std::path::PathBuf>,
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
    let client = shared.client()?;
    let confinement = Confinement::of(&client, &args.agent)?;
    if args.scope.is_some() && confinement.level != Some(Level::Full) {
        note(
            "this host is not at level full: --scope narrows the network only; its rules for files, programs and privileges \
             are not held",
        );
    }
    let request = ExecRequest {
        agent: args.agent.clone(),
        task: args.task.clone(),
        ttl_seconds: args.ttl.map(|ttl| ttl.as_secs()),
        scope: args.scope.as_deref().map(read_scope).transpose()?,
        pid: Some(std::process::id()),
        not_held: confinement.not_held.iter().take(TOLD_MAX).cloned().collect(),
        landlock: confinement.plan.is_some(),
    };
    // The connection ends here, and its descriptor is close-on-exec besides.
    let _bound: ExecReply = block_on(client.post("/v1/exec", &request))??;
    if let Some((plan, ability)) = &confinement.plan {
        confine::confine(plan, *ability)?;
    }
    // Also gives the command the default SIGPIPE back.
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// The text of a session's own scope; the daemon checks it.
fn read_scope(path: &Path) -> anyhow::Result<String> {
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !metadata.is_file() || metadata.len() > SCOPE_MAX {
        let message = format!("{} is no file of at most {SCOPE_MAX} bytes", path.display());
        return Err(Failure::usage(message, "a file with [scope] and its rules").into());
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// How the command is confined where the kernel does not judge files.
#[derive(Default)]
struct Confinement {
    /// What the host can do.
    level: Option<Level>,
    plan: Option<(Plan, Ability)>,
    /// What is not held, in words.
    not_held: Vec<String>,
}

impl Confinement {
    /// Asks the daemon for level and scope. At level full, and for agents that are only observed, there is nothing to do.
    fn of(client: &Client, id: &str) -> anyhow::Result<Self> {
        let status: Status = block_on(client.get("/v1/status"))??;
        let level = Some(status.daemon.level);
        if level == Some(Level::Full) {
            return Ok(Self { level, ..Self::default() });
        }
        let agent: AgentDetail = block_on(client.get(&format!("/v1/agents/{id}")))??;
        if agent.summary.mode != Mode::Enforce || agent.scope.is_empty() {
            return Ok(Self { level, ..Self::default() });
        }
        let parsed = parse_scope(&agent.scope, Path::new("the daemon's record"));
        let record = parsed.record.with_context(|| format!("the daemon's scope of {id} cannot be read"))?;
        let plan = landlock::plan(&record.scope, &base::sets(), &confine::look);
        let mut not_held: Vec<String> =
            plan.not_held.iter().map(|not| format!("{}: {}", not.rule, not.why)).collect();
        let ability = if plan.applies { confine::ability() } else { None };
        match ability {
            Some(ability) => {
                not_held.extend(ability.missing.map(|missing| format!("scope.default: {missing}")))
            }
            None if plan.applies => not_held.push("scope.default: this kernel has no Landlock".to_owned()),
            None => {}
        }
        let wider = plan.not_held.iter().find(|not| not.differs == Differs::Wider).filter(|_| plan.applies);
        if let Some(wider) = wider.filter(|_| agent.record["degrade"] != "allow") {
            let message = format!(
                "cannot confine {id}: {} permits more than is written at level partial: {}",
                wider.rule, wider.why
            );
            let hint = "degrade = \"allow\" in the record runs it all the same".to_owned();
            return Err(Failure { code: FAILURE, message, hint: Some(hint) }.into());
        }
        if plan.applies && ability.is_none() && agent.record["degrade"] != "allow" {
            let message = format!(
                "cannot confine {id}: at level partial its files are held by Landlock, which this kernel does not have"
            );
            let hint = "degrade = \"allow\" in the record runs it all the same".to_owned();
            return Err(Failure { code: FAILURE, message, hint: Some(hint) }.into());
        }
        not_held.iter().for_each(|not| note(&format!("not held at level partial: {not}")));
        Ok(Self { level, plan: ability.map(|ability| (plan, ability)), not_held })
    }
}
