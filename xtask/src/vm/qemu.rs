//! One virtual machine: boots a kernel under emulation, watches its console, takes its verdict.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::kernel::Kernel;
use super::{SILENCE, TOTAL};
use crate::shell::{self, End, Limits};
use crate::timing::{self, Timer};
use crate::workspace;

/// What `guest-init` prints last. Nothing else counts as success, not even a clean power-off.
const VERDICT: &str = "GUEST-VERDICT exit=";

/// Kernel messages after which a result means nothing.
const TROUBLE: &[&str] = &[
    "Kernel panic",
    "Oops",
    "BUG:",
    "general protection fault",
    "soft lockup",
    "blocked for more than",
    "KASAN",
    "bpf: loader error",
];

/// The head of every WARNING and BUG; the next line says where.
const HEAD: &str = "[ cut here ]";

/// Warnings that a kernel gives for reasons of its own, by the function that they are in, and why.
const KNOWN: &[(&str, &str)] = &[(
    "task_participate_group_stop+",
    "a thread that execs keeps its part in a stop of the whole process that the exec has ended (kernel/signal.c \
     zap_other_threads); any SIGSTOP at that moment does it, and the warning is its only effect",
)];

/// How the machines are made.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) mem: u32,
    /// Added to the kernel command line
    pub(crate) words: Vec<String>,
    pub(crate) quiet: bool,
    /// Where the serial logs go
    pub(crate) logs: PathBuf,
    /// One processor: there, nothing can happen while another one is half done
    pub(crate) alone: bool,
    /// The same, and its clock counts instructions: what runs beside the machine changes no figure
    pub(crate) counted: bool,
}

/// What became of one kernel.
pub(crate) struct Outcome {
    pub(crate) kernel: Kernel,
    /// Everything the console said
    pub(crate) text: String,
    /// Why the machine as such failed, whatever its tests say
    pub(crate) problem: Option<String>,
    /// Warnings that the kernel gives by itself
    known: Vec<&'static str>,
    /// What each test took
    pub(crate) cases: Vec<timing::Case>,
    /// Cases that passed in an earlier boot, which the emulator ended
    pub(crate) earlier: usize,
    /// The case that was running at the end
    running: Option<String>,
    log: PathBuf,
    elapsed: Duration,
    /// Processor time of the emulator
    cpu: Duration,
}

impl Outcome {
    /// True only with a good verdict and a healthy kernel.
    pub(crate) fn passed(&self) -> bool {
        self.problem.is_none()
    }

    /// Whether the emulator is to blame. While the kernel patches its code (a program is attached), the byte it writes for
    /// that long is `int3`; an emulator whose processors run on threads of their own may still execute it when the kernel
    /// has done with it, which no processor does.
    pub(crate) fn lost_a_patch(&self) -> bool {
        self.problem.is_some() && lost_a_patch(&self.text)
    }

    /// The case to go on with in another boot; `None` where not all before it passed, and all of them must run again.
    pub(crate) fn interrupted(&self) -> Option<&str> {
        let clean = !self.cases.is_empty() && self.cases.iter().all(|case| case.passed);
        self.running.as_deref().filter(|_| clean)
    }

    /// This boot as the continuation of an earlier one.
    pub(crate) fn after(mut self, earlier: Self) -> Self {
        self.earlier = earlier.cases.len();
        self.elapsed += earlier.elapsed;
        self.cpu += earlier.cpu;
        self.cases.splice(0..0, earlier.cases);
        self
    }

    /// One line for the terminal.
    pub(crate) fn summary(&self) -> String {
        let Self { kernel, elapsed, cpu, log, known, .. } = self;
        let verdict = self.problem.as_deref().unwrap_or("ok");
        let log = workspace::shown(log);
        let known: String =
            known.iter().map(|why| format!("\n  known warning of the kernel: {why}")).collect();
        format!(
            "vm {} ({}): {verdict} in {:.0} s ({:.0} s of processor time), {log}{known}",
            kernel.series,
            kernel.release,
            elapsed.as_secs_f64(),
            cpu.as_secs_f64()
        )
    }
}

