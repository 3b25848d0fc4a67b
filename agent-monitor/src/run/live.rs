//! The real kernel side behind [`Port`]: `kernel` in the daemon's words.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_monitor_ebpf::config::{UNATTRIBUTED_ALL, UNATTRIBUTED_EXEC, UNATTRIBUTED_NONE};
use agent_monitor_ebpf::loss::{LossKey, LossValue};
use agent_monitor_ebpf::people;
use agent_monitor_ebpf::task::ProcEntry;

use super::port::{
    GrantUse, HeldThread, Life, LifeState, Port, PortError, Pulse, RingReader, SessionEntry, Ticket, Whom,
};
use super::report;
use crate::attribute::backfill::{Plan, TaskInfo};
use crate::attribute::image::CgroupName;
use crate::attribute::{MatchImage, TaskKey};
use crate::clock::Clock;
use crate::config::{Config, Unattributed};
use crate::health::doctor::Report;
use crate::kernel::handles::Detached;
use crate::kernel::not_run::NotRun;
use crate::kernel::object::Kernel;
use crate::kernel::people::Pulse as PulseMap;
use crate::kernel::rings::Rings;
use crate::kernel::tables::Tables;
use crate::kernel::{KernelError, Options, bpffs};
use crate::scope::image::PolicyImage;

impl Pulse for PulseMap {
    fn beat(&mut self, boot_nanos: u64) -> Result<(), PortError> {
        Ok(PulseMap::beat(self, boot_nanos)?)
    }
}

impl From<KernelError> for PortError {
    fn from(error: KernelError) -> Self {
        Self(error.to_string())
    }
}

/// The loaded kernel side.
pub struct Live {
    kernel: Option<Kernel>,
    report: Report,
    not_run: NotRun,
    clock: Clock,
}

impl Live {
    /// Loads the programs as the settings ask and sees which of them run.
    ///
    /// # Errors
    /// When the daemon cannot do its work on this host.
    pub fn load(config: &Config) -> Result<Self, KernelError> {
        let mut kernel = Kernel::load(Options {
            bpffs: config.bpffs.clone(),
            btf: config.btf.clone(),
            cgroup: bpffs::cgroup_mount(),
            unattributed: match config.unattributed {
                Unattributed::None => UNATTRIBUTED_NONE,
                Unattributed::Exec => UNATTRIBUTED_EXEC,
                Unattributed::All => UNATTRIBUTED_ALL,
            },
            ring_bytes: config.ring_bytes,
            force_partial: config.force_partial,
            fresh: config.fresh,
        })?;
        let runs = kernel.canary().unwrap_or_else(|error| {
            tracing::warn!(%error, "the canaries could not be run; what doctor says is unconfirmed");
            BTreeMap::new()
        });
        let report = report::of(&kernel, &runs);
        Ok(Self { kernel: Some(kernel), report, not_run: NotRun::default(), clock: Clock::start() })
    }

    /// What the canaries saw.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Detaches and removes the pins.
    ///
    /// # Errors
    /// When something is left.
    pub fn unload(mut self) -> Result<(), KernelError> {
        self.kernel.take().map_or(Ok(()), Kernel::detach)
    }

    fn kernel(&mut self) -> Result<&mut Kernel, PortError> {
        self.kernel.as_mut().ok_or_else(|| PortError("the programs are detached already".to_owned()))
    }
}

impl Port for Live {
    fn support(&mut self) -> Report {
        self.report.clone()
    }

    fn taken_over(&self) -> bool {
        self.kernel.as_ref().is_some_and(Kernel::taken_over)
    }

    fn next_generation(&mut self) -> Result<u32, PortError> {
        Ok(self.kernel()?.next_generation())
    }

    fn apply(&mut self, image: &MatchImage, policy: &PolicyImage) -> Result<(), PortError> {
        Ok(self.kernel()?.apply(&tables(image), policy)?)
    }

    fn backfill(&mut self, plan: &Plan) -> Result<Vec<TaskInfo>, PortError> {
        Ok(TaskInfo::of_threads(&self.kernel()?.backfill(plan)?))
    }

    fn held(&mut self) -> Result<Vec<HeldThread>, PortError> {
        let lines = self.kernel()?.backfill(&Plan::new())?;
        let held = lines.iter().filter(|line| line.held != 0).map(|line| HeldThread {
            key: TaskKey { tgid: line.tgid, start: line.start },
            agent: line.tag.agent,
            digest: line.held,
        });
        Ok(held.collect())
    }

    fn procs(&mut self) -> Result<Vec<(u32, ProcEntry)>, PortError> {
        Ok(self.kernel()?.procs()?)
    }

    fn proc(&mut self, tgid: u32) -> Result<Option<ProcEntry>, PortError> {
        Ok(self.kernel()?.proc(tgid)?)
    }

