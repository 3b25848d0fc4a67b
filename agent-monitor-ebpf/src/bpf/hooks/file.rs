//! The file family at level full. Hooks sit on inodes and open files, after the ordinary permission checks, so a record
//! means that the act was about to happen, by whatever road it came (`io_uring` included).

use agent_monitor_ebpf::{
    Kind, Source,
    event::{
        ACCESS_APPEND, ACCESS_CREATE, ACCESS_DELETE, ACCESS_EXECUTE, ACCESS_PATH, ACCESS_READ, ACCESS_WRITE,
        FILE_CREATED, FILE_RECEIVED, FileBody, file_op,
    },
    people::{executes, opens},
    policy::ask,
};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use super::{device, layer::lower};
use crate::bpf::{
    emit::{begin, body, send},
    globals as g,
    judge::{also_held, place, place_late, settle, settle_late, settle_quietly},
    read::{Ptr, current, dentry_id, field, inode_of, pointer, system_call, value},
    tag::Actor,
    walk::{Walked, kernel_text, walk},
};

/// The actor of a hook, or the hook's return value when there is nothing to do.
macro_rules! acting {
    ($kind:expr) => {
        match $crate::bpf::tag::actor($kind) {
            Ok(actor) => actor,
            Err(verdict) => return verdict,
        }
    };
}
pub(crate) use acting;

const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;
/// `__FMODE_EXEC`, include/linux/fs.h: set in `f_flags` of files opened to be run.
const FMODE_EXEC: u32 = 0x20;
/// `FMODE_CREATED`, include/linux/fs.h, since 4.19.
const FMODE_CREATED: u32 = 0x10_0000;
const O_APPEND: u32 = 0o2000;
const O_TRUNC: u32 = 0o1000;
const O_PATH: u32 = 0o10_000_000;
const PROT_EXEC: u64 = 4;
/// `VM_EXEC`, include/linux/mm.h.
const VM_EXEC: u64 = 4;
pub(super) const S_IFMT: u32 = 0o170_000;
pub(super) const S_IFDIR: u32 = 0o040_000;
const S_IFSOCK: u32 = 0o140_000;

/// System call `ioctl` on x86-64.
const IOCTL: u64 = 16;
/// The beginnings `trusted.overlay.` and `user.overlay.`, fs/overlayfs/overlayfs.h.
const OVERLAY_TRUSTED: [u64; 2] = [u64::from_le_bytes(*b"trusted."), u64::from_le_bytes(*b"overlay.")];
const OVERLAY_USER: [u64; 2] = [u64::from_le_bytes(*b"user.ove"), u64::from_le_bytes(*b"rlay.\0\0\0")];

const ATTR_MODE: u32 = 1;
const ATTR_UID: u32 = 2;
const ATTR_GID: u32 = 4;
const ATTR_SIZE: u32 = 8;
/// `ATTR_ATIME | ATTR_MTIME | ATTR_ATIME_SET | ATTR_MTIME_SET`.
const ATTR_TIMES: u32 = 16 | 32 | 128 | 256;

/// Writes the first path of a file record; the walk.
#[inline(always)]
fn walk_first(actor: &Actor, dentry: Ptr) -> Walked {
    let walked = walk(actor.scratch, dentry, 0);
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
    walked
}

/// Writes the first path of a file record; where the tail ends.
#[inline(always)]
pub(crate) fn first_path(actor: &Actor, dentry: Ptr) -> u32 {
    walk_first(actor, dentry).end
}

/// Writes the first path of a file record and judges it; where the tail ends.
#[inline(always)]
pub(super) fn judged_path(actor: &Actor, dentry: Ptr, asked: u32) -> u32 {
    let walked = walk_first(actor, dentry);
    place(actor, dentry, &walked, 0, asked, false);
    walked.end
}

/// Writes the second path of a rename or link and judges it; where the tail ends.
#[inline(always)]
fn second_path(actor: &Actor, dentry: Ptr, off: u32, asked: u32) -> u32 {
    let walked = walk(actor.scratch, dentry, off);
    let (dev, ino) = dentry_id(dentry);
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: as above.
    unsafe {
        (*b).b = walked.piece;
        (*b).dev_b = dev;
        (*b).ino_b = ino;
    }
    place(actor, dentry, &walked, off, asked, false);
    walked.end
}

