//! Records → the tables by which the kernel recognises agents ([`MatchImage`]), and the rules that user space compares
//! ([`Matcher`]). Pure: what must be looked up on the host is asked of [`Resolve`].

use std::collections::{BTreeMap, BTreeSet};

use agent_monitor_ebpf::bind::{
    AS_EXE, AS_SCRIPT, CgroupEntry, MATCHES, MatchEntry, NEED_CGROUP, NEED_INODE, NEED_USER,
};
use agent_monitor_ebpf::config::{RUN_ARGV_RULES, RUN_CGROUP_RULES, RUN_PATH_RULES, RUN_USER_RULES};
use agent_monitor_ebpf::task::BoundBy;

use super::container;
use super::identity::Agents;
use super::matcher::{FileId, Matcher, Rule};
use super::mounts::Location;
use crate::registry::record::{Match, MatchRank, Record, Sha256, UserRef};

/// What the compilation asks the host.
pub trait Resolve {
    /// The path that a path leads to: symbolic links followed as far as it exists, the rest kept.
    fn canonical(&mut self, path: &[u8]) -> Vec<u8>;
    /// Where a canonical path lies.
    fn locate(&mut self, canonical: &[u8]) -> Option<Location>;
    /// Symbolic links to a canonical path in the directories where programs are looked for.
    fn aliases(&mut self, canonical: &[u8]) -> Vec<Vec<u8>>;
    /// The file at a canonical path, if its contents have this hash.
    fn verify(&mut self, canonical: &[u8], sha256: &Sha256) -> Option<FileId>;
    /// Number of a user.
    fn uid(&mut self, user: &UserRef) -> Option<u32>;
    /// Whole ids of the containers here whose id starts so.
    fn containers(&mut self, start: &str) -> Vec<String>;
}

/// What stands in the kernel. Plain data; two equal images need no change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MatchImage {
    /// Executables and scripts by place. At most [`MATCHES`] alternatives each, the closest first.
    pub paths: BTreeMap<Location, Vec<MatchEntry>>,
    /// Scripts by the text passed to `execve`, for hosts where the kernel does not show the script.
    pub exec_texts: BTreeMap<Vec<u8>, Vec<MatchEntry>>,
    /// Users, by real uid.
    pub users: BTreeMap<u32, Vec<MatchEntry>>,
    /// cgroups, by whole path or by the last component.
    pub cgroups: BTreeMap<CgroupName, CgroupEntry>,
    /// `RUN_*` bits of what there is.
    pub flags: u32,
}

/// How a cgroup is named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CgroupName {
    /// Path from the v2 root.
    Path(String),
    /// Last component, wherever it is except below `/user.slice`.
    Leaf(String),
}

/// Image, matcher, and what could not be done as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    /// For the kernel.
    pub image: MatchImage,
    /// For user space.
    pub matcher: Matcher,
    /// Sentences for the log and the status.
    pub notes: Vec<String>,
}

/// Compiles the records. Agents must have been registered in `agents`.
#[must_use]
pub fn compile(records: &[Record], agents: &Agents, host: &mut dyn Resolve) -> Compiled {
    let mut compiler = Compiler {
        host,
        claims: Vec::new(),
        rules: Vec::new(),
        conditions: BTreeMap::new(),
        notes: Vec::new(),
        flags: 0,
    };
    for record in records {
        let id = record.id.value.as_str();
        let Some(agent) = agents.index(id) else { continue };
        for found in record.matches.iter().filter(|found| !found.value.launch) {
            compiler.add(agent, id, &found.value);
        }
    }
    compiler.finish()
}

/// cgroup conditions that the kernel tells apart (a bit each, bit 0 unused).
const CONDITIONS_MAX: usize = 63;

/// Where a rule stands in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Path(Location),
    Text(Vec<u8>),
    User(u32),
    Cgroup(CgroupName),
}

/// A rule that claims a slot.
struct Claim {
    rank: MatchRank,
    agent: u32,
    label: String,
    slot: Slot,
    entry: MatchEntry,
}

struct Compiler<'a> {
    host: &'a mut dyn Resolve,
    claims: Vec<Claim>,
    rules: Vec<Rule>,
    /// cgroup conditions that other rules ask for.
    conditions: BTreeMap<Vec<CgroupName>, u32>,
    notes: Vec<String>,
    flags: u32,
}

