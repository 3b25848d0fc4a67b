//! A sweep for people: a table of finds, their evidence when asked for, and what was not looked at.

use std::io;

use agent_monitor::registry::diagnostic::escape;
use agent_monitor::sweep::report::{Find, Level, Looked, RegistryState, Report};

use super::output::Out;

/// Most lines about what was not looked at.
const GAPS_MAX: usize = 12;

/// The whole report.
pub(super) fn write(out: &mut Out, report: &Report, all: bool, evidence: bool) -> io::Result<()> {
    let worth = |find: &&Find| {
        all || find.registry.state != RegistryState::Component && find.identity.level > Level::Low
    };
    let shown: Vec<&Find> = report.finds.iter().chain(&report.gone).filter(worth).collect();
    let hidden = report.finds.len() + report.gone.len() - shown.len();
    let compared = report.finds.iter().any(|find| find.change.is_some()) || !report.gone.is_empty();
    if shown.is_empty() {
        out.line("no agents found")?;
    } else {
        let mut head = vec!["FIND", "REGISTRY", "WHAT", "KIND", "STATE", "SURE", "OWNER", "RISKS"];
        if compared {
            head.insert(0, "SINCE");
        }
        out.table(&head, shown.iter().map(|find| row(find, compared)))?;
    }
    if evidence {
        shown.iter().try_for_each(|find| details(out, find))?;
    }
    out.line("")?;
    let registered =
        report.finds.iter().filter(|find| find.registry.state == RegistryState::Registered).count();
    let traces = report.finds.iter().filter(|find| find.is_unregistered() && !find.is_shadow()).count();
    let left = if traces > 0 { format!(", {traces} left traces only") } else { String::new() };
    out.line(&format!(
        "{}{left}, {registered} registered, {} on {} in {:.1} s{}",
        counted(report.shadows(), "shadow agent"),
        counted(report.finds.len(), "finding"),
        escape(&report.host.name),
        std::time::Duration::from_millis(report.sweep.millis).as_secs_f64(),
        if hidden > 0 {
            format!("; {hidden} uncertain findings and components only with --all")
        } else {
            String::new()
        },
    ))?;
    gaps(report).iter().try_for_each(|line| out.line(line))?;
    if report.shadows() > 0 && !evidence {
        out.line("hint: --evidence says why; agent-monitor agent adopt FIND registers one, --propose DIR writes a record for each")?;
    }
    Ok(())
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn row(find: &Find, compared: bool) -> Vec<String> {
    let version = find.product.version.as_deref().map_or_else(String::new, |version| format!(" {version}"));
    let variant = match find.product.variant.as_deref() {
        Some(variant) if !find.product.name.ends_with(variant) && !variant.starts_with('/') => {
            format!(" ({variant})")
        }
        _ => String::new(),
    };
    let owner = match (&find.owner.user, find.owner.uid, &find.owner.container) {
        (_, _, Some(container)) => format!("container {}", container.get(..12).unwrap_or(container)),
        (Some(user), ..) => user.clone(),
        (None, Some(uid), _) => uid.to_string(),
        (None, None, _) => "system".to_owned(),
    };
    let registry = match &find.registry.agent {
        Some(agent) => format!("{} ({agent})", find.registry.state.as_str()),
        None => find.registry.state.as_str().to_owned(),
    };
    let mut risks: Vec<&str> = find.risks.iter().map(|risk| risk.mark.as_str()).collect();
    risks.dedup();
    let mut cells = vec![
        find.id.clone(),
        registry,
        format!("{}{variant}{version}", find.product.name),
        find.product.kind.as_str().to_owned(),
        find.state.as_str().to_owned(),
        format!("{} {}", find.identity.level.as_str(), find.identity.score),
        owner,
        risks.join(" "),
    ];
    if compared {
        cells.insert(0, find.change.map_or("-", |change| change.as_str()).to_owned());
    }
    cells
}

fn details(out: &mut Out, find: &Find) -> io::Result<()> {
    out.line("")?;
    out.line(&escape(&format!("{} {}", find.id, find.product.name)))?;
    for line in &find.evidence {
        let when = line.when.map_or_else(String::new, |when| format!(" ({:.0})", when.timestamp()));
        let strength = format!("{:?}", line.strength).to_lowercase();
        out.line(&escape(&format!("  {strength:<7}{:<12}{}: {}{when}", line.source, line.at, line.what)))?;
    }
    for process in &find.processes {
        let started: Vec<String> =
            find.owner.started_by.iter().filter_map(|parent| parent.exe.clone()).collect();
        let from = if started.is_empty() { String::new() } else { format!(" < {}", started.join(" < ")) };
        out.line(&escape(&format!("  pid {} {}{from}", process.pid, process.args.join(" "))))?;
    }
    for server in &find.mcp_servers {
        let reach = server.reach.as_deref().map_or_else(String::new, |reach| format!(" → {reach}"));
        let writes = if server.writes == Some(true) { ", writes" } else { "" };
        out.line(&escape(&format!(
            "  mcp {}: {} {}{reach}{writes}",
            server.name, server.transport, server.command
        )))?;
    }
    for risk in &find.risks {
        out.line(&escape(&format!("  risk {}: {}", risk.mark, risk.detail)))?;
    }
    match &find.fix {
        Some(fix) => out.line(&escape(&format!("  fix: {}", fix.advice))),
        None => Ok(()),
    }
}

/// What was not looked at, or not wholly.
pub(super) fn gaps(report: &Report) -> Vec<String> {
    let lacking: Vec<_> =
        report.coverage.iter().filter(|coverage| coverage.looked != Looked::Whole).collect();
    let mut lines: Vec<String> = lacking
        .iter()
        .take(GAPS_MAX)
        .map(|coverage| {
            let detail = coverage.detail.as_deref().unwrap_or("no more is known");
            escape(&format!(
                "note: {}: {}: {detail}",
                coverage.source,
                coverage.looked.as_str().replace('_', " ")
            ))
        })
        .collect();
    if lacking.len() > GAPS_MAX {
        lines.push(format!("note: {} more are in the coverage of -o json", lacking.len() - GAPS_MAX));
    }
    if report.sweep.uid != 0 && report.sweep.root.is_none() {
        lines.push(
            "note: not swept as root: other users' homes, programs and sockets were not all visible"
                .to_owned(),
        );
    }
    lines
}
