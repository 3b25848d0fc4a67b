//! `events`: the record, filtered, once or as it grows.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent_monitor::clock;
use agent_monitor::control::client::{Client, Lines};
use agent_monitor::log::LogError;
use agent_monitor::model::{Event, Kind};
use agent_monitor::record::{Filter, FilterSpec};
use agent_monitor::registry::diagnostic::escape;
use clap::Args;

use super::exit::{self, Failure, note};
use super::filters::FilterArgs;
use super::output::{Format, Out, OutputArgs};
use super::recorded::{self, View};
use super::source::Source;
use super::{Shared, block_on, event_line, is_unreachable, place};

/// Values of one option are alternatives; different options must all hold.
#[derive(Debug, Args)]
#[command(
    after_help = "Times: 2026-11-21T22:36:01Z, 2026-11-21 (UTC), or back from now: 90s, 15m, 2h, 1h30m, 3d."
)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Ask the durable log, not the daemon: this host's, or a log, bundle or JSONL file; asked anyway where no daemon answers
    #[arg(long, value_name = "PATH", num_args = 0..=1, conflicts_with = "follow")]
    log: Option<Option<PathBuf>>,
    /// Show the process tree with what each did, from the log
    #[arg(long, conflicts_with_all = ["timeline", "limit", "follow"])]
    tree: bool,
    /// Show counts over time and the moments that matter, from the log
    #[arg(long, conflicts_with_all = ["limit", "follow"])]
    timeline: bool,
    /// Go on with what happens from now; with --since, first what happened
    #[arg(short = 'f', long)]
    follow: bool,
    /// The newest so many; with --follow, end after so many
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u32>,
    /// Exit with this code when anything matched
    #[arg(long, value_name = "N", default_value_t = 0)]
    exit_code: u8,
    /// Verifier key of the log or bundle, or a file of it [default: beside the log, in the bundle]
    #[arg(long, value_name = "KEY|FILE")]
    key: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &EventsArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    if args.follow && args.output.format == Format::Json {
        return Err(Failure::usage("a stream is not one JSON document", "use -o jsonl with --follow").into());
    }
    let spec = args.filter.spec();
    // Mistakes are found without a daemon too.
    let filter = spec.compile(clock::now())?;
    if args.log.is_some() || args.tree || args.timeline {
        let named = args.log.as_ref().and_then(Option::as_deref);
        let from = named.map_or_else(|| place::log_or_own(None, shared), |path| Ok(path.to_owned()))?;
        return recorded(args, &from, &filter, shared);
    }
    // What the log says of itself is in the log; the daemon's memory has the acts.
    if !args.follow
        && of_the_log(&spec)
        && let Ok(Some(from)) = own_log(shared)
    {
        return recorded(args, &from, &filter, shared);
    }
    let client = shared.client()?;
    let matched = match block_on(read(args, &client, &path(args, &spec)))? {
        Err(error) if !args.follow && is_unreachable(&error) => {
            let Some(from) = own_log(shared)? else { return Err(error) };
            note(&format!("note: no daemon answers; from the log {}", from.display()));
            return recorded(args, &from, &filter, shared);
        }
        matched => matched?,
    };
    if matched == 0 && !args.follow {
        block_on(args.filter.known_to_daemon(&client))??;
    }
    Ok(if matched > 0 { ExitCode::from(args.exit_code) } else { ExitCode::SUCCESS })
}

/// Only events of the log about itself are asked for.
fn of_the_log(spec: &FilterSpec) -> bool {
    let of_the_log = |kind: &String| kind == "log" || kind.starts_with("log.");
    !spec.kind.is_empty() && spec.kind.iter().all(of_the_log)
}

/// This host's log, where there is one.
fn own_log(shared: &Shared) -> anyhow::Result<Option<PathBuf>> {
    match place::log_or_own(None, shared) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.downcast_ref::<LogError>().is_some() => Err(error),
        Err(_none) => Ok(None),
    }
}

