//! Checks of records against each other: ids and matches must be unambiguous.
//!
//! Two agents may claim overlapping processes, and then the closer match decides
//! ([`super::record::MatchRank`]): agent A matches user `ci`, agent B matches user `ci` *and* a
//! script, and B has its script. What is refused is the *same* set of conditions twice, for then
//! nothing could decide. Conditions are compared by what they mean on this host: two paths of one
//! file, a user's name and number, a unit and its cgroup are the same.
//!
//! Cost is linear in the number of matches.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{
    diagnostic::{Code, Diagnostic, Severity},
    facts::{HostFacts, PathKind},
    record::{AgentId, Match, Record, UserRef},
    source::{Located, Position, Source},
};

/// The ids and matches that are taken, and by whom.
#[derive(Debug, Default)]
pub struct Taken {
    ids: BTreeMap<AgentId, Place>,
    matches: BTreeMap<Vec<String>, Place>,
}

#[derive(Debug, Clone)]
struct Place {
    source: Arc<Source>,
    at: Position,
    agent: AgentId,
    what: String,
}

impl Taken {
    /// Checks a record against those that were claimed before; empty when it fits in beside them.
    /// Takes nothing: call [`Taken::claim`] for a record that is accepted.
    pub fn check(&self, record: &Record, facts: &dyn HostFacts) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        if let Some(first) = self.ids.get(&record.id.value) {
            problems.push(
                duplicate(record, Code::DuplicateId, record.id.at, first)
                    .hint("one agent, one file; renew or replace the first instead"),
            );
        }
        let mut own: BTreeMap<Vec<String>, Place> = BTreeMap::new();
        for found in &record.matches {
            let conditions = conditions(found, facts);
            if conditions.is_empty() {
                continue;
            }
            // A file that is there twice is one problem, not one per match.
            let others = self.matches.get(&conditions);
            let others = others.filter(|first| first.agent != record.id.value);
            if let Some(first) = own.get(&conditions).or(others) {
                problems.push(
                    duplicate(record, Code::DuplicateMatch, found.at, first)
                        .hint("add a condition that tells them apart, such as script, argv or user"),
                );
            } else {
                own.insert(conditions, match_place(record, found));
            }
        }
        problems
    }

    /// Takes the id and the matches of an accepted record.
    pub fn claim(&mut self, record: &Record, facts: &dyn HostFacts) {
        let place = Place {
            source: record.source.clone(),
            at: record.id.at,
            agent: record.id.value.clone(),
            what: format!("agent `{}`", record.id.value),
        };
        self.ids.entry(record.id.value.clone()).or_insert(place);
        for found in &record.matches {
            let conditions = conditions(found, facts);
            if !conditions.is_empty() {
                self.matches.entry(conditions).or_insert_with(|| match_place(record, found));
            }
        }
    }
}

fn match_place(record: &Record, found: &Located<Match>) -> Place {
    Place {
        source: record.source.clone(),
        at: found.at,
        agent: record.id.value.clone(),
        what: format!("{} of agent `{}`", found.name, record.id.value),
    }
}

fn duplicate(record: &Record, code: Code, at: Position, first: &Place) -> Diagnostic {
    let message = match code {
        Code::DuplicateId => format!("the id `{}` is taken", record.id.value),
        _ => format!("this match recognises exactly the same processes as {}", first.what),
    };
    Diagnostic::new(&record.source, Severity::Error, code, at, message).related(
        &first.source,
        first.at,
        format!("first by {}", first.what),
    )
}

/// The conditions of a match in a form in which equal meaning is equal text, sorted.
fn conditions(found: &Match, facts: &dyn HostFacts) -> Vec<String> {
    let mut conditions = Vec::new();
    if let Some(unit) = &found.unit {
        conditions.push(format!("unit {}", unit.value));
    }
    if let Some(cgroup) = &found.cgroup {
        conditions.push(match cgroup.strip_prefix("/system.slice/") {
            Some(unit) if unit.ends_with(".service") && !unit.contains('/') => format!("unit {unit}"),
            _ => format!("cgroup {}", cgroup.value),
        });
    }
    if let Some(container) = &found.container {
        // Any 12 digits name a container; nobody makes two that share them.
        let short = container.get(..12).unwrap_or(container);
        conditions.push(format!("container {short}"));
    }
    for (kind, path) in [("exe", &found.exe), ("script", &found.script)] {
        if let Some(path) = path {
            conditions.push(match facts.path(Path::new(path.as_str())) {
                PathKind::File { dev, ino } => format!("{kind} file {dev}:{ino}"),
                _ => format!("{kind} {}", path.value),
            });
        }
    }
    if let Some(sha256) = &found.sha256 {
        conditions.push(format!("sha256 {}", sha256.value));
    }
    if let Some(argv) = &found.argv {
        conditions.push(format!("argv {:?}", argv.patterns()));
    }
    if let Some(user) = &found.user {
        let uid = match &user.value {
            UserRef::Uid(uid) => Some(*uid),
            UserRef::Name(name) => facts.user_by_name(name).found().map(|user| user.uid),
        };
        conditions.push(uid.map_or_else(|| format!("user {}", user.value), |uid| format!("uid {uid}")));
    }
    conditions.sort();
    conditions.dedup();
    conditions
}
