//! Which events: the options that `events` and `export` share.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::PathBuf;

use agent_monitor::control::client::Client;
use agent_monitor::log::reader::Window;
use agent_monitor::record::FilterSpec;
use clap::Args;
use serde::Deserialize;

use super::exit::{FAILURE, Failure};
use super::source::Source;
use super::{Shared, place};

/// Values of one option are alternatives; different options must all hold.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// Of this agent
    #[arg(long, value_name = "ID")]
    pub(crate) agent: Vec<String>,
    /// Of this session
    #[arg(long, value_name = "ID")]
    session: Vec<String>,
    /// A kind (file.open) or family (file, file.*)
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    /// allow, audit, deny, hold or kill
    #[arg(long, value_name = "VERDICT")]
    verdict: Vec<String>,
    /// Exact path, /dir/** for all below it, or a glob such as **/.env
    #[arg(long, value_name = "PATTERN")]
    path: Vec<String>,
    /// 10.0.0.7, 10.0.0.0/8, 10.0.0.7:443, :443, *.example.com:443, /run/docker.sock or @abstract
    #[arg(long, value_name = "PEER")]
    peer: Vec<String>,
    /// Process or thread id
    #[arg(long, value_name = "PID")]
    pid: Vec<String>,
    /// Of processes without an agent; with --agent, these too
    #[arg(long)]
    unattributed: bool,
    /// Not before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Words anywhere in the event
    #[arg(long, value_name = "WORDS")]
    text: Vec<String>,
}

impl FilterArgs {
    /// As the library takes it.
    pub(crate) fn spec(&self) -> FilterSpec {
        FilterSpec {
            agent: self.agent.clone(),
            session: self.session.clone(),
            kind: self.kind.clone(),
            verdict: self.verdict.clone(),
            path: self.path.clone(),
            peer: self.peer.clone(),
            pid: self.pid.clone(),
            text: self.text.clone(),
            since: self.since.clone(),
            until: self.until.clone(),
            unattributed: self.unattributed,
        }
    }

