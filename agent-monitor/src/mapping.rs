//! From events to the entries of MITRE ATT&CK and ATLAS, the OWASP lists and the NIST frameworks: data with sources.
//!
//! A reference says that an event *fits* an entry, not that an attack happened: an agent that runs `tar` archives. What
//! an event fits becomes part of it when it is stored: `technique` (ATT&CK, ATLAS) and `references` (the others).

use std::collections::BTreeMap;
use std::sync::OnceLock;

use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::Deserialize;

use crate::model::{Event, Kind, Verdict};

/// A list that events are mapped to.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Framework {
    /// Short name.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The version that the ids are of.
    pub version: String,
    /// Where it is published.
    pub source: String,
    /// Id → title.
    pub entries: BTreeMap<String, String>,
}

/// An entry of a list.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The list.
    pub framework: &'static Framework,
    /// Its id there.
    pub id: &'static str,
    /// Its title there.
    pub title: &'static str,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    framework: Vec<Framework>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    rule: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// For people and tests.
    #[cfg_attr(not(test), expect(dead_code, reason = "names the rule in the data and in the tests"))]
    id: String,
    kinds: Vec<Kind>,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    programs: Vec<String>,
    #[serde(default)]
    peers: Vec<std::net::IpAddr>,
    #[serde(default)]
    verdicts: Vec<Verdict>,
    refs: Vec<String>,
}

struct Table {
    frameworks: Vec<Framework>,
    rules: Vec<(Rule, GlobSet)>,
}

/// The tables. They are part of the program: a mistake in them fails the tests, and here leaves a table empty.
fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let catalogue = toml::from_str(include_str!("mapping/catalogue.toml"));
        let rules = toml::from_str(include_str!("mapping/rules.toml"));
        let rules = rules.map_or_else(|_error| Vec::new(), |rules: Rules| rules.rule);
        Table {
            frameworks: catalogue
                .map_or_else(|_error| Vec::new(), |catalogue: Catalogue| catalogue.framework),
            rules: rules
                .into_iter()
                .map(|rule| (globs(&rule), rule))
                .map(|(set, rule)| (rule, set))
                .collect(),
        }
    })
}

fn globs(rule: &Rule) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for glob in rule.paths.iter().filter_map(|path| Glob::new(path).ok()) {
        set.add(glob);
    }
    set.build().unwrap_or_else(|_error| GlobSet::empty())
}

/// All lists.
#[must_use]
pub fn frameworks() -> &'static [Framework] {
    &table().frameworks
}

/// The entry with this id.
#[must_use]
pub fn entry(id: &str) -> Option<Entry> {
    table().frameworks.iter().find_map(|framework| {
        let (id, title) = framework.entries.get_key_value(id)?;
        Some(Entry { framework, id, title })
    })
}

/// Everything that an event fits, in the order of the rules.
#[must_use]
pub fn references(event: &Event) -> Vec<Entry> {
    let mut found: Vec<&str> = Vec::new();
    for (rule, paths) in &table().rules {
        if rule.matches(event, paths) {
            found.extend(
                rule.refs.iter().map(String::as_str).filter(|id| !found.contains(id)).collect::<Vec<_>>(),
            );
        }
    }
    found.into_iter().filter_map(entry).collect()
}

/// Writes into an event what it fits: techniques of ATT&CK and ATLAS, and entries of the other lists.
pub fn mark(event: &mut Event) {
    let technique = |entry: &Entry| matches!(entry.framework.id.as_str(), "attack" | "atlas");
    let (techniques, others): (Vec<Entry>, Vec<Entry>) = references(event).into_iter().partition(technique);
    let ids = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.id.to_owned()).collect();
    event.technique = ids(techniques);
    event.references = ids(others);
}

/// The entries that an event says it fits; of one that was written before events said so, what it fits now.
#[must_use]
pub fn of(event: &Event) -> Vec<Entry> {
    if event.references.is_empty() {
        let mut all: Vec<Entry> = event.technique.iter().filter_map(|id| entry(id)).collect();
        all.extend(
            references(event).into_iter().filter(|entry| !event.technique.iter().any(|id| id == entry.id)),
        );
        return all;
    }
    event.technique.iter().chain(&event.references).filter_map(|id| entry(id)).collect()
}

