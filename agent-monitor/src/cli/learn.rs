//! `agent learn`: a scope proposed from what an agent was seen to do.

use std::path::PathBuf;
use std::process::ExitCode;

use agent_monitor::clock;
use agent_monitor::learn::generalise::SIBLINGS;
use agent_monitor::learn::{Learner, Proposal, Request, write};
use agent_monitor::model::Event;
use agent_monitor::record::FilterSpec;
use agent_monitor::registry::diagnostic::escape;
use agent_monitor::registry::{AgentId, Loaded};
use agent_monitor::scope::base;
use clap::{Args, ValueEnum};

use super::exit::{self, FAILURE, Failure, note};
use super::output::{Format, Out};
use super::source::Source;
use super::{Shared, block_on};

/// Reads what was recorded of an agent and proposes the smallest scope that lets it go on so.
#[derive(Debug, Args)]
#[command(
    after_help = "What the declared scope stops stays stopped. The header says what is known to be missing."
)]
pub(crate) struct LearnArgs {
    /// The agent
    id: String,
    /// Not before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Read a log, a bundle, or lines as `events -o jsonl` wrote them, in place of asking the daemon
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
    /// With --from: verifier key of the log or bundle, or a file of it [default: beside the log, in the bundle]
    #[arg(long, value_name = "KEY|FILE", requires = "from")]
    key: Vec<String>,
    /// Entries of one directory, used alike, that become /dir/**
    #[arg(long, value_name = "N", default_value_t = SIBLINGS, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..))]
    siblings: usize,
    /// Fail where the record is known to have gaps
    #[arg(long)]
    require_complete: bool,
    /// Form of the output
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    format: LearnFormat,
}

/// Form of a proposal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum LearnFormat {
    /// The `[scope]` part of a record.
    #[default]
    Toml,
    /// One JSON document.
    Json,
}

pub(crate) fn run(args: &LearnArgs, shared: &Shared, registered: &Loaded) -> anyhow::Result<ExitCode> {
    let id: AgentId = args
        .id
        .parse()
        .map_err(|error| Failure::usage(format!("`{}`: {error}", args.id), "agent-monitor agent list"))?;
    let filter = FilterSpec { since: args.since.clone(), ..FilterSpec::default() };
    let since = filter.compile(clock::now())?.since();
    let bases = base::sets();
    let mut learner = Learner::new(Request {
        agent: id.as_str(),
        since,
        declared: registered.get(id.as_str()).map(|record| &record.scope),
        bases: &bases,
        siblings: args.siblings,
    });
    let mut checked = None;
    match &args.from {
        Some(path) => {
            let source = Source::open(path, &args.key)?;
            let outcome = source.events(|event| {
                learner.take(event);
                Ok(())
            })?;
            checked = Some((outcome, source.claims_proof()));
        }
        None => block_on(ask(args, shared, &mut learner))??,
    }
    let proposal = learner.finish();
    if proposal.completeness.seen == 0 {
        return Err(nothing(args, &id).into());
    }
    let code = print(args, &proposal)?;
    Ok(match checked {
        Some((outcome, true)) => exit::checked(&outcome, code),
        Some((outcome, false)) => {
            note(&escape(&outcome.text()));
            code
        }
        None => code,
    })
}

fn nothing(args: &LearnArgs, id: &AgentId) -> Failure {
    let place = match &args.from {
        Some(path) => path.display().to_string(),
        None => "the daemon's record".to_owned(),
    };
    let since = args.since.as_ref().map_or_else(String::new, |since| format!(" since {since}"));
    Failure {
        code: FAILURE,
        message: format!("nothing to learn from: {place} has no event of {id}{since}"),
        hint: Some(format!(
            "let the agent work in mode observe, and look with `agent-monitor events --agent {id}`"
        )),
    }
}

/// All events, of every agent: gaps that could be anybody's count too.
async fn ask(args: &LearnArgs, shared: &Shared, learner: &mut Learner<'_>) -> anyhow::Result<()> {
    let spec = FilterSpec { since: args.since.clone(), ..FilterSpec::default() };
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(spec.pairs());
    let mut lines = shared.client()?.lines(&format!("/v1/events?{}", query.finish())).await?;
    let mut unread = 0_u64;
    while let Some(line) = lines.next().await? {
        match serde_json::from_str::<Event>(&line) {
            Ok(event) => learner.take(&event),
            Err(_) => unread += 1,
        }
    }
    if unread > 0 {
        let message =
            format!("{unread} events of the daemon could not be read: it is newer than this program");
        return Err(Failure::new(FAILURE, message).into());
    }
    Ok(())
}

fn print(args: &LearnArgs, proposal: &Proposal) -> anyhow::Result<ExitCode> {
    let mut out = Out::new();
    match args.format {
        LearnFormat::Toml => out.text(&write::toml(proposal))?,
        LearnFormat::Json => out.json(&write::json(proposal), Format::Json)?,
    }
    out.flush()?;
    let known = &proposal.completeness;
    if proposal.too_many() {
        let message = "more rules than a record may hold; name subtrees by hand, or lower --siblings";
        return Err(Failure::new(FAILURE, message).into());
    }
    if known.complete {
        return Ok(ExitCode::SUCCESS);
    }
    note(&format!("complete: no — {}", known.reasons.join("; ")));
    Ok(if args.require_complete { ExitCode::from(FAILURE) } else { ExitCode::SUCCESS })
}
