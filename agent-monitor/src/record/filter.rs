//! Which events a reader asked for.
//!
//! [`FilterSpec`] is the textual form, the same in CLI flags and in the query string of the control API;
//! [`FilterSpec::compile`] checks it. Within one field values are alternatives, between fields all must hold.
//! Matching is pure. A filter never hides the `gap.subscriber` and `gap.history` records of its own reader:
//! those do not go through it.

mod path;
mod peer;
pub mod when;

use std::str::FromStr;

use path::PathPattern;
use peer::Peer;

use crate::model::{Event, Family, Kind, Time, Verdict};

/// A filter as text. Field names are those of the query string and, with `--`, of the CLI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterSpec {
    /// Agent ids.
    pub agent: Vec<String>,
    /// Session ids.
    pub session: Vec<String>,
    /// `file.open`, `file` or `file.*`.
    pub kind: Vec<String>,
    /// `allow`, `audit`, `deny`, `hold`, `kill`.
    pub verdict: Vec<String>,
    /// Exact path, `/dir/**`, or a glob.
    pub path: Vec<String>,
    /// Address, CIDR, `host:port`, name, UNIX socket path or `@abstract`.
    pub peer: Vec<String>,
    /// Process or thread ids.
    pub pid: Vec<String>,
    /// Words anywhere in the event, upper and lower case alike.
    pub text: Vec<String>,
    /// Not before: RFC 3339 or relative (`2h`).
    pub since: Option<String>,
    /// Before: RFC 3339 or relative.
    pub until: Option<String>,
    /// Events of processes without an agent; with `agent`, these too.
    pub unattributed: bool,
}

/// What is wrong with a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FilterError {
    /// Name of the field, as in [`FilterSpec`].
    pub field: &'static str,
    /// What is wrong with its value.
    pub problem: String,
    /// How to write it.
    pub hint: &'static str,
}

impl FilterSpec {
    /// Sets a field by name: for the query string.
    ///
    /// # Errors
    /// When there is no such field, or it cannot be given twice.
    pub fn set(&mut self, field: &str, value: &str) -> Result<(), FilterError> {
        let known = "agent, session, kind, verdict, path, peer, pid, text, since, until, unattributed";
        let list = match field {
            "agent" => &mut self.agent,
            "session" => &mut self.session,
            "kind" => &mut self.kind,
            "verdict" => &mut self.verdict,
            "path" => &mut self.path,
            "peer" => &mut self.peer,
            "pid" => &mut self.pid,
            "text" => &mut self.text,
            "since" => return once("since", &mut self.since, value),
            "until" => return once("until", &mut self.until, value),
            "unattributed" => {
                self.unattributed = value.parse().map_err(|error: std::str::ParseBoolError| FilterError {
                    field: "unattributed",
                    problem: format!("`{value}`: {error}"),
                    hint: "unattributed=true",
                })?;
                return Ok(());
            }
            _ => {
                return Err(FilterError {
                    field: "filter",
                    problem: format!("no field `{field}`"),
                    hint: known,
                });
            }
        };
        list.push(value.to_owned());
        Ok(())
    }

    /// The fields that are set, in the order of this type: for the query string.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let lists = [
            ("agent", &self.agent),
            ("session", &self.session),
            ("kind", &self.kind),
            ("verdict", &self.verdict),
            ("path", &self.path),
            ("peer", &self.peer),
            ("pid", &self.pid),
            ("text", &self.text),
        ];
        lists
            .into_iter()
            .flat_map(|(name, values)| values.iter().map(move |value| (name, value.as_str())))
            .chain(self.since.iter().map(|value| ("since", value.as_str())))
            .chain(self.until.iter().map(|value| ("until", value.as_str())))
            .chain(self.unattributed.then_some(("unattributed", "true")))
    }

    /// Checks the text. `now` is what relative times count from.
    ///
    /// # Errors
    /// Names the first field that does not hold.
    pub fn compile(&self, now: Time) -> Result<Filter, FilterError> {
        let filter = Filter {
            agents: self.agent.clone(),
            unattributed: self.unattributed,
            sessions: self.session.clone(),
            kinds: each(&self.kind, kind_pattern)?,
            verdicts: each(&self.verdict, verdict)?,
            paths: each(&self.path, PathPattern::parse)?,
            peers: each(&self.peer, Peer::parse)?,
            pids: each(&self.pid, pid)?,
            texts: self.text.iter().map(|text| text.to_lowercase()).collect(),
            since: self.since.as_deref().map(|text| when::parse("since", text, now)).transpose()?,
            until: self.until.as_deref().map(|text| when::parse("until", text, now)).transpose()?,
        };
        match (filter.since, filter.until) {
            (Some(since), Some(until)) if since >= until => Err(FilterError {
                field: "until",
                problem: format!("{until} is not after --since {since}"),
                hint: "--since 2h --until 1h",
            }),
            _ => Ok(filter),
        }
    }
}

fn once(field: &'static str, slot: &mut Option<String>, value: &str) -> Result<(), FilterError> {
    if slot.replace(value.to_owned()).is_some() {
        return Err(FilterError { field, problem: "given twice".to_owned(), hint: "give it once" });
    }
    Ok(())
}

