//! Who is calling, and that it still is the same process.
//!
//! The kernel notes pid, uid and gid of the one who called `connect()`. A pid can be used again, so the process
//! is pinned by a pidfd: from the socket itself (`SO_PEERPIDFD`, Linux 6.5), else by `pidfd_open` at accept,
//! where a caller that exits in the moment between connect and accept could be mistaken for another process.
//! A call is refused once that process has ended.
//!
//! Not covered: a process that connects and hands the socket to another one speaks for itself, not for the
//! other. Who may connect at all is the socket's mode and group; an unbound accomplice with that right could
//! lend it to an agent.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::people::who::Caller;

/// `SO_PEERPIDFD`, `include/uapi/asm-generic/socket.h` since Linux 6.5.
const SO_PEERPIDFD: libc::c_int = 77;

/// The process at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pid: u32,
    uid: u32,
    gid: u32,
    pidfd: Arc<OwnedFd>,
    start_ticks: u64,
    groups: Vec<u32>,
    caller: Arc<OnceLock<Arc<Caller>>>,
}

/// Why a caller cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The socket has no credentials to give.
    #[error("cannot read the caller's credentials: {0}")]
    Credentials(#[source] io::Error),
    /// It lives in a PID namespace that this one does not contain.
    #[error("the caller has no pid in this PID namespace")]
    ForeignNamespace,
    /// It ended before it could be pinned.
    #[error("the caller has ended")]
    Gone,
}

impl Peer {
    /// Looks at the other end of `socket`.
    ///
    /// # Errors
    /// When it cannot be told which process that is.
    pub fn of(socket: &impl AsFd) -> Result<Self, PeerError> {
        let libc::ucred { pid: raw, uid, gid } =
            credentials(socket.as_fd()).map_err(PeerError::Credentials)?;
        let pid = u32::try_from(raw).ok().filter(|pid| *pid != 0).ok_or(PeerError::ForeignNamespace)?;
        let pidfd = match peer_pidfd(socket.as_fd()) {
            Some(pidfd) => pidfd,
            None => {
                let pid = Pid::from_raw(raw).ok_or(PeerError::ForeignNamespace)?;
                pidfd_open(pid, PidfdFlags::empty()).ok().ok_or(PeerError::Gone)?
            }
        };
        let (start_ticks, groups) = describe(raw).ok_or(PeerError::Gone)?;
        let peer =
            Self { pid, uid, gid, pidfd: Arc::new(pidfd), start_ticks, groups, caller: Arc::default() };
        // What /proc said was about this process only if it is alive still.
        if peer.is_alive() { Ok(peer) } else { Err(PeerError::Gone) }
    }

    /// Its pid in this PID namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Effective user id when it connected.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Names the process for as long as it is held, also as key of task storage.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Start time in clock ticks since boot (`/proc/PID/stat` field 22).
    #[must_use]
    pub fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// Where the call came from, as it was at the first question. Read while the pidfd shows that the process lives, so
    /// that a later one of its pid is not taken for it. The caller can make this wait, for a fifth of a second.
    #[must_use]
    pub fn caller(&self) -> Arc<Caller> {
        let read = || {
            let caller = Caller::read(Path::new("/proc"), self.pid);
            Arc::new(if self.is_alive() { caller } else { Caller::ended(self.pid) })
        };
        Arc::clone(self.caller.get_or_init(read))
    }

    /// It has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(&*self.pidfd, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
    }

    /// Whether it may call a socket of group `gid`, whose daemon runs as `owner`.
    #[must_use]
    pub fn may_call(&self, owner: u32, gid: u32) -> bool {
        self.uid == 0 || self.uid == owner || self.gid == gid || self.groups.contains(&gid)
    }
}

/// Start time and supplementary groups of a live process.
fn describe(pid: i32) -> Option<(u64, Vec<u32>)> {
    let process = procfs::process::Process::new(pid).ok()?;
    let groups = process.status().ok()?.groups;
    Some((process.stat().ok()?.starttime, groups))
}

/// Pid, uid and gid of the other end. The pid is 0 where it has none in this PID namespace, which the type of
/// rustix cannot say.
pub(super) fn credentials(socket: BorrowedFd<'_>) -> io::Result<libc::ucred> {
    option(socket, libc::SO_PEERCRED, libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX })
}

fn peer_pidfd(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    let fd: libc::c_int = option(socket, SO_PEERPIDFD, -1).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel just made this descriptor for us and nobody else holds it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket option. `T` must be plain integers, for which any bytes are a value.
fn option<T: Copy>(socket: BorrowedFd<'_>, name: libc::c_int, mut value: T) -> io::Result<T> {
    let mut len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` and `len` outlive the call, `len` is the size of `value`, and the callers in this file
    // pass integers only.
    let done = unsafe {
        let to = (&raw mut value).cast::<libc::c_void>();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, to, &raw mut len)
    };
    if done == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests;
