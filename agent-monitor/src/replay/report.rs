//! The outcome of a replay.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::model::{Event, Kind, SCHEMA_VERSION, Time};
use crate::scope::Scope;

/// How an act would have ended otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It went ahead and would be stopped.
    Denied,
    /// It was stopped (or marked so) and would go ahead.
    Allowed,
}

/// Acts that are told as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct What {
    /// What changes.
    pub change: Change,
    /// The rule that would decide.
    pub rule: String,
    /// Its verdict.
    pub verdict: &'static str,
    /// The verdict that was recorded.
    pub was: &'static str,
    /// The rule that was recorded.
    pub was_rule: Option<String>,
    /// What was done.
    pub kind: Kind,
    /// To what.
    pub object: String,
}

/// How often and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Events.
    pub count: u64,
    /// The first of them.
    pub first: Time,
    /// The last of them.
    pub last: Time,
}

/// What another scope would have done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The agent.
    pub agent: String,
    /// Its events that had a verdict.
    pub events: u64,
    /// Of these: the same as before.
    pub unchanged: u64,
    /// Of these: acts that no scope decides about, such as the end of a process.
    pub free: u64,
    /// Of these: not judged, by why.
    pub not_judged: BTreeMap<String, u64>,
    /// Gap records in the log: what they stand for was not judged either.
    pub gaps: u64,
    /// What changes, the most frequent first.
    pub changes: Vec<(What, Group)>,
    /// Rules that decided nothing, with their line.
    pub unused: Vec<(String, u32)>,
}

impl Report {
    pub(super) fn new(agent: &str) -> Self {
        Self { agent: agent.to_owned(), ..Self::default() }
    }

    /// Acts that would change so.
    #[must_use]
    pub fn total(&self, change: Change) -> u64 {
        self.changes.iter().filter(|(what, _)| what.change == change).map(|(_, group)| group.count).sum()
    }

    /// Acts that could not be judged.
    #[must_use]
    pub fn unjudged(&self) -> u64 {
        self.not_judged.values().sum()
    }

    /// The report for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let changed = |change| -> Vec<Value> {
            let of = self.changes.iter().filter(|(what, _)| what.change == change);
            of.map(|(what, group)| {
                json!({
                    "rule": what.rule, "verdict": what.verdict, "was": what.was, "was_rule": what.was_rule,
                    "kind": what.kind, "object": what.object,
                    "count": group.count, "first": group.first, "last": group.last,
                })
            })
            .collect()
        };
        let unused = self.unused.iter().map(|(rule, line)| json!({ "rule": rule, "line": line }));
        json!({
            "schema_version": SCHEMA_VERSION,
            "agent": self.agent,
            "events": self.events,
            "unchanged": self.unchanged,
            "not_decided_by_scopes": self.free,
            "not_judged": self.not_judged,
            "gaps": self.gaps,
            "newly_denied": changed(Change::Denied),
            "newly_allowed": changed(Change::Allowed),
            "unused_rules": unused.collect::<Vec<_>>(),
            "mounts": "paths were looked up in the mounts that this host has now",
        })
    }
}

/// All rules of a record itself, with their line.
#[must_use]
pub fn rules_of(scope: &Scope) -> Vec<(String, u32)> {
    let file = scope.file.iter().map(|rule| (rule.value.name.clone(), rule.at.line));
    let exec = scope.exec.iter().map(|rule| (rule.value.name.clone(), rule.at.line));
    let net = scope.net.iter().map(|rule| (rule.value.name.clone(), rule.at.line));
    let privilege = scope.privilege.iter().map(|rule| (rule.value.name.clone(), rule.at.line));
    file.chain(exec).chain(net).chain(privilege).collect()
}

/// What an event was about, in one line.
pub(super) fn object(event: &Event) -> String {
    if event.kind == Kind::ProcessExec {
        let process = event.process.as_ref();
        let exe = process.and_then(|process| process.exe.as_deref()).unwrap_or("?");
        return match process.and_then(|process| process.script.as_deref()) {
            Some(script) => format!("{exe} for {script}"),
            None => exe.to_owned(),
        };
    }
    if let Some(file) = &event.file {
        let path = file.path.as_deref().unwrap_or("?");
        let access: Vec<&str> = file.access.iter().map(|access| access.as_str()).collect();
        let to = file.new_path.as_ref().map_or_else(String::new, |to| format!(" → {to}"));
        return format!("{} {path}{to}", access.join(","));
    }
    if let Some(network) = &event.network {
        let own = matches!(event.kind, Kind::NetworkBind | Kind::NetworkListen);
        let at = if own { network.local } else { network.remote };
        let unix =
            || network.path.clone().or_else(|| network.abstract_name.as_ref().map(|name| format!("@{name}")));
        let at = at.map(|at| at.to_string()).or_else(unix).unwrap_or_else(|| "?".to_owned());
        return format!("{} {at}", network.protocol.as_deref().unwrap_or(network.family.as_str()));
    }
    let Some(privilege) = &event.privilege else { return String::new() };
    let parts = [&privilege.operation, &privilege.signal, &privilege.mount_point, &privilege.object];
    let target = privilege
        .target
        .as_ref()
        .map(|target| target.exe.clone().unwrap_or_else(|| format!("pid {}", target.pid)));
    let parts =
        parts.into_iter().flatten().cloned().chain(privilege.capabilities.iter().cloned()).chain(target);
    parts.collect::<Vec<_>>().join(" ")
}
