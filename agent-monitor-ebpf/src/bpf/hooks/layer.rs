//! Stacked file systems: the lower layer of an act that was judged on the upper one.
//!
//! overlayfs calls the same hooks again for the files of its layers, with the credentials of whoever mounted it. Those
//! acts have been judged, at the place where the process sees the file. They are exempt by proof only: credentials that
//! differ from the task's own say nothing, because `io_uring` (a registered personality: in the submitting call, in a
//! worker, or as task work at the end of any system call), core dumps, `binfmt_misc`, firmware loading and process
//! accounting override them too (`override_creds`, kernel/cred.c; the callers are listed in
//! `tests/golden/hooks/override_creds.txt`). What counts as proof:
//!
//! - the credentials in use are those that an overlay superblock holds (`ovl_fs.creator_cred`), and nothing but overlayfs
//!   ever uses them: they are a copy made at mount;
//! - or, where overlayfs makes a file with credentials made for that one file, the task holds the lock of the overlay
//!   inode that the act in progress is on, exclusively: it is inside that act.

use aya_ebpf::{
    bindings::task_struct,
    helpers::generated::{bpf_loop, bpf_task_pt_regs},
};

use crate::bpf::{
    globals as g,
    read::{Ptr, current, field, pointer, value},
    scratch::{Outer, Scratch},
    tag::Actor,
};

/// `OVERLAYFS_SUPER_MAGIC`, include/uapi/linux/magic.h.
const OVERLAYFS: u64 = 0x794c_7630;
/// Words at the start of `struct ovl_fs` (fs/overlayfs/ovl_entry.h) that are compared: the credentials lie at about the
/// fourteenth, and the structure is never smaller than this, so that no neighbour in memory is read.
const WORDS: u32 = 24;
/// Bits of an rwsem's owner that are not part of the task's address, kernel/locking/rwsem.c.
const OWNER_FLAGS: u64 = 7;
/// `RWSEM_READER_OWNED`, kernel/locking/rwsem.c.
const READER: u64 = 1;

/// Whether credentials are in use that are not the task's own.
#[inline(always)]
pub(crate) fn overridden(task: *const task_struct) -> bool {
    let t = task.cast::<u8>();
    pointer(t, &g::O_TASK_CRED) != pointer(t, &g::O_TASK_REAL_CRED)
}

/// Whether the act on `dentry` is the lower layer of one that was judged. Every other act is noted as the one that lower
/// layers may belong to.
#[inline(always)]
pub(crate) fn lower(actor: &Actor, dentry: Ptr) -> bool {
    // SAFETY: scratch was checked for null when the actor was made.
    let (outer, layer) = unsafe { (&raw mut (*actor.scratch).outer, &raw mut (*actor.scratch).layer) };
    if overridden(actor.task) && proven(actor.scratch) {
        note(layer, dentry);
        return true;
    }
    note(outer, dentry);
    false
}

/// Notes an act that may have lower layers; nothing where the file system has none.
#[inline(always)]
fn note(to: *mut Outer, dentry: Ptr) {
    let sb = pointer(dentry, &g::O_DENTRY_SB);
    let stacked = field::<u64>(sb, &g::O_SB_MAGIC) == OVERLAYFS;
    let parent = pointer(dentry, &g::O_DENTRY_PARENT);
    let (dir, inode) = (pointer(parent, &g::O_DENTRY_INODE), pointer(dentry, &g::O_DENTRY_INODE));
    // SAFETY: a map value, checked for null by the caller.
    unsafe {
        (*to).sb = if stacked { sb as u64 } else { 0 };
        (*to).dir = if stacked { dir as u64 } else { 0 };
        (*to).inode = if stacked { inode as u64 } else { 0 };
    }
}

/// Whether there is proof that the running code is below the act that was noted, or below one of that layer.
#[inline(always)]
fn proven(scratch: *mut Scratch) -> bool {
    // SAFETY: the scratch is a map value of the running task.
    unsafe { act_is_lower(scratch) != 0 }
}

