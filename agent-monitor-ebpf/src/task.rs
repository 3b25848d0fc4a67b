//! What the kernel keeps of a task: the binding.

pod! {
    /// Value in task storage of every task (each thread) that is bound. `agent` 0 means not bound, as no value does.
    pub struct TaskTag {
        /// Session, 0 for none.
        pub session: u64,
        /// When the binding was made, boot-time nanoseconds (of the root of the inherited chain).
        pub since: u64,
        /// Agent index.
        pub agent: u32,
        /// Agent index that started this agent, 0 for none.
        pub delegator: u32,
        /// [`BoundBy`] of this task.
        pub bound_by: u8,
        /// [`BoundBy`] of the process from which the chain of inheritance starts.
        pub root_by: u8,
        /// `TAG_*` bits.
        pub flags: u16,
        /// Real uid last seen: what a record of a change shows as the old one.
        pub uid: u32,
        /// euid last seen; differs after the exec of a set-user-ID image.
        pub euid: u32,
        /// Real gid last seen.
        pub gid: u32,
        /// egid last seen.
        pub egid: u32,
        /// Always 0.
        pub reserved: u32,
    }
}

/// Agent index of known programs that no record speaks of (shadow agents). Given at an exec to a process that is bound to
/// nobody; what an agent starts stays the agent's, and any rule of a record goes before it.
pub const SHADOW: u32 = SPARED - 1;
/// Agent index in the tables of users and cgroups: no [`SHADOW`] here, and nothing else either. No process ever has it.
pub const SPARED: u32 = 0x7fff_ffff;

/// Whether a process takes an identity that was found for it. One comparison for nobody and [`SPARED`].
#[inline(always)]
pub const fn binds(found: u32) -> bool {
    found.wrapping_sub(1) < SPARED - 1
}

/// Bound for a launch: the next exec starts the launched program, which keeps the identity even when another record
/// matches it.
pub const TAG_LAUNCH: u16 = 1;

impl TaskTag {
    /// No binding.
    pub const NONE: TaskTag = TaskTag {
        session: 0,
        since: 0,
        agent: 0,
        delegator: 0,
        bound_by: 0,
        root_by: 0,
        flags: 0,
        uid: 0,
        euid: 0,
        gid: 0,
        egid: 0,
        reserved: 0,
    };
}

/// By what a process was recognised as an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BoundBy {
    /// Executable.
    Exe = 1,
    /// Script of a shebang program.
    Script = 2,
    /// Arguments, from user space.
    Argv = 3,
    /// Real user id.
    User = 4,
    /// cgroup path.
    Cgroup = 5,
    /// systemd unit.
    Unit = 6,
    /// Container id.
    Container = 7,
    /// `agent-monitor exec`.
    Launch = 8,
    /// From the parent at fork.
    Inherited = 9,
    /// Found running at start or registration; `root_by` says by which rule.
    Backfill = 10,
}

impl BoundBy {
    /// The value a record's number stands for; `None` for "not bound" (0) and unknown numbers.
    pub const fn from_u8(value: u8) -> Option<BoundBy> {
        match value {
            1 => Some(BoundBy::Exe),
            2 => Some(BoundBy::Script),
            3 => Some(BoundBy::Argv),
            4 => Some(BoundBy::User),
            5 => Some(BoundBy::Cgroup),
            6 => Some(BoundBy::Unit),
            7 => Some(BoundBy::Container),
            8 => Some(BoundBy::Launch),
            9 => Some(BoundBy::Inherited),
            10 => Some(BoundBy::Backfill),
            _ => None,
        }
    }

    /// The word in a JSON event's `agent.bound_by`.
    pub const fn as_str(self) -> &'static str {
        match self {
            BoundBy::Exe => "exe",
            BoundBy::Script => "script",
            BoundBy::Argv => "argv",
            BoundBy::User => "user",
            BoundBy::Cgroup => "cgroup",
            BoundBy::Unit => "unit",
            BoundBy::Container => "container",
            BoundBy::Launch => "launch",
            BoundBy::Inherited => "inherited",
            BoundBy::Backfill => "backfill",
        }
    }
}

pod! {
    /// Value of the table of bound processes, by tgid. It serves the programs that have no task storage (cgroup) and
    /// the daemon; the exit hook of the last thread removes the entry, so a reused pid never finds one.
    pub struct ProcEntry {
        /// `start_boottime` of the leader.
        pub start: u64,
        /// Binding of the process.
        pub tag: TaskTag,
    }
}

pod! {
    /// One process for the back-fill iterator to bind (or, with agent 0, to free).
    pub struct BackfillEntry {
        /// `start_boottime` that the leader must have.
        pub start: u64,
        /// What every thread of it gets.
        pub tag: TaskTag,
        /// 1: replace a binding that exists; 0: keep it; [`REPLACE_SESSION`]: change the session of one to the same agent.
        pub replace: u32,
        /// Counts the threads that were tagged; written by the iterator.
        pub tagged: u32,
    }
}

/// [`BackfillEntry::replace`]: only the session changes, and only while the task still belongs to the same agent.
pub const REPLACE_SESSION: u32 = 2;

pod! {
    /// One task as the task iterator lists it.
    pub struct TaskLine {
        /// `start_boottime` of the thread group's leader.
        pub start: u64,
        /// `start_boottime` of the parent process.
        pub parent_start: u64,
        /// Digest of the act that the thread was held at last and that was not decided since, else 0.
        pub held: u64,
        /// The thread's binding after this run.
        pub tag: TaskTag,
        /// Thread group id.
        pub tgid: u32,
        /// Thread id.
        pub tid: u32,
        /// Thread group id of the parent process.
        pub parent_tgid: u32,
        /// Real uid.
        pub uid: u32,
    }
}
