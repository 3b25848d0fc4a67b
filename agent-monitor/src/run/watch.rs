//! The watch on the registry: a change of its files is a reload, once the files have been quiet for a moment.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

use super::core::Core;

/// Files that change within this time of each other are one change.
const QUIET: Duration = Duration::from_millis(200);
/// A stream of changes is taken at the latest after so long.
const LATEST: Duration = Duration::from_secs(2);
/// Between two tries to watch a directory that is not there.
const RETRY: Duration = Duration::from_secs(1);

/// Follows the registry until the daemon ends. The daemon reads it again where its files are not what they were.
pub(super) fn registry(core: Arc<Core>) -> io::Result<JoinHandle<()>> {
    // Taken here, so that what changes after the start is seen.
    let mut watched = watch(&core.config.registry);
    if let Err(error) = &watched {
        tracing::warn!(%error, path = %core.config.registry.display(), "the registry is not watched yet");
    }
    Builder::new().name("registry".to_owned()).spawn(move || {
        // What changed between the load at the start and the watch.
        reload(&core);
        while !core.wait(Duration::ZERO) {
            let gone = match &watched {
                Ok(inotify) => match follow(&core, inotify) {
                    Ok(gone) => gone,
                    Err(error) => {
                        tracing::error!(%error, "the registry cannot be watched; agent-monitor agent reload reads it");
                        true
                    }
                },
                Err(_) => {
                    core.wait(RETRY);
                    true
                }
            };
            if gone {
                watched = watch(&core.config.registry);
                reload(&core);
            }
        }
    })
}

fn watch(directory: &Path) -> io::Result<OwnedFd> {
    let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let flags = WatchFlags::CREATE
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::ATTRIB
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR;
    add_watch(&inotify, directory, flags)?;
    Ok(inotify)
}

/// Waits a second at most for a change, then until the files are quiet, and reloads. Whether the directory is another one,
/// or none.
fn follow(core: &Core, inotify: &OwnedFd) -> io::Result<bool> {
    if !ready(inotify, Duration::from_secs(1))? {
        return Ok(false);
    }
    let first = Instant::now();
    let mut gone = drain(inotify)?;
    while !core.wait(Duration::ZERO) && first.elapsed() < LATEST && ready(inotify, QUIET)? {
        gone |= drain(inotify)?;
    }
    if !gone {
        reload(core);
    }
    Ok(gone)
}

fn reload(core: &Core) {
    if core.registry_changed() {
        core.reload_and_log();
    }
}

fn ready(inotify: &OwnedFd, time: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(inotify, PollFlags::IN)];
    let time =
        Timespec { tv_sec: time.as_secs().try_into().unwrap_or(1), tv_nsec: time.subsec_nanos().into() };
    match poll(&mut fds, Some(&time)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes the events that are there. Whether the directory itself went.
fn drain(inotify: &OwnedFd) -> io::Result<bool> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = rustix::fs::inotify::Reader::new(inotify, &mut buffer);
    let mut gone = false;
    loop {
        use rustix::fs::inotify::ReadFlags;
        match reader.next() {
            Ok(event) => {
                gone |= event.events().intersects(
                    ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED | ReadFlags::UNMOUNT,
                );
            }
            Err(rustix::io::Errno::AGAIN) => return Ok(gone),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
