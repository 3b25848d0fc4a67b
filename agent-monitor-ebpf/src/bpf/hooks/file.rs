//! The file family at level full. Hooks sit on inodes and open files, after the ordinary permission checks, so a record
//! means that the act was about to happen, by whatever road it came (`io_uring` included).

use agent_monitor_ebpf::{
    Kind, Source,
    event::{
        ACCESS_APPEND, ACCESS_CREATE, ACCESS_DELETE, ACCESS_EXECUTE, ACCESS_PATH, ACCESS_READ, ACCESS_WRITE,
        FILE_CREATED, FileBody, file_op,
    },
    path::HashKey,
};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::bpf::{
    emit::{begin, body, send},
    globals as g,
    read::{Ptr, dentry_id, field, pointer, value},
    tag::{Actor, actor, runtime},
    walk::{kernel_text, walk},
};

const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;
/// `__FMODE_EXEC`, include/linux/fs.h: set in `f_flags` of files opened to be run.
const FMODE_EXEC: u32 = 0x20;
/// `FMODE_CREATED`, include/linux/fs.h, since 4.19.
const FMODE_CREATED: u32 = 0x10_0000;
const O_APPEND: u32 = 0o2000;
const O_PATH: u32 = 0o10_000_000;
const PROT_EXEC: u64 = 4;

const ATTR_MODE: u32 = 1;
const ATTR_UID: u32 = 2;
const ATTR_GID: u32 = 4;
const ATTR_SIZE: u32 = 8;
/// `ATTR_ATIME | ATTR_MTIME | ATTR_ATIME_SET | ATTR_MTIME_SET`.
const ATTR_TIMES: u32 = 16 | 32 | 128 | 256;

/// The secret words of the path hash.
#[inline(always)]
pub(crate) fn hash_key() -> HashKey {
    runtime().map_or(HashKey { k0: 0, k1: 1 }, |r| HashKey { k0: r.k0, k1: r.k1 })
}

/// Writes the first path of a file record; where the tail ends.
#[inline(always)]
pub(crate) fn first_path(actor: &Actor, dentry: Ptr) -> u32 {
    let walked = walk(actor.scratch, hash_key(), dentry, 0);
    let (dev, ino) = dentry_id(dentry);
    let inode = pointer(dentry, &g::O_DENTRY_INODE);
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).a = walked.piece;
        (*b).dev = dev;
        (*b).ino = ino;
        if !inode.is_null() {
            (*b).mode = u32::from(field::<u16>(inode, &g::O_INODE_MODE));
        }
        (*b).new_uid = u32::MAX;
        (*b).new_gid = u32::MAX;
    }
    walked.end
}

/// Writes the second path of a rename or link; where the tail ends.
#[inline(always)]
fn second_path(actor: &Actor, dentry: Ptr, off: u32) -> u32 {
    let walked = walk(actor.scratch, hash_key(), dentry, off);
    let (dev, ino) = dentry_id(dentry);
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: as above.
    unsafe {
        (*b).b = walked.piece;
        (*b).dev_b = dev;
        (*b).ino_b = ino;
    }
    walked.end
}

/// Sends a record about one dentry.
#[inline(always)]
fn tell(kind: Kind, dentry: Ptr, op: u8, access: u16) {
    let Some(actor) = actor(kind) else { return };
    begin(&actor, kind, Source::Lsm);
    let end = first_path(&actor, dentry);
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: as above.
    unsafe {
        (*b).op = op;
        (*b).access = access;
    }
    send(&actor, end);
}

/// Sends a record about one dentry with a text: an attribute's name, what a symbolic link says.
#[inline(always)]
fn tell_named(kind: Kind, dentry: Ptr, op: u8, access: u16, text: Ptr) {
    let Some(actor) = actor(kind) else { return };
    begin(&actor, kind, Source::Lsm);
    let end = first_path(&actor, dentry);
    let (piece, end) = kernel_text(actor.scratch, end, text);
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: as above.
    unsafe {
        (*b).op = op;
        (*b).access = access;
        (*b).c = piece;
    }
    send(&actor, end);
}

