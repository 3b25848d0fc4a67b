//! The privilege family at level full, and namespaces by per-syscall tracepoints (no LSM hook sees those).

use agent_monitor_ebpf::{
    Kind, Source,
    event::{PIECE_TRUNCATED, Piece, PrivBody, priv_op},
    loss::LossReason,
    task::TaskTag,
};
use aya_ebpf::{
    bindings::task_struct,
    helpers::generated::{bpf_probe_read_kernel_str, bpf_task_pt_regs},
    macros::{lsm, tracepoint},
    programs::{LsmContext, TracePointContext},
};

use super::file::{hash_key, path_dentry};
use crate::bpf::{
    emit::{begin, body, lose, send, send_small},
    globals as g,
    read::{Ptr, current, field, ids, leader_start, now, pointer, value},
    recognise::by_user,
    scratch::tail_at,
    tag::{Actor, actor, enter_proc, note_ids, runtime, set_tag, tag_of, telling},
    walk::walk,
};

/// `PTRACE_MODE_ATTACH`, include/linux/ptrace.h.
const MODE_ATTACH: u32 = 2;
/// `LOADING_MODULE` of `enum kernel_load_data_id`, include/linux/kernel_read_file.h.
const LOADING_MODULE: u32 = 2;

/// Starts a record and gives its body.
#[inline(always)]
pub(crate) fn start(actor: &Actor, kind: Kind, op: u16, source: Source) -> *mut PrivBody {
    begin(actor, kind, source);
    let b: *mut PrivBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).op = op };
    b
}

/// Sends a record that holds numbers only.
#[inline(always)]
pub(crate) fn tell_numbers(kind: Kind, op: u16, args: [u64; 4], source: Source) {
    let Some(actor) = actor(kind) else { return };
    let b = start(&actor, kind, op, source);
    // SAFETY: as above.
    unsafe { (*b).args = args };
    send(&actor, 0);
}

/// Writes a dentry as the record's first path; where the tail ends.
#[inline(always)]
pub(crate) fn path_a(actor: &Actor, b: *mut PrivBody, dentry: Ptr) -> u32 {
    let walked = walk(actor.scratch, hash_key(), dentry, 0);
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).a = walked.piece;
        (*b).dev = field(pointer(dentry, &g::O_DENTRY_SB), &g::O_SB_DEV);
    }
    walked.end
}

/// A kernel string of up to 127 bytes at `off`.
#[inline(always)]
fn text(actor: &Actor, off: u32, at: Ptr) -> (Piece, u32) {
    let Some(to) = tail_at(actor.scratch, off, 128).filter(|_| !at.is_null()) else {
        return (Piece { len: 0, depth: 0, flags: 0 }, off);
    };
    // SAFETY: 128 bytes are there.
    let n = unsafe { bpf_probe_read_kernel_str(to.cast(), 128, at.cast()) };
    let len = if n < 0 { 0 } else { (n & 0xff) as u32 };
    let flags = if len == 128 { PIECE_TRUNCATED } else { 0 };
    (Piece { len: len as u16, depth: 0, flags }, off + len)
}

/// Names the process acted on.
#[inline(always)]
pub(crate) fn target(b: *mut PrivBody, task: *mut task_struct) {
    let slot = tag_of(task);
    let t = task.cast_const().cast::<u8>();
    // SAFETY: the body belongs to the record under construction; the slot is checked for null.
    unsafe {
        (*b).target_tgid = field(t, &g::O_TASK_TGID);
        (*b).target_start = leader_start(task);
        (*b).target_agent = if slot.is_null() { 0 } else { (*slot).agent };
    }
}

/// `task_fix_setuid(new, old, flags)`: kernel/sys.c. Also where a process that takes on an agent's uid is bound.
#[lsm(hook = "task_fix_setuid")]
fn task_fix_setuid(ctx: LsmContext) -> i32 {
    let (new, old): (Ptr, Ptr) = (ctx.arg(0), ctx.arg(1));
    let (old_r, old_e): (u32, u32) = (field(old, &g::O_CRED_UID), field(old, &g::O_CRED_EUID));
    let (new_r, new_e): (u32, u32) = (field(new, &g::O_CRED_UID), field(new, &g::O_CRED_EUID));
    if new_r != old_r {
        bind_user(new_r);
    }
    if old_r != new_r || old_e != new_e {
        let args = [u64::from(old_r), u64::from(old_e), u64::from(new_r), u64::from(new_e)];
        tell_numbers(Kind::PrivSetuid, priv_op::UID, args, Source::Lsm);
    }
    0
}

