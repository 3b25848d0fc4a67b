//! A task's working memory: the record under construction and what is kept between hooks of one exec.

use agent_monitor_ebpf::{
    Header,
    decide::Evidence,
    event::TAIL_MAX,
    path::DEPTH_MAX,
    task::{ProcEntry, TaskTag},
};

/// Room behind the tail, so that one more component of any length fits without a check in the verifier's way.
pub(crate) const TAIL_SLACK: usize = 256;
/// Bytes of a script's path that are kept from the first `bprm_check_security` to the end of the exec.
pub(crate) const SCRIPT_STASH: usize = 952;

/// A record as it goes to the ring.
#[repr(C)]
pub(crate) struct Record {
    pub(crate) head: Header,
    pub(crate) body: [u64; 14],
    pub(crate) tail: [u8; TAIL_MAX + TAIL_SLACK],
}

/// What is asked of a scope: of the agent's own, of its session's, of its grants. Numbers only, in memory: each scope is
/// asked by the same code, whose stack is short.
#[repr(C)]
pub(crate) struct Question {
    /// Address, IPv4 as `::ffff:a.b.c.d`.
    pub(crate) addr: [u8; 16],
    /// Hash of an abstract name, or cid and port of a vsock peer.
    pub(crate) hash: u64,
    /// Capabilities that would be gained.
    pub(crate) caps: u64,
    /// `s_dev` of the place.
    pub(crate) dev: u32,
    /// Components of the place.
    pub(crate) depth: u32,
    /// Where its name starts in the tail.
    pub(crate) off: u32,
    /// Bits of `ask`.
    pub(crate) asked: u32,
    /// 1 for a directory that is moved.
    pub(crate) moved_dir: u32,
    /// Number of a power.
    pub(crate) power: u32,
    /// Port.
    pub(crate) port: u16,
    /// `IPPROTO_*`.
    pub(crate) protocol: u16,
    /// A `NET_*` bit.
    pub(crate) action: u32,
}

/// What is known of the arguments that are being read.
#[repr(C)]
pub(crate) struct Args {
    /// Hash of all so far.
    pub(crate) h: u64,
    /// The same without the first `skip`.
    pub(crate) rest: u64,
    /// Where the next piece is; and where the arguments end, when they lie one behind the other.
    pub(crate) at: u64,
    pub(crate) end: u64,
    /// Where it goes in the tail.
    pub(crate) off: u32,
    pub(crate) skip: u32,
    /// How many so far were read to their ends.
    pub(crate) count: u32,
    /// `FLAG_ARGS_*` bits.
    pub(crate) flags: u32,
    /// Bytes of the last piece, without its end.
    pub(crate) len: u32,
    /// 1 when the argument goes on behind the last piece.
    pub(crate) more: u32,
    /// 1 when the end of the arguments was reached.
    pub(crate) whole: u32,
}

/// An act on a stacked file system, whose lower layers reach the same hooks: its superblock, directory and inode. Addresses
/// to compare, never trusted; 0 for an act elsewhere.
#[repr(C)]
pub(crate) struct Outer {
    pub(crate) sb: u64,
    pub(crate) dir: u64,
    pub(crate) inode: u64,
}

