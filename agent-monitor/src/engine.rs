//! The engine: what comes from the kernel → events of the contract, and what must be done about it.
//!
//! Composes `decode` and `attribute`. Does no I/O and reads no clock: what it must know of the host it asks of a
//! [`Host`], what must be done comes back in [`Output`]. Over the same inputs it gives the same events. Everything it
//! holds is bounded, and what it could not make sense of becomes a gap record.

pub mod args;
pub mod bind;
pub mod file;
pub mod gaps;
pub mod host;
pub mod names;
pub mod network;
pub mod privilege;
pub mod process;
pub mod rules;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent_monitor_ebpf::header::FLAG_HELD;

pub use bind::{BindOutcome, BindRequest};
pub use gaps::LossBook;
pub use host::Host;

pub use crate::config::Unattributed;

use crate::attribute::paths;
use crate::attribute::tree::{Binding, Limits, Proc};
use crate::attribute::{Agents, Matcher, MountTable, TaskKey, Tree};
use crate::clock::Clock;
use crate::decode::file::Place;
use crate::decode::{self, Body, DecodeError, FsPath, Head, Heard, Raw};
use crate::model::{Event, Kind, kinds};

/// What one or more inputs gave.
#[derive(Debug, Default)]
pub struct Output {
    /// For the record, in order.
    pub events: Vec<Event>,
    /// Processes that were recognised in user space and must be bound; each holds back the event that it is part of.
    pub binds: Vec<BindRequest>,
    /// What names peers, with the process that it is of; for an answer of the network, of none.
    pub heard: Vec<(Head, Heard)>,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    clock: Arc<Clock>,
    unattributed: Unattributed,
    tree: Tree,
    agents: Agents,
    mounts: MountTable,
    /// Devices that were looked for in this mount table and are not in it.
    unmounted: BTreeSet<u32>,
    matcher: Matcher,
    rules: rules::RuleBook,
    args: args::Assembly,
    gaps: LossBook,
    /// Latest kernel time that was seen.
    latest: u64,
    /// Ids of sessions by their number in the kernel.
    sessions: BTreeMap<u64, Arc<str>>,
}

/// Sessions whose ids are remembered at the most.
const SESSIONS_MAX: usize = 65_536;

impl Engine {
    /// An engine that knows nothing yet. `clock` only translates kernel time.
    #[must_use]
    pub fn new(clock: Arc<Clock>, unattributed: Unattributed, limits: Limits) -> Self {
        Self {
            clock,
            unattributed,
            tree: Tree::new(limits),
            agents: Agents::default(),
            mounts: MountTable::default(),
            unmounted: BTreeSet::new(),
            matcher: Matcher::default(),
            rules: rules::RuleBook::default(),
            args: args::Assembly::default(),
            gaps: LossBook::default(),
            latest: 0,
            sessions: BTreeMap::new(),
        }
    }

    /// Takes a new mount table.
    pub fn set_mounts(&mut self, mounts: MountTable) {
        self.mounts = mounts;
        self.unmounted.clear();
    }

    /// Takes a new set of agents and rules. Processes of agents that are gone are no longer theirs.
    pub fn set_agents(&mut self, agents: Agents, matcher: Matcher) {
        (self.agents, self.matcher) = (agents, matcher);
        let gone: Vec<TaskKey> = self
            .tree
            .living()
            .filter(|proc| proc.binding.is_some_and(|b| !self.agents.is_registered(b.agent)))
            .map(|proc| proc.key)
            .collect();
        gone.into_iter().for_each(|key| self.tree.bind(key, None));
    }

    /// Names of agents.
    #[must_use]
    pub fn agents(&self) -> &Agents {
        &self.agents
    }

    /// Rules.
    #[must_use]
    pub fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    /// Mounts.
    #[must_use]
    pub fn mounts(&self) -> &MountTable {
        &self.mounts
    }

    /// Processes.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Names of rules.
    pub fn rules(&mut self) -> &mut rules::RuleBook {
        &mut self.rules
    }

    /// Names a session: what events show in place of its number.
    pub fn name_session(&mut self, number: u64, id: &str) {
        if self.sessions.len() >= SESSIONS_MAX {
            self.sessions.pop_first();
        }
        self.sessions.insert(number, id.into());
    }

    /// What was lost.
    pub fn gaps(&mut self) -> &mut LossBook {
        &mut self.gaps
    }

    /// Takes one record from a ring.
    pub fn record(&mut self, bytes: &[u8], host: &mut dyn Host, out: &mut Output) {
        match decode::decode(bytes) {
            Ok(raw) => {
                self.latest = self.latest.max(raw.head.ktime);
                self.raw(raw, host, out);
            }
            Err(error) => self.gaps.undecoded(decode::claimed_kind(bytes), error, self.latest),
        }
    }

