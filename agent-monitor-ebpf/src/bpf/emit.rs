//! Telling: the only users of the rings, and the count of what could not be told.

use agent_monitor_ebpf::{
    BODY_LEN, HEADER_LEN, Header, Kind, Source,
    event::TAIL_MAX,
    loss::{LossKey, LossReason, LossValue, OVERFLOW_LOSS},
};
use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_NO_WAKEUP},
    helpers::generated::bpf_ringbuf_output,
};

use super::{
    globals as g,
    maps::{EVENTS, LOSSES, OVERFLOW, PRIORITY},
    read::{cgroup_id, field, ids, leader_start, now, pointer, uid_gid},
    scratch::{Scratch, opaque},
    tag::Actor,
};

/// Adds to a counter that several CPUs share.
#[inline(always)]
fn add(counter: *mut u64, n: u64) {
    // SAFETY: the pointer is into a map value, checked by the verifier; the target has no atomic type in core.
    unsafe {
        core::arch::asm!("lock *(u64 *)({p} + 0) += {v}", p = in(reg) counter, v = in(reg) n);
    }
}

/// Counts something that could not be told or kept.
#[inline(never)]
pub(crate) fn lose(agent: u32, kind: u16, reason: LossReason) {
    let key = LossKey { agent, kind, reason: reason as u16 };
    let t = now();
    if let Some(slot) = LOSSES.get_ptr_mut(&key) {
        // SAFETY: a map value.
        unsafe { (*slot).last = t };
        add(slot.cast(), 1);
        return;
    }
    let fresh = LossValue { count: 0, first: t, last: t };
    // A racing CPU may have made it: what counts is that it is there afterwards.
    let _raced = LOSSES.insert(&key, &fresh, 1);
    if let Some(slot) = LOSSES.get_ptr_mut(&key) {
        add(slot.cast(), 1);
    } else if let Some(slot) = OVERFLOW.get_ptr_mut(OVERFLOW_LOSS) {
        add(slot, 1);
    }
}

/// Writes the head of a record of the running task.
#[inline(always)]
pub(crate) fn fill_head(to: *mut Header, actor: &Actor, kind: Kind, source: Source) {
    let (tgid, tid) = ids();
    let (uid, gid) = uid_gid();
    let tag = actor.tag();
    let cred = pointer(actor.task.cast(), &g::O_TASK_CRED);
    // SAFETY: into a map value, field by field: a head on the stack would be a seventh of it.
    unsafe {
        (*to).kind = kind as u16;
        (*to).flags = 0;
        (*to).total = 0;
        (*to).ktime = now();
        (*to).start = leader_start(actor.task);
        (*to).cgroup = cgroup_id();
        (*to).session = tag.session;
        (*to).tgid = tgid;
        (*to).tid = tid;
        (*to).uid = uid;
        (*to).gid = gid;
        (*to).agent = tag.agent;
        (*to).delegator = tag.delegator;
        (*to).bound_by = tag.bound_by;
        (*to).source = source as u8;
        (*to).verdict = 0;
        (*to).reserved = 0;
        (*to).errno = 0;
        (*to).euid = field(cred, &g::O_CRED_EUID);
        (*to).rule = 0;
        (*to).digest = 0;
    }
}

/// Starts a record in the actor's scratch: head written, body zeroed.
#[inline(always)]
pub(crate) fn begin(actor: &Actor, kind: Kind, source: Source) {
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe {
        fill_head(&raw mut (*actor.scratch).rec.head, actor, kind, source);
        zero(&raw mut (*actor.scratch).rec.body);
    }
}

/// Zeroes a body word by word: `memset` of this target goes byte by byte, in a loop that the verifier walks.
#[inline(always)]
pub(crate) fn zero(body: *mut [u64; 14]) {
    let words = body.cast::<u64>();
    let mut i = 0;
    while i < 14 {
        // SAFETY: inside the body.
        unsafe { words.add(i).write_volatile(0) };
        i += 1;
    }
}

/// The body of the record under construction as a contract type.
#[inline(always)]
pub(crate) fn body<T>(scratch: *mut Scratch) -> *mut T {
    // SAFETY: no read; every body fits, by the assertions in the contract.
    unsafe { (&raw mut (*scratch).rec.body).cast() }
}