/// The memory. `rec` first: the verifier likes constant offsets from the start of the value.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) rec: Record,
    /// The actor's binding, with its start time filled in where the table of bound processes is written. Here and not
    /// on the stack: the stack is short, and what lies in a map the verifier need not follow.
    pub(crate) entry: ProcEntry,
    /// The binding before an exec.
    pub(crate) old: TaskTag,
    /// Whom an exec was recognised as.
    pub(crate) found_agent: u32,
    /// By what.
    pub(crate) found_by: u32,
    /// Hash of each component, leaf first.
    pub(crate) hashes: [u64; DEPTH_MAX],
    /// Length of each component, leaf first.
    pub(crate) lens: [u8; DEPTH_MAX],
    /// Path of the script of the exec in progress, as a dentry piece.
    pub(crate) script_path: [u8; SCRIPT_STASH],
    pub(crate) script_hash: u64,
    pub(crate) script_ino: u64,
    pub(crate) script_ctime_sec: i64,
    pub(crate) script_ctime_nsec: u32,
    pub(crate) reserved: u32,
    pub(crate) script_dev: u32,
    pub(crate) script_len: u32,
    pub(crate) script_depth: u32,
    pub(crate) script_flags: u32,
    /// 1 from the first check of an exec until it ends.
    pub(crate) script_seen: u32,
    /// `NS_*` bits of the fork in progress.
    pub(crate) new_ns: u32,
    /// What the tables say about the place being judged. Eight bytes aligned.
    pub(crate) evidence: Evidence,
    /// The dentry at which the last walk ended.
    pub(crate) last: u64,
    /// The end of a name, for look-ups by extension. While an address is judged: the address as the caller wrote it, then
    /// the socket's own one, halves of each in host order.
    pub(crate) ending: [u64; 8],
    /// The decision about the act in progress, 0 when nothing was judged.
    pub(crate) decision: u32,
    /// The same of the exec in progress: script and interpreter together.
    pub(crate) exec_decision: u32,
    /// What the record of that exec will say: verdict, rule and flags.
    pub(crate) exec_verdict: u32,
    pub(crate) exec_rule: u32,
    pub(crate) exec_flags: u32,
    /// 1 when a scope is in force for the actor.
    pub(crate) judged: u32,
    /// 1 when this program set is the one that tells.
    pub(crate) tells: u32,
    /// 1 when the walk did not end at the root of the superblock.
    pub(crate) adrift: u32,
    /// The question in progress.
    pub(crate) question: Question,
    /// Hash of the place that was judged last.
    pub(crate) place_hash: u64,
    /// What the act in progress is about beyond its body: hashes of its places.
    pub(crate) digest: u64,
    /// Digest of the act that the thread is held at, 0 when it is not.
    pub(crate) held: u64,
    /// When that was told last.
    pub(crate) held_told: u64,
    /// Inode whose truncation by the running `open` was permitted with the open itself.
    pub(crate) open_passed: u64,
    /// Digests of the tickets that let the files of the exec in progress pass.
    pub(crate) exec_tickets: [u64; 2],
    /// Hash of the arguments that the caller of the exec in progress gave, when people were asked; else 0.
    pub(crate) args_hash: u64,
    /// The same without the first argument.
    pub(crate) args_rest: u64,
    /// How many they were.
    pub(crate) args_count: u32,
    /// Generation of the actor's scope.
    pub(crate) generation: u32,
    /// Arguments that are being read.
    pub(crate) args: Args,
    /// What holds for the actor's agent: copied when the act begins, so that its end needs no look-up, which could miss.
    pub(crate) expires: u64,
    pub(crate) life: u32,
    pub(crate) policy_flags: u32,
    /// Policy index of the session's own scope, 0 for none.
    pub(crate) session_policy: u32,
    /// 1 when the session has ended.
    pub(crate) session_ended: u32,
    /// Bit per entry of the agent's grants that the act in progress needs.
    pub(crate) used: u32,
    /// 1 when a person's decision or grant let the act in progress pass.
    pub(crate) by_people: u32,
    /// 1 when the act in progress is part of one that people let pass: no decision and no use is needed again.
    pub(crate) covered: u32,
    /// 1 when people let the creation by the running `open` pass.
    pub(crate) create_passed: u32,
    /// 1 when the refusal need not be told again.
    pub(crate) mute: u32,
    /// How often the thread was woken at `held` without a decision.
    pub(crate) held_count: u32,
    /// Inode of the program that people let run, while its exec is in progress.
    pub(crate) exec_passed: u64,
    /// The address space that the last exec gave, where its binding is done; for each of two program sets.
    pub(crate) exec_mm: [u64; 2],
    /// The last act that was not the lower layer of another one.
    pub(crate) outer: Outer,
    /// The last lower layer, which may be a stacked file system too.
    pub(crate) layer: Outer,
}

/// Since 6.19 local storage comes from `kmalloc_nolock`, which has nothing larger than 8 KiB, the storage's own head
/// included (kernel/bpf/bpf_local_storage.c, mm/slub.c).
const _: () = assert!(size_of::<Scratch>() <= 7936);
const _: () = assert!(core::mem::offset_of!(Scratch, evidence).is_multiple_of(8));
const _: () = assert!(size_of::<Evidence>().is_multiple_of(8));

/// Hides where a number comes from. Older verifiers do not connect a bound checked in one register with a copy of the
/// number spilled earlier; after this there is only one copy.
#[inline(always)]
pub(crate) fn opaque(mut n: u64) -> u64 {
    // SAFETY: adds nothing. An empty block would leave a line number without an instruction, which 6.1 refuses.
    unsafe { core::arch::asm!("{0} += 0", inout(reg) n, options(nomem, nostack, preserves_flags)) };
    n
}

/// A zero that the verifier does not know. Up to 6.6 it walks the callback of `bpf_loop` once, with what the context holds
/// before the first step ("bpf: verify callbacks as if they are called unknown number of times", 6.7): a branch that the
/// first step cannot take is removed from the program. What a step leaves for the next ones and they test therefore begins
/// with this. `any` is a number that the verifier does not know.
#[inline(always)]
pub(crate) fn unseen_zero(any: u32) -> u32 {
    let (mut zero, any) = (0u64, u64::from(any));
    // SAFETY: arithmetic on registers.
    unsafe {
        core::arch::asm!("{0} += {1}", "{0} -= {1}", inout(reg) zero, in(reg) any, options(nomem, nostack));
    }
    zero as u32
}

/// A place in the tail with `room` bytes behind it, `None` when there is not that much.
#[inline(always)]
pub(crate) fn tail_at(scratch: *mut Scratch, off: u32, room: usize) -> Option<*mut u8> {
    let off = opaque(u64::from(off));
    if off > (TAIL_MAX + TAIL_SLACK - room) as u64 {
        return None;
    }
    // SAFETY: bounded above; the scratch is a map value.
    Some(unsafe { (&raw mut (*scratch).rec.tail).cast::<u8>().add(off as usize) })
}
