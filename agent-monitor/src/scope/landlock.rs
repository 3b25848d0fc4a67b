//! What of a scope Landlock can hold for a launched process, at level partial.
//!
//! Landlock lists what is allowed, by directory or file; all else is refused. So it holds a scope whose default stops,
//! but no stop inside an allowed directory and no rule by name. Where a rule and Landlock differ, the plan names the rule
//! and whether it permits more ([`Differs::Wider`]) or less ([`Differs::Narrower`]) than is written: a record that does not
//! accept that is refused. Mapping a file as code is no right of Landlock's, and is never turned into the right to run it;
//! only the loaders of dynamically linked programs, which the kernel itself runs, get that right. Pure: what is there now
//! is asked of the caller.

use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, FileAccess, PathPattern, Scope, Verdict};

/// What a directory or file is allowed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// Read files, list directories.
    Read,
    /// List directories.
    List,
    /// Change contents.
    Write,
    /// Make entries.
    Create,
    /// Remove entries.
    Delete,
    /// Run programs.
    Run,
}

/// What stands at a path now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A directory.
    Directory,
    /// Anything else.
    File,
    /// Nothing.
    Nothing,
}

/// In which direction Landlock differs from a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Differs {
    /// It permits more than the rule.
    Wider,
    /// It refuses what the rule permits.
    Narrower,
}

/// Loaders of dynamically linked programs, which the kernel runs in front of them.
const LOADERS: [&str; 14] = [
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-linux-armhf.so.3",
    "/lib/ld-linux-riscv64-lp64d.so.1",
    "/lib/ld-linux.so.2",
    "/lib/ld-linux.so.3",
    "/lib/ld-musl-aarch64.so.1",
    "/lib/ld-musl-armhf.so.1",
    "/lib/ld-musl-i386.so.1",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld64.so.1",
    "/lib64/ld-linux-loongarch-lp64d.so.1",
    "/lib64/ld-linux-x86-64.so.2",
    "/lib64/ld64.so.1",
    "/lib64/ld64.so.2",
];

/// A declared rule that is not held, or not exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NotHeld {
    /// The rule's name.
    pub rule: String,
    /// Whether more is permitted or less.
    pub differs: Differs,
    /// What is different.
    pub why: String,
}

/// What to do before the command is run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Whether Landlock is of use: the scope's default stops.
    pub applies: bool,
    /// Directories, with all below them, and files, with what they are allowed for.
    pub allow: BTreeMap<String, BTreeSet<Need>>,
    /// What is not held, in words.
    pub not_held: Vec<NotHeld>,
}

/// A rule of either family.
struct Rule<'a> {
    name: String,
    path: &'a PathPattern,
    needs: BTreeSet<Need>,
    /// It is about mapping as code too.
    maps: bool,
    verdict: Verdict,
    own: bool,
}

/// Plans for a scope with the base sets it pulls in.
pub fn plan(scope: &Scope, bases: &[(String, Scope)], look: &dyn Fn(&str) -> Found) -> Plan {
    let mut making = Making { plan: Plan::default(), look };
    let mut rules = Vec::new();
    making.collect(scope, None, &mut rules);
    for (name, set) in bases.iter().filter(|(name, _)| scope.base.iter().any(|base| base.value == *name)) {
        making.collect(set, Some(name), &mut rules);
    }
    if scope.default.permits() {
        for rule in rules.iter().filter(|rule| !rule.verdict.permits()) {
            making
                .wider(&rule.name, "the scope's default permits, and Landlock can only list what is allowed");
        }
    } else {
        making.plan.applies = true;
        for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.verdict.permits()) {
            making.permit(rule, &overruled(&rules, at));
        }
        making.loaders(&rules);
        rules.iter().filter(|rule| !rule.verdict.permits()).for_each(|rule| making.stop(rule));
        making.wider(
            "scope.default",
            "owner, mode and attributes of files, and mapping of readable files as code",
        );
    }
    let mut plan = making.plan;
    plan.not_held.sort();
    plan.not_held.dedup();
    plan
}

/// Needs of a permitting rule that another rule of the same pattern decides: a stricter one, or the record's own.
fn overruled(rules: &[Rule<'_>], at: usize) -> BTreeSet<Need> {
    let Some(rule) = rules.get(at) else { return BTreeSet::new() };
    let same = rules.iter().filter(|other| other.path == rule.path && !other.verdict.permits());
    let stronger = same.filter(|other| other.own >= rule.own);
    stronger.flat_map(|other| other.needs.iter().copied()).collect()
}

/// A plan in the making.
struct Making<'a> {
    plan: Plan,
    look: &'a dyn Fn(&str) -> Found,
}

