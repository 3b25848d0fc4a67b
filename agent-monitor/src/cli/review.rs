//! `agent review`: what agents were given, compared with what they used.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use agent_monitor::clock;
use agent_monitor::log::reader;
use agent_monitor::log::verify::Outcome;
use agent_monitor::model::{Event, Time};
use agent_monitor::people::api::{AgentPeople, ReviewedRequest};
use agent_monitor::people::review::{Reach, Review, Reviewer};
use agent_monitor::registry::diagnostic::escape;
use agent_monitor::registry::{Loaded, Record};
use agent_monitor::scope::{Scope, base};
use clap::{Args, ValueEnum};

use super::exit::{self, FAILURE, Failure, note};
use super::output::{Format, Out, bytes, or_dash};
use super::source::Source;
use super::{Shared, approval, block_on, lifecycle, place};

/// Files that are counted for one pattern at most.
const COUNTED_MAX: u64 = 100_000;
/// How long counting may take for one pattern.
const COUNTING: Duration = Duration::from_secs(5);

/// Without an id: a line for every agent.
#[derive(Debug, Args)]
pub(crate) struct ReviewArgs {
    /// The agent
    id: Option<String>,
    /// Note that you have reviewed it
    #[arg(long, requires = "id")]
    done: bool,
    /// With --done: when the next review is due
    #[arg(long, value_name = "TIME", value_parser = approval::span, default_value = "90d")]
    next: Duration,
    /// Read this log, bundle or file of `events -o jsonl` [default: the log of this host, else what the daemon remembers]
    #[arg(long, value_name = "PATH")]
    log: Option<PathBuf>,
    /// Verifier key of the log or bundle, or a file of it [default: beside the log, in the bundle]
    #[arg(long, value_name = "KEY|FILE")]
    key: Vec<String>,
    /// Form of the output
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    format: ReviewFormat,
}

/// Form of a review.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum ReviewFormat {
    /// For people; the form may change.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// For a ticket or a mail.
    Markdown,
}

pub(crate) fn run(args: &ReviewArgs, shared: &Shared, registered: &Loaded) -> anyhow::Result<ExitCode> {
    let refused = registered.refused.iter().filter_map(|refused| refused.record.as_deref());
    let bases = base::sets();
    let mut records: Vec<&Record> = registered.records.iter().chain(refused).collect();
    if let Some(id) = &args.id {
        let id = lifecycle::checked(id)?;
        records.retain(|record| record.id.value == id);
        if records.is_empty() {
            return Err(Failure::new(FAILURE, format!("no record of agent {id} is in the registry")).into());
        }
    }
    let source = source(args, shared)?;
    let (reviewers, outcome) = match &source {
        Some(source) => recorded(source, &records, &bases)?,
        None => block_on(remembered(shared, &records, &bases))??,
    };
    // What does not hold is no ground for a review.
    let holds = outcome.verified || source.as_ref().is_none_or(|source| !source.claims_proof());
    if args.done && !holds {
        note("not noted as reviewed: the record that it rests on does not hold");
    }
    if let (true, true, Some(id)) = (args.done, holds, &args.id) {
        let nanos = i128::try_from(args.next.as_nanos()).unwrap_or(i128::MAX);
        let due = Time::from_unix_nanos(clock::now().unix_nanos().saturating_add(nanos));
        let path = format!("/v1/agents/{id}/reviewed");
        let _noted: AgentPeople = block_on(shared.client()?.post(&path, &ReviewedRequest { due }))??;
    }
    let reviews = block_on(finished(shared, &records, reviewers, &outcome))??;
    let mut out = Out::new();
    match (args.format, args.id.is_some()) {
        (ReviewFormat::Json, true) => reviews.iter().try_for_each(|one| out.json(one, Format::Json))?,
        (ReviewFormat::Json, false) => out.json(&reviews, Format::Json)?,
        (ReviewFormat::Markdown, _) => reviews.iter().try_for_each(|one| out.text(&one.markdown()))?,
        (ReviewFormat::Table, true) => reviews.iter().try_for_each(|one| text(&mut out, one))?,
        (ReviewFormat::Table, false) => overview(&mut out, &reviews)?,
    }
    out.flush()?;
    if holds {
        note(&escape(&outcome.text()));
        return Ok(ExitCode::SUCCESS);
    }
    Ok(exit::checked(&outcome, ExitCode::SUCCESS))
}

