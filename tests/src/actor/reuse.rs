//! Taking a pid that somebody else had.

use super::tree::in_child;
use super::{Act, Failure, Outcome, after, number};
use crate::sys::{self, Forked};
use std::io;

pub(crate) const ACTS: &[Act] = &[Act::new("pid-reuse", "PID ACT…", pid_reuse)];

/// How often the counter is wound back before giving up: other processes take pids in between.
const TRIES: usize = 200;

/// A child that has exactly this pid performs the rest.
///
/// `clone3` with `set_tid` does it at once; where that is refused, the pid counter is wound back until a fork
/// happens to hit it.
fn pid_reuse(args: &[String]) -> Outcome {
    let (pid, rest) = (number(args, 0)? as i32, after(args, 1));
    match sys::clone_with_pid(pid) {
        Ok(forked) => return in_child(forked, rest),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => return Err(error.into()),
        Err(_) => {}
    }
    for _ in 0..TRIES {
        wind_back(pid)?;
        match sys::fork()? {
            Forked::Child if sys::host_pid() == pid as u32 => return in_child(Forked::Child, rest),
            Forked::Child => sys::exit_now(0),
            Forked::Parent { child } if child == pid => return in_child(Forked::Parent { child }, rest),
            Forked::Parent { child } => drop(sys::wait_for(child)?),
        }
    }
    Err(Failure::Skip(format!("pid {pid} was not to be had in {TRIES} tries")))
}

fn wind_back(pid: i32) -> Result<(), Failure> {
    let counter = "/proc/sys/kernel/ns_last_pid";
    std::fs::write(counter, (pid - 1).to_string())
        .map_err(|error: io::Error| Failure::Skip(format!("no set_tid and no {counter}: {error}")))
}
