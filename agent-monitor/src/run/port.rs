//! What the daemon asks of the kernel side. `kernel` implements it with aya, tests with [`super::fake`].

use std::time::Duration;

use agent_monitor_ebpf::loss::{LossKey, LossValue};
use agent_monitor_ebpf::task::ProcEntry;

use crate::attribute::MatchImage;
use crate::attribute::backfill::{Plan, TaskInfo};
use crate::health::doctor::Report;
use crate::scope::image::PolicyImage;

/// The kernel side failed. The text says what was tried and why it did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PortError(pub String);

/// The loaded kernel side. All calls come under one lock; the reader of the rings is apart.
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