/// An act on one dentry.
#[inline(always)]
fn act(kind: Kind, dentry: Ptr, op: u8, access: u16, asked: u32) -> i32 {
    let actor = acting!(kind);
    if lower(&actor, dentry) {
        return 0;
    }
    begin(&actor, kind, Source::Lsm);
    let end = judged_path(&actor, dentry, asked);
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: as above.
    unsafe {
        (*b).op = op;
        (*b).access = access;
    }
    settle(&actor, end)
}

/// An act on one dentry with a text: an attribute's name, what a symbolic link says.
#[inline(always)]
fn act_named(kind: Kind, dentry: Ptr, op: u8, access: u16, asked: u32, text: Ptr) -> i32 {
    let actor = acting!(kind);
    if lower(&actor, dentry) {
        return 0;
    }
    begin(&actor, kind, Source::Lsm);
    let end = judged_path(&actor, dentry, asked);
    let (piece, end) = kernel_text(actor.scratch, end, text);
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: as above.
    unsafe {
        (*b).op = op;
        (*b).access = access;
        (*b).c = piece;
    }
    settle(&actor, end)
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

/// Fills a `file.open` record for an open file; where the tail ends.
#[inline(always)]
fn fill_open(actor: &Actor, file: Ptr, asked: u32) -> u32 {
    begin(actor, Kind::FileOpen, Source::Lsm);
    let dentry = pointer(file, &g::O_FILE_DENTRY);
    let end = judged_path(actor, dentry, asked);
    device::opened(actor, dentry);
    describe_open(actor, file);
    end
}

/// Flags and access of an open file.
#[inline(always)]
fn describe_open(actor: &Actor, file: Ptr) {
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
}

/// Fills and sends a `file.open` record for an open file, without judging it.
#[inline(always)]
pub(crate) fn tell_open(actor: &Actor, file: Ptr, source: Source) {
    begin(actor, Kind::FileOpen, source);
    let end = first_path(actor, pointer(file, &g::O_FILE_DENTRY));
    describe_open(actor, file);
    send(actor, end);
}

/// Fills and sends a `file.open` record for a file that is open already, with what the scope says of it.
#[inline(always)]
pub(crate) fn tell_opened(actor: &Actor, file: Ptr, source: Source) {
    begin(actor, Kind::FileOpen, source);
    let mode: u32 = field(file, &g::O_FILE_MODE);
    let dentry = pointer(file, &g::O_FILE_DENTRY);
    let walked = walk_first(actor, dentry);
    place_late(actor, dentry, &walked, asked_of(mode));
    describe_open(actor, file);
    settle_late(actor, walked.end);
}

/// What an open file of this mode may do. In one register, so that the verifier follows one path.
#[inline(always)]
fn asked_of(mode: u32) -> u32 {
    // FMODE_READ and FMODE_WRITE are 1 and 2, as the bits of the first two slots.
    mode & (ask::READ | ask::WRITE)
}

/// `file_open(file)`: fs/open.c `do_dentry_open`. Files opened to be run are judged by `bprm_check_security`, and as
/// mappings.
#[lsm(hook = "file_open")]
fn file_open(ctx: LsmContext) -> i32 {
    let actor = acting!(Kind::FileOpen);
    let file: Ptr = ctx.arg(0);
    if lower(&actor, pointer(file, &g::O_FILE_DENTRY)) {
        return 0;
    }
    let flags: u32 = field(file, &g::O_FILE_FLAGS);
    if flags & FMODE_EXEC != 0 {
        tell_open(&actor, file, Source::Lsm);
        return 0;
    }
    let mode: u32 = field(file, &g::O_FILE_MODE);
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe {
        let s = actor.scratch;
        (*s).covered = u32::from(mode & FMODE_CREATED != 0) & (*s).create_passed;
        (*s).create_passed = 0;
    }
    let end = fill_open(&actor, file, asked_of(mode));
    let refused = settle(&actor, end);
    // SAFETY: as above.
    unsafe {
        let s = actor.scratch;
        let truncates = refused == 0 && (*s).by_people != 0 && flags & O_TRUNC != 0;
        let ino = inode_of(pointer(file, &g::O_FILE_DENTRY));
        (*s).open_passed = if truncates { ino } else { 0 };
    }
    refused
}

/// `file_receive(file)`: fs/file.c, a descriptor that another process sends or that is taken from it. Told when refused:
/// the acts on it have records of their own.
#[lsm(hook = "file_receive")]
fn file_receive(ctx: LsmContext) -> i32 {
    let actor = acting!(Kind::FileOpen);
    let file: Ptr = ctx.arg(0);
    let mode: u32 = field(file, &g::O_FILE_MODE);
    let end = fill_open(&actor, file, asked_of(mode));
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).how |= FILE_RECEIVED };
    settle_quietly(&actor, end)
}

