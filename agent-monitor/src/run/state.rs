//! What the daemon keeps between its lives, in the state directory: numbers of agents, and when it was last alive.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use agent_monitor_ebpf::loss::{LossKey, LossValue};
use serde::{Deserialize, Serialize};

use rustix::fs::{FlockOperation, flock};

use crate::attribute::identity::Stored;
use crate::model::Time;
use crate::registry::in_force::Set;
use crate::registry::kept::{self, Restored};

/// The file that a daemon locks while it uses the state directory.
const LOCK: &str = "daemon.lock";

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct StateError {
    /// What was tried.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// When the daemon was last alive, and what it had told by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSeen {
    /// Which boot of the host: times and losses of another one say nothing.
    pub boot_id: String,
    /// Wall clock.
    pub time: Time,
    /// Boot-time nanoseconds.
    pub boot_nanos: u64,
    /// It ended as it should, with everything detached.
    pub clean: bool,
    /// Losses told so far: agent, kind, reason, count, first, last.
    pub losses: Vec<(u32, u16, u16, u64, u64, u64)>,
    /// Losses beside the table told so far.
    pub overflow: u64,
}

impl LastSeen {
    /// The losses in the kernel's form.
    #[must_use]
    pub fn losses(&self) -> Vec<(LossKey, LossValue)> {
        let loss = |(agent, kind, reason, count, first, last): &(u32, u16, u16, u64, u64, u64)| {
            let key = LossKey { agent: *agent, kind: *kind, reason: *reason };
            (key, LossValue { count: *count, first: *first, last: *last })
        };
        self.losses.iter().map(loss).collect()
    }
}

/// The losses as they are kept.
#[must_use]
pub fn kept(losses: &[(LossKey, LossValue)]) -> Vec<(u32, u16, u16, u64, u64, u64)> {
    losses.iter().map(|(k, v)| (k.agent, k.kind, k.reason, v.count, v.first, v.last)).collect()
}

/// The state directory is this process's until this is dropped.
#[derive(Debug)]
pub struct StateLock {
    _file: fs::File,
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct State {
    dir: PathBuf,
}

impl State {
    /// Makes sure that the directory is there and can be written.
    ///
    /// # Errors
    /// When it cannot.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let state = Self { dir: dir.to_path_buf() };
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| StateError { action: "make the state directory", path: dir.into(), source })?;
        state.write("writable", b"")?;
        let probe = dir.join("writable");
        fs::remove_file(&probe).map_err(|source| StateError { action: "remove", path: probe, source })?;
        Ok(state)
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes the directory for this process alone: two daemons on one state would overwrite each other's log and forget
    /// each other's decisions, whatever their sockets.
    ///
    /// # Errors
    /// When another process has it, or the lock cannot be made.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let path = self.dir.join(LOCK);
        let failed =
            |source| StateError { action: "lock the state directory by", path: path.clone(), source };
        let options =
            fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
        let mut file = options.open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                let holder: String = holder.trim().chars().filter(char::is_ascii_digit).take(10).collect();
                let holder = if holder.is_empty() { String::new() } else { format!(" (pid {holder})") };
                let problem = format!(
                    "another daemon{holder} uses this state directory; end it first, or give this one its own --state-dir"
                );
                return Err(failed(io::Error::new(io::ErrorKind::AddrInUse, problem)));
            }
            Err(error) => return Err(failed(error.into())),
        }
        // For the message above; the lock itself is the kernel's.
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(failed)?;
        Ok(StateLock { _file: file })
    }

    /// The last good texts of the records that were in force.
    #[must_use]
    pub fn kept(&self) -> Restored {
        kept::read(&self.dir)
    }

    /// Keeps the texts of the records that are in force.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep(&self, set: &Set) -> Result<(), StateError> {
        let path = self.dir.join(kept::FILE);
        kept::write(&self.dir, set).map_err(|source| StateError {
            action: "keep the records in force in",
            path,
            source,
        })
    }

    /// Numbers of agents. A damaged table is set aside, and numbers start anew.
    #[must_use]
    pub fn agents(&self) -> Stored {
        self.read("agents.index.json").unwrap_or_default()
    }

    /// Keeps the numbers of agents.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep_agents(&self, stored: &Stored) -> Result<(), StateError> {
        self.write("agents.index.json", &serde_json::to_vec_pretty(stored).unwrap_or_default())
    }

    /// When a daemon was last alive here.
    #[must_use]
    pub fn last_seen(&self) -> Option<LastSeen> {
        self.read("last-seen.json")
    }

    /// Notes that the daemon is alive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_last_seen(&self, last: &LastSeen) -> Result<(), StateError> {
        self.write("last-seen.json", &serde_json::to_vec(last).unwrap_or_default())
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Option<T> {
        let path = self.dir.join(name);
        let bytes = fs::read(&path).ok()?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "state is damaged, set aside");
                if let Err(error) = fs::rename(&path, path.with_extension("damaged")) {
                    tracing::warn!(path = %path.display(), %error, "cannot set it aside");
                }
                None
            }
        }
    }

    /// Writes beside and renames, so that a crash leaves the old or the new.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.dir.join(name);
        let fresh = self.dir.join(format!("{name}.new"));
        let failed = |action| {
            let path = path.clone();
            move |source| StateError { action, path, source }
        };
        let open = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh);
        let mut file = open.map_err(failed("write"))?;
        file.write_all(bytes).map_err(failed("write"))?;
        fs::rename(&fresh, &path).map_err(failed("put in place"))
    }
}

/// Which boot of the host this is.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("a/b")).unwrap();
        assert_eq!(state.agents(), Stored::default());
        let stored = Stored { last: 4, agents: [("x".to_owned(), 4)].into() };
        state.keep_agents(&stored).unwrap();
        assert_eq!(state.agents(), stored);
        let losses =
            vec![(LossKey { agent: 1, kind: 2, reason: 3 }, LossValue { count: 4, first: 5, last: 6 })];
        let last = LastSeen {
            boot_id: boot_id(),
            time: Time::EPOCH,
            boot_nanos: 7,
            clean: false,
            losses: kept(&losses),
            overflow: 8,
        };
        state.keep_last_seen(&last).unwrap();
        assert_eq!(state.last_seen().unwrap().losses(), losses);
        fs::write(dir.path().join("a/b/agents.index.json"), b"{").unwrap();
        assert_eq!(state.agents(), Stored::default());
        assert!(dir.path().join("a/b/agents.index.damaged").exists());
    }

    #[test]
    fn a_state_directory_has_one_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let held = state.lock().unwrap();
        let error = State::open(dir.path()).unwrap().lock().unwrap_err().to_string();
        assert!(
            error.contains("another daemon") && error.contains(&std::process::id().to_string()),
            "{error}"
        );
        drop(held);
        assert!(state.lock().is_ok(), "a lock ends with its process");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = State::open(&file.path().join("x")).unwrap_err();
        assert!(error.to_string().contains("state directory"), "{error}");
    }
}
