//! A kernel side for tests: records are fed in, bindings are kept in a list.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_monitor_ebpf::loss::{LossKey, LossValue};
use agent_monitor_ebpf::task::{ProcEntry, TaskTag};

use super::port::{
    GrantUse, HeldThread, Life, Port, PortError, Pulse, RingReader, SessionEntry, Ticket, Whom,
};
use crate::attribute::MatchImage;
use crate::attribute::backfill::{Plan, TaskInfo};
use crate::health::doctor::{Level, Report};
use crate::kernel::handles::Detached;
use crate::scope::image::PolicyImage;

/// What the fake holds; shared with the test.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) records: VecDeque<Vec<u8>>,
    pub(crate) tasks: BTreeMap<u32, TaskInfo>,
    pub(crate) losses: Vec<(LossKey, LossValue)>,
    pub(crate) overflow: u64,
    pub(crate) applied: Vec<MatchImage>,
    pub(crate) taken_over: bool,
    pub(crate) refuse: bool,
    pub(crate) detached: bool,
    pub(crate) left: bool,
    pub(crate) backfills: usize,
    pub(crate) held: Vec<HeldThread>,
    pub(crate) tickets: Vec<Ticket>,
    pub(crate) sessions: BTreeMap<u64, SessionEntry>,
    pub(crate) lives: BTreeMap<u32, Life>,
    pub(crate) grants: BTreeMap<u64, GrantUse>,
    pub(crate) heartbeat: u64,
}

/// The fake.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeKernel(Arc<Mutex<Inner>>);

impl FakeKernel {
    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn feed(&self, record: Vec<u8>) {
        self.inner().records.push_back(record);
    }

    pub(crate) fn task(&self, tgid: u32, start: u64, ppid: u32, tag: TaskTag) {
        self.inner().tasks.insert(tgid, TaskInfo { tgid, start, ppid, tag, mixed: false, held: false });
    }

    fn ready(&self) -> Result<MutexGuard<'_, Inner>, PortError> {
        let inner = self.inner();
        if inner.refuse { Err(PortError("refused by the test".to_owned())) } else { Ok(inner) }
    }
}

impl Port for FakeKernel {
    fn support(&mut self) -> Report {
        Report {
            schema_version: 1,
            level: Level::Full,
            kernel: "6.0-fake".to_owned(),
            machine: "fake".to_owned(),
            families: Vec::new(),
            checks: Vec::new(),
            programs: Vec::new(),
        }
    }

    fn taken_over(&self) -> bool {
        self.inner().taken_over
    }

    fn next_generation(&mut self) -> Result<u32, PortError> {
        Ok(u32::try_from(self.inner().applied.len()).unwrap_or_default().saturating_add(1))
    }

    fn apply(&mut self, image: &MatchImage, _policy: &PolicyImage) -> Result<(), PortError> {
        self.ready()?.applied.push(image.clone());
        Ok(())
    }

    fn backfill(&mut self, plan: &Plan) -> Result<Vec<TaskInfo>, PortError> {
        let mut inner = self.ready()?;
        inner.backfills += 1;
        for (tgid, entry) in plan {
            if let Some(task) = inner.tasks.get_mut(tgid).filter(|task| task.start == entry.start) {
                task.tag = entry.tag;
            }
        }
        Ok(inner.tasks.values().copied().collect())
    }

    fn held(&mut self) -> Result<Vec<HeldThread>, PortError> {
        Ok(self.ready()?.held.clone())
    }

    fn procs(&mut self) -> Result<Vec<(u32, ProcEntry)>, PortError> {
        let inner = self.ready()?;
        let bound = inner.tasks.values().filter(|task| task.tag.agent != 0);
        Ok(bound.map(|task| (task.tgid, ProcEntry { start: task.start, tag: task.tag })).collect())
    }

    fn proc(&mut self, tgid: u32) -> Result<Option<ProcEntry>, PortError> {
        Ok(self.procs()?.into_iter().find(|(of, _)| *of == tgid).map(|(_, entry)| entry))
    }

    fn losses(&mut self) -> Result<Vec<(LossKey, LossValue)>, PortError> {
        Ok(self.ready()?.losses.clone())
    }

    fn overflow(&mut self) -> Result<u64, PortError> {
        Ok(self.ready()?.overflow)
    }

    fn put_ticket(&mut self, ticket: &Ticket) -> Result<(), PortError> {
        self.drop_ticket(ticket.agent, ticket.digest, ticket.whom)?;
        self.ready()?.tickets.push(*ticket);
        Ok(())
    }

    fn drop_ticket(&mut self, agent: u32, digest: u64, whom: Whom) -> Result<(), PortError> {
        let same = |ticket: &Ticket| (ticket.agent, ticket.digest, ticket.whom) == (agent, digest, whom);
        self.ready()?.tickets.retain(|ticket| !same(ticket));
        Ok(())
    }

    fn put_session(&mut self, session: &SessionEntry) -> Result<(), PortError> {
        self.ready()?.sessions.insert(session.id, *session);
        Ok(())
    }

    fn put_life(&mut self, life: &Life) -> Result<(), PortError> {
        self.ready()?.lives.insert(life.agent, *life);
        Ok(())
    }

    fn put_grant(&mut self, grant: &GrantUse) -> Result<(), PortError> {
        self.ready()?.grants.insert(grant.id, *grant);
        Ok(())
    }

    fn sweep_tickets(&mut self, boot_nanos: u64) -> Result<(), PortError> {
        self.ready()?.tickets.retain(|ticket| ticket.expires > boot_nanos);
        Ok(())
    }

    fn grant_uses(&mut self) -> Result<Vec<(u64, u32)>, PortError> {
        Ok(self.ready()?.grants.values().map(|grant| (grant.id, grant.uses)).collect())
    }

    fn check_pins(&mut self) -> (Option<Detached>, usize) {
        (None, 0)
    }

    fn take_pulse(&mut self) -> Result<Box<dyn Pulse>, PortError> {
        Ok(Box::new(self.clone()))
    }

    fn take_reader(&mut self) -> Result<Box<dyn RingReader>, PortError> {
        Ok(Box::new(self.clone()))
    }

    fn leave(&mut self) -> Result<(), PortError> {
        self.inner().left = true;
        Ok(())
    }

    fn detach(&mut self) -> Result<(), PortError> {
        self.inner().detached = true;
        Ok(())
    }
}

impl Pulse for FakeKernel {
    fn beat(&mut self, boot_nanos: u64) -> Result<(), PortError> {
        self.ready()?.heartbeat = boot_nanos;
        Ok(())
    }
}

impl RingReader for FakeKernel {
    fn wait(&mut self, time: Duration) -> Result<(), PortError> {
        if self.inner().records.is_empty() {
            std::thread::park_timeout(time.min(Duration::from_millis(2)));
        }
        Ok(())
    }

    fn drain(&mut self, limit: usize, each: &mut dyn FnMut(&[u8])) -> usize {
        let mut count = 0;
        while count < limit {
            let Some(record) = self.inner().records.pop_front() else { break };
            each(&record);
            count += 1;
        }
        count
    }
}
