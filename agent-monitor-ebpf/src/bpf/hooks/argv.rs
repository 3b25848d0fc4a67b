//! Arguments of an exec that has not happened: read where the caller keeps them, told with the refusal, part of what a
//! person approves; and compared with what the new image really got.

use agent_monitor_ebpf::{
    Verdict,
    event::{ExecBody, PIECE_TRUNCATED, Piece},
    header::{FLAG_ARGS_FAILED, FLAG_ARGS_TRUNCATED, FLAG_ENFORCED, FLAG_JUDGED},
    path::{HashKey, mix},
    policy::{RULE_DECIDED, permits},
};
use aya_ebpf::{
    helpers::generated::{bpf_loop, bpf_probe_read_user_str, bpf_send_signal, bpf_task_pt_regs},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};

use super::file::hash_key;
use crate::bpf::{
    emit::body,
    globals as g,
    judge::{self, SIGKILL},
    read::{Ptr, current, field, pointer, user},
    scratch::{Scratch, tail_at},
    tag::{Actor, scratch_of, tag_of},
    walk::text_hash,
};

/// Arguments that are looked at; more are flagged.
const COUNT: u32 = 128;
/// Bytes of one argument that are looked at, its end included; more are flagged.
const LENGTH: usize = 256;
/// System call `execveat` on x86-64.
const EXECVEAT: u64 = 322;

/// What the steps over arguments carry.
#[repr(C)]
struct Words {
    scratch: *mut Scratch,
    key: HashKey,
    h: u64,
    /// The same without the first `skip` arguments.
    rest: u64,
    skip: u32,
    /// Array of pointers, or 0 when the arguments lie one behind the other at `at`.
    list: u64,
    at: u64,
    end: u64,
    off: u32,
    flags: u32,
    count: u32,
    reserved: u32,
}

impl Words {
    #[inline(always)]
    fn new(scratch: *mut Scratch, key: HashKey, off: u32) -> Self {
        let (h, rest) = (key.k0, key.k0);
        Words { scratch, key, h, rest, skip: 1, list: 0, at: 0, end: 0, off, flags: 0, count: 0, reserved: 0 }
    }
}

unsafe extern "C" fn word_step(i: u64, words: *mut Words) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let w = unsafe { &mut *words };
    let mut from = w.at;
    if w.list != 0 {
        match user::<u64>(w.list + i * 8) {
            Some(0) => return 1,
            Some(pointer) => from = pointer,
            None => {
                w.flags |= u32::from(FLAG_ARGS_FAILED);
                return 1;
            }
        }
    } else if from >= w.end {
        return 1;
    }
    let Some(to) = tail_at(w.scratch, w.off, LENGTH) else {
        w.flags |= u32::from(FLAG_ARGS_TRUNCATED);
        return 1;
    };
    // SAFETY: as many bytes are there.
    let n = unsafe { bpf_probe_read_user_str(to.cast(), LENGTH as u32, from as *const _) };
    if n <= 0 {
        w.flags |= u32::from(FLAG_ARGS_FAILED);
        return 1;
    }
    if n == LENGTH as i64 {
        w.flags |= u32::from(FLAG_ARGS_TRUNCATED);
        // The rest cannot be skipped without knowing its length: the comparison ends here, on both sides.
        w.end = 0;
    }
    let len = ((n - 1) & 0xff) as u32;
    let word = text_hash(w.scratch, w.key, w.off, len);
    w.h = mix(w.key, w.h, word);
    if w.count >= w.skip {
        w.rest = mix(w.key, w.rest, word);
    }
    w.count += 1;
    w.at = from + n as u64;
    // Names are hashed from multiples of eight.
    w.off = if w.list != 0 { w.off + ((len >> 3) + 1) * 8 } else { w.off };
    if w.end == 0 { 1 } else { 0 }
}

#[inline(always)]
fn run(words: &mut Words) {
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the call.
    unsafe {
        let step = word_step as *const () as *mut _;
        bpf_loop(COUNT, step, core::ptr::from_mut(words).cast(), 0);
    }
    if words.count >= COUNT {
        words.flags |= u32::from(FLAG_ARGS_TRUNCATED);
    }
}

