//! The threads of the daemon. Each ends within a second of [`Core::stop`].

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll as poll_fds};

use super::core::Core;
use super::notify;
use super::port::{PortError, Pulse, RingReader};

/// Between two looks at the losses.
const POLL: Duration = Duration::from_secs(1);
/// Looks at the losses between two looks at what records refer to.
const REFRESH_EVERY: u32 = 10;
/// Batches that are still taken at the end: more than any ring holds.
const LAST_BATCHES: usize = 65_536;

/// Reads the rings until the daemon ends, and then what is still in them. Its failure ends the daemon.
pub(super) fn reader(
    core: Arc<Core>,
    mut rings: Box<dyn RingReader>,
    ending: signal_hook::iterator::Handle,
) -> io::Result<JoinHandle<Result<(), PortError>>> {
    Builder::new().name("rings".to_owned()).spawn(move || {
        let result = read(&core, &mut *rings);
        if let Err(error) = &result {
            tracing::error!(%error, "the rings cannot be read any more");
        }
        ending.close();
        result
    })
}

fn read(core: &Core, rings: &mut dyn RingReader) -> Result<(), PortError> {
    loop {
        rings.wait(core.patience())?;
        while core.read(rings) > 0 {}
        if core.wait(Duration::ZERO) {
            break;
        }
    }
    for _ in 0..LAST_BATCHES {
        if core.read(rings) == 0 {
            break;
        }
    }
    Ok(())
}

/// Losses, last-seen and watchdog each second; what records refer to now and then.
pub(super) fn poll(core: Arc<Core>) -> io::Result<JoinHandle<()>> {
    Builder::new().name("health".to_owned()).spawn(move || {
        let mut round = 0u32;
        while !core.wait(POLL) {
            core.poll(false);
            notify::alive();
            round = round.wrapping_add(1);
            if round.is_multiple_of(REFRESH_EVERY) {
                core.clock_moved();
                core.reconcile();
                core.refresh();
            }
        }
    })
}

/// Asks people, and carries out what they say; looks at what time brings.
pub(super) fn people(core: Arc<Core>) -> io::Result<JoinHandle<()>> {
    Builder::new().name("people".to_owned()).spawn(move || {
        let mut last = std::time::Instant::now();
        core.people_tick();
        while !core.wait(Duration::ZERO) {
            core.inbox.wait(super::people::TICK);
            core.people_round();
            if last.elapsed() >= super::people::TICK {
                core.people_tick();
                last = std::time::Instant::now();
            }
        }
    })
}

/// Says to the kernel that somebody can be asked. A thread of its own: what takes the others long must not make the kernel
/// refuse what it could hold.
pub(super) fn pulse(core: Arc<Core>, mut pulse: Box<dyn Pulse>) -> io::Result<JoinHandle<()>> {
    Builder::new().name("pulse".to_owned()).spawn(move || {
        loop {
            core.beat(&mut *pulse);
            if core.wait(super::people::TICK) {
                return;
            }
        }
    })
}

/// Follows the mount table: the kernel marks mountinfo when it changes.
pub(super) fn mounts(core: Arc<Core>) -> io::Result<JoinHandle<()>> {
    let file = std::fs::File::open("/proc/self/mountinfo")?;
    Builder::new().name("mounts".to_owned()).spawn(move || {
        while !core.wait(Duration::ZERO) {
            let mut fds = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::PRI)];
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            match poll_fds(&mut fds, Some(&second)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => {
                    core.mounts_changed();
                    core.refresh();
                    // A storm of mounts is taken together.
                    core.wait(Duration::from_millis(50));
                }
                Err(error) => {
                    tracing::error!(%error, "cannot follow the mount table; it is read again when a file needs it");
                    return;
                }
            }
        }
    })
}
