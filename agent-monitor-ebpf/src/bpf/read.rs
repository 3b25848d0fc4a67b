//! The only reads of kernel and user memory. Everything returns zero (or `None`) on failure; the caller decides whether
//! that is worth a count.

use core::mem::MaybeUninit;

use aya_ebpf::{
    Global,
    bindings::task_struct,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_probe_read_user,
        generated::{
            bpf_get_current_cgroup_id, bpf_get_current_task_btf, bpf_ktime_get_boot_ns,
            bpf_probe_read_kernel, bpf_task_pt_regs,
        },
    },
};

use super::globals as g;

/// Any kernel object.
pub(crate) type Ptr = *const u8;

/// Reads a plain value at an address; zero when it cannot be read. No branch: the helper zeroes the destination when
/// it fails, and each branch would double what older verifiers walk through.
#[inline(always)]
pub(crate) fn value<T: Copy>(at: Ptr) -> T {
    let mut slot = MaybeUninit::<T>::zeroed();
    // SAFETY: probe_read checks the address and fills the whole slot either way; `T` is a plain integer or array.
    unsafe {
        bpf_probe_read_kernel(slot.as_mut_ptr().cast(), size_of::<T>() as u32, at.cast());
        slot.assume_init()
    }
}

/// Reads a plain value at `base + offset`; zero when it cannot be read.
#[inline(always)]
pub(crate) fn field<T: Copy>(base: Ptr, offset: &'static Global<u32>) -> T {
    value(base.wrapping_add(offset.load() as usize))
}

/// Reads a pointer at `base + offset`; null when it cannot be read.
#[inline(always)]
pub(crate) fn pointer(base: Ptr, offset: &'static Global<u32>) -> Ptr {
    field::<u64>(base, offset) as Ptr
}

/// Reads a plain value from user memory.
#[inline(always)]
pub(crate) fn user<T: Copy>(at: u64) -> Option<T> {
    // SAFETY: probe_read_user checks the address.
    unsafe { bpf_probe_read_user(at as *const T) }.ok()
}

/// The running task, as a pointer the verifier trusts.
#[inline(always)]
pub(crate) fn current() -> *mut task_struct {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_task_btf() }
}

/// `TS_COMPAT`, arch/x86/include/asm/thread_info.h: a 32-bit system call, whose numbers mean other calls.
pub(crate) const TS_COMPAT: u32 = 2;
/// `__X32_SYSCALL_BIT`, arch/x86/include/uapi/asm/unistd.h: the calls of x86-64 with 32-bit pointers.
const X32: u64 = 0x4000_0000;

/// Whether the running system call came by a 32-bit entry.
#[inline(always)]
pub(crate) fn compat(task: *mut task_struct) -> bool {
    field::<u32>(task.cast_const().cast(), &g::O_TASK_STATUS) & TS_COMPAT != 0
}

/// Number of the running system call as x86-64 counts them; `u64::MAX` for one of another ABI.
#[inline(always)]
pub(crate) fn system_call(task: *mut task_struct) -> u64 {
    // SAFETY: the running task; the helper gives its saved registers.
    let nr: u64 = field(unsafe { bpf_task_pt_regs(task) } as Ptr, &g::O_REGS_ORIG_AX);
    if compat(task) || nr & X32 != 0 { u64::MAX } else { nr }
}

/// `(tgid, tid)` of the running task in the initial PID namespace.
#[inline(always)]
pub(crate) fn ids() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}

/// `(uid, gid)` of the running task in the initial user namespace.
#[inline(always)]
pub(crate) fn uid_gid() -> (u32, u32) {
    let both = bpf_get_current_uid_gid();
    (both as u32, (both >> 32) as u32)
}

/// Boot-time clock, nanoseconds.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// cgroup v2 id of the running task.
#[inline(always)]
pub(crate) fn cgroup_id() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_cgroup_id() }
}

/// `start_boottime` of the leader of a task's thread group.
#[inline(always)]
pub(crate) fn leader_start(task: *const task_struct) -> u64 {
    field(pointer(task.cast(), &g::O_TASK_LEADER), &g::O_TASK_START)
}

/// `(device, inode number)` of a dentry; inode 0 when it is negative.
#[inline(always)]
pub(crate) fn dentry_id(dentry: Ptr) -> (u32, u64) {
    let inode = pointer(dentry, &g::O_DENTRY_INODE);
    let ino = if inode.is_null() { 0 } else { field(inode, &g::O_INODE_INO) };
    (field(pointer(dentry, &g::O_DENTRY_SB), &g::O_SB_DEV), ino)
}

/// One number for an inode of one file system: inode numbers alone are another's to choose.
#[inline(always)]
pub(crate) fn inode_of(dentry: Ptr) -> u64 {
    let (dev, ino) = dentry_id(dentry);
    if ino == 0 { 0 } else { ino ^ u64::from(dev) << 40 }
}