/// Adds the arguments that the caller gave to the record of an exec that is not let through as it stands, and to what
/// makes it this exec and no other; where the tail ends.
#[inline(always)]
pub(super) fn attempted(actor: &Actor, off: u32) -> u32 {
    let s = actor.scratch;
    // SAFETY: scratch was checked for null when the actor was made.
    if permits(unsafe { (&raw const (*s).decision).read_volatile() }) {
        return off;
    }
    // SAFETY: the running task; the helper gives its saved registers.
    let regs = unsafe { bpf_task_pt_regs(actor.task) } as Ptr;
    let second = field::<u64>(regs, &g::O_REGS_ORIG_AX) == EXECVEAT;
    let list: u64 = if second { field(regs, &g::O_REGS_DX) } else { field(regs, &g::O_REGS_SI) };
    let start = (off + 7) & !7;
    let key = hash_key();
    let mut w = Words::new(s, key, start);
    (w.list, w.end) = (list, u64::MAX);
    run(&mut w);
    judge::mark(actor, w.h);
    let b: *mut ExecBody = body(s);
    let cut = w.flags & u32::from(FLAG_ARGS_TRUNCATED) != 0;
    // SAFETY: the body and head belong to the record under construction.
    unsafe {
        (*b).args = Piece {
            len: w.off.wrapping_sub(start) as u16,
            depth: 0,
            flags: if cut { PIECE_TRUNCATED } else { 0 },
        };
        (*b).args_total = w.off.wrapping_sub(start);
        (*b).filename.len += (start - off) as u16;
        (*s).rec.head.flags |= w.flags as u16;
        // What was not seen whole cannot be compared; the record says that it was cut.
        (*s).args_hash = if w.flags == 0 { w.h } else { 0 };
        (*s).args_rest = w.rest;
        (*s).args_count = w.count;
    }
    w.off
}

/// `sched_process_exec(task, old_pid, bprm)`: fs/exec.c. An exec that a person let pass must have got the arguments that
/// the person saw: another thread can change them between the kernel's copy and the hook. Otherwise it ends before its
/// first instruction. Attached before the program that tells the exec.
#[btf_tracepoint(function = "sched_process_exec")]
fn exec_words(ctx: BtfTracePointContext) -> i32 {
    let task = current();
    if tag_of(task).is_null() {
        return 0;
    }
    let s = scratch_of(task);
    if s.is_null() {
        return 0;
    }
    // SAFETY: checked for null.
    let seen = unsafe { (*s).args_hash };
    // SAFETY: as above.
    unsafe { (*s).args_hash = 0 };
    // SAFETY: as above.
    if seen == 0 || unsafe { (*s).exec_tickets[0] } == 0 {
        return 0;
    }
    let mm = pointer(task.cast_const().cast(), &g::O_TASK_MM);
    let (at, end): (u64, u64) = (field(mm, &g::O_MM_ARG_START), field(mm, &g::O_MM_ARG_END));
    let key = hash_key();
    let mut w = Words::new(s, key, 0);
    (w.at, w.end) = (at, end);
    // A script's interpreter gets arguments before the caller's own: only those behind the name are compared.
    let bprm: Ptr = ctx.arg(2);
    let script = pointer(bprm, &g::O_BPRM_FILENAME) != pointer(bprm, &g::O_BPRM_INTERP);
    // SAFETY: checked for null.
    let (count, seen_rest) = unsafe { ((*s).args_count, (*s).args_rest) };
    let argc: u32 = field(bprm, &g::O_BPRM_ARGC);
    w.skip = if script { argc.saturating_sub(count.saturating_sub(1)) } else { 1 };
    run(&mut w);
    if if script { w.rest == seen_rest } else { w.h == seen } {
        return 0;
    }
    // SAFETY: as above; no pointers for the signal, which cannot fail for the running task.
    unsafe {
        (*s).exec_verdict = Verdict::Kill as u32;
        (*s).exec_rule = (*s).exec_rule & 0xffff_0000 | u32::from(RULE_DECIDED);
        (*s).exec_flags = u32::from(FLAG_JUDGED | FLAG_ENFORCED);
        bpf_send_signal(SIGKILL);
    }
    0
}
