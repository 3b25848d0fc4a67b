//! Holding: the thread is stopped inside the act, and the act is judged again when it goes on.

use agent_monitor_ebpf::{
    Header, Kind, Verdict,
    event::{FileBody, NetBody},
    fields::ABSENT,
    header::{FLAG_AGAIN, FLAG_ASKED, FLAG_DECIDED, FLAG_HELD},
    people::{
        DIGEST_WORDS, ERESTARTNOINTR, GRANTS, GrantEntry, HEARTBEAT_MAX, Ticket, TicketKey, USES_MAX, UseKey,
        executes, fold, restartable,
    },
    policy::{AgentKey, RULE_DECIDED},
};
use aya_ebpf::{
    bindings::task_struct,
    helpers::generated::{bpf_loop, bpf_send_signal_thread, bpf_task_pt_regs},
};

use super::EACCES;
use crate::bpf::{
    globals as g,
    hooks::layer::overridden,
    maps::{GRANT_LIVES, GRANT_USES, GRANTED, HEARTBEAT, TICKETS},
    read::{Ptr, TS_COMPAT, current, field, now},
    scratch::{Scratch, opaque},
    tag::hash_key,
};

/// Number of the signal that stops and cannot be caught.
const SIGSTOP: u32 = 19;
/// `PF_IO_WORKER`, include/linux/sched.h: a thread that `io_uring` runs for the process.
const PF_IO_WORKER: u32 = 0x10;
/// A held act that is woken without a decision more often than [`AGAIN_FREE`] is told again at the most so often,
/// nanoseconds. The daemon looks for held threads that it does not know of all the same.
const AGAIN: u64 = 1_000_000_000;
const AGAIN_FREE: u32 = 8;

/// Nobody has decided.
const OPEN: u32 = 0;
const PASS: u32 = 1;
const REFUSE: u32 = 2;

/// Whether the running system call can be run again from its start, as far as the hooks of `kind` are concerned.
#[inline(always)]
fn can_wait(task: *mut task_struct, kind: u16) -> bool {
    let t = task.cast_const().cast::<u8>();
    if g::O_TASK_STATUS.load() == ABSENT
        || field::<u32>(t, &g::O_TASK_FLAGS) & PF_IO_WORKER != 0
        || field::<u32>(t, &g::O_TASK_STATUS) & TS_COMPAT != 0
        // Not the act of the system call: io_uring's task work, a core dump.
        || overridden(task)
    {
        return false;
    }
    // SAFETY: the running task; the helper gives its saved registers.
    let regs = unsafe { bpf_task_pt_regs(task) } as Ptr;
    let nr: u64 = field(regs, &g::O_REGS_ORIG_AX);
    // An exec reaches other hooks than its own after the point of no return.
    if executes(nr) && kind != Kind::Exec as u16 {
        return false;
    }
    restartable(nr, field(regs, &g::O_REGS_DI), field(regs, &g::O_REGS_R8))
}

/// Stops the running thread on its way out of the system call, which is then run again; whether that is possible.
#[inline(never)]
pub(crate) fn stop(kind: u16) -> bool {
    let task = current();
    // SAFETY: no pointers.
    can_wait(task, kind) && unsafe { bpf_send_signal_thread(SIGSTOP) } == 0
}

/// The same for a fork, clone or vfork: nothing of the child is left when it is refused.
#[inline(always)]
pub(crate) fn stop_fork() -> bool {
    let t = current().cast_const().cast::<u8>();
    let worker = field::<u32>(t, &g::O_TASK_FLAGS) & PF_IO_WORKER != 0;
    // SAFETY: no pointers.
    !worker && unsafe { bpf_send_signal_thread(SIGSTOP) } == 0
}

/// Number of the act: of its agent, kind, body and places. A file that the open itself made is the same act when it is
/// run again and the file is there.
#[inline(always)]
fn digest(scratch: *mut Scratch) -> u64 {
    let key = hash_key();
    // SAFETY: constant bounds inside the scratch.
    unsafe {
        let head = &raw const (*scratch).rec.head;
        let mut d = fold(key, (*scratch).digest, u64::from((*head).agent) << 16 | u64::from((*head).kind));
        let words = (&raw const (*scratch).rec.body).cast::<u64>();
        let mut i = 0;
        while i < DIGEST_WORDS {
            let mut word = words.add(i).read_volatile();
            if i == core::mem::offset_of!(FileBody, how) / 8 && is_file((*head).kind) {
                word &= !(0xff << (core::mem::offset_of!(FileBody, how) % 8 * 8));
            }
            d = fold(key, d, word);
            i += 1;
        }
        d | 1
    }
}

