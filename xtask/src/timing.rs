//! How long each test took, from the lines that come while it runs: wall time, and processor time of the program that
//! runs it where that is known, because two machines share two processors.

use std::fs;
use std::time::{Duration, Instant};

use crate::workspace;

/// Cases that a lane names at its end.
const SLOWEST: usize = 10;

/// One case and what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// It passed: it neither failed nor was skipped
    pub(crate) passed: bool,
    pub(crate) wall: Duration,
    /// Processor time of the process that ran it, on all processors
    pub(crate) cpu: Duration,
}

/// Reads libtest's lines as they come.
pub(crate) struct Timer {
    /// The process whose processor time counts
    pid: u32,
    last: (Instant, Duration),
    pub(crate) running: Option<String>,
    pub(crate) cases: Vec<Case>,
}

impl Timer {
    /// For what this process prints.
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid, last: (Instant::now(), cpu_of(pid)), running: None, cases: Vec::new() }
    }

    /// One line, as soon as it is there.
    pub(crate) fn line(&mut self, line: &str) {
        if line.starts_with("running ") {
            self.last = (Instant::now(), cpu_of(self.pid));
        }
        let mut result = line;
        if let Some((name, rest)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ...")) {
            self.running = Some(name.trim().to_string());
            result = rest.trim();
        }
        // A test that prints breaks its line: the result then stands alone.
        let word = result.split([',', ' ']).next();
        if matches!(word, Some("ok" | "FAILED" | "ignored"))
            && let Some(name) = self.running.take()
        {
            let now = (Instant::now(), cpu_of(self.pid));
            let (wall, cpu) = (now.0.duration_since(self.last.0), now.1.saturating_sub(self.last.1));
            self.last = now;
            self.cases.push(Case { name, passed: word == Some("ok"), wall, cpu });
        }
    }
}

/// The slowest cases, a line each.
pub(crate) fn slowest(cases: &[Case]) -> String {
    let mut cases: Vec<&Case> = cases.iter().collect();
    cases.sort_by_key(|case| std::cmp::Reverse(case.wall));
    let lines = cases.iter().take(SLOWEST).map(|case| {
        let (wall, cpu) = (case.wall.as_secs_f64(), case.cpu.as_secs_f64());
        format!("  {wall:7.1} s ({cpu:.1} s of processor time)  {}\n", case.name)
    });
    lines.collect()
}

/// The page that states how long each lane takes on an idle machine of two processors.
const STATED: &str = "CONTRIBUTING.md";

/// What is said at the end of a lane that took much longer than is stated for it. No failure: machines are noisy.
pub(crate) fn compare(lane: &str, elapsed: Duration) -> Option<String> {
    let text = fs::read_to_string(workspace::root().ok()?.join(STATED)).ok()?;
    let stated = stated(&text, lane)?;
    (elapsed > stated.mul_f64(1.5)).then(|| {
        format!(
            "slow: lane {lane} took {:.0} s, more than 1.5 times the {:.0} s that {STATED} states (`cargo xtask bench \
             proof` measures them)",
            elapsed.as_secs_f64(),
            stated.as_secs_f64()
        )
    })
}

/// The seconds in the row of a table whose first cell is this lane: ``| `unit` | 150 s | … |``.
fn stated(text: &str, lane: &str) -> Option<Duration> {
    text.lines().find_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        (cells.next()? == format!("`{lane}`")).then_some(())?;
        let seconds = cells.next()?.strip_suffix(" s")?.parse().ok()?;
        Some(Duration::from_secs(seconds))
    })
}

/// Processor time that a process and its threads have used; zero where the kernel does not say (proc(5), `stat`).
pub(crate) fn cpu_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold blanks.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    // USER_HZ is 100 on every architecture that this runs on.
    Duration::from_millis(ticks * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let mut timer = Timer::new(std::process::id());
        text.lines().for_each(|line| timer.line(line));
        timer.cases.into_iter().map(|case| case.name).collect()
    }

    #[test]
    fn each_result_ends_a_case() {
        let text = "running 3 tests\ntest a::b ... ok\ntest c  ... FAILED\ntest d ... ignored, why\n";
        assert_eq!(names(text), ["a::b", "c", "d"]);
    }

    #[test]
    fn a_test_that_prints_ends_with_its_result() {
        let text = "test a ... \nFIGURES 1\nok, I say\nok\ntest b ... SKIP b: no\nignored\nok\n";
        assert_eq!(names(text), ["a", "b"]);
    }

    #[test]
    fn the_slowest_come_first() {
        let case = |name: &str, secs| Case {
            name: name.to_string(),
            passed: true,
            wall: Duration::from_secs(secs),
            cpu: Duration::from_secs(1),
        };
        let many: Vec<Case> = (0..12).map(|n| case(&format!("t{n}"), n)).collect();
        let text = slowest(&many);
        assert_eq!(text.lines().count(), SLOWEST);
        assert!(text.starts_with("     11.0 s (1.0 s of processor time)  t11\n"), "{text}");
    }

    #[test]
    fn stated_times_are_read_from_a_table() {
        let text =
            "x\n| lane | time | what |\n|---|---|---|\n| `check` | 75 s | lints |\n| `unit` | 150 s | |\n";
        assert_eq!(stated(text, "unit"), Some(Duration::from_secs(150)));
        assert_eq!(stated(text, "vm"), None);
    }

    #[test]
    fn processor_time_is_read() {
        let start = Instant::now();
        while cpu_of(std::process::id()) < Duration::from_millis(20)
            && start.elapsed() < Duration::from_secs(30)
        {
            std::hint::black_box((0..10_000_u64).sum::<u64>());
        }
        assert!(cpu_of(std::process::id()) >= Duration::from_millis(20));
        assert_eq!(cpu_of(u32::MAX), Duration::ZERO);
    }
}
