//! Judging: what the scope says about the act in progress, and what the hook returns.
//!
//! A hook begins a record, asks about each thing the act concerns (the strictest answer counts), and ends with
//! [`settle`], which tells the record and gives the return value. Telling never changes the verdict.

pub(crate) mod ask;
mod end;
pub(crate) mod hold;
mod place;

pub(crate) use self::end::{refusal, settle, settle_quietly};

use agent_monitor_ebpf::{
    Header, Kind, Verdict,
    event::{PIECE_ANON, PIECE_FAILED, PIECE_TRUNCATED},
    header::{FLAG_ENFORCED, FLAG_JUDGED, FLAG_TAMPER, FLAG_UNKNOWN},
    loss::LossReason,
    path::mix,
    policy::{
        POLICY_ENFORCE, RULE_ENDED, RULE_MISSING, RULE_SELF, RULE_SESSION, decision, holds, kills, permits,
        rule_of, stricter, verdict_of,
    },
};
use aya_ebpf::helpers::generated::bpf_send_signal;

use super::{
    emit::{lose, send},
    globals as g,
    read::{Ptr, dentry_id, field, pointer},
    tag::{Actor, hash_key},
    walk::Walked,
};

/// What a refused caller sees.
pub(crate) const EACCES: i32 = 13;
/// Number of the signal that cannot be caught.
pub(crate) const SIGKILL: u32 = 9;
/// `SB_NOUSER`, include/linux/fs.h: file systems that only the kernel mounts (pipes, sockets, memory files).
const SB_NOUSER: u64 = 1 << 31;

/// Adds a decision to the act's: the stricter one stays.
#[inline(always)]
pub(crate) fn note(actor: &Actor, found: u32) {
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe {
        let slot = &raw mut (*actor.scratch).decision;
        slot.write_volatile(stricter(slot.read_volatile(), found));
    }
}

/// The act is aimed at the monitor: refused whatever the scope says.
#[inline(always)]
pub(crate) fn tamper(actor: &Actor) {
    note(actor, decision(Verdict::Deny, RULE_SELF));
}

/// The scope's word about one power.
#[inline(always)]
pub(crate) fn power(actor: &Actor, power: usize) {
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe { (&raw mut (*actor.scratch).question.power).write_volatile(power as u32) };
    ask::ask::<{ ask::POWER }>(actor);
}

/// The scope's word about capabilities that the act would add.
#[inline(always)]
pub(crate) fn gained(actor: &Actor, caps: u64) {
    if caps == 0 {
        return;
    }
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe { (&raw mut (*actor.scratch).question.caps).write_volatile(caps) };
    ask::ask::<{ ask::GAINED }>(actor);
}

/// The scope's word about what cannot be judged.
#[inline(always)]
pub(crate) fn unknown(actor: &Actor) {
    if actor.policy.is_some() {
        ask::ask_own::<{ ask::UNKNOWN }>(actor);
        // SAFETY: scratch was checked for null when the actor was made.
        unsafe { (*actor.scratch).rec.head.flags |= FLAG_UNKNOWN };
    }
}

/// Adds a number to what makes the act this one and no other.
#[inline(always)]
pub(crate) fn mark(actor: &Actor, word: u64) {
    let key = hash_key();
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe {
        let digest = &raw mut (*actor.scratch).digest;
        digest.write_volatile(mix(key, digest.read_volatile(), word));
    }
}

/// Puts the question about a place that was just walked from `dentry`, its names at `off` in the tail.
#[inline(always)]
fn question(actor: &Actor, dentry: Ptr, walked: &Walked, off: u32, asked: u32, moved_dir: bool) {
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe {
        let q = &raw mut (*actor.scratch).question;
        (&raw mut (*q).dev).write_volatile(dentry_id(dentry).0);
        (&raw mut (*q).depth).write_volatile(walked.depth);
        (&raw mut (*q).off).write_volatile(off);
        (&raw mut (*q).asked).write_volatile(asked);
        (&raw mut (*q).moved_dir).write_volatile(u32::from(moved_dir));
    }
}

