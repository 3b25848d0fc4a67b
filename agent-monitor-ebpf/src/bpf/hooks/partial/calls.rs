//! Which system calls are told, and where their arguments are. Numbers: arch/x86/entry/syscalls/syscall_64.tbl.

use agent_monitor_ebpf::{
    Kind,
    event::{ACCESS_CREATE, ACCESS_DELETE, ACCESS_WRITE, file_op as f, priv_op as p},
};

/// No argument.
pub(super) const NONE: u8 = 255;

/// A call that names files by text.
#[derive(Clone, Copy)]
pub(super) struct Spec {
    pub(super) kind: Kind,
    pub(super) op: u8,
    pub(super) access: u16,
    /// Argument with the directory descriptor of the first path, [`NONE`] for the working directory.
    pub(super) dir: u8,
    /// Argument with the first path, or with the descriptor itself.
    pub(super) path: u8,
    /// As `dir`, of the second path.
    pub(super) dir_b: u8,
    /// Second path, [`NONE`] for none.
    pub(super) path_b: u8,
    /// Argument that holds mode, owner or length; [`NONE`] for none.
    pub(super) value: u8,
    /// Argument with a text that is not a path; [`NONE`] for none.
    pub(super) text: u8,
}

/// How a call is told.
#[derive(Clone, Copy)]
pub(super) enum Call {
    /// Returns the descriptor of what it opened.
    Open,
    Path(Spec),
    /// Acts on a descriptor.
    Fd(Spec),
    Mmap,
    Connect,
    Send,
    Bind,
    Listen,
    Accept,
    Numbers(Kind, u16),
    /// On another process, whose pid is in this argument.
    Process(Kind, u16, u32),
    /// Changes the caller's ids.
    Ids(u16),
    IoUring,
}

impl Call {
    #[inline(always)]
    pub(super) fn kind(&self) -> Kind {
        match self {
            Call::Open | Call::IoUring => Kind::FileOpen,
            Call::Path(s) | Call::Fd(s) => s.kind,
            Call::Mmap => Kind::FileMmapExec,
            Call::Connect => Kind::NetConnect,
            Call::Send => Kind::NetSend,
            Call::Bind => Kind::NetBind,
            Call::Listen => Kind::NetListen,
            Call::Accept => Kind::NetAccept,
            Call::Numbers(k, _) | Call::Process(k, _, _) => *k,
            Call::Ids(_) => Kind::PrivSetuid,
        }
    }
}

const TOLD: &[u32] = &[
    2, 9, 42, 43, 44, 49, 50, 56, 57, 58, 59, 62, 76, 77, 82, 83, 84, 85, 86, 87, 88, 90, 91, 92, 93, 94,
    101, 105, 106, 113, 114, 117, 119, 126, 129, 132, 133, 155, 161, 165, 166, 175, 188, 189, 190, 197, 198,
    199, 200, 234, 235, 257, 258, 259, 260, 261, 263, 264, 265, 266, 268, 272, 280, 288, 308, 310, 311, 313,
    316, 321, 322, 425, 429, 435, 437, 452,
];

const fn set() -> [u64; 8] {
    let mut words = [0u64; 8];
    let mut i = 0;
    while i < TOLD.len() {
        words[(TOLD[i] >> 6) as usize] |= 1 << (TOLD[i] & 63);
        i += 1;
    }
    words
}

const SET: [u64; 8] = set();

/// Whether a call is told at all.
#[inline(always)]
pub(super) fn concerns(nr: u32) -> bool {
    let word = match nr >> 6 {
        0 => SET[0],
        1 => SET[1],
        2 => SET[2],
        3 => SET[3],
        4 => SET[4],
        5 => SET[5],
        6 => SET[6],
        _ => SET[7],
    };
    word & (1 << (nr & 63)) != 0
}

/// Whether a call starts a process or a program: `clone`, `fork`, `vfork`, `execve`, `execveat`, `clone3`.
#[inline(always)]
pub(super) fn starts(nr: u32) -> bool {
    matches!(nr, 56..=59 | 322 | 435)
}

/// Whether a call may give the task a new real uid.
#[inline(always)]
pub(super) fn sets_uid(nr: u32) -> bool {
    matches!(nr, 105 | 113 | 117)
}

/// Argument that holds the signal, given the one that holds the pid.
#[inline(always)]
pub(super) fn signal_arg(which: u32) -> u32 {
    which + 1
}

const fn path(kind: Kind, op: u8, access: u16, dir: u8, path: u8, value: u8) -> Call {
    Call::Path(Spec { kind, op, access, dir, path, dir_b: NONE, path_b: NONE, value, text: NONE })
}

const fn named(kind: Kind, op: u8, access: u16, dir: u8, path: u8, text: u8) -> Call {
    Call::Path(Spec { kind, op, access, dir, path, dir_b: NONE, path_b: NONE, value: NONE, text })
}

const fn pair(kind: Kind, access: u16, dir: u8, path: u8, dir_b: u8, path_b: u8) -> Call {
    Call::Path(Spec { kind, op: f::PLAIN, access, dir, path, dir_b, path_b, value: NONE, text: NONE })
}

const fn fd(kind: Kind, op: u8, value: u8, text: u8) -> Call {
    Call::Fd(Spec {
        kind,
        op,
        access: ACCESS_WRITE,
        dir: NONE,
        path: 0,
        dir_b: NONE,
        path_b: NONE,
        value,
        text,
    })
}

