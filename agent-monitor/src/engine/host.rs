//! What the engine asks of the host.

use std::sync::Arc;

use crate::attribute::TaskKey;
use crate::attribute::boot::Seed;
use crate::attribute::matcher::FileId;

/// Answers about the host. The live one reads `/proc`; tests and replay answer from what they have.
pub trait Host {
    /// A process, if it is still the one with this key.
    fn process(&mut self, key: TaskKey) -> Option<Seed>;
    /// The whole argument block of a process, if it is still the one with this key.
    fn args(&mut self, key: TaskKey) -> Option<Vec<u8>>;
    /// Name of a user.
    fn user(&mut self, uid: u32) -> Option<Arc<str>>;
    /// Path of a cgroup in the v2 hierarchy, by its id; `tgid` is in it.
    fn cgroup(&mut self, id: u64, tgid: u32) -> Option<Arc<str>>;
    /// The path that a path leads to, symbolic links followed.
    fn canonical(&mut self, path: &[u8]) -> Option<Vec<u8>>;
    /// The file that a path leads to.
    fn file(&mut self, path: &[u8]) -> Option<FileId>;
    /// The mount table as it is now.
    fn mountinfo(&mut self) -> Option<Vec<u8>>;
}

/// A host that knows nothing: for replay.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHost;

impl Host for NoHost {
    fn process(&mut self, _: TaskKey) -> Option<Seed> {
        None
    }

    fn args(&mut self, _: TaskKey) -> Option<Vec<u8>> {
        None
    }

    fn user(&mut self, _: u32) -> Option<Arc<str>> {
        None
    }

    fn cgroup(&mut self, _: u64, _: u32) -> Option<Arc<str>> {
        None
    }

    fn canonical(&mut self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn file(&mut self, _: &[u8]) -> Option<FileId> {
        None
    }

    fn mountinfo(&mut self) -> Option<Vec<u8>> {
        None
    }
}