impl Making<'_> {
    fn wider(&mut self, rule: &str, why: impl Into<String>) {
        self.differs(rule, Differs::Wider, why);
    }

    fn differs(&mut self, rule: &str, differs: Differs, why: impl Into<String>) {
        self.plan.not_held.push(NotHeld { rule: rule.to_owned(), differs, why: why.into() });
    }

    /// What is refused although a rule of the record allows it. Base sets name what a host may have.
    fn absent(&mut self, rule: &Rule<'_>, why: String) {
        if rule.own {
            self.differs(&rule.name, Differs::Narrower, why);
        }
    }

    /// The kernel runs the loader of a dynamically linked program, which for a rule is a mapping. The right to run it is
    /// given to the loader alone, never to the directory that the rule names.
    fn loaders(&mut self, rules: &[Rule<'_>]) {
        let named = rules.iter().filter_map(|rule| match rule.path {
            PathPattern::Exact(path) if rule.maps && is_loader(path) => Some(path.as_str()),
            PathPattern::Exact(_)
            | PathPattern::Subtree(_)
            | PathPattern::Name(_)
            | PathPattern::Extension(_) => None,
        });
        let known: BTreeSet<&str> = LOADERS.into_iter().chain(named).collect();
        for loader in known.into_iter().filter(|path| (self.look)(path) == Found::File) {
            // The closest rule decides, and of two equal ones the record's own, then the stricter.
            let about = rules.iter().filter(|rule| rule.maps);
            let fitting = about.filter_map(|rule| Some((reach(rule.path, loader)?, rule)));
            let closest = fitting.max_by_key(|(reach, rule)| (*reach, rule.own, !rule.verdict.permits()));
            if closest.is_some_and(|(_, rule)| rule.verdict.permits()) {
                self.allow(loader, [Need::Run]);
                let why = format!(
                    "what may be read can be run through the loader {loader}: Landlock sees no mapping"
                );
                self.wider("scope.default", why);
            }
        }
    }

    fn collect<'a>(&mut self, scope: &'a Scope, base: Option<&str>, rules: &mut Vec<Rule<'a>>) {
        let own = base.is_none();
        let name = |name: &str| match base {
            Some(base) => name.replacen("scope.", &format!("base.{base}."), 1),
            None => name.to_owned(),
        };
        for rule in scope.file.iter().map(|rule| &rule.value) {
            let needs: BTreeSet<Need> = rule.access.iter().filter_map(|access| need(*access)).collect();
            let maps = rule.access.contains(&FileAccess::ExecuteMap);
            let (name, verdict) = (name(&rule.name), rule.effect.verdict);
            if self.counts(&name, &rule.effect) {
                if maps && verdict.permits() && !needs.contains(&Need::Read) {
                    let why =
                        "a file is opened for reading before it is mapped, which the rule does not permit";
                    self.differs(&name, Differs::Narrower, why);
                }
                rules.push(Rule { name, path: &rule.path.value, needs, maps, verdict, own });
            }
        }
        for rule in scope.exec.iter().map(|rule| &rule.value) {
            let (name, verdict) = (name(&rule.name), rule.effect.verdict);
            if rule.argv.is_some() {
                let permits = rule.effect.verdict.permits();
                let differs = if permits { Differs::Narrower } else { Differs::Wider };
                self.differs(&name, differs, "arguments are not looked at, so the rule does not count");
            } else if self.counts(&name, &rule.effect) {
                rules.push(Rule {
                    name,
                    path: &rule.path.value,
                    needs: BTreeSet::from([Need::Run]),
                    maps: false,
                    verdict,
                    own,
                });
            }
        }
    }

    /// A rule that permits unless a label is there permits nothing while labels are not followed.
    fn counts(&mut self, name: &str, effect: &Effect) -> bool {
        let counts = effect.unless.is_empty() || !effect.verdict.permits();
        if !counts {
            self.differs(name, Differs::Narrower, "labels are not followed, so it permits nothing");
        }
        counts
    }

    fn allow(&mut self, path: &str, needs: impl IntoIterator<Item = Need>) {
        let needs: BTreeSet<Need> = needs.into_iter().collect();
        if !needs.is_empty() {
            self.plan.allow.entry(path.to_owned()).or_default().extend(needs);
        }
    }

    fn permit(&mut self, rule: &Rule<'_>, overruled: &BTreeSet<Need>) {
        let mut needs: BTreeSet<Need> = rule.needs.difference(overruled).copied().collect();
        // A program is opened for reading when it is run.
        if needs.contains(&Need::Run) {
            needs.insert(Need::Read);
        }
        match rule.path {
            PathPattern::Subtree(directory) => {
                let directory = if directory.is_empty() { "/" } else { directory.as_str() };
                match (self.look)(directory) {
                    Found::Directory => self.allow(directory, needs),
                    Found::File => self.file(rule, directory, &needs),
                    Found::Nothing => {
                        self.absent(
                            rule,
                            format!("{directory} is not there: what is made there later is refused"),
                        );
                    }
                }
            }
            PathPattern::Exact(path) => match (self.look)(path) {
                Found::Directory => self.directory(rule, path, &needs),
                Found::File => self.file(rule, path, &needs),
                Found::Nothing if needs.contains(&Need::Create) => {
                    let parent = parent(path);
                    self.allow(parent, needs);
                    self.wider(
                        &rule.name,
                        format!("{path} is not there yet, so it holds for all of {parent}"),
                    );
                }
                Found::Nothing => {
                    self.absent(rule, format!("{path} is not there: if it is made later, it is refused"));
                }
            },
            PathPattern::Name(_) | PathPattern::Extension(_) => {
                let why =
                    format!("{} is no place, so it is refused where no other rule allows it", rule.path);
                self.differs(&rule.name, Differs::Narrower, why);
            }
        }
    }

    /// A rule about one file: what is done to the name is done to its directory.
    fn file(&mut self, rule: &Rule<'_>, path: &str, needs: &BTreeSet<Need>) {
        let (name, own): (BTreeSet<Need>, BTreeSet<Need>) =
            needs.iter().copied().partition(|need| matches!(need, Need::Create | Need::Delete));
        self.allow(path, own);
        self.entry(rule, path, name);
    }

    /// A rule about a directory alone.
    fn directory(&mut self, rule: &Rule<'_>, path: &str, needs: &BTreeSet<Need>) {
        if needs.contains(&Need::Read) {
            self.allow(path, [Need::List]);
            self.wider(&rule.name, format!("directories below {path} can be listed too"));
        }
        let name = needs.iter().copied().filter(|need| matches!(need, Need::Create | Need::Delete)).collect();
        self.entry(rule, path, name);
    }

    fn entry(&mut self, rule: &Rule<'_>, path: &str, needs: BTreeSet<Need>) {
        if !needs.is_empty() {
            let parent = parent(path);
            self.wider(&rule.name, format!("create and delete hold for all of {parent}"));
            self.allow(parent, needs);
        }
    }

    /// A stop is held unless something allowed reaches into it.
    fn stop(&mut self, rule: &Rule<'_>) {
        let inside = |directory: &str| match rule.path {
            PathPattern::Exact(path) | PathPattern::Subtree(path) => {
                let prefix = if directory == "/" { "" } else { directory };
                path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            PathPattern::Name(_) | PathPattern::Extension(_) => true,
        };
        let grants = |needs: &BTreeSet<Need>| {
            let listing = (rule.needs.contains(&Need::Read) && needs.contains(&Need::List))
                || (rule.maps && needs.contains(&Need::Read));
            listing || !needs.is_disjoint(&rule.needs)
        };
        let open = self.plan.allow.iter().find(|(path, needs)| grants(needs) && inside(path));
        if let Some((path, _)) = open {
            let why = format!("{} is not stopped inside {path}, which is allowed", rule.path);
            self.wider(&rule.name, why);
        }
    }
}