/// `inode_create(dir, dentry, mode)`: fs/namei.c. Where an `open` creates, a person who must be asked about the writing is
/// asked now: afterwards the file would be there, and the call run again would be another one.
#[lsm(hook = "inode_create")]
fn inode_create(ctx: LsmContext) -> i32 {
    let actor = acting!(Kind::FileCreate);
    if lower(&actor, ctx.arg(1)) {
        return 0;
    }
    begin(&actor, Kind::FileCreate, Source::Lsm);
    let end = judged_path(&actor, ctx.arg(1), ask::CREATE);
    if opens(system_call(actor.task)) {
        also_held(&actor, ask::WRITE);
    }
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).op = file_op::REGULAR;
        (*b).access = ACCESS_CREATE;
    }
    let refused = settle(&actor, end);
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe { (*actor.scratch).create_passed = u32::from(refused == 0 && (*actor.scratch).by_people != 0) };
    refused
}

/// `inode_mkdir(dir, dentry, mode)`: fs/namei.c.
#[lsm(hook = "inode_mkdir")]
fn inode_mkdir(ctx: LsmContext) -> i32 {
    act(Kind::FileCreate, ctx.arg(1), file_op::DIRECTORY, ACCESS_CREATE, ask::CREATE)
}

/// `inode_mknod(dir, dentry, mode, dev)`: fs/namei.c.
#[lsm(hook = "inode_mknod")]
fn inode_mknod(ctx: LsmContext) -> i32 {
    let (dentry, mode): (Ptr, u32) = (ctx.arg(1), ctx.arg(2));
    let asked = ask::CREATE | if mode & S_IFMT == S_IFSOCK { ask::UNIX_BIND } else { 0 };
    let actor = acting!(Kind::FileCreate);
    if lower(&actor, dentry) {
        return 0;
    }
    begin(&actor, Kind::FileCreate, Source::Lsm);
    let end = judged_path(&actor, dentry, asked);
    device::made(&actor, mode, ctx.arg(3));
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).op = file_op::NODE;
        (*b).access = ACCESS_CREATE;
        (*b).mode = mode;
    }
    settle(&actor, end)
}

/// `inode_symlink(dir, dentry, old_name)`: fs/namei.c.
#[lsm(hook = "inode_symlink")]
fn inode_symlink(ctx: LsmContext) -> i32 {
    act_named(Kind::FileCreate, ctx.arg(1), file_op::SYMLINK, ACCESS_CREATE, ask::CREATE, ctx.arg(2))
}

/// `inode_unlink(dir, dentry)`: fs/namei.c.
#[lsm(hook = "inode_unlink")]
fn inode_unlink(ctx: LsmContext) -> i32 {
    act(Kind::FileDelete, ctx.arg(1), file_op::REGULAR, ACCESS_DELETE, ask::DELETE)
}

/// `inode_rmdir(dir, dentry)`: fs/namei.c.
#[lsm(hook = "inode_rmdir")]
fn inode_rmdir(ctx: LsmContext) -> i32 {
    act(Kind::FileDelete, ctx.arg(1), file_op::DIRECTORY, ACCESS_DELETE, ask::DELETE)
}

