//! Acts on devices and terminals, requests of `ioctl`, and calls by the 32-bit entry.

use super::file::open_raw;
use super::{Act, Facts, Failure, Outcome, after, number, then, word};
use crate::sys::{self, Arg, Forked, call, call_fd, cstr, num};
use std::arch::asm;
use std::os::fd::{AsRawFd, OwnedFd};

pub(crate) const ACTS: &[Act] = &[
    Act::new("mknod-device", "PATH c|b MAJOR MINOR", mknod_device),
    Act::new("ioctl", "PATH HOW REQUEST", ioctl),
    Act::new("ioctl32", "PATH HOW REQUEST", ioctl32),
    Act::new("unshare32", "FLAGS ACT…", unshare32),
    Act::new("tiocsti", "", tiocsti),
    Act::new("open-own-terminal", "", open_own_terminal),
    Act::new("open-terminal-of-another-session", "", open_other_terminal),
    Act::new("dump-core-in", "DIR", dump_core_in),
];

/// `ioctl` and `unshare` of arch/x86/entry/syscalls/syscall_32.tbl.
const IOCTL_32: i32 = 54;
const UNSHARE_32: i32 = 310;
const TIOCSTI: i64 = 0x5412;
const TIOCSPTLCK: i64 = 0x4004_5431;
const TIOCGPTN: i64 = 0x8004_5430;

fn mknod_device(args: &[String]) -> Outcome {
    let path = cstr(word(args, 0)?);
    let kind = if word(args, 1)? == "b" { libc::S_IFBLK } else { libc::S_IFCHR };
    let device = libc::makedev(number(args, 2)? as u32, number(args, 3)? as u32);
    call(libc::SYS_mknod, &mut [Arg::Str(&path), num(kind | 0o666), num(device as i64)])?;
    Ok(Facts::new())
}

fn ioctl(args: &[String]) -> Outcome {
    let file = open_raw(word(args, 0)?, word(args, 1)?)?;
    let mut memory = [0_u8; 4096];
    call(libc::SYS_ioctl, &mut [num(file.as_raw_fd()), num(number(args, 2)?), Arg::Out(&mut memory)])?;
    Ok(Facts::new())
}

/// A system call by the 32-bit entry of the kernel, as a 32-bit program makes it.
fn call32(number: i32, first: u32, second: u32, third: u32) -> std::io::Result<i32> {
    let result: i32;
    // SAFETY: the entry takes its arguments in these registers and changes r8 to r11; rbx, which the compiler keeps for
    // itself, is put back. The callers pass numbers, or addresses of memory that outlives the call.
    unsafe {
        asm!(
            "xchg {first}, rbx",
            "int 0x80",
            "xchg {first}, rbx",
            first = inout(reg) u64::from(first) => _,
            inout("eax") number => result,
            in("ecx") second,
            in("edx") third,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    if result < 0 { Err(std::io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

fn ioctl32(args: &[String]) -> Outcome {
    let file = open_raw(word(args, 0)?, word(args, 1)?)?;
    let (prot, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT);
    let mut map = [Arg::Null, num(4096), num(prot), num(flags), num(-1), num(0)];
    let memory = call(libc::SYS_mmap, &mut map)? as u32;
    call32(IOCTL_32, file.as_raw_fd() as u32, number(args, 2)? as u32, memory)?;
    Ok(Facts::new())
}

fn unshare32(args: &[String]) -> Outcome {
    call32(UNSHARE_32, number(args, 0)? as u32, 0, 0)?;
    then(after(args, 1))
}

/// A new pseudo-terminal: its master, and the path of its slave.
fn terminal() -> Result<(OwnedFd, String), Failure> {
    let master = open_raw("/dev/ptmx", "rdwr")?;
    let mut unlock = 0_i32.to_ne_bytes();
    call(libc::SYS_ioctl, &mut [num(master.as_raw_fd()), num(TIOCSPTLCK), Arg::Out(&mut unlock)])?;
    let mut index = [0_u8; 4];
    call(libc::SYS_ioctl, &mut [num(master.as_raw_fd()), num(TIOCGPTN), Arg::Out(&mut index)])?;
    Ok((master, format!("/dev/pts/{}", u32::from_ne_bytes(index))))
}

fn open_slave(path: &str) -> Result<OwnedFd, Failure> {
    let path = cstr(path);
    Ok(call_fd(libc::SYS_open, &mut [Arg::Str(&path), num(libc::O_RDWR | libc::O_NOCTTY), num(0)])?)
}

fn open_own_terminal(_: &[String]) -> Outcome {
    let (_master, path) = terminal()?;
    open_slave(&path)?;
    Ok(Facts::new())
}

fn tiocsti(_: &[String]) -> Outcome {
    let (_master, path) = terminal()?;
    let slave = open_slave(&path)?;
    call(libc::SYS_ioctl, &mut [num(slave.as_raw_fd()), num(TIOCSTI), Arg::In(b"x")])?;
    Ok(Facts::new())
}

/// A child has a session of its own and the terminal to it; the parent opens that terminal.
fn open_other_terminal(_: &[String]) -> Outcome {
    let (_master, path) = terminal()?;
    let ((ready, said), (wait, go)) = (sys::pipe()?, sys::pipe()?);
    match sys::fork()? {
        Forked::Child => {
            drop((ready, go));
            call(libc::SYS_setsid, &mut []).ok();
            // The first terminal that a session's leader opens becomes the session's.
            let held = open_raw(&path, "rdwr");
            sys::write_all(said.as_raw_fd(), if held.is_ok() { b"y" } else { b"n" }).ok();
            let mut byte = [0_u8; 1];
            call(libc::SYS_read, &mut [num(wait.as_raw_fd()), Arg::Out(&mut byte), num(1)]).ok();
            sys::exit_now(0)
        }
        Forked::Parent { child } => {
            drop((said, wait));
            let mut byte = [0_u8; 1];
            call(libc::SYS_read, &mut [num(ready.as_raw_fd()), Arg::Out(&mut byte), num(1)])?;
            let outcome = open_slave(&path).map(drop);
            drop(go);
            sys::wait_for(child)?;
            outcome?;
            if byte == *b"y" {
                Ok(Facts::new())
            } else {
                Err(Failure::Skip("no terminal to a session".to_owned()))
            }
        }
    }
}

/// A child that crashes in a directory; refused when no core is left there.
fn dump_core_in(args: &[String]) -> Outcome {
    let dir = cstr(word(args, 0)?);
    match sys::fork()? {
        Forked::Child => {
            let unlimited = [0xff_u8; 16];
            let mut limit = [num(0), num(libc::RLIMIT_CORE), Arg::In(&unlimited), Arg::Null];
            let ready = call(libc::SYS_prlimit64, &mut limit)
                .and_then(|_| call(libc::SYS_chdir, &mut [Arg::Str(&dir)]))
                .and_then(|_| call(libc::SYS_getpid, &mut []));
            if let Ok(pid) = ready {
                sys::kill(pid as i32, libc::SIGQUIT).ok();
            }
            sys::exit_now(1)
        }
        Forked::Parent { child } => {
            let status = sys::wait_for(child)?;
            if !libc::WIFSIGNALED(status) {
                return Err(Failure::Skip(format!("the child did not crash: status {status}")));
            }
            if libc::WCOREDUMP(status) {
                Ok(Facts::new())
            } else {
                Err(std::io::Error::from_raw_os_error(libc::EACCES).into())
            }
        }
    }
}
