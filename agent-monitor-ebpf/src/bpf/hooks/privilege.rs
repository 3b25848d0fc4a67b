//! The privilege family at level full, and namespaces at the return of their system calls (no LSM hook sees those).

use agent_monitor_ebpf::{
    Kind, Source,
    event::{PIECE_TRUNCATED, Piece, PrivBody, priv_op},
    loss::LossReason,
    policy::{POLICY_MAY_BPF, power},
    task::{TaskTag, binds},
};
use aya_ebpf::{
    bindings::task_struct,
    helpers::generated::bpf_probe_read_kernel_str,
    macros::{fexit, lsm},
    programs::{FExitContext, LsmContext},
};

use super::file::{acting, path_dentry};
use crate::bpf::{
    emit::{begin, body, lose, send, send_small},
    globals as g,
    judge::{self, settle, settle_quietly},
    read::{Ptr, current, field, ids, leader_start, now, pointer, value},
    recognise::by_user,
    scratch::tail_at,
    tag::{Actor, actor, enter_proc, note_ids, runtime, set_tag, tag_of, telling},
    walk::walk,
};

/// `PTRACE_MODE_ATTACH`, include/linux/ptrace.h.
const MODE_ATTACH: u32 = 2;
/// `PTRACE_MODE_NOAUDIT`, include/linux/ptrace.h: asked on the side, as for the fields of `/proc/PID/stat`.
const MODE_NOAUDIT: u32 = 4;
/// `LOADING_MODULE` and the kinds of a new kernel after it, `enum kernel_load_data_id`, include/linux/kernel_read_file.h.
const LOADING_MODULE: u32 = 2;
const LOADING_KEXEC_INITRAMFS: u32 = 4;

/// Starts a record and gives its body.
#[inline(always)]
pub(crate) fn start(actor: &Actor, kind: Kind, op: u16, source: Source) -> *mut PrivBody {
    begin(actor, kind, source);
    let b: *mut PrivBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).op = op };
    b
}

/// Sends a record that holds numbers only, without judging.
#[inline(always)]
pub(crate) fn tell_numbers(kind: Kind, op: u16, args: [u64; 4], source: Source) {
    let Ok(actor) = actor(kind) else { return };
    let b = start(&actor, kind, op, source);
    // SAFETY: as above.
    unsafe { (*b).args = args };
    send(&actor, 0);
}

/// Judges an act of one power by numbers only, and tells it.
#[inline(always)]
pub(super) fn act_numbers(kind: Kind, op: u16, args: [u64; 4], power: usize) -> i32 {
    let actor = acting!(kind);
    let b = start(&actor, kind, op, Source::Lsm);
    // SAFETY: as above.
    unsafe { (*b).args = args };
    judge::power(&actor, power);
    settle(&actor, 0)
}

/// The same for an act that is told elsewhere when it goes ahead.
#[inline(always)]
pub(super) fn refuse_numbers(kind: Kind, op: u16, args: [u64; 4], power: usize) -> i32 {
    let actor = acting!(kind);
    let b = start(&actor, kind, op, Source::Lsm);
    // SAFETY: as above.
    unsafe { (*b).args = args };
    judge::power(&actor, power);
    settle_quietly(&actor, 0)
}

/// Writes a dentry as the record's first path; where the tail ends.
#[inline(always)]
pub(crate) fn path_a(actor: &Actor, b: *mut PrivBody, dentry: Ptr) -> u32 {
    let walked = walk(actor.scratch, dentry, 0);
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
        return act_numbers(Kind::PrivSetuid, priv_op::UID, args, power::SETUID);
    }
    0
}

/// Binds the running task when its new uid is an agent's and it is bound to none. Apart: what it puts on the
/// stack is gone when the act itself is judged.
#[inline(never)]
pub(crate) fn bind_user(uid: u32) {
    let Some(runtime) = runtime() else { return };
    let task = current();
    let slot = tag_of(task);
    // SAFETY: checked for null before the read.
    if !slot.is_null() && unsafe { (*slot).agent } != 0 {
        return;
    }
    let found = by_user(runtime, uid);
    if !binds(found.agent) {
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
        return act_numbers(Kind::PrivSetuid, priv_op::GID, args, power::SETUID);
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
    let actor = acting!(Kind::PrivCapability);
    let b = start(&actor, Kind::PrivCapability, priv_op::CAPSET, Source::Lsm);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).args = args };
    judge::gained(&actor, (args[2] & !args[0]) | (args[3] & !args[1]));
    settle(&actor, 0)
}

/// Whether a process is the daemon.
#[inline(always)]
pub(super) fn is_daemon(tgid: u32) -> bool {
    runtime().is_some_and(|r| r.daemon_tgid == tgid && tgid != 0)
}

