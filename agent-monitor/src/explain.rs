//! Why a scope decides as it does about one action: the rules that fit it, which of them decides, and why the others do
//! not.
//!
//! The decision itself is not made here: it comes from the compiled scope ([`crate::replay::book`]). Pure.

pub mod outcome;

use std::cmp::Ordering;
use std::net::IpAddr;

use agent_monitor_ebpf::policy::{NET_BIND, NET_CONNECT, NET_LISTEN};
use serde::Serialize;

use crate::registry::Record;
use crate::registry::source::Position;
use crate::scope::{
    Effect, FileAccess, Host, NetAction, NetPattern, PathPattern, PrivilegeKind, Protocol, Scope, Verdict,
    base,
};

/// One action. Paths are the first names of places, as [`Names`] gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// An access to a file.
    File(FileAccess, String),
    /// Running a program.
    Exec(String),
    /// An internet peer, or own address: protocol and port (0 is none).
    Peer(NetAction, IpAddr, u16, Protocol),
    /// A UNIX socket by path.
    UnixPath(NetAction, String),
    /// A UNIX socket by abstract name.
    UnixAbstract(NetAction, String),
    /// A power.
    Power(PrivilegeKind),
    /// Gaining a capability.
    Capability(String),
}

/// Gives the first name of a place that a path of a rule names; `None` where nothing is mounted for it.
pub type Names<'a> = &'a mut dyn FnMut(&str) -> Option<String>;

/// A rule that fits an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fitting {
    /// `scope.file[0]`, `base.shell.file[3]`.
    pub rule: String,
    /// What it is about, as written.
    pub pattern: String,
    /// Its verdict.
    pub verdict: Verdict,
    /// The record's file, or the name of the base set.
    pub file: String,
    /// Where in it.
    pub at: Position,
    /// Why it does not decide; `None` for the rule that does.
    pub lost: Option<String>,
}

/// A rule as it is compared.
struct Candidate<'a> {
    found: Fitting,
    /// Own rules decide before those of base sets.
    base: bool,
    pattern: Pattern<'a>,
    /// It is not about this access, or not in force.
    out: Option<String>,
}

enum Pattern<'a> {
    Path(PathPattern),
    Net(&'a NetPattern),
    Flat,
}

/// All rules of a record and of its base sets that fit an action, the deciding one first. `decided` is its name.
#[must_use]
pub fn fitting(record: &Record, question: &Question, decided: &str, names: Names<'_>) -> Vec<Fitting> {
    let file = record.file().display().to_string();
    let mut all = Vec::new();
    collect(&record.scope, question, names, &mut all, |name, at| (name.to_owned(), file.clone(), at, false));
    for set in &record.scope.base {
        let Some(scope) = base::set(&set.value) else { continue };
        let named = |name: &str, at: Position| {
            let name = name.strip_prefix("scope.").unwrap_or(name);
            (
                format!("base.{}.{name}", set.value),
                format!("base set {}", set.value),
                base::position(at),
                true,
            )
        };
        collect(scope, question, names, &mut all, named);
    }
    let winner = all.iter().position(|candidate| candidate.found.rule == decided);
    let mut lost: Vec<Fitting> = Vec::new();
    for (index, candidate) in all.iter().enumerate() {
        if Some(index) != winner {
            let best = winner.and_then(|winner| all.get(winner));
            let why = candidate.out.clone().unwrap_or_else(|| why(candidate, best, decided));
            lost.push(Fitting { lost: Some(why), ..candidate.found.clone() });
        }
    }
    let first = winner.and_then(|winner| all.get(winner)).map(|winner| winner.found.clone());
    first.into_iter().chain(lost).collect()
}

/// Why one rule loses to another.
fn why(rule: &Candidate<'_>, winner: Option<&Candidate<'_>>, decided: &str) -> String {
    let Some(winner) = winner else {
        return match decided {
            "self-protection" => "the monitor's own places are kept whatever rules say".to_owned(),
            _ => format!("{decided} decides before it"),
        };
    };
    let order = match (&rule.pattern, &winner.pattern) {
        (Pattern::Path(a), Pattern::Path(b)) => Some(a.specificity().cmp(&b.specificity())),
        (Pattern::Net(a), Pattern::Net(b)) => a.precedence(b),
        _ => Some(Ordering::Equal),
    };
    let best = &winner.found;
    match order {
        Some(Ordering::Less) => format!("less specific than {}", best.pattern),
        Some(Ordering::Greater) => "who may run a program may map it".to_owned(),
        _ if rule.base && !winner.base => "a base set yields to the record's own rule".to_owned(),
        _ if rule.found.verdict < best.verdict => {
            format!(
                "as specific, but {} is stricter than {}",
                best.verdict.as_str(),
                rule.found.verdict.as_str()
            )
        }
        _ => "says the same; the first counts".to_owned(),
    }
}