const MOVE: u16 = ACCESS_CREATE | ACCESS_DELETE;

/// How a call of [`TOLD`] is told.
#[inline(always)]
pub(super) fn call(nr: u32) -> Call {
    use Kind::{FileCreate, FileDelete, FileLink, FileRename, FileSetattr, FileTruncate};
    match nr {
        2 | 85 | 257 | 437 => Call::Open,
        9 => Call::Mmap,
        42 => Call::Connect,
        44 => Call::Send,
        49 => Call::Bind,
        50 => Call::Listen,
        43 | 288 => Call::Accept,
        82 => pair(FileRename, MOVE, NONE, 0, NONE, 1),
        264 | 316 => pair(FileRename, MOVE, 0, 1, 2, 3),
        86 => pair(FileLink, ACCESS_CREATE, NONE, 0, NONE, 1),
        265 => pair(FileLink, ACCESS_CREATE, 0, 1, 2, 3),
        87 => path(FileDelete, f::REGULAR, ACCESS_DELETE, NONE, 0, NONE),
        84 => path(FileDelete, f::DIRECTORY, ACCESS_DELETE, NONE, 0, NONE),
        263 => path(FileDelete, f::PLAIN, ACCESS_DELETE, 0, 1, 2),
        83 => path(FileCreate, f::DIRECTORY, ACCESS_CREATE, NONE, 0, 1),
        258 => path(FileCreate, f::DIRECTORY, ACCESS_CREATE, 0, 1, 2),
        133 => path(FileCreate, f::NODE, ACCESS_CREATE, NONE, 0, 1),
        259 => path(FileCreate, f::NODE, ACCESS_CREATE, 0, 1, 2),
        88 => named(FileCreate, f::SYMLINK, ACCESS_CREATE, NONE, 1, 0),
        266 => named(FileCreate, f::SYMLINK, ACCESS_CREATE, 1, 2, 0),
        76 => path(FileTruncate, f::PLAIN, ACCESS_WRITE, NONE, 0, 1),
        77 => fd(FileTruncate, f::PLAIN, 1, NONE),
        90 => path(FileSetattr, f::MODE, ACCESS_WRITE, NONE, 0, 1),
        91 => fd(FileSetattr, f::MODE, 1, NONE),
        268 | 452 => path(FileSetattr, f::MODE, ACCESS_WRITE, 0, 1, 2),
        92 | 94 => path(FileSetattr, f::OWNER, ACCESS_WRITE, NONE, 0, 1),
        93 => fd(FileSetattr, f::OWNER, 1, NONE),
        260 => path(FileSetattr, f::OWNER, ACCESS_WRITE, 0, 1, 2),
        132 | 235 => path(FileSetattr, f::TIMES, ACCESS_WRITE, NONE, 0, NONE),
        261 | 280 => path(FileSetattr, f::TIMES, ACCESS_WRITE, 0, 1, NONE),
        188 | 189 => named(FileSetattr, f::XATTR, ACCESS_WRITE, NONE, 0, 1),
        190 => fd(FileSetattr, f::XATTR, NONE, 1),
        197 | 198 => named(FileSetattr, f::XATTR_REMOVE, ACCESS_WRITE, NONE, 0, 1),
        199 => fd(FileSetattr, f::XATTR_REMOVE, NONE, 1),
        _ => privilege(nr),
    }
}

#[inline(always)]
fn privilege(nr: u32) -> Call {
    use Kind::{PrivBpf, PrivModule, PrivMount, PrivNamespace, PrivPtrace, PrivSignal};
    match nr {
        62 | 200 | 129 => Call::Process(PrivSignal, p::SIGNAL, 0),
        234 => Call::Process(PrivSignal, p::SIGNAL, 1),
        101 => Call::Process(PrivPtrace, p::PTRACE_ATTACH, 1),
        310 | 311 => Call::Process(PrivPtrace, p::PTRACE_ATTACH, 0),
        105 | 113 | 117 => Call::Ids(p::UID),
        106 | 114 | 119 => Call::Ids(p::GID),
        126 => Call::Ids(p::CAPSET),
        155 => Call::Path(mount_spec(p::PIVOT_ROOT, NONE, 0)),
        161 => Call::Path(mount_spec(p::CHROOT, NONE, 0)),
        165 => Call::Path(Spec { text: 2, value: 3, ..mount_spec(p::MOUNT, NONE, 1) }),
        166 => Call::Path(mount_spec(p::UMOUNT, NONE, 0)),
        429 => Call::Path(mount_spec(p::MOVE_MOUNT, 2, 3)),
        175 | 313 => Call::Numbers(PrivModule, p::MODULE_LOAD),
        272 => Call::Numbers(PrivNamespace, p::UNSHARE),
        308 => Call::Numbers(PrivNamespace, p::SETNS),
        321 => Call::Numbers(PrivBpf, p::BPF),
        425 => Call::IoUring,
        _ => Call::Numbers(PrivMount, 0),
    }
}

#[inline(always)]
fn mount_spec(op: u16, dir: u8, path: u8) -> Spec {
    Spec {
        kind: Kind::PrivMount,
        op: op as u8,
        access: 0,
        dir,
        path,
        dir_b: NONE,
        path_b: NONE,
        value: NONE,
        text: NONE,
    }
}
