//! The scope as declared so far: what a proposal must not open, and what it need not say again.

use crate::scope::{
    Effect, ExecRule, FileAccess, FileRule, NetAction, NetPattern, NetRule, PathPattern, PrivilegeKind,
    PrivilegeRule, Scope,
};

/// Rules of a declared scope that a proposal keeps: those that stop, and those that carry labels.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    /// A scope with nothing but the kept rules.
    pub kept: Scope,
}

impl Declared {
    /// Takes the rules to keep from a scope, and its budgets.
    #[must_use]
    pub fn of(scope: &Scope) -> Self {
        let keep = |effect: &Effect| {
            !effect.verdict.permits() || !effect.adds.is_empty() || !effect.unless.is_empty()
        };
        let kept = Scope {
            declared: true,
            file: scope.file.iter().filter(|rule| keep(&rule.effect)).cloned().collect(),
            exec: scope.exec.iter().filter(|rule| keep(&rule.effect)).cloned().collect(),
            net: scope.net.iter().filter(|rule| keep(&rule.effect)).cloned().collect(),
            privilege: scope.privilege.iter().filter(|rule| keep(&rule.effect)).cloned().collect(),
            limits: scope.limits.clone(),
            ..Scope::default()
        };
        Self { kept }
    }

    /// The kept rule that forbids this access, by name.
    #[must_use]
    pub fn file(&self, path: &str, access: FileAccess) -> Option<String> {
        deciding_file([&self.kept], path, access)
            .filter(|rule| !rule.effect.verdict.permits())
            .map(|r| r.name.clone())
    }

    /// The kept rule that forbids running this program, by name. One that looks at arguments is not counted: the
    /// program itself is not forbidden.
    #[must_use]
    pub fn exec(&self, path: &str) -> Option<String> {
        deciding_exec([&self.kept], path)
            .filter(|rule| !rule.effect.verdict.permits())
            .map(|r| r.name.clone())
    }
}

/// What the kept rules say about something that is not a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Nothing.
    Silent,
    /// A kept rule permits it: it needs no other.
    Permits,
    /// The rule of this name forbids it.
    Forbids(String),
}

impl Declared {
    /// About a peer. A stop counts also where a narrower rule permits a part: a proposal must not open what is stopped.
    #[must_use]
    pub fn net(&self, to: &str, action: NetAction) -> Kept {
        let Ok(pattern) = NetPattern::parse(to) else { return Kept::Silent };
        let rules = self.kept.net.iter().map(|rule| &rule.value);
        let about = |rule: &&NetRule| rule.action.contains(&action) && rule.to.covers(&pattern);
        said(rules.filter(about).map(|rule| (rule.name.as_str(), &rule.effect)))
    }

    /// About a power, or one capability.
    #[must_use]
    pub fn power(&self, kind: PrivilegeKind, capability: Option<&str>) -> Kept {
        let rules = self.kept.privilege.iter().map(|rule| &rule.value);
        let named = |rule: &PrivilegeRule| {
            rule.capabilities.is_empty() || capability.is_some_and(|name| rule.capabilities.contains(name))
        };
        let about = rules.filter(|rule| rule.kind.value == kind && named(rule));
        said(about.map(|rule| (rule.name.as_str(), &rule.effect)))
    }
}

/// The strictest of these rules.
fn said<'a>(rules: impl Iterator<Item = (&'a str, &'a Effect)>) -> Kept {
    match rules.filter(|(_, effect)| holds(effect)).max_by_key(|(_, effect)| effect.verdict) {
        None => Kept::Silent,
        Some((_, effect)) if effect.verdict.permits() => Kept::Permits,
        Some((name, _)) => Kept::Forbids(name.to_owned()),
    }
}

/// The rule about this access that decides among those of several scopes.
pub fn deciding_file<'a>(
    scopes: impl IntoIterator<Item = &'a Scope>,
    path: &str,
    access: FileAccess,
) -> Option<&'a FileRule> {
    let rules = scopes.into_iter().flat_map(|scope| &scope.file).map(|rule| &rule.value);
    let fitting =
        rules.filter(|rule| holds(&rule.effect) && rule.access.contains(&access) && rule.path.matches(path));
    fitting.max_by_key(|rule| (rank(&rule.path), rule.effect.verdict))
}

/// The rule about this program that decides among those of several scopes.
pub fn deciding_exec<'a>(scopes: impl IntoIterator<Item = &'a Scope>, path: &str) -> Option<&'a ExecRule> {
    let rules = scopes.into_iter().flat_map(|scope| &scope.exec).map(|rule| &rule.value);
    let fitting = rules.filter(|rule| holds(&rule.effect) && rule.argv.is_none() && rule.path.matches(path));
    fitting.max_by_key(|rule| (rank(&rule.path), rule.effect.verdict))
}

/// Whether the kernel keeps the rule: one that permits unless a label is there permits nothing while labels are not
/// followed.
fn holds(effect: &Effect) -> bool {
    effect.unless.is_empty() || !effect.verdict.permits()
}

fn rank(path: &PathPattern) -> crate::scope::Specificity {
    path.specificity()
}

/// Whether these scopes let the access happen by a rule that names it.
pub fn permits_file(scopes: &[&Scope], path: &str, access: FileAccess) -> bool {
    let own = deciding_file(scopes.iter().copied(), path, access);
    if own.is_some_and(|rule| rule.effect.verdict.permits()) {
        return true;
    }
    // Who may run a program may map it.
    access == FileAccess::ExecuteMap && permits_exec(scopes, path)
}

/// Whether these scopes let the program be run by a rule that names it.
pub fn permits_exec(scopes: &[&Scope], path: &str) -> bool {
    deciding_exec(scopes.iter().copied(), path).is_some_and(|rule| rule.effect.verdict.permits())
}
