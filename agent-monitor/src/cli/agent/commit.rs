//! Puts a record into the registry: tried out first, written when the answer is yes, taken back when it is not in force.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent_monitor::control::api::{CheckReply, CheckRequest, Reloaded};
use agent_monitor::control::client::{Client, ClientError};
use agent_monitor::health::doctor::Level;
use agent_monitor::model::SCHEMA_VERSION;
use agent_monitor::registry::diagnostic::escape;
use agent_monitor::registry::in_force::judge;
use agent_monitor::registry::install::{InstallError, Installed, Outcome, install_text};
use agent_monitor::registry::{Diagnostic, LinuxFacts, parse_record, report};
use agent_monitor::scope::hold::{self, RuleCounts};

use super::now;
use crate::cli::exit::{FAILURE, Failure, note};
use crate::cli::lifecycle;
use crate::cli::output::{Format, Out};
use crate::cli::{Shared, block_on};

/// A record on its way into the registry.
pub(in crate::cli) struct Commit<'a> {
    pub(in crate::cli) text: &'a str,
    /// Its name in messages.
    pub(in crate::cli) name: &'a Path,
    /// Take the place of a different record with this id.
    pub(in crate::cli) replace: bool,
    pub(in crate::cli) format: Format,
}

/// Says what would become of a record: asked of the daemon, or found out by the same code where none runs.
pub(in crate::cli) fn try_out(client: &Client, text: &str, name: &Path) -> anyhow::Result<CheckReply> {
    let request = CheckRequest { text: text.to_owned(), name: name.display().to_string() };
    match block_on(client.post("/v1/agents/check", &request))? {
        Err(ClientError::Unreachable { .. }) => Ok(try_here(text, name)),
        reply => Ok(reply?),
    }
}

/// The same criterion without a daemon. Where the level of this host cannot be seen, enforcement is not judged.
fn try_here(text: &str, name: &Path) -> CheckReply {
    let level = level_here();
    let parsed = parse_record(text, name);
    let mut problems = parsed.diagnostics;
    let record = parsed.record;
    problems.extend(record.iter().flat_map(|record| judge(record, &LinuxFacts, now(), level)));
    let enforced =
        record.iter().flat_map(|record| hold::rules(record, level.unwrap_or(Level::Full), &LinuxFacts));
    let enforced: Vec<_> = enforced.filter(|_| level.is_some()).collect();
    if level.is_none() {
        note(
            "note: no daemon runs and this host's level is not known: what can be enforced here is not checked",
        );
    }
    CheckReply {
        schema_version: SCHEMA_VERSION,
        ok: !problems.iter().any(Diagnostic::is_error),
        level: level.unwrap_or(Level::None),
        agent: record.as_ref().map(|record| record.id.as_str().to_owned()),
        errors: problems.iter().filter(|p| p.is_error()).map(|p| p.message.clone()).collect(),
        problems: report::diagnostics_text(&problems),
        changes: Vec::new(),
        rules: RuleCounts::of(&enforced),
        enforced,
        running: Vec::new(),
        binds: Vec::new(),
    }
}

/// The level that the active security modules allow; `None` where they cannot be seen.
fn level_here() -> Option<Level> {
    let list = std::fs::read_to_string("/sys/kernel/security/lsm").ok()?;
    Some(if list.trim().split(',').any(|name| name == "bpf") { Level::Full } else { Level::Partial })
}

/// What a dry run found, in words.
pub(in crate::cli) fn describe(reply: &CheckReply) -> String {
    let mut lines = Vec::new();
    let rules = reply.rules;
    if rules.total > 0 {
        lines.push(format!("{} at level {}", rules.text(), reply.level.as_str()));
    }
    lines.extend(reply.changes.iter().map(|change| format!("changes: {change}")));
    let pids = |pids: &[u32]| pids.iter().take(10).map(u32::to_string).collect::<Vec<_>>().join(", ");
    for (what, found) in [("run under it at once", &reply.running), ("would be bound", &reply.binds)] {
        if !found.is_empty() {
            let more = if found.len() > 10 { ", …" } else { "" };
            lines.push(format!("{} processes {what}: pid {}{more}", found.len(), pids(found)));
        }
    }
    lines.iter().map(|line| format!("{}\n", escape(line))).collect()
}

/// Writes a record and has the daemon put it in force. Whatever is not in force in the end is not on disk either.
pub(in crate::cli) fn commit(commit: &Commit<'_>, shared: &Shared) -> anyhow::Result<ExitCode> {
    let Commit { text, name, replace, format } = *commit;
    let (registry, client) = (shared.registry()?, shared.client()?);
    if let Some(record) = parse_record(text, name).record {
        lifecycle::refuse_retired(record.id.as_str(), shared)?;
    }
    let reply = try_out(&client, text, name)?;
    if !reply.problems.is_empty() {
        note(reply.problems.trim_end());
    }
    if !reply.ok {
        note("error: the record is refused; nothing was changed");
        return Ok(ExitCode::from(FAILURE));
    }
    let installed = match install_text(text, name, &registry, &LinuxFacts, now(), replace) {
        Ok(installed) => installed,
        Err(error @ (InstallError::Write { .. } | InstallError::Registry(_))) => return Err(error.into()),
        Err(error) => {
            note(report::install_error_text(&error).trim_end());
            return Ok(ExitCode::from(FAILURE));
        }
    };
    let others_bad = match installed.outcome {
        Outcome::Unchanged => false,
        Outcome::Created | Outcome::Replaced => put_in_force(&client, &installed, &registry)?,
    };
    let mut out = Out::new();
    match format {
        Format::Table => {
            out.text(&report::installed_text(&installed))?;
            out.text(&describe(&reply))?;
        }
        format => out.json(&report::installed_json(&installed), format)?,
    }
    out.flush()?;
    Ok(if others_bad { ExitCode::from(FAILURE) } else { ExitCode::SUCCESS })
}

