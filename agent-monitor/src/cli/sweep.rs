//! `sweep`: every agent on this host, and whether the registry knows it. Works without a daemon.

use std::collections::BTreeSet;
use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agent_monitor::people::store::retired_ids;
use agent_monitor::registry::diagnostic::Diagnostic;
use agent_monitor::registry::report;
use agent_monitor::run::people::STATE_FILE;
use agent_monitor::sweep::pack::{DIRECTORY, Pack};
use agent_monitor::sweep::propose::{self, Answer};
use agent_monitor::sweep::registered::Register;
use agent_monitor::sweep::report::{Find, Report};
use agent_monitor::sweep::{Options, baseline, signatures, sweep};
use anyhow::Context as _;
use clap::Args;

use super::agent::at_rest;
use super::exit::{FAILURE, Failure, note};
use super::output::{Format, Out, OutputArgs};
use super::{Shared, sweep_text};

#[derive(Debug, Args)]
#[command(after_help = "Nothing that is found is run, and nothing is written but what --propose and \
                        --update-baseline ask for. Secrets are named, never shown.")]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    pub(super) what: WhatArgs,
    /// Say what is new, seen, changed or gone since the sweep in this file (`-o json`)
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write this sweep to the baseline's file when it is done; it need not exist before
    #[arg(long, requires = "baseline")]
    update_baseline: bool,
    /// Write a record to fill in for each shadow agent into this directory
    #[arg(long, value_name = "DIR")]
    propose: Option<PathBuf>,
    /// End with this code when there are shadow agents
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8))]
    exit_code: Option<u8>,
    /// Check a file of signatures and sweep nothing
    #[arg(long, num_args = 2, value_names = ["check", "FILE"])]
    pack: Option<Vec<String>>,
    /// Show findings of low confidence and components that are no agents too (tables only; JSON has them all)
    #[arg(long)]
    all: bool,
    /// Show the evidence of each find
    #[arg(long)]
    evidence: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is swept; `agent adopt` has the same.
#[derive(Debug, Args)]
pub(crate) struct WhatArgs {
    /// Look into this directory (a mounted image, a container's file system) instead of this host
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// Count how often shell histories name agents
    #[arg(long)]
    history: bool,
    /// Look into network and FUSE file systems too
    #[arg(long)]
    remote: bool,
    /// Ask the resolver for the addresses of model providers, to recognise connections to them
    #[arg(long)]
    resolve: bool,
    /// Seconds that one part (a home, a container) may take
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    patience: u64,
    /// Directory of signatures over the embedded ones
    #[arg(long, value_name = "DIR", default_value = DIRECTORY, env = "AGENT_MONITOR_SIGNATURES")]
    pub(super) signatures: PathBuf,
}

pub(crate) fn run(args: &SweepArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    if let Some(pack) = &args.pack {
        return check_pack(pack, args.output.format);
    }
    let before =
        args.baseline.as_deref().map(|path| read_baseline(path, args.update_baseline)).transpose()?;
    let (mut found, pack) = look(&args.what, shared)?;
    if let Some(before) = &before {
        baseline::compare(&mut found, before);
    }
    if let Some(directory) = &args.propose {
        write_proposals(directory, &found, &pack)?;
    }
    if let Some(path) = args.baseline.as_deref().filter(|_| args.update_baseline) {
        write_whole(path, &serde_json::to_string_pretty(&found)?)?;
    }
    let mut out = Out::new();
    match args.output.format {
        Format::Table => sweep_text::write(&mut out, &found, args.all, args.evidence)?,
        Format::Json => out.json(&found, Format::Json)?,
        Format::Jsonl => found.lines().try_for_each(|line| out.json(&line, Format::Jsonl))?,
    }
    out.flush()?;
    if args.output.format != Format::Table {
        // What was not looked at must not get lost in a pipe.
        sweep_text::gaps(&found).iter().for_each(|line| note(line));
    }
    Ok(match args.exit_code {
        Some(code) if found.shadows() > 0 => ExitCode::from(code),
        _ => ExitCode::SUCCESS,
    })
}

