//! `agent`: register, check, list and show agents. All but `show` work without a daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use agent_monitor::clock;
use agent_monitor::control::api::{AgentDetail, ProcessRow, Reloaded};
use agent_monitor::control::client::{Client, ClientError};
use agent_monitor::registry::diagnostic::escape;
use agent_monitor::registry::install::{InstallError, Outcome, install};
use agent_monitor::registry::{
    AgentId, Diagnostic, LinuxFacts, LoadError, Loaded, check_dir, check_file, report,
};
use clap::{Args, Subcommand};

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
    /// List the registered agents
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
    let settings = shared.settings()?;
    if let Some(record) = check_file(&args.file, &LinuxFacts, now()).records.first() {
        lifecycle::refuse_retired(record.id.as_str(), shared)?;
    }
    let installed = match install(&args.file, &settings.registry, &LinuxFacts, now(), args.replace) {
        Ok(installed) => installed,
        Err(error @ (InstallError::Write { .. } | InstallError::Registry(_))) => return Err(error.into()),
        Err(error) => {
            note(report::install_error_text(&error).trim_end());
            return Ok(ExitCode::from(FAILURE));
        }
    };
    let warnings = report::diagnostics_text(&installed.warnings);
    if !warnings.is_empty() {
        note(warnings.trim_end());
    }
    let mut out = Out::new();
    match args.output.format {
        Format::Table => out.text(&report::installed_text(&installed))?,
        format => out.json(&report::installed_json(&installed), format)?,
    }
    out.flush()?;
    if installed.outcome == Outcome::Unchanged {
        return Ok(ExitCode::SUCCESS);
    }
    tell_daemon(&Client::new(&settings.socket), installed.record.id.value.as_str())
}

/// Has a running daemon read the registry again. Without a daemon the record waits for the next start.
pub(super) fn tell_daemon(client: &Client, id: &str) -> anyhow::Result<ExitCode> {
    let reloaded: Reloaded = match block_on(client.post("/v1/agents/reload", &()))? {
        Ok(reloaded) => reloaded,
        Err(ClientError::Unreachable { .. }) => {
            note("note: no daemon is running; the record counts from its next start");
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => {
            let kept = "the record is in the registry, but the daemon keeps the old set";
            return Err(anyhow::Error::from(error).context(kept));
        }
    };
    if let Some(refused) = reloaded.refused.iter().find(|r| r.file.ends_with(&format!("/{id}.toml"))) {
        let message = format!("the daemon refused the record: {}: {}", refused.file, refused.reason);
        return Err(Failure::new(FAILURE, message).into());
    }
    note(&format!("the daemon knows {} agents now", reloaded.agents));
    Ok(ExitCode::SUCCESS)
}

fn check(args: &CheckArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let paths = match args.paths.as_slice() {
        [] => vec![shared.settings()?.registry],
        paths => paths.to_vec(),
    };
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
    let loaded = registered(shared)?;
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
    let directory = shared.settings()?.registry;
    if !directory.exists() {
        note(&format!("note: there is no registry at {} yet", directory.display()));
    }
    at_rest(shared)
}

/// The registry as it is on disk. One that does not exist yet is empty.
pub(super) fn at_rest(shared: &Shared) -> anyhow::Result<Loaded> {
    match check_dir(&shared.settings()?.registry, &LinuxFacts, now()) {
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
    let loaded = registered(shared)?;
    let mut out = Out::new();
    let path = format!("/v1/agents/{id}");
    let detail: AgentDetail = match block_on(shared.client()?.get(&path))? {
        Ok(detail) => detail,
        Err(error @ ClientError::Unreachable { .. }) => return show_at_rest(&mut out, args, &loaded, error),
        Err(error) => return Err(error.into()),
    };
    match args.output.format {
        Format::Table => {
            let record: Option<String> =
                loaded.get(id.as_str()).map(|record| report::record_text(record, now()));
            match record {
                Some(text) => out.text(&text)?,
                None => {
                    out.line(&escape(&serde_json::to_string_pretty(&detail.record)?).replace("\\u{a}", "\n"))?
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