    fn raw(&mut self, raw: Raw, host: &mut dyn Host, out: &mut Output) {
        let Raw { head, body } = raw;
        let kind = kinds::of_record(head.kind).event();
        match (body, kind) {
            (Body::Canary, _) => {}
            (Body::Heard(heard), _) => out.heard.push((head, *heard)),
            (Body::ArgChunk(chunk), _) => self.args.add(head.key, head.ktime, chunk),
            // Decoding gives no such body to a record that is no event; were it to, it would still be none.
            (_, None) => {
                self.gaps.undecoded(Some(head.kind), DecodeError::Kind(head.kind as u16), head.ktime)
            }
            // An exec that was let through has no errno and does not wait.
            (Body::Exec(exec), Some(_)) if head.errno != 0 || head.flags & FLAG_HELD != 0 => {
                self.refused_exec(&head, *exec, host, out);
            }
            (Body::Exec(exec), Some(_)) => self.exec(&head, *exec, host, out),
            (Body::Fork { child, new_ns }, Some(_)) => self.fork(&head, child, new_ns, host, out),
            (Body::Exit { status }, Some(_)) => self.exit(&head, status, host, out),
            (Body::Bound { before }, Some(_)) => self.bound(&head, before, host, out),
            (Body::File(facts), Some(kind)) => {
                let file = self.file(&head, &facts, host);
                let event = self.action(&head, kind, host);
                self.tell(Event { file: Some(file), ..event }, out);
            }
            (Body::Net(facts), Some(kind)) => {
                let (network, detail) = self.network(&head, &facts, host);
                let event = self.action(&head, kind, host);
                self.tell(Event { network: Some(network), detail, ..event }, out);
            }
            (Body::Priv(facts), Some(kind)) => {
                let (privilege, file) = self.privilege(&facts, host);
                let event = self.action(&head, kind, host);
                self.tell(Event { privilege: Some(privilege), file, ..event }, out);
            }
        }
    }

    /// Hands an event on, unless it is of a process without an agent that nobody asked about.
    fn tell(&self, event: Event, out: &mut Output) {
        let wanted = match self.unattributed {
            Unattributed::All => true,
            Unattributed::Exec => event.kind == Kind::ProcessExec,
            Unattributed::None => false,
        };
        if event.agent.is_some() || wanted {
            out.events.push(event);
        }
    }

    /// The event of an act of `head`'s process, without what it acted on.
    fn action(&mut self, head: &Head, kind: Kind, host: &mut dyn Host) -> Event {
        self.settle(head, host);
        self.event_of(head, kind, head.key, host)
    }

    /// Makes sure that the acting process is in the table, with what the head says of it.
    fn settle(&mut self, head: &Head, host: &mut dyn Host) {
        if self.tree.get(head.key).is_none() {
            let proc = self.look_up(head.key, host);
            self.tree.insert(proc);
        }
        let Some(proc) = self.tree.touch(head.key) else { return };
        if (proc.uid, proc.gid) != (Some(head.uid), Some(head.gid)) || proc.cgroup != head.cgroup {
            (proc.uid, proc.gid, proc.cgroup) = (Some(head.uid), Some(head.gid), head.cgroup);
            proc.view = None;
        }
        let binding = binding_now(proc, head);
        self.tree.bind(head.key, binding);
    }

    /// What the host says of a process that the table does not hold.
    fn look_up(&mut self, key: TaskKey, host: &mut dyn Host) -> Proc {
        let mut proc = Proc { inferred: true, ..Proc::new(key) };
        if let Some(seed) = host.process(key) {
            process::plant(&mut proc, &seed);
            if let Some(parent) = self.tree.latest(seed.ppid).map(|parent| parent.key)
                && parent.start <= key.start
            {
                proc.parent = Some(parent);
                proc.ancestry = self.tree.ancestry_below(parent);
            }
        }
        proc
    }

    /// The host path of a place; asks for the mounts again when its file system is not among them.
    fn host_path(&mut self, place: &Place, host: &mut dyn Host) -> crate::attribute::mounts::HostPath {
        let dev = match place {
            Place::Path(path) => Some(path),
            Place::Text { base, .. } => base.as_ref(),
        };
        if let Some(FsPath { dev, anon: false, .. }) = dev {
            self.know_device(*dev, host);
        }
        paths::of_place(&self.mounts, place)
    }

    fn know_device(&mut self, dev: u32, host: &mut dyn Host) {
        if self.mounts.knows(dev) || self.unmounted.contains(&dev) {
            return;
        }
        if let Some(mountinfo) = host.mountinfo() {
            self.mounts = MountTable::parse(&mountinfo);
        }
        if !self.mounts.knows(dev) {
            // A device number is small and reused, so this set is too; a new mount table clears it.
            self.unmounted.insert(dev);
        }
    }
}

/// The binding of a process after an act of which `head` tells.
fn binding_now(proc: &Proc, head: &Head) -> Option<Binding> {
    let by = head.bound_by.unwrap_or(agent_monitor_ebpf::task::BoundBy::Inherited);
    match proc.binding {
        // Bound from user space while the record was on its way.
        Some(binding) if head.agent == 0 => (head.ktime < binding.known_from).then_some(binding),
        Some(binding) if (binding.agent, binding.delegator) == (head.agent, head.delegator) => {
            Some(Binding { session: head.session, by, ..binding })
        }
        // Bound to another agent from user space meanwhile.
        Some(binding) if head.ktime < binding.known_from => Some(binding),
        _ if head.agent == 0 => None,
        _ => Some(Binding {
            agent: head.agent,
            delegator: head.delegator,
            by,
            session: head.session,
            delay_ms: None,
            known_from: 0,
        }),
    }
}

#[cfg(test)]
mod tests;
