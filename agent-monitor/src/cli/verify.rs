//! `verify`: whether a log or a bundle is what was written, offline.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use agent_monitor::clock;
use agent_monitor::export::bundle;
use agent_monitor::log::verify::{self, Options, Report};
use agent_monitor::log::{copies, verify::Damage};
use anyhow::Context as _;
use clap::Args;

use super::exit::FAILURE;
use super::output::{Format, Out, OutputArgs, or_dash};
use super::source::is_bundle;
use super::{Shared, place};

/// Longest file of copies that is read.
const COPIES_MAX: u64 = 1 << 30;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0 only when everything holds. Damage: changed, removed, inserted, reordered, \
                        truncated, other-key, unsealed-tail, clock-back, undeclared-gap, unreadable."
)]
pub(crate) struct VerifyArgs {
    /// A log directory or a bundle [default: the log of this host's daemon]
    path: Option<PathBuf>,
    /// The public key, or a file of it or of its hand-overs, from where you trust it [default: beside the log]
    #[arg(long, value_name = "KEY|FILE")]
    key: Vec<String>,
    /// Copies of checkpoints from elsewhere: a journal's or a syslog's text
    #[arg(long, value_name = "FILE")]
    copies: Vec<PathBuf>,
    /// Compare with the copies in this host's journal
    #[arg(long)]
    journal: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &VerifyArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.path
        && is_bundle(path)?
    {
        return of_bundle(args, path);
    }
    let dir = place::log_or_own(args.path.as_deref(), shared)?;
    let (keys, given) = place::trusted(&args.key, dir.parent().unwrap_or(Path::new("/")))?;
    let options = Options { keys, copies: copies(args)?, now: Some(clock::now()) };
    let mut report = verify::log(&dir, &options)?;
    if !given {
        let note = "the key was taken from beside the log: whoever could change the log could change it too";
        report.notes.push(note.to_owned());
    }
    write(&report, &dir, args.output.format)?;
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) })
}

fn of_bundle(args: &VerifyArgs, path: &Path) -> anyhow::Result<ExitCode> {
    let keys = if args.key.is_empty() { Vec::new() } else { place::trusted(&args.key, path)?.0 };
    let report = bundle::verify::verify(path, &keys)?;
    let mut out = Out::new();
    if args.output.format == Format::Table {
        let verdict = if report.ok { "holds" } else { "DOES NOT HOLD" };
        out.pairs([
            ("bundle", path.display().to_string()),
            ("verdict", verdict.to_owned()),
            ("origin", or_dash(report.origin.as_ref())),
            ("signed by", or_dash(report.signed_by.as_ref())),
            ("sealed by", or_dash(report.sealed_by.as_ref())),
            (
                "records",
                if report.renamed.is_empty() {
                    format!("{} proven", report.records)
                } else {
                    format!("{}, renamed ({})", report.records, report.renamed.join(", "))
                },
            ),
            ("files", format!("{} as listed", report.files)),
            ("custody", format!("{} entries", report.custody)),
            ("gaps", format!("{} declared", report.gaps)),
        ])?;
        damage(&mut out, &report.damage)?;
        for note in &report.notes {
            out.line(&format!("note: {note}"))?;
        }
    } else {
        out.json(&report, args.output.format)?;
    }
    out.flush()?;
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) })
}

fn damage(out: &mut Out, all: &[Damage]) -> anyhow::Result<()> {
    for Damage { kind, record, checkpoint, file, message } in all {
        out.pairs([
            ("damage", kind.as_str().to_owned()),
            ("record", or_dash(*record)),
            ("checkpoint", or_dash(*checkpoint)),
            ("file", or_dash(file.as_ref())),
            ("what", message.clone()),
        ])?;
    }
    Ok(())
}

fn copies(args: &VerifyArgs) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for path in &args.copies {
        let file = std::fs::File::open(path)
            .with_context(|| format!("cannot read the copies {}", path.display()))?;
        let mut bytes = Vec::new();
        file.take(COPIES_MAX).read_to_end(&mut bytes)?;
        found.extend(copies::find(&String::from_utf8_lossy(&bytes)));
    }
    if args.journal {
        let output = Command::new("journalctl")
            .args(["--quiet", "--output=cat", "--no-pager", "-t", copies::IDENTIFIER])
            .output()
            .context("cannot ask the journal: no journalctl")?;
        found.extend(copies::find(&String::from_utf8_lossy(&output.stdout)));
    }
    Ok(found)
}

fn write(report: &Report, path: &Path, format: Format) -> anyhow::Result<()> {
    let mut out = Out::new();
    if format != Format::Table {
        out.json(report, format)?;
        return Ok(out.flush()?);
    }
    let verdict = if report.ok { "holds" } else { "DOES NOT HOLD" };
    out.pairs([
        ("log", path.display().to_string()),
        ("verdict", verdict.to_owned()),
        ("origin", or_dash(report.origin.as_ref())),
        ("records", format!("{} ({} to {})", report.records, report.first, report.end.saturating_sub(1))),
        ("checkpoints", format!("{}, the last is number {}", report.checkpoints, report.last_checkpoint)),
        ("sealed until", or_dash(report.sealed_until)),
        ("keys", report.keys.join(", ")),
        ("copies", format!("{} agree", report.copies)),
    ])?;
    for (first, end) in &report.removed_by_rule {
        out.line(&format!("removed by rule: the records {first} to {}", end - 1))?;
    }
    damage(&mut out, &report.damage)?;
    for note in &report.notes {
        out.line(&format!("note: {note}"))?;
    }
    Ok(out.flush()?)
}
