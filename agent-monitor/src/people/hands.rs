//! What is done to processes: stop, go on, end. Each by a pidfd checked against the start time, so that a reused pid is
//! never touched.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::attribute::TaskKey;
use crate::attribute::boot::same_start;

/// How a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It runs or sleeps.
    Runs,
    /// It is stopped, by a signal or a debugger.
    Stopped,
    /// It has ended; a zombie too.
    Gone,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Go on (`SIGCONT`).
    Wake,
    /// Stop (`SIGSTOP`).
    Stop,
    /// End (`SIGKILL`).
    Kill,
}

/// Acts on processes.
pub trait Hands: Send {
    /// How a process is.
    fn condition(&mut self, key: TaskKey) -> Condition;

    /// Does it; one that has ended is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn act(&mut self, key: TaskKey, act: Act) -> std::io::Result<()>;
}

/// This host's processes.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinuxHands;

/// State letter and start time of a process.
fn stat(tgid: u32) -> Option<(char, u64)> {
    let process = procfs::process::Process::new(i32::try_from(tgid).ok()?).ok()?;
    let stat = process.stat().ok()?;
    Some((stat.state, stat.starttime))
}

impl Hands for LinuxHands {
    fn condition(&mut self, key: TaskKey) -> Condition {
        match stat(key.tgid) {
            Some((_, ticks)) if !same_start(key.start, ticks) => Condition::Gone,
            Some(('T' | 't', _)) => Condition::Stopped,
            Some(('Z' | 'X' | 'x', _)) | None => Condition::Gone,
            Some(_) => Condition::Runs,
        }
    }

    fn act(&mut self, key: TaskKey, act: Act) -> std::io::Result<()> {
        let pid = i32::try_from(key.tgid).ok().and_then(Pid::from_raw);
        let Some(pid) = pid else { return Ok(()) };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // The descriptor names one process from here on; that it is the right one is seen now.
        if self.condition(key) == Condition::Gone {
            return Ok(());
        }
        let signal = match act {
            Act::Wake => Signal::CONT,
            Act::Stop => Signal::STOP,
            Act::Kill => Signal::KILL,
        };
        match pidfd_send_signal(&fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! Processes that exist only in a test.

    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::{Act, Condition, Hands, TaskKey};

    #[derive(Debug, Clone, Default)]
    pub(crate) struct FakeHands(pub(crate) Arc<Mutex<Processes>>);

    #[derive(Debug, Default)]
    pub(crate) struct Processes {
        pub(crate) conditions: BTreeMap<TaskKey, Condition>,
        pub(crate) acts: Vec<(TaskKey, Act)>,
    }

    impl Hands for FakeHands {
        fn condition(&mut self, key: TaskKey) -> Condition {
            let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            inner.conditions.get(&key).copied().unwrap_or(Condition::Gone)
        }

        fn act(&mut self, key: TaskKey, act: Act) -> std::io::Result<()> {
            let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            inner.acts.push((key, act));
            let known = inner.conditions.get_mut(&key);
            if let Some(condition) = known.filter(|condition| **condition != Condition::Gone) {
                *condition = match act {
                    Act::Wake => Condition::Runs,
                    Act::Stop => Condition::Stopped,
                    Act::Kill => Condition::Gone,
                };
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_process_is_stopped_woken_and_ended() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let (_, ticks) = stat(child.id()).unwrap();
        let key = TaskKey { tgid: child.id(), start: ticks * 10_000_000 + 3 };
        let other = TaskKey { start: key.start + 1_000_000_000, ..key };
        let mut hands = LinuxHands;
        hands.act(other, Act::Kill).unwrap();
        assert_ne!(hands.condition(key), Condition::Gone, "another process of that pid is not touched");
        let mut until = |act, wanted| {
            hands.act(key, act).unwrap();
            while hands.condition(key) != wanted {
                std::thread::yield_now();
            }
        };
        until(Act::Stop, Condition::Stopped);
        until(Act::Wake, Condition::Runs);
        until(Act::Kill, Condition::Gone);
        child.wait().unwrap();
        assert_eq!(hands.condition(key), Condition::Gone);
        hands.act(key, Act::Kill).unwrap();
    }
}
