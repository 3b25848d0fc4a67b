//! Reading the two rings. One reader at a time, on its own thread.

use std::{
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::KernelError;

/// Which ring a record came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Bindings, violations, holds.
    Priority,
    /// Everything else.
    Events,
}

/// The reader.
pub struct Rings {
    priority: RingBuf<MapData>,
    events: RingBuf<MapData>,
    /// A priority record that is later than the ordinary ones handed over so far.
    held: Option<Vec<u8>>,
}

impl Rings {
    pub(super) fn new(priority: RingBuf<MapData>, events: RingBuf<MapData>) -> Rings {
        Rings { priority, events, held: None }
    }

    /// Hands over every record that is there, in the order of their times across both rings, at most about `limit` of
    /// them; how many. A violation is told after the acts that led to it.
    pub fn drain(&mut self, limit: usize, each: &mut dyn FnMut(Ring, &[u8])) -> usize {
        let mut n = 0;
        while n < limit {
            let event = self.events.next();
            let until = event.as_deref().map_or(u64::MAX, ktime);
            while self.held.is_some() || n < limit {
                let Some(record) =
                    self.held.take().or_else(|| self.priority.next().map(|item| item.to_vec()))
                else {
                    break;
                };
                if ktime(&record) > until {
                    self.held = Some(record);
                    break;
                }
                each(Ring::Priority, &record);
                n += 1;
            }
            let Some(event) = event else { break };
            each(Ring::Events, &event);
            n += 1;
        }
        n
    }

    /// Waits until the kernel wakes the reader or the time is over. Ordinary records do not wake until the ring fills,
    /// so the time is the longest that one waits to be seen.
    ///
    /// # Errors
    /// When `poll` fails.
    pub fn wait(&self, time: Duration) -> Result<(), KernelError> {
        let mut fds = [
            PollFd::from_borrowed_fd(borrow(&self.priority), PollFlags::IN),
            PollFd::from_borrowed_fd(borrow(&self.events), PollFlags::IN),
        ];
        // Data left unread would make poll return at once for ever; the caller drains first.
        let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(KernelError::io("wait for", "the event rings", e.into())),
        }
    }
}

/// When a record's hook ran; 0 for what is no record, so that it is handed over and counted at once.
fn ktime(record: &[u8]) -> u64 {
    const AT: usize = std::mem::offset_of!(agent_monitor_ebpf::Header, ktime);
    let bytes = record.get(AT..).and_then(|rest| rest.first_chunk::<8>());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn borrow(ring: &RingBuf<MapData>) -> std::os::fd::BorrowedFd<'_> {
    debug_assert!(ring.as_raw_fd() >= 0);
    ring.as_fd()
}
