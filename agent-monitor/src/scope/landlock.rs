//! What of a scope Landlock can hold for a launched process, at level partial.
//!
//! Landlock lists what is allowed, by directory or file; all else is refused. So it holds a scope whose default stops,
//! but no stop inside an allowed directory and no rule by name. Where a rule and Landlock differ, the plan allows rather
//! than refuses what the scope allows, and says what is not held. Pure: what is there now is asked of the caller.

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

/// A declared rule that is not held, or not exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NotHeld {
    /// The rule's name.
    pub rule: String,
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
            making.differs(
                &rule.name,
                "the scope's default permits, and Landlock can only list what is allowed",
            );
        }
    } else {
        making.plan.applies = true;
        for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.verdict.permits()) {
            making.permit(rule, &overruled(&rules, at));
        }
        rules.iter().filter(|rule| !rule.verdict.permits()).for_each(|rule| making.stop(rule));
        making.differs(
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
    fn differs(&mut self, rule: &str, why: impl Into<String>) {
        self.plan.not_held.push(NotHeld { rule: rule.to_owned(), why: why.into() });
    }

    /// What is refused although a rule of the record allows it. Base sets name what a host may have.
    fn absent(&mut self, rule: &Rule<'_>, why: String) {
        if rule.own {
            self.differs(&rule.name, why);
        }
    }

    fn collect<'a>(&mut self, scope: &'a Scope, base: Option<&str>, rules: &mut Vec<Rule<'a>>) {
        let own = base.is_none();
        let name = |name: &str| match base {
            Some(base) => name.replacen("scope.", &format!("base.{base}."), 1),
            None => name.to_owned(),
        };
        for rule in scope.file.iter().map(|rule| &rule.value) {
            let needs = rule.access.iter().map(|access| need(*access)).collect();
            let (name, verdict) = (name(&rule.name), rule.effect.verdict);
            if self.counts(&name, &rule.effect) {
                rules.push(Rule { name, path: &rule.path.value, needs, verdict, own });
            }
        }
        for rule in scope.exec.iter().map(|rule| &rule.value) {
            let (name, verdict) = (name(&rule.name), rule.effect.verdict);
            if rule.argv.is_some() {
                self.differs(&name, "arguments are not looked at");
            } else if self.counts(&name, &rule.effect) {
                rules.push(Rule {
                    name,
                    path: &rule.path.value,
                    needs: BTreeSet::from([Need::Run]),
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
            self.differs(name, "labels are not followed, so it permits nothing");
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
                    self.differs(
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
                self.differs(&rule.name, why);
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
            self.differs(&rule.name, format!("directories below {path} can be listed too"));
        }
        let name = needs.iter().copied().filter(|need| matches!(need, Need::Create | Need::Delete)).collect();
        self.entry(rule, path, name);
    }

    fn entry(&mut self, rule: &Rule<'_>, path: &str, needs: BTreeSet<Need>) {
        if !needs.is_empty() {
            let parent = parent(path);
            self.differs(&rule.name, format!("create and delete hold for all of {parent}"));
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
            let listing = rule.needs.contains(&Need::Read) && needs.contains(&Need::List);
            listing || !needs.is_disjoint(&rule.needs)
        };
        let open = self.plan.allow.iter().find(|(path, needs)| grants(needs) && inside(path));
        if let Some((path, _)) = open {
            let why = format!("{} is not stopped inside {path}, which is allowed", rule.path);
            self.differs(&rule.name, why);
        }
    }
}

fn need(access: FileAccess) -> Need {
    match access {
        FileAccess::Create => Need::Create,
        FileAccess::Delete => Need::Delete,
        // The loader of a program is mapped, but Landlock sees it as run.
        FileAccess::ExecuteMap => Need::Run,
        FileAccess::Read => Need::Read,
        FileAccess::Write => Need::Write,
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
