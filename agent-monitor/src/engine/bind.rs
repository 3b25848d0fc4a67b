//! Bindings that user space makes: asked for, and answered.

use agent_monitor_ebpf::task::BoundBy;

use super::{Engine, Host, Output};
use crate::attribute::TaskKey;
use crate::attribute::tree::Binding;
use crate::model::{Event, Kind, Source};

/// A process that must be bound, with the event that waits for it.
#[derive(Debug)]
pub struct BindRequest {
    /// Which process.
    pub key: TaskKey,
    /// To which agent.
    pub agent: u32,
    /// The agent it was bound to before, which becomes the delegator; 0 for none.
    pub before: u32,
    /// How.
    pub by: BoundBy,
    /// Boot-time nanoseconds of its exec.
    pub ktime: u64,
    /// The exec event, told when it is known how the binding went.
    pub event: Box<Event>,
}

/// A process in which the engine recognised an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) key: TaskKey,
    pub(super) ktime: u64,
    pub(super) agent: u32,
    pub(super) before: u32,
    pub(super) by: BoundBy,
}

/// How a binding from user space went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindOutcome {
    /// Boot-time nanoseconds at which the kernel had it.
    pub at: u64,
    /// Processes that were bound, with what they are bound as, the asked one among them.
    pub bound: Vec<(TaskKey, BoundBy)>,
}

impl Engine {
    pub(super) fn request(&mut self, found: Found, event: Event, out: &mut Output) {
        let Found { key, ktime, agent, before, by } = found;
        let binding =
            Binding { agent, delegator: before, by, session: 0, delay_ms: None, known_from: u64::MAX };
        self.tree.bind(key, Some(binding));
        out.binds.push(BindRequest { key, agent, before, by, ktime, event: Box::new(event) });
    }

    /// Takes note of how a binding went and tells the exec that waited for it. `None`: the kernel refused; the exec is
    /// told without an agent, with the reason. A process that had ended before it could be bound is told as the agent's,
    /// with a `gap.late` for what it did besides.
    pub fn bind_done(
        &mut self,
        request: BindRequest,
        outcome: Option<BindOutcome>,
        host: &mut dyn Host,
        out: &mut Output,
    ) {
        let BindRequest { key, agent, before, by, ktime, event } = request;
        let Some(outcome) = outcome else {
            self.tree.bind(key, None);
            let why = "recognised by its arguments, but the kernel refused the binding";
            let event = Event { unattributed_reason: Some(why.to_owned()), ..*event };
            return self.tell(event, out);
        };
        let delay = outcome.at.saturating_sub(ktime) / 1_000_000;
        let template = Binding {
            agent,
            delegator: before,
            by,
            session: 0,
            delay_ms: Some(delay),
            known_from: outcome.at,
        };
        self.tree.bind(key, Some(template));
        for (bound, by) in outcome.bound.iter().filter(|(bound, _)| *bound != key) {
            self.tree.bind(*bound, Some(Binding { by: *by, delay_ms: None, ..template }));
        }
        let view = self.agent_view(key);
        let mode = self.agents.mode(agent);
        out.events.push(Event { agent: view, mode, ..*event });
        if outcome.bound.iter().any(|(bound, _)| *bound == key) {
            self.announce(key, before, outcome.at, Source::Daemon, host, out);
        } else {
            self.tree.end(key, outcome.at);
            let (first, last) = (self.clock.wall(ktime), self.clock.wall(outcome.at));
            let mut late = super::gaps::gap(Kind::GapLate, "ended_before_binding", 1, first, last);
            late.gap.iter_mut().for_each(|gap| gap.agent = Some(self.agents.name(agent)));
            out.events.push(late);
        }
    }

    /// Takes note of processes that a back-fill bound, and tells each that was not bound by inheritance.
    pub fn backfilled(
        &mut self,
        bound: &[(TaskKey, Binding)],
        source: Source,
        boot_nanos: u64,
        host: &mut dyn Host,
        out: &mut Output,
    ) {
        for (key, binding) in bound {
            if self.tree.get(*key).is_none() {
                let proc = self.look_up(*key, host);
                self.tree.insert(proc);
            }
            self.tree.bind(*key, Some(*binding));
            if binding.by != BoundBy::Inherited {
                self.announce(*key, binding.delegator, boot_nanos, source, host, out);
            }
        }
    }

    /// Ends the bound processes that are not among `alive` and were made before `before`: their exit was lost.
    pub fn reconcile(&mut self, alive: &std::collections::BTreeSet<TaskKey>, before: u64, now: u64) {
        let lost: Vec<TaskKey> = self
            .tree
            .living()
            .filter(|proc| proc.binding.is_some() && proc.key.start < before && !alive.contains(&proc.key))
            .map(|proc| proc.key)
            .collect();
        lost.into_iter().for_each(|key| self.tree.end(key, now));
    }

    /// Takes note of processes that were freed.
    pub fn freed(&mut self, keys: impl IntoIterator<Item = TaskKey>) {
        keys.into_iter().for_each(|key| self.tree.bind(key, None));
    }

    /// Tells that a process was bound, once for each agent.
    pub(super) fn announce(
        &mut self,
        key: TaskKey,
        before: u32,
        boot_nanos: u64,
        source: Source,
        host: &mut dyn Host,
        out: &mut Output,
    ) {
        let Some(proc) = self.tree.touch(key) else { return };
        let Some(binding) = proc.binding.filter(|binding| binding.agent != proc.announced) else { return };
        proc.announced = binding.agent;
        let process = Some(self.process_view(key, host));
        let agent = self.agent_view(key);
        let event = Event::new(self.clock.wall(boot_nanos), Kind::AgentBound, source);
        let detail = self.before(before, binding.delegator);
        out.events.push(Event { process, agent, detail, mode: self.agents.mode(binding.agent), ..event });
    }
}
