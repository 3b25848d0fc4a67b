//! Files at level partial.

use agent_monitor_ebpf::{
    Kind, Source,
    event::{
        ACCESS_CREATE, ACCESS_WRITE, FILE_CREATED, FILE_TEXT, FileBody, PIECE_FAILED, PIECE_TRUNCATED,
        PRIV_TEXT, Piece, file_op, priv_op,
    },
};
use aya_ebpf::helpers::generated::bpf_probe_read_user_str;

use super::{
    Args,
    calls::{NONE, Spec},
    file_of,
};
use crate::bpf::{
    emit::{begin, body, send},
    globals as g,
    hooks::{
        file::{first_path, tell_mmap, tell_opened},
        privilege::{path_a, start},
    },
    read::{Ptr, dentry_id, field, pointer, user},
    scratch::tail_at,
    tag::Actor,
    walk::walk,
};

const FMODE_CREATED: u32 = 0x10_0000;
const O_TRUNC: u64 = 0o1000;
const PROT_EXEC: u64 = 4;
const MAP_ANONYMOUS: u64 = 0x20;
const AT_REMOVEDIR: u64 = 0x200;
/// Bytes of one path text that are told at the most.
const TEXT: u32 = 1024;

/// `open`, `openat`, `openat2`, `creat`: the object is behind the descriptor returned.
#[inline(always)]
pub(super) fn opened(actor: &Actor, args: &Args, nr: u32) {
    let file = file_of(actor, args.ret as u32);
    if file.is_null() {
        return;
    }
    let created = field::<u32>(file, &g::O_FILE_MODE) & FMODE_CREATED != 0;
    let flags = match nr {
        2 => args.get(1),
        85 => O_TRUNC,
        257 => args.get(2),
        _ => user::<u64>(args.get(2)).unwrap_or(0),
    };
    if created || flags & O_TRUNC != 0 {
        let kind = if created { Kind::FileCreate } else { Kind::FileTruncate };
        begin(actor, kind, Source::RawTp);
        let end = first_path(actor, pointer(file, &g::O_FILE_DENTRY));
        let b: *mut FileBody = body(actor.scratch);
        // SAFETY: the body belongs to the record under construction.
        unsafe {
            (*b).access = if created { ACCESS_CREATE } else { ACCESS_WRITE };
            (*b).op = if created { file_op::REGULAR } else { file_op::PLAIN };
            (*b).how = if created { FILE_CREATED } else { 0 };
        }
        send(actor, end);
    }
    tell_opened(actor, file, Source::RawTp);
}

/// `mmap` of a file with `PROT_EXEC`.
#[inline(always)]
pub(super) fn mapped(actor: &Actor, args: &Args) {
    if args.get(2) & PROT_EXEC == 0 || args.get(3) & MAP_ANONYMOUS != 0 {
        return;
    }
    let file = file_of(actor, args.get(4) as u32);
    if !file.is_null() {
        tell_mmap(actor, file, Source::RawTp);
    }
}

/// A call on a descriptor.
#[inline(always)]
pub(super) fn descriptor(actor: &Actor, args: &Args, spec: &Spec) {
    let file = file_of(actor, args.get(0) as u32);
    if file.is_null() {
        return;
    }
    begin(actor, spec.kind, Source::RawTp);
    let end = first_path(actor, pointer(file, &g::O_FILE_DENTRY));
    values(actor, args, spec);
    let mut end = end;
    if spec.text != NONE {
        let (len, flags) = text(actor, end, args.get(u32::from(spec.text)));
        let b: *mut FileBody = body(actor.scratch);
        // SAFETY: the body belongs to the record under construction.
        unsafe { (*b).c = Piece { len: len as u16, depth: 0, flags } };
        end += len;
    }
    send(actor, end);
}

/// Operation, access and value of a file record.
#[inline(always)]
fn values(actor: &Actor, args: &Args, spec: &Spec) {
    let b: *mut FileBody = body(actor.scratch);
    let value = if spec.value == NONE { 0 } else { args.get(u32::from(spec.value)) };
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).op = spec.op;
        (*b).access = spec.access;
        (*b).new_uid = u32::MAX;
        (*b).new_gid = u32::MAX;
        if spec.kind as u16 == Kind::FileTruncate as u16 {
            (*b).size = value;
        } else if spec.op == file_op::OWNER {
            (*b).new_uid = value as u32;
            (*b).new_gid = args.get(u32::from(spec.value) + 1) as u32;
        } else if spec.kind as u16 == Kind::FileDelete as u16 && spec.value != NONE {
            (*b).op = if value & AT_REMOVEDIR != 0 { file_op::DIRECTORY } else { file_op::REGULAR };
        } else {
            (*b).mode = value as u32;
        }
    }
}