fn collect<'a>(
    scope: &'a Scope,
    question: &Question,
    names: Names<'_>,
    into: &mut Vec<Candidate<'a>>,
    named: impl Fn(&str, Position) -> (String, String, Position, bool),
) {
    let mut push = |name: &str, at, text: String, effect: &Effect, pattern, out: Option<String>| {
        let (rule, file, at, base) = named(name, at);
        let unless = !effect.unless.is_empty() && effect.verdict.permits();
        let out = out.or_else(|| {
            unless.then(|| {
                "not in force: labels are not known to the kernel yet, so it permits nothing".to_owned()
            })
        });
        let found = Fitting { rule, pattern: text, verdict: effect.verdict, file, at, lost: None };
        into.push(Candidate { found, base, pattern, out });
    };
    let mut fits = |pattern: &PathPattern, path: &str| {
        let pattern = match pattern {
            PathPattern::Exact(of) => PathPattern::Exact(names(of)?),
            PathPattern::Subtree(of) if of.is_empty() => pattern.clone(),
            PathPattern::Subtree(of) => PathPattern::Subtree(names(of)?),
            PathPattern::Name(_) | PathPattern::Extension(_) => pattern.clone(),
        };
        pattern.matches(path).then_some(pattern)
    };
    match question {
        Question::File(access, path) => {
            for rule in &scope.file {
                let Some(pattern) = fits(&rule.path.value, path) else { continue };
                let words: Vec<&str> = rule.access.iter().map(|access| access.as_str()).collect();
                let out = (!rule.access.contains(access))
                    .then(|| format!("about {}, not {}", words.join(", "), access.as_str()));
                let text = rule.path.value.to_string();
                push(&rule.name, rule.path.at, text, &rule.effect, Pattern::Path(pattern), out);
            }
            if *access == FileAccess::ExecuteMap {
                exec(scope, path, &mut fits, &mut push);
            }
        }
        Question::Exec(path) => exec(scope, path, &mut fits, &mut push),
        Question::Peer(action, ..) | Question::UnixPath(action, _) | Question::UnixAbstract(action, _) => {
            for rule in &scope.net {
                let Some((pattern, mut out)) = net_fits(&rule.to.value, question, &mut fits) else {
                    continue;
                };
                if !rule.action.contains(action) {
                    let words: Vec<&str> = rule.action.iter().map(|action| action.as_str()).collect();
                    out = Some(format!("about {}, not {}", words.join(", "), action.as_str()));
                }
                push(&rule.name, rule.to.at, rule.to.value.to_string(), &rule.effect, pattern, out);
            }
        }
        Question::Power(_) | Question::Capability(_) => {
            for rule in &scope.privilege {
                let fits = match question {
                    Question::Capability(name) => {
                        rule.kind.value == PrivilegeKind::Capability
                            && (rule.capabilities.is_empty() || rule.capabilities.contains(name))
                    }
                    Question::Power(kind) => rule.kind.value == *kind && rule.capabilities.is_empty(),
                    _ => false,
                };
                if fits {
                    let text = rule.kind.value.as_str().to_owned();
                    push(&rule.name, rule.kind.at, text, &rule.effect, Pattern::Flat, None);
                }
            }
        }
    }
}

type Push<'a, 'b> = &'b mut dyn FnMut(&str, Position, String, &Effect, Pattern<'a>, Option<String>);
type Fits<'b> = &'b mut dyn FnMut(&PathPattern, &str) -> Option<PathPattern>;

fn exec<'a>(scope: &'a Scope, path: &str, fits: Fits<'_>, push: Push<'a, '_>) {
    for rule in &scope.exec {
        let Some(pattern) = fits(&rule.path.value, path) else { continue };
        let out = rule.argv.is_some().then(|| "not in force: the kernel does not see arguments".to_owned());
        let text = rule.path.value.to_string();
        push(&rule.name, rule.path.at, text, &rule.effect, Pattern::Path(pattern), out);
    }
}

/// The addresses that a written one stands for besides itself.
fn others(action: NetAction, addr: IpAddr) -> Vec<IpAddr> {
    let action = match action {
        NetAction::Connect => NET_CONNECT,
        NetAction::Bind => NET_BIND,
        NetAction::Listen => NET_LISTEN,
    };
    crate::replay::book::destinations(addr.to_canonical(), action)
}

fn net_fits<'a>(
    pattern: &'a NetPattern,
    question: &Question,
    fits: Fits<'_>,
) -> Option<(Pattern<'a>, Option<String>)> {
    match (pattern, question) {
        (NetPattern::Ip { host, ports, protocol }, Question::Peer(action, addr, port, asked)) => {
            let there = ports.is_none_or(|ports| (ports.low..=ports.high).contains(port))
                && protocol.is_none_or(|protocol| protocol == *asked);
            let out = match host {
                Host::Any => None,
                Host::Net(net) if net.contains(addr) => None,
                // The scope is asked about what the address stands for too.
                Host::Net(net) if others(*action, *addr).iter().any(|other| net.contains(other)) => None,
                Host::Net(_) => return None,
                Host::Name(_) | Host::Suffix(_) => {
                    Some("not in force: host names are not known to the kernel yet".to_owned())
                }
            };
            there.then_some((Pattern::Net(pattern), out))
        }
        (NetPattern::UnixPath(of), Question::UnixPath(_, path)) => {
            Some((Pattern::Path(fits(of, path)?), None))
        }
        (NetPattern::UnixAbstract(of), Question::UnixAbstract(_, name)) => {
            (of == name).then_some((Pattern::Flat, None))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
