//! fork and exit. Bindings are inherited here, before the child runs, and end here.

use agent_monitor_ebpf::{
    Header, Kind, Source,
    config::UNATTRIBUTED_ALL,
    event::{
        ExitBody, ForkBody, NS_CGROUP, NS_IPC, NS_MNT, NS_NET, NS_PID, NS_TIME, NS_USER, NS_UTS, PrivBody,
        priv_op,
    },
    fields::ABSENT,
    loss::LossReason,
    task::{BoundBy, TaskTag},
};
use aya_ebpf::{Global, bindings::task_struct, macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::bpf::{
    emit::{begin, body, lose, send},
    globals as g,
    maps::PROCS,
    read::{Ptr, field, leader_start, pointer},
    tag::{Actor, actor, enter_proc, set_tag, tag_of},
};

/// `sched_process_fork(parent, child)`: kernel/fork.c, before `wake_up_new_task`.
#[btf_tracepoint(function = "sched_process_fork")]
fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let parent: *mut task_struct = ctx.arg(0);
    let child: *mut task_struct = ctx.arg(1);
    let slot = tag_of(parent);
    if slot.is_null() && g::UNATTRIBUTED.load() < UNATTRIBUTED_ALL {
        return 0;
    }
    let mut tag = TaskTag::NONE;
    if !slot.is_null() {
        // SAFETY: checked for null.
        tag = unsafe { *slot };
        tag.bound_by = BoundBy::Inherited as u8;
    }
    let tgid: u32 = field(child.cast_const().cast(), &g::O_TASK_TGID);
    let tid: u32 = field(child.cast_const().cast(), &g::O_TASK_PID);
    if tag.agent != 0 && !set_tag(child, &tag) {
        lose(tag.agent, Kind::Fork as u16, LossReason::TagFailed);
    }
    if tgid != tid {
        return 0;
    }
    let start = field(child.cast_const().cast(), &g::O_TASK_START);
    if tag.agent != 0 {
        enter_proc(tgid, start, &tag);
    }
    if let Ok(actor) = actor(Kind::Fork) {
        new_namespaces(&actor, parent.cast(), child.cast());
        tell_fork(&actor, tgid, start);
    }
    0
}

#[inline(always)]
fn tell_fork(actor: &Actor, child_tgid: u32, child_start: u64) {
    // SAFETY: scratch was checked for null when the actor was made.
    let new_ns = unsafe { (&raw const (*actor.scratch).new_ns).read_volatile() };
    begin(actor, Kind::Fork, Source::TpBtf);
    // SAFETY: the body belongs to the record under construction.
    unsafe { *body::<ForkBody>(actor.scratch) = ForkBody { child_start, child_tgid, new_ns } };
    send(actor, 0);
    if new_ns != 0 {
        begin(actor, Kind::PrivNamespace, Source::TpBtf);
        let b: *mut PrivBody = body(actor.scratch);
        // SAFETY: as above.
        unsafe {
            (*b).op = priv_op::CLONE_NS;
            (*b).args[0] = u64::from(new_ns);
            (*b).target_tgid = child_tgid;
            (*b).target_start = child_start;
        }
        send(actor, 0);
    }
}

/// Notes the `NS_*` bits of the namespaces that a child does not share with its parent. In memory, not in a register:
/// the verifier would follow every combination of bits.
#[inline(always)]
fn new_namespaces(actor: &Actor, parent: Ptr, child: Ptr) {
    // SAFETY: scratch was checked for null when the actor was made.
    let bits = unsafe { &raw mut (*actor.scratch).new_ns };
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe { bits.write_volatile(0) };
    if g::O_TASK_NSPROXY.load() == ABSENT || g::O_NS_NET.load() == ABSENT {
        return;
    }
    let (a, b) = (pointer(parent, &g::O_TASK_NSPROXY), pointer(child, &g::O_TASK_NSPROXY));
    if a != b {
        differs(bits, a, b, &g::O_NS_MNT, NS_MNT);
        differs(bits, a, b, &g::O_NS_UTS, NS_UTS);
        differs(bits, a, b, &g::O_NS_IPC, NS_IPC);
        differs(bits, a, b, &g::O_NS_PID, NS_PID);
        differs(bits, a, b, &g::O_NS_NET, NS_NET);
        differs(bits, a, b, &g::O_NS_CGROUP, NS_CGROUP);
        differs(bits, a, b, &g::O_NS_TIME, NS_TIME);
    }
    let (a, b) = (pointer(parent, &g::O_TASK_CRED), pointer(child, &g::O_TASK_CRED));
    differs(bits, a, b, &g::O_CRED_USERNS, NS_USER);
}

#[inline(always)]
fn differs(bits: *mut u32, a: Ptr, b: Ptr, offset: &'static Global<u32>, bit: u32) {
    if offset.load() != ABSENT && pointer(a, offset) != pointer(b, offset) {
        // SAFETY: into the scratch of the running task.
        unsafe { bits.write_volatile(bits.read_volatile() | bit) };
    }
}

/// `sched_process_exit(task)`: kernel/exit.c, in the ending task, after `signal->live` was counted down.
#[btf_tracepoint(function = "sched_process_exit")]
fn process_exit(ctx: BtfTracePointContext) -> i32 {
    let task: *mut task_struct = ctx.arg(0);
    let slot = tag_of(task);
    if slot.is_null() && g::UNATTRIBUTED.load() < UNATTRIBUTED_ALL {
        return 0;
    }
    let live: u32 = field(pointer(task.cast_const().cast(), &g::O_TASK_SIGNAL), &g::O_SIGNAL_LIVE);
    if live != 0 {
        return 0;
    }
    if let Ok(actor) = actor(Kind::Exit) {
        begin(&actor, Kind::Exit, Source::TpBtf);
        let status = field(task.cast_const().cast(), &g::O_TASK_EXIT_CODE);
        // SAFETY: the body belongs to the record under construction.
        unsafe { *body::<ExitBody>(actor.scratch) = ExitBody { status, reserved: 0 } };
        send(&actor, 0);
    }
    let tgid: u32 = field(task.cast_const().cast(), &g::O_TASK_TGID);
    // An unbound process has no entry; there is nothing to do about that.
    let _absent = PROCS.remove(&tgid);
    0
}

/// Head of a record about a task other than the running one.
#[inline(always)]
pub(crate) fn foreign_head(task: *mut task_struct, tag: &TaskTag, kind: Kind, cgroup: u64) -> Header {
    let t = task.cast_const().cast::<u8>();
    let cred = pointer(t, &g::O_TASK_CRED);
    Header {
        kind: kind as u16,
        flags: 0,
        total: 0,
        ktime: crate::bpf::read::now(),
        start: leader_start(task),
        cgroup,
        session: tag.session,
        tgid: field(t, &g::O_TASK_TGID),
        tid: field(t, &g::O_TASK_PID),
        uid: field(cred, &g::O_CRED_UID),
        gid: field(cred, &g::O_CRED_GID),
        agent: tag.agent,
        delegator: tag.delegator,
        bound_by: tag.bound_by,
        source: Source::TpBtf as u8,
        verdict: 0,
        reserved: 0,
        errno: 0,
        euid: field(cred, &g::O_CRED_EUID),
        rule: 0,
        digest: 0,
    }
}
