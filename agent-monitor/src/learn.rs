//! From what an agent was seen to do to the smallest scope that lets it go on doing so.
//!
//! Pure: events in, a proposal out. Wider than what was seen only where [`generalise`] and [`peers`] say so, and then
//! with a word on why. What the declared scope stops stays stopped; what was refused is not learned.

pub mod completeness;
pub mod declared;
pub mod generalise;
pub mod peers;
pub mod seen;
pub mod write;

use std::collections::{BTreeMap, BTreeSet};

use self::completeness::Book;
pub use self::completeness::Completeness;
use self::declared::{Declared, permits_exec, permits_file};
use self::generalise::FileProposal;
use self::peers::PeerProposal;
use self::seen::{Accesses, Activity, Seen};
use crate::model::{Event, Time};
use crate::scope::{FileAccess, NetAction, PathPattern, PrivilegeKind, Scope};

/// Rules of its own that a base set must save before it is worth pulling in.
pub const BASE_WORTH: usize = 3;

/// What a proposal is made from.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The agent.
    pub agent: &'a str,
    /// Nothing before this counts.
    pub since: Option<Time>,
    /// The scope declared so far, where there is one.
    pub declared: Option<&'a Scope>,
    /// Named sets that may be used, in the order in which they are tried.
    pub bases: &'a [(String, Scope)],
    /// Entries of one directory that become a subtree.
    pub siblings: usize,
}

/// A scope to be.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The agent.
    pub agent: String,
    /// Time of the first and of the last event.
    pub span: Option<(Time, Time)>,
    /// Base sets that cover some of what was seen, with how many accesses.
    pub base: Vec<(String, usize)>,
    /// Rules about files.
    pub file: Vec<FileProposal>,
    /// Rules about programs; all exact.
    pub exec: BTreeMap<String, Seen>,
    /// Rules about the network.
    pub net: Vec<(String, BTreeSet<NetAction>, Seen, Option<String>)>,
    /// Powers.
    pub powers: BTreeMap<PrivilegeKind, Seen>,
    /// Capabilities, by number.
    pub capabilities: BTreeMap<usize, Seen>,
    /// Declared rules that stay.
    pub kept: Scope,
    /// What the declared scope forbids by rule and that happened all the same, with how often.
    pub forbidden: BTreeMap<String, u64>,
    /// Events that were refused.
    pub refused: u64,
    /// What is known to be missing.
    pub completeness: Completeness,
}

/// Takes in events one by one.
#[derive(Debug)]
pub struct Learner<'a> {
    request: Request<'a>,
    declared: Declared,
    activity: Activity,
    created: BTreeSet<String>,
    book: Book,
}

impl<'a> Learner<'a> {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(request: Request<'a>) -> Self {
        let declared = request.declared.map_or_else(Declared::default, Declared::of);
        let (activity, created, book) = (Activity::default(), BTreeSet::new(), Book::default());
        Self { request, declared, activity, created, book }
    }

    /// Takes in one event of any agent, or a gap.
    pub fn take(&mut self, event: &Event) {
        let since = self.request.since;
        let end = event.gap.as_ref().map_or(event.time, |gap| gap.last);
        if since.is_some_and(|since| end < since) {
            return;
        }
        self.book.take(event, self.request.agent);
        if event.agent.as_ref().is_some_and(|agent| agent.id == self.request.agent) {
            self.activity.take(event, &self.declared);
        }
    }

