//! `grant`: time-boxed additions to a scope.

use std::process::ExitCode;
use std::time::Duration;

use agent_monitor::control::api::Status;
use agent_monitor::health::doctor::Level;
use agent_monitor::people::api::{GrantList, GrantRequest, GrantView, WhyRequest};
use agent_monitor::registry::diagnostic::escape;
use clap::{ArgGroup, Args, Subcommand};

use super::exit::note;
use super::output::{Format, Out, OutputArgs, or_dash};
use super::session::{ListArgs, checked, left};
use super::{Shared, approval, block_on};

#[derive(Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// Give an agent, or one of its runs, something more for a time
    Add(AddArgs),
    /// Agree to a grant that waits for a second person
    Confirm(ConfirmArgs),
    /// List the grants
    List(ListArgs),
    /// Take a grant back, at once
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whom").required(true).multiple(true))]
#[command(group = ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct AddArgs {
    /// The agent
    #[arg(long, value_name = "ID", group = "whom")]
    agent: Option<String>,
    /// Only for this run
    #[arg(long, value_name = "SESSION", group = "whom")]
    session: Option<String>,
    /// A path, with accesses after a colon [default: read]: /srv/x/**:read,write
    #[arg(long, value_name = "PATH[:ACCESS]", group = "what")]
    file: Vec<String>,
    /// A peer: 10.0.0.5:443/tcp
    #[arg(long, value_name = "PEER", group = "what")]
    net: Vec<String>,
    /// A program
    #[arg(long, value_name = "PATH", group = "what")]
    exec: Vec<String>,
    /// How long
    #[arg(long, value_name = "TIME", value_parser = approval::span)]
    ttl: Duration,
    /// For how many actions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    uses: Option<u32>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ConfirmArgs {
    /// The grant's number
    id: i64,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The grant's number
    id: i64,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(command: &GrantCommand, shared: &Shared) -> anyhow::Result<ExitCode> {
    let client = shared.client()?;
    let mut out = Out::new();
    match command {
        GrantCommand::Add(args) => {
            if let Some(session) = &args.session {
                checked(session)?;
            }
            let request = GrantRequest {
                agent: args.agent.clone(),
                session: args.session.clone(),
                file: args.file.clone(),
                net: args.net.clone(),
                exec: args.exec.clone(),
                seconds: args.ttl.as_secs(),
                uses: args.uses,
                reason: args.reason.clone(),
            };
            let grant: GrantView = block_on(client.post("/v1/grants", &request))??;
            if !(request.file.is_empty() && request.exec.is_empty()) {
                let status: Status = block_on(client.get("/v1/status"))??;
                if status.daemon.level != Level::Full {
                    note(&format!(
                        "this host is at level {}: files and programs of a launched agent are held by Landlock, which \
                         nothing widens while it runs; the --file and --exec parts of this grant have no effect here",
                        status.daemon.level.as_str()
                    ));
                }
            }
            one(&mut out, &grant, args.output)?;
        }
        GrantCommand::Confirm(args) => {
            let path = format!("/v1/grants/{}/confirm", args.id);
            let grant: GrantView = block_on(client.post(&path, &()))??;
            one(&mut out, &grant, args.output)?;
        }
        GrantCommand::List(args) => {
            let list: GrantList = block_on(client.get(&args.path("/v1/grants")))??;
            match args.output.format {
                Format::Table => table(&mut out, &list.grants)?,
                Format::Json => out.json(&list, Format::Json)?,
                Format::Jsonl => list.grants.iter().try_for_each(|one| out.json(one, Format::Jsonl))?,
            }
        }
        GrantCommand::Revoke(args) => {
            let path = format!("/v1/grants/{}/revoke", args.id);
            let request = WhyRequest { why: args.why.clone() };
            let grant: GrantView = block_on(client.post(&path, &request))??;
            one(&mut out, &grant, args.output)?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn one(out: &mut Out, grant: &GrantView, output: OutputArgs) -> anyhow::Result<()> {
    match output.format {
        Format::Table => Ok(out.line(&escape(&sentence(grant)))?),
        format => out.json(grant, format),
    }
}

fn sentence(grant: &GrantView) -> String {
    let whom = match &grant.session {
        Some(session) => format!("session {session} of {}", grant.agent),
        None => grant.agent.clone(),
    };
    match grant.state.as_str() {
        "proposed" => format!(
            "grant {} for {whom} waits: {} of {} people have agreed (agent-monitor grant confirm {})",
            grant.id, grant.agreed, grant.need, grant.id
        ),
        "active" => {
            let uses = grant.uses.map_or_else(String::new, |uses| format!(", {uses} uses"));
            format!(
                "grant {} for {whom}: {} for {}{uses}",
                grant.id,
                adds(grant),
                left("active", grant.left_ms)
            )
        }
        state => format!("grant {} for {whom} is {state}", grant.id),
    }
}

/// What it adds, in one line.
fn adds(grant: &GrantView) -> String {
    let value = |line: &str| line.split_once(" = ").map(|(_, value)| value.trim_matches('"').to_owned());
    let named = grant.scope.lines().filter(|line| line.starts_with("path = ") || line.starts_with("to = "));
    let access = |line: &&str| line.starts_with("access = ");
    let access = grant.scope.lines().filter(access).filter_map(value);
    let named: Vec<String> = named.filter_map(value).chain(access).collect();
    named.join(" ")
}

fn table(out: &mut Out, grants: &[GrantView]) -> anyhow::Result<()> {
    if grants.is_empty() {
        return Ok(out.line("no grants")?);
    }
    let row = |one: &GrantView| {
        let uses = match (one.uses_left, one.uses) {
            (Some(left), Some(all)) => format!("{left}/{all}"),
            _ => "-".to_owned(),
        };
        vec![
            one.id.to_string(),
            one.agent.clone(),
            or_dash(one.session.as_ref()),
            left(&one.state, one.left_ms),
            uses,
            or_dash(one.by.as_ref()),
            adds(one),
            one.reason.clone(),
        ]
    };
    let head = ["ID", "AGENT", "SESSION", "LEFT", "USES", "BY", "ADDS", "REASON"];
    Ok(out.table(&head, grants.iter().map(row))?)
}