impl Rule {
    fn matches(&self, event: &Event, paths: &GlobSet) -> bool {
        if !self.kinds.contains(&event.kind) {
            return false;
        }
        let file = event.file.iter().flat_map(|file| [&file.path, &file.new_path]).flatten();
        let socket = event.network.iter().filter_map(|network| network.path.as_ref());
        let program = event.process.as_ref().and_then(|process| process.exe.as_deref());
        let program = program.and_then(|exe| exe.rsplit('/').next());
        let peer = event
            .network
            .as_ref()
            .and_then(|network| network.remote)
            .map(|remote| remote.ip().to_canonical());
        (self.verdicts.is_empty() || event.verdict.is_some_and(|verdict| self.verdicts.contains(&verdict)))
            && (self.programs.is_empty()
                || program.is_some_and(|name| self.programs.iter().any(|p| p == name)))
            && (self.peers.is_empty() || peer.is_some_and(|peer| self.peers.contains(&peer)))
            && (self.paths.is_empty() || file.chain(socket).any(|path| paths.is_match(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{File, Network, Process, Source, Time};

    #[test]
    fn the_data_is_whole() {
        let catalogue: Catalogue = toml::from_str(include_str!("mapping/catalogue.toml")).unwrap();
        let rules: Rules = toml::from_str(include_str!("mapping/rules.toml")).unwrap();
        assert!(
            catalogue.framework.iter().all(|f| f.source.starts_with("https://") && !f.entries.is_empty())
        );
        let mut ids = std::collections::BTreeSet::new();
        for rule in &rules.rule {
            assert!(ids.insert(&rule.id), "{} is there twice", rule.id);
            assert!(rule.paths.iter().all(|path| Glob::new(path).is_ok()), "{}", rule.id);
            rule.refs.iter().for_each(|id| assert!(entry(id).is_some(), "{}: {id} is in no list", rule.id));
        }
        let used: Vec<&String> = rules.rule.iter().flat_map(|rule| &rule.refs).collect();
        let attack = &catalogue.framework[0];
        // Revoked or moved in v19: never to be written again.
        for old in ["T1562", "T1562.001", "T1562.004", "T1070.002"] {
            assert!(!attack.entries.contains_key(old) && !used.iter().any(|id| *id == old), "{old}");
        }
    }

    fn ids(event: &Event) -> Vec<&'static str> {
        references(event).into_iter().map(|entry| entry.id).collect()
    }

    #[test]
    fn events_fit_what_they_are() {
        let mut event = Event::new(Time::EPOCH, Kind::FileOpen, Source::Lsm);
        assert!(ids(&event).is_empty());
        event.file = Some(File { path: Some("/etc/shadow".into()), ..File::default() });
        assert_eq!(ids(&event), ["T1003.008", "AML.T0090", "ASI03", "DE.CM-09"]);
        let mut marked = event.clone();
        mark(&mut marked);
        assert_eq!(marked.technique, ["T1003.008", "AML.T0090"]);
        assert_eq!(marked.references, ["ASI03", "DE.CM-09"]);
        let said = |event: &Event| of(event).iter().map(|entry| entry.id).collect::<Vec<_>>();
        assert_eq!((said(&marked), said(&event)), (ids(&event), ids(&event)));
        // What an event says of itself stays, also where its path was renamed.
        marked.file = None;
        assert_eq!(said(&marked), ids(&event));
        event.file = Some(File { path: Some("/home/a/.ssh/id_ed25519".into()), ..File::default() });
        assert!(ids(&event).contains(&"T1552.004"));
        let mut exec = Event::new(Time::EPOCH, Kind::ProcessExec, Source::Lsm);
        exec.process = Some(Process { exe: Some("/usr/bin/tar".into()), ..Process::default() }.into());
        assert_eq!(ids(&exec), ["T1560.001", "T1074.001"]);
        let mut connect = Event::new(Time::EPOCH, Kind::NetworkConnect, Source::Lsm);
        connect.network = Some(Network { remote: "169.254.169.254:80".parse().ok(), ..Network::default() });
        assert!(ids(&connect).contains(&"T1552.005") && !ids(&connect).contains(&"T1041"));
        connect.verdict = Some(Verdict::Deny);
        assert!(ids(&connect).contains(&"T1041"));
    }
}
