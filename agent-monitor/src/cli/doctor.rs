//! `doctor`: what this host can do, asked of the running daemon, or found out here when none runs.

use std::path::Path;
use std::process::ExitCode;

use agent_monitor::control::client::ClientError;
use agent_monitor::health::doctor::{Ability, AbilityState, LOG, LOG_SET_ASIDE, PINS, Report};
use agent_monitor::health::promises::{self, Holds, Promise};
use agent_monitor::kernel::bpffs;
use agent_monitor::log::condition;
use agent_monitor::run::live::Live;
use clap::Args;
use serde::Serialize;

use super::exit::{FAILURE, NOT_VERIFIED, note};
use super::output::{Format, Out, OutputArgs};
use super::{Shared, block_on};

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &DoctorArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let client = shared.client()?;
    let answer: Result<Report, ClientError> = block_on(client.get("/v1/doctor"))?;
    let report = match answer {
        Err(ClientError::Unreachable { .. }) if rustix::process::geteuid().is_root() => probe(shared)?,
        other => other?,
    };
    let mut out = Out::new();
    write(&mut out, &report, args.output.format)?;
    let bad = |names: &[&str]| report.checks.iter().any(|check| !check.ok && names.contains(&&*check.name));
    // What is missing now before what was damaged once.
    Ok(if bad(&[PINS, LOG]) {
        ExitCode::from(FAILURE)
    } else if bad(&[LOG_SET_ASIDE]) {
        ExitCode::from(NOT_VERIFIED)
    } else {
        ExitCode::SUCCESS
    })
}

/// Loads the programs beside whatever runs, lets the canaries go, and takes everything out again.
fn probe(shared: &Shared) -> anyhow::Result<Report> {
    note("no daemon runs; the programs are loaded for a moment to see what works");
    let mut config = shared.settings()?;
    config.bpffs =
        Path::new(bpffs::DEFAULT_MOUNT).join(format!("agent-monitor-doctor-{}", std::process::id()));
    let live = Live::load(&config)?;
    let mut report = live.report().clone();
    live.unload()?;
    report.checks.extend(condition::aside_checks(&condition::set_aside(&config.state_dir)));
    Ok(report)
}

/// Level, kernel and the table of families.
fn head(out: &mut Out, report: &Report) -> anyhow::Result<()> {
    out.pairs([
        ("level", report.level.as_str().to_owned()),
        ("kernel", format!("{} {}", report.kernel, report.machine)),
    ])?;
    out.line("")?;
    let families = report.families.iter().map(|row| {
        let cells = [&row.see, &row.stop, &row.hold, &row.name, &row.budget].map(cell);
        std::iter::once(row.family.clone()).chain(cells).collect()
    });
    out.table(&["FAMILY", "SEE", "STOP", "HOLD", "NAME", "BUDGET"], families)?;
    let believed = |a: &Ability| a.state != AbilityState::No && !a.confirmed;
    if report.families.iter().any(|row| [&row.see, &row.name].into_iter().any(believed)) {
        out.line("(* believed, not confirmed by a canary)")?;
    }
    Ok(())
}

/// The report as JSON: what was found, and what follows from it.
#[derive(Serialize)]
struct WithPromises<'a> {
    #[serde(flatten)]
    report: &'a Report,
    promises: Vec<Promise>,
}

/// The report in the form that was asked for.
pub(crate) fn write(out: &mut Out, report: &Report, format: Format) -> anyhow::Result<()> {
    let promises = promises::of(report);
    if format != Format::Table {
        out.json(&WithPromises { report, promises }, format)?;
        return Ok(out.flush()?);
    }
    head(out, report)?;
    let lacking = report.families.iter().flat_map(|row| {
        let abilities = [
            ("see", &row.see),
            ("stop", &row.stop),
            ("hold", &row.hold),
            ("name", &row.name),
            ("budget", &row.budget),
        ];
        let lacking = abilities.into_iter().filter(|(_, ability)| ability.state != AbilityState::Yes);
        lacking.map(|(what, ability)| {
            let fix = ability.fix.clone().unwrap_or_default();
            vec![format!("{}.{what}", row.family), ability.reason.clone(), fix]
        })
    });
    let lacking: Vec<_> = lacking.collect();
    if !lacking.is_empty() {
        out.line("")?;
        out.table(&["LACKING", "WHY", "FIX"], lacking)?;
    }
    out.line("")?;
    let promises = promises.into_iter().map(|promise| {
        let believed = promise.holds != Holds::No && !promise.confirmed;
        let holds = format!("{}{}", promise.holds.as_str(), if believed { "*" } else { "" });
        vec![holds, promise.promise.to_owned(), promise.reason]
    });
    out.table(&["HOLDS", "PROMISE (SECURITY.md)", "WHY NOT"], promises)?;
    out.line("")?;
    let checks = report.checks.iter().map(|check| {
        let fix = check.fix.clone().unwrap_or_default();
        vec![check.name.clone(), if check.ok { "ok" } else { "NO" }.to_owned(), check.found.clone(), fix]
    });
    out.table(&["CHECK", "", "FOUND", "FIX"], checks)?;
    Ok(out.flush()?)
}

pub(super) fn cell(ability: &Ability) -> String {
    let word = match ability.state {
        AbilityState::Yes => "yes",
        AbilityState::Partial => "partial",
        AbilityState::No => return "no".to_owned(),
    };
    format!("{word}{}", if ability.confirmed { "" } else { "*" })
}
