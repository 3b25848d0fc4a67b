//! Processes and agents in the form in which events show them.

use std::sync::Arc;

use agent_monitor_ebpf::header::{Source as RawSource, Verdict as RawVerdict};

use super::{Engine, Host};
use crate::attribute::tree::{Binding, Proc};
use crate::attribute::{TaskKey, container, identity};
use crate::decode::Head;
use crate::model::{Agent, Ancestor, Errno, Event, Kind, Process, Source, Verdict};

impl Engine {
    /// The event of an act that `head` tells, of the process `who`, without what it acted on.
    pub(super) fn event_of(&mut self, head: &Head, kind: Kind, who: TaskKey, host: &mut dyn Host) -> Event {
        let mut process = self.process_view(who, host);
        if who == head.key && head.tid != who.tgid {
            Arc::make_mut(&mut process).tid = Some(head.tid);
        }
        let agent = self.agent_view(who);
        let index = self.tree.get(who).and_then(|proc| proc.binding).map_or(0, |binding| binding.agent);
        let kind = super::rules::tampering(head, kind);
        Event {
            verdict: Some(verdict(head.verdict)),
            errno: Errno::from_return(i64::from(head.errno)),
            mode: super::rules::mode(head).or(self.agents.mode(index)),
            rule: head.rule.map(|rule| self.rules.name(head.agent, rule)),
            hold: super::rules::hold(head),
            agent,
            process: Some(process),
            ..Event::new(self.clock.wall(head.ktime), kind, source(head.source))
        }
    }

    /// A process as events show it; one that is not in the table has only its key.
    pub(super) fn process_view(&mut self, key: TaskKey, host: &mut dyn Host) -> Arc<Process> {
        if let Some(view) = self.tree.get(key).and_then(|proc| proc.view.clone()) {
            return view;
        }
        let view = match self.tree.get(key) {
            Some(proc) => Arc::new(self.describe(proc, host)),
            None => Arc::new(self.describe(&Proc::new(key), host)),
        };
        if let Some(proc) = self.tree.touch(key) {
            proc.view = Some(Arc::clone(&view));
        }
        view
    }

    /// A process as events would show it now.
    pub fn show(&mut self, key: TaskKey, host: &mut dyn Host) -> Arc<Process> {
        if self.tree.get(key).is_none() {
            let proc = self.look_up(key, host);
            self.tree.insert(proc);
        }
        self.process_view(key, host)
    }

    fn describe(&self, proc: &Proc, host: &mut dyn Host) -> Process {
        let cgroup = match proc.cgroup {
            0 => None,
            id => host.cgroup(id, proc.key.tgid),
        };
        let names = cgroup.as_deref().map(container::names).unwrap_or_default();
        let ancestry = proc.ancestry.iter().map(|parent| Ancestor {
            pid: parent.key.tgid,
            exe: parent.exe.clone(),
            start_time: Some(self.clock.wall(parent.key.start)),
        });
        Process {
            pid: proc.key.tgid,
            start_time: Some(self.clock.wall(proc.key.start)),
            ppid: proc.ppid,
            exe: proc.image.exe.clone(),
            args: proc.image.args.clone(),
            args_truncated: proc.image.args_truncated,
            args_sha256: proc.image.args_sha256.clone(),
            cwd: proc.cwd.clone(),
            uid: proc.uid,
            user: proc.uid.and_then(|uid| host.user(uid)).map(|name| name.to_string()),
            gid: proc.gid,
            container: names.container,
            unit: names.unit,
            cgroup: cgroup.map(|path| path.to_string()),
            ancestry: ancestry.collect(),
            script: proc.image.script.clone(),
            script_argument: proc.image.script_argument,
            ..Process::default()
        }
    }

    /// The agent of a process as events show it.
    pub(super) fn agent_view(&mut self, key: TaskKey) -> Option<Arc<Agent>> {
        let proc = self.tree.touch(key)?;
        let binding = proc.binding?;
        if let Some((of, view)) = &proc.agent_view
            && *of == binding
        {
            return Some(Arc::clone(view));
        }
        let view = Arc::new(agent(&self.agents, &self.sessions, &binding));
        proc.agent_view = Some((binding, Arc::clone(&view)));
        Some(view)
    }
}

/// A binding in the words of the contract.
pub(super) fn agent(
    agents: &identity::Agents,
    sessions: &std::collections::BTreeMap<u64, Arc<str>>,
    binding: &Binding,
) -> Agent {
    let known = |number| sessions.get(&number).map(|id| id.to_string());
    let session = known(binding.session).unwrap_or_else(|| format!("{:016x}", binding.session));
    Agent {
        id: agents.name(binding.agent),
        session: (binding.session != 0).then_some(session),
        bound_by: identity::bound_by(binding.by),
        delegator: (binding.delegator != 0).then(|| agents.name(binding.delegator)),
        bound_delay_ms: binding.delay_ms,
    }
}

pub(super) fn verdict(verdict: RawVerdict) -> Verdict {
    match verdict {
        RawVerdict::Allow => Verdict::Allow,
        RawVerdict::Audit => Verdict::Audit,
        RawVerdict::Deny => Verdict::Deny,
        RawVerdict::Hold => Verdict::Hold,
        RawVerdict::Kill => Verdict::Kill,
    }
}

pub(super) fn source(source: RawSource) -> Source {
    match source {
        RawSource::Lsm => Source::Lsm,
        RawSource::TpBtf => Source::TpBtf,
        RawSource::RawTp => Source::RawTracepoint,
        RawSource::Fexit => Source::Fexit,
        RawSource::Cgroup => Source::Cgroup,
        RawSource::Procfs => Source::Backfill,
    }
}
