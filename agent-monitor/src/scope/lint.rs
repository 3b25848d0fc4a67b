//! Rules that can never decide, contradict each other, or change nothing.
//!
//! Looks at one scope and nothing else. Errors: a rule that another of the same pattern always
//! beats, or says the same as. Warnings: an allowing name pattern that opens a forbidden subtree,
//! an `unless` on a label that nothing adds. Notes: a rule that the next wider one, or the default,
//! already implies.

use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, FileRule, PathPattern, PrivilegeKind, Scope, Verdict, parse};
use crate::registry::{
    diagnostic::{Code, Diagnostic, Severity},
    reader::Reader,
    source::{Located, Position},
};

/// A rule of any family, reduced to what decides between rules of one target.
struct Item<'a> {
    name: &'a str,
    at: Position,
    /// The words of the actions, in the order of their bits.
    words: Vec<&'static str>,
    bits: u64,
    effect: &'a Effect,
}

/// Reports what is wrong between the rules of a scope.
pub(crate) fn check(reader: &mut Reader, scope: &Scope) {
    let mut targets: BTreeMap<(&str, String), Vec<Item<'_>>> = BTreeMap::new();
    for (family, target, item) in items(scope) {
        targets.entry((family, target)).or_default().push(item);
    }
    for ((_, target), items) in &targets {
        check_target(reader, target, items);
    }
    check_openings(reader, &scope.file);
    check_redundant(reader, scope);
    check_labels(reader, scope);
}

fn items(scope: &Scope) -> impl Iterator<Item = (&'static str, String, Item<'_>)> {
    let file = scope.file.iter().map(|rule| {
        let words = rule.access.iter().map(|access| access.as_str());
        let bits = rule.access.iter().map(|access| 1 << *access as u64);
        let item = item(&rule.name, rule.path.at, words, bits, &rule.effect);
        ("file", rule.path.value.to_string(), item)
    });
    let exec = scope.exec.iter().map(|rule| {
        let item = item(&rule.name, rule.path.at, ["exec"], [1], &rule.effect);
        let argv = rule.argv.as_ref().map(|argv| argv.patterns());
        let target = match argv {
            None => rule.path.value.to_string(),
            Some(argv) => format!("{} with argv {argv:?}", rule.path.value),
        };
        ("exec", target, item)
    });
    let net = scope.net.iter().map(|rule| {
        let words = rule.action.iter().map(|action| action.as_str());
        let bits = rule.action.iter().map(|action| 1 << *action as u64);
        let item = item(&rule.name, rule.to.at, words, bits, &rule.effect);
        ("net", rule.to.value.to_string(), item)
    });
    let privilege = scope.privilege.iter().map(|rule| {
        let named = |name: &&'static str| rule.capabilities.is_empty() || rule.capabilities.contains(*name);
        let (words, bits) = if rule.kind.value == PrivilegeKind::Capability {
            let all = parse::CAPABILITIES.iter().enumerate();
            let named: Vec<_> = all.filter(|(_, name)| named(name)).collect();
            let words = named.iter().map(|(_, name)| **name).collect();
            (words, named.iter().map(|(bit, _)| 1 << *bit).collect())
        } else {
            (vec![rule.kind.value.as_str()], vec![1])
        };
        let item = item(&rule.name, rule.kind.at, words, bits, &rule.effect);
        ("privilege", rule.kind.value.as_str().to_owned(), item)
    });
    file.chain(exec).chain(net).chain(privilege)
}

fn item<'a>(
    name: &'a str,
    at: Position,
    words: impl IntoIterator<Item = &'static str>,
    bits: impl IntoIterator<Item = u64>,
    effect: &'a Effect,
) -> Item<'a> {
    Item {
        name,
        at,
        words: words.into_iter().collect(),
        bits: bits.into_iter().fold(0, |all, bit| all | bit),
        effect,
    }
}

