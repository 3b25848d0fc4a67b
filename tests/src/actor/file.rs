//! Acts on names and contents: open in all its forms, read, write, make, remove, move, link.

use super::{Act, Facts, Failure, Outcome, fact, number, word};
use crate::sys::{Arg, call, call_fd, cstr, num};
use std::os::fd::{AsRawFd, OwnedFd};

pub(crate) const ACTS: &[Act] = &[
    Act::new("open", "PATH read|write|rdwr|trunc|create|path", open),
    Act::new("openat", "DIR RELATIVE HOW", openat),
    Act::new("openat2", "PATH HOW", openat2),
    Act::new("openat2-beneath", "DIR RELATIVE HOW", openat2_beneath),
    Act::new("chdir-open", "DIR RELATIVE HOW", chdir_open),
    Act::new("creat", "PATH", creat),
    Act::new("read", "PATH BYTES", read),
    Act::new("write", "PATH BYTES", write),
    Act::new("unlink", "PATH", |a| path_call(libc::SYS_unlink, a)),
    Act::new("chdir-unlink", "DIR RELATIVE", chdir_unlink),
    Act::new("unlinkat", "DIR NAME", unlinkat),
    Act::new("rmdir", "PATH", |a| path_call(libc::SYS_rmdir, a)),
    Act::new("mkdir", "PATH", mkdir),
    Act::new("mknod", "PATH", mknod),
    Act::new("rename", "FROM TO", |a| two_paths(libc::SYS_rename, a)),
    Act::new("renameat2", "DIR FROM TO", renameat2),
    Act::new("rename-proc-fd", "DIR FROM TO", rename_proc_fd),
    Act::new("link", "FROM TO", |a| two_paths(libc::SYS_link, a)),
    Act::new("linkat", "DIR FROM TO", linkat),
    Act::new("symlink", "TARGET NAME", |a| two_paths(libc::SYS_symlink, a)),
    Act::new("mmap-exec", "PATH", super::memory::mmap_exec),
    Act::new("deep-open", "DIR LEVELS", deep_open),
];

/// Flags of `open` by word.
pub(crate) fn flags(how: &str) -> Result<i32, Failure> {
    Ok(libc::O_CLOEXEC
        | match how {
            "read" => libc::O_RDONLY,
            "write" => libc::O_WRONLY,
            "rdwr" => libc::O_RDWR,
            "trunc" => libc::O_WRONLY | libc::O_TRUNC,
            "create" => libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL,
            "path" => libc::O_PATH,
            "dir" => libc::O_RDONLY | libc::O_DIRECTORY,
            _ => return Err(Failure::Usage(format!("open how? {how}"))),
        })
}

/// Opens by the oldest call there is.
pub(crate) fn open_raw(path: &str, how: &str) -> Result<OwnedFd, Failure> {
    let (path, flags) = (cstr(path), flags(how)?);
    Ok(call_fd(libc::SYS_open, &mut [Arg::Str(&path), num(flags), num(0o644)])?)
}

fn openat_raw(dir: i32, path: &str, how: &str) -> Result<OwnedFd, Failure> {
    let (path, flags) = (cstr(path), flags(how)?);
    Ok(call_fd(libc::SYS_openat, &mut [num(dir), Arg::Str(&path), num(flags), num(0o644)])?)
}

fn openat2_raw(dir: i32, path: &str, how: &str, resolve: u64) -> Result<OwnedFd, Failure> {
    let path = cstr(path);
    let mode = if how == "create" { 0o644 } else { 0 };
    // struct open_how: flags, mode, resolve
    let open_how: Vec<u8> =
        [flags(how)? as u64, mode, resolve].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut args = [num(dir), Arg::Str(&path), Arg::In(&open_how), num(open_how.len())];
    Ok(call_fd(libc::SYS_openat2, &mut args)?)
}

fn open(args: &[String]) -> Outcome {
    open_raw(word(args, 0)?, word(args, 1)?)?;
    Ok(Facts::new())
}

fn openat(args: &[String]) -> Outcome {
    let dir = open_raw(word(args, 0)?, "dir")?;
    openat_raw(dir.as_raw_fd(), word(args, 1)?, word(args, 2)?)?;
    Ok(Facts::new())
}

fn openat2(args: &[String]) -> Outcome {
    openat2_raw(libc::AT_FDCWD, word(args, 0)?, word(args, 1)?, 0)?;
    Ok(Facts::new())
}

fn openat2_beneath(args: &[String]) -> Outcome {
    let dir = open_raw(word(args, 0)?, "path")?;
    openat2_raw(dir.as_raw_fd(), word(args, 1)?, word(args, 2)?, libc::RESOLVE_BENEATH)?;
    Ok(Facts::new())
}

