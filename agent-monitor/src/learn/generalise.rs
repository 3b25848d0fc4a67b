//! From single paths to subtrees, only where that says no more than what was seen makes likely.
//!
//! A directory becomes `/dir/**` for an access when enough of its entries were used so, and only below a place that
//! belongs to one purpose: never a root of the system or of a home, never a place of settings or secrets. What was not
//! seen below it is opened too, so the bar is high and each such rule says what it stands for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::seen::{Accesses, Seen};
use crate::scope::{FileAccess, PathPattern};

/// Entries of one directory that must have been used alike.
pub const SIBLINGS: usize = 4;

/// First components below which nothing is generalised: settings, devices, the kernel's own trees.
const CLOSED: [&str; 8] = ["boot", "dev", "etc", "lost+found", "proc", "run", "snap", "sys"];
/// Names that are roots of many purposes wherever they stand near the top.
const SHARED: [&str; 14] = [
    "bin", "games", "include", "lib", "lib32", "lib64", "libexec", "libx32", "local", "log", "sbin", "share",
    "spool", "src",
];
/// Names of places that hold secrets or settings, at any depth.
const SECRET: [&str; 14] = [
    ".aws",
    ".azure",
    ".config",
    ".docker",
    ".gcloud",
    ".gnupg",
    ".kube",
    ".local",
    ".mozilla",
    ".netrc",
    ".password-store",
    ".pki",
    ".ssh",
    "secrets",
];
/// Hidden directories of a home that hold programs and caches, not settings.
const TOOLS: [&str; 9] = [".bun", ".cache", ".cargo", ".deno", ".npm", ".nvm", ".pyenv", ".rbenv", ".rustup"];
/// Directories where programs make files under names of the moment.
pub const TEMPORARY: [&str; 3] = ["/dev/shm", "/tmp", "/var/tmp"];

/// A rule about files to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProposal {
    /// Which files.
    pub path: PathPattern,
    /// Accesses, and how often each was seen.
    pub access: Accesses,
    /// What a subtree stands for.
    pub why: Option<String>,
}

/// Rules for what was seen. `created` are paths that the agent itself made.
pub fn generalise(
    files: BTreeMap<String, Accesses>,
    created: &BTreeSet<String>,
    siblings: usize,
) -> Vec<FileProposal> {
    let mut work = Work { exact: files, subtrees: BTreeMap::new() };
    for directory in TEMPORARY {
        work.temporary(directory, created);
    }
    work.siblings(siblings.max(2));
    work.prune();
    let Work { exact, subtrees } = work;
    let exact = exact.into_iter().filter(|(_, access)| !access.is_empty());
    let exact =
        exact.map(|(path, access)| FileProposal { path: PathPattern::Exact(path), access, why: None });
    let subtrees = subtrees.into_iter().map(|(path, (access, why))| FileProposal {
        path: PathPattern::Subtree(path),
        access,
        why: Some(why),
    });
    let mut all: Vec<FileProposal> = subtrees.chain(exact).collect();
    all.sort_by(|a, b| text(&a.path).cmp(text(&b.path)));
    all
}

fn text(path: &PathPattern) -> &str {
    match path {
        PathPattern::Exact(text)
        | PathPattern::Subtree(text)
        | PathPattern::Name(text)
        | PathPattern::Extension(text) => text,
    }
}

/// Paths on their way to rules.
struct Work {
    exact: BTreeMap<String, Accesses>,
    subtrees: BTreeMap<String, (Accesses, String)>,
}

/// What was used of a directory's entries, per access.
#[derive(Default)]
struct Used<'a> {
    /// Entries that are used themselves.
    own: BTreeSet<&'a str>,
    /// Entries below which something is used.
    below: BTreeSet<&'a str>,
}

impl Work {
    /// Files in a directory for temporary files that the agent made and that come under other names each time.
    fn temporary(&mut self, directory: &str, created: &BTreeSet<String>) {
        let prefix = format!("{directory}/");
        let top = |path: &str| Some(path.strip_prefix(&prefix)?.split('/').next()?.to_owned());
        let made: BTreeSet<String> = created
            .range(prefix.clone()..)
            .map_while(|path| top(path))
            // Under a directory that was not made by the agent only what it made is known to be its own.
            .filter(|name| created.contains(&format!("{prefix}{name}")))
            .collect();
        let removed = |name: &String| {
            let access = self.exact.get(&format!("{prefix}{name}"));
            access.is_some_and(|access| access.contains_key(&FileAccess::Delete))
        };
        if made.len() < 2 && !made.iter().any(removed) {
            return;
        }
        let mut whole = Accesses::new();
        for (path, access) in self.exact.range_mut(prefix.clone()..) {
            match top(path) {
                Some(name) if made.contains(&name) => merge(&mut whole, &std::mem::take(access)),
                Some(_) => {}
                None => break,
            }
        }
        let why = format!("{} temporary names that the agent made", made.len());
        self.add(directory, whole, why);
    }

    /// The deepest directories first, so that what they became counts as one entry of those above.
    fn siblings(&mut self, enough: usize) {
        let mut left: BTreeSet<(Reverse<usize>, String)> = BTreeSet::new();
        for path in self.exact.keys() {
            let above = ancestors(path).filter(|directory| may(directory));
            left.extend(above.map(|directory| (Reverse(depth(directory)), directory.to_owned())));
        }
        for (_, directory) in left {
            let chosen = self.chosen(&directory, enough);
            if chosen.is_empty() {
                continue;
            }
            let entries = chosen.values().copied().max().unwrap_or_default();
            let whole = self.take_below(&directory, &chosen);
            self.add(&directory, whole, format!("{entries} entries used alike"));
        }
    }

