//! What is to be in force: from what is on disk and what was in force before.
//!
//! Pure. The rule is *last known good*: a record that is refused never takes the place of the one in force. The last good
//! record stays, marked [`Stale`] with the reason and since when. An agent leaves the set only when it is retired and its
//! file is gone, or by an explicit act, which removes it from what was in force before [`decide`] is asked.
//!
//! ```text
//! files ─► which file speaks for which agent ─► judge ─► clashes with what is in force ─► Decision
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::check::check_record;
use super::cross::Taken;
use super::diagnostic::{Code, Diagnostic, Severity};
use super::facts::HostFacts;
use super::load::{Candidate, Refused};
use super::record::{AgentId, Record};
use crate::health::doctor::Level;
use crate::scope::hold;

/// Why the last good record of an agent is in force although its file does not say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Its file cannot be read or parsed.
    Invalid,
    /// Its file is a record that this host cannot put in force.
    Refused,
    /// Its file is gone.
    Removed,
    /// The registry as a whole cannot be read.
    Registry,
}

/// The last good record of an agent is in force instead of what is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stale {
    /// Since when, wall clock.
    pub since: Timestamp,
    /// What kind of reason.
    pub cause: Cause,
    /// Why, in one line.
    pub reason: String,
}

impl Stale {
    /// What to do about it.
    #[must_use]
    pub fn cure(&self, id: &AgentId, file: &Path) -> String {
        let file = file.display();
        match self.cause {
            Cause::Invalid | Cause::Refused => {
                format!("agent-monitor agent edit {id}, or mend {file} and run agent-monitor agent reload")
            }
            Cause::Removed => {
                format!("put {file} back, or unbind the agent: agent-monitor agent unregister {id}")
            }
            Cause::Registry => "make the registry readable again, then agent-monitor agent reload".to_owned(),
        }
    }
}

/// A record that is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// The record. Its file is where it was read from when it was good.
    pub record: Record,
    /// Why it is not what is on disk.
    pub stale: Option<Stale>,
}

/// The set in force.
pub type Set = BTreeMap<AgentId, Kept>;

/// What the registry gave.
#[derive(Debug, Clone)]
pub enum Disk {
    /// Its record files, in the order of their names.
    Files(Vec<Candidate>),
    /// It cannot be read as a whole; the text says why.
    Unreadable(String),
}

/// What [`decide`] asks. The same answers always give the same decision.
pub struct Rules<'a> {
    /// The host.
    pub facts: &'a dyn HostFacts,
    /// Everything that is wrong with a record here and now, on its own. An end date that has passed is no error.
    pub judge: &'a dyn Fn(&Record) -> Vec<Diagnostic>,
    /// Whether an agent is retired.
    pub retired: &'a dyn Fn(&AgentId) -> bool,
    /// Wall clock.
    pub now: Timestamp,
}

/// What is to be in force.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    /// The set, by id.
    pub set: Set,
    /// The files that are not in force, in the order of their names, with their reasons.
    pub refused: Vec<Refused>,
    /// Warnings and notes about the records in the set.
    pub warnings: Vec<Diagnostic>,
}

/// The one criterion by which a record is put in force: by the daemon, by `agent register` and by `agent check --here`.
/// Where the level of the host is not known, its enforcement is not judged.
#[must_use]
pub fn judge(
    record: &Record,
    facts: &dyn HostFacts,
    now: Timestamp,
    level: Option<Level>,
) -> Vec<Diagnostic> {
    let mut problems = check_record(record, facts, now);
    // The end of an agent is ordinary: its record stays, and permits nothing.
    problems.retain(|problem| problem.code != Code::Expired);
    problems.extend(level.map(|level| hold::diagnostics(record, level, facts)).unwrap_or_default());
    problems
}

/// Decides what is to be in force.
#[must_use]
pub fn decide(disk: &Disk, before: &Set, rules: &Rules<'_>) -> Decision {
    match disk {
        Disk::Unreadable(reason) => {
            let stays = |(id, kept): (&AgentId, &Kept)| {
                (id.clone(), stale(kept, Cause::Registry, reason.clone(), rules.now))
            };
            Decision { set: before.iter().map(stays).collect(), ..Decision::default() }
        }
        Disk::Files(files) => Deciding::new(before, rules).decide(files),
    }
}

/// The same record, marked; an earlier mark keeps its time.
fn stale(kept: &Kept, cause: Cause, reason: String, now: Timestamp) -> Kept {
    let since = kept.stale.as_ref().map_or(now, |stale| stale.since);
    Kept { record: kept.record.clone(), stale: Some(Stale { since, cause, reason }) }
}

/// The first error in one line, with its place.
#[must_use]
pub fn first_error(diagnostics: &[Diagnostic]) -> String {
    let first = diagnostics.iter().find(|problem| problem.is_error());
    first.map_or_else(String::new, |problem| match problem.at.line {
        0 => problem.message.clone(),
        _ => format!("{}: {}", problem.at, problem.message),
    })
}

/// A good record that may take its place in the set.
struct Proposal<'a> {
    file: &'a Candidate,
    record: &'a Record,
    /// What is in force already, then what changes, then what is new: in this order one that clashes loses.
    rank: u8,
    diagnostics: Vec<Diagnostic>,
}

