//! What `/proc` knows of a process: for what ran before the daemon did, and for what the table does not hold.
//!
//! The only part of `attribute` that does I/O. What it gives is inferred, not witnessed: paths are as the process' own
//! mount namespace shows them, and a process may have changed its argument block.

use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use procfs::process::Process;

use super::TaskKey;

/// Nanoseconds of one clock tick in `/proc/PID/stat` (`USER_HZ` is 100 on every supported target).
const TICK_NANOS: u64 = 10_000_000;
/// Longest argument block that is read.
const ARGS_MAX: u64 = 4 << 20;

/// A process as `/proc` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seed {
    /// Thread group id.
    pub tgid: u32,
    /// When it was made, in clock ticks since boot.
    pub start_ticks: u64,
    /// Parent.
    pub ppid: u32,
    /// Executable; `None` for kernel threads and where it cannot be read.
    pub exe: Option<Vec<u8>>,
    /// Argument block.
    pub args: Vec<u8>,
    /// Working directory.
    pub cwd: Option<Vec<u8>>,
    /// Real uid.
    pub uid: u32,
    /// Real gid.
    pub gid: u32,
    /// Path in the cgroup v2 hierarchy.
    pub cgroup: Option<String>,
}

impl Seed {
    /// Whether this is the process with that key: the same pid, and a start time that rounds to the same tick (the
    /// kernel rounds down, and the two clocks may differ by one).
    #[must_use]
    pub fn is(&self, key: TaskKey) -> bool {
        self.tgid == key.tgid && same_start(key.start, self.start_ticks)
    }
}

/// Whether a kernel start time and one of `/proc` can be of the same process.
#[must_use]
pub fn same_start(start_nanos: u64, ticks: u64) -> bool {
    (start_nanos / TICK_NANOS).abs_diff(ticks) <= 1
}

/// Reads one process; `None` when it is gone or may not be read.
#[must_use]
pub fn read(tgid: u32) -> Option<Seed> {
    let process = Process::new(i32::try_from(tgid).ok()?).ok()?;
    let stat = process.stat().ok()?;
    let status = process.status().ok()?;
    let cgroup = process.cgroups().ok().and_then(|groups| {
        groups.0.into_iter().find(|group| group.hierarchy == 0).map(|group| group.pathname)
    });
    Some(Seed {
        tgid,
        start_ticks: stat.starttime,
        ppid: u32::try_from(stat.ppid).unwrap_or(0),
        exe: link(tgid, "exe"),
        args: args(tgid).unwrap_or_default(),
        cwd: link(tgid, "cwd"),
        uid: status.ruid,
        gid: status.rgid,
        cgroup,
    })
}

/// Reads every process of the daemon's PID namespace.
#[must_use]
pub fn read_all() -> Vec<Seed> {
    let Ok(processes) = procfs::process::all_processes() else { return Vec::new() };
    let tgids = processes.filter_map(|process| u32::try_from(process.ok()?.pid).ok());
    tgids.filter_map(read).collect()
}

/// The argument block of a process.
#[must_use]
pub fn args(tgid: u32) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut block = Vec::new();
    let file = std::fs::File::open(format!("/proc/{tgid}/cmdline")).ok()?;
    file.take(ARGS_MAX).read_to_end(&mut block).ok()?;
    Some(block)
}

/// Start time in ticks; `None` when the process is gone.
#[must_use]
pub fn start_ticks(tgid: u32) -> Option<u64> {
    Process::new(i32::try_from(tgid).ok()?).ok()?.stat().ok().map(|stat| stat.starttime)
}

fn link(tgid: u32, name: &str) -> Option<Vec<u8>> {
    let target = std::fs::read_link(PathBuf::from(format!("/proc/{tgid}/{name}"))).ok()?;
    let mut bytes = target.into_os_string().into_vec();
    if bytes.ends_with(b" (deleted)") {
        bytes.truncate(bytes.len() - b" (deleted)".len());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read() {
        let me = read(std::process::id()).unwrap();
        assert_eq!(me.exe, std::env::current_exe().ok().map(|p| p.into_os_string().into_vec()));
        assert!(me.is(TaskKey { tgid: me.tgid, start: me.start_ticks * TICK_NANOS + 9_999_999 }));
        assert!(!me.is(TaskKey { tgid: me.tgid, start: (me.start_ticks + 2) * TICK_NANOS }));
        assert!(read_all().iter().any(|seed| seed.tgid == me.tgid));
        assert_eq!(read(u32::MAX), None);
    }
}