/// What is named, else this host's log where there is one that can be read.
fn source(args: &ReviewArgs, shared: &Shared) -> anyhow::Result<Option<Source>> {
    // One that was never sealed proves nothing yet: the daemon's memory is as good, and said to be that.
    let sealed = |dir: &PathBuf| reader::has_checkpoint(dir).unwrap_or(true);
    let own = || place::log_or_own(None, shared).ok().filter(sealed);
    let path = args.log.clone().or_else(own);
    path.map(|path| Source::open(&path, &args.key)).transpose()
}

/// For every record a reviewer, in the same order.
type Reviewers<'a> = (Vec<Reviewer<'a>>, Outcome);

fn reviewers<'a>(records: &[&'a Record], bases: &'a [(String, Scope)]) -> Vec<Reviewer<'a>> {
    records.iter().map(|record| Reviewer::new(record, bases)).collect()
}

/// All events of a log go by once, checked; every reviewer takes what is its agent's.
fn recorded<'a>(
    source: &Source,
    records: &[&'a Record],
    bases: &'a [(String, Scope)],
) -> anyhow::Result<Reviewers<'a>> {
    let mut reviewers = reviewers(records, bases);
    let outcome = source.events(|event| {
        reviewers.iter_mut().for_each(|reviewer| reviewer.take(event));
        Ok(())
    })?;
    Ok((reviewers, outcome))
}

/// The same of what the daemon holds in memory.
async fn remembered<'a>(
    shared: &Shared,
    records: &[&'a Record],
    bases: &'a [(String, Scope)],
) -> anyhow::Result<Reviewers<'a>> {
    let mut reviewers = reviewers(records, bases);
    let mut lines = shared.client()?.lines("/v1/events").await?;
    while let Some(line) = lines.next().await? {
        let event: Event = serde_json::from_str(&line)?;
        reviewers.iter_mut().for_each(|reviewer| reviewer.take(&event));
    }
    let reason = "from the daemon's memory, because no log of this host that was ever sealed can be read here (see --log)";
    Ok((reviewers, Outcome::unproven(reason)))
}

async fn finished(
    shared: &Shared,
    records: &[&Record],
    reviewers: Vec<Reviewer<'_>>,
    outcome: &Outcome,
) -> anyhow::Result<Vec<Review>> {
    let client = shared.client()?;
    let mut done = Vec::with_capacity(reviewers.len());
    for (record, reviewer) in records.iter().zip(reviewers) {
        let people: AgentPeople = client.get(&format!("/v1/agents/{}/people", record.id.value)).await?;
        let review = reviewer.finish(&people, clock::now(), &mut |pattern| reach(pattern));
        done.push(Review { checked: Some(outcome.clone()), ..review });
    }
    Ok(done)
}

/// How far a pattern reaches on this host; `None` where that cannot be counted.
fn reach(pattern: &str) -> Option<Reach> {
    let mut reach = Reach::default();
    match pattern.strip_suffix("/**") {
        Some(root) if root.starts_with('/') && !root.contains('*') => {
            count(Path::new(root), &mut reach, Instant::now());
            Some(reach)
        }
        None if pattern.starts_with('/') && !pattern.contains(['*', '?', '[']) => {
            if let Ok(meta) = std::fs::symlink_metadata(pattern) {
                (reach.files, reach.bytes) = (1, meta.len());
            }
            Some(reach)
        }
        _ => None,
    }
}

