//! Roads that have no hook of their own (namespaces, the new mount API), tasks that must not exist unbound, images that
//! give more than the caller has, and the daemon's own process.

use agent_monitor_ebpf::{
    Kind, Source,
    event::{PrivBody, priv_op},
    loss::LossReason,
    people::{ERESTARTNOINTR, LIFE_ACTIVE},
    policy::power,
    task::BoundBy,
};
use aya_ebpf::{
    bindings::task_struct, helpers::generated::bpf_task_pt_regs, macros::lsm, programs::LsmContext,
};

use super::{
    file::acting,
    privilege::{is_daemon, refuse_numbers, start, target},
};
use crate::bpf::{
    emit::lose,
    globals as g,
    judge::{self, settle_quietly},
    read::{Ptr, compat, current, field, ids, pointer},
    tag::{policy_of, runtime, set_tag, tag_of},
};

/// `CLONE_NEW*` of all namespaces but the user namespace, include/uapi/linux/sched.h.
const CLONE_NAMESPACES: u64 =
    0x80 | 0x2_0000 | 0x200_0000 | 0x400_0000 | 0x800_0000 | 0x2000_0000 | 0x4000_0000;
const CAP_SYS_ADMIN: u32 = 21;
const ENOMEM: i32 = 12;
const EAGAIN: i32 = 11;

/// `task_alloc(task, clone_flags)`: kernel/fork.c `copy_process`. The child gets its binding here, where failing means
/// that there is no child.
#[lsm(hook = "task_alloc")]
fn task_alloc(ctx: LsmContext) -> i32 {
    let child: *mut task_struct = ctx.arg(0);
    let flags: u64 = ctx.arg(1);
    let slot = tag_of(current());
    // SAFETY: checked for null.
    if slot.is_null() || unsafe { (*slot).agent } == 0 {
        return 0;
    }
    // SAFETY: checked for null.
    let mut tag = unsafe { *slot };
    if suspended(tag.agent) {
        // As `copy_process` itself does for a pending signal: the call is run again when the parent goes on.
        return if judge::hold::stop_fork() { -ERESTARTNOINTR } else { -EAGAIN };
    }
    tag.bound_by = BoundBy::Inherited as u8;
    if !set_tag(child, &tag) {
        lose(tag.agent, Kind::Fork as u16, LossReason::TagFailed);
        return -ENOMEM;
    }
    if flags & CLONE_NAMESPACES == 0 {
        return 0;
    }
    refuse_numbers(
        Kind::PrivNamespace,
        priv_op::UNSHARE,
        [flags & CLONE_NAMESPACES, 0, 0, 0],
        power::NAMESPACE,
    )
}

/// Whether an agent may start nothing: it is suspended or has ended.
#[inline(always)]
fn suspended(agent: u32) -> bool {
    runtime()
        .and_then(|runtime| policy_of(agent, runtime.generation))
        .is_some_and(|policy| policy.life != LIFE_ACTIVE)
}

/// `userns_create(cred)`: kernel/user_namespace.c, since 6.1.
#[lsm(hook = "userns_create")]
fn userns_create(_ctx: LsmContext) -> i32 {
    // CLONE_NEWUSER
    refuse_numbers(Kind::PrivNamespace, priv_op::UNSHARE, [0x1000_0000, 0, 0, 0], power::USERNS)
}

/// `capable(cred, ns, cap, opts)`: security/commoncap.c and all who ask. The calls that make namespaces or mounts and
/// have no hook of their own all want `CAP_SYS_ADMIN` first.
#[lsm(hook = "capable")]
fn capable(ctx: LsmContext) -> i32 {
    if ctx.arg::<u32>(2) != CAP_SYS_ADMIN {
        return 0;
    }
    let task = current();
    if tag_of(task).is_null() {
        return 0;
    }
    // SAFETY: the running task; the helper gives its saved registers.
    let regs = unsafe { bpf_task_pt_regs(task) } as Ptr;
    // By the 32-bit entry the same calls have other numbers and registers (arch/x86/entry/syscalls/syscall_32.tbl); from 424
    // on the numbers are those of every ABI. The bit of x32 calls says nothing about which call it is.
    let nr = field::<u64>(regs, &g::O_REGS_ORIG_AX) & !0x4000_0000;
    let narrow = compat(task);
    let nr = match nr {
        310 if narrow => 272,
        346 if narrow => 308,
        other if narrow && other < 424 => 0,
        other => other,
    };
    match nr {
        // unshare, setns
        272 | 308 => {
            let op = if nr == 272 { priv_op::UNSHARE } else { priv_op::SETNS };
            let args = if narrow {
                [field(regs, &g::O_REGS_BX), field(regs, &g::O_REGS_CX), 0, 0]
            } else {
                [field(regs, &g::O_REGS_DI), field(regs, &g::O_REGS_SI), 0, 0]
            };
            refuse_numbers(Kind::PrivNamespace, op, args, power::NAMESPACE)
        }
        // open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr, open_tree_attr
        428..=433 | 442 | 467 => {
            refuse_numbers(Kind::PrivMount, priv_op::MOUNT_CALL, [nr, 0, 0, 0], power::MOUNT)
        }
        _ => 0,
    }
}

