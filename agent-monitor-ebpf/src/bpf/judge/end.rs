//! The end of an act: what was decided about it is carried out and told.
//!
//! Global functions: the verifier walks each of them once for a program (kernel/bpf/verifier.c, since 5.6), however many
//! roads of a hook lead to its end. Everything they need is in the scratch; they give how much below zero the hook's
//! return value is.

use agent_monitor_ebpf::{
    Verdict,
    people::{ERESTARTNOINTR, LIFE_ACTIVE, LIFE_SUSPENDED},
    policy::{
        POLICY_ENFORCE, POLICY_HOLD_WAITS, RULE_ENDED, RULE_SESSION, decision, holds, kills, permits,
        stricter,
    },
};
use aya_ebpf::helpers::generated::bpf_send_signal;

use super::{EACCES, SIGKILL, hold, stamp};
use crate::bpf::{
    emit::{send_own, send_urgent},
    scratch::{Scratch, opaque},
    tag::Actor,
};

/// Ends the act: tells it with `tail` bytes of tail and says what the hook returns.
#[inline(always)]
pub(crate) fn settle(actor: &Actor, tail: u32) -> i32 {
    // SAFETY: scratch was checked for null when the actor was made.
    negative(unsafe { act_settle(actor.scratch, tail) })
}

/// What the hook returns when the act may not go on now, which is told with `tail` bytes of tail; 0 when it may.
#[inline(always)]
pub(crate) fn refusal(actor: &Actor, tail: u32) -> i32 {
    // SAFETY: scratch was checked for null when the actor was made.
    negative(unsafe { act_refusal(actor.scratch, tail) })
}

/// Ends an act that is told elsewhere when it happens: only a refusal is told here.
#[inline(always)]
pub(crate) fn settle_quietly(actor: &Actor, tail: u32) -> i32 {
    // SAFETY: scratch was checked for null when the actor was made.
    negative(unsafe { act_settle_quietly(actor.scratch, tail) })
}

/// A return value of a hook from its distance to zero. The verifier wants to see that it is an error number.
#[inline(always)]
fn negative(below: u32) -> i32 {
    let bounded = opaque(u64::from(below)) & 0xfff;
    let value: u64;
    // SAFETY: a subtraction. The compiler would make it a negation, whose result older verifiers do not bound.
    unsafe {
        core::arch::asm!("{0} = 0", "{0} -= {1}", out(reg) value, in(reg) bounded, options(nomem, nostack, preserves_flags));
    }
    value as i32
}

/// # Safety
/// `scratch` is null or the running task's.
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn act_settle(scratch: *mut Scratch, tail: u32) -> u32 {
    if scratch.is_null() {
        return EACCES as u32;
    }
    refuse_or_tell(scratch, tail)
}

/// # Safety
/// As [`act_settle`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn act_refusal(scratch: *mut Scratch, tail: u32) -> u32 {
    if scratch.is_null() {
        return EACCES as u32;
    }
    refuse(scratch, tail)
}

/// # Safety
/// As [`act_settle`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn act_settle_quietly(scratch: *mut Scratch, tail: u32) -> u32 {
    if scratch.is_null() {
        return EACCES as u32;
    }
    // SAFETY: checked for null.
    let found = unsafe { (&raw const (*scratch).decision).read_volatile() };
    if (found == 0 || permits(found)) && ended(scratch) == 0 {
        return 0;
    }
    refuse_or_tell(scratch, tail)
}

#[inline(always)]
fn refuse_or_tell(scratch: *mut Scratch, tail: u32) -> u32 {
    let refused = refuse(scratch, tail);
    if refused == 0 {
        send_own(scratch, tail);
    }
    refused
}

#[inline(always)]
fn refuse(scratch: *mut Scratch, tail: u32) -> u32 {
    let refused = conclude(scratch);
    // SAFETY: checked for null by the caller.
    if refused != 0 && unsafe { (&raw const (*scratch).mute).read_volatile() } == 0 {
        send_urgent(scratch, tail);
    }
    refused.unsigned_abs()
}

/// Which of the agent and its session is not in force, as a rule; 0 when both are.
#[inline(always)]
fn ended(scratch: *mut Scratch) -> u16 {
    // SAFETY: checked for null by the caller.
    let (judged, life, flags, expires, session_ended, time) = unsafe {
        let s = &*scratch;
        (s.judged, s.life, s.policy_flags, s.expires, s.session_ended, s.rec.head.ktime)
    };
    // What a clock ends is a verdict of the scope; suspending and retiring are people's acts on the agent itself.
    let enforced = flags & POLICY_ENFORCE != 0;
    if judged == 0 {
        0
    } else if life != LIFE_ACTIVE || (enforced && time >= expires) {
        RULE_ENDED
    } else if enforced && session_ended != 0 {
        RULE_SESSION
    } else {
        0
    }
}

/// Writes the decision into the record and carries it out: 0, or what the hook returns.
#[inline(always)]
fn conclude(scratch: *mut Scratch) -> i32 {
    // SAFETY: checked for null by the caller.
    let (judged, life, flags, generation, mut found) = unsafe {
        let s = &*scratch;
        (s.judged, s.life, s.policy_flags, s.generation, (&raw const s.decision).read_volatile())
    };
    if judged == 0 {
        return 0;
    }
    let over = ended(scratch);
    if over != 0 {
        // SAFETY: as above.
        let kind = unsafe { (*scratch).rec.head.kind };
        if life == LIFE_SUSPENDED && hold::stop(kind) {
            // It goes on where it stands when somebody resumes the agent.
            // SAFETY: as above.
            unsafe { (&raw mut (*scratch).mute).write_volatile(1) };
            return -ERESTARTNOINTR;
        }
        found = stricter(decision(Verdict::Deny, over), found);
    }
    if found == 0 {
        return 0;
    }
    // SAFETY: as above.
    let head = unsafe { &raw mut (*scratch).rec.head };
    if !stamp(head, flags, generation, found, EACCES) {
        return passed(scratch);
    }
    if kills(found) {
        // SAFETY: no pointers. It cannot fail for the running task; the act is refused either way.
        unsafe { bpf_send_signal(SIGKILL) };
    }
    if holds(found) {
        // SAFETY: as above.
        if unsafe { (&raw const (*scratch).covered).read_volatile() } != 0 {
            // SAFETY: as above.
            unsafe { (*head).errno = 0 };
            return 0;
        }
        return hold::hold(scratch, flags & POLICY_HOLD_WAITS);
    }
    -EACCES
}

/// The act may go on; what it needs of grants is taken.
#[inline(always)]
fn passed(scratch: *mut Scratch) -> i32 {
    // SAFETY: checked for null by the caller.
    let (used, covered) = unsafe {
        ((&raw const (*scratch).used).read_volatile(), (&raw const (*scratch).covered).read_volatile())
    };
    if used == 0 || covered != 0 || hold::spend(scratch) {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        (*scratch).rec.head.verdict = Verdict::Deny as u8;
        (*scratch).rec.head.errno = -EACCES;
    }
    -EACCES
}
