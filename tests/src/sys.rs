//! Raw system calls, shared by the actor, the guest init and the harness.
//!
//! libc's wrappers choose the variant they like (`open` becomes `openat`), so everything here goes by number.
//! Arguments carry their borrow, so that no call site needs a pointer.

pub mod bpf;
pub mod errno;
pub mod wait;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// One argument of a system call.
#[derive(Debug)]
pub enum Arg<'a> {
    /// A number, a descriptor or a set of flags. Never the address of something.
    Num(usize),
    /// A path or name.
    Str(&'a CStr),
    /// Memory the kernel reads.
    In(&'a [u8]),
    /// Memory the kernel writes.
    Out(&'a mut [u8]),
    /// NULL.
    Null,
}

/// A number as an argument; negative values (`AT_FDCWD`, -1) keep their sign.
pub fn num(value: impl TryInto<i64>) -> Arg<'static> {
    let value = value.try_into().ok().unwrap_or(i64::MAX);
    Arg::Num(value as usize)
}

/// `text` as a C string; a NUL inside ends the test.
pub fn cstr(text: &str) -> CString {
    CString::new(text).unwrap()
}

/// Calls `number` and turns -1 into the errno.
pub fn call(number: libc::c_long, args: &mut [Arg<'_>]) -> io::Result<usize> {
    let mut raw = [0_usize; 6];
    for (slot, arg) in raw.iter_mut().zip(args.iter_mut()) {
        *slot = match arg {
            Arg::Num(value) => *value,
            Arg::Str(text) => text.as_ptr() as usize,
            Arg::In(bytes) => bytes.as_ptr() as usize,
            Arg::Out(bytes) => bytes.as_mut_ptr() as usize,
            Arg::Null => 0,
        };
    }
    let [a, b, c, d, e, f] = raw;
    // SAFETY: every address comes from a borrow in `args` that lives until the call returns; the callers pass
    // lengths that belong to those borrows.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
}

/// A call that returns a new descriptor.
pub fn call_fd(number: libc::c_long, args: &mut [Arg<'_>]) -> io::Result<OwnedFd> {
    let fd = call(number, args)?;
    // SAFETY: the kernel just made this descriptor for us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The pid as the mounted `/proc` numbers it: the host's number even inside a new PID namespace.
pub fn host_pid() -> u32 {
    let link = std::fs::read_link("/proc/self").ok();
    let number = link.and_then(|l| l.to_str().and_then(|s| s.parse().ok()));
    number.unwrap_or_else(std::process::id)
}

/// The thread id as the mounted `/proc` numbers it.
pub fn host_tid() -> u32 {
    let link = std::fs::read_link("/proc/thread-self").ok();
    let last = link.as_deref().and_then(|l| l.file_name());
    last.and_then(|n| n.to_str()?.parse().ok()).unwrap_or_else(host_pid)
}

/// Start time of a process in clock ticks since boot (field 22 of its `stat`); 0 where it cannot be read.
pub fn start_ticks(pid: u32) -> u64 {
    stat_field(pid, 22).and_then(|f| f.parse().ok()).unwrap_or(0)
}

/// State letter of a process (`R`, `S`, `T` …); `None` once it is gone.
pub fn state(pid: u32) -> Option<char> {
    stat_field(pid, 3)?.chars().next()
}

fn stat_field(pid: u32, field: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in field 2 may hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(field.checked_sub(3)?).map(str::to_owned)
}

/// Nanoseconds of the clock that all processes of a host share.
pub fn monotonic_nanos() -> io::Result<u64> {
    let mut time = [0_u8; 16];
    call(libc::SYS_clock_gettime, &mut [num(libc::CLOCK_MONOTONIC), Arg::Out(&mut time)])?;
    let (seconds, nanos) = time.split_at(8);
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).unwrap_or_default();
    Ok(word(seconds) * 1_000_000_000 + word(nanos))
}

/// Nanoseconds of processor time that this process and its children that have ended took.
pub fn cpu_nanos() -> io::Result<u64> {
    let mut time = [0_u8; 16];
    call(libc::SYS_clock_gettime, &mut [num(libc::CLOCK_PROCESS_CPUTIME_ID), Arg::Out(&mut time)])?;
    // struct rusage: ru_utime and ru_stime first, each as seconds and microseconds.
    let mut usage = [0_u8; 144];
    call(libc::SYS_getrusage, &mut [num(libc::RUSAGE_CHILDREN), Arg::Out(&mut usage)])?;
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).unwrap_or_default();
    let words: Vec<u64> = time.chunks(8).chain(usage.chunks(8)).map(word).collect();
    let [seconds, nanos, user, user_micros, system, system_micros, ..] = words[..] else { return Ok(0) };
    Ok((seconds + user + system) * 1_000_000_000 + nanos + (user_micros + system_micros) * 1000)
}

/// What a fork-like call returned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    Child,
    Parent { child: i32 },
}

/// `fork(2)` proper (not clone), for callers with one thread.
pub fn fork() -> io::Result<Forked> {
    match call(libc::SYS_fork, &mut [])? {
        0 => Ok(Forked::Child),
        child => Ok(Forked::Parent { child: child as i32 }),
    }
}

/// `clone(2)` used as a fork, with extra `flags` (new namespaces).
pub fn clone_fork(flags: i32) -> io::Result<Forked> {
    let flags = flags | libc::SIGCHLD;
    match call(libc::SYS_clone, &mut [num(flags), num(0), num(0), num(0), num(0)])? {
        0 => Ok(Forked::Child),
        child => Ok(Forked::Parent { child: child as i32 }),
    }
}

/// `clone3(2)` used as a fork that gets exactly this pid.
pub fn clone_with_pid(pid: i32) -> io::Result<Forked> {
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    // set_tid_size (include/uapi/linux/sched.h, version 1).
    let wanted = pid.to_ne_bytes();
    let mut args = [0_u64; 10];
    args[4] = libc::SIGCHLD as u64;
    args[8] = wanted.as_ptr() as u64;
    args[9] = 1;
    let bytes: Vec<u8> = args.iter().flat_map(|word| word.to_ne_bytes()).collect();
    match call(libc::SYS_clone3, &mut [Arg::In(&bytes), num(bytes.len())])? {
        0 => Ok(Forked::Child),
        child => Ok(Forked::Parent { child: child as i32 }),
    }
}

/// Ends the calling process without running destructors or flushing anything.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}

/// Waits for a child; the raw wait status.
pub fn wait_for(child: i32) -> io::Result<i32> {
    let mut status = [0_u8; 4];
    loop {
        match call(libc::SYS_wait4, &mut [num(child), Arg::Out(&mut status), num(0), Arg::Null]) {
            Ok(_) => return Ok(i32::from_ne_bytes(status)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// `kill(2)`.
/// Makes the calling thread, and no other, a user without groups: the raw calls, for libc changes the whole process.
pub fn become_user(uid: u32) -> io::Result<()> {
    let id = || num(uid as i32);
    call(libc::SYS_setgroups, &mut [num(0), num(0)])?;
    call(libc::SYS_setresgid, &mut [id(), id(), id()])?;
    call(libc::SYS_setresuid, &mut [id(), id(), id()])?;
    Ok(())
}

pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    call(libc::SYS_kill, &mut [num(pid), num(signal)]).map(drop)
}

/// Writes all of `bytes` to a descriptor with as few calls as the kernel allows.
pub fn write_all(fd: i32, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = call(libc::SYS_write, &mut [num(fd), Arg::In(bytes), num(bytes.len())])?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// A pipe: read end, write end; both close on exec.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0_u8; 8];
    call(libc::SYS_pipe2, &mut [Arg::Out(&mut ends), num(libc::O_CLOEXEC)])?;
    let end = |at: usize| i32::from_ne_bytes([ends[at], ends[at + 1], ends[at + 2], ends[at + 3]]);
    // SAFETY: the kernel just made both descriptors for us.
    Ok(unsafe { (OwnedFd::from_raw_fd(end(0)), OwnedFd::from_raw_fd(end(4))) })
}

/// Mounts `source` of type `kind` on `target`.
pub fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong) -> io::Result<()> {
    let (source, target, kind) = (cstr(source), cstr(target), cstr(kind));
    let mut args = [Arg::Str(&source), Arg::Str(&target), Arg::Str(&kind), num(flags), Arg::Null];
    call(libc::SYS_mount, &mut args).map(drop)
}

/// Unmounts `target`, at once where it is busy.
pub fn unmount(target: &str) -> io::Result<()> {
    let target = cstr(target);
    call(libc::SYS_umount2, &mut [Arg::Str(&target), num(libc::MNT_DETACH)]).map(drop)
}
