//! Level partial: files, UNIX sockets and privileges from `sys_exit`, where no LSM program may run.
//!
//! Only calls that succeeded are told. What a call opened is read from the descriptor it returned, so the object is
//! exact; what it named by text is told as text with the directory it starts from. `io_uring` is not seen here, 32-bit
//! calls are counted as lost.

mod calls;
mod execs;
mod paths;
mod sockets;

use agent_monitor_ebpf::{
    Kind, Source, config::RUN_POLICY, event::priv_op, loss::LossReason, policy::POLICY_ENFORCE,
};
use aya_ebpf::{helpers::generated::bpf_send_signal, macros::btf_tracepoint, programs::BtfTracePointContext};

use self::calls::{Call, call};
use super::privilege::{bind_user, start};
use crate::bpf::{
    emit::{lose, send},
    globals as g,
    judge::SIGKILL,
    maps::PROCS,
    read::{Ptr, current, field, leader_start, pointer},
    tag::{Actor, actor, enter_proc, note_ids, policy_of, runtime, set_tag, tag_of},
};

/// `TS_COMPAT`, arch/x86/include/asm/thread_info.h: the running call came through the 32-bit entry.
const TS_COMPAT: u32 = 2;

/// Requests of `ptrace`, include/uapi/linux/ptrace.h.
const PTRACE_ATTACH: u64 = 16;
const PTRACE_SEIZE: u64 = 0x4206;

/// Arguments of a finished call.
#[derive(Clone, Copy)]
pub(super) struct Args {
    pub(super) regs: Ptr,
    pub(super) ret: i64,
}

impl Args {
    /// Argument 0 to 5.
    #[inline(always)]
    pub(super) fn get(&self, n: u32) -> u64 {
        match n {
            0 => field(self.regs, &g::O_REGS_DI),
            1 => field(self.regs, &g::O_REGS_SI),
            2 => field(self.regs, &g::O_REGS_DX),
            3 => field(self.regs, &g::O_REGS_R10),
            4 => field(self.regs, &g::O_REGS_R8),
            _ => field(self.regs, &g::O_REGS_R9),
        }
    }
}

/// The open file behind a descriptor of the running task; null when there is none.
#[inline(always)]
pub(super) fn file_of(actor: &Actor, fd: u32) -> Ptr {
    let fdt = pointer(pointer(actor.task.cast_const().cast(), &g::O_TASK_FILES), &g::O_FILES_FDT);
    let max: u32 = field(fdt, &g::O_FDT_MAX);
    if fd >= max {
        return core::ptr::null();
    }
    let table = pointer(fdt, &g::O_FDT_FD);
    crate::bpf::read::value::<u64>(table.wrapping_add(fd as usize * 8)) as Ptr
}

/// `sys_exit(regs, ret)`: the end of every system call of every process; all but a few leave at the second line.
#[btf_tracepoint(function = "sys_exit")]
// Inside the program itself: one frame less on a stack that 6.1 rounds up by the frame.
#[inline(always)]
fn partial_exit(ctx: BtfTracePointContext) -> i32 {
    let args = Args { regs: ctx.arg(0), ret: ctx.arg(1) };
    let nr: u64 = field(args.regs, &g::O_REGS_ORIG_AX);
    if nr >= 512 || !calls::concerns(nr as u32) {
        return 0;
    }
    if args.ret < 0 && args.ret != -115 {
        return 0;
    }
    if calls::starts(nr as u32) {
        if args.ret == 0 {
            listed_or_ended();
        }
        return 0;
    }
    let call = call(nr as u32);
    if calls::sets_uid(nr as u32) {
        bind_user(crate::bpf::read::uid_gid().0);
    }
    let Ok(actor) = actor(call.kind()) else { return 0 };
    let status: u32 = field(actor.task.cast_const().cast(), &g::O_TASK_STATUS);
    if status & TS_COMPAT != 0 {
        lose(actor.agent(), call.kind() as u16, LossReason::CompatSyscall);
        return 0;
    }
    tell(&actor, call, &args, nr as u32);
    0
}

/// The first thing a new process does, and the first thing under a new image: the cgroup programs know a process by the
/// table of bound processes alone. One of an enforced agent that is not in it, because the table is full, ends here.
#[inline(never)]
fn listed_or_ended() {
    let task = current();
    let slot = tag_of(task);
    // SAFETY: checked for null.
    let agent = if slot.is_null() { 0 } else { unsafe { (*slot).agent } };
    let tgid = crate::bpf::read::ids().0;
    if agent == 0 || PROCS.get_ptr(&tgid).is_some() {
        return;
    }
    // SAFETY: checked for null.
    if enter_proc(tgid, leader_start(task), unsafe { &*slot }) {
        return;
    }
    let Some(runtime) = runtime() else { return };
    let enforced = policy_of(agent, runtime.generation).is_some_and(|p| p.flags & POLICY_ENFORCE != 0);
    if runtime.flags & RUN_POLICY != 0 && enforced {
        // SAFETY: no pointers. It cannot fail for the running task.
        unsafe { bpf_send_signal(SIGKILL) };
    }
}

