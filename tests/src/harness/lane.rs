//! Where the tests run and with which programs, from the environment that `xtask` and `guest-init` set.

use std::path::{Path, PathBuf};

/// Where the tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// On the kernel of this machine, at whatever level it offers.
    Host,
    /// In a VM with a stock kernel: level full, and nobody else is there.
    Vm,
}

pub fn lane() -> Lane {
    match std::env::var("AGENT_MONITOR_LANE").as_deref() {
        Ok("vm") => Lane::Vm,
        Ok("host") | Err(_) => Lane::Host,
        Ok(other) => panic!("AGENT_MONITOR_LANE={other}: host or vm"),
    }
}

/// A program of the workspace: named by `variable`, or beside the test in the target directory.
fn program(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return std::path::absolute(path).unwrap();
    }
    let own = std::env::current_exe().unwrap();
    // target/PROFILE/deps/kernel-HASH
    let profile = own.parent().and_then(Path::parent).unwrap();
    let path = profile.join(name);
    assert!(path.is_file(), "{} is not built and {variable} is not set", path.display());
    path
}

pub fn monitor_program() -> PathBuf {
    program("AGENT_MONITOR_BIN", "agent-monitor")
}

pub fn actor_program() -> PathBuf {
    program("AGENT_MONITOR_ACTOR", "actor")
}

/// Where the unified cgroup hierarchy is mounted (`/sys/fs/cgroup`, or below it on hybrid hosts).
pub fn cgroup_root() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let found = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    found.split(' ').nth(1).map(PathBuf::from)
}