/// A global function, so that the verifier walks it once for a program.
///
/// # Safety
/// `scratch` is null or the running task's.
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn act_is_lower(scratch: *mut Scratch) -> u32 {
    if scratch.is_null() {
        return 0;
    }
    let task = current();
    let t = task.cast_const().cast::<u8>();
    let own = task as u64;
    // SAFETY: checked for null.
    let (outer, layer) = unsafe { (&raw const (*scratch).outer, &raw const (*scratch).layer) };
    // SAFETY: as above.
    let inside = unsafe {
        locked((*outer).dir, own)
            | locked((*outer).inode, own)
            | locked((*layer).dir, own)
            | locked((*layer).inode, own)
    };
    if inside {
        return 1;
    }
    let cred = pointer(t, &g::O_TASK_CRED) as u64;
    // A path walk in progress, and the descriptor that the system call was given: whose file system it is.
    let walking = pointer(pointer(t, &g::O_TASK_NAMEIDATA), &g::O_ND_DENTRY);
    let walked = pointer(walking, &g::O_DENTRY_SB) as u64;
    let open = pointer(descriptor(task), &g::O_DENTRY_SB) as u64;
    // SAFETY: as above.
    let (noted, below) = unsafe { ((*outer).sb, (*layer).sb) };
    holds_cred(noted, cred) | holds_cred(below, cred) | holds_cred(walked, cred) | holds_cred(open, cred)
}

/// Whether the task holds the lock of an overlay inode exclusively.
#[inline(always)]
fn locked(inode: u64, task: u64) -> bool {
    let inode = inode as Ptr;
    let owner: u64 = field(inode, &g::O_INODE_OWNER);
    let magic: u64 = field(pointer(inode, &g::O_INODE_SB), &g::O_SB_MAGIC);
    magic == OVERLAYFS && owner & READER == 0 && owner & !OWNER_FLAGS == task
}

/// What the steps over the words of a superblock's data carry.
#[repr(C)]
struct Words {
    at: u64,
    cred: u64,
    found: u64,
}

unsafe extern "C" fn word_step(i: u64, words: *mut Words) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let w = unsafe { &mut *words };
    if value::<u64>((w.at as Ptr).wrapping_add((i as usize & 31) * 8)) == w.cred {
        w.found = 1;
        return 1;
    }
    0
}

/// 1 when an overlay superblock holds these credentials. A global function, as above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn holds_cred(sb: u64, cred: u64) -> u32 {
    let sb = sb as Ptr;
    let root = pointer(sb, &g::O_SB_ROOT);
    if field::<u64>(sb, &g::O_SB_MAGIC) != OVERLAYFS || pointer(root, &g::O_DENTRY_SB) != sb {
        return 0;
    }
    let mut words = Words { at: pointer(sb, &g::O_SB_INFO) as u64, cred, found: 0 };
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the call.
    unsafe {
        bpf_loop(WORDS, word_step as *const () as *mut _, (&raw mut words).cast(), 0);
    }
    words.found as u32
}

/// The dentry of the file behind the first argument of the running system call, as far as that is a descriptor.
#[inline(always)]
fn descriptor(task: *mut task_struct) -> Ptr {
    // SAFETY: the running task; the helper gives its saved registers.
    let regs = unsafe { bpf_task_pt_regs(task) } as Ptr;
    let fd = field::<u64>(regs, &g::O_REGS_DI) as u32;
    let table = pointer(pointer(task.cast_const().cast(), &g::O_TASK_FILES), &g::O_FILES_FDT);
    if fd >= field::<u32>(table, &g::O_FDT_MAX) {
        return core::ptr::null();
    }
    let file = value::<u64>(pointer(table, &g::O_FDT_FD).wrapping_add(fd as usize * 8)) as Ptr;
    pointer(file, &g::O_FILE_DENTRY)
}
