//! Combinators and acts on the process tree: children, threads, daemons, names, waiting, ending.

use super::exec::reap;
use super::{Act, Facts, Failure, Outcome, after, number, then, wait_for_go, word};
use crate::sys::{self, Arg, Forked, call, cstr, num};
use std::os::fd::AsRawFd;

pub(crate) const ACTS: &[Act] = &[
    Act::new("fork", "ACT…", fork),
    Act::new("thread", "ACT…", thread),
    Act::new("threads", "COUNT ACT…", threads),
    Act::new("beside", "ACT… -- ACT…", beside),
    Act::new("fork-storm", "COUNT", fork_storm),
    Act::new("impatient", "COUNT ACT…", impatient),
    Act::new("setsid", "ACT…", setsid),
    Act::new("daemonise", "ACT…", daemonise),
    Act::new("prctl-name", "NAME ACT…", prctl_name),
    Act::new("pause", "ACT…", pause),
    Act::new("noop", "", |_| Ok(Facts::new())),
    Act::new("exit", "CODE", |args| sys::exit_now(number(args, 0)? as i32)),
    Act::new("die", "SIGNAL", die),
];

/// Performs the rest in a child that was made by `forked`, and waits for it.
pub(super) fn in_child(forked: Forked, rest: &[String]) -> Outcome {
    match forked {
        Forked::Child => sys::exit_now(i32::from(then(rest).is_err())),
        Forked::Parent { child } => reap(child),
    }
}

fn fork(args: &[String]) -> Outcome {
    in_child(sys::fork()?, args)
}

fn thread(args: &[String]) -> Outcome {
    let args = args.to_vec();
    let performed = std::thread::spawn(move || then(&args).is_ok()).join();
    Ok(vec![("performed", performed.is_ok_and(|ok| ok).to_string())])
}

/// Performs the rest in so many threads at the same moment.
fn threads(args: &[String]) -> Outcome {
    let count = number(args, 0)?;
    let rest = after(args, 1).to_vec();
    let gate = std::sync::Arc::new(std::sync::Barrier::new(count as usize));
    let started: Vec<_> = (0..count)
        .map(|_| {
            let (rest, gate) = (rest.clone(), std::sync::Arc::clone(&gate));
            std::thread::spawn(move || {
                gate.wait();
                then(&rest).is_ok()
            })
        })
        .collect();
    let performed = started.into_iter().filter_map(|thread| thread.join().ok()).filter(|ok| *ok).count();
    Ok(vec![("performed", performed.to_string())])
}

/// Performs the first in a thread of its own, and what follows at the same time.
fn beside(args: &[String]) -> Outcome {
    let cut = args.iter().position(|word| word == "--").unwrap_or(args.len());
    let (first, second) = (args.get(..cut).unwrap_or_default().to_vec(), after(args, cut + 1));
    let first = std::thread::spawn(move || then(&first).is_ok());
    let second = then(second).is_ok();
    let both = first.join().is_ok_and(|ok| ok) && second;
    Ok(vec![("both", both.to_string())])
}

/// Makes so many children one after the other, each of which makes one of its own and ends.
fn fork_storm(args: &[String]) -> Outcome {
    let count = number(args, 0)?;
    for _ in 0..count {
        match sys::fork()? {
            Forked::Child => {
                let inner = sys::fork();
                if let Ok(Forked::Parent { child }) = inner {
                    drop(reap(child));
                }
                sys::exit_now(0)
            }
            Forked::Parent { child } => drop(reap(child)?),
        }
    }
    Ok(vec![("forks", count.to_string())])
}

/// Performs the rest in a child, waits for it as a shell does, and lets it go on so many times when it has stopped. Says
/// so each time: `ACT stopped …`.
fn impatient(args: &[String]) -> Outcome {
    let count = number(args, 0)?;
    let Forked::Parent { child } = sys::fork()? else {
        sys::exit_now(i32::from(then(after(args, 1)).is_err()))
    };
    let mut stops = 0;
    loop {
        let mut status = [0_u8; 4];
        let flags = num(libc::WUNTRACED);
        call(libc::SYS_wait4, &mut [num(child), Arg::Out(&mut status), flags, Arg::Null])?;
        let status = i32::from_ne_bytes(status);
        if !libc::WIFSTOPPED(status) {
            return Ok(vec![("stops", stops.to_string()), ("status", status.to_string())]);
        }
        stops += 1;
        super::mark("stopped", &Ok(vec![("signal", libc::WSTOPSIG(status).to_string())]));
        if stops <= count {
            sys::kill(child, libc::SIGCONT)?;
        }
    }
}

fn setsid(args: &[String]) -> Outcome {
    // A group leader may not; the caller sees EPERM and has to fork first.
    call(libc::SYS_setsid, &mut [])?;
    then(args)
}

/// Double fork with a session in between; the rest is performed by the grandchild, once it is an orphan.
fn daemonise(args: &[String]) -> Outcome {
    match sys::fork()? {
        Forked::Parent { child } => reap(child),
        Forked::Child => {
            let between = || -> Result<(), Failure> {
                call(libc::SYS_setsid, &mut [])?;
                let (orphaned, alive) = sys::pipe()?;
                if let Forked::Child = sys::fork()? {
                    drop(alive);
                    // Comes back when the process in between is gone.
                    let mut byte = [0_u8; 1];
                    call(libc::SYS_read, &mut [num(orphaned.as_raw_fd()), Arg::Out(&mut byte), num(1)])?;
                    sys::exit_now(i32::from(then(args).is_err()));
                }
                Ok(())
            };
            sys::exit_now(i32::from(between().is_err()))
        }
    }
}

fn prctl_name(args: &[String]) -> Outcome {
    let name = cstr(word(args, 0)?);
    call(libc::SYS_prctl, &mut [num(libc::PR_SET_NAME), Arg::Str(&name)])?;
    then(after(args, 1))
}

/// Says that it waits, waits for a line on standard input, then performs the rest.
fn pause(args: &[String]) -> Outcome {
    let pid = sys::host_pid();
    super::say(&format!("PAUSED pid={pid} start={}", sys::start_ticks(pid)));
    if wait_for_go() { then(args) } else { sys::exit_now(0) }
}

fn die(args: &[String]) -> Outcome {
    let own = call(libc::SYS_getpid, &mut [])? as i32;
    sys::kill(own, number(args, 0)? as i32)?;
    Ok(Facts::new())
}