    /// The proposal.
    #[must_use]
    pub fn finish(self) -> Proposal {
        let Self { request, declared, mut activity, mut created, book } = self;
        let made = activity.files.iter().filter(|(_, access)| access.contains_key(&FileAccess::Create));
        created.extend(made.map(|(path, _)| path.clone()));
        let mut files = std::mem::take(&mut activity.files);
        let mut exec = std::mem::take(&mut activity.exec);
        let mut scopes: Vec<&Scope> = vec![&declared.kept];
        drop_covered(&mut files, &mut exec, &scopes);
        let mut base = Vec::new();
        // Programs are named one by one: a set that opens whole directories of them is for people to choose.
        for (name, set) in request.bases.iter().filter(|(_, set)| set.exec.is_empty()) {
            let with: Vec<&Scope> = scopes.iter().copied().chain([set]).collect();
            let covered = covered(&files, &exec, &with);
            if covered >= BASE_WORTH {
                base.push((name.clone(), covered));
                scopes = with;
                drop_covered(&mut files, &mut exec, &scopes);
            }
        }
        // A program that may be run may be mapped; this needs no rule of its own.
        for (path, access) in &mut files {
            if exec.contains_key(path) {
                access.remove(&FileAccess::ExecuteMap);
            }
        }
        files.retain(|path, access| {
            let passing = of_one_process(path);
            if passing {
                activity.leave_out("a place of one process (/proc/PID)");
            }
            !passing && !access.is_empty()
        });
        let completeness = book.close(activity.events, std::mem::take(&mut activity.left_out));
        Proposal {
            agent: request.agent.to_owned(),
            span: activity.span,
            base,
            file: generalise::generalise(files, &created, request.siblings),
            exec,
            net: net(&activity),
            powers: activity.powers,
            capabilities: activity.capabilities,
            kept: declared.kept,
            forbidden: activity.forbidden,
            refused: activity.refused,
            completeness,
        }
    }
}

/// How many accesses and programs these scopes permit.
fn covered(files: &BTreeMap<String, Accesses>, exec: &BTreeMap<String, Seen>, scopes: &[&Scope]) -> usize {
    let accesses = |(path, access): (&String, &Accesses)| {
        access.keys().filter(|access| permits_file(scopes, path, **access)).count()
    };
    files.iter().map(accesses).sum::<usize>() + exec.keys().filter(|path| permits_exec(scopes, path)).count()
}

fn drop_covered(
    files: &mut BTreeMap<String, Accesses>,
    exec: &mut BTreeMap<String, Seen>,
    scopes: &[&Scope],
) {
    files.retain(|path, access| {
        access.retain(|access, _| !permits_file(scopes, path, *access));
        !access.is_empty()
    });
    exec.retain(|path, _| !permits_exec(scopes, path));
}

/// Whether the path names one process, so that another run has another.
fn of_one_process(path: &str) -> bool {
    let name = path.strip_prefix("/proc/").and_then(|rest| rest.split('/').next());
    name.is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()))
}

fn net(activity: &Activity) -> Vec<(String, BTreeSet<NetAction>, Seen, Option<String>)> {
    let inet = peers::summarise(&activity.net).into_iter();
    let inet =
        inet.map(|(PeerProposal { to, action }, (seen, why))| (to, seen::net_action(action), seen, why));
    let unix = activity.unix.iter().map(|((to, action), seen)| (to.clone(), *action, *seen, None));
    let mut rules: BTreeMap<String, (BTreeSet<NetAction>, Seen, Option<String>)> = BTreeMap::new();
    for (to, action, seen, why) in inet.chain(unix) {
        let rule =
            rules.entry(to).or_insert_with(|| (BTreeSet::new(), Seen { count: 0, last: seen.last }, None));
        rule.0.insert(action);
        rule.1 = rule.1.and(seen);
        rule.2 = rule.2.take().or(why);
    }
    rules.into_iter().map(|(to, (actions, seen, why))| (to, actions, seen, why)).collect()
}

impl Proposal {
    /// How many rules it has of its own.
    #[must_use]
    pub fn rules(&self) -> usize {
        let powers = self.powers.len() + usize::from(!self.capabilities.is_empty());
        self.file.len() + self.exec.len() + self.net.len() + powers
    }

    /// Whether it has more rules of one family than a record may hold.
    #[must_use]
    pub fn too_many(&self) -> bool {
        let most =
            [self.file.len() + self.kept.file.len(), self.exec.len() + self.kept.exec.len(), self.net.len()];
        most.into_iter().any(|rules| rules > crate::scope::parse::MAX_RULES)
    }

    /// The subtrees that it opens.
    pub fn subtrees(&self) -> impl Iterator<Item = &FileProposal> {
        self.file.iter().filter(|rule| matches!(rule.path, PathPattern::Subtree(_)))
    }
}

#[cfg(test)]
mod tests;