/// The descriptor in a text that starts with `/proc/self/fd/N`, and how long that start is. Programs that avoid races
/// name files so, and what the text meant is known only while the descriptor is open.
#[inline(always)]
fn proc_fd(path: u64) -> Option<(u32, u64)> {
    let head = user::<[u64; 2]>(path)?;
    // "/proc/se", then "lf/fd/" and two bytes that are looked at below.
    if head[0] != u64::from_le_bytes(*b"/proc/se") || head[1] << 16 != u64::from_le_bytes(*b"\0\0lf/fd/") {
        return None;
    }
    let mut fd = 0u32;
    let mut i = 0;
    while i < 5 {
        let c: u8 = user(path + 14 + i)?;
        i += 1;
        if c == b'/' || c == 0 {
            return Some((fd, 14 + i - u64::from(c == 0)));
        }
        if !c.is_ascii_digit() {
            return None;
        }
        fd = fd * 10 + u32::from(c - b'0');
    }
    None
}

/// The directory that a path text starts from, and where the rest of the text is.
#[inline(always)]
fn base_of(actor: &Actor, dir: u8, path: u64, args: &Args) -> (Ptr, u64) {
    let fs = pointer(actor.task.cast_const().cast(), &g::O_TASK_FS);
    if user(path).unwrap_or(0u8) == b'/' {
        if let Some((fd, skip)) = proc_fd(path) {
            let file = file_of(actor, fd);
            if !file.is_null() {
                return (pointer(file, &g::O_FILE_DENTRY), path + skip);
            }
        }
        return (pointer(fs, &g::O_FS_ROOT), path);
    }
    let fd = if dir == NONE { -100 } else { args.get(u32::from(dir)) as i32 };
    if fd < 0 {
        return (pointer(fs, &g::O_FS_PWD), path);
    }
    (pointer(file_of(actor, fd as u32), &g::O_FILE_DENTRY), path)
}

/// A text from user memory at `off`; its length with the NUL.
#[inline(always)]
fn text(actor: &Actor, off: u32, at: u64) -> (u32, u8) {
    let Some(to) = tail_at(actor.scratch, off, TEXT as usize) else { return (0, PIECE_TRUNCATED) };
    // SAFETY: as many bytes are there.
    let n = unsafe { bpf_probe_read_user_str(to.cast(), TEXT, at as *const _) };
    if n <= 0 {
        return (0, PIECE_FAILED);
    }
    let n = (n & 0x7ff) as u32;
    (n, if n == TEXT { PIECE_TRUNCATED } else { 0 })
}

/// A call that names one or two files.
#[inline(always)]
pub(super) fn named(actor: &Actor, args: &Args, spec: &Spec) {
    if spec.kind as u16 == Kind::PrivMount as u16 {
        mounted(actor, args, spec);
        return;
    }
    let path = args.get(u32::from(spec.path));
    if path == 0 {
        // `utimensat(fd, NULL, …)` and its like act on the descriptor.
        descriptor(actor, args, spec);
        return;
    }
    begin(actor, spec.kind, Source::RawTp);
    let b: *mut FileBody = body(actor.scratch);
    let (base, path) = base_of(actor, spec.dir, path, args);
    let walked = walk(actor.scratch, base, 0);
    let mut end = walked.end;
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).how = FILE_TEXT;
        (*b).a = walked.piece;
        (*b).dev = dentry_id(base).0;
    }
    let mut path_b = if spec.path_b == NONE { 0 } else { args.get(u32::from(spec.path_b)) };
    if path_b != 0 {
        let (base, rest) = base_of(actor, spec.dir_b, path_b, args);
        path_b = rest;
        let walked = walk(actor.scratch, base, end);
        end = walked.end;
        // SAFETY: as above.
        unsafe {
            (*b).b = walked.piece;
            (*b).dev_b = dentry_id(base).0;
        }
    }
    values(actor, args, spec);
    let (mut len, mut flags) = text(actor, end, path);
    let second = if spec.text == NONE { path_b } else { args.get(u32::from(spec.text)) };
    if second != 0 {
        let (more, bits) = text(actor, end + len, second);
        len += more;
        flags |= bits;
    }
    // SAFETY: as above.
    unsafe { (*b).c = Piece { len: len as u16, depth: 0, flags } };
    send(actor, end + len);
}

/// Mount calls: the base directory in `a`, the text in `b`.
#[inline(always)]
fn mounted(actor: &Actor, args: &Args, spec: &Spec) {
    let b = start(actor, Kind::PrivMount, u16::from(spec.op), Source::RawTp);
    if u16::from(spec.op) == priv_op::CHROOT {
        // The text started from a root that is gone; the new one says where it led.
        let root = pointer(pointer(actor.task.cast_const().cast(), &g::O_TASK_FS), &g::O_FS_ROOT);
        let end = path_a(actor, b, root);
        send(actor, end);
        return;
    }
    let path = args.get(u32::from(spec.path));
    let (base, path) = base_of(actor, spec.dir, path, args);
    let walked = walk(actor.scratch, base, 0);
    let (mut len, flags) = text(actor, walked.end, path);
    if spec.text != NONE {
        let kind = args.get(u32::from(spec.text));
        if kind != 0 {
            len += text(actor, walked.end + len, kind).0;
        }
    }
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).how = PRIV_TEXT;
        (*b).a = walked.piece;
        (*b).dev = dentry_id(base).0;
        (*b).b = Piece { len: len as u16, depth: 0, flags };
        (*b).args[0] = if spec.value == NONE { 0 } else { args.get(u32::from(spec.value)) };
    }
    send(actor, walked.end + len);
}
