//! What could not be told, counted by kind and agent.

pod! {
    /// Key of the loss table.
    pub struct LossKey {
        /// Agent index, 0 for unattributed.
        pub agent: u32,
        /// [`crate::Kind`] value.
        pub kind: u16,
        /// A [`LossReason`] value.
        pub reason: u16,
    }
}

pod! {
    /// Value of the loss table. `count` is only ever added to atomically.
    pub struct LossValue {
        /// How many since the table was made.
        pub count: u64,
        /// Boot-time nanoseconds of the first.
        pub first: u64,
        /// Boot-time nanoseconds of the latest.
        pub last: u64,
    }
}

/// Why something was not told, or not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum LossReason {
    /// The ring had no room.
    RingFull = 1,
    /// No memory for the task's scratch space.
    Scratch = 2,
    /// The table of bound processes is full: cgroup hooks do not know the process.
    ProcsFull = 3,
    /// A task could not be tagged: it and its children are not attributed.
    TagFailed = 4,
    /// Socket storage could not be made: the flow's bytes are not counted.
    FlowFull = 5,
    /// The table of cgroups is full: a new cgroup was not recognised.
    CgroupsFull = 6,
    /// A 32-bit system call of a bound process was not decoded (level partial).
    CompatSyscall = 7,
    /// A kernel structure could not be read.
    ReadFailed = 8,
    /// `io_uring` was set up by a bound process; what it does through the ring is not seen (level partial).
    IoUringUnseen = 9,
    /// The agent has no scope in the generation in force; what it did was refused.
    PolicyMissing = 10,
    /// A place was too deep or could not be read; the scope's verdict for unknown places held.
    PlaceUnknown = 11,
    /// The kernel left the program out: it ran on that processor already. Counted by the daemon.
    NotRun = 12,
}

impl LossReason {
    /// Every reason, in number order.
    pub const ALL: &'static [LossReason] = &[
        LossReason::RingFull,
        LossReason::Scratch,
        LossReason::ProcsFull,
        LossReason::TagFailed,
        LossReason::FlowFull,
        LossReason::CgroupsFull,
        LossReason::CompatSyscall,
        LossReason::ReadFailed,
        LossReason::IoUringUnseen,
        LossReason::PolicyMissing,
        LossReason::PlaceUnknown,
        LossReason::NotRun,
    ];

    /// The reason a number stands for.
    pub fn from_u16(value: u16) -> Option<LossReason> {
        LossReason::ALL.iter().copied().find(|r| *r as u16 == value)
    }

    /// The word after `gap.` in a JSON event's kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            LossReason::RingFull => "ring_full",
            LossReason::Scratch => "scratch",
            LossReason::ProcsFull => "procs_full",
            LossReason::TagFailed => "tag_failed",
            LossReason::FlowFull => "flow_full",
            LossReason::CgroupsFull => "cgroups_full",
            LossReason::CompatSyscall => "compat_syscall",
            LossReason::ReadFailed => "read_failed",
            LossReason::IoUringUnseen => "io_uring_unseen",
            LossReason::PolicyMissing => "policy_missing",
            LossReason::PlaceUnknown => "place_unknown",
            LossReason::NotRun => "not_run",
        }
    }
}

/// Slot of the overflow array in which losses are counted when the loss table itself is full.
pub const OVERFLOW_LOSS: u32 = 0;
/// Slots of the overflow array.
pub const OVERFLOW_SLOTS: u32 = 1;
