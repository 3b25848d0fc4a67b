//! Runs that the kernel left out. A program at a tracepoint is skipped where it runs already on that processor: where another
//! task was preempted in it, or an interrupt came into it. The kernel counts that for each program
//! (kernel/trace/bpf_trace.c `__bpf_trace_run` and kernel/bpf/syscall.c `bpf_prog_show_fdinfo`, `recursion_misses`, 5.12);
//! programs of LSM hooks are never left out (include/linux/bpf_verifier.h `bpf_prog_check_recur`).

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd as _;

use agent_monitor_ebpf::header::Kind;
use agent_monitor_ebpf::loss::{LossKey, LossReason, LossValue};

use super::object::Kernel;

/// What is not told when none of these programs runs. Where two watch the same, one is enough.
const WATCHED: &[(&[&str], Option<Kind>)] = &[
    (&["process_fork"], Some(Kind::Fork)),
    (&["process_exit"], Some(Kind::Exit)),
    (&["process_exec", "process_exec_again"], Some(Kind::Exec)),
    (&["exec_words", "exec_words_again"], Some(Kind::ArgChunk)),
    (&["partial_exec"], Some(Kind::Exec)),
    (&["cgroup_mkdir"], Some(Kind::Bound)),
    (&["cgroup_rmdir"], None),
    (&["cgroup_attach"], Some(Kind::Bound)),
    (&["flow_tcp"], Some(Kind::NetFlow)),
    (&["exit_unshare"], Some(Kind::PrivNamespace)),
    (&["exit_setns"], Some(Kind::PrivNamespace)),
    (&["exit_unshare32"], Some(Kind::PrivNamespace)),
    (&["exit_setns32"], Some(Kind::PrivNamespace)),
    (&["partial_exit"], None),
];

/// What was left out since the programs were loaded, as losses.
#[derive(Debug, Default)]
pub struct NotRun {
    /// Misses by program, as they were last.
    last: BTreeMap<&'static str, u64>,
    losses: BTreeMap<u16, LossValue>,
    read_at: u64,
}

impl NotRun {
    /// Takes in what `misses` says of each program, at `now` (nanoseconds of the boot clock).
    pub fn read(&mut self, now: u64, misses: impl Fn(&str) -> Option<u64>) {
        for (programs, kind) in WATCHED {
            // Of two that watch the same, both must be left out: that they were for the same act is the worst case.
            let gained = programs.iter().filter_map(|program| {
                let count = misses(program)?;
                let before = self.last.insert(program, count).unwrap_or_default();
                Some(count.saturating_sub(before))
            });
            let lost = gained.min().unwrap_or_default();
            if lost == 0 {
                continue;
            }
            let kind = kind.map_or(0, |kind| kind as u16);
            let first = self.read_at;
            let value = self.losses.entry(kind).or_insert(LossValue { count: 0, first, last: now });
            value.count += lost;
            value.last = now;
        }
        self.read_at = now;
    }

    /// The losses until now.
    pub fn losses(&self) -> impl Iterator<Item = (LossKey, LossValue)> {
        let key = |kind| LossKey { agent: 0, kind, reason: LossReason::NotRun as u16 };
        self.losses.iter().map(move |(kind, value)| (key(*kind), *value))
    }
}

impl Kernel {
    /// How often a program was left out; `None` where it is not attached or the kernel does not say.
    #[must_use]
    pub fn left_out(&self, program: &str) -> Option<u64> {
        self.program_figure(program, "recursion_misses:")
    }

    /// A figure that the kernel keeps of an attached program, by its label (`bpf_prog_show_fdinfo`, kernel/bpf/syscall.c).
    pub(super) fn program_figure(&self, program: &str, label: &str) -> Option<u64> {
        let fd = self.program_fd(program)?;
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
        figure(&text, label)
    }
}

fn figure(fdinfo: &str, label: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix(label))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::attach::{Hook, PROGRAMS};

    #[test]
    fn every_program_that_can_be_left_out_is_watched() {
        let watched: Vec<&str> = WATCHED.iter().flat_map(|(programs, _)| programs.iter().copied()).collect();
        let can =
            |hook| matches!(hook, Hook::TpBtf(_) | Hook::RawTp(_) | Hook::Syscall(_) | Hook::Syscall32(_));
        for program in PROGRAMS {
            assert_eq!(watched.contains(&program.name), can(program.hook), "{}", program.name);
        }
    }

    #[test]
    fn what_two_watch_is_lost_when_both_are_left_out() {
        let mut book = NotRun::default();
        let told =
            |book: &NotRun| book.losses().map(|(key, value)| (key.kind, value.count)).collect::<Vec<_>>();
        let (fork, exec) = (Kind::Fork as u16, Kind::Exec as u16);
        let counts = |fork: u64, one: u64, two: u64| {
            move |program: &str| match program {
                "process_fork" => Some(fork),
                "process_exec" => Some(one),
                "process_exec_again" => Some(two),
                _ => None,
            }
        };
        book.read(10, counts(0, 0, 0));
        book.read(20, counts(3, 5, 0));
        assert_eq!(told(&book), [(fork, 3)]);
        book.read(30, counts(3, 6, 4));
        assert_eq!(told(&book), [(fork, 3), (exec, 1)]);
        let (key, value) = book.losses().next().unwrap();
        assert_eq!(LossReason::from_u16(key.reason), Some(LossReason::NotRun));
        assert_eq!((value.first, value.last), (10, 20));
        book.read(40, counts(4, 6, 4));
        assert_eq!(told(&book), [(fork, 4), (exec, 1)]);
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        let text = "prog_type:\t26\nrun_cnt:\t0\nrecursion_misses:\t17\nverified_insns:\t9\n";
        assert_eq!(figure(text, "recursion_misses:"), Some(17));
        assert_eq!(figure("prog_type:\t26\n", "recursion_misses:"), None);
    }
}