/// Sweeps, with progress on a terminal.
pub(super) fn look(what: &WhatArgs, shared: &Shared) -> anyhow::Result<(Report, Arc<Pack>)> {
    let (pack, problems) = signatures::load(&what.signatures);
    if !problems.is_empty() {
        note(report::diagnostics_text(&problems).trim_end());
        note("note: files of signatures with errors are left out");
    }
    let register = Arc::new(match at_rest(shared) {
        Ok(loaded) => Register::new(&loaded).with_retired(retired(shared)?),
        // Every user may sweep what they can read; what they cannot is reported.
        Err(error) if !rustix::process::geteuid().is_root() => Register::unreadable(format!("{error:#}")),
        Err(error) => return Err(error),
    });
    let options = Options {
        root: what.root.clone(),
        history: what.history,
        remote: what.remote,
        resolve: what.resolve,
        patience: Duration::from_secs(what.patience),
    };
    let pack = Arc::new(pack);
    let mut stderr = std::io::stderr();
    let terminal = stderr.is_terminal();
    let mut progress = |name: &str, done: usize, total: usize| {
        if terminal {
            let name: String = agent_monitor::registry::diagnostic::escape(name).chars().take(60).collect();
            // Progress is for looking at; a terminal that is gone is no failure.
            write!(stderr, "\r\u{1b}[K{done}/{total} {name}").ok();
        }
    };
    let report = sweep(&pack, &register, &options, &mut progress);
    if terminal {
        write!(stderr, "\r\u{1b}[K").ok();
    }
    Ok((report?, pack))
}

/// Ids of retired agents. Who may not read the daemon's state takes records as they are; a note says so.
fn retired(shared: &Shared) -> anyhow::Result<BTreeSet<String>> {
    match retired_ids(&shared.state_dir()?.join(STATE_FILE)) {
        Ok(ids) => Ok(ids),
        Err(error) => {
            note(&format!("note: which agents are retired is not known: {error}"));
            Ok(BTreeSet::new())
        }
    }
}

fn check_pack(words: &[String], format: Format) -> anyhow::Result<ExitCode> {
    let [action, file] = words else { anyhow::bail!("--pack takes an action and a file") };
    if action != "check" {
        let message = format!("--pack {action}: the only action is check");
        return Err(Failure::usage(message, "agent-monitor sweep --pack check FILE").into());
    }
    let (pack, problems) = signatures::check(Path::new(file));
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let mut out = Out::new();
    match format {
        Format::Table => {
            out.text(&report::diagnostics_text(&problems))?;
            let products = pack.as_ref().map_or(0, |pack| pack.products.len());
            out.line(&format!("{products} products, {errors} errors"))?;
        }
        Format::Json => out.json(&problems, Format::Json)?,
        Format::Jsonl => problems.iter().try_for_each(|problem| out.json(problem, Format::Jsonl))?,
    }
    out.flush()?;
    let bad = problems.iter().any(Diagnostic::is_error);
    Ok(if bad { ExitCode::from(FAILURE) } else { ExitCode::SUCCESS })
}

fn read_baseline(path: &Path, may_be_missing: bool) -> anyhow::Result<Vec<Find>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if may_be_missing && error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let hint = "make one with `agent-monitor sweep -o json > FILE`, or add --update-baseline";
            let message = format!("cannot read the baseline {}: {error}", path.display());
            return Err(Failure { code: FAILURE, message, hint: Some(hint.to_owned()) }.into());
        }
    };
    let report: Report = serde_json::from_str(&text)
        .with_context(|| format!("{} is no report of `agent-monitor sweep -o json`", path.display()))?;
    Ok(report.finds)
}

fn write_proposals(directory: &Path, found: &Report, pack: &Pack) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut count = 0;
    for find in found.finds.iter().filter(|find| find.is_shadow()) {
        let Some(fix) = &find.fix else { continue };
        let path = directory.join(&fix.record);
        if path.symlink_metadata().is_ok() {
            note(&format!("note: {} is there already and stays as it is", path.display()));
            continue;
        }
        let home = home_of(find);
        write_whole(&path, &propose::record(find, pack, &Answer::default(), home.as_deref()))?;
        count += 1;
    }
    note(&format!(
        "{count} records to fill in are in {}; owner, purpose and end are yours",
        directory.display()
    ));
    Ok(())
}

/// The home of a find's owner on this host.
pub(super) fn home_of(find: &Find) -> Option<String> {
    match find.owner.user.as_deref() {
        Some("root") => Some("/root".to_owned()),
        Some(user) => Some(format!("/home/{user}")),
        None => None,
    }
}

/// Beside and then over: nobody reads half of it, and a link there is not followed.
fn write_whole(path: &Path, text: &str) -> anyhow::Result<()> {
    let name = path.file_name().context("the path names no file")?.to_string_lossy().into_owned();
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = fs::File::create_new(&beside).and_then(|mut file| file.write_all(text.as_bytes()));
    let moved = written.and_then(|()| fs::rename(&beside, path));
    if moved.is_err() {
        fs::remove_file(&beside).ok();
    }
    moved.with_context(|| format!("cannot write {}", path.display()))
}
