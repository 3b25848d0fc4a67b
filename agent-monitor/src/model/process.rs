//! The acting process as an event shows it: a copy of what was known then, not a live object.

use serde::{Deserialize, Serialize};

use super::Time;

/// A process. A pid alone is never an identity: `(pid, start_time)` is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Thread group id in the host's PID namespace.
    pub pid: u32,
    /// The acting thread, where it is not the leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    /// When the process was made (kernel boot time as wall clock).
    pub start_time: Option<Time>,
    /// Parent at that moment, in the host's PID namespace.
    pub ppid: Option<u32>,
    /// Executable file.
    pub exe: Option<String>,
    /// Argument list, each argument escaped by [`super::text`]. With `args_truncated`, head and tail only.
    pub args: Vec<String>,
    /// Arguments are missing in the middle.
    pub args_truncated: bool,
    /// SHA-256 (hex) of the whole argument block, NUL separators included; `null` where not all was seen.
    pub args_sha256: Option<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// Real user id in the host's user namespace.
    pub uid: Option<u32>,
    /// Name of `uid`.
    pub user: Option<String>,
    /// Real group id in the host's user namespace.
    pub gid: Option<u32>,
    /// Container id.
    pub container: Option<String>,
    /// systemd unit.
    pub unit: Option<String>,
    /// Path in the cgroup v2 hierarchy.
    pub cgroup: Option<String>,
    /// Parents, nearest first.
    pub ancestry: Vec<Ancestor>,
    /// The script an interpreter was started for (`process.exec`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// `script` was an argument, or is not known to have been run by the kernel.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub script_argument: bool,
    /// Exit status 0–255 (`process.exit` by exit).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal name or number that ended it (`process.exit` by signal).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_signal: Option<String>,
}

impl Process {
    pub(super) fn weight(&self) -> usize {
        let len = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        size_of::<Self>()
            + [&self.exe, &self.args_sha256, &self.cwd, &self.user, &self.container, &self.unit]
                .into_iter()
                .chain([&self.cgroup, &self.script, &self.exit_signal])
                .map(len)
                .sum::<usize>()
            + self.args.iter().map(|a| a.len() + size_of::<String>()).sum::<usize>()
            + self.ancestry.iter().map(|a| len(&a.exe) + size_of::<Ancestor>()).sum::<usize>()
    }
}

/// A parent in [`Process::ancestry`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Its pid.
    pub pid: u32,
    /// Its executable, where known.
    pub exe: Option<String>,
    /// When it was made, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
}