const fn is_file(kind: u16) -> bool {
    kind >= Kind::FileOpen as u16 && kind <= Kind::FileMmapExec as u16
}

/// What tickets say of an act that cannot be held (level partial): it was refused, and a later try may pass. The head says
/// which; whether it passes now.
#[inline(never)]
pub(crate) fn asked(head: &mut Header, body: &NetBody) -> bool {
    let key = hash_key();
    let mut d = fold(key, 0, u64::from(head.agent) << 16 | u64::from(head.kind));
    let mut i = 0;
    let words = core::ptr::from_ref(body).cast::<u64>();
    while i < size_of::<NetBody>() / 8 {
        // SAFETY: inside the body.
        d = fold(key, d, unsafe { words.add(i).read() });
        i += 1;
    }
    head.digest = d | 1;
    let word = decided(core::ptr::null_mut(), head);
    if word == OPEN {
        head.flags |= FLAG_ASKED;
        return false;
    }
    head.flags |= FLAG_DECIDED;
    head.rule = head.rule & 0xffff_0000 | u32::from(RULE_DECIDED);
    head.verdict = if word == PASS { Verdict::Allow } else { Verdict::Deny } as u8;
    if word == PASS {
        head.errno = 0;
    }
    word == PASS
}

/// What a ticket says, which is gone afterwards when it was for once. The tickets of an exec are taken when it has
/// happened: until then each of its files is asked for again.
#[inline(always)]
fn by_ticket(scratch: *mut Scratch, key: &TicketKey, exec: bool) -> u32 {
    let Some(ticket) = TICKETS.get_ptr(key) else { return OPEN };
    // SAFETY: a map value.
    let Ticket { expires, pass, once } = unsafe { *ticket };
    if expires <= now() {
        return OPEN;
    }
    if once != 0 {
        if exec && !scratch.is_null() && pass != 0 && key.tgid != 0 {
            // SAFETY: checked for null by the caller.
            unsafe {
                let second = (*scratch).exec_tickets[0] != 0 && (*scratch).exec_tickets[0] != key.digest;
                if second {
                    (*scratch).exec_tickets[1] = key.digest;
                } else {
                    (*scratch).exec_tickets[0] = key.digest;
                }
            }
        } else if TICKETS.remove(key).is_err() {
            // Another thread has it.
            return OPEN;
        }
    }
    if pass != 0 { PASS } else { REFUSE }
}

#[inline(always)]
fn decided(scratch: *mut Scratch, head: &Header) -> u32 {
    let exec = head.kind == Kind::Exec as u16;
    let mut key = TicketKey { digest: head.digest, whom: head.start, tgid: head.tgid, agent: head.agent };
    let mut word = by_ticket(scratch, &key, exec);
    if word == OPEN && head.session != 0 {
        key.whom = head.session;
        key.tgid = 0;
        word = by_ticket(scratch, &key, exec);
    }
    if word == OPEN {
        key.whom = 0;
        key.tgid = 0;
        word = by_ticket(scratch, &key, exec);
    }
    word
}