/// The right that an access asks for; none for mapping, which Landlock does not see.
fn need(access: FileAccess) -> Option<Need> {
    match access {
        FileAccess::Create => Some(Need::Create),
        FileAccess::Delete => Some(Need::Delete),
        FileAccess::ExecuteMap => None,
        FileAccess::Read => Some(Need::Read),
        FileAccess::Write => Some(Need::Write),
    }
}

/// Whether a path that a rule names is that of a loader, by the name that all of them have.
fn is_loader(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    (name.starts_with("ld-") || name.starts_with("ld64") || name.starts_with("ld.so")) && name.contains(".so")
}

/// How closely a pattern fits a path: an exact path most, then the longest directory; `None` where it does not.
fn reach(pattern: &PathPattern, path: &str) -> Option<usize> {
    match pattern {
        PathPattern::Exact(exact) => (exact == path).then_some(usize::MAX),
        PathPattern::Subtree(directory) => {
            let below = path.strip_prefix(directory.as_str())?;
            (below.is_empty() || below.starts_with('/') || directory.is_empty()).then_some(directory.len())
        }
        // Names and endings are weaker than places in Landlock's plan: they permit nothing.
        PathPattern::Name(_) | PathPattern::Extension(_) => None,
    }
}

fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

#[cfg(test)]
mod tests;
