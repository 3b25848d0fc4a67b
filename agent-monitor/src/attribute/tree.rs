//! The process table: who is who, who started whom, and what each was running.
//!
//! Keyed by [`TaskKey`], so a reused pid is another process. Bounded: processes of no agent make room first, the
//! longest unseen before the others; ended ones stay a while so that events that come late still find them. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::TaskKey;
use crate::model::{Agent, Process};

/// Parents that an event tells.
pub const ANCESTRY_MAX: usize = 16;

/// Bounds of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Processes without an agent.
    pub unbound: usize,
    /// Processes in all.
    pub all: usize,
    /// Ended processes.
    pub ended: usize,
    /// Nanoseconds for which an ended process is kept.
    pub ended_nanos: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { unbound: 16_384, all: 262_144, ended: 16_384, ended_nanos: 30_000_000_000 }
    }
}

/// What a process runs: shared by the processes that were forked and have not run another program since.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Executable.
    pub exe: Option<String>,
    /// Script an interpreter was started for.
    pub script: Option<String>,
    /// The script was an argument of the interpreter: the kernel did not run it.
    pub script_argument: bool,
    /// Arguments, escaped; head and tail only when `args_truncated`.
    pub args: Vec<String>,
    /// Arguments are missing.
    pub args_truncated: bool,
    /// SHA-256 of the whole argument block, where it was seen.
    pub args_sha256: Option<String>,
}

/// To which agent a process is bound, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// Agent index, never 0.
    pub agent: u32,
    /// Index of the agent that started this one, 0 for none.
    pub delegator: u32,
    /// How.
    pub by: agent_monitor_ebpf::task::BoundBy,
    /// Session, 0 for none.
    pub session: u64,
    /// Milliseconds from exec to binding, for bindings from user space.
    pub delay_ms: Option<u64>,
    /// Boot-time nanoseconds from which on the kernel tells the binding itself; before that, records of the process come
    /// without it. 0 for bindings that the kernel made, `u64::MAX` while the kernel is being asked.
    pub known_from: u64,
}

/// A parent as it was when its child was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Who.
    pub key: TaskKey,
    /// What it ran.
    pub exe: Option<String>,
}

/// One process.
#[derive(Debug, Clone)]
pub struct Proc {
    /// Who.
    pub key: TaskKey,
    /// Parent, where its start time is known.
    pub parent: Option<TaskKey>,
    /// Parent's pid.
    pub ppid: Option<u32>,
    /// What it runs.
    pub image: Arc<Image>,
    /// Working directory at the last exec or fork.
    pub cwd: Option<String>,
    /// Real uid.
    pub uid: Option<u32>,
    /// Real gid.
    pub gid: Option<u32>,
    /// cgroup v2 id, 0 when not known.
    pub cgroup: u64,
    /// Whose it is.
    pub binding: Option<Binding>,
    /// Parents as they were when it was made, nearest first.
    pub ancestry: Arc<[Parent]>,
    /// Read from `/proc`, not seen by a hook.
    pub inferred: bool,
    /// The agent of which a binding of this very process was told.
    pub announced: u32,
    /// Boot-time nanoseconds of its end.
    pub ended: Option<u64>,
    /// The form in which events show it, until something changes.
    pub(crate) view: Option<Arc<Process>>,
    /// The form in which events show its agent.
    pub(crate) agent_view: Option<(Binding, Arc<Agent>)>,
    pub(crate) stamp: u64,
}