/// `inode_rename(old_dir, old_dentry, new_dir, new_dentry)`: fs/namei.c. An exchange comes here once for each direction.
#[lsm(hook = "inode_rename")]
fn inode_rename(ctx: LsmContext) -> i32 {
    let (from, to): (Ptr, Ptr) = (ctx.arg(1), ctx.arg(3));
    let actor = acting!(Kind::FileRename);
    if lower(&actor, from) {
        return 0;
    }
    begin(&actor, Kind::FileRename, Source::Lsm);
    let walked = walk_first(&actor, from);
    let mode = u32::from(field::<u16>(pointer(from, &g::O_DENTRY_INODE), &g::O_INODE_MODE));
    place(&actor, from, &walked, 0, ask::RENAME_OLD, mode & S_IFMT == S_IFDIR);
    let there = !pointer(to, &g::O_DENTRY_INODE).is_null();
    let asked = ask::RENAME_NEW | if there { ask::RENAME_OVER } else { 0 };
    let end = second_path(&actor, to, walked.end, asked);
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).access = ACCESS_DELETE | ACCESS_CREATE };
    settle(&actor, end)
}

/// `inode_link(old_dentry, dir, new_dentry)`: fs/namei.c.
#[lsm(hook = "inode_link")]
fn inode_link(ctx: LsmContext) -> i32 {
    let actor = acting!(Kind::FileLink);
    if lower(&actor, ctx.arg(2)) {
        return 0;
    }
    begin(&actor, Kind::FileLink, Source::Lsm);
    let end = judged_path(&actor, ctx.arg(0), ask::LINK_OLD);
    let end = second_path(&actor, ctx.arg(2), end, ask::LINK_NEW);
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).access = ACCESS_CREATE };
    settle(&actor, end)
}

/// `inode_setattr(dentry, attr)`: fs/attr.c `notify_change`, up to 6.8. Length, mode, owner and times all pass here, by
/// path or by descriptor.
#[lsm(hook = "inode_setattr")]
fn inode_setattr(ctx: LsmContext) -> i32 {
    setattr(ctx.arg(0), ctx.arg(1))
}

/// `inode_setattr(idmap, dentry, attr)`: since 6.9.
#[lsm(hook = "inode_setattr")]
fn inode_setattr_idmap(ctx: LsmContext) -> i32 {
    setattr(ctx.arg(1), ctx.arg(2))
}

#[inline(always)]
fn setattr(dentry: Ptr, attr: Ptr) -> i32 {
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
    let actor = acting!(kind);
    if lower(&actor, dentry) {
        return 0;
    }
    if valid & ATTR_SIZE != 0 && opens(system_call(actor.task)) {
        // Part of an open that people let pass.
        // SAFETY: scratch was checked for null when the actor was made.
        unsafe {
            let s = actor.scratch;
            (*s).covered = u32::from((*s).open_passed != 0 && (*s).open_passed == inode_of(dentry));
            (*s).open_passed = 0;
        }
    }
    begin(&actor, kind, Source::Lsm);
    let end = judged_path(&actor, dentry, ask::WRITE);
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
    settle(&actor, end)
}

/// `inode_setxattr(idmap, dentry, name, value, size, flags)`: fs/xattr.c.
#[lsm(hook = "inode_setxattr")]
fn inode_setxattr(ctx: LsmContext) -> i32 {
    act_named(Kind::FileSetattr, ctx.arg(1), file_op::XATTR, ACCESS_WRITE, ask::WRITE, ctx.arg(2))
}

/// `inode_getxattr(dentry, name)`: fs/xattr.c, before the value of an attribute is read. What overlayfs keeps in its layers
/// it reads on its own account during look-ups, which no act precedes.
#[lsm(hook = "inode_getxattr")]
fn inode_getxattr(ctx: LsmContext) -> i32 {
    let name: [u64; 2] = value(ctx.arg(1));
    if name == OVERLAY_TRUSTED || name[0] == OVERLAY_USER[0] && name[1] & 0xff_ffff_ffff == OVERLAY_USER[1] {
        return 0;
    }
    attributes(ctx.arg(0))
}

/// `inode_listxattr(dentry)`: fs/xattr.c, before the names of the attributes are read.
#[lsm(hook = "inode_listxattr")]
fn inode_listxattr(ctx: LsmContext) -> i32 {
    attributes(ctx.arg(0))
}

