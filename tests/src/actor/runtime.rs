//! What runtimes of languages do around an act: many processes at once, and threads that a scheduler interrupts with
//! signals, as Go's does.

use super::file::open_raw;
use super::{Act, Facts, Failure, Outcome, after, fact, mark, number, say, then, word};
use crate::sys::{self, Forked, call, num, wait};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub(crate) const ACTS: &[Act] = &[
    Act::new("crowd", "COUNT ACT… (with @N for the number)", crowd),
    Act::new("urged", "MILLIS ACT…", urged),
    Act::new("clocked-opens", "PATH COUNT", clocked_opens),
];

/// So many children at once, each of which performs the rest with its own number, and says how that went:
/// `ACT member … number=N ok|errno=…`.
fn crowd(args: &[String]) -> Outcome {
    let (count, rest) = (number(args, 0)?, after(args, 1));
    let mut children = Vec::new();
    for n in 0..count {
        match sys::fork()? {
            Forked::Child => {
                let words: Vec<String> = rest.iter().map(|word| word.replace("@N", &n.to_string())).collect();
                let how = match then(&words) {
                    Ok(_) => "ok".to_owned(),
                    Err(Failure::Errno(error)) => format!("errno={}", sys::errno::name(&error)),
                    Err(Failure::Skip(why) | Failure::Usage(why)) => format!("usage={why}"),
                };
                say(&format!("ACT member pid={} number={n} {how}", sys::host_pid()));
                sys::exit_now(0)
            }
            Forked::Parent { child } => children.push(child),
        }
    }
    for child in children {
        sys::wait_for(child)?;
    }
    fact("children", count)
}

/// Signals that the handler has taken.
static URGED: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_urge(_signal: libc::c_int) {
    URGED.fetch_add(1, Ordering::Relaxed);
}

/// Performs the rest in a thread that another one interrupts by `SIGURG` every so many milliseconds, as Go's scheduler
/// does, while more threads come and go to sleep.
fn urged(args: &[String]) -> Outcome {
    let (pause, rest) = (Duration::from_millis(number(args, 0)? as u64), after(args, 1).to_vec());
    // SAFETY: zeroed is a valid sigaction; the handler does one atomic addition and has the signature that goes without
    // SA_SIGINFO.
    let set = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_urge as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGURG, &raw const action, std::ptr::null_mut())
    };
    if set != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let over = Arc::new(AtomicBool::new(false));
    let idle = |pause: Duration| {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                wait::pause(pause);
            }
        })
    };
    let mut others: Vec<_> = (0..6).map(|n| idle(Duration::from_millis(1 + n))).collect();
    let (tell, told) = std::sync::mpsc::channel();
    let worker = std::thread::spawn(move || {
        tell.send(call(libc::SYS_gettid, &mut [])).ok();
        say(&format!("ACT worker pid={} tid={} ok", sys::host_pid(), sys::host_tid()));
        then(&rest).is_ok()
    });
    let own = call(libc::SYS_getpid, &mut [])?;
    let target = told.recv().map_err(std::io::Error::other)??;
    let done = Arc::clone(&over);
    others.push(std::thread::spawn(move || {
        while !done.load(Ordering::Relaxed) {
            // Once the thread has ended there is nobody to urge.
            call(libc::SYS_tgkill, &mut [num(own), num(target), num(libc::SIGURG)]).ok();
            wait::pause(pause);
        }
    }));
    let performed = worker.join().is_ok_and(|ok| ok);
    over.store(true, Ordering::Relaxed);
    for other in others {
        other.join().ok();
    }
    Ok(vec![("performed", performed.to_string()), ("signals", URGED.load(Ordering::Relaxed).to_string())])
}

/// Opens the file so many times and says after each when the call returned, in nanoseconds of the monotonic clock.
fn clocked_opens(args: &[String]) -> Outcome {
    let (path, count) = (word(args, 0)?, number(args, 1)?);
    for _ in 0..count {
        let opened = open_raw(path, "read");
        let at = sys::monotonic_nanos()?;
        mark("clocked-open", &opened.and_then(|_| fact("at", at)));
    }
    Ok(Facts::new())
}