#[inline(always)]
fn tell(actor: &Actor, call: Call, args: &Args, nr: u32) {
    match call {
        Call::Open => paths::opened(actor, args, nr),
        Call::Path(spec) => paths::named(actor, args, &spec),
        Call::Fd(spec) => paths::descriptor(actor, args, &spec),
        Call::Mmap => paths::mapped(actor, args),
        Call::Connect => {
            sockets::unix_address(actor, Kind::NetConnect, args.get(1), args.get(2) as u32, args.get(0))
        }
        Call::Send => {
            sockets::unix_address(actor, Kind::NetSend, args.get(4), args.get(5) as u32, args.get(0))
        }
        Call::Bind => {
            sockets::unix_address(actor, Kind::NetBind, args.get(1), args.get(2) as u32, args.get(0))
        }
        Call::Listen => sockets::listening(actor, args.get(0) as u32),
        Call::Accept => sockets::accepted(actor, args.ret as u32),
        Call::Numbers(kind, op) => numbers(actor, kind, op, args),
        Call::Process(kind, op, which) => process(actor, kind, op, which, args),
        Call::Ids(op) => ids(actor, op),
        Call::IoUring => lose(actor.agent(), Kind::FileOpen as u16, LossReason::IoUringUnseen),
    }
}

/// A call told by its first two arguments.
#[inline(always)]
fn numbers(actor: &Actor, kind: Kind, op: u16, args: &Args) {
    let b = start(actor, kind, op, Source::RawTp);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).args = [args.get(0), args.get(1), 0, 0] };
    send(actor, 0);
}

/// A call on another process: `which` is the argument that holds its pid, the next one a signal or nothing.
#[inline(always)]
fn process(actor: &Actor, kind: Kind, op: u16, which: u32, args: &Args) {
    let pid = args.get(which) as u32;
    let (own, _) = crate::bpf::read::ids();
    let signal = if op == priv_op::SIGNAL { args.get(calls::signal_arg(which)) } else { args.get(0) };
    if pid == own || (op == priv_op::SIGNAL && signal == 0) {
        return;
    }
    // `ptrace`: what follows an attachment is no further act on the process.
    if op == priv_op::PTRACE_ATTACH && which == 1 && signal != PTRACE_ATTACH && signal != PTRACE_SEIZE {
        return;
    }
    let b = start(actor, kind, op, Source::RawTp);
    // SAFETY: as above.
    unsafe {
        (*b).target_tgid = pid;
        if let Some(entry) = PROCS.get_ptr(&pid) {
            (*b).target_start = (*entry).start;
            (*b).target_agent = (*entry).tag.agent;
        }
        (*b).args[0] = signal;
    }
    send(actor, 0);
}

/// New ids of the running task; the old ones are those its binding remembers.
#[inline(always)]
fn ids(actor: &Actor, op: u16) {
    let cred = pointer(actor.task.cast_const().cast(), &g::O_TASK_CRED);
    let mut now = *actor.tag();
    note_ids(actor.task, &mut now);
    let old = actor.tag();
    let changed = match op {
        priv_op::UID => now.uid != old.uid || now.euid != old.euid,
        priv_op::GID => now.gid != old.gid || now.egid != old.egid,
        _ => true,
    };
    if actor.agent() != 0 {
        // Cannot fail: the slot exists.
        let _kept = set_tag(actor.task, &now);
        if !changed {
            return;
        }
    }
    let b = start(
        actor,
        if op == priv_op::CAPSET { Kind::PrivCapability } else { Kind::PrivSetuid },
        op,
        Source::RawTp,
    );
    let known = |id: u32| if actor.agent() == 0 { u64::MAX } else { u64::from(id) };
    // SAFETY: as above.
    unsafe {
        if op == priv_op::CAPSET {
            (*b).args[0] = u64::MAX;
            (*b).args[1] = u64::MAX;
        } else if op == priv_op::UID {
            (*b).args[0] = known(old.uid);
            (*b).args[1] = known(old.euid);
        } else {
            (*b).args[0] = known(old.gid);
            (*b).args[1] = known(old.egid);
        }
        if op == priv_op::CAPSET {
            (*b).args[2] = field(cred, &g::O_CRED_PERMITTED);
            (*b).args[3] = field(cred, &g::O_CRED_EFFECTIVE);
        } else if op == priv_op::UID {
            (*b).args[2] = u64::from(field::<u32>(cred, &g::O_CRED_UID));
            (*b).args[3] = u64::from(field::<u32>(cred, &g::O_CRED_EUID));
        } else {
            (*b).args[2] = u64::from(field::<u32>(cred, &g::O_CRED_GID));
            (*b).args[3] = u64::from(field::<u32>(cred, &g::O_CRED_EGID));
        }
    }
    send(actor, 0);
}