/// Extended attributes are contents: who may not read a file may not read those. Reported when refused.
#[inline(always)]
fn attributes(dentry: Ptr) -> i32 {
    let actor = acting!(Kind::FileOpen);
    if lower(&actor, dentry) {
        return 0;
    }
    begin(&actor, Kind::FileOpen, Source::Lsm);
    let end = judged_path(&actor, dentry, ask::READ);
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).access = ACCESS_READ };
    settle_quietly(&actor, end)
}

/// `inode_file_setattr(dentry, fa)`: fs/file_attr.c, since 6.17; flags of an inode by `file_setattr` or by `ioctl`.
#[lsm(hook = "inode_file_setattr")]
fn inode_file_setattr(ctx: LsmContext) -> i32 {
    if system_call(current()) == IOCTL {
        // Judged and recorded by `file_ioctl`.
        return 0;
    }
    act(Kind::FileSetattr, ctx.arg(0), file_op::FLAGS, ACCESS_WRITE, ask::WRITE)
}

/// `inode_removexattr(idmap, dentry, name)`: fs/xattr.c.
#[lsm(hook = "inode_removexattr")]
fn inode_removexattr(ctx: LsmContext) -> i32 {
    act_named(Kind::FileSetattr, ctx.arg(1), file_op::XATTR_REMOVE, ACCESS_WRITE, ask::WRITE, ctx.arg(2))
}

/// `inode_set_acl(idmap, dentry, acl_name, kacl)`: fs/posix_acl.c, since 6.2; before, ACLs pass as attributes.
#[lsm(hook = "inode_set_acl")]
fn inode_set_acl(ctx: LsmContext) -> i32 {
    act_named(Kind::FileSetattr, ctx.arg(1), file_op::XATTR, ACCESS_WRITE, ask::WRITE, ctx.arg(2))
}

/// `inode_remove_acl(idmap, dentry, acl_name)`: fs/posix_acl.c, since 6.2.
#[lsm(hook = "inode_remove_acl")]
fn inode_remove_acl(ctx: LsmContext) -> i32 {
    act_named(Kind::FileSetattr, ctx.arg(1), file_op::XATTR_REMOVE, ACCESS_WRITE, ask::WRITE, ctx.arg(2))
}

/// `mmap_file(file, reqprot, prot, flags)`: mm/util.c. Without a file it is anonymous memory, which has no place.
#[lsm(hook = "mmap_file")]
fn mmap_file(ctx: LsmContext) -> i32 {
    let file: Ptr = ctx.arg(0);
    let prot: u64 = ctx.arg(2);
    if file.is_null() || prot & PROT_EXEC == 0 {
        return 0;
    }
    let actor = acting!(Kind::FileMmapExec);
    if executes(system_call(actor.task)) {
        // The kernel maps the program that people let run.
        // SAFETY: scratch was checked for null when the actor was made.
        unsafe {
            let passed = (*actor.scratch).exec_passed;
            let ino = inode_of(pointer(file, &g::O_FILE_DENTRY));
            (*actor.scratch).covered = u32::from(passed != 0 && passed == ino);
        }
    }
    map_exec(&actor, file)
}

/// `file_mprotect(vma, reqprot, prot)`: mm/mprotect.c. Told and judged when a mapping becomes executable.
#[lsm(hook = "file_mprotect")]
fn file_mprotect(ctx: LsmContext) -> i32 {
    let vma: Ptr = ctx.arg(0);
    let prot: u64 = ctx.arg(2);
    if prot & PROT_EXEC == 0 {
        return 0;
    }
    let file = pointer(vma, &g::O_VMA_FILE);
    if file.is_null() || field::<u64>(vma, &g::O_VMA_FLAGS) & VM_EXEC != 0 {
        return 0;
    }
    let actor = acting!(Kind::FileMmapExec);
    map_exec(&actor, file)
}

#[inline(always)]
fn map_exec(actor: &Actor, file: Ptr) -> i32 {
    begin(actor, Kind::FileMmapExec, Source::Lsm);
    let end = judged_path(actor, pointer(file, &g::O_FILE_DENTRY), ask::MAP);
    let b: *mut FileBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).access = ACCESS_EXECUTE };
    settle(actor, end)
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
