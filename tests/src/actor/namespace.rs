//! Acts on namespaces, mounts and the root.

use super::tree::in_child;
use super::{Act, Failure, Outcome, after, then, word};
use crate::sys::{self, Arg, call, cstr, num};

pub(crate) const ACTS: &[Act] = &[
    Act::new("unshare", "user|mount|pid|net|uts|ipc ACT…", unshare),
    Act::new("pidns", "ACT…", pidns),
    Act::new("mount-tmpfs", "DIR ACT…", mount_tmpfs),
    Act::new("mount-bind", "FROM TO ACT…", mount_bind),
    Act::new("umount", "DIR ACT…", umount),
    Act::new("chroot", "DIR ACT…", chroot),
];

fn flag(what: &str) -> Result<i32, Failure> {
    Ok(match what {
        "user" => libc::CLONE_NEWUSER,
        "mount" => libc::CLONE_NEWNS,
        "pid" => libc::CLONE_NEWPID,
        "net" => libc::CLONE_NEWNET,
        "uts" => libc::CLONE_NEWUTS,
        "ipc" => libc::CLONE_NEWIPC,
        _ => return Err(Failure::Usage(format!("unshare what? {what}"))),
    })
}

/// With `mount`, what happens to mounts from here on stays in the new namespace.
fn unshare(args: &[String]) -> Outcome {
    let what = word(args, 0)?;
    call(libc::SYS_unshare, &mut [num(flag(what)?)])?;
    if what == "mount" {
        sys::mount("none", "/", "none", libc::MS_REC | libc::MS_PRIVATE)?;
    }
    then(after(args, 1))
}

/// A child that is pid 1 of a new PID namespace performs the rest.
fn pidns(args: &[String]) -> Outcome {
    in_child(sys::clone_fork(libc::CLONE_NEWPID)?, args)
}

fn mount_tmpfs(args: &[String]) -> Outcome {
    sys::mount("none", word(args, 0)?, "tmpfs", 0)?;
    then(after(args, 1))
}

fn mount_bind(args: &[String]) -> Outcome {
    sys::mount(word(args, 0)?, word(args, 1)?, "none", libc::MS_BIND)?;
    then(after(args, 2))
}

fn umount(args: &[String]) -> Outcome {
    sys::unmount(word(args, 0)?)?;
    then(after(args, 1))
}

fn chroot(args: &[String]) -> Outcome {
    let dir = cstr(word(args, 0)?);
    call(libc::SYS_chroot, &mut [Arg::Str(&dir)])?;
    let root = cstr("/");
    call(libc::SYS_chdir, &mut [Arg::Str(&root)])?;
    then(after(args, 1))
}
