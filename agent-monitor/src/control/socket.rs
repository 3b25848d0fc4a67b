//! The socket file: made, taken over from a dead daemon, never from a live one.
//!
//! A lock file beside the socket is held for the life of the daemon. The kernel drops the lock with the
//! process, so what a dead daemon leaves behind never stands in the way. The socket is made under another
//! name, given mode and group, and then renamed into place: there is no moment at which it is open to others.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Where the socket is and who may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketConfig {
    /// Its path.
    pub path: PathBuf,
    /// Group that may call, by id; `None` leaves the group of the daemon.
    pub group: Option<u32>,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A daemon is alive on this socket.
    #[error("another daemon is running on {} (pid {})", path.display(), pid.map_or_else(|| "unknown".to_owned(), |p| p.to_string()))]
    AnotherDaemon {
        /// The socket.
        path: PathBuf,
        /// Its process id, where known.
        pid: Option<u32>,
    },
    /// Something that is not a socket has that name.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The path has no directory and name.
    #[error("{} is not a path of a file", .0.display())]
    NoDirectory(PathBuf),
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl BindError {
    /// More privilege would help: exit code 4.
    #[must_use]
    pub fn is_privilege(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// A listening socket. Removed when dropped.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: UnixListener,
    /// Group of the socket file.
    pub(super) gid: u32,
    path: PathBuf,
    inode: u64,
    _lock: File,
}

impl Bound {
    pub(super) fn new(config: &SocketConfig) -> Result<Self, BindError> {
        let path = &config.path;
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(BindError::NoDirectory(path.clone()));
        };
        make_directory(directory)?;
        let beside = |suffix: &str| {
            let mut beside = name.to_owned();
            beside.push(suffix);
            directory.join(beside)
        };
        let lock = lock(&beside(".lock"), path)?;
        clear_stale(path)?;
        let fresh = beside(".new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &fresh)(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&fresh).map_err(io_error("bind", path))?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660))
            .map_err(io_error("set the mode of", path))?;
        if config.group.is_some() {
            std::os::unix::fs::chown(&fresh, None, config.group)
                .map_err(io_error("set the group of", path))?;
        }
        fs::rename(&fresh, path).map_err(io_error("put in place", path))?;
        let made = fs::symlink_metadata(path).map_err(io_error("look at", path))?;
        listener.set_nonblocking(true).map_err(io_error("set up", path))?;
        Ok(Self { listener, gid: made.gid(), path: path.clone(), inode: made.ino(), _lock: lock })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the control socket");
        }
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BindError {
    move |source| BindError::Io { action, path: path.to_owned(), source }
}

fn make_directory(directory: &Path) -> Result<(), BindError> {
    if directory.as_os_str().is_empty() || directory.is_dir() {
        return Ok(());
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(directory);
    made.map_err(io_error("make the directory", directory))
}

/// Takes the lock that says "a daemon lives here", and writes the pid into it.
fn lock(path: &Path, socket: &Path) -> Result<File, BindError> {
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let mut file = open.map_err(io_error("open", path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // The pid is only for the message.
            let pid = file.read_to_string(&mut pid).ok().and_then(|_| pid.trim().parse().ok());
            return Err(BindError::AnotherDaemon { path: socket.to_owned(), pid });
        }
        Err(error) => return Err(io_error("lock", path)(error.into())),
    }
    let written =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(io_error("write", path))?;
    Ok(file)
}

/// The lock is ours; what answers nevertheless is a daemon that knows no lock.
fn clear_stale(path: &Path) -> Result<(), BindError> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(stream) => {
            let pid = super::peer::credentials(stream.as_fd()).ok();
            let pid = pid.and_then(|peer| u32::try_from(peer.pid).ok()).filter(|pid| *pid != 0);
            Err(BindError::AnotherDaemon { path: path.to_owned(), pid })
        }
        Err(_dead) => {
            tracing::info!(path = %path.display(), "replacing the socket of a daemon that is gone");
            Ok(())
        }
    }
}
