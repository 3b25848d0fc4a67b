//! A proposal as TOML to be pasted into a record, each rule with what it rests on.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Proposal;
use super::seen::Seen;
use crate::model::privilege::CAPABILITIES;
use crate::model::{SCHEMA_VERSION, Time};
use crate::registry::format::{quote, scope_to_toml};
use crate::scope::{FileAccess, NetAction, Scope};

/// The proposal as the `[scope]` part of a record.
#[must_use]
pub fn toml(proposal: &Proposal) -> String {
    let mut out = String::new();
    head(&mut out, proposal);
    line(&mut out, "\n[scope]");
    line(&mut out, "default = \"deny\"");
    if !proposal.base.is_empty() {
        let names: Vec<String> = proposal.base.iter().map(|(name, _)| quote(name)).collect();
        let counts: Vec<String> =
            proposal.base.iter().map(|(name, count)| format!("{name} covers {count}")).collect();
        line(&mut out, &format!("base = [{}]  # {}", names.join(", "), counts.join(", ")));
    }
    for rule in &proposal.file {
        let seen = rule.access.values().copied().reduce(Seen::and);
        table(&mut out, "file", seen, rule.why.as_deref());
        line(&mut out, &format!("path = {}", quote(&rule.path.to_string())));
        line(
            &mut out,
            &format!("access = {}", list(rule.access.keys().map(|access| FileAccess::as_str(*access)))),
        );
    }
    for (path, seen) in &proposal.exec {
        table(&mut out, "exec", Some(*seen), None);
        line(&mut out, &format!("path = {}", quote(path)));
    }
    for (to, actions, seen, why) in &proposal.net {
        table(&mut out, "net", Some(*seen), why.as_deref());
        line(&mut out, &format!("to = {}", quote(to)));
        if !actions.iter().eq([&NetAction::Connect]) {
            line(&mut out, &format!("action = {}", list(actions.iter().map(|action| action.as_str()))));
        }
    }
    for (kind, seen) in &proposal.powers {
        table(&mut out, "privilege", Some(*seen), None);
        line(&mut out, &format!("kind = {}", quote(kind.as_str())));
    }
    if let Some(seen) = proposal.capabilities.values().copied().reduce(Seen::and) {
        table(&mut out, "privilege", Some(seen), None);
        line(&mut out, "kind = \"capability\"");
        line(&mut out, &format!("capabilities = {}", list(capabilities(proposal))));
    }
    kept(&mut out, &proposal.kept);
    out
}

fn head(out: &mut String, proposal: &Proposal) {
    let known = &proposal.completeness;
    line(out, &format!("# Proposed from what {} was seen to do.", proposal.agent));
    if let Some((first, last)) = proposal.span {
        line(out, &format!("# {} events from {} to {}", known.seen, when(first), when(last)));
    }
    let figure =
        known.percent.map_or_else(String::new, |percent| format!(", {percent:.1} % of what is known of"));
    match known.complete {
        true => line(out, &format!("# complete: yes{figure}")),
        false => line(out, &format!("# complete: no{figure} — this scope may refuse what the agent needs:")),
    }
    known.reasons.iter().for_each(|reason| line(out, &format!("#   {}", plain(reason))));
    for (first, last) in &known.daemon_down {
        line(out, &format!("#   no daemon from {} to {}", when(*first), when(*last)));
    }
    line(
        out,
        "# Opening of raw sockets and of processes' /proc files is recorded only when refused: add rules by hand.",
    );
    for (rule, count) in &proposal.forbidden {
        line(out, &format!("# not proposed: {count} acts that {} forbids", plain(rule)));
    }
    if proposal.refused > 0 {
        line(out, &format!("# not proposed: {} acts that were refused", proposal.refused));
    }
    if proposal.too_many() {
        line(out, "# too many rules for one record: name subtrees by hand");
    }
}

/// Rules of the declared scope, behind the proposed ones.
fn kept(out: &mut String, kept: &Scope) {
    let text = scope_to_toml(kept);
    let rules = text.find("\n[").map_or("", |at| text.get(at..).unwrap_or_default());
    if !rules.is_empty() {
        line(out, "\n# Declared before, and kept:");
        out.push_str(rules);
    }
}

fn table(out: &mut String, family: &str, seen: Option<Seen>, why: Option<&str>) {
    let why = why.map_or_else(String::new, |why| format!(", {why}"));
    let seen =
        seen.map_or_else(String::new, |seen| format!("{} times, last {}", seen.count, when(seen.last)));
    line(out, &format!("\n[[scope.{family}]]  # {seen}{why}"));
}

/// To the second.
fn when(time: Time) -> String {
    format!("{:.0}", time.timestamp())
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn list(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| quote(word.as_ref())).collect();
    format!("[{}]", words.join(", "))
}

/// Text that stays inside its comment.
fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_control() {
            // Writing into a String cannot fail.
            write!(out, "{}", c.escape_default()).ok();
        } else {
            out.push(c);
        }
        out
    })
}

fn capabilities(proposal: &Proposal) -> Vec<&'static str> {
    proposal.capabilities.keys().filter_map(|number| CAPABILITIES.get(*number).copied()).collect()
}

/// The proposal for programs.
#[must_use]
pub fn json(proposal: &Proposal) -> Value {
    let seen = |seen: Seen| json!({ "count": seen.count, "last": seen.last });
    let file = proposal.file.iter().map(|rule| {
        let access: serde_json::Map<String, Value> =
            rule.access.iter().map(|(access, times)| (access.as_str().to_owned(), seen(*times))).collect();
        json!({ "path": rule.path.to_string(), "access": access, "why": rule.why })
    });
    let exec = proposal.exec.iter().map(|(path, times)| json!({ "path": path, "seen": seen(*times) }));
    let net = proposal.net.iter().map(
        |(to, actions, times, why)| json!({ "to": to, "action": actions, "seen": seen(*times), "why": why }),
    );
    let powers = proposal.powers.iter().map(|(kind, times)| json!({ "kind": kind, "seen": seen(*times) }));
    json!({
        "schema_version": SCHEMA_VERSION,
        "agent": proposal.agent,
        "first": proposal.span.map(|(first, _)| first),
        "last": proposal.span.map(|(_, last)| last),
        "completeness": proposal.completeness,
        "base": proposal.base.iter().map(|(name, count)| json!({ "set": name, "covers": count })).collect::<Vec<_>>(),
        "file": file.collect::<Vec<_>>(),
        "exec": exec.collect::<Vec<_>>(),
        "net": net.collect::<Vec<_>>(),
        "privilege": powers.collect::<Vec<_>>(),
        "capabilities": capabilities(proposal),
        "forbidden": proposal.forbidden,
        "refused": proposal.refused,
        "toml": toml(proposal),
    })
}