/// Judges the place that was just walked from `dentry`, its names at `off` in the tail.
#[inline(always)]
pub(crate) fn place(actor: &Actor, dentry: Ptr, walked: &Walked, off: u32, asked: u32, moved_dir: bool) {
    if placed(actor, dentry, walked, asked) {
        question(actor, dentry, walked, off, asked, moved_dir);
        ask::ask::<{ ask::PLACE }>(actor);
        // SAFETY: scratch was checked for null when the actor was made.
        mark(actor, unsafe { (&raw const (*actor.scratch).place_hash).read_volatile() });
    }
}

/// The same by the agent's own scope alone, for what is judged after it has happened.
#[inline(always)]
pub(crate) fn place_late(actor: &Actor, dentry: Ptr, walked: &Walked, asked: u32) {
    if placed(actor, dentry, walked, asked) {
        question(actor, dentry, walked, 0, asked, false);
        ask::ask_own::<{ ask::PLACE }>(actor);
    }
}

/// Whether there is a place to judge; otherwise that is judged.
#[inline(always)]
fn placed(actor: &Actor, dentry: Ptr, walked: &Walked, asked: u32) -> bool {
    if actor.policy.is_none() {
        return false;
    }
    let flags = walked.piece.flags;
    // SAFETY: scratch was checked for null when the actor was made.
    let adrift = unsafe { (&raw const (*actor.scratch).adrift).read_volatile() } != 0;
    if flags & (PIECE_TRUNCATED | PIECE_FAILED | PIECE_ANON) == 0 && !adrift {
        return true;
    }
    if flags & (PIECE_TRUNCATED | PIECE_FAILED) != 0 || !placeless(dentry) {
        // SAFETY: as above.
        lose(actor.agent(), unsafe { (*actor.scratch).rec.head.kind }, LossReason::PlaceUnknown);
        unknown(actor);
    } else if asked & agent_monitor_ebpf::policy::ask::EXEC != 0 {
        unknown(actor);
    }
    false
}

/// Judges further slots of the place that was judged last, as far as a person is to be asked about them.
#[inline(always)]
pub(crate) fn also_held(actor: &Actor, asked: u32) {
    if actor.policy.is_none() {
        return;
    }
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe { (&raw mut (*actor.scratch).question.asked).write_volatile(asked) };
    let found = ask::find::<{ ask::PLACE }>(actor.scratch, actor.generation);
    if holds(found) {
        note(actor, found);
    }
}

/// Whether the object lives where no path leads: pipes, sockets, memory files.
#[inline(always)]
pub(crate) fn placeless(dentry: Ptr) -> bool {
    field::<u64>(pointer(dentry, &g::O_DENTRY_SB), &g::O_SB_FLAGS) & SB_NOUSER != 0
}

/// Judges an abstract UNIX name of this hash.
#[inline(always)]
pub(crate) fn abstract_socket(actor: &Actor, hash: u64, asked: u32) {
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe {
        (&raw mut (*actor.scratch).question.hash).write_volatile(hash);
        (&raw mut (*actor.scratch).question.asked).write_volatile(asked);
    }
    mark(actor, hash);
    ask::ask::<{ ask::ABSTRACT }>(actor);
}

/// Judges a vsock peer.
#[inline(always)]
pub(crate) fn vsock(actor: &Actor, cid: u32, port: u32) {
    let hash = u64::from(cid) << 32 | u64::from(port);
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe { (&raw mut (*actor.scratch).question.hash).write_volatile(hash) };
    mark(actor, hash);
    ask::ask::<{ ask::VSOCK }>(actor);
}

/// An address as the tables hold it: IPv4, in the first four bytes of records, as `::ffff:a.b.c.d`.
#[inline(always)]
pub(crate) fn mapped(v6: bool, addr: &[u8; 16]) -> [u8; 16] {
    let mut to = *addr;
    if !v6 {
        let mut i = 0;
        while i < 4 {
            to[12 + i] = addr[i];
            to[i] = 0;
            to[4 + i] = 0;
            i += 1;
        }
        to[8] = 0;
        to[9] = 0;
        to[10] = 0xff;
        to[11] = 0xff;
    }
    to
}

/// The halves of an address in host order.
#[inline(always)]
pub(crate) fn halves(addr: &[u8; 16]) -> [u64; 2] {
    let a = addr;
    [
        u64::from_be_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]),
        u64::from_be_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]]),
    ]
}

