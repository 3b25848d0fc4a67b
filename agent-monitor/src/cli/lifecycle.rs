//! `agent suspend`, `resume`, `retire`, `renew`: the life of an agent.

use std::process::ExitCode;

use agent_monitor::clock;
use agent_monitor::model::Time;
use agent_monitor::people::api::{ConfirmRequest, LifeReply, RenewRequest, StepView, WhyRequest};
use agent_monitor::people::store::retired_ids;
use agent_monitor::registry::AgentId;
use agent_monitor::registry::diagnostic::escape;
use agent_monitor::registry::parse::parse_duration;
use agent_monitor::run::people::STATE_FILE;
use clap::Args;

use super::exit::{FAILURE, Failure, note};
use super::output::{Format, Out, OutputArgs, or_dash};
use super::{Shared, block_on};

#[derive(Debug, Args)]
pub(crate) struct LifeArgs {
    /// The agent
    pub(super) id: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub(super) why: Option<String>,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RetireArgs {
    #[command(flatten)]
    life: LifeArgs,
    /// Confirm a step of the off-boarding that a person has taken, by its number
    #[arg(long, value_name = "N")]
    confirm: Option<i64>,
    /// What was done, for the evidence
    #[arg(long, value_name = "TEXT", requires = "confirm")]
    note: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RenewArgs {
    #[command(flatten)]
    life: LifeArgs,
    /// The new end: a date, a time, or how long from now (90d)
    #[arg(long, value_name = "WHEN", value_parser = when)]
    until: Time,
}

/// `2027-06-30`, `2027-06-30T12:00:00Z` or `90d` from now.
pub(super) fn when(text: &str) -> Result<Time, String> {
    if let Some(span) = parse_duration(text) {
        let nanos = i128::try_from(span.as_nanos()).unwrap_or(i128::MAX);
        return Ok(Time::from_unix_nanos(clock::now().unix_nanos().saturating_add(nanos)));
    }
    let date = format!("{text}T00:00:00Z");
    let time = text.parse().or_else(|_whole| date.parse::<Time>());
    time.map_err(|_neither| "a date (2027-06-30), a time (2027-06-30T12:00:00Z) or a span (90d)".to_owned())
}

/// An agent's id as part of a path.
pub(super) fn checked(id: &str) -> anyhow::Result<AgentId> {
    Ok(id.parse().map_err(|error| Failure::usage(format!("`{id}`: {error}"), "agent-monitor agent list"))?)
}

pub(crate) fn suspend(args: &LifeArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    change(args, shared, "suspend", |reply| match reply.complete {
        true => format!(
            "{} is suspended: {} processes were stopped{}",
            reply.agent,
            reply.processes,
            frozen(reply)
        ),
        false => format!("{} is suspended, but not all of it is stopped", reply.agent),
    })
}

fn frozen(reply: &LifeReply) -> String {
    reply.frozen.as_ref().map_or_else(String::new, |group| format!(", control group {group} is frozen"))
}

pub(crate) fn resume(args: &LifeArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    change(args, shared, "resume", |reply| format!("{} goes on", reply.agent))
}

pub(crate) fn retire(args: &RetireArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let Some(step) = args.confirm else {
        return change(&args.life, shared, "retire", |reply| {
            let ended = if reply.complete { "nothing of it runs" } else { "not all of it could be ended" };
            format!("{} is retired for ever: {} processes were ended, {ended}", reply.agent, reply.processes)
        });
    };
    let path = format!("/v1/agents/{}/confirm", checked(&args.life.id)?);
    let request = ConfirmRequest { step, note: args.note.clone() };
    let done: StepView = block_on(shared.client()?.post(&path, &request))??;
    let mut out = Out::new();
    match args.life.output.format {
        Format::Table => steps(&mut out, std::slice::from_ref(&done))?,
        format => out.json(&done, format)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn renew(args: &RenewArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/agents/{}/renew", checked(&args.life.id)?);
    let request = RenewRequest { until: args.until, why: args.life.why.clone() };
    let reply: LifeReply = block_on(shared.client()?.post(&path, &request))??;
    let line = format!("{} is {} until {}", reply.agent, reply.state, or_dash(reply.expires));
    answered(&reply, args.life.output, &line)
}

fn change(
    args: &LifeArgs,
    shared: &Shared,
    verb: &str,
    words: impl Fn(&LifeReply) -> String,
) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/agents/{}/{verb}", checked(&args.id)?);
    let request = WhyRequest { why: args.why.clone() };
    let reply: LifeReply = block_on(shared.client()?.post(&path, &request))??;
    answered(&reply, args.output, &words(&reply))
}

fn answered(reply: &LifeReply, output: OutputArgs, line: &str) -> anyhow::Result<ExitCode> {
    let mut out = Out::new();
    match output.format {
        Format::Table => {
            out.line(&escape(line))?;
            steps(&mut out, &reply.steps)?;
        }
        format => out.json(reply, format)?,
    }
    out.flush()?;
    reply.failed.iter().for_each(|what| note(&format!("failed: {}", escape(what))));
    let bad = !reply.complete || reply.steps.iter().any(|step| step.result == "failed");
    Ok(if bad { ExitCode::from(FAILURE) } else { ExitCode::SUCCESS })
}

/// The steps of an off-boarding, as a table.
pub(super) fn steps(out: &mut Out, steps: &[StepView]) -> anyhow::Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let row = |step: &StepView| {
        let hash = step.sha256.as_deref().map(|hash| hash.chars().take(16).collect::<String>());
        let seen = match step.evidence.as_object().is_none_or(serde_json::Map::is_empty) {
            true => String::new(),
            false => step.evidence.to_string(),
        };
        vec![
            step.number.to_string(),
            step.kind.clone(),
            step.result.clone(),
            step.target.clone(),
            or_dash(step.by.as_ref()),
            or_dash(hash),
            seen,
        ]
    };
    Ok(out.table(&["STEP", "WHAT", "RESULT", "TARGET", "BY", "SHA256", "EVIDENCE"], steps.iter().map(row))?)
}

/// Refuses to register an id that is retired. Without the right to read the state the daemon says so at its reload.
pub(super) fn refuse_retired(id: &str, shared: &Shared) -> anyhow::Result<()> {
    // Where no daemon says where its state is, nothing else is read in its place.
    let Ok(state) = shared.state_dir() else { return Ok(()) };
    let path = state.join(STATE_FILE);
    let readable = std::fs::File::open(&path).is_ok();
    if !readable || !retired_ids(&path)?.contains(id) {
        return Ok(());
    }
    let message =
        format!("agent `{id}` is retired: a retired id is never registered again; nothing was changed");
    let hint = "give the agent another id".to_owned();
    Err(Failure { code: FAILURE, message, hint: Some(hint) }.into())
}