    /// Accesses that enough entries of the directory were used for, with how many.
    fn chosen(&self, directory: &str, enough: usize) -> BTreeMap<FileAccess, usize> {
        let mut used: BTreeMap<FileAccess, Used<'_>> = BTreeMap::new();
        let prefix = format!("{directory}/");
        let exact = self.exact.range(prefix.clone()..).map(|(path, access)| (path, access, false));
        let trees = self.subtrees.range(prefix.clone()..).map(|(path, (access, _))| (path, access, true));
        let within = exact.take_while(|(path, ..)| path.starts_with(&prefix));
        let within = within.chain(trees.take_while(|(path, ..)| path.starts_with(&prefix)));
        for (path, access, tree) in within {
            let rest = path.strip_prefix(&prefix).unwrap_or_default();
            let (name, deeper) = rest.split_once('/').map_or((rest, false), |(name, _)| (name, true));
            for access in access.keys() {
                let used = used.entry(*access).or_default();
                if deeper || tree {
                    used.below.insert(name)
                } else {
                    used.own.insert(name)
                };
            }
        }
        // Entries that are directories stand for more than themselves: twice as many are wanted.
        let count = |used: &Used<'_>| {
            let all = used.own.union(&used.below).count();
            (used.own.len() >= enough || all >= 2 * enough).then_some(all)
        };
        used.iter().filter_map(|(access, used)| Some((*access, count(used)?))).collect()
    }

    /// Takes these accesses away from all that lies below the directory, and from itself.
    fn take_below(&mut self, directory: &str, chosen: &BTreeMap<FileAccess, usize>) -> Accesses {
        let prefix = format!("{directory}/");
        let inside = |path: &str| path == directory || path.starts_with(&prefix);
        let mut whole = Accesses::new();
        let mut drain = |access: &mut Accesses| {
            let taken = access.extract_if(.., |access, _| chosen.contains_key(access)).collect();
            merge(&mut whole, &taken);
        };
        let exact =
            self.exact.range_mut(directory.to_owned()..).take_while(|(path, _)| path.starts_with(directory));
        exact.filter(|(path, _)| inside(path)).for_each(|(_, access)| drain(access));
        let trees = self.subtrees.range_mut(directory.to_owned()..);
        let trees =
            trees.take_while(|(path, _)| path.starts_with(directory)).filter(|(path, _)| inside(path));
        trees.for_each(|(_, (access, _))| drain(access));
        self.subtrees.retain(|_, (access, _)| !access.is_empty());
        whole
    }

    /// Drops what a subtree above grants already.
    fn prune(&mut self) {
        let wide: BTreeMap<String, BTreeSet<FileAccess>> = self
            .subtrees
            .iter()
            .map(|(path, (access, _))| (path.clone(), access.keys().copied().collect()))
            .collect();
        let granted = |path: &str, access: &FileAccess| {
            ancestors(path).any(|above| wide.get(above).is_some_and(|granted| granted.contains(access)))
        };
        for (path, access) in &mut self.exact {
            let own = |access: &FileAccess| wide.get(path).is_some_and(|granted| granted.contains(access));
            access.retain(|access, _| !own(access) && !granted(path, access));
        }
        for (path, (access, _)) in &mut self.subtrees {
            access.retain(|access, _| !granted(path, access));
        }
        self.subtrees.retain(|_, (access, _)| !access.is_empty());
    }

    fn add(&mut self, directory: &str, access: Accesses, why: String) {
        if access.is_empty() {
            return;
        }
        let (known, _) = self.subtrees.entry(directory.to_owned()).or_insert_with(|| (Accesses::new(), why));
        merge(known, &access);
    }
}

fn merge(into: &mut Accesses, from: &Accesses) {
    for (access, seen) in from {
        into.entry(*access).and_modify(|known: &mut Seen| *known = known.and(*seen)).or_insert(*seen);
    }
}

fn depth(path: &str) -> usize {
    path.matches('/').count()
}

/// The directories above a path, nearest first, without the root.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(parent(path), |path| parent(path))
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent).filter(|parent| !parent.is_empty())
}

/// Whether `directory/**` would stand for one purpose only.
#[must_use]
pub fn may(directory: &str) -> bool {
    let names: Vec<&str> = directory.split('/').filter(|name| !name.is_empty()).collect();
    if names.len() < 2 || names.iter().any(|name| SECRET.contains(name)) || TEMPORARY.contains(&directory) {
        return false;
    }
    let last = names.last().copied().unwrap_or_default();
    match names.as_slice() {
        [top, ..] if CLOSED.contains(top) => false,
        // Binaries and libraries of the system: each directory has many owners.
        ["usr" | "lib" | "lib32" | "lib64" | "bin" | "sbin", rest @ ..] => {
            rest.len() >= 2 && !SHARED.contains(&last) && !last.ends_with("-linux-gnu")
        }
        ["var", rest @ ..] => rest.len() >= 2 && !SHARED.contains(&last),
        ["opt", _, ..] => true,
        ["home", _, rest @ ..] | ["root", rest @ ..] => match rest {
            [] => false,
            [tool, deeper @ ..] if TOOLS.contains(tool) => !deeper.is_empty(),
            [hidden, ..] => !hidden.starts_with('.'),
        },
        _ => true,
    }
}

#[cfg(test)]
mod tests;
