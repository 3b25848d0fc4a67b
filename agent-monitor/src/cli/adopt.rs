//! `agent adopt`: a find of a sweep becomes a registered agent; a running daemon binds what runs of it.

use std::path::PathBuf;
use std::process::ExitCode;

use agent_monitor::sweep::propose::{self, Answer};
use agent_monitor::sweep::report::{Find, RegistryState, Report};
use agent_monitor::sweep::signatures;
use anyhow::Context as _;
use clap::Args;

use super::Shared;
use super::agent::commit::{Commit, commit};
use super::exit::{FAILURE, Failure};
use super::output::{Out, OutputArgs};
use super::sweep::{WhatArgs, home_of, look};

#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// The find, as `sweep` and `finding.shadow_agent` name it
    find: String,
    /// Who answers for the agent
    #[arg(long)]
    owner: String,
    /// What it is for
    #[arg(long)]
    purpose: String,
    /// When it ends, RFC 3339 (2027-06-30T00:00:00Z)
    #[arg(long, value_name = "TIME")]
    expires: jiff::Timestamp,
    /// Take the find from this report (`sweep -o json`) instead of sweeping again
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Write the record to standard output and register nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    what: WhatArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &AdoptArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let (report, pack) = match &args.from {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let report: Report = serde_json::from_str(&text).with_context(|| {
                format!("{} is no report of `agent-monitor sweep -o json`", path.display())
            })?;
            (report, std::sync::Arc::new(signatures::load(&args.what.signatures).0))
        }
        None => look(&args.what, shared)?,
    };
    let find = chosen(&report, &args.find)?;
    let answer = Answer {
        owner: Some(args.owner.clone()),
        purpose: Some(args.purpose.clone()),
        expires: Some(args.expires.to_string()),
    };
    let text = propose::record(find, &pack, &answer, home_of(find).as_deref());
    let mut out = Out::new();
    if args.dry_run {
        out.text(&text)?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = PathBuf::from(format!("{}.toml", propose::agent_id(&find.product, &find.id)));
    commit(&Commit { text: &text, name: &name, replace: false, format: args.output.format }, shared)
}

fn chosen<'a>(report: &'a Report, id: &str) -> anyhow::Result<&'a Find> {
    let Some(find) = report.finds.iter().find(|find| find.id == id) else {
        let hint = "the finds are those of `agent-monitor sweep`; one that ended may be gone, take it --from a report";
        let message = format!("there is no find {id}");
        return Err(Failure { code: FAILURE, message, hint: Some(hint.to_owned()) }.into());
    };
    match (find.registry.state, &find.registry.agent) {
        (RegistryState::Registered, Some(agent)) => {
            let message = format!("{id} is registered already, as `{agent}`");
            Err(Failure::new(FAILURE, message).into())
        }
        (RegistryState::Component, _) => {
            Err(Failure::new(FAILURE, format!("{id} ({}) is no agent by itself", find.product.name)).into())
        }
        _ => Ok(find),
    }
}
