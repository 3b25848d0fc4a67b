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
}

impl Rings {
    pub(super) fn new(priority: RingBuf<MapData>, events: RingBuf<MapData>) -> Rings {
        Rings { priority, events }
    }

    /// Hands over every record that is there, priority first, at most `limit` of them; how many.
    pub fn drain(&mut self, limit: usize, each: &mut dyn FnMut(Ring, &[u8])) -> usize {
        let mut n = 0;
        while n < limit {
            // The priority ring is looked at again and again: it must not wait behind a storm.
            if let Some(item) = self.priority.next() {
                each(Ring::Priority, &item);
            } else if let Some(item) = self.events.next() {
                each(Ring::Events, &item);
            } else {
                break;
            }
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

fn borrow(ring: &RingBuf<MapData>) -> std::os::fd::BorrowedFd<'_> {
    debug_assert!(ring.as_raw_fd() >= 0);
    ring.as_fd()
}
