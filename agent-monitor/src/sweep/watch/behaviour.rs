//! Home-made agents live: who speaks to models, and acts. Nobody packaged them; what they do is all there is to see.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::{Finding, Key, TREES_MAX, Told, Watch, script_of};
use crate::attribute::TaskKey;
use crate::config::ShadowAct;
use crate::decode::network::Heard;
use crate::model::{Event, Kind, Process, Source, Time};
use crate::sweep::correlate;
use crate::sweep::edits::{self, EDITS};
use crate::sweep::judge::{NOT_AGENTS, SDK_IMPORT, SHELLS, TOOLS};
use crate::sweep::names::{By, Contact};
use crate::sweep::pack::Ecosystem;
use crate::sweep::report::ProductKind;

/// Nanoseconds between two looks at the files of a process, at first.
const LOOK_EVERY: i128 = 2_000_000_000;
/// How often that doubles: up to four minutes.
const LOOKS_DOUBLE: u32 = 7;
/// Most processes that are looked at in one go.
const LOOKS_MAX: usize = 16;

/// What one line of evidence is about. Of a kind, the strongest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    Imports,
    /// The provider by what the process wrote itself, or by its network.
    Provider,
    /// The provider by the address alone: says nothing beside the former.
    Address,
    LocalModel,
    Tools,
    Edits,
}

/// Who speaks to models, and who acts.
#[derive(Debug, Default)]
pub(super) struct Behaviour {
    /// Processes that speak to models and have not acted so far.
    speakers: BTreeMap<Key, Speaker>,
    /// Processes that have started a shell, and what they started.
    starters: BTreeMap<Key, String>,
    /// The same in order of arrival.
    order: VecDeque<Key>,
}

/// A process that speaks to models: no agent by that alone.
#[derive(Debug)]
struct Speaker {
    signs: BTreeMap<Sign, (u8, String)>,
    process: Arc<Process>,
    /// Order of arrival.
    number: u64,
    /// How often its files were looked at, and when they are next.
    looks: u32,
    look_at: Time,
}

impl Watch {
    /// Takes what names peers; who reaches for a model provider by that.
    pub fn hear(&mut self, key: TaskKey, heard: &Heard) -> Vec<Contact> {
        self.names.hear(key, heard)
    }

    /// What of names was lost since the last call: kind of gap, reason, how many.
    pub fn lost_names(&mut self) -> Vec<(Kind, &'static str, u64)> {
        self.names.lost()
    }

