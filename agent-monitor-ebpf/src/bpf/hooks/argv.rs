//! Arguments of an exec that has not happened: read where the caller keeps them, told with the refusal, part of what a
//! person approves; and compared with what the new image really got.

use agent_monitor_ebpf::{
    Verdict,
    event::{ExecBody, PIECE_TRUNCATED, Piece, TAIL_MAX},
    header::{FLAG_ARGS_FAILED, FLAG_ARGS_TRUNCATED, FLAG_ARGS_UNREAD, FLAG_ENFORCED, FLAG_JUDGED},
    path::{HashKey, component_start, mix},
    policy::{RULE_DECIDED, decision, holds, permits, rule_of},
};
use aya_ebpf::{
    helpers::generated::{bpf_loop, bpf_probe_read_user_str, bpf_send_signal, bpf_task_pt_regs},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};

use crate::bpf::{
    emit::body,
    globals as g,
    judge::{self, SIGKILL},
    read::{Ptr, current, field, pointer, user},
    scratch::{Args, Scratch, TAIL_SLACK, tail_at},
    tag::{Actor, hash_key, scratch_of, tag_of},
    walk::text_hash,
};

/// Bytes of an argument that are read at a time: a multiple of eight, so that what follows is told right behind.
const PIECE: u32 = 248;
/// The same with the end that the helper writes.
const LENGTH: usize = PIECE as usize + 1;
/// Pieces that are read: so many arguments at the most, or 2 MB in fewer. Each argument has one piece shorter than
/// [`PIECE`], its last. An exec of more cannot be compared, and what cannot be compared is not held but refused.
const PIECES: u32 = 8192;
/// Where in the tail a piece is read that is hashed but has no room to be told: behind what a record can hold.
const SPARE: u32 = TAIL_MAX as u32;
/// The last place for a piece that is told.
const TOLD_MAX: u32 = SPARE - 256;
const _: () = assert!(LENGTH <= TAIL_SLACK && LENGTH <= 256 && PIECE.is_multiple_of(8));
/// System call `execveat` on x86-64.
const EXECVEAT: u64 = 322;

/// What the steps over arguments carry. Everything that changes is in memory, in [`Args`]: of numbers on the stack the
/// verifier follows every value through every step.
#[repr(C)]
struct Words {
    scratch: *mut Scratch,
    key: HashKey,
    /// Array of pointers, or 0 when the arguments lie one behind the other.
    list: u64,
}

unsafe extern "C" fn word_step(_i: u64, words: *mut Words) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let w = unsafe { &mut *words };
    // SAFETY: a map value; each access is one of memory.
    unsafe {
        let args = &raw mut (*w.scratch).args;
        let mut from = (&raw const (*args).at).read_volatile();
        if w.list == 0 {
            if from >= (&raw const (*args).end).read_volatile() {
                (&raw mut (*args).whole).write_volatile(1);
                return 1;
            }
        } else if (&raw const (*args).more).read_volatile() == 0 {
            let at = u64::from((&raw const (*args).count).read_volatile());
            match user::<u64>(w.list.wrapping_add(at * 8)) {
                Some(0) => {
                    (&raw mut (*args).whole).write_volatile(1);
                    return 1;
                }
                Some(pointer) => from = pointer,
                None => {
                    flag(w.scratch, FLAG_ARGS_FAILED);
                    return 1;
                }
            }
        }
        let off = (&raw const (*args).off).read_volatile();
        let told = off <= TOLD_MAX;
        let here = if told { off } else { SPARE };
        if !told {
            flag(w.scratch, FLAG_ARGS_TRUNCATED);
        }
        let Some(to) = tail_at(w.scratch, here, LENGTH) else { return 1 };
        let n = bpf_probe_read_user_str(to.cast(), LENGTH as u32, from as *const _);
        if n < 0 {
            flag(w.scratch, FLAG_ARGS_FAILED);
            return 1;
        }
        // Of user memory the helper does not count the end of a string that is empty (mm/maccess.c).
        let n = if n == 0 { 1 } else { n as u64 };
        // 1 when the piece is a whole one and its argument goes on, if only with its end.
        let more = (n + 7) >> 8 & 1;
        let len = ((n - 1) & 0xff) as u32;
        (&raw mut (*args).len).write_volatile(len);
        (&raw mut (*args).more).write_volatile(more as u32);
        (&raw mut (*args).at).write_volatile(from.wrapping_add(n - more));
        take(w.scratch, w.key, here);
        if w.list != 0 && told {
            // Names are hashed from multiples of eight.
            let len = (&raw const (*args).len).read_volatile();
            let more = (&raw const (*args).more).read_volatile();
            (&raw mut (*args).off).write_volatile(off + ((len >> 3) + 1 - more) * 8);
        }
    }
    0
}

/// Notes a `FLAG_ARGS_*` bit.
#[inline(always)]
fn flag(scratch: *mut Scratch, bit: u16) {
    // SAFETY: a map value.
    unsafe {
        let flags = &raw mut (*scratch).args.flags;
        flags.write_volatile(flags.read_volatile() | u32::from(bit));
    }
}