/// Whether a task belongs to the actor's agent.
#[inline(always)]
fn same_agent(actor: &Actor, task: *mut task_struct) -> bool {
    let slot = tag_of(task);
    // SAFETY: checked for null.
    !slot.is_null() && actor.agent() != 0 && unsafe { (*slot).agent } == actor.agent()
}

/// `ptrace_access_check(child, mode)`: kernel/ptrace.c. Attaching is told; reading through procfs (`environ`, `maps`,
/// `fd`) only when it is refused, and inside the agent's own processes it is free.
#[lsm(hook = "ptrace_access_check")]
fn ptrace_access_check(ctx: LsmContext) -> i32 {
    let child: *mut task_struct = ctx.arg(0);
    let mode: u32 = ctx.arg(1);
    let tgid: u32 = field(child.cast_const().cast(), &g::O_TASK_TGID);
    let attach = mode & MODE_ATTACH != 0;
    if tgid == ids().0 || (!attach && mode & MODE_NOAUDIT != 0) {
        return 0;
    }
    let actor = acting!(Kind::PrivPtrace);
    if !attach && same_agent(&actor, child) {
        return 0;
    }
    let op = if attach { priv_op::PTRACE_ATTACH } else { priv_op::PTRACE_READ };
    let b = start(&actor, Kind::PrivPtrace, op, Source::Lsm);
    target(b, child);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).args[0] = u64::from(mode) };
    if is_daemon(tgid) {
        judge::tamper(&actor);
    } else {
        judge::power(&actor, power::PTRACE);
    }
    if attach { settle(&actor, 0) } else { settle_quietly(&actor, 0) }
}

/// `ptrace_traceme(parent)`: kernel/ptrace.c. Being traced by one's own agent's process is its business.
#[lsm(hook = "ptrace_traceme")]
fn ptrace_traceme(ctx: LsmContext) -> i32 {
    let actor = acting!(Kind::PrivPtrace);
    let b = start(&actor, Kind::PrivPtrace, priv_op::PTRACE_TRACEME, Source::Lsm);
    target(b, ctx.arg(0));
    judge::power(&actor, power::PTRACE);
    settle(&actor, 0)
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
    let actor = acting!(Kind::PrivSignal);
    let b = start(&actor, Kind::PrivSignal, priv_op::SIGNAL, Source::Lsm);
    target(b, to);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).args[0] = u64::from(signal) };
    if is_daemon(tgid) {
        judge::tamper(&actor);
    } else if !same_agent(&actor, to) {
        judge::power(&actor, power::SIGNAL);
    }
    settle(&actor, 0)
}

/// Judges an act of one power on one place, and tells it.
#[inline(always)]
fn act_place(kind: Kind, op: u16, dentry: Ptr, flags: u64, power: usize) -> i32 {
    let actor = acting!(kind);
    let b = start(&actor, kind, op, Source::Lsm);
    let end = path_a(&actor, b, dentry);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).args[0] = flags };
    judge::power(&actor, power);
    settle(&actor, end)
}

/// `sb_mount(dev_name, path, type, flags, data)`: fs/namespace.c.
#[lsm(hook = "sb_mount")]
fn sb_mount(ctx: LsmContext) -> i32 {
    let actor = acting!(Kind::PrivMount);
    let b = start(&actor, Kind::PrivMount, priv_op::MOUNT, Source::Lsm);
    let end = path_a(&actor, b, path_dentry(ctx.arg(1)));
    let (piece, end) = text(&actor, end, ctx.arg(2));
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).b = piece;
        (*b).args[0] = ctx.arg(3);
    }
    judge::power(&actor, power::MOUNT);
    settle(&actor, end)
}

/// `move_mount(from_path, to_path)`: fs/namespace.c; also how mounts of the new API are attached.
#[lsm(hook = "move_mount")]
fn move_mount(ctx: LsmContext) -> i32 {
    act_place(Kind::PrivMount, priv_op::MOVE_MOUNT, path_dentry(ctx.arg(1)), 0, power::MOUNT)
}

/// `sb_umount(mnt, flags)`: fs/namespace.c.
#[lsm(hook = "sb_umount")]
fn sb_umount(ctx: LsmContext) -> i32 {
    // `struct vfsmount` starts with `mnt_root`, include/linux/mount.h.
    let root = value::<u64>(ctx.arg::<Ptr>(0)) as Ptr;
    act_place(Kind::PrivMount, priv_op::UMOUNT, root, u64::from(ctx.arg::<u32>(1)), power::MOUNT)
}

/// `sb_pivotroot(old_path, new_path)`: fs/namespace.c.
#[lsm(hook = "sb_pivotroot")]
fn sb_pivotroot(ctx: LsmContext) -> i32 {
    act_place(Kind::PrivMount, priv_op::PIVOT_ROOT, path_dentry(ctx.arg(1)), 0, power::MOUNT)
}

