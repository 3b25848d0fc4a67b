//! What an agent was given, compared with what it used: the matter of a review. Pure: events and what people did come in.

mod markdown;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::api::{AgentPeople, DecisionCount, GrantView, StepView};
use crate::learn::completeness::Completeness;
use crate::learn::generalise::SIBLINGS;
use crate::learn::{Learner, Request, write};
use crate::log::verify::Outcome;
use crate::model::{Event, Family, Time, Verdict};
use crate::registry::Record;
use crate::scope::{Scope, Verdict as Declared};

/// What one pattern reaches on this host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// There are more: counting stopped.
    pub more: bool,
}

/// A declared rule and its use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleUse {
    /// `scope.file[0]`.
    pub rule: String,
    /// What it is about.
    pub pattern: String,
    /// Its verdict.
    pub verdict: Declared,
    /// Events that it decided.
    pub used: u64,
    /// The latest of them.
    pub last: Option<Time>,
}

/// How far an agent could reach, or did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Radius {
    /// Files.
    pub files: u64,
    /// Bytes: of the files it could reach, or that it sent to the network.
    pub bytes: u64,
    /// There are more files than were counted, or patterns that cannot be counted.
    pub more: bool,
    /// Peers: patterns it could reach, addresses it did.
    pub peers: BTreeSet<String>,
    /// Programs: patterns it could run, files it did.
    pub programs: BTreeSet<String>,
}

/// A review.
#[derive(Debug, Clone, Serialize)]
pub struct Review {
    /// [`crate::model::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The agent.
    pub agent: String,
    /// Who answers for it.
    pub owner: String,
    /// What it is for.
    pub purpose: String,
    /// Its state.
    pub state: String,
    /// When it ends.
    pub expires: Time,
    /// When it last did anything, as far as is known.
    pub active: Option<Time>,
    /// When it was last reviewed.
    pub reviewed: Option<Time>,
    /// By whom.
    pub reviewed_by: Option<String>,
    /// When a review is due; its end date where none was set.
    pub due: Time,
    /// The review is overdue.
    pub overdue: bool,
    /// First and last event that this rests on.
    pub span: Option<(Time, Time)>,
    /// Events by verdict.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Declared rules and their use, in the order of the record.
    pub rules: Vec<RuleUse>,
    /// Rules that permit something and were never used.
    pub unused: Vec<String>,
    /// How far it could reach.
    pub could: Radius,
    /// How far it did.
    pub did: Radius,
    /// Who decided what.
    pub decisions: Vec<DecisionCount>,
    /// Its grants.
    pub grants: Vec<GrantView>,
    /// Sessions in all, and now.
    pub sessions: (u64, u64),
    /// The steps of its off-boarding.
    pub steps: Vec<StepView>,
    /// The narrower scope that would have been enough, as TOML; empty where nothing was seen.
    pub proposed: String,
    /// Rules in it.
    pub proposed_rules: usize,
    /// Whether the record that this rests on is known to have gaps, and which.
    pub complete: bool,
    /// Why not.
    pub gaps: Vec<String>,
    /// Whether the events that this rests on are what was written.
    pub checked: Option<Outcome>,
}

/// Takes in events one by one.
#[derive(Debug)]
pub struct Reviewer<'a> {
    record: &'a Record,
    learner: Learner<'a>,
    uses: BTreeMap<String, (u64, Time)>,
    verdicts: BTreeMap<&'static str, u64>,
    did: Radius,
    files: BTreeSet<String>,
    last: Option<Time>,
}

impl<'a> Reviewer<'a> {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(record: &'a Record, bases: &'a [(String, Scope)]) -> Self {
        let request = Request {
            agent: record.id.as_str(),
            since: None,
            declared: Some(&record.scope),
            bases,
            siblings: SIBLINGS,
        };
        Self {
            record,
            learner: Learner::new(request),
            uses: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            did: Radius::default(),
            files: BTreeSet::new(),
            last: None,
        }
    }

    /// Takes in one event of any agent, or a gap.
    pub fn take(&mut self, event: &Event) {
        self.learner.take(event);
        if event.agent.as_ref().is_none_or(|agent| agent.id != self.record.id.as_str()) {
            return;
        }
        let Some(verdict) = event.verdict else { return };
        *self.verdicts.entry(verdict.as_str()).or_default() += 1;
        self.last = self.last.max(Some(event.time));
        if let Some(rule) = &event.rule {
            let used = self.uses.entry(rule.clone()).or_insert((0, event.time));
            *used = (used.0 + 1, used.1.max(event.time));
        }
        if matches!(verdict, Verdict::Allow | Verdict::Audit) {
            self.reached(event);
        }
    }