    /// Whether the agents and sessions that are named exist, in the records of `source` or in the registry: a mistyped
    /// name is no calm agent.
    pub(crate) fn known_to(&self, source: &Source, shared: &Shared) -> anyhow::Result<()> {
        if self.agent.is_empty() && self.session.is_empty() {
            return Ok(());
        }
        let mut names = Names { agents: registered(shared), sessions: BTreeSet::new() };
        let missing = |names: &Names| names.missing(&self.agent, &self.session).is_some();
        if !missing(&names) {
            return Ok(());
        }
        source.each(&Window::default(), |_, json| {
            names.take(json);
            // Found: the rest need not be read.
            if missing(&names) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        self.refuse(&names, &format!("in {}", source.path().display()))
    }

    /// The same, by what the daemon knows.
    pub(crate) async fn known_to_daemon(&self, client: &Client) -> anyhow::Result<()> {
        let mut names = Names::default();
        for (asked, path, known) in [
            (&self.agent, "/v1/agents", &mut names.agents),
            (&self.session, "/v1/sessions", &mut names.sessions),
        ] {
            if !asked.is_empty() {
                let list: serde_json::Value = client.get(path).await?;
                known.extend(ids(&list));
            }
        }
        // What is no longer in the registry may still be in the record.
        let mut lines = client.lines("/v1/events").await?;
        while let Some(line) = lines.next().await? {
            names.take(line.as_bytes());
        }
        self.refuse(&names, "known to the daemon")
    }

    fn refuse(&self, names: &Names, place: &str) -> anyhow::Result<()> {
        match names.missing(&self.agent, &self.session) {
            None => Ok(()),
            Some((what, name, hint)) => {
                let message = format!("no such {what} `{name}` {place}: no record matches it");
                let hint = hint.or_else(|| Some("agent-monitor agent list".to_owned()));
                Err(Failure { code: FAILURE, message, hint }.into())
            }
        }
    }

    /// What is asked for, for readers of an export.
    pub(crate) fn words(&self) -> BTreeMap<String, String> {
        let mut words: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in self.spec().pairs() {
            let text = words.entry(name.to_owned()).or_default();
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(value);
        }
        words
    }
}

/// Names that are kept for comparison, of a kind.
const NAMES_MAX: usize = 10_000;

/// The agents and sessions that exist.
#[derive(Default)]
struct Names {
    agents: BTreeSet<String>,
    sessions: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Who {
    agent: Option<Id>,
    #[serde(default)]
    detail: Option<About>,
}

#[derive(Deserialize)]
struct Id {
    id: String,
    session: Option<String>,
}

#[derive(Deserialize)]
struct About {
    #[serde(default)]
    agent: serde_json::Value,
    #[serde(default)]
    session: serde_json::Value,
}

impl Names {
    fn take(&mut self, json: &[u8]) {
        let Ok(Who { agent, detail }) = serde_json::from_slice(json) else { return };
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let (id, session) = agent.map_or((None, None), |agent| (Some(agent.id), agent.session));
        let about = detail.map_or((None, None), |detail| (text(&detail.agent), text(&detail.session)));
        if self.agents.len() < NAMES_MAX {
            self.agents.extend(id.into_iter().chain(about.0));
        }
        if self.sessions.len() < NAMES_MAX {
            self.sessions.extend(session.into_iter().chain(about.1));
        }
    }

    /// The first name that does not exist: of what, and what may have been meant.
    fn missing<'a>(
        &self,
        agents: &'a [String],
        sessions: &'a [String],
    ) -> Option<(&'static str, &'a str, Option<String>)> {
        let full = |set: &BTreeSet<String>| set.len() >= NAMES_MAX;
        let of = |what, asked: &'a [String], known: &BTreeSet<String>| {
            let name = asked.iter().find(|name| !known.contains(*name) && !full(known))?;
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            Some((what, name.as_str(), did_you_mean(name, &known)))
        };
        of("agent", agents, &self.agents).or_else(|| of("session", sessions, &self.sessions))
    }
}

/// Ids of the agents in the registry, valid or not.
fn registered(shared: &Shared) -> BTreeSet<String> {
    let Ok(settings) = shared.settings() else { return BTreeSet::new() };
    let files = std::fs::read_dir(settings.registry).into_iter().flatten().flatten();
    let stem = |path: PathBuf| {
        let toml = path.extension().is_some_and(|end| end == "toml");
        path.file_stem().filter(|_| toml).map(|stem| stem.to_string_lossy().into_owned())
    };
    files.filter_map(|file| stem(file.path())).collect()
}

/// Refuses an agent that is neither in the registry nor in the log.
pub(crate) fn known_agent(agent: &str, shared: &Shared) -> anyhow::Result<()> {
    let mut names = Names { agents: registered(shared), sessions: BTreeSet::new() };
    if let Ok(dir) = place::log_or_own(None, shared) {
        Source::open(&dir, &[])?.each(&Window::default(), |_, json| {
            names.take(json);
            if names.agents.contains(agent) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    }
    match names.missing(&[agent.to_owned()], &[]) {
        None => Ok(()),
        Some((_, _, hint)) => {
            let message = format!("no such agent `{agent}`, neither in the registry nor in the log");
            let hint = hint.or_else(|| Some("agent-monitor agent list".to_owned()));
            Err(Failure { code: FAILURE, message, hint }.into())
        }
    }
}

/// The ids in a list that the daemon gives.
fn ids(list: &serde_json::Value) -> Vec<String> {
    let id = |entry: &serde_json::Value| entry["id"].as_str().map(str::to_owned);
    let entries =
        list.as_array().or_else(|| list.as_object()?.values().find_map(serde_json::Value::as_array));
    entries.into_iter().flatten().filter_map(id).collect()
}

/// The nearest known name, if one is near.
fn did_you_mean(name: &str, known: &[&str]) -> Option<String> {
    let near = known.iter().map(|known| (distance(name, known), *known)).min()?;
    (near.0 <= (name.chars().count() / 3).clamp(1, 3)).then(|| format!("did you mean `{}`?", near.1))
}

/// Edits that turn one name into the other, at most 40 characters of each.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().take(40).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, left) in from.chars().take(40).enumerate() {
        let mut next = vec![at + 1];
        for (column, right) in to.iter().enumerate() {
            let cell = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX - 1);
            let change = cell(&row, column) + usize::from(left != *right);
            next.push(change.min(cell(&row, column + 1) + 1).min(cell(&next, column) + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_strange_one_is_not() {
        let known = ["release-bot", "bot", "other"];
        assert_eq!(did_you_mean("bto", &known), None);
        assert_eq!(did_you_mean("bott", &known).as_deref(), Some("did you mean `bot`?"));
        assert_eq!(did_you_mean("relaese-bot", &known).as_deref(), Some("did you mean `release-bot`?"));
        assert_eq!(did_you_mean("nobody", &known), None);
    }
}