/// Boots, streams the console to the log and the terminal, and returns when the machine is off.
pub(crate) fn run(kernel: &Kernel, initramfs: &Path, machine: &Machine) -> Result<Outcome> {
    fs::create_dir_all(&machine.logs)?;
    let path = machine.logs.join(format!("{}.log", kernel.series));
    let mut log = fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    println!("vm {}: booting {}, log in {}", kernel.series, kernel.release, workspace::shown(&path));
    let start = Instant::now();
    let mut watch = Watch::default();
    let mut text = String::new();
    let limits = Limits { silence: SILENCE, total: TOTAL };
    let emulator = shell::piped_both(qemu(kernel, initramfs, machine).args(APART))?;
    let pid = emulator.id();
    let (mut timer, mut cpu) = (Timer::new(pid), Duration::ZERO);
    let end = shell::watch(emulator, limits, |raw| {
        let line = &plain(raw);
        watch.line(line);
        if !from_kernel(line) {
            timer.line(line);
        }
        // Once it has ended there is nobody to ask.
        cpu = cpu.max(timing::cpu_of(pid));
        // A full disk must not hide what the machine says.
        let (wall, used) = (start.elapsed().as_secs_f64(), cpu.as_secs_f64());
        writeln!(log, "{wall:7.1} {used:7.1} {line}").ok();
        if !machine.quiet {
            println!("{:>6} | {line}", kernel.series);
        }
        text.push_str(line);
        text.push('\n');
    })?;
    let problem = watch.problem(end);
    let known = watch.known;
    let (cases, running, elapsed) = (timer.cases, timer.running, start.elapsed());
    let kernel = kernel.clone();
    Ok(Outcome { kernel, text, problem, known, cases, earlier: 0, running, log: path, elapsed, cpu })
}

/// Boots with the terminal as console.
pub(crate) fn shell(kernel: &Kernel, initramfs: &Path, machine: &Machine) -> Result<ExitCode> {
    println!("vm {}: Ctrl-A X ends the machine", kernel.series);
    shell::run(qemu(kernel, initramfs, machine).arg("-nographic"))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether BPF local storage on this kernel takes memory by `kmalloc_nolock` (since 6.19), which refuses on a CPU without
/// cmpxchg16b unless the slab is a debugged one (mm/slub.c). The emulated CPU has to do without cmpxchg16b.
fn needs_debug_slabs(release: &str) -> bool {
    let mut numbers = release.split(['.', '-', '+']).map_while(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(19))
}

/// Two serial lines: what the kernel says must not end up in the middle of what the tests say. The kernel's goes to stderr.
const APART: &[&str] = &[
    "-display",
    "none",
    "-monitor",
    "none",
    "-chardev",
    "file,id=kernel,path=/dev/stderr",
    "-chardev",
    "stdio,id=tests,signal=off",
    "-serial",
    "chardev:kernel",
    "-serial",
    "chardev:tests",
];

fn qemu(kernel: &Kernel, initramfs: &Path, machine: &Machine) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    let alone = machine.alone || machine.counted;
    // Emulated on purpose: a development machine may have a /dev/kvm that cannot run a stock kernel.
    qemu.args(["-accel", if alone { "tcg,thread=single" } else { "tcg,thread=multi" }])
        // Emulated cmpxchg16b corrupts flags when threaded, and the slab allocator panics.
        .args(["-cpu", "qemu64,-cx16", "-smp", if alone { "1" } else { "2" }, "-m"])
        .arg(machine.mem.to_string())
        .args(["-no-reboot", "-nic", "none", "-kernel"])
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs);
    if machine.counted {
        qemu.args(["-icount", "shift=0,sleep=off"]);
    }
    // Warnings are shown, or a WARN that a BPF program provokes would pass unseen.
    let mut line = "console=ttyS0 loglevel=5 edd=off panic=-1 oops=panic".to_string();
    if needs_debug_slabs(&kernel.release) {
        line.push_str(" slab_debug=F,kmalloc-*");
    }
    for word in &machine.words {
        line.push(' ');
        line.push_str(word);
    }
    qemu.arg("-append").arg(line);
    qemu
}

/// Reads the console line by line.
#[derive(Default)]
struct Watch {
    verdict: Option<i32>,
    trouble: Option<String>,
    /// The line that says where a warning comes from is still to come
    head: bool,
    known: Vec<&'static str>,
}