/// `path_chroot(path)`: fs/open.c.
#[lsm(hook = "path_chroot")]
fn path_chroot(ctx: LsmContext) -> i32 {
    act_place(Kind::PrivMount, priv_op::CHROOT, path_dentry(ctx.arg(0)), 0, power::MOUNT)
}

/// `kernel_load_data(id, contents)`: kernel/module `init_module`.
#[lsm(hook = "kernel_load_data")]
fn kernel_load_data(ctx: LsmContext) -> i32 {
    let what: u32 = ctx.arg(0);
    if !(LOADING_MODULE..=LOADING_KEXEC_INITRAMFS).contains(&what) {
        return 0;
    }
    act_numbers(Kind::PrivModule, priv_op::MODULE_LOAD, [0; 4], power::MODULE)
}

/// `kernel_read_file(file, id, contents)`: `finit_module`.
#[lsm(hook = "kernel_read_file")]
fn kernel_read_file(ctx: LsmContext) -> i32 {
    let what: u32 = ctx.arg(1);
    if !(LOADING_MODULE..=LOADING_KEXEC_INITRAMFS).contains(&what) {
        return 0;
    }
    act_place(
        Kind::PrivModule,
        priv_op::MODULE_LOAD,
        pointer(ctx.arg(0), &g::O_FILE_DENTRY),
        0,
        power::MODULE,
    )
}

/// `kernel_module_request(kmod_name)`: kernel/module/kmod.c, when an act makes the kernel want a module.
#[lsm(hook = "kernel_module_request")]
fn kernel_module_request(ctx: LsmContext) -> i32 {
    let actor = acting!(Kind::PrivModule);
    let b = start(&actor, Kind::PrivModule, priv_op::MODULE_REQUEST, Source::Lsm);
    let (piece, end) = text(&actor, 0, ctx.arg(0));
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).a = piece };
    judge::power(&actor, power::MODULE);
    settle(&actor, end)
}

/// `bpf(cmd, attr, size)`: kernel/bpf/syscall.c. A decision of the monitor's own stands before that of the scope.
#[lsm(hook = "bpf")]
fn bpf_syscall(ctx: LsmContext) -> i32 {
    let actor = acting!(Kind::PrivBpf);
    let b = start(&actor, Kind::PrivBpf, priv_op::BPF, Source::Lsm);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).args[0] = u64::from(ctx.arg::<u32>(0)) };
    if let Some(policy) = actor.policy {
        // With `bpf()` every map and program of the monitor is within reach: only a rule that names it opens it.
        if policy.flags & POLICY_MAY_BPF == 0 {
            judge::tamper(&actor);
        }
        judge::power(&actor, power::BPF);
    }
    settle(&actor, 0)
}

/// First two arguments of a system call, of the registers that its entry was given.
#[inline(always)]
fn syscall_args(ctx: &FExitContext) -> (u64, u64) {
    let regs: Ptr = ctx.arg(0);
    (field(regs, &g::O_REGS_DI), field(regs, &g::O_REGS_SI))
}

/// What a system call that has one argument, its registers, returned: trampolines lay that behind the arguments.
#[inline(always)]
fn returned(ctx: &FExitContext) -> i64 {
    ctx.arg(1)
}

/// `unshare(flags)`, at its return. No tracepoint of system calls: where one is in use, every system call of every process
/// takes the slow way (include/linux/entry-common.h `SYSCALL_WORK_SYSCALL_TRACEPOINT`).
#[fexit]
fn exit_unshare(ctx: FExitContext) -> i32 {
    if returned(&ctx) == 0 {
        let args = [syscall_args(&ctx).0, 0, 0, 0];
        tell_numbers(Kind::PrivNamespace, priv_op::UNSHARE, args, Source::Fexit);
    }
    0
}

/// `setns(fd, kind)`, at its return.
#[fexit]
fn exit_setns(ctx: FExitContext) -> i32 {
    if returned(&ctx) == 0 {
        let (fd, kind) = syscall_args(&ctx);
        tell_numbers(Kind::PrivNamespace, priv_op::SETNS, [fd, kind, 0, 0], Source::Fexit);
    }
    0
}

/// The same by the 32-bit entry (arch/x86/include/asm/syscall_wrapper.h), whose arguments lie in other registers.
#[fexit]
fn exit_unshare32(ctx: FExitContext) -> i32 {
    if returned(&ctx) == 0 {
        let args = [field(ctx.arg(0), &g::O_REGS_BX), 0, 0, 0];
        tell_numbers(Kind::PrivNamespace, priv_op::UNSHARE, args, Source::Fexit);
    }
    0
}

/// The same for `setns`.
#[fexit]
fn exit_setns32(ctx: FExitContext) -> i32 {
    if returned(&ctx) == 0 {
        let args = [field(ctx.arg(0), &g::O_REGS_BX), field(ctx.arg(0), &g::O_REGS_CX), 0, 0];
        tell_numbers(Kind::PrivNamespace, priv_op::SETNS, args, Source::Fexit);
    }
    0
}
