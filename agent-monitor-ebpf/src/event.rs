//! Bodies of the ring records. Each fits in [`crate::BODY_LEN`]; what is shorter is followed by unused bytes.

/// Name, size and fields of a contract type, for the layout golden file.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Type name.
    pub name: &'static str,
    /// Bytes.
    pub size: usize,
    /// `(name, offset, size)` in declaration order.
    pub fields: &'static [(&'static str, usize, usize)],
}

/// Bytes of an argument block that travel in the exec record itself; longer ones go ahead in chunks.
pub const ARGS_INLINE: usize = 2048;
/// Bytes of one chunk's payload.
pub const ARGS_CHUNK: usize = 4096;
/// Chunks that the kernel sends at the most for one exec.
pub const ARGS_CHUNKS: u32 = 64;
/// Longest argument block that is sent whole, in bytes; the daemon asks procfs for the rest.
pub const ARGS_MAX: usize = ARGS_CHUNK * ARGS_CHUNKS as usize;

/// Bytes of a record's tail at the most: a path of `PATH_MAX` with its padding fits.
pub const TAIL_MAX: usize = 5120;

/// Bytes of a DNS answer that are sent at the most.
pub const ANSWER_MAX: usize = 1024;
/// Bytes of a TLS ClientHello that are sent at the most.
pub const HELLO_MAX: usize = 2048;

pod! {
    /// One piece of a record's tail. Pieces follow each other without a gap in the order the body names them.
    pub struct Piece {
        /// Bytes in the tail, including padding.
        pub len: u16,
        /// Path components in it; 0 for text.
        pub depth: u8,
        /// `PIECE_*` bits.
        pub flags: u8,
    }
}

/// A dentry path: components from the leaf up to the root of the superblock, each NUL-terminated and padded with
/// anything to a multiple of 8 bytes. Zero components mean the root itself (or a file without a name, see
/// [`PIECE_ANON`]). Without this bit the piece is text: bytes as the process gave them, NUL-terminated when whole.
pub const PIECE_DENTRY: u8 = 1;
/// There was more: too deep to walk, too long for the tail, or cut by the kernel.
pub const PIECE_TRUNCATED: u8 = 2;
/// Reading failed part-way.
pub const PIECE_FAILED: u8 = 4;
/// The dentry has no place in a tree (memfd, pipe, deleted anonymous file): the first component is its own name.
pub const PIECE_ANON: u8 = 8;
/// The entry was already removed from its directory (`d_unhashed`).
pub const PIECE_DELETED: u8 = 16;

pod! {
    /// [`crate::Kind::Fork`]. No tail.
    pub struct ForkBody {
        /// `start_boottime` of the child.
        pub child_start: u64,
        /// Thread group id of the child.
        pub child_tgid: u32,
        /// Namespaces the child does not share with its parent: `NS_*` bits of [`crate::event`].
        pub new_ns: u32,
    }
}

pod! {
    /// [`crate::Kind::Exec`]. Tail: `exe`, `cwd`, `filename`, `script`, `args`.
    pub struct ExecBody {
        /// Inode number of the image.
        pub exe_ino: u64,
        /// Inode number of the script, 0 when none was seen.
        pub script_ino: u64,
        /// `start_boottime` of the parent process.
        pub parent_start: u64,
        /// `ctime` of the image: seconds.
        pub exe_ctime_sec: i64,
        /// `ctime` of the image: nanoseconds.
        pub exe_ctime_nsec: u32,
        /// Device (`s_dev`, kernel encoding) of the image.
        pub exe_dev: u32,
        /// Device of the script.
        pub script_dev: u32,
        /// Device of the working directory.
        pub cwd_dev: u32,
        /// Thread group id of the parent process.
        pub parent_tgid: u32,
        /// Bytes of the whole argument block.
        pub args_total: u32,
        /// Arguments the kernel counted (`bprm->argc`).
        pub argc: u32,
        /// Agent the process was bound to before this exec, 0 for none.
        pub before: u32,
        /// Image path.
        pub exe: Piece,
        /// Working directory.
        pub cwd: Piece,
        /// Text of `bprm->filename`: what the caller asked to run.
        pub filename: Piece,
        /// Script path (level full), empty when the image was run directly.
        pub script: Piece,
        /// Argument block when it is inline: NUL-separated text.
        pub args: Piece,
        /// euid before the exec; differs from the head's when the image is set-user-ID.
        pub euid_before: u32,
    }
}

