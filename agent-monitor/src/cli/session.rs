//! `session`: runs of agents.

use std::process::ExitCode;

use agent_monitor::people::api::{EndRequest, SessionDetail, SessionList, SessionView};
use agent_monitor::people::approvals::view::left_words;
use clap::{Args, Subcommand};

use super::exit::Failure;
use super::output::{Format, Out, OutputArgs, or_dash};
use super::{Shared, block_on, event_line};

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List the runs of agents
    List(ListArgs),
    /// Show one run: who started it, for what, its end, its processes, its latest actions
    Show(ShowArgs),
    /// End a run: everything that its processes do from then on is refused
    End(EndArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only of this agent
    #[arg(long, value_name = "ID")]
    pub(super) agent: Option<String>,
    /// Also what is over
    #[arg(long)]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

impl ListArgs {
    /// The path of the call, with the query.
    pub(super) fn path(&self, route: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(agent) = &self.agent {
            query.append_pair("agent", agent);
        }
        query.append_pair("all", if self.all { "true" } else { "false" });
        format!("{route}?{}", query.finish())
    }
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The session
    id: String,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EndArgs {
    /// The session
    id: String,
    /// Also end its processes
    #[arg(long)]
    kill: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// A session's id as part of a path.
pub(super) fn checked(id: &str) -> anyhow::Result<&str> {
    let good = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if good {
        Ok(id)
    } else {
        Err(Failure::usage(format!("`{id}` is no session id"), "agent-monitor session list").into())
    }
}

pub(crate) fn run(command: &SessionCommand, shared: &Shared) -> anyhow::Result<ExitCode> {
    let client = shared.client()?;
    let mut out = Out::new();
    match command {
        SessionCommand::List(args) => {
            let list: SessionList = block_on(client.get(&args.path("/v1/sessions")))??;
            match args.output.format {
                Format::Table => table(&mut out, &list.sessions)?,
                Format::Json => out.json(&list, Format::Json)?,
                Format::Jsonl => list.sessions.iter().try_for_each(|one| out.json(one, Format::Jsonl))?,
            }
        }
        SessionCommand::Show(args) => {
            let path = format!("/v1/sessions/{}", checked(&args.id)?);
            let detail: SessionDetail = block_on(client.get(&path))??;
            match args.output.format {
                Format::Table => text(&mut out, &detail)?,
                format => out.json(&detail, format)?,
            }
        }
        SessionCommand::End(args) => {
            let path = format!("/v1/sessions/{}/end", checked(&args.id)?);
            let request = EndRequest { why: args.why.clone(), kill: args.kill };
            let ended: SessionView = block_on(client.post(&path, &request))??;
            match args.output.format {
                Format::Table => out.line(&format!("session {} has ended", ended.id))?,
                format => out.json(&ended, format)?,
            }
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// What is left, or that it is over.
pub(super) fn left(state: &str, left_ms: Option<u64>) -> String {
    match (state, left_ms) {
        ("active", Some(left)) => left_words(left / 1000),
        ("active", None) => "no end".to_owned(),
        (state, _) => state.to_owned(),
    }
}

fn table(out: &mut Out, sessions: &[SessionView]) -> anyhow::Result<()> {
    if sessions.is_empty() {
        return Ok(out.line("no sessions")?);
    }
    let row = |one: &SessionView| {
        vec![
            one.id.clone(),
            one.agent.clone(),
            left(&one.state, one.left_ms),
            one.processes.to_string(),
            or_dash(one.by.clone().or_else(|| Some(format!("({})", one.bound_by)))),
            format!("{:.0}", one.started.timestamp()),
            or_dash(one.task.as_ref()),
        ]
    };
    let head = ["SESSION", "AGENT", "LEFT", "RUNNING", "STARTED BY", "SINCE", "TASK"];
    Ok(out.table(&head, sessions.iter().map(row))?)
}

fn text(out: &mut Out, detail: &SessionDetail) -> anyhow::Result<()> {
    let one = &detail.session;
    let pids: Vec<String> = detail.pids.iter().map(u32::to_string).collect();
    out.pairs([
        ("session", format!("{} (in the kernel {})", one.id, one.number)),
        ("agent", one.agent.clone()),
        ("task", or_dash(one.task.as_ref())),
        ("state", one.state.clone()),
        (
            "started",
            format!(
                "{:.0} by {}",
                one.started.timestamp(),
                one.by.clone().unwrap_or_else(|| one.bound_by.clone())
            ),
        ),
        (
            "ends",
            or_dash(
                one.expires
                    .map(|time| format!("{:.0}, in {}", time.timestamp(), left(&one.state, one.left_ms))),
            ),
        ),
        ("processes", if pids.is_empty() { "-".to_owned() } else { pids.join(" ") }),
    ])?;
    if let Some(ended) = one.ended {
        let why = format!(
            "{:.0} by {}: {}",
            ended.timestamp(),
            or_dash(one.ended_by.as_ref()),
            or_dash(one.why.as_ref())
        );
        out.pairs([("ended", why)])?;
    }
    if let Some(scope) = &one.scope {
        out.line("\nits own scope:")?;
        scope.lines().try_for_each(|line| out.line(&agent_monitor::registry::diagnostic::escape(line)))?;
    }
    out.pairs(
        detail
            .grants
            .iter()
            .map(|grant| ("grant", format!("{} {}: {}", grant.id, grant.state, grant.reason))),
    )?;
    if !detail.recent.is_empty() {
        out.line("\nrecent actions:")?;
        detail.recent.iter().try_for_each(|event| out.line(&event_line::render(event, false)))?;
    }
    Ok(())
}
