//! Which declared rules a host can enforce, by its level.
//!
//! Pure: what stands at a path now, which Landlock's part at level partial depends on, is asked of the host's facts. What
//! `hold` does at each level is in [`crate::explain::outcome`].

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::landlock::{self, Differs, Found, Plan};
use super::{Effect, Host, NetAction, NetPattern, Scope, Verdict, base};
use crate::health::doctor::Level;
use crate::registry::diagnostic::{Code, Diagnostic, Severity};
use crate::registry::facts::{HostFacts, PathKind};
use crate::registry::source::Position;
use crate::registry::{Mode, Record, record::Degrade};

/// Where a rule is enforced on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforced {
    /// For every process of the agent.
    Everywhere,
    /// Only for what `agent-monitor exec` launches.
    UnderExec,
    /// Not as written.
    No,
}

/// One rule of a record or of a base set that it pulls in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleState {
    /// `scope.file[2]`, `base.node.file[0]`, `scope.default`.
    pub rule: String,
    /// Where it is enforced.
    pub enforced: Enforced,
    /// What is different from what is written, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
}

/// How many rules are enforced where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCounts {
    /// All, base sets included.
    pub total: usize,
    /// For every process.
    pub everywhere: usize,
    /// Only under `agent-monitor exec`.
    pub under_exec: usize,
    /// Not as written.
    pub no: usize,
}

impl RuleCounts {
    /// Counts rules.
    #[must_use]
    pub fn of(rules: &[RuleState]) -> Self {
        let count = |wanted| rules.iter().filter(|rule| rule.enforced == wanted).count();
        let [everywhere, under_exec, no] =
            [Enforced::Everywhere, Enforced::UnderExec, Enforced::No].map(count);
        Self { total: rules.len(), everywhere, under_exec, no }
    }

    /// `37 rules: 21 hold, 9 only under exec, 7 do not`.
    #[must_use]
    pub fn text(&self) -> String {
        let plural = if self.total == 1 { "" } else { "s" };
        let Self { total, everywhere, under_exec, no } = self;
        format!("{total} rule{plural}: {everywhere} hold, {under_exec} only under exec, {no} do not")
    }
}

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

/// What to say about the rules of an enforced record that are not enforced as written, the places where Landlock permits
/// more than a rule among them: errors, or warnings where it says that less will do. An observed record asks for nothing to
/// be stopped.
#[must_use]
pub fn diagnostics(record: &Record, level: Level, facts: &dyn HostFacts) -> Vec<Diagnostic> {
    if record.mode.value != Mode::Enforce {
        return Vec::new();
    }
    let severity = if record.degrade == Degrade::Allow { Severity::Warning } else { Severity::Error };
    let problem = |at: Position, message: String| {
        let problem = Diagnostic::new(&record.source, severity, Code::NotHeld, at, message);
        problem.hint("write degrade = \"allow\" to accept what is possible, or mode = \"observe\"")
    };
    let level_name = level.as_str();
    let scripts = record.matches.iter().filter_map(|found| Some((&found.name, found.script.as_ref()?)));
    let late = scripts.filter(|_| level == Level::Partial).map(|(name, script)| {
        let message = format!(
            "{name}.script: at level partial {} is bound before its first instruction only by this path and by links to it \
             in the usual directories of programs; through another link it is bound after it has started",
            script.value
        );
        let problem = Diagnostic::new(&record.source, Severity::Warning, Code::NotHeld, script.at, message);
        problem.hint("start it by its path, or by agent-monitor exec")
    });
    let mut problems: Vec<Diagnostic> = unheld(record, level)
        .into_iter()
        .map(|lost| {
            let message = format!("{} is not in force at level {level_name}: {}", lost.rule, lost.why);
            problem(lost.at, message)
        })
        .chain(late)
        .collect();
    if let Some(plan) = confinement(record, level, facts) {
        let places: BTreeMap<&str, Position> = positions(&record.scope);
        for wider in plan.not_held.iter().filter(|not| not.differs == Differs::Wider) {
            let at = places.get(wider.rule.as_str()).copied().unwrap_or(Position::FILE);
            let message =
                format!("{} permits more than is written at level {level_name}: {}", wider.rule, wider.why);
            problems.push(problem(at, message));
        }
    }
    problems
}

