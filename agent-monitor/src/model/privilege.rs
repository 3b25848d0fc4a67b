//! The right an event is about. Each kind fills its own fields; the others are left out of the JSON.

use serde::{Deserialize, Serialize};

use super::Time;

/// Names of the Linux capabilities in the order of their numbers (`include/uapi/linux/capability.h`): the only list of
/// them, for records, events and the compiled policy.
pub const CAPABILITIES: [&str; agent_monitor_ebpf::policy::CAPS] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A right used, gained or asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Privilege {
    /// The process acted on (`ptrace`, `signal`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Signal name (`SIGTERM`) or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// What was asked for: ptrace request, bpf command, mount operation (`mount`, `umount`, `move`, `remount`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Capability names (`CAP_SYS_ADMIN`), in numeric order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Effective user id before (`setuid`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_uid: Option<u32>,
    /// Effective user id after (`setuid`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_uid: Option<u32>,
    /// Effective group id before (`setuid`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_gid: Option<u32>,
    /// Effective group id after (`setuid`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_gid: Option<u32>,
    /// Namespaces made or entered (`mnt`, `net`, `pid`, `user` …).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// What is mounted, or the module's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Where it is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_point: Option<String>,
    /// File system type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fs_type: Option<String>,
}

/// A process that something was done to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its pid.
    pub pid: u32,
    /// When it was made, where known.
    pub start_time: Option<Time>,
    /// Its executable, where known.
    pub exe: Option<String>,
    /// The agent it is bound to.
    pub agent: Option<String>,
}