fn recorded(args: &EventsArgs, from: &Path, filter: &Filter, shared: &Shared) -> anyhow::Result<ExitCode> {
    let view = match (args.tree, args.timeline) {
        (true, _) => View::Tree,
        (_, true) => View::Timeline,
        _ => View::Rows,
    };
    let format = args.output.format;
    let source = Source::open(from, &args.key)?;
    let (matched, outcome) = if view == View::Rows {
        let mut out = Out::new();
        let mut sheet = Sheet { format, matched: 0, written: 0 };
        sheet.begin(&mut out)?;
        let outcome = recorded::rows(&source, filter, args.limit, |line| sheet.row(&mut out, line))?;
        sheet.end(&mut out)?;
        out.flush()?;
        (sheet.matched, outcome)
    } else {
        recorded::view(&source, filter, view, format)?
    };
    let code = if matched > 0 { ExitCode::from(args.exit_code) } else { ExitCode::SUCCESS };
    if !source.claims_proof() {
        note(&escape(&outcome.text()));
        args.filter.known_to(&source, shared)?;
        return Ok(code);
    }
    let code = exit::checked(&outcome, code);
    if outcome.verified {
        args.filter.known_to(&source, shared)?;
    }
    Ok(code)
}

fn path(args: &EventsArgs, spec: &FilterSpec) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(spec.pairs());
    if args.follow {
        query.append_pair("follow", "true");
    }
    if let Some(limit) = args.limit {
        query.append_pair("limit", &limit.to_string());
    }
    format!("/v1/events?{}", query.finish())
}

/// Writes what comes; returns how many events matched.
async fn read(args: &EventsArgs, client: &Client, path: &str) -> anyhow::Result<u64> {
    let mut lines = client.lines(path).await?;
    let mut out = Out::new();
    let mut sheet = Sheet { format: args.output.format, matched: 0, written: 0 };
    sheet.begin(&mut out)?;
    if args.follow {
        out.flush()?;
    }
    let result = copy(args.follow, &mut lines, &mut out, &mut sheet).await;
    sheet.end(&mut out)?;
    out.flush()?;
    result?;
    if args.follow && args.limit.is_none() {
        note("the daemon ended the stream");
    }
    Ok(sheet.matched)
}

async fn copy(follow: bool, lines: &mut Lines, out: &mut Out, sheet: &mut Sheet) -> anyhow::Result<()> {
    while let Some(line) = lines.next().await? {
        sheet.row(out, &line)?;
        if follow {
            out.flush()?;
        }
    }
    Ok(())
}

/// The form of the output while it grows.
struct Sheet {
    format: Format,
    matched: u64,
    written: u64,
}

impl Sheet {
    fn begin(&self, out: &mut Out) -> anyhow::Result<()> {
        match self.format {
            Format::Table => out.line(&event_line::heading())?,
            Format::Json => out.text("[")?,
            Format::Jsonl => {}
        }
        Ok(())
    }

    fn row(&mut self, out: &mut Out, line: &str) -> anyhow::Result<()> {
        let event = serde_json::from_str::<Event>(line).ok();
        let kind = event.as_ref().map(|event| event.kind);
        let about_reader = matches!(kind, Some(Kind::GapHistory | Kind::GapSubscriber));
        self.matched += u64::from(!about_reader);
        if let (true, Some(gap)) = (about_reader, event.as_ref().and_then(|event| event.gap.as_ref())) {
            note(&match kind {
                Some(Kind::GapHistory) => {
                    format!(
                        "note: {} older events are no longer held in memory (up to {}); --log has them",
                        gap.count, gap.last
                    )
                }
                _ => format!("note: this reader was too slow and missed {} events", gap.count),
            });
        }
        match (self.format, event) {
            (Format::Table, _) if kind == Some(Kind::GapHistory) => return Ok(()),
            (Format::Table, Some(event)) => out.line(&event_line::render(&event, out.colour()))?,
            // From a newer daemon.
            (Format::Table, None) => out.line(&escape(line))?,
            (Format::Jsonl, _) => out.line(line)?,
            (Format::Json, _) => {
                out.text(if self.written == 0 { "\n" } else { ",\n" })?;
                out.text(line)?;
            }
        }
        self.written += 1;
        Ok(())
    }

    fn end(&self, out: &mut Out) -> anyhow::Result<()> {
        if self.format == Format::Json {
            out.line(if self.written == 0 { "]" } else { "\n]" })?;
        }
        Ok(())
    }
}