/// Access bits of an open file.
#[inline(always)]
pub(crate) fn open_access(flags: u32, mode: u32) -> u16 {
    let mut access = 0;
    if flags & FMODE_EXEC != 0 {
        access |= ACCESS_EXECUTE;
    } else if mode & FMODE_READ != 0 {
        access |= ACCESS_READ;
    }
    if mode & FMODE_WRITE != 0 {
        access |= ACCESS_WRITE;
    }
    if flags & O_APPEND != 0 {
        access |= ACCESS_APPEND;
    }
    if flags & O_PATH != 0 {
        access = ACCESS_PATH;
    }
    access
}

/// Fills and sends a `file.open` record for an open file.
#[inline(always)]
pub(crate) fn tell_open(actor: &Actor, file: Ptr, source: Source) {
    begin(actor, Kind::FileOpen, source);
    let end = first_path(actor, pointer(file, &g::O_FILE_DENTRY));
    let flags: u32 = field(file, &g::O_FILE_FLAGS);
    let mode: u32 = field(file, &g::O_FILE_MODE);
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).raw_flags = flags;
        (*b).access = open_access(flags, mode);
        if mode & FMODE_CREATED != 0 {
            (*b).how |= FILE_CREATED;
        }
    }
    send(actor, end);
}

/// `file_open(file)`: fs/open.c `do_dentry_open`.
#[lsm(hook = "file_open")]
fn file_open(ctx: LsmContext) -> i32 {
    if let Some(actor) = actor(Kind::FileOpen) {
        tell_open(&actor, ctx.arg(0), Source::Lsm);
    }
    0
}

/// `inode_create(dir, dentry, mode)`: fs/namei.c.
#[lsm(hook = "inode_create")]
fn inode_create(ctx: LsmContext) -> i32 {
    tell(Kind::FileCreate, ctx.arg(1), file_op::REGULAR, ACCESS_CREATE);
    0
}

/// `inode_mkdir(dir, dentry, mode)`: fs/namei.c.
#[lsm(hook = "inode_mkdir")]
fn inode_mkdir(ctx: LsmContext) -> i32 {
    tell(Kind::FileCreate, ctx.arg(1), file_op::DIRECTORY, ACCESS_CREATE);
    0
}

/// `inode_mknod(dir, dentry, mode, dev)`: fs/namei.c.
#[lsm(hook = "inode_mknod")]
fn inode_mknod(ctx: LsmContext) -> i32 {
    tell(Kind::FileCreate, ctx.arg(1), file_op::NODE, ACCESS_CREATE);
    0
}

/// `inode_symlink(dir, dentry, old_name)`: fs/namei.c.
#[lsm(hook = "inode_symlink")]
fn inode_symlink(ctx: LsmContext) -> i32 {
    tell_named(Kind::FileCreate, ctx.arg(1), file_op::SYMLINK, ACCESS_CREATE, ctx.arg(2));
    0
}

/// `inode_unlink(dir, dentry)`: fs/namei.c.
#[lsm(hook = "inode_unlink")]
fn inode_unlink(ctx: LsmContext) -> i32 {
    tell(Kind::FileDelete, ctx.arg(1), file_op::REGULAR, ACCESS_DELETE);
    0
}

/// `inode_rmdir(dir, dentry)`: fs/namei.c.
#[lsm(hook = "inode_rmdir")]
fn inode_rmdir(ctx: LsmContext) -> i32 {
    tell(Kind::FileDelete, ctx.arg(1), file_op::DIRECTORY, ACCESS_DELETE);
    0
}

/// Sends a record about two dentries.
#[inline(always)]
fn tell_pair(kind: Kind, from: Ptr, to: Ptr, access: u16) {
    let Some(actor) = actor(kind) else { return };
    begin(&actor, kind, Source::Lsm);
    let end = first_path(&actor, from);
    let end = second_path(&actor, to, end);
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).access = access };
    send(&actor, end);
}

/// `inode_rename(old_dir, old_dentry, new_dir, new_dentry)`: fs/namei.c.
#[lsm(hook = "inode_rename")]
fn inode_rename(ctx: LsmContext) -> i32 {
    tell_pair(Kind::FileRename, ctx.arg(1), ctx.arg(3), ACCESS_DELETE | ACCESS_CREATE);
    0
}

/// `inode_link(old_dentry, dir, new_dentry)`: fs/namei.c.
#[lsm(hook = "inode_link")]
fn inode_link(ctx: LsmContext) -> i32 {
    tell_pair(Kind::FileLink, ctx.arg(0), ctx.arg(2), ACCESS_CREATE);
    0
}

