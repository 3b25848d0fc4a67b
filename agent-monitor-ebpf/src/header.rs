//! The head that every ring record starts with.

/// Bytes of [`Header`].
pub const HEADER_LEN: usize = 88;
/// Bytes of every body, whatever its kind: one size keeps the tail at a constant offset for the verifier.
pub const BODY_LEN: usize = 112;

pod! {
    /// Who did it, when, and how we know. All times are `CLOCK_BOOTTIME` nanoseconds.
    pub struct Header {
        /// A [`Kind`] value.
        pub kind: u16,
        /// `FLAG_*` bits.
        pub flags: u16,
        /// Length of the whole record in bytes.
        pub total: u32,
        /// When the hook ran (`bpf_ktime_get_boot_ns`).
        pub ktime: u64,
        /// `start_boottime` of the thread group's leader: with `tgid` it makes the task key.
        pub start: u64,
        /// cgroup v2 id of the task, 0 when the host has no cgroup v2.
        pub cgroup: u64,
        /// Session the task runs in, 0 for none.
        pub session: u64,
        /// Thread group id ("pid" in user space) in the initial PID namespace.
        pub tgid: u32,
        /// Thread id in the initial PID namespace.
        pub tid: u32,
        /// Real uid in the initial user namespace.
        pub uid: u32,
        /// Real gid in the initial user namespace.
        pub gid: u32,
        /// Agent index, 0 when the task is bound to none.
        pub agent: u32,
        /// Agent index of the delegator (the agent that started this one), 0 for none.
        pub delegator: u32,
        /// A [`crate::task::BoundBy`] value.
        pub bound_by: u8,
        /// A [`Source`] value.
        pub source: u8,
        /// A [`Verdict`] value.
        pub verdict: u8,
        /// Always 0.
        pub reserved: u8,
        /// What the action returned where that is known: 0, or a negative errno.
        pub errno: i32,
        /// uid that counts for access (`cred.euid`), initial user namespace.
        pub euid: u32,
        /// Low half: number of the rule that decided, an index into the agent's compiled rules or a `RULE_*` value of
        /// [`crate::policy`]. High half: low half of the generation that it belongs to. 0 where nothing was judged.
        pub rule: u32,
        /// What exactly was to be done, as people decide about it ([`crate::people`]): the same act of the same agent has
        /// the same digest. 0 unless the verdict was `hold`, or a person's decision counted.
        pub digest: u64,
    }
}

/// The argument block could not be read in whole from the new image.
pub const FLAG_ARGS_FAILED: u16 = 1;
/// The argument block is longer than the kernel sends ([`crate::event::ARGS_MAX`]).
pub const FLAG_ARGS_TRUNCATED: u16 = 2;
/// The arguments came ahead in [`Kind::ArgChunk`] records.
pub const FLAG_ARGS_CHUNKED: u16 = 4;
/// At least one chunk of the arguments found no room in the ring.
pub const FLAG_ARGS_LOST: u16 = 8;
/// The act ran in a task that `io_uring` runs for the process, or inside `io_uring_enter`.
pub const FLAG_IO_URING: u16 = 16;
/// The verdict was carried out: the agent's mode is `enforce`, or the monitor's own protection decided.
pub const FLAG_ENFORCED: u16 = 32;
/// The act was aimed at the monitor itself.
pub const FLAG_TAMPER: u16 = 64;
/// The act was judged: `verdict` and `rule` count.
pub const FLAG_JUDGED: u16 = 128;
/// The place could not be found out in whole; the verdict is the configured one for that.
pub const FLAG_UNKNOWN: u16 = 256;
/// The thread is stopped inside the act until a person decides; the act is judged again when it goes on.
pub const FLAG_HELD: u16 = 512;
/// A person is asked, but the act could not wait for the answer: it was refused, and a later try may pass.
pub const FLAG_ASKED: u16 = 1024;
/// The same thread was held at the same act before, and somebody woke it without a decision.
pub const FLAG_AGAIN: u16 = 2048;
/// A person's decision about exactly this act counted: the verdict says which.
pub const FLAG_DECIDED: u16 = 4096;
/// A person would have been asked about this exec, but its arguments could not be read to their end: it was refused.
pub const FLAG_ARGS_UNREAD: u16 = 8192;

macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident = $value:literal,)*) => {
        /// What a record is about. Numbers are contract; families sit in ranges of 32.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Kind { $($(#[$meta])* $name = $value,)* }

        impl Kind {
            /// Every kind, in number order.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)*];

            /// The kind a record's number stands for, `None` for a number that this build does not know.
            pub const fn from_u16(value: u16) -> Option<Kind> {
                match value {
                    $($value => Some(Kind::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// A new process (never a thread). Body: [`crate::event::ForkBody`]; the head is the parent's.
    Fork = 1,
    /// A new program image, after the point of no return. Body: [`crate::event::ExecBody`].
    Exec = 2,
    /// The last thread of a process ended. Body: [`crate::event::ExitBody`].
    Exit = 3,
    /// A piece of an argument block that is too long for its [`Kind::Exec`] record; comes before it.
    ArgChunk = 4,
    /// A process was bound to an agent other than by inheritance. Body: [`crate::event::BoundBody`].
    Bound = 5,
    /// A file was opened. Body of this family: [`crate::event::FileBody`].
    FileOpen = 32,
    /// A directory entry came into being: file, directory, node or symbolic link.
    FileCreate = 33,
    /// A directory entry was removed.
    FileDelete = 34,
    /// A directory entry was moved.
    FileRename = 35,
    /// A hard link was made.
    FileLink = 36,
    /// A file's length was set.
    FileTruncate = 37,
    /// Mode, owner, times or extended attributes were set.
    FileSetattr = 38,
    /// A file was mapped executable.
    FileMmapExec = 39,
    /// A socket was connected. Body of this family: [`crate::event::NetBody`].
    NetConnect = 64,
    /// A socket was bound.
    NetBind = 65,
    /// A socket began to listen.
    NetListen = 66,
    /// A connection was accepted.
    NetAccept = 67,
    /// First message of a socket to a peer it is not connected to.
    NetSend = 68,
    /// A flow ended; carries byte counts.
    NetFlow = 69,
    /// A process without an agent reaches for a peer that it has not reached for lately. No event: material for names.
    NetPeer = 70,
    /// A DNS answer came to a socket of this host; the head names no process. Tail: the message, up to
    /// [`crate::event::ANSWER_MAX`] bytes; `bytes_received` is its whole length.
    NetAnswer = 71,
    /// The first bytes of a TLS connection of a process without an agent. Tail: up to [`crate::event::HELLO_MAX`] bytes
    /// from the TLS record's header on; `bytes_sent` is what the packet had.
    NetHello = 72,
    /// User or group ids were changed. Body of this family: [`crate::event::PrivBody`].
    PrivSetuid = 96,
    /// Capability sets were changed.
    PrivCapability = 97,
    /// Another process was traced, or its memory reached.
    PrivPtrace = 98,
    /// A signal was sent to another process.
    PrivSignal = 99,
    /// A file system was mounted, moved, unmounted or made the root.
    PrivMount = 100,
    /// A namespace was made or joined.
    PrivNamespace = 101,
    /// A kernel module was loaded or asked for.
    PrivModule = 102,
    /// The `bpf` system call was used.
    PrivBpf = 103,
    /// A canary of `doctor`: no event, only proof that a hook runs. No body.
    Canary = 200,
}

/// Which kind of hook saw the act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// BPF LSM program.
    Lsm = 1,
    /// BTF-typed tracepoint (`tp_btf`).
    TpBtf = 2,
    /// Raw tracepoint on `sys_exit`.
    RawTp = 3,
    /// cgroup program (`connect4` and relatives, `cgroup_skb`).
    Cgroup = 4,
    /// At the return of a kernel function (`fexit`).
    Fexit = 5,
    /// Read from procfs by the daemon, not seen by a hook.
    Procfs = 6,
}

impl Source {
    /// The source a record's number stands for.
    pub const fn from_u8(value: u8) -> Option<Source> {
        match value {
            1 => Some(Source::Lsm),
            2 => Some(Source::TpBtf),
            3 => Some(Source::RawTp),
            4 => Some(Source::Cgroup),
            5 => Some(Source::Fexit),
            6 => Some(Source::Procfs),
            _ => None,
        }
    }

    /// The word in a JSON event's `source`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Source::Lsm => "lsm",
            Source::TpBtf => "tp_btf",
            Source::RawTp => "raw_tp",
            Source::Cgroup => "cgroup",
            Source::Fexit => "fexit",
            Source::Procfs => "procfs",
        }
    }
}

/// What was decided about the act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// Let pass.
    Allow = 0,
    /// Let pass, marked for a person to look at.
    Audit = 1,
    /// Refused.
    Deny = 2,
    /// Suspended until a person decides.
    Hold = 3,
    /// Refused and the process killed.
    Kill = 4,
}

impl Verdict {
    /// The verdict a record's number stands for.
    pub const fn from_u8(value: u8) -> Option<Verdict> {
        match value {
            0 => Some(Verdict::Allow),
            1 => Some(Verdict::Audit),
            2 => Some(Verdict::Deny),
            3 => Some(Verdict::Hold),
            4 => Some(Verdict::Kill),
            _ => None,
        }
    }
}