/// Has a running daemon read the registry again. Without a daemon the record counts from its next start. Whether another
/// agent is stale: then not all is well, whatever became of this one.
fn put_in_force(client: &Client, installed: &Installed, registry: &Path) -> anyhow::Result<bool> {
    let answer: Result<Reloaded, ClientError> = block_on(client.post("/v1/agents/reload", &()))?;
    let why = match answer {
        Err(ClientError::Unreachable { .. }) => {
            note("note: no daemon is running; the record counts from its next start");
            return Ok(false);
        }
        Err(error) => anyhow::Error::from(error),
        Ok(reloaded) => match refusal(&reloaded, installed) {
            None => {
                note(&format!("{} agents are registered now", reloaded.agents));
                others(&reloaded);
                return Ok(!reloaded.stale.is_empty());
            }
            Some(reason) => Failure::new(FAILURE, reason).into(),
        },
    };
    let context = match installed.undo(registry) {
        Ok(()) => "the daemon does not put the record in force; nothing was changed".to_owned(),
        Err(error) => format!(
            "the daemon does not put the record in force, and {} could not be put back ({error}); what was in force stays",
            installed.path.display()
        ),
    };
    // So that the daemon's marks are about what is on disk now; its answer is the first one's.
    let _marks: Result<Reloaded, ClientError> = block_on(client.post("/v1/agents/reload", &()))?;
    Err(why.context(context))
}

/// Why the record that was written is not the one in force.
fn refusal(reloaded: &Reloaded, installed: &Installed) -> Option<String> {
    let id = installed.record.id.as_str();
    let path = installed.path.display().to_string();
    let refused = reloaded.refused.iter().find(|refused| refused.file == path);
    let stale = reloaded.stale.iter().find(|stale| stale.agent == id);
    refused
        .map(|r| format!("{}: {}", r.file, r.reason))
        .or(stale.map(|s| format!("{}: {}", s.file, s.reason)))
}

/// What else is not as it is on disk.
fn others(reloaded: &Reloaded) {
    for refused in reloaded.refused.iter().filter(|refused| !refused.ended) {
        note(&format!("warning: refused: {}: {}", escape(&refused.file), escape(&refused.reason)));
    }
    for stale in &reloaded.stale {
        note(&format!(
            "warning: agent {} is stale: its last good record stays in force: {}\nhint: {}",
            stale.agent,
            escape(&stale.reason),
            escape(&stale.cure)
        ));
    }
}

/// The text of a record file that is to be registered.
pub(in crate::cli) fn read(path: &Path) -> anyhow::Result<Result<String, Vec<Diagnostic>>> {
    let mut diagnostics = Vec::new();
    let text = agent_monitor::registry::load::read_record_text(path, &mut diagnostics);
    Ok(text.map_err(|problem| {
        diagnostics.push(*problem);
        diagnostics
    }))
}

/// `agent reload`: what changed, what is refused, what is stale; a failure where anything is.
pub(in crate::cli) fn reload(format: Format, shared: &Shared) -> anyhow::Result<ExitCode> {
    let reloaded: Reloaded = block_on(shared.client()?.post("/v1/agents/reload", &()))??;
    shown(&reloaded, format)
}

/// Shows what a reload gave; a failure where something on disk is not in force.
pub(in crate::cli) fn shown(reloaded: &Reloaded, format: Format) -> anyhow::Result<ExitCode> {
    let mut out = Out::new();
    match format {
        Format::Table => {
            let changes = [
                ("registered", &reloaded.added),
                ("changed", &reloaded.changed),
                ("removed", &reloaded.removed),
            ];
            for (what, ids) in changes.into_iter().filter(|(_, ids)| !ids.is_empty()) {
                out.line(&format!("{what}: {}", ids.join(", ")))?;
            }
            out.line(&format!("{} agents are registered now", reloaded.agents))?;
        }
        format => out.json(reloaded, format)?,
    }
    out.flush()?;
    others(reloaded);
    Ok(if reloaded.is_bad() { ExitCode::from(FAILURE) } else { ExitCode::SUCCESS })
}

/// `agent check --here`: the dry run that `agent register` makes, for each file.
pub(in crate::cli) fn check_here(
    paths: &[PathBuf],
    format: Format,
    shared: &Shared,
) -> anyhow::Result<ExitCode> {
    let client = shared.client()?;
    let mut files = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => files.extend(agent_monitor::registry::load::record_files(path)?),
            false => files.push(path.clone()),
        }
    }
    let (mut out, mut bad) = (Out::new(), false);
    for file in &files {
        let text = match read(file)? {
            Ok(text) => text,
            Err(problems) => {
                out.text(&report::diagnostics_text(&problems))?;
                bad = true;
                continue;
            }
        };
        let reply = try_out(&client, &text, file)?;
        bad |= !reply.ok;
        match format {
            Format::Table => {
                out.text(&reply.problems)?;
                out.text(&describe(&reply))?;
                let verdict = if reply.ok { "would be in force here" } else { "is refused here" };
                out.line(&format!("{}: {verdict}", escape(&file.display().to_string())))?;
            }
            format => out.json(&reply, format)?,
        }
    }
    out.flush()?;
    Ok(if bad { ExitCode::from(FAILURE) } else { ExitCode::SUCCESS })
}
