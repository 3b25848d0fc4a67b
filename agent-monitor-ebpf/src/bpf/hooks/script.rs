//! The script of an exec: the file that an interpreter runs, shown before the interpreter takes its place.

use agent_monitor_ebpf::{
    bind::AS_SCRIPT,
    event::{ExecBody, PIECE_TRUNCATED, Piece},
    path::{HashKey, TEXT_MAX},
};
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};

use crate::bpf::{
    emit::body,
    globals as g,
    read::{Ptr, current, dentry_id, field, pointer, value},
    recognise::{Facts, Place, by_place, by_text},
    scratch::{SCRIPT_STASH, Scratch, tail_at},
    tag::{runtime, scratch_if_any, scratch_of},
    walk::{fold, text_hash_at, walk},
};

/// `ELFMAG`, include/uapi/linux/elf.h, as a little-endian word.
const ELF_MAGIC: u32 = 0x464c_457f;
/// Where `e_machine` lies in an ELF header.
const ELF_MACHINE: usize = 18;
/// `EM_X86_64`, include/uapi/linux/elf-em.h.
const EM_X86_64: u16 = 62;

/// Whether the file of an exec is a program of this machine itself, which most are: such a one has no interpreter that would
/// run in its place, unless somebody has given the kernel one for it (`binfmt_misc`); then its script is known by name only.
#[inline(always)]
fn is_native(bprm: Ptr) -> bool {
    let magic: u32 = field(bprm, &g::O_BPRM_BUF);
    let machine: u16 = value(bprm.wrapping_add(g::O_BPRM_BUF.load() as usize + ELF_MACHINE));
    magic == ELF_MAGIC && machine == EM_X86_64
}

#[inline(always)]
pub(super) fn note_script(bprm: Ptr) {
    let task = current();
    // The first file of an exec is the one whose name is still the interpreter's name.
    if pointer(bprm, &g::O_BPRM_FILENAME) != pointer(bprm, &g::O_BPRM_INTERP) {
        return;
    }
    if is_native(bprm) {
        // Nobody's script. What an earlier exec of the task left must not be taken for this one's.
        let scratch = scratch_if_any(task);
        if !scratch.is_null() {
            // SAFETY: checked for null.
            unsafe {
                (*scratch).script_seen = 0;
                (*scratch).exec_verdict = 0;
                (*scratch).exec_rule = 0;
                (*scratch).exec_flags = 0;
            }
        }
        return;
    }
    let scratch = scratch_of(task);
    let Some(runtime) = runtime() else { return };
    if scratch.is_null() {
        return;
    }
    let dentry = pointer(pointer(bprm, &g::O_BPRM_FILE), &g::O_FILE_DENTRY);
    let key = HashKey { k0: runtime.k0, k1: runtime.k1 };
    let walked = walk(scratch, dentry, 0);
    let hash = fold(scratch, key, walked.depth);
    let (dev, ino) = dentry_id(dentry);
    let inode = pointer(dentry, &g::O_DENTRY_INODE);
    // SAFETY: checked for null; the stash is as long as what is copied.
    unsafe {
        (*scratch).script_hash = hash;
        (*scratch).script_ino = ino;
        (*scratch).script_dev = dev;
        (*scratch).script_ctime_sec = field(inode, &g::O_INODE_CTIME_SEC);
        (*scratch).script_ctime_nsec = ctime_nsec(inode);
        (*scratch).script_depth = walked.depth;
        (*scratch).script_flags = u32::from(walked.piece.flags);
        (*scratch).script_len = u32::from(walked.piece.len);
        let from = (&raw const (*scratch).rec.tail).cast::<u64>();
        let to = (&raw mut (*scratch).script_path).cast::<u64>();
        bpf_probe_read_kernel(to.cast(), SCRIPT_STASH as u32, from.cast());
        (*scratch).script_seen = 1;
        (*scratch).exec_verdict = 0;
        (*scratch).exec_rule = 0;
        (*scratch).exec_flags = 0;
    }
}

#[inline(always)]
pub(super) fn script_found(scratch: *mut Scratch, bprm: Ptr, facts: &Facts) {
    // SAFETY: checked for null by the caller.
    unsafe {
        if (*scratch).script_seen == 1 {
            let place = Place {
                hash: (*scratch).script_hash,
                ino: (*scratch).script_ino,
                ctime_sec: (*scratch).script_ctime_sec,
                dev: (*scratch).script_dev,
                ctime_nsec: (*scratch).script_ctime_nsec,
            };
            by_place(scratch, &place, AS_SCRIPT, facts);
            return;
        }
    }
    // No LSM hook showed the file: level partial.
    // SAFETY: the tail is longer than TEXT_MAX + 1.
    let n = unsafe {
        let to = (&raw mut (*scratch).rec.tail).cast::<u8>();
        bpf_probe_read_kernel_str(to.cast(), TEXT_MAX as u32 + 1, pointer(bprm, &g::O_BPRM_FILENAME).cast())
    };
    if n > 1 {
        by_text(scratch, text_hash_at(scratch, ((n - 1) & 0xff) as u32), facts);
    }
}

/// Nanoseconds of an inode's ctime. Since 6.13 the top bit says that somebody asked for it (include/linux/fs.h
/// `I_CTIME_QUERIED`).
#[inline(always)]
pub(super) fn ctime_nsec(inode: Ptr) -> u32 {
    field::<u32>(inode, &g::O_INODE_CTIME_NSEC) & 0x3fff_ffff
}

/// The stashed script path as a piece.
#[inline(always)]
pub(super) fn script_piece(scratch: *mut Scratch, off: u32) -> u32 {
    let b: *mut ExecBody = body(scratch);
    // SAFETY: the body belongs to the record under construction; lengths are checked below.
    unsafe {
        let len = (*scratch).script_len;
        let room = tail_at(scratch, off, SCRIPT_STASH);
        let Some(to) = room.filter(|_| (*scratch).script_seen != 0 && len <= SCRIPT_STASH as u32) else {
            (*b).script = Piece { len: 0, depth: 0, flags: PIECE_TRUNCATED };
            return off;
        };
        (*b).script_ino = (*scratch).script_ino;
        (*b).script_dev = (*scratch).script_dev;
        let from = (&raw const (*scratch).script_path).cast::<u8>();
        bpf_probe_read_kernel(to.cast(), SCRIPT_STASH as u32, from.cast());
        let (depth, flags) = ((*scratch).script_depth, (*scratch).script_flags);
        (*b).script = Piece { len: len as u16, depth: depth as u8, flags: flags as u8 };
        off + len
    }
}