fn chdir_open(args: &[String]) -> Outcome {
    let dir = cstr(word(args, 0)?);
    call(libc::SYS_chdir, &mut [Arg::Str(&dir)])?;
    openat_raw(libc::AT_FDCWD, word(args, 1)?, word(args, 2)?)?;
    Ok(Facts::new())
}

fn creat(args: &[String]) -> Outcome {
    let path = cstr(word(args, 0)?);
    call_fd(libc::SYS_creat, &mut [Arg::Str(&path), num(0o644)])?;
    Ok(Facts::new())
}

fn read(args: &[String]) -> Outcome {
    let (file, mut left) = (open_raw(word(args, 0)?, "read")?, number(args, 1)? as usize);
    let (mut chunk, mut total) = (vec![0_u8; 64 * 1024], 0);
    while left > 0 {
        let want = left.min(chunk.len());
        let mut args = [num(file.as_raw_fd()), Arg::Out(&mut chunk), num(want)];
        let n = call(libc::SYS_read, &mut args)?;
        if n == 0 {
            break;
        }
        (left, total) = (left - n, total + n);
    }
    fact("bytes", total)
}

fn write(args: &[String]) -> Outcome {
    let file = open_raw(word(args, 0)?, "write")?;
    let bytes = vec![b'w'; number(args, 1)? as usize];
    crate::sys::write_all(file.as_raw_fd(), &bytes)?;
    fact("bytes", bytes.len())
}

/// A call that takes one path.
fn path_call(number: libc::c_long, args: &[String]) -> Outcome {
    let path = cstr(word(args, 0)?);
    call(number, &mut [Arg::Str(&path)])?;
    Ok(Facts::new())
}

/// A call that takes two paths.
fn two_paths(number: libc::c_long, args: &[String]) -> Outcome {
    let (from, to) = (cstr(word(args, 0)?), cstr(word(args, 1)?));
    call(number, &mut [Arg::Str(&from), Arg::Str(&to)])?;
    Ok(Facts::new())
}

fn chdir_unlink(args: &[String]) -> Outcome {
    path_call(libc::SYS_chdir, args)?;
    path_call(libc::SYS_unlink, super::after(args, 1))
}

fn unlinkat(args: &[String]) -> Outcome {
    let (dir, name) = (open_raw(word(args, 0)?, "path")?, cstr(word(args, 1)?));
    call(libc::SYS_unlinkat, &mut [num(dir.as_raw_fd()), Arg::Str(&name), num(0)])?;
    Ok(Facts::new())
}

fn mkdir(args: &[String]) -> Outcome {
    let path = cstr(word(args, 0)?);
    call(libc::SYS_mkdir, &mut [Arg::Str(&path), num(0o755)])?;
    Ok(Facts::new())
}

fn mknod(args: &[String]) -> Outcome {
    let path = cstr(word(args, 0)?);
    call(libc::SYS_mknod, &mut [Arg::Str(&path), num(libc::S_IFIFO | 0o644), num(0)])?;
    Ok(Facts::new())
}

fn renameat2(args: &[String]) -> Outcome {
    let dir = open_raw(word(args, 0)?, "path")?;
    let (from, to) = (cstr(word(args, 1)?), cstr(word(args, 2)?));
    let fd = dir.as_raw_fd();
    let mut args = [num(fd), Arg::Str(&from), num(fd), Arg::Str(&to), num(libc::RENAME_NOREPLACE)];
    call(libc::SYS_renameat2, &mut args)?;
    Ok(Facts::new())
}

/// A rename whose names go through the directory's descriptor in `/proc`, as Bun programs do it.
fn rename_proc_fd(args: &[String]) -> Outcome {
    let dir = open_raw(word(args, 0)?, "dir")?;
    let name = |name: &str| format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    two_paths(libc::SYS_rename, &[name(word(args, 1)?), name(word(args, 2)?)])
}

fn linkat(args: &[String]) -> Outcome {
    let dir = open_raw(word(args, 0)?, "path")?;
    let (from, to) = (cstr(word(args, 1)?), cstr(word(args, 2)?));
    let fd = dir.as_raw_fd();
    call(libc::SYS_linkat, &mut [num(fd), Arg::Str(&from), num(fd), Arg::Str(&to), num(0)])?;
    Ok(Facts::new())
}

/// Makes a tree so many levels deep and opens a file at its bottom by its whole path.
fn deep_open(args: &[String]) -> Outcome {
    let mut path = word(args, 0)?.to_owned();
    for level in 0..number(args, 1)? {
        path.push_str(&format!("/d{level:02}"));
    }
    std::fs::create_dir_all(&path)?;
    path.push_str("/leaf");
    std::fs::write(&path, b"x")?;
    open_raw(&path, "read")?;
    fact("path", path)
}