/// Binds the running task when its new uid is an agent's and it is bound to none.
#[inline(always)]
pub(crate) fn bind_user(uid: u32) {
    let Some(runtime) = runtime() else { return };
    let task = current();
    let slot = tag_of(task);
    // SAFETY: checked for null before the read.
    if !slot.is_null() && unsafe { (*slot).agent } != 0 {
        return;
    }
    let found = by_user(runtime, uid);
    if found.agent == 0 {
        return;
    }
    let by = found.bound_by as u8;
    let mut tag = TaskTag { agent: found.agent, bound_by: by, root_by: by, since: now(), ..TaskTag::NONE };
    note_ids(task, &mut tag);
    if !set_tag(task, &tag) {
        lose(tag.agent, Kind::Bound as u16, LossReason::TagFailed);
        return;
    }
    enter_proc(ids().0, leader_start(task), &tag);
    if telling(runtime) {
        let head = super::process::foreign_head(task, &tag, Kind::Bound, crate::bpf::read::cgroup_id());
        send_small(&head, &agent_monitor_ebpf::event::BoundBody { before: 0, reserved: 0 }, true);
    }
}

/// `task_fix_setgid(new, old, flags)`: kernel/sys.c.
#[lsm(hook = "task_fix_setgid")]
fn task_fix_setgid(ctx: LsmContext) -> i32 {
    let (new, old): (Ptr, Ptr) = (ctx.arg(0), ctx.arg(1));
    let (old_r, old_e): (u32, u32) = (field(old, &g::O_CRED_GID), field(old, &g::O_CRED_EGID));
    let (new_r, new_e): (u32, u32) = (field(new, &g::O_CRED_GID), field(new, &g::O_CRED_EGID));
    if old_r != new_r || old_e != new_e {
        let args = [u64::from(old_r), u64::from(old_e), u64::from(new_r), u64::from(new_e)];
        tell_numbers(Kind::PrivSetuid, priv_op::GID, args, Source::Lsm);
    }
    0
}

/// `capset(new, old, effective, inheritable, permitted)`: kernel/capability.c.
#[lsm(hook = "capset")]
fn capset(ctx: LsmContext) -> i32 {
    let old: Ptr = ctx.arg(1);
    let (effective, permitted): (Ptr, Ptr) = (ctx.arg(2), ctx.arg(4));
    let args = [
        field(old, &g::O_CRED_PERMITTED),
        field(old, &g::O_CRED_EFFECTIVE),
        value(permitted),
        value(effective),
    ];
    tell_numbers(Kind::PrivCapability, priv_op::CAPSET, args, Source::Lsm);
    0
}

/// `ptrace_access_check(child, mode)`: kernel/ptrace.c. Only attaching counts; reading `/proc/PID/stat` asks here too.
#[lsm(hook = "ptrace_access_check")]
fn ptrace_access_check(ctx: LsmContext) -> i32 {
    let child: *mut task_struct = ctx.arg(0);
    let mode: u32 = ctx.arg(1);
    let tgid: u32 = field(child.cast_const().cast(), &g::O_TASK_TGID);
    if mode & MODE_ATTACH == 0 || tgid == ids().0 {
        return 0;
    }
    if let Some(actor) = actor(Kind::PrivPtrace) {
        let b = start(&actor, Kind::PrivPtrace, priv_op::PTRACE_ATTACH, Source::Lsm);
        target(b, child);
        // SAFETY: the body belongs to the record under construction.
        unsafe { (*b).args[0] = u64::from(mode) };
        send(&actor, 0);
    }
    0
}

/// `ptrace_traceme(parent)`: kernel/ptrace.c.
#[lsm(hook = "ptrace_traceme")]
fn ptrace_traceme(ctx: LsmContext) -> i32 {
    if let Some(actor) = actor(Kind::PrivPtrace) {
        let b = start(&actor, Kind::PrivPtrace, priv_op::PTRACE_TRACEME, Source::Lsm);
        target(b, ctx.arg(0));
        send(&actor, 0);
    }
    0
}

/// `task_kill(p, info, sig, cred)`: kernel/signal.c. Signals to oneself are not acts on another process.
#[lsm(hook = "task_kill")]
fn task_kill(ctx: LsmContext) -> i32 {
    let to: *mut task_struct = ctx.arg(0);
    let signal: u32 = ctx.arg(2);
    let tgid: u32 = field(to.cast_const().cast(), &g::O_TASK_TGID);
    if signal == 0 || tgid == ids().0 {
        return 0;
    }
    if let Some(actor) = actor(Kind::PrivSignal) {
        let b = start(&actor, Kind::PrivSignal, priv_op::SIGNAL, Source::Lsm);
        target(b, to);
        // SAFETY: the body belongs to the record under construction.
        unsafe { (*b).args[0] = u64::from(signal) };
        send(&actor, 0);
    }
    0
}

/// Sends a record about one place.
#[inline(always)]
fn tell_place(kind: Kind, op: u16, dentry: Ptr, flags: u64) {
    let Some(actor) = actor(kind) else { return };
    let b = start(&actor, kind, op, Source::Lsm);
    let end = path_a(&actor, b, dentry);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).args[0] = flags };
    send(&actor, end);
}

/// `sb_mount(dev_name, path, type, flags, data)`: fs/namespace.c.
#[lsm(hook = "sb_mount")]
fn sb_mount(ctx: LsmContext) -> i32 {
    let Some(actor) = actor(Kind::PrivMount) else { return 0 };
    let b = start(&actor, Kind::PrivMount, priv_op::MOUNT, Source::Lsm);
    let end = path_a(&actor, b, path_dentry(ctx.arg(1)));
    let (piece, end) = text(&actor, end, ctx.arg(2));
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).b = piece;
        (*b).args[0] = ctx.arg(3);
    }
    send(&actor, end);
    0
}

