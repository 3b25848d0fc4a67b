//! `approval`: what waits for a person, and the answers.

use std::process::ExitCode;
use std::time::Duration;

use agent_monitor::model::{Event, SCHEMA_VERSION};
use agent_monitor::people::api::{
    ApprovalDetail, ApprovalList, ApprovalView, ApproveRequest, DecisionReply, DenyRequest,
};
use agent_monitor::people::approvals::view::left_words;
use agent_monitor::registry::diagnostic::escape;
use agent_monitor::registry::parse::parse_duration;
use clap::{ArgGroup, Args, Subcommand};

use super::exit::{Failure, note};
use super::output::{Format, Out, OutputArgs, or_dash};
use super::{Shared, block_on, event_line, watch};

#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalCommand {
    /// List what waits for a person
    List(ListArgs),
    /// Show one request with everything that is needed to decide it
    Show(ShowArgs),
    /// Let the action go ahead
    Approve(ApproveArgs),
    /// Refuse the action
    Deny(DenyArgs),
    /// Decide on a screen, as requests come in
    Watch(watch::WatchArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only of this agent
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Also what was decided
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The request's number
    id: i64,
    #[command(flatten)]
    output: OutputArgs,
}

/// Without a form: once.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("form"))]
pub(crate) struct ApproveArgs {
    /// The request's number
    id: i64,
    /// This one action of this one process (the default)
    #[arg(long, group = "form")]
    once: bool,
    /// This exact action by any process of the agent, for so long
    #[arg(long = "for", group = "form", value_name = "TIME", value_parser = span)]
    span: Option<Duration>,
    /// This exact action by any process of the session, until that ends
    #[arg(long, group = "form")]
    session: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DenyArgs {
    /// The request's number
    id: i64,
    /// Also suspend the agent
    #[arg(long)]
    suspend: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// `10m` on a command line.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "a whole number and one of s, m, h, d, w: 10m".to_owned())
}

pub(crate) fn run(command: &ApprovalCommand, shared: &Shared) -> anyhow::Result<ExitCode> {
    match command {
        ApprovalCommand::List(args) => list(args, shared),
        ApprovalCommand::Show(args) => show(args, shared),
        ApprovalCommand::Approve(args) => approve(args, shared),
        ApprovalCommand::Deny(args) => deny(args, shared),
        ApprovalCommand::Watch(args) => watch::run(args, shared),
    }
}

fn list(args: &ListArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(agent) = &args.agent {
        query.append_pair("agent", agent);
    }
    query.append_pair("all", if args.all { "true" } else { "false" });
    let path = format!("/v1/approvals?{}", query.finish());
    let list: ApprovalList = block_on(shared.client()?.get(&path))??;
    let mut out = Out::new();
    match args.output.format {
        Format::Table => table(&mut out, &list)?,
        Format::Json => out.json(&list, Format::Json)?,
        Format::Jsonl => list.approvals.iter().try_for_each(|one| out.json(one, Format::Jsonl))?,
    }
    out.flush()?;
    for flood in &list.floods {
        note(&format!(
            "flood: {} asks too much since {:.0}: {} further requests were denied at once",
            escape(&flood.agent),
            flood.since.timestamp(),
            flood.denied
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(out: &mut Out, list: &ApprovalList) -> anyhow::Result<()> {
    if list.approvals.is_empty() {
        return Ok(out.line("nothing waits for a person")?);
    }
    let row = |one: &ApprovalView| {
        let state = match (one.state.as_str(), one.held) {
            ("pending", true) => "held".to_owned(),
            ("pending", false) => "refused, may retry".to_owned(),
            (state, _) => {
                format!("{state}{}", one.form.as_ref().map_or_else(String::new, |f| format!(" ({f})")))
            }
        };
        let left = if one.state == "pending" {
            left_words(one.left_ms / 1000)
        } else {
            or_dash(one.decided_by.as_ref())
        };
        vec![
            one.id.to_string(),
            one.agent.clone(),
            state,
            format!("{}/{}", one.votes.len(), one.need),
            left,
            if one.count > 1 { format!("×{}", one.count) } else { String::new() },
            format!("{} {}", one.event.kind, object(&one.event)),
        ]
    };
    Ok(out.table(&["ID", "AGENT", "STATE", "YES", "LEFT/BY", "", "ACTION"], list.approvals.iter().map(row))?)
}

/// What the action is about, in one line.
pub(super) fn object(event: &Event) -> String {
    event_line::object(event)
}

/// The full command line of the acting process.
pub(super) fn command(event: &Event) -> String {
    let Some(process) = &event.process else { return "-".to_owned() };
    match process.args.is_empty() {
        true => or_dash(process.exe.as_ref()),
        false => {
            let cut = if process.args_truncated { " … (cut)" } else { "" };
            format!("{}{cut}", process.args.join(" "))
        }
    }
}

fn show(args: &ShowArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let detail: ApprovalDetail = block_on(shared.client()?.get(&format!("/v1/approvals/{}", args.id)))??;
    let mut out = Out::new();
    match args.output.format {
        Format::Table => text(&mut out, &detail)?,
        format => out.json(&detail, format)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn text(out: &mut Out, detail: &ApprovalDetail) -> anyhow::Result<()> {
    let one = &detail.approval;
    let process = one.event.process.as_deref();
    let wait = match (one.state.as_str(), one.held) {
        ("pending", true) => format!("held; denied by itself in {}", left_words(one.left_ms / 1000)),
        ("pending", false) => format!(
            "refused, for it cannot be held; the next try may pass; asked for {} more",
            left_words(one.left_ms / 1000)
        ),
        (state, _) => state.to_owned(),
    };
    let who = process.map_or_else(String::new, |process| {
        format!(
            "pid {} as {}",
            process.pid,
            or_dash(process.user.clone().or(process.uid.map(|uid| uid.to_string())))
        )
    });
    out.pairs([
        ("approval", format!("{} ({})", one.id, one.digest)),
        ("state", wait),
        ("agent", format!("{} — {}", one.agent, or_dash(detail.purpose.as_ref()))),
        ("owner", or_dash(detail.owner.as_ref())),
        ("session", session(detail)),
        ("action", format!("{} {}", one.event.kind, object(&one.event))),
        ("rule", or_dash(one.event.rule.as_ref())),
        ("process", who),
        ("command", command(&one.event)),
        ("directory", or_dash(process.and_then(|process| process.cwd.as_ref()))),
        ("started by", ancestry(&one.event)),
        ("labels", one.event.labels.join(", ")),
        (
            "asked",
            format!(
                "{:.0}, {} times; {} processes wait",
                one.asked.timestamp(),
                one.count,
                one.waiting.len()
            ),
        ),
        ("decides", format!("{} of {}", one.need, one.approvers)),
    ])?;
    out.pairs(one.votes.iter().flat_map(|vote| {
        let user = vote.user.clone().unwrap_or_else(|| format!("uid {}", vote.uid));
        let said = ("yes", format!("{user}: {} {}", vote.form, or_dash(vote.why.as_ref())));
        std::iter::once(said).chain(vote.caller.iter().map(|caller| ("called from", caller.text())))
    }))?;
    if one.state != "pending" {
        let by = or_dash(one.decided_by.as_ref());
        let why = one.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        out.pairs([("decided", format!("{} by {by}{why}", or_dash(one.form.as_ref())))])?;
        out.pairs(one.caller.iter().map(|caller| ("called from", caller.text())))?;
    } else {
        out.line("")?;
        for form in &detail.forms {
            let widens = if form.widens { " (more than this one action)" } else { "" };
            out.line(&format!("--{:<8} {}{widens}", form.form, escape(&form.means)))?;
        }
    }
    if !detail.recent.is_empty() {
        out.line("\nrecent actions:")?;
        detail.recent.iter().try_for_each(|event| out.line(&event_line::render(event, false)))?;
    }
    Ok(())
}

/// The session in one line.
pub(super) fn session(detail: &ApprovalDetail) -> String {
    match (&detail.session, detail.approval.event.agent.as_ref().and_then(|agent| agent.session.clone())) {
        (Some(session), _) => {
            let task = session.task.as_ref().map_or_else(String::new, |task| format!(": {task}"));
            let by = session.by.as_ref().map_or_else(String::new, |by| format!(", started by {by}"));
            format!("{}{task}{by}", session.id)
        }
        (None, session) => or_dash(session),
    }
}

/// The parents, nearest first.
pub(super) fn ancestry(event: &Event) -> String {
    let Some(process) = &event.process else { return "-".to_owned() };
    let parent = |one: &agent_monitor::model::Ancestor| {
        let exe = one.exe.as_deref().unwrap_or("?");
        format!("{}[{}]", exe.rsplit('/').next().unwrap_or(exe), one.pid)
    };
    let parents: Vec<String> = process.ancestry.iter().take(6).map(parent).collect();
    if parents.is_empty() { "-".to_owned() } else { parents.join(" ← ") }
}

fn approve(args: &ApproveArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let form = match (args.span, args.session) {
        (Some(_), _) => "for",
        (None, true) => "session",
        (None, false) => "once",
    };
    let seconds = args.span.map(|span| span.as_secs());
    if seconds.is_some_and(|seconds| seconds > 86_400) {
        return Err(Failure::usage("--for is longer than 24h", "--for 10m").into());
    }
    let why = args.why.clone();
    let request = ApproveRequest { form: Some(form.to_owned()), seconds, why, digest: None };
    let path = format!("/v1/approvals/{}/approve", args.id);
    let reply: DecisionReply = block_on(shared.client()?.post(&path, &request))??;
    answered(&reply, args.output)
}

fn deny(args: &DenyArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let request = DenyRequest { why: args.why.clone(), suspend: args.suspend };
    let path = format!("/v1/approvals/{}/deny", args.id);
    let reply: DecisionReply = block_on(shared.client()?.post(&path, &request))??;
    answered(&reply, args.output)
}

fn answered(reply: &DecisionReply, output: OutputArgs) -> anyhow::Result<ExitCode> {
    let mut out = Out::new();
    match output.format {
        Format::Table => {
            let line = match reply.state.as_str() {
                "pending" => format!(
                    "approval {}: {} of {} people have said yes; it waits on for the others",
                    reply.id, reply.votes, reply.need
                ),
                state => format!("approval {}: {state}: {}", reply.id, reply.means),
            };
            out.line(&escape(&line))?;
        }
        format => {
            let mut value = serde_json::to_value(reply)?;
            value["schema_version"] = SCHEMA_VERSION.into();
            out.json(&value, format)?;
        }
    }
    out.flush()?;
    if let Some(rest) = reply.rest {
        note(&format!("note: other processes wait for the same action: approval {rest}"));
    }
    Ok(ExitCode::SUCCESS)
}
