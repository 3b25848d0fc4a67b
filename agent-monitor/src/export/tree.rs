//! Who started whom, and what each process did: a tree that grows with the number of processes, not of events.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::sentence;
use crate::model::{Event, Kind, Process, Time, Verdict};

/// Processes that are kept.
const PROCESSES_MAX: usize = 50_000;
/// Objects that are kept by process.
const OBJECTS_MAX: usize = 12;
/// Characters of a command line or object.
const TEXT_MAX: usize = 300;

/// A process: pid and when it was made.
pub type Key = (u32, Option<Time>);

/// What is known of a process.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Node {
    /// Its pid.
    pub pid: u32,
    /// When it was made.
    pub start_time: Option<Time>,
    /// Its executable, at the last event.
    pub exe: Option<String>,
    /// Its command line, at the last event.
    pub command: String,
    /// The user.
    pub user: Option<String>,
    /// The agent.
    pub agent: Option<String>,
    /// First and last event.
    pub seen: Option<(Time, Time)>,
    /// Number of the first record of it.
    pub record: Option<u64>,
    /// Events by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Events with a verdict of deny, hold or kill.
    pub refused: u64,
    /// Things it acted on, refused ones first: verdict, kind, object, record.
    pub objects: Vec<(Option<Verdict>, String, String, u64)>,
    /// How it ended.
    pub end: Option<String>,
    /// Only known as a parent of others.
    pub inferred: bool,
    #[serde(skip)]
    parent: Option<Key>,
}