impl Proc {
    /// A process of which nothing is known but who it is.
    #[must_use]
    pub fn new(key: TaskKey) -> Self {
        Self {
            key,
            parent: None,
            ppid: None,
            image: Arc::default(),
            cwd: None,
            uid: None,
            gid: None,
            cgroup: 0,
            binding: None,
            ancestry: Arc::from([]),
            inferred: false,
            announced: 0,
            ended: None,
            view: None,
            agent_view: None,
            stamp: 0,
        }
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Tree {
    limits: Limits,
    procs: BTreeMap<TaskKey, Proc>,
    /// Start time of the latest process with a pid.
    latest: BTreeMap<u32, u64>,
    /// Unbound processes by when they were last seen.
    recency: BTreeMap<u64, TaskKey>,
    ended: VecDeque<(u64, TaskKey)>,
    stamp: u64,
    evicted: u64,
}

impl Tree {
    /// An empty table.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Looks a process up.
    #[must_use]
    pub fn get(&self, key: TaskKey) -> Option<&Proc> {
        self.procs.get(&key)
    }

    /// Looks a process up to change it, and marks it as seen.
    pub fn touch(&mut self, key: TaskKey) -> Option<&mut Proc> {
        let proc = self.procs.get_mut(&key)?;
        if self.recency.remove(&proc.stamp).is_some() {
            self.stamp += 1;
            proc.stamp = self.stamp;
            self.recency.insert(self.stamp, key);
        }
        Some(proc)
    }

    /// The process that has this pid now, or had it last.
    #[must_use]
    pub fn latest(&self, tgid: u32) -> Option<&Proc> {
        let start = *self.latest.get(&tgid)?;
        self.procs.get(&TaskKey { tgid, start })
    }

    /// Puts a process in, over what was known of it.
    pub fn insert(&mut self, mut proc: Proc) {
        let key = proc.key;
        self.remove(key);
        let latest = self.latest.entry(key.tgid).or_insert(key.start);
        *latest = (*latest).max(key.start);
        self.stamp += 1;
        proc.stamp = self.stamp;
        if proc.binding.is_none() && proc.ended.is_none() {
            self.recency.insert(proc.stamp, key);
        }
        self.procs.insert(key, proc);
        self.make_room();
    }

    /// A child of `parent`, as fork makes it: same image, directory, ids and binding.
    pub fn fork(&mut self, parent: TaskKey, child: TaskKey) {
        let mut made = Proc { parent: Some(parent), ppid: Some(parent.tgid), ..Proc::new(child) };
        if let Some(from) = self.procs.get(&parent) {
            made.image = Arc::clone(&from.image);
            made.cwd.clone_from(&from.cwd);
            (made.uid, made.gid, made.cgroup) = (from.uid, from.gid, from.cgroup);
            made.binding = from.binding.map(|binding| Binding {
                by: agent_monitor_ebpf::task::BoundBy::Inherited,
                delay_ms: None,
                ..binding
            });
        }
        made.ancestry = self.ancestry_below(parent);
        self.insert(made);
    }

    /// Binds a process, or frees it.
    pub fn bind(&mut self, key: TaskKey, binding: Option<Binding>) {
        let Some(proc) = self.procs.get_mut(&key) else { return };
        if proc.binding == binding {
            return;
        }
        proc.binding = binding;
        proc.agent_view = None;
        let stamp = proc.stamp;
        if binding.is_none() && proc.ended.is_none() {
            self.recency.insert(stamp, key);
        } else {
            self.recency.remove(&stamp);
        }
        self.make_room();
    }

    /// Marks a process as ended.
    pub fn end(&mut self, key: TaskKey, ktime: u64) {
        if let Some(proc) = self.procs.get_mut(&key)
            && proc.ended.is_none()
        {
            proc.ended = Some(ktime);
            self.recency.remove(&proc.stamp);
            self.ended.push_back((ktime, key));
        }
        let too_old = ktime.saturating_sub(self.limits.ended_nanos);
        while let Some((at, key)) = self.ended.front().copied()
            && (self.ended.len() > self.limits.ended || at < too_old)
        {
            self.ended.pop_front();
            if self.procs.get(&key).is_some_and(|proc| proc.ended == Some(at)) {
                self.remove(key);
            }
        }
    }

    /// Parents of a child of `parent`: `parent` itself and then its own.
    #[must_use]
    pub fn ancestry_below(&self, parent: TaskKey) -> Arc<[Parent]> {
        let Some(proc) = self.procs.get(&parent) else { return Arc::from([]) };
        let first = Parent { key: parent, exe: proc.image.exe.clone() };
        std::iter::once(first).chain(proc.ancestry.iter().cloned()).take(ANCESTRY_MAX).collect()
    }

    /// Processes that have not ended, in the order of their keys.
    pub fn living(&self) -> impl Iterator<Item = &Proc> {
        self.procs.values().filter(|proc| proc.ended.is_none())
    }

    /// Processes held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.procs.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.procs.is_empty()
    }

    /// Living processes that made room since the start.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn remove(&mut self, key: TaskKey) {
        let Some(proc) = self.procs.remove(&key) else { return };
        self.recency.remove(&proc.stamp);
        if self.latest.get(&key.tgid) == Some(&key.start) {
            self.latest.remove(&key.tgid);
        }
    }

    fn make_room(&mut self) {
        while self.recency.len() > self.limits.unbound || self.procs.len() > self.limits.all {
            let oldest = self.recency.first_key_value().map(|(_, key)| *key);
            let Some(key) = oldest.or_else(|| self.procs.first_key_value().map(|(key, _)| *key)) else {
                return;
            };
            self.remove(key);
            self.evicted += 1;
        }
    }
}

#[cfg(test)]
mod bound_tests;
#[cfg(test)]
mod tests;