/// `move_mount(from_path, to_path)`: fs/namespace.c; also how mounts of the new API are attached.
#[lsm(hook = "move_mount")]
fn move_mount(ctx: LsmContext) -> i32 {
    tell_place(Kind::PrivMount, priv_op::MOVE_MOUNT, path_dentry(ctx.arg(1)), 0);
    0
}

/// `sb_umount(mnt, flags)`: fs/namespace.c.
#[lsm(hook = "sb_umount")]
fn sb_umount(ctx: LsmContext) -> i32 {
    // `struct vfsmount` starts with `mnt_root`, include/linux/mount.h.
    let root = value::<u64>(ctx.arg::<Ptr>(0)) as Ptr;
    tell_place(Kind::PrivMount, priv_op::UMOUNT, root, u64::from(ctx.arg::<u32>(1)));
    0
}

/// `sb_pivotroot(old_path, new_path)`: fs/namespace.c.
#[lsm(hook = "sb_pivotroot")]
fn sb_pivotroot(ctx: LsmContext) -> i32 {
    tell_place(Kind::PrivMount, priv_op::PIVOT_ROOT, path_dentry(ctx.arg(1)), 0);
    0
}

/// `path_chroot(path)`: fs/open.c.
#[lsm(hook = "path_chroot")]
fn path_chroot(ctx: LsmContext) -> i32 {
    tell_place(Kind::PrivMount, priv_op::CHROOT, path_dentry(ctx.arg(0)), 0);
    0
}

/// `kernel_load_data(id, contents)`: kernel/module `init_module`.
#[lsm(hook = "kernel_load_data")]
fn kernel_load_data(ctx: LsmContext) -> i32 {
    if ctx.arg::<u32>(0) == LOADING_MODULE {
        tell_numbers(Kind::PrivModule, priv_op::MODULE_LOAD, [0; 4], Source::Lsm);
    }
    0
}

/// `kernel_read_file(file, id, contents)`: `finit_module`.
#[lsm(hook = "kernel_read_file")]
fn kernel_read_file(ctx: LsmContext) -> i32 {
    if ctx.arg::<u32>(1) == LOADING_MODULE {
        tell_place(Kind::PrivModule, priv_op::MODULE_LOAD, pointer(ctx.arg(0), &g::O_FILE_DENTRY), 0);
    }
    0
}

/// `kernel_module_request(kmod_name)`: kernel/module/kmod.c, when an act makes the kernel want a module.
#[lsm(hook = "kernel_module_request")]
fn kernel_module_request(ctx: LsmContext) -> i32 {
    let Some(actor) = actor(Kind::PrivModule) else { return 0 };
    let b = start(&actor, Kind::PrivModule, priv_op::MODULE_REQUEST, Source::Lsm);
    let (piece, end) = text(&actor, 0, ctx.arg(0));
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).a = piece };
    send(&actor, end);
    0
}

/// `bpf(cmd, attr, size)`: kernel/bpf/syscall.c.
#[lsm(hook = "bpf")]
fn bpf_syscall(ctx: LsmContext) -> i32 {
    let args = [u64::from(ctx.arg::<u32>(0)), 0, 0, 0];
    tell_numbers(Kind::PrivBpf, priv_op::BPF, args, Source::Lsm);
    0
}

/// First two arguments of the running system call.
#[inline(always)]
fn syscall_args() -> (u64, u64) {
    // SAFETY: the running task; the helper gives its saved registers.
    let regs = unsafe { bpf_task_pt_regs(current()) } as Ptr;
    (field(regs, &g::O_REGS_DI), field(regs, &g::O_REGS_SI))
}

/// What a successful `unshare` or `setns` leaves in the tracepoint's `ret` field, include/trace/events/syscalls.h.
#[inline(always)]
fn returned(ctx: &TracePointContext) -> i64 {
    // SAFETY: `ret` follows the common fields and the syscall number.
    unsafe { ctx.read_at(16).unwrap_or(-1) }
}

/// `syscalls:sys_exit_unshare`.
#[tracepoint(category = "syscalls", name = "sys_exit_unshare")]
fn exit_unshare(ctx: TracePointContext) -> u32 {
    if returned(&ctx) == 0 {
        let args = [syscall_args().0, 0, 0, 0];
        tell_numbers(Kind::PrivNamespace, priv_op::UNSHARE, args, Source::Tracepoint);
    }
    0
}

/// `syscalls:sys_exit_setns`.
#[tracepoint(category = "syscalls", name = "sys_exit_setns")]
fn exit_setns(ctx: TracePointContext) -> u32 {
    if returned(&ctx) == 0 {
        let (fd, kind) = syscall_args();
        tell_numbers(Kind::PrivNamespace, priv_op::SETNS, [fd, kind, 0, 0], Source::Tracepoint);
    }
    0
}