/// An act that a person must decide about: 0 when it may go on, else what the hook returns. The record's head says
/// which.
#[inline(never)]
pub(super) fn hold(scratch: *mut Scratch, waits: u32) -> i32 {
    let digest = digest(scratch);
    // SAFETY: checked for null by the caller, here and below.
    let head = unsafe { &mut (*scratch).rec.head };
    head.digest = digest;
    let word = decided(scratch, head);
    if word != OPEN {
        let verdict = if word == PASS { Verdict::Allow } else { Verdict::Deny };
        head.verdict = verdict as u8;
        head.rule = head.rule & 0xffff_0000 | u32::from(RULE_DECIDED);
        head.flags |= FLAG_DECIDED;
        head.errno = if word == PASS { 0 } else { -EACCES };
        // SAFETY: as above.
        unsafe {
            (*scratch).held = 0;
            (*scratch).by_people = u32::from(word == PASS);
        }
        return if word == PASS { 0 } else { -EACCES };
    }
    // SAFETY: as above.
    if unsafe { (*scratch).tells } == 0 {
        // The program set that tells is attached as well, and holds.
        return 0;
    }
    let time = now();
    let beat = HEARTBEAT.get(0).copied().unwrap_or(0);
    if waits == 0 && time.saturating_sub(beat) > HEARTBEAT_MAX {
        // Nobody is there to ask.
        head.verdict = Verdict::Deny as u8;
        return -EACCES;
    }
    if !stop(head.kind) {
        head.flags |= FLAG_ASKED;
        return -EACCES;
    }
    head.flags |= FLAG_HELD;
    head.errno = 0;
    // SAFETY: as above.
    unsafe {
        if (*scratch).held == digest {
            head.flags |= FLAG_AGAIN;
            (*scratch).held_count += 1;
            let soon = time.saturating_sub((*scratch).held_told) < AGAIN;
            (*scratch).mute = u32::from(soon && (*scratch).held_count > AGAIN_FREE);
        } else {
            (*scratch).held_count = 0;
        }
        (*scratch).held = digest;
        if (*scratch).mute == 0 {
            (*scratch).held_told = time;
        }
    }
    -ERESTARTNOINTR
}

/// What the steps over the uses of a grant carry.
#[repr(C)]
struct Using {
    id: u64,
    got: u32,
    reserved: u32,
}

unsafe extern "C" fn use_step(i: u64, using: *mut Using) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let u = unsafe { &mut *using };
    let key = UseKey { id: u.id, number: i as u32, reserved: 0 };
    // Exactly one racer removes an entry.
    if GRANT_USES.remove(&key).is_ok() {
        u.got = 1;
        return 1;
    }
    0
}

/// What the steps over the grants in need carry.
#[repr(C)]
struct Spending {
    used: u64,
    agent: u32,
    generation: u32,
    refused: u32,
    reserved: u32,
}

unsafe extern "C" fn spend_step(i: u64, spending: *mut Spending) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let s = unsafe { &mut *spending };
    let at = opaque(i);
    if at >= GRANTS as u64 || s.used >> (at & 63) & 1 == 0 {
        return 0;
    }
    let Some(list) = GRANTED.get_ptr(&AgentKey { agent: s.agent, generation: s.generation }) else {
        s.refused = 1;
        return 1;
    };
    // SAFETY: bounded above.
    let id = unsafe { (*(&raw const (*list).entries).cast::<GrantEntry>().add(at as usize)).id };
    let Some(life) = GRANT_LIVES.get_ptr(&id) else {
        s.refused = 1;
        return 1;
    };
    // SAFETY: a map value.
    let uses = unsafe { (*life).uses };
    if uses == u32::MAX {
        return 0;
    }
    let mut u = Using { id, got: 0, reserved: 0 };
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the call.
    unsafe {
        bpf_loop(USES_MAX, use_step as *const () as *mut _, (&raw mut u).cast(), 0);
    }
    if u.got == 0 {
        s.refused = 1;
        return 1;
    }
    0
}

/// Takes one use of each grant that the act needs; false when one has none left.
#[inline(never)]
pub(super) fn spend(scratch: *mut Scratch) -> bool {
    // SAFETY: checked for null by the caller.
    let (used, agent, generation) =
        unsafe { ((*scratch).used, (*scratch).entry.tag.agent, (*scratch).generation) };
    let mut s = Spending { used: u64::from(used), agent, generation, refused: 0, reserved: 0 };
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the call.
    unsafe {
        bpf_loop(GRANTS as u32, spend_step as *const () as *mut _, (&raw mut s).cast(), 0);
        (*scratch).by_people = 1;
    }
    s.refused == 0
}

/// Takes the tickets of an exec that has happened.
#[inline(always)]
pub(crate) fn exec_done(scratch: *mut Scratch, agent: u32, tgid: u32, start: u64) {
    // SAFETY: checked for null by the caller.
    let tickets = unsafe { (*scratch).exec_tickets };
    if tickets[0] | tickets[1] == 0 {
        return;
    }
    let mut key = TicketKey { digest: tickets[0], whom: start, tgid, agent };
    // One that is not there was used up meanwhile.
    let _absent = TICKETS.remove(&key);
    key.digest = tickets[1];
    let _absent = TICKETS.remove(&key);
    // SAFETY: as above.
    unsafe { (*scratch).exec_tickets = [0; 2] };
}