pod! {
    /// [`crate::Kind::ArgChunk`]. Tail: `len` bytes of the argument block.
    pub struct ArgChunkBody {
        /// Where in the argument block this piece starts.
        pub offset: u32,
        /// Bytes in the tail that count.
        pub len: u32,
        /// Bytes of the whole argument block.
        pub args_total: u32,
        /// 1 when the bytes could not be read.
        pub failed: u32,
    }
}

pod! {
    /// [`crate::Kind::Exit`]. No tail.
    pub struct ExitBody {
        /// `task->exit_code`: wait status, `(code << 8) | signal | core`.
        pub status: u32,
        /// Always 0.
        pub reserved: u32,
    }
}

pod! {
    /// [`crate::Kind::Bound`]. The head already carries the new binding. No tail.
    pub struct BoundBody {
        /// Agent the process was bound to before, 0 for none.
        pub before: u32,
        /// Always 0.
        pub reserved: u32,
    }
}

pod! {
    /// File family. Tail: `a`, `b`, `c`.
    ///
    /// From LSM hooks and from file descriptors `a` is the object's dentry path and `b` the second path of a rename or
    /// link. At level partial acts that name a path without leaving a descriptor carry the directory that the text
    /// starts from in `a`/`b` ([`FILE_TEXT`] set) and the two texts, NUL-terminated each, in `c`. The name of an extended
    /// attribute and what a symbolic link says are a text in `c` as well: the only one, or the second after a path.
    pub struct FileBody {
        /// Inode number of the object, 0 when not known.
        pub ino: u64,
        /// Second inode number (rename target that is replaced), 0 when none.
        pub ino_b: u64,
        /// New length for a truncation.
        pub size: u64,
        /// Device of `a`.
        pub dev: u32,
        /// Device of `b`.
        pub dev_b: u32,
        /// Open flags (`O_*`), or `ia_valid` of a setattr.
        pub raw_flags: u32,
        /// Mode bits given or found (`S_IFMT` included where known).
        pub mode: u32,
        /// `ACCESS_*` bits.
        pub access: u16,
        /// An `FILE_OP_*` value.
        pub op: u8,
        /// `FILE_*` bits.
        pub how: u8,
        /// First path.
        pub a: Piece,
        /// Second path.
        pub b: Piece,
        /// Texts.
        pub c: Piece,
        /// New owner for a chown, `u32::MAX` when not set.
        pub new_uid: u32,
        /// New group for a chown, `u32::MAX` when not set.
        pub new_gid: u32,
    }
}

/// `c` holds path texts and `a`, `b` only the directories they start from.
pub const FILE_TEXT: u8 = 1;
/// The open file came from another process.
pub const FILE_RECEIVED: u8 = 4;
/// The open made the file (`FMODE_CREATED`).
pub const FILE_CREATED: u8 = 2;

/// Opened, mapped or asked for reading.
pub const ACCESS_READ: u16 = 1;
/// For writing.
pub const ACCESS_WRITE: u16 = 2;
/// To run as a program (`FMODE_EXEC`) or map executable.
pub const ACCESS_EXECUTE: u16 = 4;
/// Appending only.
pub const ACCESS_APPEND: u16 = 8;
/// Brings the object into being.
pub const ACCESS_CREATE: u16 = 16;
/// Removes the object.
pub const ACCESS_DELETE: u16 = 32;
/// A path handle only (`O_PATH`).
pub const ACCESS_PATH: u16 = 64;

