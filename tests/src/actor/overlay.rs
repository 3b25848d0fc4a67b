//! Acts on stacked file systems.

use super::{Act, Outcome, word};
use crate::sys::{Arg, call, cstr, num};

pub(crate) const ACTS: &[Act] =
    &[Act::new("list", "DIR", list), Act::new("read-after-change", "PATH", read_after_change)];

fn list(args: &[String]) -> Outcome {
    let dir = super::file::open_raw(word(args, 0)?, "dir")?;
    use std::os::fd::AsRawFd as _;
    let mut entries = [0_u8; 4096];
    let mut args = [num(dir.as_raw_fd()), Arg::Out(&mut entries), num(4096)];
    super::fact("bytes", call(libc::SYS_getdents64, &mut args)?)
}

/// Reads by a descriptor that was opened before the file was copied up by a change.
fn read_after_change(args: &[String]) -> Outcome {
    use std::os::fd::AsRawFd as _;
    let path = word(args, 0)?;
    let file = super::file::open_raw(path, "read")?;
    let name = cstr(path);
    call(libc::SYS_chmod, &mut [Arg::Str(&name), num(0o640)])?;
    super::file::open_raw(path, "write")?;
    let mut bytes = [0_u8; 8];
    super::fact("bytes", call(libc::SYS_read, &mut [num(file.as_raw_fd()), Arg::Out(&mut bytes), num(8)])?)
}