/// `inode_setattr(dentry, attr)`: fs/attr.c `notify_change`, up to 6.8. Length, mode, owner and times all pass here, by
/// path or by descriptor.
#[lsm(hook = "inode_setattr")]
fn inode_setattr(ctx: LsmContext) -> i32 {
    tell_setattr(ctx.arg(0), ctx.arg(1))
}

/// `inode_setattr(idmap, dentry, attr)`: since 6.9.
#[lsm(hook = "inode_setattr")]
fn inode_setattr_idmap(ctx: LsmContext) -> i32 {
    tell_setattr(ctx.arg(1), ctx.arg(2))
}

#[inline(always)]
fn tell_setattr(dentry: Ptr, attr: Ptr) -> i32 {
    let valid: u32 = field(attr, &g::O_IATTR_VALID);
    let (kind, op) = if valid & ATTR_SIZE != 0 {
        (Kind::FileTruncate, file_op::PLAIN)
    } else if valid & (ATTR_UID | ATTR_GID) != 0 {
        (Kind::FileSetattr, file_op::OWNER)
    } else if valid & ATTR_MODE != 0 {
        (Kind::FileSetattr, file_op::MODE)
    } else if valid & ATTR_TIMES != 0 {
        (Kind::FileSetattr, file_op::TIMES)
    } else {
        return 0;
    };
    let Some(actor) = actor(kind) else { return 0 };
    begin(&actor, kind, Source::Lsm);
    let end = first_path(&actor, dentry);
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).op = op;
        (*b).access = ACCESS_WRITE;
        (*b).raw_flags = valid;
        if valid & ATTR_SIZE != 0 {
            (*b).size = field(attr, &g::O_IATTR_SIZE);
        }
        if valid & ATTR_MODE != 0 {
            (*b).mode = u32::from(field::<u16>(attr, &g::O_IATTR_MODE));
        }
        if valid & ATTR_UID != 0 {
            (*b).new_uid = field(attr, &g::O_IATTR_UID);
        }
        if valid & ATTR_GID != 0 {
            (*b).new_gid = field(attr, &g::O_IATTR_GID);
        }
    }
    send(&actor, end);
    0
}

/// `inode_setxattr(idmap, dentry, name, value, size, flags)`: fs/xattr.c.
#[lsm(hook = "inode_setxattr")]
fn inode_setxattr(ctx: LsmContext) -> i32 {
    tell_named(Kind::FileSetattr, ctx.arg(1), file_op::XATTR, ACCESS_WRITE, ctx.arg(2));
    0
}

/// `inode_removexattr(idmap, dentry, name)`: fs/xattr.c.
#[lsm(hook = "inode_removexattr")]
fn inode_removexattr(ctx: LsmContext) -> i32 {
    tell_named(Kind::FileSetattr, ctx.arg(1), file_op::XATTR_REMOVE, ACCESS_WRITE, ctx.arg(2));
    0
}

/// `mmap_file(file, reqprot, prot, flags)`: mm/util.c. Without a file it is anonymous memory, which has no place.
#[lsm(hook = "mmap_file")]
fn mmap_file(ctx: LsmContext) -> i32 {
    let file: Ptr = ctx.arg(0);
    let prot: u64 = ctx.arg(2);
    if file.is_null() || prot & PROT_EXEC == 0 {
        return 0;
    }
    if let Some(actor) = actor(Kind::FileMmapExec) {
        tell_mmap(&actor, file, Source::Lsm);
    }
    0
}

/// Fills and sends a `file.mmap_exec` record.
#[inline(always)]
pub(crate) fn tell_mmap(actor: &Actor, file: Ptr, source: Source) {
    begin(actor, Kind::FileMmapExec, source);
    let end = first_path(actor, pointer(file, &g::O_FILE_DENTRY));
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).access = ACCESS_EXECUTE };
    send(actor, end);
}

/// Reads a `path.dentry` behind a `struct path *`.
#[inline(always)]
pub(crate) fn path_dentry(path: Ptr) -> Ptr {
    value::<u64>(path.wrapping_add(g::O_PATH_DENTRY.load() as usize)) as Ptr
}
