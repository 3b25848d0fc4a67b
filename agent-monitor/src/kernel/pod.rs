//! Contract types as aya wants them.

use agent_monitor_ebpf::{
    bind::{CgroupEntry, MatchEntry, MatchSet, NumKey, PathKey},
    config::Runtime,
    loss::{LossKey, LossValue},
    people::{GrantLife, GrantList, SessionEntry, Ticket, TicketKey, UseKey},
    policy::{AgentKey, AgentPolicy, NetKey, NetSet, PathRule, PlaceKey},
    task::{BackfillEntry, ProcEntry},
};

/// A contract type in a map: the orphan rule keeps `aya::Pod` off the type itself.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Plain<T>(pub T);

macro_rules! plain {
    ($($t:ty),*) => {
        $(
            // SAFETY: contract types hold integers and arrays of them, without padding (zerocopy's IntoBytes).
            unsafe impl aya::Pod for Plain<$t> {}
        )*
    };
}
plain!(
    AgentKey,
    AgentPolicy,
    BackfillEntry,
    CgroupEntry,
    GrantLife,
    GrantList,
    LossKey,
    LossValue,
    MatchEntry,
    MatchSet,
    NetKey,
    NetSet,
    NumKey,
    PathKey,
    PathRule,
    PlaceKey,
    ProcEntry,
    Runtime,
    SessionEntry,
    Ticket,
    TicketKey,
    UseKey
);