fn each<T>(values: &[String], parse: impl Fn(&str) -> Result<T, FilterError>) -> Result<Vec<T>, FilterError> {
    values.iter().map(|value| parse(value)).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KindPattern {
    Kind(Kind),
    Family(Family),
}

fn kind_pattern(text: &str) -> Result<KindPattern, FilterError> {
    let family = Family::from_str(text.strip_suffix(".*").unwrap_or(text));
    family.map(KindPattern::Family).or_else(|_| text.parse().map(KindPattern::Kind)).map_err(
        |unknown: crate::model::UnknownKind| FilterError {
            field: "kind",
            problem: unknown.to_string(),
            hint: "a kind (file.open), or a family: process, file, network, privilege, tamper, agent, session, \
                   grant, approval, finding, gap, log",
        },
    )
}

fn verdict(text: &str) -> Result<Verdict, FilterError> {
    Verdict::ALL.into_iter().find(|verdict| verdict.as_str() == text).ok_or_else(|| FilterError {
        field: "verdict",
        problem: format!("`{text}` is not a verdict"),
        hint: "allow, audit, deny, hold or kill",
    })
}

fn pid(text: &str) -> Result<u32, FilterError> {
    text.parse().ok().filter(|pid| *pid != 0).ok_or_else(|| FilterError {
        field: "pid",
        problem: format!("`{text}` is not a process id"),
        hint: "a number from 1",
    })
}

/// A checked filter. The default matches everything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    agents: Vec<String>,
    unattributed: bool,
    sessions: Vec<String>,
    kinds: Vec<KindPattern>,
    verdicts: Vec<Verdict>,
    paths: Vec<PathPattern>,
    peers: Vec<Peer>,
    pids: Vec<u32>,
    /// In lower case.
    texts: Vec<String>,
    since: Option<Time>,
    until: Option<Time>,
}

impl Filter {
    /// Whether `event` is asked for.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time < until)
            && one_of(&self.kinds, |kind| match kind {
                KindPattern::Kind(kind) => *kind == event.kind,
                KindPattern::Family(family) => *family == event.kind.family(),
            })
            && one_of(&self.verdicts, |verdict| event.verdict == Some(*verdict))
            && self.matches_who(event)
            && one_of(&self.sessions, |id| {
                event.agent.as_ref().is_some_and(|a| a.session.as_ref() == Some(id))
            })
            && one_of(&self.pids, |pid| {
                event.process.as_ref().is_some_and(|p| p.pid == *pid || p.tid == Some(*pid))
            })
            && one_of(&self.paths, |pattern| paths_of(event).any(|path| pattern.matches(path)))
            && one_of(&self.peers, |peer| event.network.as_ref().is_some_and(|n| peer.matches(n)))
            && (self.texts.is_empty() || event.to_line().is_ok_and(|line| self.may_match(line.as_bytes())))
    }

    /// Whether the line of an event may match, by its text alone: quicker than reading it.
    #[must_use]
    pub fn may_match(&self, line: &[u8]) -> bool {
        if self.texts.is_empty() {
            return true;
        }
        let line = String::from_utf8_lossy(line).to_lowercase();
        self.texts.iter().any(|text| line.contains(text))
    }

    /// Not before.
    #[must_use]
    pub fn since(&self) -> Option<Time> {
        self.since
    }

    /// Before.
    #[must_use]
    pub fn until(&self) -> Option<Time> {
        self.until
    }

    /// The agents outside of which nothing matches; empty where that cannot be said.
    #[must_use]
    pub fn only_agents(&self) -> &[String] {
        if self.unattributed { &[] } else { &self.agents }
    }

    fn matches_who(&self, event: &Event) -> bool {
        if self.agents.is_empty() && !self.unattributed {
            return true;
        }
        let unattributed = event.agent.is_none() && event.process.is_some();
        (self.unattributed && unattributed)
            || agent_of(event).is_some_and(|id| self.agents.iter().any(|agent| agent == id))
    }
}

/// The agent an event is of or about: attributed to, missing events of, or changed.
fn agent_of(event: &Event) -> Option<&str> {
    let of = event.agent.as_ref().map(|agent| agent.id.as_str());
    of.or_else(|| event.gap.as_ref()?.agent.as_deref())
        .or_else(|| event.detail.as_ref()?.get("agent")?.as_str())
}

/// The paths an event is about. The executable counts for `process.exec` only.
fn paths_of(event: &Event) -> impl Iterator<Item = &str> {
    let file = event.file.as_ref();
    let program = event.process.as_ref().filter(|_| event.kind == Kind::ProcessExec);
    let privilege = event.privilege.as_ref();
    [
        file.and_then(|f| f.path.as_deref()),
        file.and_then(|f| f.new_path.as_deref()),
        program.and_then(|p| p.exe.as_deref()),
        program.and_then(|p| p.script.as_deref()),
        privilege.and_then(|p| p.object.as_deref()),
        privilege.and_then(|p| p.mount_point.as_deref()),
    ]
    .into_iter()
    .flatten()
}

/// No alternative given, or one holds.
fn one_of<T>(alternatives: &[T], holds: impl Fn(&T) -> bool) -> bool {
    alternatives.is_empty() || alternatives.iter().any(holds)
}

#[cfg(test)]
mod tests;
