//! `agent`: register, check, list and show agents.

pub(super) mod commit;
mod edit;

use std::path::PathBuf;
use std::process::ExitCode;

use agent_monitor::clock;
use agent_monitor::control::api::{AgentDetail, AgentList, AgentSummary, ProcessRow, Reloaded, StaleAgent};
use agent_monitor::control::client::ClientError;
use agent_monitor::model::{Mode, Time};
use agent_monitor::people::api::WhyRequest;
use agent_monitor::registry::diagnostic::escape;
use agent_monitor::registry::load::{Trust, read_candidates};
use agent_monitor::registry::{
    AgentId, Diagnostic, LinuxFacts, LoadError, Loaded, Record, check_dir, check_file, parse_record, report,
};
use agent_monitor::run::state::State;
use agent_monitor::scope::hold::Enforced;
use anyhow::Context as _;
use clap::{Args, Subcommand};

use self::commit::Commit;
use super::exit::{FAILURE, Failure, UNREACHABLE, note};
use super::learn::{self, LearnArgs};
use super::lifecycle::{self, LifeArgs, RenewArgs, RetireArgs};
use super::output::{Format, Out, OutputArgs, or_dash};
use super::review::{self, ReviewArgs};
use super::{Shared, block_on};

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Check a record and put it into the registry; a running daemon takes it up at once
    Register(RegisterArgs),
    /// Say what is wrong with records, with file, line, column and a hint
    Check(CheckArgs),
    /// Read the registry again; what is refused or stale is named, and the exit code is 1
    Reload(ReloadArgs),
    /// Change a record in an editor; it takes the old one's place only when it is good
    Edit(edit::EditArgs),
    /// Remove an agent's record and free its processes
    Unregister(LifeArgs),
    /// List the agents, and what of them is in force
    List(ListArgs),
    /// Show one agent: its record and its live processes
    Show(ShowArgs),
    /// Stop an agent's whole tree at once; nothing new of it goes ahead
    Suspend(LifeArgs),
    /// Let a suspended agent go on where it stood
    Resume(LifeArgs),
    /// End an agent for ever and take the steps of its off-boarding
    Retire(RetireArgs),
    /// Move an agent's end date
    Renew(RenewArgs),
    /// Compare what agents were given with what they used
    Review(Box<ReviewArgs>),
    /// Propose a scope from what an agent was seen to do
    Learn(Box<LearnArgs>),
    /// Register what a sweep found; a running daemon binds its whole tree at once
    Adopt(Box<super::adopt::AdoptArgs>),
    /// Write the JSON Schema of a record
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    /// The record
    file: PathBuf,
    /// Take the place of a different record with this id
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Record files or directories of them [default: the registry]
    paths: Vec<PathBuf>,
    /// Say what of them would be in force on this host, rule by rule, as `register` does before it writes
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The agent
    id: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(command: &AgentCommand, shared: &Shared) -> anyhow::Result<ExitCode> {
    match command {
        AgentCommand::Register(args) => register(args, shared),
        AgentCommand::Check(args) => check(args, shared),
        AgentCommand::Reload(args) => commit::reload(args.output.format, shared),
        AgentCommand::Edit(args) => edit::edit(args, shared),
        AgentCommand::Unregister(args) => unregister(args, shared),
        AgentCommand::List(args) => list(args, shared),
        AgentCommand::Show(args) => show(args, shared),
        AgentCommand::Suspend(args) => lifecycle::suspend(args, shared),
        AgentCommand::Resume(args) => lifecycle::resume(args, shared),
        AgentCommand::Retire(args) => lifecycle::retire(args, shared),
        AgentCommand::Renew(args) => lifecycle::renew(args, shared),
        AgentCommand::Review(args) => review::run(args, shared, &at_rest(shared)?),
        AgentCommand::Learn(args) => learn::run(args, shared, &at_rest(shared)?),
        AgentCommand::Adopt(args) => super::adopt::run(args, shared),
        AgentCommand::Schema => schema(),
    }
}

pub(super) fn now() -> jiff::Timestamp {
    clock::now().timestamp()
}

fn register(args: &RegisterArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    match commit::read(&args.file)? {
        Ok(text) => {
            let (name, format) = (args.file.as_path(), args.output.format);
            commit::commit(&Commit { text: &text, name, replace: args.replace, format }, shared)
        }
        Err(problems) => {
            note(report::diagnostics_text(&problems).trim_end());
            note("error: the record is refused; nothing was changed");
            Ok(ExitCode::from(FAILURE))
        }
    }
}