    /// Remembers a script that imports what speaks to models.
    pub(super) fn remember_speaker(&mut self, event: &Event, script: &str, modules: &[String]) {
        let npm = |name: &str| self.pack.package(Ecosystem::Npm, name);
        let products = modules.iter().filter_map(|name| self.pack.import(name).or_else(|| npm(name)));
        let sdks =
            products.filter_map(|index| self.pack.product(index)).filter(|p| p.kind() == ProductKind::Sdk);
        let names: BTreeSet<&str> = sdks.map(|product| product.name.as_str()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let Some(process) = event.process.clone().filter(|_| !names.is_empty()) else { return };
        let line = format!("{script} imports {}", names.join(", "));
        self.speaks(&process, Sign::Imports, SDK_IMPORT, line);
    }

    /// A process without an agent reaches for a model provider: told when it acts or has acted.
    pub fn contact(&mut self, time: Time, process: &Arc<Process>, contact: &Contact) -> Option<Finding> {
        let exe = process.exe.as_deref()?;
        let name = exe.rsplit('/').next().unwrap_or(exe);
        let key = (process.pid, process.start_time);
        let told = self.trees.contains_key(&key) || self.is_below(process);
        let off = self.policy.act == ShadowAct::Off || self.policy.excepts(process);
        if off || told || NOT_AGENTS.contains(&name) {
            return None;
        }
        let sign = match contact.by {
            By::Tls | By::Network => Sign::Provider,
            By::Dns => Sign::Address,
            By::LocalPort => Sign::LocalModel,
            By::OtherName => {
                self.behaviour.retract(key);
                return None;
            }
        };
        self.speaks(process, sign, contact.by.weight(), contact.evidence());
        let started = self.behaviour.starters.get(&key).cloned()?;
        self.tell_speaker(time, key, Sign::Tools, TOOLS, started)
    }

    /// A shell is started: a process that speaks to models, and is above it, acts by that.
    pub(super) fn acts(&mut self, time: Time, process: &Process) -> Option<Finding> {
        let name = shell(process)?;
        let line = format!("has started `{name}` (pid {})", process.pid);
        let above = process.ancestry.iter().map(|parent| (parent.pid, parent.start_time));
        if let Some(speaker) = above.clone().find(|key| self.behaviour.speakers.contains_key(key)) {
            return self.tell_speaker(time, speaker, Sign::Tools, TOOLS, line);
        }
        let parent = above.clone().next()?;
        self.behaviour.remember_starter(parent, line);
        None
    }

    /// Who speaks to models and has not acted: whether they edit files is to be looked at now. Each is looked at again after
    /// twice the time.
    pub fn to_be_looked_at(&mut self, now: Time) -> Vec<Arc<Process>> {
        let due = self.behaviour.speakers.values_mut().filter(|speaker| speaker.look_at <= now);
        let look = |speaker: &mut Speaker| {
            let pause = LOOK_EVERY << speaker.looks.min(LOOKS_DOUBLE);
            speaker.looks += 1;
            speaker.look_at = Time::from_unix_nanos(now.unix_nanos() + pause);
            Arc::clone(&speaker.process)
        };
        due.take(LOOKS_MAX).map(look).collect()
    }

    /// A file in the working directory of a process that speaks to models has changed since it started.
    pub fn edited(&mut self, time: Time, process: &Process, path: &str) -> Option<Finding> {
        let key = (process.pid, process.start_time);
        self.tell_speaker(time, key, Sign::Edits, EDITS, edits::evidence(path))
    }

    fn speaks(&mut self, process: &Arc<Process>, sign: Sign, weight: u8, line: String) {
        self.count += 1;
        let number = self.count;
        let speakers = &mut self.behaviour.speakers;
        let speaker = speakers.entry((process.pid, process.start_time)).or_insert_with(|| Speaker {
            signs: BTreeMap::new(),
            process: Arc::clone(process),
            number,
            looks: 0,
            look_at: Time::from_unix_nanos(0),
        });
        let slot = speaker.signs.entry(sign).or_insert((0, String::new()));
        if weight > slot.0 {
            *slot = (weight, line);
        }
        if speakers.len() > TREES_MAX
            && let Some(oldest) = speakers.iter().min_by_key(|(_, one)| one.number).map(|(key, _)| *key)
        {
            speakers.remove(&oldest);
        }
    }

    /// Told once, with no more confidence than behaviour gives, and never stopped: any program may talk and start others.
    fn tell_speaker(
        &mut self,
        time: Time,
        key: Key,
        sign: Sign,
        weight: u8,
        line: String,
    ) -> Option<Finding> {
        let Speaker { mut signs, process, .. } = self.behaviour.speakers.remove(&key)?;
        if self.trees.contains_key(&key) || self.is_below(&process) {
            return None;
        }
        signs.insert(sign, (weight, line));
        let path = script_of(&process).or_else(|| process.exe.clone())?;
        let told = Told {
            product: correlate::HOME_MADE.to_owned(),
            name: format!("Home-made agent {}", path.rsplit('/').next().unwrap_or(&path)),
            kind: ProductKind::Framework,
            variant: Some(path),
            score: score(&signs),
            signs: signs.into_values().map(|(_, line)| line).collect(),
            flags: BTreeSet::new(),
            act: ShadowAct::Audit,
        };
        self.tell(&Event::new(time, Kind::ProcessExec, Source::Daemon), &process, told)
    }
}

fn score(signs: &BTreeMap<Sign, (u8, String)>) -> u8 {
    let twice = |sign: Sign| sign == Sign::Address && signs.contains_key(&Sign::Provider);
    let counted = signs.iter().filter(|(sign, _)| !twice(**sign));
    correlate::together(counted.map(|(_, (weight, _))| *weight))
}

/// The shell that a process is, if it is one; busybox is one where it was called so.
fn shell(process: &Process) -> Option<&str> {
    let base = |path: &'_ str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let called = process.args.first().map(|first| base(first)).unwrap_or_default();
    let exe = process.exe.as_deref().map(base).unwrap_or_default();
    let name = if exe == "busybox" { called } else { exe };
    SHELLS.iter().copied().find(|shell| *shell == name)
}

impl Behaviour {
    /// The address alone says nothing of a process any more.
    fn retract(&mut self, key: Key) {
        if let Some(speaker) = self.speakers.get_mut(&key) {
            speaker.signs.remove(&Sign::Address);
            if speaker.signs.is_empty() {
                self.speakers.remove(&key);
            }
        }
    }

    fn remember_starter(&mut self, key: Key, line: String) {
        if self.starters.insert(key, line).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > TREES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.starters.remove(&oldest);
        }
    }
}
