//! Acts on length and attributes: truncate, mode, owner, times, extended attributes.

use super::file::open_raw;
use super::{Act, Facts, Outcome, number, word};
use crate::sys::{Arg, call, cstr, num};
use std::os::fd::AsRawFd;

pub(crate) const ACTS: &[Act] = &[
    Act::new("truncate", "PATH BYTES", truncate),
    Act::new("ftruncate", "PATH BYTES", ftruncate),
    Act::new("chmod", "PATH MODE", chmod),
    Act::new("fchmod", "PATH MODE", fchmod),
    Act::new("fchmodat", "DIR NAME MODE", fchmodat),
    Act::new("chown", "PATH UID GID", chown),
    Act::new("fchownat", "DIR NAME UID GID", fchownat),
    Act::new("utimes", "PATH", utimes),
    Act::new("setxattr", "PATH NAME", setxattr),
    Act::new("getxattr", "PATH NAME", |args| getxattr(libc::SYS_getxattr, args)),
    Act::new("lgetxattr", "PATH NAME", |args| getxattr(libc::SYS_lgetxattr, args)),
    Act::new("listxattr", "PATH", listxattr),
];

fn truncate(args: &[String]) -> Outcome {
    let path = cstr(word(args, 0)?);
    call(libc::SYS_truncate, &mut [Arg::Str(&path), num(number(args, 1)?)])?;
    Ok(Facts::new())
}

fn ftruncate(args: &[String]) -> Outcome {
    let file = open_raw(word(args, 0)?, "write")?;
    call(libc::SYS_ftruncate, &mut [num(file.as_raw_fd()), num(number(args, 1)?)])?;
    Ok(Facts::new())
}

fn chmod(args: &[String]) -> Outcome {
    let path = cstr(word(args, 0)?);
    call(libc::SYS_chmod, &mut [Arg::Str(&path), num(number(args, 1)?)])?;
    Ok(Facts::new())
}

fn fchmod(args: &[String]) -> Outcome {
    let file = open_raw(word(args, 0)?, "read")?;
    call(libc::SYS_fchmod, &mut [num(file.as_raw_fd()), num(number(args, 1)?)])?;
    Ok(Facts::new())
}

fn fchmodat(args: &[String]) -> Outcome {
    let (dir, name) = (open_raw(word(args, 0)?, "path")?, cstr(word(args, 1)?));
    call(libc::SYS_fchmodat, &mut [num(dir.as_raw_fd()), Arg::Str(&name), num(number(args, 2)?)])?;
    Ok(Facts::new())
}

fn chown(args: &[String]) -> Outcome {
    let path = cstr(word(args, 0)?);
    call(libc::SYS_chown, &mut [Arg::Str(&path), num(number(args, 1)?), num(number(args, 2)?)])?;
    Ok(Facts::new())
}

fn fchownat(args: &[String]) -> Outcome {
    let (dir, name) = (open_raw(word(args, 0)?, "path")?, cstr(word(args, 1)?));
    let (uid, gid) = (number(args, 2)?, number(args, 3)?);
    let mut args = [num(dir.as_raw_fd()), Arg::Str(&name), num(uid), num(gid), num(0)];
    call(libc::SYS_fchownat, &mut args)?;
    Ok(Facts::new())
}

fn utimes(args: &[String]) -> Outcome {
    let path = cstr(word(args, 0)?);
    call(libc::SYS_utimensat, &mut [num(libc::AT_FDCWD), Arg::Str(&path), Arg::Null, num(0)])?;
    Ok(Facts::new())
}

fn setxattr(args: &[String]) -> Outcome {
    let (path, name) = (cstr(word(args, 0)?), cstr(word(args, 1)?));
    let mut args = [Arg::Str(&path), Arg::Str(&name), Arg::In(b"value"), num(5), num(0)];
    call(libc::SYS_setxattr, &mut args)?;
    Ok(Facts::new())
}

fn getxattr(number: libc::c_long, args: &[String]) -> Outcome {
    let (path, name) = (cstr(word(args, 0)?), cstr(word(args, 1)?));
    let mut value = [0_u8; 256];
    call(number, &mut [Arg::Str(&path), Arg::Str(&name), Arg::Out(&mut value), num(256)])?;
    Ok(Facts::new())
}

fn listxattr(args: &[String]) -> Outcome {
    let path = cstr(word(args, 0)?);
    let mut names = [0_u8; 256];
    call(libc::SYS_listxattr, &mut [Arg::Str(&path), Arg::Out(&mut names), num(256)])?;
    Ok(Facts::new())
}
