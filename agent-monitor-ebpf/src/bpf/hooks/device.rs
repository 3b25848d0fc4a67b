//! Block and character devices, judged by what they are and not by where their node lies: whoever may make a node in a
//! directory would have the whole disk, the kernel's memory or its log in it.

use agent_monitor_ebpf::policy::power;

use super::file::S_IFMT;
use crate::bpf::{
    globals as g, judge,
    read::{Ptr, current, field, pointer, value},
    tag::Actor,
};

const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFREG: u32 = 0o100_000;
/// `PROC_SUPER_MAGIC`, include/uapi/linux/magic.h.
const PROC: u64 = 0x9fa0;
/// `DEVPTS_SUPER_MAGIC`, include/uapi/linux/magic.h.
const DEVPTS: u64 = 0x1cd1;
/// `UNIX98_PTY_SLAVE_MAJOR` and the seven after it, include/uapi/linux/major.h.
const PTS_MAJOR: u32 = 136;
/// `PIDTYPE_SID`, include/linux/pid_types.h: where `signal_struct.pids` has the session.
const PIDTYPE_SID: usize = 3;

/// Number of a device as the kernel holds it, include/linux/kdev_t.h.
const fn device(major: u32, minor: u32) -> u32 {
    major << 20 | minor
}

/// Devices that every program uses and that lead nowhere (drivers/char/mem.c, drivers/tty/tty_io.c): null, zero, full,
/// random, urandom, the own terminal, and the maker of new ones. A device 0:0 is how overlayfs writes that a file is gone.
#[inline(always)]
fn common(number: u32) -> bool {
    number == device(1, 3)
        || number == device(1, 5)
        || number == device(1, 7)
        || number == device(1, 8)
        || number == device(1, 9)
        || number == device(5, 0)
        || number == device(5, 2)
        || number == 0
}

#[inline(always)]
fn is_device(mode: u32) -> bool {
    mode & S_IFMT == S_IFCHR || mode & S_IFMT == S_IFBLK
}

/// Judges a node that is made.
#[inline(always)]
pub(super) fn made(actor: &Actor, mode: u32, number: u32) {
    if is_device(mode) && !(mode & S_IFMT == S_IFCHR && common(number)) {
        judge::power(actor, power::DEVICE);
    }
}

/// Judges a node that is opened, or that another process sends open.
#[inline(always)]
pub(super) fn opened(actor: &Actor, dentry: Ptr) {
    let inode = pointer(dentry, &g::O_DENTRY_INODE);
    let mode = u32::from(field::<u16>(inode, &g::O_INODE_MODE));
    if mode & S_IFMT == S_IFREG && kernel_file(dentry) {
        judge::power(actor, power::DEVICE);
        return;
    }
    if !is_device(mode) {
        return;
    }
    let number: u32 = field(inode, &g::O_INODE_RDEV);
    if mode & S_IFMT == S_IFCHR && (common(number) || own_terminal(dentry, number)) {
        return;
    }
    judge::power(actor, power::DEVICE);
}

/// The first eight bytes of a name, with what lies behind its end zeroed.
const fn name(text: &[u8]) -> u64 {
    let (mut word, mut i) = (0, 0);
    while i < text.len() && i < 8 {
        word |= (text[i] as u64) << (i * 8);
        i += 1;
    }
    word
}

/// Whether it is one of the files at the root of procfs that are the kernel's memory and log, or that make it act, and not a
/// view of it: `kcore`, `kmsg`, `vmcore`, `sysrq-trigger` (fs/proc, drivers/tty/sysrq.c).
#[inline(always)]
fn kernel_file(dentry: Ptr) -> bool {
    let sb = pointer(dentry, &g::O_DENTRY_SB);
    if field::<u64>(sb, &g::O_SB_MAGIC) != PROC
        || pointer(dentry, &g::O_DENTRY_PARENT) != pointer(sb, &g::O_SB_ROOT)
    {
        return false;
    }
    let word: u64 = value(pointer(dentry, &g::O_DENTRY_NAME));
    word & 0xffff_ffff_ffff == const { name(b"kcore") }
        || word & 0xff_ffff_ffff == const { name(b"kmsg") }
        || word & 0xff_ffff_ffff_ffff == const { name(b"vmcore") }
        || word == const { name(b"sysrq-trigger") }
}

/// Whether it is a pseudo-terminal of the task's own session, or one that no session has yet: the task has just made it.
/// Terminals of other sessions are other people's.
#[inline(always)]
fn own_terminal(dentry: Ptr, number: u32) -> bool {
    let magic: u64 = field(pointer(dentry, &g::O_DENTRY_SB), &g::O_SB_MAGIC);
    if magic != DEVPTS || (number >> 20).wrapping_sub(PTS_MAJOR) > 7 {
        return false;
    }
    // fs/devpts/inode.c `devpts_pty_new`: the slave's `tty_struct`.
    let tty = pointer(dentry, &g::O_DENTRY_FSDATA);
    if tty.is_null() {
        return false;
    }
    let session = pointer(tty, &g::O_TTY_SESSION);
    let signal = pointer(current().cast_const().cast(), &g::O_TASK_SIGNAL);
    let pids = signal.wrapping_add(g::O_SIGNAL_PIDS.load() as usize);
    let own = value::<u64>(pids.wrapping_add(PIDTYPE_SID * 8)) as Ptr;
    session.is_null() || session == own
}
