//! Scopes as they stand in the kernel: plain data, keyed by what the tables are keyed by once paths are hashed.
//!
//! Made by [`super::compile`], written by `kernel::tables`, judged in user space by `judge`. Two equal images need no
//! change of the kernel's tables.

use std::collections::BTreeMap;

use agent_monitor_ebpf::people::GrantEntry;
use agent_monitor_ebpf::policy::{AgentPolicy, NetRule, PathRule};

use crate::attribute::mounts::Location;

/// The scopes of all agents, by agent index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyImage {
    /// One entry per agent that is registered, and per agent that is gone but may still have processes; then one per
    /// session with a scope of its own ([`SESSION_INDEX`]) and per grant ([`GRANT_INDEX`]).
    pub agents: BTreeMap<u32, AgentImage>,
    /// Grants by agent, in the order they are asked; at most [`agent_monitor_ebpf::people::GRANTS`] each.
    pub grants: BTreeMap<u32, Vec<GrantEntry>>,
}

/// Policy indices from here on are sessions': this plus the number of the session's row.
pub const SESSION_INDEX: u32 = 0x8000_0000;
/// Policy indices from here on are grants': this plus the number of the grant.
pub const GRANT_INDEX: u32 = 0xc000_0000;

/// The scope of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentImage {
    /// What holds for the agent as a whole.
    pub policy: AgentPolicy,
    /// Decisions about places, names and sockets.
    pub places: BTreeMap<Target, PathRule>,
    /// Rules about networks, by prefix; the most specific rule first, those of wider networks included. At most
    /// [`agent_monitor_ebpf::policy::NET_RULES`] each.
    pub nets: BTreeMap<NetPrefix, Vec<NetRule>>,
    /// Names of the rules by their number, [`agent_monitor_ebpf::policy::RULE_DEFAULT`] first: `scope.default`,
    /// `scope.file[0]`, `base.linux-runtime.file[3]` …
    pub rules: Vec<String>,
}

/// What an entry of the table of places is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A directory and all below it.
    Subtree(Location),
    /// One object.
    Exact(Location),
    /// A directory with rules about places below it.
    Below(Location),
    /// Every object of this name.
    Name(Vec<u8>),
    /// Every object whose name ends so.
    Extension(Vec<u8>),
    /// A UNIX socket's abstract name, without the leading NUL.
    Abstract(Vec<u8>),
    /// A vsock peer; no port is every port.
    Vsock {
        /// Context id.
        cid: u32,
        /// Port.
        port: Option<u32>,
    },
}

/// A network; IPv4 as `::ffff:a.b.c.d` with 96 bits more. Bits beyond the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetPrefix {
    /// Leading bits that count, 0 to 128.
    pub bits: u8,
    /// Address, network order.
    pub addr: [u8; 16],
}
