//! What the daemon asks of the kernel side. `kernel` implements it with aya, tests with a fake.

use std::time::Duration;

use agent_monitor_ebpf::loss::{LossKey, LossValue};
use agent_monitor_ebpf::task::ProcEntry;

use crate::attribute::backfill::{Plan, TaskInfo};
use crate::attribute::{MatchImage, TaskKey};
use crate::health::doctor::Report;
use crate::kernel::handles::Detached;
use crate::scope::image::PolicyImage;

/// The kernel side failed. The text says what was tried and why it did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PortError(pub String);

/// What the kernel does with one exact action when it is judged next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Number of the agent.
    pub agent: u32,
    /// Digest of the exact action.
    pub digest: u64,
    /// Whose action.
    pub whom: Whom,
    /// It goes ahead; otherwise it fails with `EACCES`.
    pub pass: bool,
    /// Boot-time nanoseconds at which it is void.
    pub expires: u64,
    /// Actions it counts for; `u32::MAX` does not count.
    pub uses: u32,
}

/// Whose action a [`Ticket`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Whom {
    /// This process.
    Task(TaskKey),
    /// Every process of this session.
    Session(u64),
    /// Every process of the agent.
    Agent,
}

/// A session as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionEntry {
    /// Its number, never 0.
    pub id: u64,
    /// Number of the agent.
    pub agent: u32,
    /// Boot-time nanoseconds of its end; `u64::MAX` for none.
    pub expires: u64,
    /// It has ended: nothing of it goes ahead any more.
    pub ended: bool,
    /// Number of its own scope among the compiled ones, 0 for none.
    pub policy: u32,
}

/// Whether an agent may act at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifeState {
    /// Within its scope.
    Active,
    /// Stopped; goes on when it is resumed.
    Suspended,
    /// Never again.
    Retired,
    /// Its end date has come.
    Expired,
}

/// A thread that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldThread {
    /// Its process.
    pub key: TaskKey,
    /// Number of its agent.
    pub agent: u32,
    /// Digest of the act.
    pub digest: u64,
}

/// Life of an agent as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Number of the agent.
    pub agent: u32,
    /// State.
    pub state: LifeState,
    /// Boot-time nanoseconds at which it expires by itself; `u64::MAX` for never.
    pub expires: u64,
}

/// What is left of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantUse {
    /// Its number.
    pub id: u64,
    /// Boot-time nanoseconds of its end; 0 takes it back at once.
    pub expires: u64,
    /// Uses left; `u32::MAX` does not count.
    pub uses: u32,
}

/// The loaded kernel side. All calls come under one lock; the reader of the rings is apart. Nothing has a default: a call
/// that did nothing would say that a decision is in force.
pub trait Port: Send {
    /// What this kernel lets the monitor do, with what was seen to work.
    fn support(&mut self) -> Report;

    /// Whether the pins of an earlier daemon were taken over: bindings and losses go on from there.
    fn taken_over(&self) -> bool;

    /// The generation that the next [`Port::apply`] puts in force.
    ///
    /// # Errors
    /// When there is no kernel side any more.
    fn next_generation(&mut self) -> Result<u32, PortError>;

    /// Puts a whole new set of recognition tables and scopes in force, at once. On error the old set stays.
    ///
    /// # Errors
    /// When a table is full or the kernel refuses.
    fn apply(&mut self, image: &MatchImage, policy: &PolicyImage) -> Result<(), PortError>;

    /// Binds or frees the processes of a plan, every thread of them, and lists all processes as they are then. An empty
    /// plan only lists.
    ///
    /// # Errors
    /// When the iterator fails.
    fn backfill(&mut self, plan: &Plan) -> Result<Vec<TaskInfo>, PortError>;

    /// The threads that are held at an act, or were and did not come back to it.
    ///
    /// # Errors
    /// When the iterator fails.
    fn held(&mut self) -> Result<Vec<HeldThread>, PortError>;

    /// The bound processes, by tgid.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn procs(&mut self) -> Result<Vec<(u32, ProcEntry)>, PortError>;

    /// The entry of one bound process.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn proc(&mut self, tgid: u32) -> Result<Option<ProcEntry>, PortError>;

    /// The loss table.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn losses(&mut self) -> Result<Vec<(LossKey, LossValue)>, PortError>;

    /// Losses that found no room in the loss table.
    ///
    /// # Errors
    /// When it cannot be read.
    fn overflow(&mut self) -> Result<u64, PortError>;

    /// Puts a ticket in, over one for the same agent, digest and whom.
    ///
    /// # Errors
    /// When the table is full or the kernel refuses.
    fn put_ticket(&mut self, ticket: &Ticket) -> Result<(), PortError>;

    /// Takes a ticket away; none there is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn drop_ticket(&mut self, agent: u32, digest: u64, whom: Whom) -> Result<(), PortError>;

    /// Puts a session in, or changes it.
    ///
    /// # Errors
    /// When the table is full or the kernel refuses.
    fn put_session(&mut self, session: &SessionEntry) -> Result<(), PortError>;

    /// Says whether an agent may act.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn put_life(&mut self, life: &Life) -> Result<(), PortError>;

    /// Puts a grant in, or changes it.
    ///
    /// # Errors
    /// When the table is full or the kernel refuses.
    fn put_grant(&mut self, grant: &GrantUse) -> Result<(), PortError>;

    /// Uses left of the grants that the kernel has, by number.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn grant_uses(&mut self) -> Result<Vec<(u64, u32)>, PortError>;

    /// Removes the tickets whose time is over at this time of the boot clock.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn sweep_tickets(&mut self, boot_nanos: u64) -> Result<(), PortError>;

    /// What says to the kernel that somebody can be asked; once.
    ///
    /// # Errors
    /// When it was taken before.
    fn take_pulse(&mut self) -> Result<Box<dyn Pulse>, PortError>;

    /// Compares what is pinned with what was attached, and puts back what is missing: what is new about that, and how many
    /// pins could not be put back.
    fn check_pins(&mut self) -> (Option<Detached>, usize);

    /// The reader of the rings; once.
    ///
    /// # Errors
    /// When it was taken before.
    fn take_reader(&mut self) -> Result<Box<dyn RingReader>, PortError>;

    /// Leaves what is attached in force and lets go of it.
    ///
    /// # Errors
    /// When the kernel side cannot be told.
    fn leave(&mut self) -> Result<(), PortError>;

    /// Detaches everything and removes the pins.
    ///
    /// # Errors
    /// When something is left.
    fn detach(&mut self) -> Result<(), PortError>;
}

/// Says to the kernel that somebody can be asked, on a thread of its own.
pub trait Pulse: Send {
    /// Somebody can be asked at this time of the boot clock.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn beat(&mut self, boot_nanos: u64) -> Result<(), PortError>;
}

/// Reads both rings, on a thread of its own.
pub trait RingReader: Send {
    /// Waits until there is something to read, or the time is over.
    ///
    /// # Errors
    /// When waiting fails.
    fn wait(&mut self, time: Duration) -> Result<(), PortError>;

    /// Hands over what is there, at most `limit` records; how many.
    fn drain(&mut self, limit: usize, each: &mut dyn FnMut(&[u8])) -> usize;
}
