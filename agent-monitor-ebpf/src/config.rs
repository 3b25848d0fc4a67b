//! Settings that the programs read while they run.

pod! {
    /// Element 0 of the runtime array. The daemon writes it; all programs read it.
    pub struct Runtime {
        /// Secret start value of the path hash, random per pin set.
        pub k0: u64,
        /// Secret odd multiplier of the path hash.
        pub k1: u64,
        /// Generation of the recognition tables in force.
        pub generation: u32,
        /// Number of the program set that may emit; during a take-over the older set is still attached for an instant.
        pub program_set: u32,
        /// `RUN_*` bits.
        pub flags: u32,
        /// Process that is the daemon.
        pub daemon_tgid: u32,
        /// Version of the contract, [`crate::ABI_VERSION`].
        pub abi: u32,
        /// What the attached programs were made from, as the daemon numbers it: one that would load the same adopts them. 0
        /// while they are being attached.
        pub build: u32,
    }
}

/// Some record asks for arguments: exec records of unbound processes are needed whatever `--unattributed` says.
pub const RUN_ARGV_RULES: u32 = 1;
/// Some record names an executable or script path.
pub const RUN_PATH_RULES: u32 = 2;
/// Some record names a cgroup, unit or container.
pub const RUN_CGROUP_RULES: u32 = 4;
/// Some record names a user alone.
pub const RUN_USER_RULES: u32 = 8;

/// Scopes are in force: an agent without one in the generation in force is refused everything that is judged.
pub const RUN_POLICY: u32 = 16;

/// Names of the peers of processes without an agent are wanted: [`crate::Kind::NetPeer`] and the two behind it.
pub const RUN_NAMES: u32 = 32;

/// `--unattributed none`: records of bound processes only.
pub const UNATTRIBUTED_NONE: u32 = 0;
/// `--unattributed exec`: exec records of every process.
pub const UNATTRIBUTED_EXEC: u32 = 1;
/// `--unattributed all`: every record of every process.
pub const UNATTRIBUTED_ALL: u32 = 2;