/// The plan for Landlock where this level needs it.
fn confinement(record: &Record, level: Level, facts: &dyn HostFacts) -> Option<Plan> {
    let needed = level == Level::Partial && record.scope.declared;
    let plan = needed.then(|| landlock::plan(&record.scope, &base::sets(), &|path| look(facts, path)))?;
    plan.applies.then_some(plan)
}

fn look(facts: &dyn HostFacts, path: &str) -> Found {
    match facts.path(Path::new(path)) {
        PathKind::Directory => Found::Directory,
        PathKind::File { .. } | PathKind::Special => Found::File,
        PathKind::Missing | PathKind::Unreadable => Found::Nothing,
    }
}

fn positions(scope: &Scope) -> BTreeMap<&str, Position> {
    let files = scope.file.iter().map(|rule| (rule.name.as_str(), rule.path.at));
    files.chain(scope.exec.iter().map(|rule| (rule.name.as_str(), rule.path.at))).collect()
}

/// Every rule of a record and of its base sets, and where this host enforces it. Says nothing of the record's mode.
#[must_use]
pub fn rules(record: &Record, level: Level, facts: &dyn HostFacts) -> Vec<RuleState> {
    let scope = &record.scope;
    if !scope.declared {
        return Vec::new();
    }
    let mut lost: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for not in unheld(record, level) {
        lost.entry(not.rule).or_default().push(not.why.to_owned());
    }
    let plan = confinement(record, level, facts);
    let mut differs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for not in plan.iter().flat_map(|plan| &plan.not_held) {
        differs.entry(not.rule.as_str()).or_default().push(not.why.clone());
    }
    let mut states = Vec::new();
    let mut add = |rule: &str, family: Family, permits: bool| {
        let confined = plan.is_some() && family == Family::Place;
        let (enforced, why) = match (lost.get(rule), differs.get(rule)) {
            // What no process is refused by the hooks is refused under exec, where Landlock can say it.
            (Some(why), None) if confined && why.iter().all(|why| why == PARTIAL) => {
                (Enforced::UnderExec, why.clone())
            }
            (Some(why), also) => {
                (Enforced::No, why.iter().chain(also.into_iter().flatten()).cloned().collect())
            }
            (None, Some(why)) if confined => (Enforced::No, why.clone()),
            (None, _) if confined && permits => (Enforced::UnderExec, Vec::new()),
            (None, _) => (Enforced::Everywhere, Vec::new()),
        };
        states.push(RuleState { rule: rule.to_owned(), enforced, why });
    };
    add("scope.default", Family::Place, scope.default.permits());
    each(scope, &mut |name, family, permits| add(name, family, permits));
    for (limit, _) in scope.limits.iter() {
        add(&format!("scope.limits.{limit}"), Family::Other, false);
    }
    for base in &scope.base {
        let Some(set) = base::set(&base.value) else { continue };
        let prefix = format!("base.{}.", base.value);
        each(set, &mut |name, family, permits| add(&name.replacen("scope.", &prefix, 1), family, permits));
    }
    states
}

/// What of a host judges a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// A place in the file system: Landlock at level partial.
    Place,
    /// Anything else.
    Other,
}

/// Name, family and whether it permits, of each rule of a scope.
fn each(scope: &Scope, found: &mut dyn FnMut(&str, Family, bool)) {
    for rule in &scope.file {
        found(&rule.name, Family::Place, rule.effect.verdict.permits());
    }
    for rule in &scope.exec {
        found(&rule.name, Family::Place, rule.effect.verdict.permits());
    }
    for rule in &scope.net {
        found(&rule.name, Family::Other, rule.effect.verdict.permits());
    }
    for rule in &scope.privilege {
        found(&rule.name, Family::Other, rule.effect.verdict.permits());
    }
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
