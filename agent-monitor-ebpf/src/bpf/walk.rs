//! The walk from a dentry up to the root of its superblock: names for the record, one hash per component for rules.
//!
//! Mounts, bind mounts and `chroot` are not on the way: a rule is about a place in a file system. Names are read without
//! `d_lock`; a rename during the walk gives a path that was true in part, as for any observer.

use agent_monitor_ebpf::{
    event::{PIECE_ANON, PIECE_DELETED, PIECE_DENTRY, PIECE_FAILED, PIECE_TRUNCATED, Piece, TAIL_MAX},
    fields::ABSENT,
    path::{DEPTH_MAX, HashKey, component_start, mix, root_hash},
};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel_str};

use super::{
    globals as g,
    read::{Ptr, field, pointer},
    scratch::{Scratch, tail_at},
    tag::hash_key,
};

/// What the callback carries from step to step.
#[repr(C)]
struct Walk {
    scratch: *mut Scratch,
    dentry: Ptr,
    key: HashKey,
    off: u32,
    depth: u32,
    flags: u32,
    done: u32,
}

/// What the inner callback carries: the words of one long name.
#[repr(C)]
struct Words {
    scratch: *mut Scratch,
    key: HashKey,
    h: u64,
    off: u32,
    len: u32,
}

/// One finished walk.
pub(crate) struct Walked {
    /// For the record's body.
    pub(crate) piece: Piece,
    /// Where the tail ends now.
    pub(crate) end: u32,
    /// Components.
    pub(crate) depth: u32,
}

/// Word `at` of the name at `off`, with what lies behind the name's end zeroed.
#[inline(always)]
fn word(scratch: *mut Scratch, off: u32, len: u32, at: u32) -> u64 {
    let Some(place) = tail_at(scratch, (off + at) & !7, 8) else { return 0 };
    // SAFETY: eight bytes are there; names start at multiples of 8.
    let raw = unsafe { *place.cast::<u64>() };
    let left = len - at;
    if left < 8 { raw & ((1u64 << (left * 8)) - 1) } else { raw }
}

unsafe extern "C" fn hash_word(i: u64, words: *mut Words) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let w = unsafe { &mut *words };
    let at = ((i as u32) & 31) * 8 + 32;
    if at >= w.len {
        return 1;
    }
    w.h = mix(w.key, w.h, word(w.scratch, w.off, w.len, at));
    0
}

/// Hash of the name of `len` bytes at `off` in the tail.
#[inline(always)]
fn name_hash(scratch: *mut Scratch, key: HashKey, off: u32, len: u32) -> u64 {
    let mut h = component_start(key, len as usize);
    // Nearly all names end within four words; the callback costs more than these.
    if len > 0 {
        h = mix(key, h, word(scratch, off, len, 0));
    }
    if len > 8 {
        h = mix(key, h, word(scratch, off, len, 8));
    }
    if len > 16 {
        h = mix(key, h, word(scratch, off, len, 16));
    }
    if len > 24 {
        h = mix(key, h, word(scratch, off, len, 24));
    }
    if len > 32 {
        let mut words = Words { scratch, key, h, off, len };
        // SAFETY: the callback has the signature bpf_loop wants and the context outlives the call.
        unsafe {
            bpf_loop(28, hash_word as *const () as *mut _, (&raw mut words).cast(), 0);
        }
        h = words.h;
    }
    h
}

/// Reads the name of a dentry to `off`; its length, or -1.
#[inline(always)]
fn read_name(scratch: *mut Scratch, off: u32, dentry: Ptr) -> i64 {
    let name = pointer(dentry, &g::O_DENTRY_NAME);
    let Some(to) = tail_at(scratch, off, 256) else { return -1 };
    // SAFETY: 256 bytes are there.
    let n = unsafe { bpf_probe_read_kernel_str(to.cast(), 256, name.cast()) };
    if n <= 0 { -1 } else { (n - 1) & 0xff }
}

