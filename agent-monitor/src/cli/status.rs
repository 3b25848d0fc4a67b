//! `status`: what the daemon says of itself.

use std::process::ExitCode;

use agent_monitor::control::api::{ShadowStatus, Status};
use agent_monitor::log::recorder::LogStatus;
use clap::Args;

use super::output::{Format, Out, OutputArgs, bytes};
use super::{Shared, block_on, exit, summary};

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &StatusArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let client = shared.client()?;
    let status: Status = block_on(client.get("/v1/status"))??;
    let mut out = Out::new();
    match args.output.format {
        Format::Table => table(&mut out, &status)?,
        format => out.json(&status, format)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn shadow_line(shadow: &ShadowStatus) -> String {
    match shadow.policy.as_str() {
        "hold" | "deny" | "kill" => {
            let limits: String = shadow.limits.iter().map(|limit| format!("; {limit}")).collect();
            format!(
                "{}, {} known programs before their first instruction{limits}",
                shadow.policy, shadow.programs
            )
        }
        policy => policy.to_owned(),
    }
}

fn log_line(log: &LogStatus) -> String {
    let sealed = log.sealed_at.map_or_else(|| "not sealed yet".to_owned(), |time| format!("sealed {time}"));
    format!(
        "{}, {} records, {sealed}, copies to {}, {} lost",
        log.state,
        log.records,
        log.copies.as_str(),
        log.lost
    )
}

fn table(out: &mut Out, status: &Status) -> anyhow::Result<()> {
    let Status { daemon, record, totals, .. } = status;
    out.pairs([
        ("daemon", format!("{}, pid {}, since {}", daemon.version, daemon.pid, daemon.started)),
        ("kernel", format!("{}, level {}", daemon.kernel, daemon.level.as_str())),
        ("registry", daemon.registry.clone()),
        (
            "agents",
            format!(
                "{} registered, {} refused, {} stale",
                daemon.agents,
                daemon.refused.len(),
                daemon.stale.len()
            ),
        ),
        ("bound", format!("{} processes", daemon.bound_processes)),
        ("shadow agents", shadow_line(&daemon.shadow)),
        ("unattributed", daemon.unattributed.clone()),
        (
            "record",
            format!(
                "{} events held ({}), newest seq {}, {} made room",
                record.events,
                bytes(record.bytes),
                record.newest_seq,
                record.evicted
            ),
        ),
        ("readers", record.subscribers.to_string()),
    ])?;
    out.pairs(daemon.log.iter().map(|log| ("log", log_line(log))))?;
    out.pairs(daemon.log.iter().flat_map(LogStatus::findings).map(|line| ("log", line)))?;
    out.pairs(daemon.degraded.iter().map(|lost| ("degraded", lost.clone())))?;
    out.pairs(daemon.refused.iter().map(|bad| ("refused", format!("{}: {}", bad.file, bad.reason))))?;
    out.pairs(
        daemon
            .stale
            .iter()
            .map(|old| ("stale", format!("{} since {}: {}; {}", old.agent, old.since, old.reason, old.cure))),
    )?;
    out.pairs(daemon.records_lost.iter().map(|lost| ("lost", lost.clone())))?;
    out.line("")?;
    out.text(&summary::render(totals))?;
    if !daemon.refused.is_empty() {
        exit::note("hint: agent-monitor agent check shows what is wrong with the refused records");
    }
    Ok(())
}
