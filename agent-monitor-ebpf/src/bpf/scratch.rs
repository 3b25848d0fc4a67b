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
pub(crate) const SCRIPT_STASH: usize = 1024;

/// A record as it goes to the ring.
#[repr(C)]
pub(crate) struct Record {
    pub(crate) head: Header,
    pub(crate) body: [u64; 14],
    pub(crate) tail: [u8; TAIL_MAX + TAIL_SLACK],
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
    /// The end of a name, for look-ups by extension.
    pub(crate) ending: [u64; 8],
    /// The decision about the act in progress, 0 when nothing was judged.
    pub(crate) decision: u32,
    /// The same of the exec in progress: script and interpreter together.
    pub(crate) exec_decision: u32,
    /// What the record of that exec will say: verdict, rule and flags.
    pub(crate) exec_verdict: u32,
    pub(crate) exec_rule: u32,
    pub(crate) exec_flags: u32,
    pub(crate) reserved2: u32,
    /// 1 when this program set is the one that tells.
    pub(crate) tells: u32,
    /// 1 when the walk did not end at the root of the superblock.
    pub(crate) adrift: u32,
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