unsafe extern "C" fn step(_i: u64, walk: *mut Walk) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let w = unsafe { &mut *walk };
    let parent = pointer(w.dentry, &g::O_DENTRY_PARENT);
    if parent == w.dentry {
        w.done = 1;
        return 1;
    }
    let off = w.off;
    if off >= TAIL_MAX as u32 || w.depth >= DEPTH_MAX as u32 || parent.is_null() {
        w.flags |= u32::from(if parent.is_null() { PIECE_FAILED } else { PIECE_TRUNCATED });
        w.done = 1;
        return 1;
    }
    let len = read_name(w.scratch, off, w.dentry);
    if len < 0 {
        w.flags |= u32::from(PIECE_FAILED);
        w.done = 1;
        return 1;
    }
    let len = (len & 0xff) as u32;
    let h = name_hash(w.scratch, w.key, off, len);
    // SAFETY: masked index.
    unsafe {
        (*w.scratch).hashes[(w.depth as usize) & (DEPTH_MAX - 1)] = h;
        (*w.scratch).lens[(w.depth as usize) & (DEPTH_MAX - 1)] = len as u8;
    }
    w.depth += 1;
    w.off = off + ((len >> 3) + 1) * 8;
    w.dentry = parent;
    0
}

/// Walks up from `dentry`, writing names from `off` in the tail of the record.
#[inline(always)]
pub(crate) fn walk(scratch: *mut Scratch, dentry: Ptr, off: u32) -> Walked {
    // The verifier gives a pointer that it knows to no global function as a number. Through memory it forgets it.
    // SAFETY: checked for null by the caller.
    let word = unsafe {
        (&raw mut (*scratch).last).write_volatile(dentry as u64);
        walk_up(scratch, off)
    };
    let len = word as u16;
    Walked {
        piece: Piece { len, depth: (word >> 16) as u8, flags: (word >> 24) as u8 },
        end: (word >> 32) as u32,
        depth: (word >> 16) as u32 & 0xff,
    }
}

/// [`walk`] from the dentry in [`Scratch::last`]: where the tail ends in the upper half, below it flags, depth and length of
/// the piece. A global function, which the verifier walks once for a program, and whose result is one number to it.
///
/// # Safety
/// `scratch` is null or the running task's.
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn walk_up(scratch: *mut Scratch, off: u32) -> u64 {
    let failed = u64::from(off) << 32 | u64::from(PIECE_DENTRY | PIECE_FAILED) << 24;
    if scratch.is_null() {
        return failed;
    }
    // SAFETY: checked for null.
    let dentry = unsafe { (&raw const (*scratch).last).read_volatile() } as Ptr;
    if dentry.is_null() {
        return failed;
    }
    let mut w =
        Walk { scratch, dentry, key: hash_key(), off, depth: 0, flags: u32::from(PIECE_DENTRY), done: 0 };
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the call.
    unsafe {
        bpf_loop(DEPTH_MAX as u32 + 1, step as *const () as *mut _, (&raw mut w).cast(), 0);
    }
    let root = pointer(pointer(dentry, &g::O_DENTRY_SB), &g::O_SB_ROOT);
    // A file opened by handle may hang in no tree at all.
    // Without a branch: it would double what the verifier walks from here.
    // SAFETY: into the scratch.
    unsafe { (&raw mut (*scratch).last).write_volatile(w.dentry as u64) };
    let apart = w.dentry as u64 ^ root as u64;
    // SAFETY: into the scratch.
    unsafe { (&raw mut (*scratch).adrift).write_volatile((apart | apart >> 32) as u32) };
    if w.done == 0 {
        w.flags |= u32::from(PIECE_TRUNCATED);
    }
    if w.depth > 0 && g::O_DENTRY_PPREV.load() != ABSENT && field::<u64>(dentry, &g::O_DENTRY_PPREV) == 0 {
        w.flags |= u32::from(PIECE_DELETED);
    }
    if w.depth == 0 && w.off < TAIL_MAX as u32 {
        name_anonymous(&mut w, dentry);
    }
    let len = w.off.wrapping_sub(off);
    u64::from(w.off) << 32
        | u64::from(w.flags & 0xff) << 24
        | u64::from(w.depth & 0xff) << 16
        | u64::from(len & 0xffff)
}

