//! Which declared rules a host cannot hold, by its level.
//!
//! Pure. What `hold` does at each level is in [`crate::explain::outcome`].

use super::{Effect, Host, NetAction, NetPattern, Scope, Verdict};
use crate::health::doctor::Level;
use crate::registry::diagnostic::{Code, Diagnostic, Severity};
use crate::registry::source::Position;
use crate::registry::{Mode, Record, record::Degrade};

/// A declared rule that is not in force as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unheld {
    /// `scope.net[0]`, `scope.limits.deletes`, `scope.default`.
    pub rule: String,
    /// Where it is written; the whole file where it is not.
    pub at: Position,
    /// Why.
    pub why: &'static str,
}

const NAMES: &str = "host names are not known to the kernel yet";
const LABELS: &str = "labels are not known to the kernel yet";
const ARGUMENTS: &str = "the kernel does not tell programs apart by arguments";
const LIMITS: &str = "budgets are not counted yet";
const PARTIAL: &str = "without LSM programs only connections and own addresses can be refused";
const NOTHING: &str = "without BPF nothing can be refused";

/// The rules of a record that a host of this level cannot hold, in the order of the record's families.
#[must_use]
pub fn unheld(record: &Record, level: Level) -> Vec<Unheld> {
    let scope = &record.scope;
    let mut found = Vec::new();
    let mut add = |rule: &str, at: Position, why: Option<&'static str>| {
        found.extend(why.map(|why| Unheld { rule: rule.to_owned(), at, why }));
    };
    if !scope.declared {
        return found;
    }
    // What no rule names, files among it, is refused by the default.
    let stops = !scope.default.permits();
    add("scope.default", Position::FILE, of_level(level, false).filter(|_| stops));
    for rule in &scope.file {
        add(&rule.name, rule.path.at, labels(&rule.effect).or_else(|| stopped(&rule.effect, level, false)));
    }
    for rule in &scope.exec {
        let arguments = rule.argv.is_some().then_some(ARGUMENTS);
        let why = arguments.or_else(|| labels(&rule.effect)).or_else(|| stopped(&rule.effect, level, false));
        add(&rule.name, rule.path.at, why);
    }
    for rule in &scope.net {
        let cgroup =
            matches!(rule.to.value, NetPattern::Ip { .. }) && !rule.action.contains(&NetAction::Listen);
        let name = matches!(rule.to.value.host(), Some(Host::Name(_) | Host::Suffix(_))).then_some(NAMES);
        let why = name.or_else(|| labels(&rule.effect)).or_else(|| stopped(&rule.effect, level, cgroup));
        add(&rule.name, rule.to.at, why);
    }
    for rule in &scope.privilege {
        add(&rule.name, rule.kind.at, labels(&rule.effect).or_else(|| stopped(&rule.effect, level, false)));
    }
    limits(scope, &mut add);
    found
}

/// What to say about the rules of an enforced record that are not held: errors, or warnings where it says that less will
/// do. An observed record asks for nothing to be stopped.
#[must_use]
pub fn diagnostics(record: &Record, level: Level) -> Vec<Diagnostic> {
    if record.mode.value != Mode::Enforce {
        return Vec::new();
    }
    let severity = if record.degrade == Degrade::Allow { Severity::Warning } else { Severity::Error };
    let told = unheld(record, level).into_iter().map(|lost| {
        let message = format!("{} is not in force at level {}: {}", lost.rule, level.as_str(), lost.why);
        let problem = Diagnostic::new(&record.source, severity, Code::NotHeld, lost.at, message);
        problem.hint("write degrade = \"allow\" to go on with what is possible, or mode = \"observe\"")
    });
    told.collect()
}

fn limits(scope: &Scope, add: &mut dyn FnMut(&str, Position, Option<&'static str>)) {
    for (name, limit) in scope.limits.iter() {
        add(&format!("scope.limits.{name}"), limit.at, Some(LIMITS));
    }
}

fn labels(effect: &Effect) -> Option<&'static str> {
    (!effect.unless.is_empty() || !effect.adds.is_empty()).then_some(LABELS)
}

/// Why a rule that stops something does not; one that permits loses nothing.
fn stopped(effect: &Effect, level: Level, cgroup: bool) -> Option<&'static str> {
    let stops = matches!(effect.verdict, Verdict::Hold | Verdict::Deny | Verdict::Kill);
    of_level(level, cgroup).filter(|_| stops)
}

fn of_level(level: Level, cgroup: bool) -> Option<&'static str> {
    match level {
        Level::Full => None,
        Level::Partial if cgroup => None,
        Level::Partial => Some(PARTIAL),
        Level::None => Some(NOTHING),
    }
}

#[cfg(test)]
mod tests;
