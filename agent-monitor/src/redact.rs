//! Secrets in what agents do, taken out before anything is stored, shown or signed.
//!
//! Argument lists, file names, URLs and free fields are searched by `rules`; a secret becomes
//! `[redacted:kind:hash8]`. The hash is keyed with a value that only this host has, so that equal secrets can be
//! matched in its record and a short one cannot be found by trying. Pure: the key comes from the caller.
//!
//! Rules can miss a secret that has no form and no name. They never see file contents or environments.

mod rules;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use regex_automata::meta::Regex;
use regex_automata::util::syntax;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::model::{Event, Process};

/// Processes whose redaction is remembered.
const CACHE: usize = 4096;
/// How a mark begins. Text that has one is not redacted again.
const MARK: &str = "[redacted:";

/// A rule of the operator's own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OwnRule {
    /// Stands in the mark: lower-case letters, digits and hyphens.
    pub kind: String,
    /// Regular expression over bytes; its first group is the secret, the whole match where it has none.
    pub pattern: String,
}

/// A rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("redaction rule `{kind}`: {problem}")]
pub struct RuleError {
    /// Its kind.
    pub kind: String,
    /// What is wrong.
    pub problem: String,
}

/// Rules, compiled, and the key of the marks.
#[derive(Debug)]
pub struct Redactor {
    key: [u8; 32],
    kinds: Vec<String>,
    text: Regex,
    option: Regex,
    /// What became of processes seen before: `None` where nothing was redacted.
    seen: Mutex<HashMap<u64, Option<Arc<Process>>>>,
}

impl Redactor {
    /// The built-in rules, and `own` before them.
    ///
    /// # Errors
    /// When a rule of `own` has no usable kind or pattern.
    pub fn new(key: [u8; 32], own: &[OwnRule]) -> Result<Self, RuleError> {
        for rule in own {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let error = |problem: String| RuleError { kind: rule.kind.clone(), problem };
            if rule.kind.is_empty() || rule.kind.len() > 32 || !rule.kind.chars().all(plain) {
                return Err(error(
                    "the kind must be 1 to 32 lower-case letters, digits and hyphens".to_owned(),
                ));
            }
            let compiled = compile(&[&rule.pattern]).map_err(error)?;
            if compiled.is_match(b"") {
                return Err(error("the pattern matches nothing at all, so everything".to_owned()));
            }
        }
        let own_rules = own.iter().map(|rule| (rule.kind.as_str(), rule.pattern.as_str()));
        let (kinds, patterns): (Vec<_>, Vec<_>) = own_rules.chain(rules::PATTERNS.iter().copied()).unzip();
        let error = |problem| RuleError { kind: "all".to_owned(), problem };
        Ok(Self {
            key,
            kinds: kinds.into_iter().map(str::to_owned).collect(),
            text: compile(&patterns).map_err(error)?,
            option: compile(&[rules::OPTION]).map_err(error)?,
            seen: Mutex::default(),
        })
    }

