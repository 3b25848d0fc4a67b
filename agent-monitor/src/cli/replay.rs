//! `replay`: what a changed scope would have done to recorded activity.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent_monitor::attribute::{Agents, MountTable};
use agent_monitor::model::{Event, Mode};
use agent_monitor::registry::diagnostic::{Diagnostic, escape};
use agent_monitor::registry::parse::{parse_record, parse_scope};
use agent_monitor::registry::report::diagnostics_text;
use agent_monitor::registry::{AgentId, Record};
use agent_monitor::replay::Replay;
use agent_monitor::replay::book::ImageBook;
use agent_monitor::replay::report::{Change, Report, rules_of};
use agent_monitor::run::host::{Hashes, LiveResolve, mountinfo};
use agent_monitor::scope::compile::{Protected, compile};
use anyhow::Context as _;
use clap::Args;

use super::exit::{self, FAILURE, Failure, note};
use super::output::{Format, Out, OutputArgs, or_dash};
use super::source::Source;

/// Judges recorded acts again, by another scope. Nothing is changed.
#[derive(Debug, Args)]
#[command(after_help = "Paths are looked up in the mounts that this host has now.")]
pub(crate) struct ReplayArgs {
    /// A log, a bundle, or lines as `events -o jsonl` wrote them
    log: PathBuf,
    /// A whole agent record, or a file with [scope] only
    #[arg(long, value_name = "FILE")]
    scope: PathBuf,
    /// The agent whose acts are judged [default: that of the record]
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Verifier key of the log or bundle, or a file of it [default: beside the log, in the bundle]
    #[arg(long, value_name = "KEY|FILE")]
    key: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let Some((record, whole)) = read_scope(&args.scope)? else { return Ok(ExitCode::from(FAILURE)) };
    let named = args.agent.as_deref().map(|id| {
        id.parse::<AgentId>()
            .map_err(|error| Failure::usage(format!("--agent `{id}`: {error}"), "agent-monitor agent list"))
    });
    let named = named.transpose()?;
    let own = whole.then(|| record.id.value.clone());
    let source = Source::open(&args.log, &args.key)?;
    let (agent, found) = match named.or(own) {
        Some(agent) => (agent.as_str().to_owned(), None),
        None => only_agent(&source)?,
    };
    let mounts = mountinfo().context("cannot read the mounts of this host from /proc/self/mountinfo")?;
    let (mut book, notes) = compiled(&record, MountTable::parse(&mounts))?;
    let mut replay = Replay::new(&agent);
    let outcome = source.events(|event| {
        replay.take(event, &mut book);
        Ok(())
    })?;
    let report = replay.finish(&rules_of(&record.scope));
    if let Some(found) = found {
        note(&format!("note: the log has one agent, {found}; name another with --agent"));
    }
    notes.iter().for_each(|text| note(&format!("note: {text}")));
    let code = write(args, &report)?;
    if source.claims_proof() {
        return Ok(exit::checked(&outcome, code));
    }
    note(&escape(&outcome.text()));
    Ok(code)
}

/// The scope as the kernel would hold it on this host, and what of it would not be in force as written.
fn compiled(record: &Record, mounts: MountTable) -> anyhow::Result<(ImageBook, Vec<String>)> {
    let mut agents = Agents::default();
    agents.register([(record.id.value.as_str(), Mode::Enforce)]);
    let mut hashes = Hashes::new();
    let host = &mut LiveResolve::new(&mounts, &mut hashes);
    let mut compiled = compile(std::slice::from_ref(record), &[], &agents, host, &Protected::default());
    let index = agents.index(record.id.value.as_str()).context("the agent has no number")?;
    let image = compiled.image.agents.remove(&index).context("the scope was not compiled")?;
    Ok((ImageBook::new(image, mounts), compiled.notes))
}

/// The record, and whether the file is a whole one; `None` when it was refused and that was told.
fn read_scope(path: &Path) -> anyhow::Result<Option<(Record, bool)>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the scope {}", path.display()))?;
    let whole = toml::from_str::<toml::Table>(&text).is_ok_and(|table| table.contains_key("agent"));
    let parsed = if whole { parse_record(&text, path) } else { parse_scope(&text, path) };
    let problems: Vec<&Diagnostic> = parsed.diagnostics.iter().collect();
    let told = diagnostics_text(problems);
    if !told.is_empty() {
        note(told.trim_end());
    }
    Ok(parsed.record.map(|record| (record, whole)))
}

/// The agent of a log that has only one.
fn only_agent(source: &Source) -> anyhow::Result<(String, Option<String>)> {
    let mut agents: BTreeSet<String> = BTreeSet::new();
    source.events(|event: &Event| {
        agents.extend(event.agent.as_ref().map(|agent| agent.id.clone()));
        Ok(())
    })?;
    match agents.iter().collect::<Vec<_>>().as_slice() {
        [] => {
            Err(Failure::new(FAILURE, format!("{} has no event of any agent", source.path().display()))
                .into())
        }
        [one] => Ok(((*one).clone(), Some((*one).clone()))),
        more => {
            let list: Vec<&str> = more.iter().map(|id| id.as_str()).collect();
            let message = format!("{} has events of several agents", source.path().display());
            Err(Failure::usage(message, format!("name one with --agent: {}", list.join(", "))).into())
        }
    }
}

fn write(args: &ReplayArgs, report: &Report) -> anyhow::Result<ExitCode> {
    let mut out = Out::new();
    match args.output.format {
        Format::Table => table(&mut out, report)?,
        format => out.json(&report.json(), format)?,
    }
    out.flush()?;
    if report.events == 0 {
        let message = format!("{} has no event of {} to judge", args.log.display(), report.agent);
        return Err(Failure::new(FAILURE, message).into());
    }
    Ok(ExitCode::SUCCESS)
}

fn table(out: &mut Out, report: &Report) -> anyhow::Result<()> {
    for (change, title) in [(Change::Denied, "newly denied"), (Change::Allowed, "newly allowed")] {
        out.line(&format!("{title}: {}", report.total(change)))?;
        let rows: Vec<Vec<String>> = report
            .changes
            .iter()
            .filter(|(what, _)| what.change == change)
            .map(|(what, group)| {
                let was = format!("{} {}", what.was, or_dash(what.was_rule.as_ref()));
                let by = format!("{} {}", what.verdict, what.rule);
                vec![format!("  {}", group.count), by, was, what.kind.to_string(), what.object.clone()]
            })
            .collect();
        if !rows.is_empty() {
            out.table(&["  TIMES", "WOULD BE", "WAS", "KIND", "OBJECT"], rows)?;
        }
    }
    out.line(&format!("unchanged: {}", report.unchanged))?;
    out.line(&format!("not decided by scopes: {}", report.free))?;
    out.line(&format!("could not be judged: {}", report.unjudged()))?;
    for (why, count) in &report.not_judged {
        out.line(&format!("  {count}  {why}"))?;
    }
    if report.gaps > 0 {
        out.line(&format!("gaps in the log: {}; what they stand for was not judged", report.gaps))?;
    }
    out.line(&format!("unused rules: {}", report.unused.len()))?;
    for (rule, line) in &report.unused {
        out.line(&format!("  {rule} (line {line})"))?;
    }
    out.line("paths were looked up in the mounts that this host has now")?;
    Ok(())
}