/// Judges an internet peer or own address: `addr` as records hold it (IPv4 in the first four bytes). `own` is the socket's
/// own address in the same form, zero for none: it is where the unspecified address leads.
#[inline(always)]
pub(crate) fn inet(
    actor: &Actor,
    v6: bool,
    addr: &[u8; 16],
    own: &[u8; 16],
    port: u16,
    protocol: u16,
    action: u8,
) {
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe {
        let q = &raw mut (*actor.scratch).question;
        let own = halves(&mapped(v6, own));
        (*q).addr = mapped(v6, addr);
        let written = halves(&(*q).addr);
        let kept = &raw mut (*actor.scratch).ending;
        (*kept)[0] = written[0];
        (*kept)[1] = written[1];
        (*kept)[2] = own[0];
        (*kept)[3] = own[1];
        (*q).port = port;
        (*q).protocol = protocol;
        (*q).action = u32::from(action);
    }
    ask::ask::<{ ask::INET }>(actor);
    let mut n = 1;
    while n <= ask::ALTERNATIVES_OF_SOCKET {
        // SAFETY: as above.
        if unsafe { ask::alternative(actor.scratch, n) } != 0 {
            ask::ask_alternative(actor, action);
        }
        n += 1;
    }
}

/// The act would send packets along a route of its sender's choice, past the address that is judged.
#[inline(always)]
pub(crate) fn route(actor: &Actor) {
    ask::ask::<{ ask::ROUTE }>(actor);
}

/// Whether a decision about an agent whose scope has these `POLICY_*` bits is carried out, and not only told.
#[inline(always)]
pub(crate) fn enforced(flags: u32, found: u32) -> bool {
    flags & POLICY_ENFORCE != 0 || whatever_the_mode(found)
}

/// The monitor's own protection, an agent without a scope, and one that has ended.
#[inline(always)]
fn whatever_the_mode(found: u32) -> bool {
    let rule = rule_of(found);
    matches!(rule, RULE_SELF | RULE_MISSING | RULE_ENDED | RULE_SESSION)
}

/// Writes the decision into a record's head; whether the act is to be refused. `flags` are the scope's `POLICY_*` bits.
#[inline(always)]
pub(crate) fn stamp(head: *mut Header, flags: u32, generation: u32, found: u32, errno: i32) -> bool {
    let refuse = !permits(found) && enforced(flags, found);
    // SAFETY: the head belongs to the record under construction.
    unsafe {
        (*head).verdict = verdict_of(found);
        (*head).rule = generation << 16 | u32::from(rule_of(found));
        (*head).flags |= FLAG_JUDGED;
        if rule_of(found) == RULE_SELF {
            (*head).flags |= FLAG_TAMPER;
        }
        if enforced(flags, found) {
            (*head).flags |= FLAG_ENFORCED;
        }
        if refuse {
            (*head).errno = -errno;
        }
    }
    refuse
}

/// Ends an act that has happened already (level partial): what the scope says of it is told, and where that is `kill`
/// the process ends before it can use what it got. Told as not carried out otherwise.
#[inline(always)]
pub(crate) fn settle_late(actor: &Actor, tail: u32) {
    // SAFETY: scratch was checked for null when the actor was made.
    let found = unsafe { (&raw const (*actor.scratch).decision).read_volatile() };
    if let Some(policy) = actor.policy
        && found != 0
    {
        // SAFETY: as above.
        let head = unsafe { &mut (*actor.scratch).rec.head };
        head.verdict = verdict_of(found);
        head.rule = actor.generation << 16 | u32::from(rule_of(found));
        head.flags |= FLAG_JUDGED;
        let passed = permits(found) && policy.flags & POLICY_ENFORCE != 0;
        if passed || (kills(found) && enforced(policy.flags, found)) {
            head.flags |= FLAG_ENFORCED;
        }
        if kills(found) && enforced(policy.flags, found) {
            // SAFETY: no pointers. It cannot fail for the running task.
            unsafe { bpf_send_signal(SIGKILL) };
        }
    }
    send(actor, tail);
}

/// The kind of an act that only its refusal makes known.
#[inline(always)]
pub(crate) fn missing(kind: Kind, agent: u32) {
    lose(agent, kind as u16, LossReason::PolicyMissing);
}