impl Compiler<'_> {
    fn add(&mut self, agent: u32, id: &str, found: &Match) {
        let label = format!("{id} {}", found.name);
        let uid = match &found.user {
            None => None,
            Some(user) => match self.host.uid(&user.value) {
                Some(uid) => Some(uid),
                None => {
                    return self
                        .notes
                        .push(format!("{label}: no user {}, the match is not in force", user.value));
                }
            },
        };
        let program = found.script.as_ref().or(found.exe.as_ref()).map(|path| path.value.as_bytes().to_vec());
        let canonical = program.as_deref().map(|path| self.host.canonical(path));
        let mut file = None;
        if let (Some(sha256), Some(path)) = (&found.sha256, &canonical) {
            file = self.host.verify(path, &sha256.value);
            if file.is_none() {
                return self
                    .notes
                    .push(format!("{label}: the file does not have the SHA-256 asked for, not in force"));
            }
        }
        let late = self.claim(agent, &label, found, uid, canonical.as_deref(), file);
        if late {
            self.flags |= RUN_ARGV_RULES;
        }
        let mut paths = |path: &Option<crate::registry::Located<String>>| {
            path.as_ref().map(|path| {
                let written = path.value.as_bytes().to_vec();
                BTreeSet::from([self.host.canonical(&written), written])
            })
        };
        self.rules.push(Rule {
            agent,
            rank: found.rank(),
            exe: paths(&found.exe),
            script: paths(&found.script),
            argv: found.argv.as_ref().map(|argv| argv.value.clone()),
            uid,
            cgroup: found.cgroup.as_ref().map(|cgroup| cgroup.value.clone()),
            unit: found.unit.as_ref().map(|unit| unit.value.clone()),
            container: found.container.as_ref().map(|container| container.value.clone()),
            file,
            late,
        });
    }

    /// Claims the rule's slots in the kernel. True when user space has to compare it as well.
    fn claim(
        &mut self,
        agent: u32,
        label: &str,
        found: &Match,
        uid: Option<u32>,
        canonical: Option<&[u8]>,
        file: Option<FileId>,
    ) -> bool {
        let places = usize::from(found.cgroup.is_some())
            + usize::from(found.unit.is_some())
            + usize::from(found.container.is_some());
        if found.argv.is_some() || (found.exe.is_some() && found.script.is_some()) || places > 1 {
            return true;
        }
        let mut entry = MatchEntry {
            ino: file.map_or(0, |file| file.ino),
            ctime_sec: file.map_or(0, |file| file.ctime_sec),
            ctime_nsec: file.map_or(0, |file| file.ctime_nsec),
            agent,
            uid: uid.unwrap_or(0),
            cgroup_rule: 0,
            flags: if file.is_some() { NEED_INODE } else { 0 },
            bound_by: bound_by(found) as u32,
        };
        if uid.is_some() {
            entry.flags |= NEED_USER;
        }
        let groups = self.cgroup_names(found);
        let rank = found.rank();
        let mut push = |slot, entry| {
            self.claims.push(Claim { rank, agent, label: label.to_owned(), slot, entry });
        };
        let Some(canonical) = canonical else {
            match (groups.is_empty(), uid) {
                (false, _) => groups.into_iter().for_each(|name| push(Slot::Cgroup(name), entry)),
                (true, Some(uid)) => push(Slot::User(uid), entry),
                (true, None) => {}
            }
            return false;
        };
        if !groups.is_empty()
            && self.conditions.len() >= CONDITIONS_MAX
            && !self.conditions.contains_key(&groups)
        {
            self.notes.push(format!(
                "{label}: more than {CONDITIONS_MAX} cgroup conditions, matched in user space"
            ));
            return true;
        }
        if !groups.is_empty() {
            let next = u32::try_from(self.conditions.len()).unwrap_or(u32::MAX).saturating_add(1);
            entry.cgroup_rule = *self.conditions.entry(groups).or_insert(next);
            entry.flags |= NEED_CGROUP;
        }
        entry.flags |= if found.script.is_some() { AS_SCRIPT } else { AS_EXE };
        let location = self.host.locate(canonical);
        let mut push = |slot| self.claims.push(Claim { rank, agent, label: label.to_owned(), slot, entry });
        match location {
            Some(location) => push(Slot::Path(location)),
            None => self
                .notes
                .push(format!("{label}: its file system is not mounted here, matched in user space")),
        }
        if let Some(script) = &found.script {
            let mut texts: BTreeSet<Vec<u8>> = self.host.aliases(canonical).into_iter().collect();
            texts.extend([canonical.to_vec(), script.value.as_bytes().to_vec()]);
            texts.into_iter().for_each(|text| push(Slot::Text(text)));
        }
        // An interpreter may be given the script as an argument, which the kernel does not see.
        found.script.is_some() || self.claims.last().is_none_or(|claim| claim.label != label)
    }

    fn cgroup_names(&mut self, found: &Match) -> Vec<CgroupName> {
        if let Some(path) = &found.cgroup {
            let path = path.value.trim_end_matches('/');
            return vec![CgroupName::Path(if path.is_empty() { "/".to_owned() } else { path.to_owned() })];
        }
        if let Some(unit) = &found.unit {
            return vec![CgroupName::Leaf(unit.value.clone())];
        }
        let Some(id) = &found.container else { return Vec::new() };
        let mut ids = if id.value.len() == 64 { Vec::new() } else { self.host.containers(&id.value) };
        ids.push(id.value.clone());
        ids.iter().flat_map(|id| container::container_leaves(id)).map(CgroupName::Leaf).collect()
    }

    fn finish(mut self) -> Compiled {
        // Closest first; between equals the order of agent ids, in which the records come.
        self.claims.sort_by_key(|claim| std::cmp::Reverse(claim.rank));
        let mut image = MatchImage { flags: self.flags, ..MatchImage::default() };
        for (groups, condition) in &self.conditions {
            for name in groups {
                let entry = image.cgroups.entry(name.clone()).or_insert(EMPTY);
                match entry.rules.iter_mut().find(|rule| **rule == 0) {
                    Some(free) => *free = *condition,
                    None => {
                        self.notes.push(format!("{name:?}: more than {MATCHES} conditions on one cgroup"))
                    }
                }
            }
        }
        for claim in &self.claims {
            if !place(&mut image, claim) {
                self.notes.push(format!(
                    "{}: too many agents claim the same {}",
                    claim.label,
                    claim.slot.name()
                ));
                image.flags |= RUN_ARGV_RULES;
                for rule in self.rules.iter_mut().filter(|r| r.agent == claim.agent && r.rank == claim.rank) {
                    rule.late = true;
                }
            }
        }
        Compiled { image, matcher: Matcher::new(self.rules), notes: self.notes }
    }
}

