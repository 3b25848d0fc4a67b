//! Reads `[scope]` and everything below it.

use std::collections::BTreeSet;

use toml::de::DeValue;

pub use crate::model::privilege::CAPABILITIES;

use super::{
    Effect, ExecRule, FileAccess, FileRule, Limit, Limits, NetAction, NetPattern, NetRule, PathError,
    PathPattern, Per, PrivilegeKind, PrivilegeRule, Scope, Verdict,
};
use crate::registry::{
    diagnostic::{Code, Severity},
    parse::read_argv_pattern,
    reader::{Reader, Section, did_you_mean},
    source::Located,
};

/// Keys of `[scope]`.
pub(crate) const KEYS: &[&str] =
    &["default", "unknown", "base", "file", "exec", "net", "privilege", "limits"];
/// Keys of `[[scope.file]]`.
pub(crate) const FILE_KEYS: &[&str] = &["path", "access", "verdict", "adds", "unless"];
/// Keys of `[[scope.exec]]`.
pub(crate) const EXEC_KEYS: &[&str] = &["path", "argv", "verdict", "adds", "unless"];
/// Keys of `[[scope.net]]`.
pub(crate) const NET_KEYS: &[&str] = &["to", "action", "verdict", "adds", "unless"];
/// Keys of `[[scope.privilege]]`.
pub(crate) const PRIVILEGE_KEYS: &[&str] = &["kind", "capabilities", "verdict", "adds", "unless"];
/// Keys of `[scope.limits]`.
pub(crate) const LIMIT_KEYS: &[&str] = &["deletes", "bytes_out", "spawns", "files_written", "peers"];

/// The named sets that `base` may pull in.
pub const BASE_SETS: [&str; 4] = ["linux-runtime", "node", "python", "shell"];

/// Most rules of one family.
pub const MAX_RULES: usize = 4096;
/// Most different labels in one scope.
pub const MAX_LABELS: usize = 64;

/// Reads `[scope]`; what cannot be read is reported and left out.
pub(crate) fn read(reader: &mut Reader, section: &Section<'_>) -> Scope {
    reader.keys(section, KEYS);
    let default = reader.choice(section, "default", &Verdict::WORDS);
    let unknown = reader.choice(section, "unknown", &Verdict::WORDS);
    let base = read_base(reader, section);
    let file = rules(reader, section, "file", read_file);
    let exec = rules(reader, section, "exec", read_exec);
    let net = rules(reader, section, "net", read_net);
    let privilege = rules(reader, section, "privilege", read_privilege);
    let limits = match reader.section(section, "limits") {
        Some(limits) => read_limits(reader, &limits),
        None => Limits::default(),
    };
    Scope {
        declared: true,
        default: default.map_or(Verdict::Deny, |verdict| verdict.value),
        unknown: unknown.map_or(Verdict::Deny, |verdict| verdict.value),
        base,
        file,
        exec,
        net,
        privilege,
        limits,
    }
}

fn rules<T>(
    reader: &mut Reader,
    scope: &Section<'_>,
    key: &str,
    read: impl Fn(&mut Reader, &Section<'_>) -> Option<T>,
) -> Vec<Located<T>> {
    let sections = reader.sections(scope, key);
    if let Some(first_over) = sections.get(MAX_RULES) {
        reader.error(
            Code::InvalidValue,
            first_over.at,
            format!("more than {MAX_RULES} rules in scope.{key}"),
            "name subtrees and networks instead of single objects",
        );
    }
    let sections = sections.iter().take(MAX_RULES);
    sections.filter_map(|section| Some(Located::new(read(reader, section)?, section.at))).collect()
}

fn read_base(reader: &mut Reader, section: &Section<'_>) -> Vec<Located<String>> {
    let mut base: Vec<Located<String>> = Vec::new();
    for name in reader.strings(section, "base") {
        if !BASE_SETS.contains(&name.as_str()) {
            let list = format!("known sets: {}", BASE_SETS.join(", "));
            let hint = did_you_mean(&name, &BASE_SETS).unwrap_or(list);
            reader.error(Code::InvalidValue, name.at, format!("there is no base set `{}`", name.value), hint);
        } else if base.contains(&name) {
            reader.report(
                Severity::Warning,
                Code::RedundantRule,
                name.at,
                format!("{} is named twice", name.value),
                "remove one",
            );
        } else {
            base.push(name);
        }
    }
    base
}

fn read_effect(reader: &mut Reader, section: &Section<'_>) -> Effect {
    let verdict = reader.choice(section, "verdict", &Verdict::WORDS);
    Effect {
        verdict: verdict.map_or(Verdict::Allow, |verdict| verdict.value),
        adds: read_labels(reader, section, "adds"),
        unless: read_labels(reader, section, "unless"),
    }
}

fn read_labels(reader: &mut Reader, section: &Section<'_>, key: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for label in reader.strings(section, key) {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if label.len() <= 32 && label.bytes().all(allowed) {
            labels.insert(label.value);
        } else {
            reader.error(
                Code::InvalidValue,
                label.at,
                format!("`{}` is no label", label.value),
                "1 to 32 lower-case letters, digits, - and _",
            );
        }
    }
    labels
}