fn unregister(args: &LifeArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let id = lifecycle::checked(&args.id)?;
    let request = WhyRequest { why: args.why.clone() };
    let answer: Result<Reloaded, ClientError> =
        block_on(shared.client()?.post(&format!("/v1/agents/{id}/unregister"), &request))?;
    match answer {
        Err(error @ ClientError::Unreachable { .. }) => {
            unregister_at_rest(&id, shared, error, args.output.format)
        }
        // What else is bad on disk is not this command's failure.
        reloaded => commit::shown(&reloaded?, args.output.format).map(|_| ExitCode::SUCCESS),
    }
}

/// Without a daemon: the file goes, and so does the text that the next daemon would go on from.
fn unregister_at_rest(
    id: &AgentId,
    shared: &Shared,
    error: ClientError,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let (Ok(registry), Ok(state_dir)) = (shared.registry(), shared.state_dir()) else {
        return Err(error.into());
    };
    let state = State::open(&state_dir)?;
    // So that no daemon starts in between.
    let lock = state.lock()?;
    let mut kept = state.kept();
    let own = kept.set.get(id).map(|kept| kept.record.file().to_path_buf());
    let mut found = own.is_some();
    let files = match read_candidates(&registry, Trust::Reported) {
        Err(LoadError::Directory { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Vec::new()
        }
        files => files?,
    };
    for file in files {
        let mine = match &file.record {
            Some(record) => record.id.value == *id,
            None => own.as_ref() == Some(&file.path),
        };
        if mine {
            found = true;
            std::fs::remove_file(&file.path)
                .with_context(|| format!("cannot remove {}", file.path.display()))?;
        }
    }
    if !found {
        let message = format!("no agent `{id}` is registered");
        return Err(
            Failure { code: FAILURE, message, hint: Some("agent-monitor agent list".to_owned()) }.into()
        );
    }
    if kept.set.remove(id).is_some() {
        state.keep(&kept.set)?;
    }
    drop(lock);
    let mut out = Out::new();
    match format {
        Format::Table => out.line(&format!("removed: {id}"))?,
        format => out.json(&serde_json::json!({ "removed": [id] }), format)?,
    }
    out.flush()?;
    note(
        "note: no daemon is running; what it left in force in the kernel stays until the next start, or agent-monitor detach",
    );
    Ok(ExitCode::SUCCESS)
}

fn check(args: &CheckArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let paths = match args.paths.as_slice() {
        [] => vec![shared.registry()?],
        paths => paths.to_vec(),
    };
    if args.here {
        return commit::check_here(&paths, args.output.format, shared);
    }
    let mut all = Loaded::default();
    for path in &paths {
        let loaded = if path.is_dir() {
            check_dir(path, &LinuxFacts, now())?
        } else {
            check_file(path, &LinuxFacts, now())
        };
        all.records.extend(loaded.records);
        all.refused.extend(loaded.refused);
        all.warnings.extend(loaded.warnings);
    }
    let mut out = Out::new();
    match args.output.format {
        Format::Table => out.text(&report::check_text(&all))?,
        Format::Json => out.json(&report::check_json(&all), Format::Json)?,
        Format::Jsonl => all.diagnostics().try_for_each(|problem| out.json(problem, Format::Jsonl))?,
    }
    out.flush()?;
    let bad = all.diagnostics().any(Diagnostic::is_error);
    Ok(if bad { ExitCode::from(FAILURE) } else { ExitCode::SUCCESS })
}

fn list(args: &ListArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let answer: Result<AgentList, ClientError> = block_on(shared.client()?.get("/v1/agents"))?;
    match answer {
        Ok(list) => list_in_force(&list, args.output.format),
        Err(error @ ClientError::Unreachable { .. }) => match shared.registry() {
            Ok(_) => list_at_rest(args, shared),
            Err(_) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// What the daemon has in force.
fn list_in_force(list: &AgentList, format: Format) -> anyhow::Result<ExitCode> {
    let mut out = Out::new();
    match format {
        Format::Table => {
            let agents = list.agents.iter().map(summary_row);
            let refused = list.refused.iter().filter(|refused| !refused.ended);
            let refused = refused.filter(|refused| {
                list.agents.iter().all(|agent| agent.file.as_deref() != Some(refused.file.as_str()))
            });
            let refused = refused.map(|refused| {
                let mut row = vec![escape(refused.agent.as_deref().unwrap_or("-")), "refused".to_owned()];
                row.extend(std::iter::repeat_n("-".to_owned(), SUMMARY.len() - 2));
                row
            });
            out.table(&SUMMARY, agents.chain(refused))?;
            out.flush()?;
            for stale in list.agents.iter().filter_map(|agent| agent.stale.as_ref()) {
                let StaleAgent { agent, reason, since, cure, .. } = stale;
                note(&format!("stale: {agent} since {since}: {}", escape(reason)));
                note(&format!("hint: {}", escape(cure)));
            }
            for refused in list.refused.iter().filter(|refused| !refused.ended) {
                note(&format!("refused: {}: {}", escape(&refused.file), escape(&refused.reason)));
            }
        }
        Format::Json => out.json(list, Format::Json)?,
        Format::Jsonl => list.agents.iter().try_for_each(|agent| out.json(agent, Format::Jsonl))?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
    }
}

const SUMMARY: [&str; 11] = [
    "ID",
    "STATE",
    "MODE",
    "ENFORCED HERE",
    "PROCESSES",
    "SESSIONS",
    "REQUESTS",
    "LAST SEEN",
    "EXPIRES",
    "OWNER",
    "PURPOSE",
];

fn summary_row(agent: &AgentSummary) -> Vec<String> {
    let day =
        |time: Option<Time>| or_dash(time.map(|time| time.timestamp().strftime("%Y-%m-%d").to_string()));
    let rules = if agent.rules.total == 0 { "no scope".to_owned() } else { agent.rules.text() };
    vec![
        agent.id.clone(),
        agent.state.clone(),
        mode_word(agent.mode).to_owned(),
        rules,
        or_dash(agent.processes),
        agent.sessions.to_string(),
        agent.requests.to_string(),
        or_dash(agent.last_seen.map(|time| format!("{:.0}", time.timestamp()))),
        day(agent.expires),
        agent.owner.clone(),
        agent.purpose.clone(),
    ]
}

/// The record of an agent: the one in force where a daemon answers, else the one on disk.
pub(super) fn record_of(id: &AgentId, shared: &Shared) -> anyhow::Result<Option<Record>> {
    let answer: Result<AgentDetail, ClientError> =
        block_on(shared.client()?.get(&format!("/v1/agents/{id}")))?;
    let text = match answer {
        Ok(detail) => detail.toml,
        Err(ClientError::Refused { status: 404, .. }) => return Ok(None),
        Err(ClientError::Unreachable { .. } | ClientError::Forbidden { .. }) => String::new(),
        Err(error) => return Err(error.into()),
    };
    match parse_record(&text, &PathBuf::from(format!("{id}.toml"))).record {
        Some(record) => Ok(Some(record)),
        None => Ok(registered(shared)?.get(id.as_str()).cloned()),
    }
}

/// Without a daemon: what is on disk, which may not be what is in force.
fn list_at_rest(args: &ListArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let loaded = registered(shared)?;
    note("note: no daemon is running: this is what is on disk, not what is in force");
    let mut out = Out::new();
    match args.output.format {
        Format::Table => out.text(&report::list_text(&loaded, now()))?,
        Format::Json => out.json(&report::list_json(&loaded, now()), Format::Json)?,
        Format::Jsonl => loaded
            .records
            .iter()
            .try_for_each(|record| out.json(&report::record_json(record, now()), Format::Jsonl))?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The registry as it is on disk. One that does not exist yet is empty, and that is said.
pub(super) fn registered(shared: &Shared) -> anyhow::Result<Loaded> {
    let directory = shared.registry()?;
    if !directory.exists() {
        note(&format!("note: there is no registry at {} yet", directory.display()));
    }
    at_rest(shared)
}

/// The registry as it is on disk. One that does not exist yet is empty.
pub(super) fn at_rest(shared: &Shared) -> anyhow::Result<Loaded> {
    match check_dir(&shared.registry()?, &LinuxFacts, now()) {
        Err(LoadError::Directory { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Loaded::default())
        }
        result => Ok(result?),
    }
}

fn show(args: &ShowArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let id: AgentId = args
        .id
        .parse()
        .map_err(|error| Failure::usage(format!("`{}`: {error}", args.id), "agent-monitor agent list"))?;
    let mut out = Out::new();
    let path = format!("/v1/agents/{id}");
    let detail: AgentDetail = match block_on(shared.client()?.get(&path))? {
        Ok(detail) => detail,
        Err(error @ ClientError::Unreachable { .. }) if shared.registry().is_ok() => {
            return show_at_rest(&mut out, args, &registered(shared)?, error);
        }
        Err(error) => return Err(error.into()),
    };
    match args.output.format {
        Format::Table => {
            in_force(&mut out, &detail)?;
            match detail.toml.is_empty() {
                false => out.text(&detail.toml)?,
                true => {
                    out.line(
                        &escape(&serde_json::to_string_pretty(&detail.record)?).replace("\\u{a}", "\n"),
                    )?;
                }
            }
            out.line("")?;
            tree(&mut out, &detail)?;
        }
        format => out.json(&detail, format)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// State, reason and cure, and where each rule that is not enforced everywhere is.
fn in_force(out: &mut Out, detail: &AgentDetail) -> anyhow::Result<()> {
    let AgentSummary { state, mode, rules, stale, .. } = &detail.summary;
    out.pairs([("state", format!("{state}, mode {}", mode_word(*mode))), ("enforced here", rules.text())])?;
    if let Some(StaleAgent { reason, since, cure, file, .. }) = stale {
        out.pairs([
            ("stale since", since.to_string()),
            ("reason", escape(reason)),
            ("file", escape(file)),
            ("cure", escape(cure)),
        ])?;
    }
    let less = detail.enforced.iter().filter(|rule| rule.enforced != Enforced::Everywhere);
    let rows: Vec<Vec<String>> = less
        .map(|rule| {
            let word = match rule.enforced {
                Enforced::Everywhere => "everywhere",
                Enforced::UnderExec => "only under exec",
                Enforced::No => "not",
            };
            vec![rule.rule.clone(), word.to_owned(), rule.why.join("; ")]
        })
        .collect();
    if !rows.is_empty() {
        out.line("")?;
        out.table(&["RULE", "ENFORCED", "WHY"], rows)?;
    }
    Ok(out.line("")?)
}

/// Without a daemon: the record, and that the processes are not known.
fn show_at_rest(
    out: &mut Out,
    args: &ShowArgs,
    loaded: &Loaded,
    error: ClientError,
) -> anyhow::Result<ExitCode> {
    let Some(record) = loaded.get(&args.id) else { return Err(error.into()) };
    match args.output.format {
        Format::Table => out.text(&report::record_text(record, now()))?,
        format => out.json(&report::record_json(record, now()), format)?,
    }
    out.flush()?;
    note(&format!("note: live processes are not known: {}", escape(&error.to_string())));
    Ok(ExitCode::from(UNREACHABLE))
}

fn tree(out: &mut Out, detail: &AgentDetail) -> anyhow::Result<()> {
    if detail.tree.is_empty() {
        return Ok(out.line("no live processes")?);
    }
    let row = |process: &ProcessRow| {
        let ProcessRow {
            pid, depth, start_time, exe, args, user, bound_by, bound_delay_ms, delegator, ..
        } = process;
        let late = bound_delay_ms.map_or_else(String::new, |delay| format!(" +{delay}ms"));
        let indent = "  ".repeat(usize::try_from(*depth).unwrap_or(0).min(40));
        let command = if args.is_empty() { or_dash(exe.as_ref()) } else { args.join(" ") };
        vec![
            pid.to_string(),
            or_dash(user.as_ref()),
            format!("{}{late}", bound_by.as_str()),
            or_dash(delegator.as_ref()),
            or_dash(start_time.map(|time| format!("{:.0}", time.timestamp()))),
            format!("{indent}{}", command.chars().take(160).collect::<String>()),
        ]
    };
    Ok(out
        .table(&["PID", "USER", "BOUND BY", "STARTED BY", "SINCE", "COMMAND"], detail.tree.iter().map(row))?)
}

fn schema() -> anyhow::Result<ExitCode> {
    let mut out = Out::new();
    out.json(&agent_monitor::registry::schema::schema(), Format::Json)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