/// A dentry that is its own root is the root of its file system, or something without a place: then it gets its name.
#[inline(always)]
fn name_anonymous(w: &mut Walk, dentry: Ptr) {
    let root = pointer(pointer(dentry, &g::O_DENTRY_SB), &g::O_SB_ROOT);
    if root == dentry {
        return;
    }
    let off = w.off;
    if off >= TAIL_MAX as u32 {
        return;
    }
    let len = read_name(w.scratch, off, dentry);
    if len >= 0 {
        w.flags |= u32::from(PIECE_ANON);
        w.depth = 1;
        w.off = off + (((len & 0xff) as u32 >> 3) + 1) * 8;
    }
}

/// What the folding callback carries.
#[repr(C)]
struct Fold {
    scratch: *mut Scratch,
    key: HashKey,
    h: u64,
    depth: u32,
    reserved: u32,
}

unsafe extern "C" fn fold_step(i: u64, fold: *mut Fold) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let f = unsafe { &mut *fold };
    let index = f.depth.wrapping_sub(1).wrapping_sub(i as u32) as usize & (DEPTH_MAX - 1);
    // SAFETY: masked index.
    f.h = mix(f.key, f.h, unsafe { (*f.scratch).hashes[index] });
    0
}

/// Hash of the whole path that was walked last.
#[inline(always)]
pub(crate) fn fold(scratch: *mut Scratch, key: HashKey, depth: u32) -> u64 {
    let mut f = Fold { scratch, key, h: root_hash(key), depth, reserved: 0 };
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the call.
    unsafe {
        bpf_loop(depth & 127, fold_step as *const () as *mut _, (&raw mut f).cast(), 0);
    }
    f.h
}

/// Hash of the flat text of `len` bytes at the start of the tail.
#[inline(always)]
pub(crate) fn text_hash_at(scratch: *mut Scratch, len: u32) -> u64 {
    // SAFETY: checked for null by the caller.
    unsafe { hash_text(scratch, len) }
}

/// Hash of the flat text of `len` bytes at `off` in the tail, a multiple of 8.
#[inline(always)]
pub(crate) fn text_hash(scratch: *mut Scratch, key: HashKey, off: u32, len: u32) -> u64 {
    name_hash(scratch, key, off, len)
}

/// A global function, which the verifier walks once for a program.
///
/// # Safety
/// `scratch` is null or the running task's.
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn hash_text(scratch: *mut Scratch, len: u32) -> u64 {
    if scratch.is_null() { 0 } else { name_hash(scratch, hash_key(), 0, len & 0xff) }
}

/// Hash of the `len` bytes at `from`, a map value of at least 64 bytes, as of one component.
#[inline(always)]
pub(crate) fn text_hash_of(from: *const u8, key: HashKey, len: u32) -> u64 {
    let mut h = component_start(key, len as usize);
    let mut at = 0;
    while at < 8 {
        if len > at * 8 {
            // SAFETY: constant offsets below 64.
            let raw = unsafe { *from.add(at as usize * 8).cast::<u64>() };
            let left = len - at * 8;
            h = mix(key, h, if left < 8 { raw & ((1u64 << (left * 8)) - 1) } else { raw });
        }
        at += 1;
    }
    h
}

/// A kernel string of up to 256 bytes as a text piece.
#[inline(always)]
pub(crate) fn kernel_text(scratch: *mut Scratch, off: u32, at: Ptr) -> (Piece, u32) {
    let Some(to) = tail_at(scratch, off, 256) else {
        return (Piece { len: 0, depth: 0, flags: PIECE_TRUNCATED }, off);
    };
    // SAFETY: 256 bytes are there.
    let n = unsafe { bpf_probe_read_kernel_str(to.cast(), 256, at.cast()) };
    if n <= 0 {
        return (Piece { len: 0, depth: 0, flags: PIECE_FAILED }, off);
    }
    let len = (n & 0x1ff) as u32;
    let flags = if len == 256 { PIECE_TRUNCATED } else { 0 };
    (Piece { len: len as u16, depth: 0, flags }, off + len)
}