/// Rules with the same pattern: the strictest that applies decides, so some may never.
fn check_target(reader: &mut Reader, target: &str, items: &[Item<'_>]) {
    for (index, rule) in items.iter().enumerate() {
        let mut partial = None;
        for (other_index, other) in items.iter().enumerate() {
            // `other` applies whenever `rule` does?
            if index == other_index || !other.effect.unless.is_subset(&rule.effect.unless) {
                continue;
            }
            let stricter = other.effect.verdict > rule.effect.verdict;
            let same =
                other.effect.verdict == rule.effect.verdict && rule.effect.adds.is_subset(&other.effect.adds);
            // Of two that are interchangeable the first is kept.
            let mutual =
                same && rule.effect == other.effect && rule.bits == other.bits && index < other_index;
            if !(stricter || same) || mutual || rule.bits & other.bits == 0 {
                continue;
            }
            if rule.bits & !other.bits == 0 {
                report_shadow(reader, target, rule, other);
                partial = None;
                break;
            }
            if stricter {
                partial = Some(other);
            }
        }
        if let Some(other) = partial {
            report_contradiction(reader, target, rule, other);
        }
    }
}

fn report_shadow(reader: &mut Reader, target: &str, rule: &Item<'_>, other: &Item<'_>) {
    let (verdict, winner) = (rule.effect.verdict.as_str(), other.effect.verdict.as_str());
    let message = if verdict == winner {
        format!("{} says nothing that {} does not say about {target}", rule.name, other.name)
    } else {
        format!(
            "{} ({verdict}) can never decide: {} says {winner} about the same {target}, and the stricter wins",
            rule.name, other.name
        )
    };
    let hint = format!("remove {}, or make its pattern narrower", rule.name);
    push(reader, Severity::Error, Code::ShadowedRule, rule, other, message, hint);
}

fn report_contradiction(reader: &mut Reader, target: &str, rule: &Item<'_>, other: &Item<'_>) {
    let both: Vec<&str> = rule.words.iter().copied().filter(|word| other.words.contains(word)).collect();
    let both = both.join(", ");
    let message = format!(
        "{} says {} and {} says {} about {both} of {target}",
        rule.name,
        rule.effect.verdict.as_str(),
        other.name,
        other.effect.verdict.as_str()
    );
    let hint = format!("take {both} out of one of them; as it stands the stricter wins");
    push(reader, Severity::Error, Code::ContradictoryRule, rule, other, message, hint);
}

fn push(
    reader: &mut Reader,
    severity: Severity,
    code: Code,
    rule: &Item<'_>,
    other: &Item<'_>,
    message: String,
    hint: String,
) {
    let source = reader.source().clone();
    let problem = Diagnostic::new(&source, severity, code, rule.at, message)
        .hint(hint)
        .related(&source, other.at, other.name);
    reader.push(problem);
}

/// A name pattern is more specific than any subtree, so one that permits reaches into subtrees that
/// forbid.
fn check_openings(reader: &mut Reader, rules: &[Located<FileRule>]) {
    let forbidding: Vec<&Located<FileRule>> = rules
        .iter()
        .filter(|rule| !rule.effect.verdict.permits() && rule.effect.unless.is_empty())
        .filter(|rule| matches!(rule.path.value, PathPattern::Subtree(_)))
        .collect();
    for rule in rules.iter().filter(|rule| rule.effect.verdict.permits()) {
        if !matches!(rule.path.value, PathPattern::Name(_) | PathPattern::Extension(_)) {
            continue;
        }
        let opened = forbidding.iter().find(|tree| !tree.access.is_disjoint(&rule.access));
        if let Some(tree) = opened {
            let source = reader.source().clone();
            let message = format!(
                "{} permits {} inside {} too, where {} says {}",
                rule.name,
                rule.path.value,
                tree.path.value,
                tree.name,
                tree.effect.verdict.as_str()
            );
            let problem =
                Diagnostic::new(&source, Severity::Warning, Code::OverriddenDeny, rule.path.at, message)
                    .hint("a name pattern outranks subtrees: permit the exact paths or subtrees instead")
                    .related(&source, tree.path.at, &tree.name);
            reader.push(problem);
        }
    }
}

/// File rules that say what the next wider rule, or the default, says already.
fn check_redundant(reader: &mut Reader, scope: &Scope) {
    let mut by_pattern: BTreeMap<&PathPattern, Vec<&FileRule>> = BTreeMap::new();
    for rule in &scope.file {
        let rules = by_pattern.entry(&rule.path.value).or_default();
        rules.push(&rule.value);
    }
    for rule in &scope.file {
        // Rules of one pattern are a matter between them.
        if by_pattern.get(&rule.path.value).is_some_and(|rules| rules.len() > 1) {
            continue;
        }
        let wider = wider_patterns(&rule.path.value)
            .into_iter()
            .filter_map(|pattern| by_pattern.get(&pattern))
            .find(|rules| rules.iter().any(|other| !other.access.is_disjoint(&rule.access)));
        let implied_by = match wider {
            Some(rules) => match rules.as_slice() {
                [other] if other.effect == rule.effect && other.access.is_superset(&rule.access) => {
                    other.name.as_str()
                }
                _ => continue,
            },
            None if scope.base.is_empty() && is_plain(&rule.effect, scope.default) => "scope.default",
            None => continue,
        };
        reader.report(
            Severity::Note,
            Code::RedundantRule,
            rule.path.at,
            format!("{} changes nothing: {implied_by} says the same", rule.name),
            "remove it, unless it is there for the reader",
        );
    }
}

fn is_plain(effect: &Effect, verdict: Verdict) -> bool {
    effect.verdict == verdict && effect.adds.is_empty() && effect.unless.is_empty()
}

/// All patterns that are wider than this one and that a record could hold, the closest first.
fn wider_patterns(pattern: &PathPattern) -> Vec<PathPattern> {
    let mut wider = Vec::new();
    let path = match pattern {
        PathPattern::Exact(path) => {
            let name = path.rsplit('/').next().unwrap_or_default();
            wider.push(PathPattern::Name(name.to_owned()));
            extensions(name, &mut wider);
            wider.push(PathPattern::Subtree(path.clone()));
            path.as_str()
        }
        PathPattern::Subtree(path) => path.as_str(),
        PathPattern::Name(name) => {
            extensions(name, &mut wider);
            ""
        }
        PathPattern::Extension(extension) => {
            extensions(extension.get(1..).unwrap_or_default(), &mut wider);
            ""
        }
    };
    let mut path = path;
    while let Some((parent, _)) = path.rsplit_once('/') {
        wider.push(PathPattern::Subtree(parent.to_owned()));
        path = parent;
    }
    if matches!(pattern, PathPattern::Name(_) | PathPattern::Extension(_)) {
        wider.push(PathPattern::Subtree(String::new()));
    }
    wider
}

/// The extension patterns that fit a name, longest first.
fn extensions(name: &str, into: &mut Vec<PathPattern>) {
    for (dot, _) in name.match_indices('.') {
        if let Some(extension) = name.get(dot..).filter(|extension| extension.len() > 1) {
            into.push(PathPattern::Extension(extension.to_owned()));
        }
    }
}

fn check_labels(reader: &mut Reader, scope: &Scope) {
    let added: BTreeSet<&str> =
        scope.effects().flat_map(|effect| effect.adds.iter().map(String::as_str)).collect();
    let mut places: Vec<(&str, Position, &Effect)> = Vec::new();
    places.extend(scope.file.iter().map(|r| (r.name.as_str(), r.at, &r.value.effect)));
    places.extend(scope.exec.iter().map(|r| (r.name.as_str(), r.at, &r.value.effect)));
    places.extend(scope.net.iter().map(|r| (r.name.as_str(), r.at, &r.value.effect)));
    places.extend(scope.privilege.iter().map(|r| (r.name.as_str(), r.at, &r.value.effect)));
    let mut all = added.clone();
    for (name, at, effect) in places {
        for label in &effect.unless {
            all.insert(label);
            if !added.contains(label.as_str()) {
                reader.report(
                    Severity::Warning,
                    Code::UnknownLabel,
                    at,
                    format!("{name}: no rule here adds the label `{label}`"),
                    "only a label inherited from another agent can make the difference; check the spelling",
                );
            }
        }
    }
    if all.len() > parse::MAX_LABELS {
        reader.error(
            Code::InvalidValue,
            Position::FILE,
            format!("the scope uses {} labels", all.len()),
            format!("at most {}", parse::MAX_LABELS),
        );
    }
}

#[cfg(test)]
#[path = "lint/tests.rs"]
mod tests;
