//! Acts on memory: mapping a file to run it, tracing a child, reading its memory.

use super::file::open_raw;
use super::{Act, Facts, Failure, Outcome, fact, word};
use crate::sys::{self, Arg, Forked, call, num};
use std::os::fd::AsRawFd;

pub(crate) const ACTS: &[Act] = &[
    Act::new("ptrace-child", "", ptrace_child),
    Act::new("ptrace-pid", "PID", ptrace_pid),
    Act::new("vm-readv-child", "", vm_readv_child),
];

pub(crate) fn mmap_exec(args: &[String]) -> Outcome {
    let file = open_raw(word(args, 0)?, "read")?;
    let (prot, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE);
    let mut args = [Arg::Null, num(4096), num(prot), num(flags), num(file.as_raw_fd()), num(0)];
    call(libc::SYS_mmap, &mut args)?;
    Ok(Facts::new())
}

/// A child that does nothing until it is let go; what `body` says about it, after it has been reaped.
fn with_idle_child(body: impl FnOnce(i32) -> Outcome) -> Outcome {
    let (read, write) = sys::pipe()?;
    match sys::fork()? {
        Forked::Child => {
            drop(write);
            // The parent never writes: this returns when its end is closed.
            let mut byte = [0_u8; 1];
            call(libc::SYS_read, &mut [num(read.as_raw_fd()), Arg::Out(&mut byte), num(1)]).ok();
            sys::exit_now(0)
        }
        Forked::Parent { child } => {
            let outcome = body(child);
            drop(write);
            sys::wait_for(child)?;
            outcome
        }
    }
}

fn attach(pid: i32) -> Outcome {
    let request = |what: libc::c_uint| call(libc::SYS_ptrace, &mut [num(what), num(pid), num(0), num(0)]);
    request(libc::PTRACE_ATTACH)?;
    // The stop has to arrive before the tracee can be let go.
    let mut status = [0_u8; 4];
    call(libc::SYS_wait4, &mut [num(pid), Arg::Out(&mut status), num(libc::__WALL), Arg::Null])?;
    request(libc::PTRACE_DETACH)?;
    fact("target", pid)
}

fn ptrace_child(_: &[String]) -> Outcome {
    with_idle_child(attach)
}

fn ptrace_pid(args: &[String]) -> Outcome {
    attach(super::number(args, 0)? as i32)
}

fn vm_readv_child(_: &[String]) -> Outcome {
    static PATTERN: [u8; 16] = *b"agent-monitor-vm";
    with_idle_child(|child| {
        let mut copy = [0_u8; 16];
        let iovec = |address: usize| {
            let words = [address, PATTERN.len()];
            words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>()
        };
        let (local, remote) = (iovec(copy.as_mut_ptr() as usize), iovec(PATTERN.as_ptr() as usize));
        let mut args = [num(child), Arg::In(&local), num(1), Arg::In(&remote), num(1), num(0)];
        let read = call(libc::SYS_process_vm_readv, &mut args)?;
        if read != PATTERN.len() || copy != PATTERN {
            return Err(Failure::Skip("process_vm_readv read something else".to_owned()));
        }
        fact("target", child)
    })
}