impl Watch {
    fn line(&mut self, line: &str) {
        if let Some((_, code)) = line.split_once(VERDICT) {
            self.verdict = code.trim().parse().ok();
        }
        if !from_kernel(line) {
            return;
        }
        let warned = std::mem::replace(&mut self.head, line.contains(HEAD));
        let known = KNOWN.iter().find(|(place, _)| warned && line.contains(place));
        if let Some((_, why)) = known {
            self.known.push(why);
        } else if self.trouble.is_none() && (warned || TROUBLE.iter().any(|sign| line.contains(sign))) {
            self.trouble = Some(line.trim().to_string());
        }
    }

    fn problem(&self, end: End) -> Option<String> {
        if self.head {
            return Some("the kernel complained, and died of it".to_string());
        }
        if let Some(trouble) = &self.trouble {
            return Some(format!("the kernel complained: {trouble}"));
        }
        match (self.verdict, end) {
            (Some(0), _) => None,
            (Some(code), _) => Some(format!("the tests failed (exit {code})")),
            (None, End::Silent) => Some(format!("nothing on the console for {} s", SILENCE.as_secs())),
            (None, End::Overdue) => Some(format!("not done after {} s", TOTAL.as_secs())),
            (None, End::Exited { .. }) => Some("the machine ended without a verdict".to_string()),
        }
    }
}

/// Without escape sequences: the firmware's clear the terminal.
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // `ESC [ 2 J` up to its letter, or `ESC c`.
            if chars.next() == Some('[') {
                chars.find(|end| end.is_ascii_alphabetic());
            }
        } else if !c.is_control() || c == '\t' {
            text.push(c);
        }
    }
    text
}

/// Anywhere in a line: the test runner is in the middle of `test NAME ... `.
fn lost_a_patch(text: &str) -> bool {
    text.lines().any(|line| {
        let mut messages = line.match_indices("] Oops: int3: ");
        messages.any(|(at, _)| {
            line.get(..=at)
                .and_then(|before| before.rfind('[').and_then(|from| line.get(from..=at)))
                .is_some_and(from_kernel)
        })
    })
}

/// Kernel messages begin with `[    1.234567]`; a test may well print "BUG:" on its own account.
fn from_kernel(line: &str) -> bool {
    let time = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']'));
    time.is_some_and(|(time, _)| time.trim().parse::<f64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: End = End::Exited { success: true };

    fn watch(text: &str) -> Watch {
        let mut watch = Watch::default();
        text.lines().for_each(|line| watch.line(line));
        watch
    }

    #[test]
    fn only_a_verdict_of_zero_passes() {
        assert_eq!(watch("GUEST-VERDICT exit=0").problem(OFF), None);
        assert!(watch("GUEST-VERDICT exit=1").problem(OFF).is_some());
        assert!(watch("test result: ok. 3 passed; 0 failed; 0 ignored").problem(OFF).is_some());
        assert!(watch("GUEST-VERDICT exit=").problem(OFF).is_some());
    }

    #[test]
    fn a_sick_kernel_fails_whatever_the_tests_say() {
        let head = "[   12.345678] ------------[ cut here ]------------\n";
        assert!(watch(&format!("{head}GUEST-VERDICT exit=0")).problem(OFF).is_some());
        let warned =
            |at: &str| format!("{head}[   12.345679] WARNING: CPU: 0 PID: 1 at {at}\nGUEST-VERDICT exit=0");
        assert!(watch(&warned("kernel/bpf/core.c:1 f+0x1/0x2")).problem(OFF).unwrap().contains("core.c"));
        let known = watch(&warned("kernel/signal.c:373 task_participate_group_stop+0xbc/0xd0"));
        assert_eq!((known.problem(OFF), known.known.len()), (None, 1));
        assert_eq!(watch("test x: BUG: told you\nGUEST-VERDICT exit=0").problem(OFF), None);
    }

    #[test]
    fn a_lost_patch_is_told_from_what_a_test_says() {
        assert!(lost_a_patch("test survive::killed  ... [  727.461616] Oops: int3: 0000 [#1] SMP NOPTI"));
        assert!(!lost_a_patch("test x ... said [not a time] Oops: int3: 0000"));
        assert!(!lost_a_patch("[  727.461616] Oops: general protection fault"));
    }

    #[test]
    fn escape_sequences_are_dropped() {
        assert_eq!(plain("\u{1b}c\u{1b}[?7l\u{1b}[2JSeaBIOS\r"), "SeaBIOS");
    }

    #[test]
    fn silence_is_named() {
        assert!(watch("booting").problem(End::Silent).unwrap().contains("nothing on the console"));
    }
}