/// Adds the piece at `off` to the hashes. Lengths are hashed, and only a piece that is not the last of its argument is a
/// whole one: other arguments give other pieces.
#[inline(never)]
fn take(scratch: *mut Scratch, key: HashKey, off: u32) {
    // SAFETY: a map value; each access is one of memory.
    unsafe {
        let args = &raw mut (*scratch).args;
        let len = (&raw const (*args).len).read_volatile() & 0xff;
        let word = text_hash(scratch, key, off, len);
        let h = &raw mut (*args).h;
        h.write_volatile(mix(key, h.read_volatile(), word));
        let count = &raw mut (*args).count;
        if count.read_volatile() >= (&raw const (*args).skip).read_volatile() {
            let rest = &raw mut (*args).rest;
            rest.write_volatile(mix(key, rest.read_volatile(), word));
        }
        count.write_volatile(count.read_volatile() + 1 - ((&raw const (*args).more).read_volatile() & 1));
    }
}

/// Hashes the arguments from `at` to `end`, or those that the array `list` points to, which are kept in the tail from
/// `off` on.
#[inline(always)]
fn run(scratch: *mut Scratch, list: u64, (at, end): (u64, u64), off: u32, skip: u32) {
    let key = hash_key();
    let mut words = Words { scratch, key, list };
    // SAFETY: a map value; the callback has the signature bpf_loop wants and the context outlives the call.
    unsafe {
        (*scratch).args = Args {
            h: key.k0,
            rest: key.k0,
            at,
            end,
            off,
            skip,
            count: 0,
            flags: 0,
            len: 0,
            more: 0,
            whole: 0,
        };
        let step = word_step as *const () as *mut _;
        bpf_loop(PIECES, step, (&raw mut words).cast(), 0);
    }
}

/// What was not read to its end is not what anybody could approve: another thread may change the rest meanwhile. Such an
/// exec is refused where it would be held.
#[inline(never)]
fn refuse_unread(scratch: *mut Scratch) {
    // SAFETY: a map value; each access is one of memory.
    unsafe {
        let slot = &raw mut (*scratch).decision;
        let found = slot.read_volatile();
        if (&raw const (*scratch).args.whole).read_volatile() == 0 && holds(found) {
            slot.write_volatile(decision(Verdict::Deny, rule_of(found)));
            (*scratch).rec.head.flags |= FLAG_ARGS_UNREAD;
        }
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
    run(s, list, (0, 0), start, 1);
    refuse_unread(s);
    // SAFETY: as above, here and below.
    let args = unsafe { &raw const (*s).args };
    // SAFETY: a map value.
    let (h, rest, count, end, flags) = unsafe {
        (
            (&raw const (*args).h).read_volatile(),
            (&raw const (*args).rest).read_volatile(),
            (&raw const (*args).count).read_volatile(),
            (&raw const (*args).off).read_volatile(),
            (&raw const (*args).flags).read_volatile(),
        )
    };
    judge::mark(actor, h);
    let b: *mut ExecBody = body(s);
    let cut = flags & u32::from(FLAG_ARGS_TRUNCATED) != 0;
    // SAFETY: the body and head belong to the record under construction.
    unsafe {
        (*b).args_total = end.wrapping_sub(start);
        (*b).args = Piece {
            len: end.wrapping_sub(start) as u16,
            depth: 0,
            flags: if cut { PIECE_TRUNCATED } else { 0 },
        };
        (*b).filename.len += (start - off) as u16;
        (*s).rec.head.flags |= flags as u16;
        (*s).args_hash = h;
        (*s).args_rest = rest;
        (*s).args_count = count;
    }
    end
}

/// Hash of one empty argument.
#[inline(always)]
fn no_arguments() -> u64 {
    let key = hash_key();
    mix(key, key.k0, component_start(key, 0))
}

/// `sched_process_exec(task, old_pid, bprm)`: fs/exec.c. An exec that a person let pass must have got the arguments that
/// the person saw: another thread can change them between the kernel's copy and the hook. Otherwise it ends before its
/// first instruction. Attached before the program that tells the exec.
#[btf_tracepoint(function = "sched_process_exec")]
fn exec_words(ctx: BtfTracePointContext) -> i32 {
    compare(ctx.arg(2))
}

/// The same, attached once more, as `process_exec_again`: what was compared is not compared again.
#[btf_tracepoint(function = "sched_process_exec")]
fn exec_words_again(ctx: BtfTracePointContext) -> i32 {
    compare(ctx.arg(2))
}

#[inline(always)]
fn compare(bprm: Ptr) -> i32 {
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
    if seen == 0 || unsafe { (*s).exec_passed } == 0 {
        return 0;
    }
    let mm = pointer(task.cast_const().cast(), &g::O_TASK_MM);
    let (at, end): (u64, u64) = (field(mm, &g::O_MM_ARG_START), field(mm, &g::O_MM_ARG_END));
    // A script's interpreter gets arguments before the caller's own: only those behind the name are compared.
    let script = pointer(bprm, &g::O_BPRM_FILENAME) != pointer(bprm, &g::O_BPRM_INTERP);
    // SAFETY: checked for null.
    let (count, seen_rest) = unsafe { ((*s).args_count, (*s).args_rest) };
    let argc: u32 = field(bprm, &g::O_BPRM_ARGC);
    run(s, 0, (at, end), 0, if script { argc.saturating_sub(count.saturating_sub(1)) } else { 1 });
    // Where the caller gave none, the kernel gives an empty one.
    let seen = if count == 0 { no_arguments() } else { seen };
    // SAFETY: as above.
    let same = unsafe {
        (*s).args.whole != 0 && if script { (*s).args.rest == seen_rest } else { (*s).args.h == seen }
    };
    if same {
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