/// Which operation of its kind a file record stands for.
pub mod file_op {
    /// Nothing more to say.
    pub const PLAIN: u8 = 0;
    /// Regular file.
    pub const REGULAR: u8 = 1;
    /// Directory.
    pub const DIRECTORY: u8 = 2;
    /// Device, FIFO or socket node.
    pub const NODE: u8 = 3;
    /// Symbolic link.
    pub const SYMLINK: u8 = 4;
    /// Mode bits.
    pub const MODE: u8 = 5;
    /// Owner or group.
    pub const OWNER: u8 = 6;
    /// Time stamps.
    pub const TIMES: u8 = 7;
    /// Extended attribute set.
    pub const XATTR: u8 = 8;
    /// Extended attribute removed.
    pub const XATTR_REMOVE: u8 = 9;
    /// Inode flags, or input put into a terminal, by `ioctl`; `raw_flags` is the request.
    pub const FLAGS: u8 = 10;
}

pod! {
    /// Network family. Tail: `a` (UNIX socket path by dentry, or text of the address), `b` (directory a text starts
    /// from, level partial).
    pub struct NetBody {
        /// Remote address; IPv4 in the first four bytes. Network order.
        pub remote: [u8; 16],
        /// Local address.
        pub local: [u8; 16],
        /// Bytes sent over the whole flow ([`crate::Kind::NetFlow`]).
        pub bytes_sent: u64,
        /// Bytes received over the whole flow.
        pub bytes_received: u64,
        /// When the flow was first seen.
        pub first: u64,
        /// Socket inode or cookie, whichever the hook has; 0 when none.
        pub cookie: u64,
        /// Remote port, host order.
        pub remote_port: u16,
        /// Local port, host order.
        pub local_port: u16,
        /// Address family (`AF_*`).
        pub family: u16,
        /// Socket type (`SOCK_*`).
        pub sock_type: u16,
        /// Protocol (`IPPROTO_*`).
        pub protocol: u16,
        /// `NET_*` bits.
        pub how: u16,
        /// Device of `a`.
        pub dev: u32,
        /// Device of `b`.
        pub dev_b: u32,
        /// UNIX socket path or text.
        pub a: Piece,
        /// Directory the text in `a` starts from.
        pub b: Piece,
        /// Always 0.
        pub reserved: u32,
    }
}

/// `a` is the name of an abstract UNIX socket (without the leading NUL).
pub const NET_ABSTRACT: u16 = 1;
/// `a` is the text of a UNIX socket address and `b` the directory it starts from.
pub const NET_TEXT: u16 = 2;
/// The UNIX peer has no name.
pub const NET_UNNAMED: u16 = 4;
/// Sent with `MSG_FASTOPEN`: data before the handshake.
pub const NET_FASTOPEN: u16 = 8;
/// The send or flow may leave out bytes that this host's hooks cannot count.
pub const NET_BYTES_PARTIAL: u16 = 16;
/// The message or packet carries a route of its sender's choice: IPv4 source routing or an IPv6 routing header.
pub const NET_ROUTED: u16 = 32;
/// The packet was about to leave for an address other than the one that was judged before.
pub const NET_REDIRECTED: u16 = 64;

pod! {
    /// Privilege family. Tail: `a`, `b` (mount: target, source text).
    pub struct PrivBody {
        /// Meaning by `op`: see [`priv_op`].
        pub args: [u64; 4],
        /// `start_boottime` of the process acted on, 0 when there is none.
        pub target_start: u64,
        /// Thread group id of the process acted on.
        pub target_tgid: u32,
        /// Agent that process is bound to, 0 for none.
        pub target_agent: u32,
        /// Device of `a`.
        pub dev: u32,
        /// A [`priv_op`] value.
        pub op: u16,
        /// `PRIV_*` bits.
        pub how: u16,
        /// First path or text.
        pub a: Piece,
        /// Second path or text.
        pub b: Piece,
    }
}

/// `a` is the directory that the first text in `b` starts from; the second text in `b` is a file system type.
pub const PRIV_TEXT: u16 = 1;

