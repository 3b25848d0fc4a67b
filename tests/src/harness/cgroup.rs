//! cgroups of a test's own in the unified hierarchy, removed when dropped.

use super::lane::cgroup_root;
use crate::sys::wait;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    /// Directories that were made for it, innermost last.
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes the cgroup at this absolute path of the hierarchy, with what is missing above it; `None` where the
    /// host has no unified hierarchy.
    pub fn make(path: &str) -> Option<Self> {
        let root = cgroup_root()?;
        let (mut at, mut made) = (root, Vec::new());
        for part in Path::new(path.trim_start_matches('/')) {
            at.push(part);
            if !at.exists() {
                std::fs::create_dir(&at).unwrap();
                made.push(at.clone());
            }
        }
        Some(Self { path: at, made })
    }

    /// Makes `command` start in it: the move comes before the exec.
    pub fn start_in(&self, command: &mut Command) {
        let procs = self.path.join("cgroup.procs");
        // SAFETY: between fork and exec this opens and writes one file; the harness's other threads only read
        // pipes and cannot hold the allocator's lock for good.
        unsafe { command.pre_exec(move || std::fs::write(&procs, "0")) };
    }

    /// Freezes it or thaws it; comes back when the kernel says that it is so.
    pub fn freeze(&self, frozen: bool) {
        std::fs::write(self.path.join("cgroup.freeze"), if frozen { "1" } else { "0" }).unwrap();
        let done = wait::until(super::PATIENCE, || self.is_frozen() == frozen);
        assert!(done, "{} is not {}", self.path.display(), if frozen { "frozen" } else { "thawed" });
    }

    /// Whether all of it stands still.
    pub fn is_frozen(&self) -> bool {
        let events = std::fs::read_to_string(self.path.join("cgroup.events")).unwrap();
        events.lines().any(|line| line == "frozen 1")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for dir in self.made.iter().rev() {
            // A process that is still in it keeps it; that is not what the test is about.
            std::fs::remove_dir(dir).ok();
        }
    }
}