/// Sends the record under construction with `tail` bytes of tail, when this program set is the one that tells.
#[inline(always)]
pub(crate) fn send(actor: &Actor, tail: u32) {
    // SAFETY: scratch was checked for null when the actor was made. The result says nothing.
    unsafe { act_send(actor.scratch, tail) };
}

/// A global function, which the verifier walks once for a program; those return numbers.
///
/// # Safety
/// `scratch` is null or the running task's.
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn act_send(scratch: *mut Scratch, tail: u32) -> u32 {
    if !scratch.is_null() {
        send_own(scratch, tail);
    }
    0
}

/// The same inside a global function.
#[inline(always)]
pub(crate) fn send_own(scratch: *mut Scratch, tail: u32) {
    // SAFETY: checked for null by the caller.
    if unsafe { (*scratch).tells } != 0 {
        send_checked(scratch, tail);
    }
}

/// The same for a caller that has made sure that it is to be told.
#[inline(always)]
pub(crate) fn send_checked(scratch: *mut Scratch, tail: u32) {
    let flags = wake_flags();
    let total = total(scratch, tail);
    // SAFETY: scratch is a map value of more than `total` bytes.
    let failed = unsafe {
        let record = (&raw mut (*scratch).rec).cast();
        bpf_ringbuf_output((&raw const EVENTS).cast_mut().cast(), record, total, flags)
    };
    count_failure(scratch, failed);
}

/// Sends what a scope refuses: through the ring that ordinary records cannot fill, and the reader is woken.
#[inline(always)]
pub(crate) fn send_urgent(scratch: *mut Scratch, tail: u32) {
    // SAFETY: checked for null by the caller.
    if unsafe { (*scratch).tells } == 0 {
        return;
    }
    let total = total(scratch, tail);
    // SAFETY: scratch is a map value of more than `total` bytes.
    let failed = unsafe {
        let record = (&raw mut (*scratch).rec).cast();
        bpf_ringbuf_output((&raw const PRIORITY).cast_mut().cast(), record, total, 0)
    };
    count_failure(scratch, failed);
}

/// Writes and gives the length of the record. Bounded last, in the register that the helper gets: 6.1 forgets the bounds
/// of a number that is spilled in between.
#[inline(always)]
fn total(scratch: *mut Scratch, tail: u32) -> u64 {
    let most = (HEADER_LEN + BODY_LEN + TAIL_MAX) as u64;
    let total = opaque(u64::from((HEADER_LEN + BODY_LEN) as u32 + tail));
    let total = if total > most { most } else { total };
    // SAFETY: checked for null by the caller.
    unsafe { (*scratch).rec.head.total = total as u32 };
    total
}

#[inline(always)]
fn count_failure(scratch: *mut Scratch, failed: i64) {
    if failed != 0 {
        // SAFETY: checked for null by the caller.
        let (agent, kind) = unsafe { ((*scratch).rec.head.agent, (*scratch).rec.head.kind) };
        lose(agent, kind, LossReason::RingFull);
    }
}

/// Wake-ups cost more than records: the reader polls, and is woken only when the ring fills.
#[inline(always)]
pub(crate) fn wake_flags() -> u64 {
    if EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) < u64::from(g::WAKE_BYTES.load()) {
        u64::from(BPF_RB_NO_WAKEUP)
    } else {
        0
    }
}

/// A record without a tail, built in the ring itself: for hooks that have no task of their own.
#[repr(C)]
pub(crate) struct Small<B> {
    pub(crate) head: Header,
    pub(crate) body: B,
}

/// Sends a tail-less record whose body type is padded to the contract's size.
#[inline(always)]
pub(crate) fn send_small<B: Copy + 'static>(head: &Header, body: &B, priority: bool) {
    let ring = if priority { &PRIORITY } else { &EVENTS };
    let Some(mut entry) = ring.reserve::<Small<[u64; 14]>>(0) else {
        lose(head.agent, head.kind, LossReason::RingFull);
        return;
    };
    let slot = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as the type; the body type is no larger than 112 bytes, by the contract.
    unsafe {
        (*slot).head = *head;
        (*slot).head.total = (HEADER_LEN + BODY_LEN) as u32;
        zero(&raw mut (*slot).body);
        *(&raw mut (*slot).body).cast::<B>() = *body;
    }
    entry.submit(if priority { 0 } else { wake_flags() });
}