/// Which operation of its kind a privilege record stands for, and what `args` hold.
pub mod priv_op {
    /// `args`: old ruid, old euid, new ruid, new euid.
    pub const UID: u16 = 1;
    /// `args`: old rgid, old egid, new rgid, new egid.
    pub const GID: u16 = 2;
    /// Set-user-ID image. `args`: old euid, new euid.
    pub const SUID_EXEC: u16 = 3;
    /// `capset`. `args`: old permitted, old effective, new permitted, new effective.
    pub const CAPSET: u16 = 4;
    /// Attach (also `process_vm_*`, `/proc/pid/mem`). `args`: PTRACE_MODE bits, or the ptrace request at level partial.
    pub const PTRACE_ATTACH: u16 = 5;
    /// `PTRACE_TRACEME`: the parent is the target.
    pub const PTRACE_TRACEME: u16 = 6;
    /// `args`: signal number.
    pub const SIGNAL: u16 = 7;
    /// `args`: mount flags. `a`: target, `b`: type text.
    pub const MOUNT: u16 = 8;
    /// Superblock configured for mounting by the new mount API. `a`: its root.
    pub const KERN_MOUNT: u16 = 9;
    /// Moved or attached a mount. `a`: where to.
    pub const MOVE_MOUNT: u16 = 10;
    /// `args`: umount flags. `a`: what.
    pub const UMOUNT: u16 = 11;
    /// `a`: new root.
    pub const PIVOT_ROOT: u16 = 12;
    /// `unshare`. `args`: CLONE_NEW* flags.
    pub const UNSHARE: u16 = 13;
    /// `setns`. `args`: fd, type.
    pub const SETNS: u16 = 14;
    /// New namespaces at fork. `args`: `NS_*` bits.
    pub const CLONE_NS: u16 = 15;
    /// `init_module`, `finit_module`. `a`: file where known.
    pub const MODULE_LOAD: u16 = 16;
    /// The kernel asks for a module by name. `a`: name text.
    pub const MODULE_REQUEST: u16 = 17;
    /// `args`: `bpf` command.
    pub const BPF: u16 = 18;
    /// `chroot`. `a`: new root.
    pub const CHROOT: u16 = 19;
    /// A system call that changes mounts was refused before it had an object. `args`: system call number.
    pub const MOUNT_CALL: u16 = 20;
    /// Priority, scheduling or limits of another process. `args`: what, `PRIORITY_*`.
    pub const PRIORITY: u16 = 21;
    /// A raw or packet socket. `args`: family, type, protocol.
    pub const RAW_SOCKET: u16 = 22;
    /// A socket of a family that scopes do not know. `args`: family, type, protocol.
    pub const UNKNOWN_SOCKET: u16 = 23;
    /// Memory or files of another process read through procfs. `args`: PTRACE_MODE bits.
    pub const PTRACE_READ: u16 = 24;
    /// An image or its file capabilities would give more than the caller has. `args`: gained permitted capabilities.
    pub const EXEC_GAIN: u16 = 25;
    /// A socket option by which packets take a route of their sender's choice. `args`: level, option.
    pub const ROUTE_OPTION: u16 = 26;
}

/// Mount namespace.
pub const NS_MNT: u32 = 1;
/// UTS namespace.
pub const NS_UTS: u32 = 2;
/// IPC namespace.
pub const NS_IPC: u32 = 4;
/// PID namespace (for children).
pub const NS_PID: u32 = 8;
/// Network namespace.
pub const NS_NET: u32 = 16;
/// cgroup namespace.
pub const NS_CGROUP: u32 = 32;
/// User namespace.
pub const NS_USER: u32 = 64;
/// Time namespace.
pub const NS_TIME: u32 = 128;

const _: () = {
    assert!(size_of::<crate::Header>() == crate::HEADER_LEN);
    assert!(size_of::<ExecBody>() <= crate::BODY_LEN);
    assert!(size_of::<FileBody>() <= crate::BODY_LEN);
    assert!(size_of::<NetBody>() <= crate::BODY_LEN);
    assert!(size_of::<PrivBody>() <= crate::BODY_LEN);
};
