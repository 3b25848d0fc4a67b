//! Keys and values of the tables by which a process is recognised as an agent.
//!
//! Every key carries the generation of the set it belongs to. The daemon writes a whole new generation, then flips
//! [`crate::config::Runtime::generation`]: a hook sees the old set or the new one, never half of each.

pod! {
    /// A place in a file system.
    pub struct PathKey {
        /// Hash of the path inside the superblock, see [`crate::path`].
        pub hash: u64,
        /// `s_dev`, kernel encoding (`major << 20 | minor`).
        pub dev: u32,
        /// Generation.
        pub generation: u32,
    }
}

pod! {
    /// A number (uid, cgroup id, text hash) in a generation.
    pub struct NumKey {
        /// uid, cgroup id or hash.
        pub value: u64,
        /// Generation.
        pub generation: u32,
        /// Which table of names it belongs to: `NAME_*`, else 0.
        pub space: u32,
    }
}

/// Whole path of a cgroup below the v2 root, as the kernel's cgroup tracepoints give it.
pub const NAME_CGROUP_PATH: u32 = 1;
/// Last component of a cgroup path (unit names and container ids).
pub const NAME_CGROUP_LEAF: u32 = 2;
/// Text of the file name passed to `execve` (scripts at level partial).
pub const NAME_EXEC_TEXT: u32 = 3;

/// Alternatives that one key can hold.
pub const MATCHES: usize = 4;

pod! {
    /// One alternative: an agent and the further conditions, most specific first.
    pub struct MatchEntry {
        /// Inode that must be seen when [`NEED_INODE`] is set.
        pub ino: u64,
        /// `ctime` seconds that must be seen when [`NEED_INODE`] is set.
        pub ctime_sec: i64,
        /// `ctime` nanoseconds.
        pub ctime_nsec: u32,
        /// Agent index; 0 marks the end.
        pub agent: u32,
        /// Real uid that must run it when [`NEED_USER`] is set.
        pub uid: u32,
        /// Condition id that an enclosing cgroup must carry when [`NEED_CGROUP`] is set.
        pub cgroup_rule: u32,
        /// `NEED_*` and `AS_*` bits.
        pub flags: u32,
        /// A [`crate::task::BoundBy`] value to record.
        pub bound_by: u32,
    }
}

/// The file must be the very inode, unchanged since its SHA-256 was verified.
pub const NEED_INODE: u32 = 1;
/// The process must run as `uid`.
pub const NEED_USER: u32 = 2;
/// The process must be in a cgroup with condition `cgroup_rule`.
pub const NEED_CGROUP: u32 = 4;
/// Applies when the file is the image itself.
pub const AS_EXE: u32 = 8;
/// Applies when the file is a script that an interpreter runs.
pub const AS_SCRIPT: u32 = 16;

pod! {
    /// Alternatives for one key, in order of specificity.
    pub struct MatchSet {
        /// Entries; the first with agent 0 ends the list.
        pub entries: [MatchEntry; MATCHES],
    }
}

pod! {
    /// What a cgroup means: an agent of its own, or conditions that other rules ask for.
    pub struct CgroupEntry {
        /// Agent index of a rule that needs nothing but this cgroup, 0 for none.
        pub agent: u32,
        /// A [`crate::task::BoundBy`] value.
        pub bound_by: u32,
        /// Condition ids, 0 ends the list.
        pub rules: [u32; MATCHES],
        /// Real uid needed by `agent`'s rule when `need_user` is 1.
        pub uid: u32,
        /// 1 when `uid` counts.
        pub need_user: u32,
    }
}

/// Names under `/user.slice` never make a unit: any user can start a unit of any name there.
pub const USER_SLICE: &[u8] = b"/user.slice";