    fn losses(&mut self) -> Result<Vec<(LossKey, LossValue)>, PortError> {
        let mut losses = self.kernel()?.losses()?;
        let now = self.clock.boot_nanos();
        if let Some(kernel) = &self.kernel {
            self.not_run.read(now, |program| kernel.left_out(program));
        }
        losses.extend(self.not_run.losses());
        Ok(losses)
    }

    fn overflow(&mut self) -> Result<u64, PortError> {
        Ok(self.kernel()?.overflow()?)
    }

    fn put_ticket(&mut self, ticket: &Ticket) -> Result<(), PortError> {
        let value = people::Ticket {
            expires: ticket.expires,
            pass: u32::from(ticket.pass),
            // The kernel counts to one; more often is until the time is over.
            once: u32::from(ticket.uses == 1),
        };
        Ok(self.kernel()?.put_ticket(ticket_key(ticket.agent, ticket.digest, ticket.whom), value)?)
    }

    fn drop_ticket(&mut self, agent: u32, digest: u64, whom: Whom) -> Result<(), PortError> {
        Ok(self.kernel()?.drop_ticket(&ticket_key(agent, digest, whom))?)
    }

    fn put_session(&mut self, session: &SessionEntry) -> Result<(), PortError> {
        let entry = people::SessionEntry {
            expires: session.expires,
            ended: u32::from(session.ended),
            policy: session.policy,
        };
        Ok(self.kernel()?.put_session(session.id, entry)?)
    }

    fn put_life(&mut self, life: &Life) -> Result<(), PortError> {
        let state = match life.state {
            LifeState::Active => people::LIFE_ACTIVE,
            LifeState::Suspended => people::LIFE_SUSPENDED,
            LifeState::Retired | LifeState::Expired => people::LIFE_RETIRED,
        };
        Ok(self.kernel()?.put_life(life.agent, state, life.expires)?)
    }

    fn put_grant(&mut self, grant: &GrantUse) -> Result<(), PortError> {
        Ok(self.kernel()?.put_grant(grant.id, grant.expires, grant.uses)?)
    }

    fn grant_uses(&mut self) -> Result<Vec<(u64, u32)>, PortError> {
        Ok(self.kernel()?.grant_uses()?)
    }

    fn sweep_tickets(&mut self, boot_nanos: u64) -> Result<(), PortError> {
        Ok(self.kernel()?.sweep_tickets(boot_nanos)?)
    }

    fn check_pins(&mut self) -> (Option<Detached>, usize) {
        self.kernel.as_mut().map_or((None, 0), |kernel| (kernel.check_pins(), kernel.missing_pins()))
    }

    fn take_pulse(&mut self) -> Result<Box<dyn Pulse>, PortError> {
        Ok(Box::new(self.kernel()?.take_pulse()?))
    }

    fn take_reader(&mut self) -> Result<Box<dyn RingReader>, PortError> {
        Ok(Box::new(Reader(self.kernel()?.take_rings()?)))
    }

    fn leave(&mut self) -> Result<(), PortError> {
        Ok(self.kernel.take().map_or(Ok(()), Kernel::leave)?)
    }

    fn detach(&mut self) -> Result<(), PortError> {
        Ok(self.kernel.take().map_or(Ok(()), Kernel::detach)?)
    }
}

/// The key of a decision in the kernel's table.
fn ticket_key(agent: u32, digest: u64, whom: Whom) -> people::TicketKey {
    let (whom, tgid) = match whom {
        Whom::Task(key) => (key.start, key.tgid),
        Whom::Session(session) => (session, 0),
        Whom::Agent => (0, 0),
    };
    people::TicketKey { digest, whom, tgid, agent }
}

/// The rings as the daemon's reader thread wants them.
struct Reader(Rings);

impl RingReader for Reader {
    fn wait(&mut self, time: Duration) -> Result<(), PortError> {
        Ok(self.0.wait(time)?)
    }

    fn drain(&mut self, limit: usize, each: &mut dyn FnMut(&[u8])) -> usize {
        self.0.drain(limit, &mut |_, bytes| each(bytes))
    }
}

fn tables(image: &MatchImage) -> Tables {
    let mut tables = Tables {
        paths: image.paths.iter().map(|(at, e)| (at.dev, at.inner.clone(), e.clone())).collect(),
        texts: image.exec_texts.iter().map(|(text, e)| (text.clone(), e.clone())).collect(),
        users: image.users.iter().filter_map(|(uid, e)| Some((*uid, *e.first()?))).collect(),
        flags: image.flags,
        ..Tables::default()
    };
    for (name, entry) in &image.cgroups {
        match name {
            CgroupName::Path(path) => tables.cgroup_paths.insert(path.clone(), *entry),
            CgroupName::Leaf(leaf) => tables.cgroup_leaves.insert(leaf.clone(), *entry),
        };
    }
    tables
}