    /// `text` without its secrets; `None` where it has none.
    #[must_use]
    pub fn text(&self, text: &str) -> Option<String> {
        // Shorter than any secret with its name.
        if text.len() < 6 {
            return None;
        }
        let mut out = String::new();
        let (mut kept, mut at) = (0, 0);
        let mut groups = self.text.create_captures();
        while at < text.len() {
            let input = regex_automata::Input::new(text).range(at..);
            self.text.captures(input, &mut groups);
            let (Some(whole), Some(pattern)) = (groups.get_match(), groups.pattern()) else { break };
            let secret = groups.get_group(1).unwrap_or_else(|| whole.span());
            let kind = self.kinds.get(pattern.as_usize()).map_or("secret", String::as_str);
            at = secret.end.max(whole.start() + 1);
            let (Some(before), Some(value)) = (text.get(kept..secret.start), text.get(secret.range())) else {
                continue;
            };
            let bare = value.trim_matches(['"', '\'']);
            if bare.is_empty() || bare.contains(MARK) || is_reference(bare) {
                continue;
            }
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\'') && value.len() > bare.len());
            out.push_str(before);
            out.extend(quote);
            out.push_str(&self.mark(kind, bare));
            out.extend(quote);
            kept = secret.end;
        }
        if kept == 0 {
            return None;
        }
        out.push_str(text.get(kept..).unwrap_or_default());
        Some(out)
    }

    /// An argument list without its secrets; `None` where it has none.
    #[must_use]
    pub fn args(&self, args: &[String]) -> Option<Vec<String>> {
        let program = args.first().map_or("", |arg| arg.rsplit('/').next().unwrap_or(arg));
        let mut out: Option<Vec<String>> = None;
        let mut set = |at: usize, text: String| {
            let list = out.get_or_insert_with(|| args.to_vec());
            if let Some(slot) = list.get_mut(at) {
                *slot = text;
            }
        };
        let mut option: Option<&str> = None;
        for (at, arg) in args.iter().enumerate() {
            let named = option.take();
            option = self.takes_value(program, arg);
            let value = match named {
                // `--token --verbose`: the next is an option of its own.
                Some(_) if arg.starts_with('-') || arg.contains(MARK) || is_reference(arg) => None,
                Some("user") => arg
                    .split_once(':')
                    .filter(|(_, secret)| !secret.is_empty())
                    .map(|(user, secret)| format!("{user}:{}", self.mark("user-password", secret))),
                Some(_) if !arg.is_empty() => Some(self.mark("option", arg)),
                _ => None,
            };
            let short = || {
                let secret = arg.strip_prefix("-p").filter(|secret| !secret.is_empty())?;
                let known = rules::SHORT_PASSWORD.contains(&program) && at > 0 && !secret.contains(MARK);
                known.then(|| format!("-p{}", self.mark("option", secret)))
            };
            if let Some(text) = value.or_else(short).or_else(|| self.text(arg)) {
                set(at, text);
            }
        }
        out
    }

    /// Whether the argument after `arg` is a secret: what kind of option it is.
    fn takes_value(&self, program: &str, arg: &str) -> Option<&'static str> {
        if !arg.starts_with('-') {
            return None;
        }
        if self.option.is_match(arg) {
            return Some("option");
        }
        let user = matches!(arg, "-u" | "--user" | "-a" | "--auth" | "-U" | "--proxy-user");
        (user && rules::USER_PASSWORD.contains(&program)).then_some("user")
    }

    /// `[redacted:kind:hash8]`; equal secrets have equal hashes, whatever their kind.
    #[must_use]
    pub fn mark(&self, kind: &str, secret: &str) -> String {
        format!("{MARK}{kind}:{}]", self.tag(secret))
    }

    /// Eight hex digits that stand for `text` on this host.
    #[must_use]
    pub fn tag(&self, text: &str) -> String {
        let digest = Sha256::new().chain_update(self.key).chain_update(text.as_bytes()).finalize();
        digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Another name for `text`, long enough that two of a host's names do not meet.
    #[must_use]
    pub fn pseudonym(&self, text: &str) -> String {
        let digest = Sha256::new().chain_update(b"name").chain_update(self.key).chain_update(text.as_bytes());
        digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Takes the secrets out of an event.
    pub fn event(&self, event: &mut Event) {
        if let Some(process) = &event.process
            && let Some(clean) = self.process(process)
        {
            event.process = Some(clean);
        }
        if let Some(file) = &mut event.file {
            [&mut file.path, &mut file.new_path, &mut file.change].into_iter().for_each(|t| self.field(t));
        }
        if let Some(network) = &mut event.network {
            [&mut network.path, &mut network.abstract_name, &mut network.name, &mut network.query]
                .into_iter()
                .for_each(|text| self.field(text));
        }
        if let Some(privilege) = &mut event.privilege {
            [&mut privilege.object, &mut privilege.mount_point].into_iter().for_each(|text| self.field(text));
            if let Some(target) = &mut privilege.target {
                self.field(&mut target.exe);
            }
        }
        if let Some(detail) = &mut event.detail {
            detail.values_mut().for_each(|value| self.value(value));
        }
    }

    fn field(&self, field: &mut Option<String>) {
        if let Some(clean) = field.as_deref().and_then(|text| self.text(text)) {
            *field = Some(clean);
        }
    }

    fn value(&self, value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) => {
                if let Some(clean) = self.text(text) {
                    *text = clean;
                }
            }
            serde_json::Value::Array(list) => list.iter_mut().for_each(|value| self.value(value)),
            serde_json::Value::Object(map) => map.values_mut().for_each(|value| self.value(value)),
            _ => {}
        }
    }

    /// A process without secrets; `None` where it has none. What was found is remembered: a process has many events.
    fn process(&self, process: &Process) -> Option<Arc<Process>> {
        let key = fingerprint(process);
        let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let clean = match known {
            Some(clean) => clean?,
            None => {
                let clean = self.search(process).map(Arc::new);
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.len() >= CACHE {
                    seen.clear();
                }
                seen.insert(key, clean.clone());
                clean?
            }
        };
        // What changes from event to event is not part of the fingerprint.
        let Process { args, exe, cwd, script, ancestry, args_sha256, cgroup, unit, .. } = (*clean).clone();
        let found = process.clone();
        Some(Arc::new(Process { args, exe, cwd, script, ancestry, args_sha256, cgroup, unit, ..found }))
    }

    fn search(&self, process: &Process) -> Option<Process> {
        let mut clean = process.clone();
        if let Some(args) = self.args(&process.args) {
            clean.args = args;
            // The hash of a list with a short secret would give it away by trying.
            clean.args_sha256 = None;
        }
        [&mut clean.exe, &mut clean.cwd, &mut clean.script, &mut clean.cgroup, &mut clean.unit]
            .into_iter()
            .for_each(|text| self.field(text));
        clean.ancestry.iter_mut().for_each(|parent| self.field(&mut parent.exe));
        (clean != *process).then_some(clean)
    }
}

/// `$TOKEN`, `${TOKEN}`, `$(cat file)`, `%s`: names a secret and is none.
fn is_reference(text: &str) -> bool {
    text.starts_with('$')
        || matches!(text, "%s" | "-" | "null" | "true" | "false")
        || text.bytes().all(|b| b == b'*')
}

fn fingerprint(process: &Process) -> u64 {
    let mut hash = DefaultHasher::new();
    (process.pid, process.start_time, &process.exe, &process.args, &process.cwd, &process.script)
        .hash(&mut hash);
    (&process.cgroup, &process.unit, &process.args_sha256).hash(&mut hash);
    process.ancestry.iter().for_each(|parent| (parent.pid, parent.start_time, &parent.exe).hash(&mut hash));
    hash.finish()
}

fn compile(patterns: &[&str]) -> Result<Regex, String> {
    let config = Regex::config().utf8_empty(false).nfa_size_limit(Some(16 << 20));
    Regex::builder()
        .configure(config)
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .build_many(patterns)
        .map_err(|error| error.syntax_error().map_or_else(|| error.to_string(), ToString::to_string))
}

#[cfg(test)]
mod field_tests;
#[cfg(test)]
mod tests;
