//! Waiting on descriptors with a deadline: the only way this package waits.

use super::{Arg, call, call_fd, cstr, num};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Waits until one of `fds` is readable (or hung up) or `limit` is over; tells which are.
pub fn readable(fds: &[BorrowedFd<'_>], limit: Duration) -> io::Result<Vec<bool>> {
    let deadline = Instant::now() + limit;
    // struct pollfd: fd i32, events i16, revents i16.
    let mut bytes = vec![0_u8; fds.len() * 8];
    loop {
        for (slot, fd) in bytes.chunks_exact_mut(8).zip(fds) {
            slot[..4].copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
            slot[4..6].copy_from_slice(&libc::POLLIN.to_ne_bytes());
            slot[6..].fill(0);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let millis = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        match call(libc::SYS_poll, &mut [Arg::Out(&mut bytes), num(fds.len()), num(millis)]) {
            Ok(_) => return Ok(bytes.chunks_exact(8).map(|slot| slot[6] != 0 || slot[7] != 0).collect()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits for nothing but the clock, for a retry that has no descriptor to wait on.
pub fn pause(limit: Duration) {
    readable(&[], limit).unwrap();
}

/// A descriptor that becomes readable when the process ends.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    call_fd(libc::SYS_pidfd_open, &mut [num(pid), num(0)])
}

/// A descriptor that becomes readable when an entry is made in or moved into `dir`.
pub fn dir_watch(dir: &Path) -> io::Result<OwnedFd> {
    let fd = call_fd(libc::SYS_inotify_init1, &mut [num(libc::IN_CLOEXEC)])?;
    let dir = cstr(&dir.to_string_lossy());
    let mask = libc::IN_CREATE | libc::IN_MOVED_TO;
    call(libc::SYS_inotify_add_watch, &mut [num(fd.as_raw_fd()), Arg::Str(&dir), num(mask)])?;
    Ok(fd)
}

/// Asks `condition` again and again until it holds or `limit` is over; true when it held.
pub fn until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        pause(Duration::from_millis(10));
    }
    true
}
