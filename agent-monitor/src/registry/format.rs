//! Writes a record as TOML that reads back to an equal record.
//!
//! For proposals (`agent learn`, `agent review`) and for tests. Comments and order of the original
//! are not kept; to change one value in a person's file, edit its text.

use std::{collections::BTreeSet, fmt::Display};

use super::record::{Degrade, Match, Mode, OnDaemonLoss, Record, UserRef};
use crate::scope::{Effect, Limit, Per, Scope, Verdict};

/// The record as TOML.
pub fn to_toml(record: &Record) -> String {
    let mut out = Writer::default();
    out.agent(record);
    for found in &record.matches {
        out.line("\n[[match]]");
        out.match_table(found);
    }
    if record.scope.declared {
        out.scope(&record.scope);
    }
    if !record.offboarding.is_empty() {
        out.line("\n[offboarding]");
        out.list("remove_files", &record.offboarding.remove_files);
        out.list("disable_units", &record.offboarding.disable_units);
        out.list("manual", &record.offboarding.manual);
    }
    out.0
}

/// A scope as the `[scope]` part of a record.
pub fn scope_to_toml(scope: &Scope) -> String {
    let mut out = Writer::default();
    out.scope(scope);
    out.0.trim_start().to_owned()
}

#[derive(Default)]
struct Writer(String);

impl Writer {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn raw(&mut self, key: &str, value: impl Display) {
        self.line(&format!("{key} = {value}"));
    }

    fn text(&mut self, key: &str, value: impl Display) {
        self.raw(key, quote(&value.to_string()));
    }

    fn optional(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn list<T: Display>(&mut self, key: &str, values: impl IntoIterator<Item = T>) {
        let values: Vec<String> = values.into_iter().map(|v| quote(&v.to_string())).collect();
        if !values.is_empty() {
            self.raw(key, format!("[{}]", values.join(", ")));
        }
    }

    fn agent(&mut self, record: &Record) {
        self.line("[agent]");
        self.text("id", &record.id.value);
        self.text("owner", &record.owner.value);
        self.text("purpose", &record.purpose.value);
        self.optional("environment", record.environment.as_ref().map(|e| &e.value));
        self.optional("data_boundary", record.data_boundary.as_ref().map(|d| &d.value));
        self.raw("expires", record.expires.value);
        if let Some(idle) = record.retire_when_idle {
            self.text("retire_when_idle", duration(idle.as_secs()));
        }
        self.text(
            "mode",
            match record.mode.value {
                Mode::Enforce => "enforce",
                Mode::Observe => "observe",
            },
        );
        self.list("approvers", record.approvers.iter().map(|a| &a.value));
        if record.approvals != 1 {
            self.raw("approvals", record.approvals);
        }
        if record.degrade == Degrade::Allow {
            self.text("degrade", "allow");
        }
        if record.on_daemon_loss == OnDaemonLoss::Wait {
            self.text("on_daemon_loss", "wait");
        }
        if let Some(span) = record.hold_timeout {
            self.text("hold_timeout", duration(span.as_secs()));
        }
    }

    fn match_table(&mut self, found: &Match) {
        self.optional("unit", found.unit.as_ref().map(|v| &v.value));
        self.optional("cgroup", found.cgroup.as_ref().map(|v| &v.value));
        self.optional("container", found.container.as_ref().map(|v| &v.value));
        self.optional("exe", found.exe.as_ref().map(|v| &v.value));
        self.optional("script", found.script.as_ref().map(|v| &v.value));
        self.optional("sha256", found.sha256.as_ref().map(|v| v.value));
        if let Some(argv) = &found.argv {
            self.list("argv", argv.patterns());
        }
        match found.user.as_ref().map(|user| &user.value) {
            Some(UserRef::Uid(uid)) => self.raw("user", uid),
            Some(UserRef::Name(name)) => self.text("user", name),
            None => {}
        }
        if found.launch {
            self.raw("launch", true);
        }
    }

    fn scope(&mut self, scope: &Scope) {
        self.line("\n[scope]");
        self.text("default", scope.default.as_str());
        if scope.unknown != Verdict::Deny {
            self.text("unknown", scope.unknown.as_str());
        }
        self.list("base", scope.base.iter().map(|name| &name.value));
        for rule in &scope.file {
            self.line("\n[[scope.file]]");
            self.text("path", &rule.path.value);
            self.list("access", rule.access.iter().map(|access| access.as_str()));
            self.effect(&rule.effect);
        }
        for rule in &scope.exec {
            self.line("\n[[scope.exec]]");
            self.text("path", &rule.path.value);
            if let Some(argv) = &rule.argv {
                self.list("argv", argv.patterns());
            }
            self.effect(&rule.effect);
        }
        for rule in &scope.net {
            self.line("\n[[scope.net]]");
            self.text("to", &rule.to.value);
            self.list("action", rule.action.iter().map(|action| action.as_str()));
            self.effect(&rule.effect);
        }
        for rule in &scope.privilege {
            self.line("\n[[scope.privilege]]");
            self.text("kind", rule.kind.value.as_str());
            self.list("capabilities", &rule.capabilities);
            self.effect(&rule.effect);
        }
        self.limits(scope);
    }

    fn effect(&mut self, effect: &Effect) {
        let labels = |labels: &BTreeSet<String>| labels.iter().cloned().collect::<Vec<_>>();
        if effect.verdict != Verdict::Allow {
            self.text("verdict", effect.verdict.as_str());
        }
        self.list("adds", labels(&effect.adds));
        self.list("unless", labels(&effect.unless));
    }

    fn limits(&mut self, scope: &Scope) {
        if scope.limits.iter().next().is_some() {
            self.line("\n[scope.limits]");
        }
        for (name, limit) in scope.limits.iter() {
            let budget = quote(&budget(limit, name == "bytes_out"));
            match limit.verdict {
                Verdict::Deny => self.raw(name, budget),
                verdict => {
                    let verdict = quote(verdict.as_str());
                    self.raw(name, format!("{{ max = {budget}, verdict = {verdict} }}"));
                }
            }
        }
    }
}

impl Display for super::source::Located<String> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.value)
    }
}

fn budget(limit: &Limit, bytes: bool) -> String {
    let per = match limit.per {
        Per::Min => "min",
        Per::Session => "session",
    };
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B")];
    let unit = units.iter().find(|(shift, _)| limit.max.trailing_zeros() >= *shift);
    match unit {
        Some((shift, unit)) if bytes => format!("{}{unit}/{per}", limit.max >> shift),
        _ => format!("{}/{per}", limit.max),
    }
}

/// In the largest unit that divides it.
fn duration(seconds: u64) -> String {
    let units = [(604_800, 'w'), (86_400, 'd'), (3600, 'h'), (60, 'm')];
    let unit = units.iter().find(|(length, _)| seconds.is_multiple_of(*length));
    let (length, unit) = unit.copied().unwrap_or((1, 's'));
    format!("{}{unit}", seconds / length)
}

/// A text as a TOML string.
pub(crate) fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
