//! What an agent may do, as the kernel holds it: keys and values of the policy tables, and the encoding of a decision.
//!
//! Every key carries the agent and the generation, as those of recognition do ([`crate::bind`]): a hook sees the old
//! scope or the new one, never half of each. The compiler resolves as much as it can: a subtree's entry already holds
//! what its ancestors say, so that the deepest entry on the way to an object decides alone, whatever the number of rules.

use crate::Verdict;

/// What can be asked about a place, each with its own decision. The numbers index [`PathRule::slots`].
pub mod slot {
    /// Read the contents or list.
    pub const READ: usize = 0;
    /// Change contents, size, owner, mode or attributes.
    pub const WRITE: usize = 1;
    /// Bring it into being.
    pub const CREATE: usize = 2;
    /// Remove it.
    pub const DELETE: usize = 3;
    /// Map it as code. Permitted too where [`EXEC`] is.
    pub const MAP: usize = 4;
    /// Run it as a program or as the script of one.
    pub const EXEC: usize = 5;
    /// Reach the UNIX socket there.
    pub const UNIX_CONNECT: usize = 6;
    /// Make a UNIX socket there.
    pub const UNIX_BIND: usize = 7;
    /// Wait for peers on the UNIX socket there.
    pub const UNIX_LISTEN: usize = 8;
}

/// Number of slots.
pub const SLOTS: usize = 9;

/// Which slots an operation asks about, as bits `1 << slot`.
pub mod ask {
    use super::slot;

    /// Read.
    pub const READ: u32 = 1 << slot::READ;
    /// Write, truncate, chmod, chown, utimes, extended attributes.
    pub const WRITE: u32 = 1 << slot::WRITE;
    /// New file, directory, node or symbolic link.
    pub const CREATE: u32 = 1 << slot::CREATE;
    /// Unlink, rmdir.
    pub const DELETE: u32 = 1 << slot::DELETE;
    /// Executable mapping.
    pub const MAP: u32 = 1 << slot::MAP;
    /// Exec.
    pub const EXEC: u32 = 1 << slot::EXEC;
    /// Connect or send to a UNIX socket.
    pub const UNIX_CONNECT: u32 = 1 << slot::UNIX_CONNECT;
    /// Bind a UNIX socket.
    pub const UNIX_BIND: u32 = 1 << slot::UNIX_BIND;
    /// Listen on a UNIX socket.
    pub const UNIX_LISTEN: u32 = 1 << slot::UNIX_LISTEN;
    /// The file that gets a second name: who may not read or write it must not do so by another name.
    pub const LINK_OLD: u32 = READ | WRITE;
    /// The place of the second name.
    pub const LINK_NEW: u32 = CREATE;
    /// The place that a rename empties: as a link, and gone.
    pub const RENAME_OLD: u32 = READ | WRITE | DELETE;
    /// The place that a rename fills.
    pub const RENAME_NEW: u32 = CREATE;
    /// The place that a rename fills while something is there.
    pub const RENAME_OVER: u32 = CREATE | WRITE;
}

/// A directory and all below it. Hash of the directory's path; slots filled with what ancestors say where the rule is
/// silent.
pub const SPACE_SUBTREE: u32 = 1;
/// One object. Hash of its path; slots without a rule are 0.
pub const SPACE_EXACT: u32 = 2;
/// Every object of a name. Hash of the component; `dev` 0.
pub const SPACE_NAME: u32 = 3;
/// Every object whose name ends so. Hash of the ending; `dev` 0.
pub const SPACE_EXTENSION: u32 = 4;
/// A directory with rules about places below it: per slot the strictest of those. Asked when a directory is moved.
pub const SPACE_BELOW: u32 = 5;
/// A UNIX socket's abstract name. Hash as of one component; `dev` 0.
pub const SPACE_ABSTRACT: u32 = 6;
/// A vsock peer. `hash` is `cid << 32 | port`; port `u32::MAX` is every port.
pub const SPACE_VSOCK: u32 = 7;