/// Counts regular files below a directory, without following links and without end.
fn count(root: &Path, reach: &mut Reach, begun: Instant) {
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            if reach.files >= COUNTED_MAX || begun.elapsed() > COUNTING {
                reach.more = true;
                return;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    reach.files += 1;
                    reach.bytes += entry.metadata().map_or(0, |meta| meta.len());
                }
                _ => {}
            }
        }
    }
}

fn day(time: Time) -> String {
    format!("{:.0}", time.timestamp())
}

fn overview(out: &mut Out, reviews: &[Review]) -> anyhow::Result<()> {
    let row = |one: &Review| {
        let count = |verdict| one.verdicts.get(verdict).copied().unwrap_or(0).to_string();
        let overdue = if one.overdue { " overdue" } else { "" };
        vec![
            one.agent.clone(),
            one.state.clone(),
            or_dash(one.active.map(day)),
            format!("{}/{}", one.unused.len(), one.rules.len()),
            count("deny"),
            count("hold"),
            one.decisions.iter().map(|one| one.requests).sum::<u64>().to_string(),
            format!("{}{overdue}", day(one.due)),
        ]
    };
    let head = ["AGENT", "STATE", "ACTIVE", "UNUSED/RULES", "DENIED", "HELD", "DECISIONS", "REVIEW DUE"];
    Ok(out.table(&head, reviews.iter().map(row))?)
}

fn text(out: &mut Out, one: &Review) -> anyhow::Result<()> {
    let verdicts: Vec<String> =
        one.verdicts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
    let more = if one.could.more { " or more" } else { "" };
    let by = one.reviewed_by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
    out.pairs([
        ("agent", format!("{} — {}", one.agent, one.purpose)),
        ("owner", one.owner.clone()),
        ("state", format!("{}, expires {}", one.state, day(one.expires))),
        ("last active", or_dash(one.active.map(day))),
        ("reviewed", format!("{}{by}", one.reviewed.map_or_else(|| "never".to_owned(), day))),
        ("due", format!("{}{}", day(one.due), if one.overdue { ", overdue" } else { "" })),
        ("sessions", format!("{}, {} now", one.sessions.0, one.sessions.1)),
        ("verdicts", verdicts.join(", ")),
        (
            "could reach",
            format!(
                "{} files{more}, {}; {} peers, {} programs",
                one.could.files,
                bytes(one.could.bytes),
                one.could.peers.len(),
                one.could.programs.len()
            ),
        ),
        (
            "did reach",
            format!(
                "{} files, {} sent; {} peers, {} programs",
                one.did.files,
                bytes(one.did.bytes),
                one.did.peers.len(),
                one.did.programs.len()
            ),
        ),
    ])?;
    out.pairs(one.checked.iter().map(|checked| ("the events", checked.text())))?;
    if !one.complete {
        out.pairs([("incomplete", one.gaps.join("; "))])?;
    }
    out.line("")?;
    let rule = |rule: &agent_monitor::people::review::RuleUse| {
        let last = rule.last.map_or_else(|| "never".to_owned(), day);
        let verdict = rule.verdict.as_str().to_owned();
        vec![rule.rule.clone(), rule.pattern.clone(), verdict, rule.used.to_string(), last]
    };
    out.table(&["RULE", "ABOUT", "VERDICT", "USED", "LAST"], one.rules.iter().map(rule))?;
    if !one.decisions.is_empty() {
        out.line("")?;
        let row = |one: &agent_monitor::people::api::DecisionCount| {
            let by = one.by.clone().unwrap_or_else(|| "(time)".to_owned());
            vec![by, one.state.clone(), one.requests.to_string(), one.asked.to_string()]
        };
        out.table(&["BY", "DECISION", "REQUESTS", "ASKED"], one.decisions.iter().map(row))?;
    }
    if !one.steps.is_empty() {
        out.line("")?;
        lifecycle::steps(out, &one.steps)?;
    }
    if !one.proposed.is_empty() {
        out.line(&format!("\nproposed scope ({} rules):", one.proposed_rules))?;
        out.text(&one.proposed)?;
    }
    Ok(())
}