/// `bprm_creds_from_file(bprm, file)`: fs/exec.c, after the image's set-user-ID bits and capabilities were worked out.
#[lsm(hook = "bprm_creds_from_file")]
fn bprm_creds(ctx: LsmContext) -> i32 {
    let task = current();
    if tag_of(task).is_null() {
        return 0;
    }
    let new = pointer(ctx.arg(0), &g::O_BPRM_CRED);
    let old = pointer(task.cast_const().cast(), &g::O_TASK_CRED);
    let (uid, gid): (u32, u32) = (field(new, &g::O_CRED_EUID), field(new, &g::O_CRED_EGID));
    let (old_uid, old_gid): (u32, u32) = (field(old, &g::O_CRED_EUID), field(old, &g::O_CRED_EGID));
    let more = field::<u64>(new, &g::O_CRED_PERMITTED) & !field::<u64>(old, &g::O_CRED_PERMITTED);
    if uid == old_uid && gid == old_gid && more == 0 {
        return 0;
    }
    let actor = acting!(Kind::PrivSetuid);
    let b: *mut PrivBody = start(&actor, Kind::PrivSetuid, priv_op::SUID_EXEC, Source::Lsm);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).args = [u64::from(old_uid), u64::from(uid), more, 0] };
    if uid != old_uid || gid != old_gid {
        judge::power(&actor, power::SETUID);
    }
    judge::gained(&actor, more);
    settle_quietly(&actor, 0)
}

/// An act that would slow the daemon down or change its limits; on other processes it is nobody's business here.
#[inline(always)]
fn priority(task: *mut task_struct, what: u64) -> i32 {
    let tgid: u32 = field(task.cast_const().cast(), &g::O_TASK_TGID);
    if !is_daemon(tgid) || tgid == ids().0 {
        return 0;
    }
    let actor = acting!(Kind::PrivSignal);
    let b = start(&actor, Kind::PrivSignal, priv_op::PRIORITY, Source::Lsm);
    target(b, task);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).args[0] = what };
    judge::tamper(&actor);
    settle_quietly(&actor, 0)
}

/// `task_setnice(p, nice)`: kernel/sys.c.
#[lsm(hook = "task_setnice")]
fn task_setnice(ctx: LsmContext) -> i32 {
    priority(ctx.arg(0), 1)
}

/// `task_setioprio(p, ioprio)`: block/ioprio.c.
#[lsm(hook = "task_setioprio")]
fn task_setioprio(ctx: LsmContext) -> i32 {
    priority(ctx.arg(0), 2)
}

/// `task_setscheduler(p)`: kernel/sched; also affinity, and a move into a cpuset.
#[lsm(hook = "task_setscheduler")]
fn task_setscheduler(ctx: LsmContext) -> i32 {
    priority(ctx.arg(0), 3)
}

/// `task_setrlimit(p, resource, new_rlim)`: kernel/sys.c.
#[lsm(hook = "task_setrlimit")]
fn task_setrlimit(ctx: LsmContext) -> i32 {
    priority(ctx.arg(0), 4)
}

/// `task_movememory(p)`: mm/mempolicy.c.
#[lsm(hook = "task_movememory")]
fn task_movememory(ctx: LsmContext) -> i32 {
    priority(ctx.arg(0), 5)
}

/// `file_send_sigiotask(tsk, fown, sig)`: fs/fcntl.c, a signal that a file's activity sends (`F_SETOWN`, `F_SETSIG`).
#[lsm(hook = "file_send_sigiotask")]
fn sigio(ctx: LsmContext) -> i32 {
    priority(ctx.arg(0), 6)
}
