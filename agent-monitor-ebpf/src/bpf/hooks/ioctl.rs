//! `ioctl`, at level full. Requests on devices and sockets are those of objects that were judged when they were opened;
//! judged here is what changes a file or a file system through any descriptor of it, read-only ones included, and what acts
//! on the person at a terminal. Requests have one number for each ABI: those that 32-bit programs use are here too.

use agent_monitor_ebpf::{
    Kind, Source,
    event::{ACCESS_WRITE, FileBody, file_op},
    policy::{ask, power},
};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use super::file::{S_IFDIR, S_IFMT, acting, judged_path};
use crate::bpf::{
    emit::{begin, body},
    globals as g,
    judge::{self, placeless, settle},
    read::{Ptr, field, pointer},
};

const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;

/// `file_ioctl(file, cmd, arg)`: fs/ioctl.c.
#[lsm(hook = "file_ioctl")]
fn file_ioctl(ctx: LsmContext) -> i32 {
    ioctl(ctx.arg(0), ctx.arg(1), ctx.arg(2))
}

/// `file_ioctl_compat(file, cmd, arg)`: the 32-bit entry, since 6.8; before, it comes to the other hook.
#[lsm(hook = "file_ioctl_compat")]
fn file_ioctl_compat(ctx: LsmContext) -> i32 {
    ioctl(ctx.arg(0), ctx.arg(1), ctx.arg(2))
}

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Reads what whoever has the file open may read, or belongs to the descriptor.
    Nothing,
    /// Changes the file's attributes.
    Attributes,
    /// Acts on a terminal's input or on a console.
    Terminal,
    /// Not known.
    Unknown,
}

#[inline(always)]
fn ioctl(file: Ptr, cmd: u32, arg: u64) -> i32 {
    let dentry = pointer(file, &g::O_FILE_DENTRY);
    let mode = u32::from(field::<u16>(pointer(dentry, &g::O_DENTRY_INODE), &g::O_INODE_MODE));
    let effect = match mode & S_IFMT {
        S_IFREG | S_IFDIR => of_file(cmd),
        S_IFCHR if terminal(cmd, arg) => Effect::Terminal,
        _ => Effect::Nothing,
    };
    if effect == Effect::Nothing || placeless(dentry) {
        return 0;
    }
    let actor = acting!(Kind::FileSetattr);
    begin(&actor, Kind::FileSetattr, Source::Lsm);
    let end = judged_path(&actor, dentry, ask::WRITE);
    if effect == Effect::Terminal {
        judge::power(&actor, power::TERMINAL);
    }
    if effect == Effect::Unknown {
        judge::unknown(&actor);
    }
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).op = file_op::FLAGS;
        (*b).access = ACCESS_WRITE;
        (*b).raw_flags = cmd;
    }
    settle(&actor, end)
}

/// What a request on a file or directory does. Names: include/uapi/linux/{fs,fiemap,fscrypt,fsverity,f2fs}.h.
#[inline(always)]
fn of_file(cmd: u32) -> Effect {
    match cmd {
        // FS_IOC_SETFLAGS, FS_IOC_SETVERSION, of both ABIs; FS_IOC_FSSETXATTR
        0x4008_6602 | 0x4004_6602 | 0x4008_7602 | 0x4004_7602 | 0x401c_5820 => Effect::Attributes,
        // FS_IOC_GETFLAGS, FS_IOC_GETVERSION, of both ABIs; FS_IOC_FSGETXATTR, FS_IOC_FIEMAP, FIBMAP, FIGETBSZ
        0x8008_6601 | 0x8004_6601 | 0x8008_7601 | 0x8004_7601 | 0x801c_581f | 0xc020_660b | 1 | 2
        // FICLONE, FICLONERANGE, FIDEDUPERANGE: both files were judged when they were opened
        | 0x4004_9409 | 0x4020_940d | 0xc018_9436
        // FS_IOC_GETFSLABEL, FS_IOC_GETFSUUID, FS_IOC_GETFSSYSFSPATH
        | 0x8100_9431 | 0x8011_1500 | 0x8081_1501
        // FS_IOC_GET_ENCRYPTION_POLICY_EX, FS_IOC_MEASURE_VERITY, F2FS_IOC_GET_FEATURES
        | 0xc009_6616 | 0xc004_6686 | 0x8004_f50c => Effect::Nothing,
        // What asks whether a file is a terminal, and what belongs to the descriptor (asm-generic/ioctls.h): no file system
        // has requests there.
        _ if cmd & 0xffff_ff00 == 0x5400 => Effect::Nothing,
        _ => Effect::Unknown,
    }
}

/// Whether a request acts on a terminal's input, takes it from its session, or changes a console
/// (include/uapi/asm-generic/ioctls.h, include/uapi/linux/{kd,vt}.h).
#[inline(always)]
fn terminal(cmd: u32, arg: u64) -> bool {
    match cmd {
        // TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD, TIOCVHANGUP
        0x5412 | 0x541c | 0x541d | 0x5423 | 0x5437 => true,
        // TIOCSCTTY of a terminal that another session has
        0x540e => arg != 0,
        // KDGETLED, KDGKBTYPE, KDGETMODE, KDGKBMODE, VT_GETMODE, VT_GETSTATE
        0x4b31 | 0x4b33 | 0x4b3b | 0x4b44 | 0x5601 | 0x5603 => false,
        // KD* and VT_*
        _ => cmd & 0xffff_ff00 == 0x4b00 || cmd & 0xffff_ff00 == 0x5600,
    }
}