    fn reached(&mut self, event: &Event) {
        match event.kind.family() {
            Family::File => self.files.extend(event.file.as_ref().and_then(|file| file.path.clone())),
            Family::Network => {
                let Some(network) = &event.network else { return };
                self.did.bytes = self.did.bytes.saturating_add(network.bytes_sent.unwrap_or(0));
                let unix = network.path.clone().map(|path| format!("unix:{path}"));
                let peer = network.remote.map(|remote| remote.to_string());
                self.did.peers.extend(peer.or(unix));
            }
            Family::Process => {
                let exec = event.kind == crate::model::Kind::ProcessExec;
                let exe = event.process.as_ref().filter(|_| exec).and_then(|process| process.exe.clone());
                self.did.programs.extend(exe);
            }
            _ => {}
        }
    }

    /// The review. `measure` says how far a path pattern of the scope reaches on this host.
    #[must_use]
    pub fn finish(
        self,
        people: &AgentPeople,
        now: Time,
        measure: &mut dyn FnMut(&str) -> Option<Reach>,
    ) -> Review {
        let Self { record, learner, uses, verdicts, mut did, files, last } = self;
        did.files = files.len() as u64;
        let rules = rules(&record.scope, &uses);
        let permits =
            |verdict: Declared| matches!(verdict, Declared::Allow | Declared::Audit | Declared::Hold);
        let unused = rules.iter().filter(|rule| rule.used == 0 && permits(rule.verdict));
        let unused = unused.map(|rule| rule.rule.clone()).collect();
        let could = could(&record.scope, measure);
        let proposal = learner.finish();
        let Completeness { complete, reasons, seen, .. } = &proposal.completeness;
        let nothing = *seen == 0;
        let due = people.review_due.unwrap_or_else(|| Time::from(record.expires.value));
        Review {
            schema_version: crate::model::SCHEMA_VERSION,
            agent: record.id.as_str().to_owned(),
            owner: record.owner.value.clone(),
            purpose: record.purpose.value.clone(),
            state: people.state.clone(),
            expires: Time::from(record.expires.value),
            active: last.max(people.active),
            reviewed: people.reviewed,
            reviewed_by: people.reviewed_by.clone(),
            due,
            overdue: due <= now,
            span: proposal.span,
            verdicts,
            rules,
            unused,
            could,
            did,
            decisions: people.decisions.clone(),
            grants: people.grants.clone(),
            sessions: people.sessions,
            steps: people.steps.clone(),
            proposed_rules: if nothing { 0 } else { proposal.rules() },
            proposed: if nothing { String::new() } else { write::toml(&proposal) },
            complete: *complete && !nothing,
            gaps: reasons.clone(),
            checked: None,
        }
    }
}

fn rules(scope: &Scope, uses: &BTreeMap<String, (u64, Time)>) -> Vec<RuleUse> {
    let rule = |name: &str, pattern: String, verdict| {
        let used = uses.get(name).copied();
        let (used, last) = (used.map_or(0, |(count, _)| count), used.map(|(_, last)| last));
        RuleUse { rule: name.to_owned(), pattern, verdict, used, last }
    };
    let file = scope.file.iter().map(|one| (&one.name, one.path.to_string(), one.effect.verdict));
    let exec = scope.exec.iter().map(|one| (&one.name, one.path.to_string(), one.effect.verdict));
    let net = scope.net.iter().map(|one| (&one.name, one.to.to_string(), one.effect.verdict));
    let privilege =
        scope.privilege.iter().map(|one| (&one.name, one.kind.as_str().to_owned(), one.effect.verdict));
    let all = file.chain(exec).chain(net).chain(privilege);
    all.map(|(name, pattern, verdict)| rule(name, pattern, verdict)).collect()
}

fn could(scope: &Scope, measure: &mut dyn FnMut(&str) -> Option<Reach>) -> Radius {
    let mut could = Radius::default();
    let open = |verdict: Declared| !matches!(verdict, Declared::Deny | Declared::Kill);
    for rule in scope.file.iter().filter(|rule| open(rule.effect.verdict)) {
        match measure(&rule.path.to_string()) {
            Some(reach) => {
                could.files = could.files.saturating_add(reach.files);
                could.bytes = could.bytes.saturating_add(reach.bytes);
                could.more |= reach.more;
            }
            None => could.more = true,
        }
    }
    let all = "(everything: the default of the scope permits it)";
    if open(scope.default) {
        could.more = true;
        could.peers.insert(all.to_owned());
        could.programs.insert(all.to_owned());
    }
    let exec = scope.exec.iter().filter(|rule| open(rule.effect.verdict));
    could.programs.extend(exec.map(|rule| rule.path.to_string()));
    let net = scope.net.iter().filter(|rule| open(rule.effect.verdict));
    could.peers.extend(net.map(|rule| rule.to.to_string()));
    could
}

#[cfg(test)]
mod tests;
