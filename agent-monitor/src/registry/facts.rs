//! What the host knows that a record refers to: users, groups, units, paths.
//!
//! The trait is the seam: tests give their own facts, the daemon and the CLI give [`LinuxFacts`].

mod linux;

use std::path::{Path, PathBuf};

pub use self::linux::LinuxFacts;

/// The answer to a look-up. *Not there* and *nobody could say* are different things: a directory
/// service that is down must not turn a registered agent into an unknown one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    /// It is there.
    Found(T),
    /// It is certainly not there.
    Absent,
    /// The host could not say; the text says why.
    Unavailable(String),
}

impl<T> Lookup<T> {
    /// The thing, if it was found.
    pub fn found(self) -> Option<T> {
        match self {
            Self::Found(thing) => Some(thing),
            Self::Absent | Self::Unavailable(_) => None,
        }
    }
}

/// A user account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Number of the primary group.
    pub gid: u32,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Number.
    pub gid: u32,
    /// Names of the users for whom it is a supplementary group.
    pub members: Vec<String>,
}

/// What a path leads to, symbolic links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// A regular file, with device and inode number.
    File {
        /// Device number.
        dev: u64,
        /// Inode number.
        ino: u64,
    },
    /// A directory.
    Directory,
    /// A socket, device or pipe.
    Special,
    /// Nothing is there.
    Missing,
    /// It cannot be seen, for want of permission or another reason.
    Unreadable,
}

/// What the checks ask about the host. Implementations must not cache across a reload.
pub trait HostFacts {
    /// A user by name.
    fn user_by_name(&self, name: &str) -> Lookup<User>;
    /// A user by number.
    fn user_by_uid(&self, uid: u32) -> Lookup<User>;
    /// A group by name.
    fn group_by_name(&self, name: &str) -> Lookup<Group>;
    /// Whether systemd knows a unit, by unit file or because it is loaded. `Unavailable` on a host
    /// without systemd.
    fn unit(&self, name: &str) -> Lookup<()>;
    /// What a path leads to.
    fn path(&self, path: &Path) -> PathKind;
    /// Where a path leads once all symbolic links are followed; `None` where nothing is there.
    fn real_path(&self, path: &Path) -> Option<PathBuf>;
    /// Numbers of the users for whom this program runs: its own, and who became that user by `sudo`.
    fn callers(&self) -> Vec<u32>;
}