struct Deciding<'a> {
    before: &'a Set,
    rules: &'a Rules<'a>,
    proposals: BTreeMap<AgentId, Proposal<'a>>,
    /// Agents whose file is bad, and why.
    bad: BTreeMap<AgentId, (Cause, String)>,
    refused: Vec<Refused>,
}

impl<'a> Deciding<'a> {
    fn new(before: &'a Set, rules: &'a Rules<'a>) -> Self {
        Self { before, rules, proposals: BTreeMap::new(), bad: BTreeMap::new(), refused: Vec::new() }
    }

    fn decide(mut self, files: &'a [Candidate]) -> Decision {
        let claims = self.claims(files);
        for (id, file) in &claims {
            self.propose(id, file);
        }
        self.settle_clashes(files);
        let mut decision = Decision::default();
        for (id, kept) in self.before {
            if self.proposals.contains_key(id) {
                continue;
            }
            let now = self.rules.now;
            let stays = match self.bad.remove(id) {
                Some((cause, reason)) => Some(stale(kept, cause, reason, now)),
                None if (self.rules.retired)(id) => None,
                None => {
                    let reason = format!("{} is gone", kept.record.file().display());
                    Some(stale(kept, Cause::Removed, reason, now))
                }
            };
            decision.set.extend(stays.map(|kept| (id.clone(), kept)));
        }
        for (id, proposal) in self.proposals {
            decision.warnings.extend(proposal.diagnostics);
            decision.set.insert(id, Kept { record: proposal.record.clone(), stale: None });
        }
        self.refused.sort_by(|a, b| a.path.cmp(&b.path));
        decision.refused = self.refused;
        decision
    }

    /// Which file speaks for which agent. The file that an agent was read from does so as long as it is there and does not
    /// name another agent; else the first that names it.
    fn claims(&mut self, files: &'a [Candidate]) -> BTreeMap<AgentId, &'a Candidate> {
        let by_path: BTreeMap<&Path, &Candidate> =
            files.iter().map(|file| (file.path.as_path(), file)).collect();
        let mut claims: BTreeMap<AgentId, &Candidate> = BTreeMap::new();
        for (id, kept) in self.before {
            let own = by_path.get(kept.record.file());
            let own = own.filter(|file| file.record.as_ref().is_none_or(|record| record.id.value == *id));
            claims.extend(own.map(|file| (id.clone(), *file)));
        }
        for file in files {
            let Some(record) = &file.record else {
                self.refuse(file, file.diagnostics.clone());
                continue;
            };
            let first = claims.entry(record.id.value.clone()).or_insert(file);
            if first.path != file.path {
                let message = format!("the id `{}` is taken by {}", record.id.value, first.path.display());
                let at = record.id.at;
                let problem =
                    Diagnostic::new(&record.source, Severity::Error, Code::DuplicateId, at, message);
                let problem = problem.hint("one agent, one file; renew or replace the first instead");
                self.refuse(file, vec![problem]);
            }
        }
        claims
    }

    fn refuse(&mut self, file: &Candidate, diagnostics: Vec<Diagnostic>) {
        let record = file.record.clone().map(Box::new);
        self.refused.push(Refused { path: file.path.clone(), record, diagnostics });
    }

    fn propose(&mut self, id: &AgentId, file: &'a Candidate) {
        let Some(record) = &file.record else {
            self.bad.insert(id.clone(), (Cause::Invalid, first_error(&file.diagnostics)));
            return;
        };
        let mut diagnostics = file.diagnostics.clone();
        diagnostics.extend((self.rules.judge)(record));
        if diagnostics.iter().any(Diagnostic::is_error) {
            self.bad.insert(id.clone(), (Cause::Refused, first_error(&diagnostics)));
            self.refuse(file, diagnostics);
            return;
        }
        let rank = match self.before.get(id) {
            Some(kept) if kept.record == *record => 0,
            Some(_) => 1,
            None => 2,
        };
        self.proposals.insert(id.clone(), Proposal { file, record, rank, diagnostics });
    }

    /// Takes back proposals until no two records of the set recognise the same processes. What is taken back is in force as
    /// before, which may clash with another proposal in its turn; each turn takes one back at least.
    fn settle_clashes(&mut self, files: &[Candidate]) {
        let place: BTreeMap<&Path, usize> =
            files.iter().enumerate().map(|(at, file)| (file.path.as_path(), at)).collect();
        loop {
            let mut taken = Taken::default();
            for (id, kept) in self.before {
                if !self.proposals.contains_key(id) {
                    taken.claim(&kept.record, self.rules.facts);
                }
            }
            let mut order: Vec<(&AgentId, &Proposal<'a>)> = self.proposals.iter().collect();
            order.sort_by_key(|(_, proposal)| (proposal.rank, place.get(proposal.file.path.as_path())));
            let mut losers: Vec<(AgentId, Vec<Diagnostic>)> = Vec::new();
            for (id, proposal) in order {
                let clashes = taken.check(proposal.record, self.rules.facts);
                if clashes.iter().any(Diagnostic::is_error) {
                    losers.push((id.clone(), clashes));
                } else {
                    taken.claim(proposal.record, self.rules.facts);
                }
            }
            if losers.is_empty() {
                return;
            }
            for (id, clashes) in losers {
                let Some(proposal) = self.proposals.remove(&id) else { continue };
                self.bad.insert(id, (Cause::Refused, first_error(&clashes)));
                self.refuse(proposal.file, clashes);
            }
        }
    }
}

#[cfg(test)]
#[path = "in_force/tests.rs"]
mod tests;