/// The tree.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<Key, Node>,
    /// Events whose process found no place any more.
    pub dropped: u64,
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl Tree {
    /// Takes an event.
    pub fn take(&mut self, number: u64, event: &Event) {
        let Some(process) = &event.process else { return };
        let key = (process.pid, process.start_time);
        if self.nodes.len() >= PROCESSES_MAX && !self.nodes.contains_key(&key) {
            self.dropped += 1;
            return;
        }
        let parent = self.parents(process);
        let node = self.nodes.entry(key).or_default();
        node.pid = process.pid;
        node.start_time = process.start_time;
        node.inferred = false;
        node.parent = parent.or(node.parent);
        if event.kind != Kind::ProcessExit || node.exe.is_none() {
            node.exe = process.exe.clone().or_else(|| node.exe.take());
            if !process.args.is_empty() {
                node.command = cut(&process.args.join(" "));
            }
        }
        node.user = process.user.clone().or_else(|| node.user.take());
        node.agent = event.agent.as_ref().map(|agent| agent.id.clone()).or_else(|| node.agent.take());
        node.record.get_or_insert(number);
        let (first, last) = node.seen.unwrap_or((event.time, event.time));
        node.seen = Some((first.min(event.time), last.max(event.time)));
        *node.kinds.entry(event.kind.as_str().to_owned()).or_default() += 1;
        let refused = event.verdict.is_some_and(|verdict| verdict >= Verdict::Deny);
        node.refused += u64::from(refused);
        if event.kind == Kind::ProcessExit {
            node.end = Some(match (&process.exit_signal, process.exit_code) {
                (Some(signal), _) => signal.clone(),
                (None, code) => code.map_or_else(|| "ended".to_owned(), |code| format!("exit {code}")),
            });
        }
        node.act(number, event, refused);
    }

    /// Makes the parents known; returns the nearest.
    fn parents(&mut self, process: &Process) -> Option<Key> {
        let keys: Vec<Key> = process.ancestry.iter().map(|parent| (parent.pid, parent.start_time)).collect();
        for (at, parent) in process.ancestry.iter().enumerate() {
            if self.nodes.len() >= PROCESSES_MAX {
                break;
            }
            let key = (parent.pid, parent.start_time);
            let above = keys.get(at + 1).copied();
            let node = self.nodes.entry(key).or_insert_with(|| Node {
                pid: parent.pid,
                start_time: parent.start_time,
                exe: parent.exe.clone(),
                inferred: true,
                ..Node::default()
            });
            node.parent = node.parent.or(above);
        }
        keys.first().copied()
    }

    /// Each process with its depth, children after their parent, both in the order of time. Processes whose parents are
    /// only known by name come under them.
    #[must_use]
    pub fn rows(&self) -> Vec<(usize, &Node)> {
        let mut children: BTreeMap<Option<Key>, BTreeSet<(Option<Time>, Key)>> = BTreeMap::new();
        for (key, node) in &self.nodes {
            let parent = node.parent.filter(|parent| parent != key && self.nodes.contains_key(parent));
            children
                .entry(parent)
                .or_default()
                .insert((node.seen.map(|seen| seen.0).or(node.start_time), *key));
        }
        let mut rows = Vec::with_capacity(self.nodes.len());
        let mut shown = BTreeSet::new();
        let roots = children.get(&None).into_iter().flatten().rev().map(|(_, key)| (0, *key));
        let mut todo: Vec<(usize, Key)> = roots.collect();
        while let Some((depth, key)) = todo.pop() {
            let Some(node) = self.nodes.get(&key).filter(|_| shown.insert(key)) else { continue };
            rows.push((depth, node));
            todo.extend(
                children.get(&Some(key)).into_iter().flatten().rev().map(|(_, child)| (depth + 1, *child)),
            );
        }
        rows
    }

    /// Processes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

impl Node {
    fn act(&mut self, number: u64, event: &Event, refused: bool) {
        if matches!(event.kind, Kind::ProcessFork | Kind::ProcessExec | Kind::ProcessExit | Kind::AgentBound)
        {
            return;
        }
        let Some(object) = sentence::object(event).map(|object| cut(&object)) else { return };
        let kind = event.kind.as_str();
        if self
            .objects
            .iter()
            .any(|(verdict, k, o, _)| *verdict == event.verdict && k == kind && *o == object)
        {
            return;
        }
        if self.objects.len() >= OBJECTS_MAX {
            // What was refused matters more than what was not.
            let least =
                self.objects.iter().rposition(|(verdict, ..)| verdict.is_none_or(|v| v < Verdict::Deny));
            let Some(at) = least.filter(|_| refused) else { return };
            self.objects.remove(at);
        }
        let row = (event.verdict, kind.to_owned(), object, number);
        if refused { self.objects.insert(0, row) } else { self.objects.push(row) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Ancestor, File, Source};

    fn at(second: u64) -> Time {
        crate::log::fake::time(second)
    }

    fn event(kind: Kind, second: u64, pid: u32, parents: &[u32]) -> Event {
        let ancestry = parents.iter().map(|pid| Ancestor { pid: *pid, exe: None, start_time: Some(at(0)) });
        let process = Process {
            pid,
            start_time: Some(at(0)),
            args: vec![format!("p{pid}")],
            ancestry: ancestry.collect(),
            ..Process::default()
        };
        Event { process: Some(process.into()), ..Event::new(at(second), kind, Source::Lsm) }
    }

    #[test]
    fn children_stand_under_their_parents_and_refusals_come_first() {
        let mut tree = Tree::default();
        tree.take(1, &event(Kind::ProcessExec, 1, 10, &[1]));
        tree.take(2, &event(Kind::ProcessExec, 3, 12, &[10, 1]));
        tree.take(3, &event(Kind::ProcessExec, 2, 11, &[10, 1]));
        for number in 0..20 {
            let mut open = event(Kind::FileOpen, 4, 12, &[10, 1]);
            open.file = Some(File { path: Some(format!("/f{number}")), ..File::default() });
            open.verdict = Some(if number == 19 { Verdict::Deny } else { Verdict::Allow });
            tree.take(10 + number, &open);
        }
        let rows = tree.rows();
        assert_eq!(
            rows.iter().map(|(d, n)| (*d, n.pid)).collect::<Vec<_>>(),
            [(0, 1), (1, 10), (2, 11), (2, 12)]
        );
        let last = rows[3].1;
        assert_eq!((last.objects.len(), last.objects[0].2.as_str(), last.refused), (12, "/f19", 1));
        assert!(rows[0].1.inferred && !rows[1].1.inferred);
    }

    #[test]
    fn a_circle_of_parents_ends() {
        let mut tree = Tree::default();
        tree.take(1, &event(Kind::ProcessExec, 1, 10, &[11]));
        tree.take(2, &event(Kind::ProcessExec, 1, 11, &[10]));
        assert!(tree.rows().len() <= 2);
    }
}