pod! {
    /// Key of the table of places.
    pub struct PlaceKey {
        /// By `space`: see `SPACE_*`.
        pub hash: u64,
        /// Agent index.
        pub agent: u32,
        /// `s_dev`, kernel encoding, where `space` has places.
        pub dev: u32,
        /// Generation.
        pub generation: u32,
        /// A `SPACE_*` value.
        pub space: u32,
    }
}

pod! {
    /// Decisions about a place.
    pub struct PathRule {
        /// A decision per slot, 0 where this entry has none.
        pub slots: [u32; SLOTS],
        /// Slots (as `ask` bits) that are refused whatever other rules say: the monitor's own places.
        pub forced: u32,
    }
}

impl PathRule {
    /// No decision.
    pub const NONE: PathRule = PathRule { slots: [0; SLOTS], forced: 0 };
}

pod! {
    /// Key of the table of agents.
    pub struct AgentKey {
        /// Agent index.
        pub agent: u32,
        /// Generation.
        pub generation: u32,
    }
}

/// Powers, in the order of [`AgentPolicy::privilege`].
pub mod power {
    /// `bpf()`.
    pub const BPF: usize = 0;
    /// Gaining a capability that no rule names; those that rules name are in `caps`.
    pub const CAPABILITY: usize = 1;
    /// Kernel modules.
    pub const MODULE: usize = 2;
    /// Mounts.
    pub const MOUNT: usize = 3;
    /// Namespaces other than user namespaces.
    pub const NAMESPACE: usize = 4;
    /// Tracing, reading or writing another process's memory.
    pub const PTRACE: usize = 5;
    /// Raw and packet sockets.
    pub const RAW_SOCKET: usize = 6;
    /// Changing user or group.
    pub const SETUID: usize = 7;
    /// Signals out of the agent's own processes.
    pub const SIGNAL: usize = 8;
    /// User namespaces.
    pub const USERNS: usize = 9;
    /// Block and character devices, wherever their nodes lie, other than those every program uses.
    pub const DEVICE: usize = 10;
    /// Input put into a terminal, and requests that change a console.
    pub const TERMINAL: usize = 11;
}

/// Number of powers.
pub const POWERS: usize = 12;
/// Capabilities with a decision of their own (`CAP_LAST_CAP` + 1, Linux 5.9 to 7.3).
pub const CAPS: usize = 41;
/// Different lengths of name endings that one agent's rules can have.
pub const EXTENSIONS: usize = 8;

pod! {
    /// What holds for an agent as a whole.
    pub struct AgentPolicy {
        /// Bit n: some [`SPACE_SUBTREE`] entry lies n components below the root of its superblock.
        pub depths: u64,
        /// Decision per slot where no place on the way has one: the `/**` rules, else the default.
        pub root: [u32; SLOTS],
        /// Decision about what cannot be judged.
        pub unknown: u32,
        /// Decision about a peer that no rule fits.
        pub net: u32,
        /// Decision per power.
        pub privilege: [u32; POWERS],
        /// Decision per capability that is gained.
        pub caps: [u32; CAPS],
        /// Lengths in bytes of name endings, the longest first, 0 ends the list.
        pub extensions: [u8; EXTENSIONS],
        /// `POLICY_*` bits.
        pub flags: u32,
        /// A `LIFE_*` value of [`crate::people`].
        pub life: u32,
        /// When the agent ends, `CLOCK_BOOTTIME` nanoseconds; `u64::MAX` for never.
        pub expires: u64,
    }
}

/// Decisions are carried out; without it they are only told.
pub const POLICY_ENFORCE: u32 = 1;
/// There are [`SPACE_EXACT`] entries.
pub const POLICY_EXACT: u32 = 2;
/// There are [`SPACE_NAME`] entries.
pub const POLICY_NAME: u32 = 4;
/// There are [`SPACE_ABSTRACT`] entries.
pub const POLICY_ABSTRACT: u32 = 8;
/// There are [`SPACE_VSOCK`] entries.
pub const POLICY_VSOCK: u32 = 16;
/// A rule lets the agent call `bpf()`.
pub const POLICY_MAY_BPF: u32 = 32;
/// There are network prefixes.
pub const POLICY_NET: u32 = 64;
/// Held actions wait while no daemon runs; without it they are refused.
pub const POLICY_HOLD_WAITS: u32 = 128;
/// Some internet peer is not permitted: by the default or by a rule.
pub const POLICY_NET_LIMITED: u32 = 256;