/// A required pattern of a rule.
fn read_pattern<P>(
    reader: &mut Reader,
    section: &Section<'_>,
    key: &str,
    hint: &str,
    parse: impl Fn(&str) -> Result<P, PathError>,
) -> Option<Located<P>> {
    if !section.has(key) {
        reader.missing(section, key, hint);
        return None;
    }
    let text = reader.string(section, key)?;
    match parse(&text) {
        Ok(pattern) => Some(Located::new(pattern, text.at)),
        Err(error) => {
            let code = if key == "path" { Code::InvalidPath } else { Code::InvalidValue };
            reader.error(code, text.at, format!("{}: {}", section.key(key), error.problem), error.hint);
            None
        }
    }
}

/// A set of words. Absent is `None`; empty is reported.
fn read_words<T: Copy + Ord>(
    reader: &mut Reader,
    section: &Section<'_>,
    key: &str,
    words: &[(&str, T)],
) -> Option<BTreeSet<T>> {
    let value = reader.value(section, key)?;
    let is_empty = matches!(value.get_ref(), DeValue::Array(items) if items.is_empty());
    if is_empty {
        let at = reader.position(value.span());
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        reader.error(
            Code::InvalidValue,
            at,
            format!("{} is empty: the rule fits nothing", section.key(key)),
            format!("name some of: {}", known.join(", ")),
        );
    }
    let found = reader.strings(section, key);
    let found = found.into_iter().filter_map(|word| reader.as_choice(word, &section.key(key), words));
    Some(found.map(|word| word.value).collect())
}

fn read_file(reader: &mut Reader, section: &Section<'_>) -> Option<FileRule> {
    reader.keys(section, FILE_KEYS);
    let hint = "add path = \"/srv/data/**\"";
    let path = read_pattern(reader, section, "path", hint, PathPattern::parse);
    let effect = read_effect(reader, section);
    let access = match read_words(reader, section, "access", &FileAccess::WORDS) {
        Some(access) => access,
        // Forbidding may be said in one word; permitting must say what.
        None if effect.verdict.permits() && !section.has("access") => {
            reader.missing(section, "access", "a rule that permits says what: access = [\"read\"]");
            return None;
        }
        None => FileAccess::WORDS.iter().map(|(_, access)| *access).collect(),
    };
    Some(FileRule { name: section.name.clone(), path: path?, access, effect })
}

fn read_exec(reader: &mut Reader, section: &Section<'_>) -> Option<ExecRule> {
    reader.keys(section, EXEC_KEYS);
    let hint = "add path = \"/usr/bin/git\"";
    let path = read_pattern(reader, section, "path", hint, PathPattern::parse);
    let argv = read_argv_pattern(reader, section);
    let effect = read_effect(reader, section);
    Some(ExecRule { name: section.name.clone(), path: path?, argv, effect })
}

fn read_net(reader: &mut Reader, section: &Section<'_>) -> Option<NetRule> {
    reader.keys(section, NET_KEYS);
    let hint = "add to = \"api.example.com:443/tcp\"";
    let to = read_pattern(reader, section, "to", hint, NetPattern::parse);
    let action = read_words(reader, section, "action", &NetAction::WORDS);
    let action = action.unwrap_or_else(|| BTreeSet::from([NetAction::Connect]));
    let effect = read_effect(reader, section);
    let to = to?;
    let is_name = matches!(to.host(), Some(super::Host::Name(_) | super::Host::Suffix(_)));
    if is_name && action.iter().any(|action| *action != NetAction::Connect) {
        reader.error(
            Code::InvalidValue,
            to.at,
            "bind and listen take a local address, not a name",
            "write an address, or * for every one: *:8080/tcp",
        );
    }
    Some(NetRule { name: section.name.clone(), to, action, effect })
}