impl Slot {
    fn name(&self) -> &'static str {
        match self {
            Self::Path(_) => "file",
            Self::Text(_) => "script name",
            Self::User(_) => "user",
            Self::Cgroup(_) => "cgroup",
        }
    }
}

const EMPTY: CgroupEntry = CgroupEntry { agent: 0, bound_by: 0, rules: [0; MATCHES], uid: 0, need_user: 0 };

/// Puts a claim into the image. False when there is no room.
fn place(image: &mut MatchImage, claim: &Claim) -> bool {
    let (entries, flag) = match &claim.slot {
        Slot::Path(location) => (image.paths.entry(location.clone()).or_default(), RUN_PATH_RULES),
        Slot::Text(text) => (image.exec_texts.entry(text.clone()).or_default(), RUN_PATH_RULES),
        Slot::User(uid) => (image.users.entry(*uid).or_default(), RUN_USER_RULES),
        Slot::Cgroup(name) => {
            image.flags |= RUN_CGROUP_RULES;
            let entry = image.cgroups.entry(name.clone()).or_insert(EMPTY);
            let free = entry.agent == 0 || entry.agent == claim.agent;
            if entry.agent == 0 {
                entry.agent = claim.agent;
                entry.bound_by = claim.entry.bound_by;
                entry.uid = claim.entry.uid;
                entry.need_user = u32::from(claim.entry.flags & NEED_USER != 0);
            }
            return free;
        }
    };
    image.flags |= flag;
    if claim.entry.flags & NEED_CGROUP != 0 {
        image.flags |= RUN_CGROUP_RULES;
    }
    if entries.len() < MATCHES {
        entries.push(claim.entry);
        return true;
    }
    false
}

fn bound_by(found: &Match) -> BoundBy {
    if found.script.is_some() {
        BoundBy::Script
    } else if found.exe.is_some() {
        BoundBy::Exe
    } else if found.container.is_some() {
        BoundBy::Container
    } else if found.unit.is_some() {
        BoundBy::Unit
    } else if found.cgroup.is_some() {
        BoundBy::Cgroup
    } else {
        BoundBy::User
    }
}

pub mod shadow;

#[cfg(test)]
mod tests;