pod! {
    /// Key of the trie of networks, behind its prefix length ([`NET_PREFIX`] + bits of the address).
    pub struct NetKey {
        /// Agent index.
        pub agent: u32,
        /// Generation.
        pub generation: u32,
        /// IPv6, or IPv4 as `::ffff:a.b.c.d`.
        pub addr: [u8; 16],
    }
}

/// Bits of [`NetKey`] before the address.
pub const NET_PREFIX: u32 = 64;

/// Reach a peer.
pub const NET_CONNECT: u8 = 1;
/// Take an own address.
pub const NET_BIND: u8 = 2;
/// Wait for peers.
pub const NET_LISTEN: u8 = 4;

pod! {
    /// One rule about the peers of a network.
    pub struct NetRule {
        /// First port; 0 with `high` [`u16::MAX`] is every port and no port.
        pub low: u16,
        /// Last port.
        pub high: u16,
        /// `IPPROTO_*`, 0 for every protocol. MPTCP (262) counts as TCP.
        pub protocol: u8,
        /// `NET_*` bits of the actions it is about.
        pub actions: u8,
        /// Always 0.
        pub reserved: u16,
        /// The decision; 0 ends the list.
        pub decision: u32,
    }
}

/// Rules that one network can hold, those of the wider networks around it included.
pub const NET_RULES: usize = 32;

pod! {
    /// Rules of a network and of all wider ones, the most specific first: the first that fits decides.
    pub struct NetSet {
        /// The first with decision 0 ends the list.
        pub rules: [NetRule; NET_RULES],
    }
}

/// Rule number of the scope's default.
pub const RULE_DEFAULT: u16 = 0;
/// Rule number for "could not be judged".
pub const RULE_UNKNOWN: u16 = 0xffff;
/// Rule number of the monitor's own protection.
pub const RULE_SELF: u16 = 0xfffe;
/// Rule number for "the agent has no scope in force".
pub const RULE_MISSING: u16 = 0xfffd;
/// Rule number for "the agent has ended, or is suspended".
pub const RULE_ENDED: u16 = 0xfffc;
/// Rule number of a person's decision about exactly this act.
pub const RULE_DECIDED: u16 = 0xfffb;
/// Rule number for "the agent's session has ended".
pub const RULE_SESSION: u16 = 0xfffa;
/// Rule number for "the packet would take a route of its sender's choice, past the address that was judged".
pub const RULE_ROUTE: u16 = 0xfff9;

/// Rank of a verdict: of two, the one with the higher rank is the stricter.
pub const fn rank(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Allow => 0,
        Verdict::Audit => 1,
        Verdict::Hold => 2,
        Verdict::Deny => 3,
        Verdict::Kill => 4,
    }
}

/// A decision: never 0, and of two the one with the greater top byte is the stricter.
pub const fn decision(verdict: Verdict, rule: u16) -> u32 {
    (0x80 | rank(verdict)) << 24 | (verdict as u32) << 16 | rule as u32
}

/// Whether a decision lets the action go ahead.
#[inline(always)]
pub const fn permits(decision: u32) -> bool {
    decision >> 24 <= 0x81
}

/// Whether a decision is to kill.
#[inline(always)]
pub const fn kills(decision: u32) -> bool {
    decision >> 24 == 0x84
}

/// Whether a decision is to ask a person.
#[inline(always)]
pub const fn holds(decision: u32) -> bool {
    decision >> 24 == 0x82
}

/// The stricter of two decisions; the first where they are equally strict.
#[inline(always)]
pub const fn stricter(a: u32, b: u32) -> u32 {
    if b >> 24 > a >> 24 { b } else { a }
}

/// The number of a decision's verdict.
#[inline(always)]
pub const fn verdict_of(decision: u32) -> u8 {
    (decision >> 16) as u8
}

/// The number of a decision's rule.
#[inline(always)]
pub const fn rule_of(decision: u32) -> u16 {
    decision as u16
}