fn read_privilege(reader: &mut Reader, section: &Section<'_>) -> Option<PrivilegeRule> {
    reader.keys(section, PRIVILEGE_KEYS);
    if !section.has("kind") {
        reader.missing(section, "kind", "add kind = \"ptrace\"");
    }
    let kind = reader.choice(section, "kind", &PrivilegeKind::WORDS);
    let effect = read_effect(reader, section);
    let known: Vec<(&str, &str)> = CAPABILITIES.iter().map(|name| (*name, *name)).collect();
    let capabilities = read_words(reader, section, "capabilities", &known).unwrap_or_default();
    let kind = kind?;
    if section.has("capabilities") && kind.value != PrivilegeKind::Capability {
        reader.error(
            Code::InvalidValue,
            kind.at,
            format!("capabilities do not go with kind `{}`", kind.value.as_str()),
            "write kind = \"capability\", or remove capabilities",
        );
    }
    Some(PrivilegeRule {
        name: section.name.clone(),
        kind,
        capabilities: capabilities.into_iter().map(str::to_owned).collect(),
        effect,
    })
}

fn read_limits(reader: &mut Reader, section: &Section<'_>) -> Limits {
    reader.keys(section, LIMIT_KEYS);
    let mut limit = |key: &str| read_limit(reader, section, key);
    Limits {
        deletes: limit("deletes"),
        bytes_out: limit("bytes_out"),
        spawns: limit("spawns"),
        files_written: limit("files_written"),
        peers: limit("peers"),
    }
}

/// `"100/session"`, or `{ max = "100/session", verdict = "hold" }`.
fn read_limit(reader: &mut Reader, limits: &Section<'_>, key: &str) -> Option<Located<Limit>> {
    let value = reader.value(limits, key)?;
    let (text, verdict) = if matches!(value.get_ref(), DeValue::Table(_)) {
        let section = reader.section(limits, key)?;
        reader.keys(&section, &["max", "verdict"]);
        if !section.has("max") {
            reader.missing(&section, "max", "add max = \"100/session\"");
        }
        let verdict = reader.choice(&section, "verdict", &Verdict::WORDS);
        (reader.string(&section, "max")?, verdict)
    } else {
        (reader.string(limits, key)?, None)
    };
    if let Some(allow) = verdict.filter(|verdict| verdict.value == Verdict::Allow) {
        reader.error(
            Code::InvalidValue,
            allow.at,
            format!("{} with verdict `allow` limits nothing", limits.key(key)),
            "audit, hold, deny or kill",
        );
        return None;
    }
    match parse_limit(&text, key == "bytes_out") {
        Ok((max, per)) => Some(Located::new(
            Limit { max, per, verdict: verdict.map_or(Verdict::Deny, |verdict| verdict.value) },
            text.at,
        )),
        Err(problem) => {
            let hint = if key == "bytes_out" {
                "a number with B, KiB, MiB, GiB or TiB, then /session or /min: \"50MiB/session\""
            } else {
                "a number, then /session or /min: \"100/session\""
            };
            reader.error(Code::InvalidValue, text.at, format!("{}: {problem}", limits.key(key)), hint);
            None
        }
    }
}

fn parse_limit(text: &str, bytes: bool) -> Result<(u64, Per), String> {
    let (amount, per) = text.split_once('/').ok_or_else(|| format!("`{text}` does not say per what"))?;
    let per = match per {
        "session" => Per::Session,
        "min" => Per::Min,
        _ => return Err(format!("`{per}` is neither session nor min")),
    };
    let split = amount.find(|c: char| !c.is_ascii_digit()).unwrap_or(amount.len());
    let (number, unit) = amount.split_at(split);
    let factor: u64 = match (unit, bytes) {
        ("", false) | ("B", true) => 1,
        ("KiB", true) => 1 << 10,
        ("MiB", true) => 1 << 20,
        ("GiB", true) => 1 << 30,
        ("TiB", true) => 1 << 40,
        ("", true) => return Err("bytes need a unit".to_owned()),
        _ => return Err(format!("`{unit}` is no unit here")),
    };
    let number: u64 = number.parse().map_err(|error| format!("`{amount}`: {error}"))?;
    match number.checked_mul(factor) {
        Some(0) => Err("a budget of nothing is a deny rule".to_owned()),
        Some(max) => Ok((max, per)),
        None => Err(format!("`{amount}` is too large")),
    }
}
