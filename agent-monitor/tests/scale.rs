//! A log of many days, and what asking it costs: `events` and `verify` on generated records.
//!
//! Not part of the test lanes: `cargo xtask bench log-scale` runs it, with `AGENT_MONITOR_RECORDS` records.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made has failed")]

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_monitor::log::key::Keys;
use agent_monitor::log::segment;
use agent_monitor::log::writer::Writer;
use agent_monitor::log::{Moment, Settings};
use agent_monitor::model::{
    Access, Agent, Ancestor, BoundBy, Errno, Event, Family, File, Kind, Mode, Network, Process, Source, Time,
    Verdict,
};
use tempfile::TempDir;

/// When the first record was made.
const START: i128 = 1_700_000_000_000_000_000;
/// Over how much time the records are spread.
const DAYS: i128 = 10;
/// Seconds between two checkpoints.
const INTERVAL: u64 = 60;
/// What asking may take, whatever the length of the log.
const MEMORY_MAX_KIB: i64 = 300 << 10;
/// Agents of the host.
const AGENTS: u64 = 12;

/// Numbers without a pattern that a compressor would find, the same in every run (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn time(record: u64, records: u64) -> Time {
    let span = DAYS * 86_400_000_000_000;
    Time::from_unix_nanos(START + span * i128::from(record) / i128::from(records.max(1)))
}

/// A process that lives for some hundred records, so that there are as many processes as a host has.
fn process(agent: u64, life: u64) -> Arc<Process> {
    let pid = u32::try_from(1000 + life % 4_000_000).unwrap_or(1000);
    let names = ["node", "python3", "git", "bash", "cargo", "rg", "sed", "cc1plus"];
    let name = names[usize::try_from(life % 8).unwrap_or(0)];
    let started = Time::from_unix_nanos(START + i128::from(life) * 1_000_003);
    let parent = |pid, exe: &str| Ancestor { pid, exe: Some(exe.to_owned()), start_time: Some(started) };
    Arc::new(Process {
        pid,
        tid: Some(pid),
        ppid: Some(900),
        start_time: Some(started),
        exe: Some(format!("/usr/bin/{name}")),
        args: vec![name.to_owned(), "--task".to_owned(), format!("{:016x}", life.wrapping_mul(0x9e37_79b9))],
        cwd: Some(format!("/srv/agent-{agent}/work")),
        uid: Some(1000 + u32::try_from(agent).unwrap_or(0)),
        user: Some(format!("agent-{agent}")),
        ancestry: vec![parent(900, "/usr/bin/node"), parent(1, "/usr/lib/systemd/systemd")],
        ..Process::default()
    })
}

/// The events of a host on which agents build, read and connect; one in 5,000 is refused.
struct Host {
    random: Random,
    agents: Vec<Arc<Agent>>,
    processes: Vec<(Arc<Process>, u64)>,
    lives: u64,
}

impl Host {
    fn new() -> Self {
        let agent = |number: u64| {
            Arc::new(Agent {
                id: format!("agent-{number}"),
                session: Some(format!("0193a1b2-0000-7000-8000-{number:012}")),
                bound_by: BoundBy::Inherited,
                delegator: None,
                bound_delay_ms: None,
            })
        };
        let processes = (0..AGENTS).map(|agent| (process(agent, agent), 0)).collect();
        Self { random: Random(7), agents: (0..AGENTS).map(agent).collect(), processes, lives: AGENTS }
    }

    fn event(&mut self, record: u64, records: u64) -> Event {
        let agent = self.random.below(AGENTS);
        let at = usize::try_from(agent).unwrap_or(0);
        if self.processes[at].1 == 0 {
            self.lives += 1;
            self.processes[at] = (process(agent, self.lives), 50 + self.random.below(400));
        }
        self.processes[at].1 -= 1;
        let kind = match self.random.below(100) {
            0..70 => Kind::FileOpen,
            70..78 => Kind::FileCreate,
            78..84 => Kind::FileDelete,
            84..90 => Kind::ProcessExec,
            90..95 => Kind::NetworkConnect,
            95..98 => Kind::NetworkFlow,
            _ => Kind::ProcessExit,
        };
        let refused = kind != Kind::ProcessExit && self.random.below(5000) == 0;
        let mut event = Event::new(time(record, records), kind, Source::Lsm);
        event.seq = record + 1;
        event.verdict = Some(if refused { Verdict::Deny } else { Verdict::Allow });
        event.errno = if refused { Errno::from_return(-13) } else { None };
        event.mode = Some(Mode::Enforce);
        let family = match kind.family() {
            Family::Network => "net",
            Family::Process => "exec",
            _ => "file",
        };
        event.rule = Some(format!("scope.{family}[{}]", self.random.below(20)));
        event.agent = Some(Arc::clone(&self.agents[at]));
        event.process = Some(Arc::clone(&self.processes[at].0));
        match kind {
            Kind::NetworkConnect | Kind::NetworkFlow => {
                let host = self.random.below(250);
                event.network = Some(Network {
                    protocol: Some("tcp".to_owned()),
                    remote: format!("192.0.2.{host}:443").parse().ok(),
                    bytes_sent: (kind == Kind::NetworkFlow).then(|| self.random.below(1 << 20)),
                    bytes_received: (kind == Kind::NetworkFlow).then(|| self.random.below(1 << 24)),
                    ..Network::default()
                });
            }
            Kind::ProcessExec | Kind::ProcessExit => {}
            _ => {
                let (dir, name) = (self.random.below(400), self.random.below(60_000));
                event.file = Some(File {
                    path: Some(format!("/srv/agent-{agent}/work/module-{dir}/source-{name}.rs")),
                    access: vec![Access::Read],
                    dev: Some("254:0".to_owned()),
                    inode: Some(name * 400 + dir),
                    ..File::default()
                });
            }
        }
        event
    }
}

fn generate(state: &Path, records: u64) {
    let moment = |record: u64| {
        let time = time(record, records);
        let nanos = u64::try_from(time.unix_nanos() - START).unwrap_or(0);
        Moment { time, boot_id: "boot".to_owned(), boot_nanos: nanos }
    };
    let settings = Settings { interval: Duration::from_secs(INTERVAL), ..Settings::default() };
    let (mut writer, _) =
        Writer::open(&state.join("log"), Keys::in_state(state), settings, "host", &moment(0)).unwrap();
    let mut host = Host::new();
    let mut sealed = moment(0).time;
    for record in 0..records {
        let event = host.event(record, records);
        let due = event.time.unix_nanos() - sealed.unix_nanos() >= i128::from(INTERVAL) * 1_000_000_000;
        writer.append(&event);
        if writer.staged_bytes() >= 1 << 20 {
            writer.flush().unwrap();
        }
        if due || writer.is_due() {
            sealed = event.time;
            writer.checkpoint(&moment(record), false).unwrap();
            if writer.is_due() {
                writer.roll(&moment(record)).unwrap();
            }
        }
    }
    writer.checkpoint(&moment(records), true).unwrap();
}

/// One question to the program: lines of the answer, seconds, and the most memory it had.
struct Asked {
    lines: u64,
    first_lines: String,
    seconds: f64,
    peak_kib: i64,
}

#[expect(
    clippy::zombie_processes,
    reason = "waited for below, by its pid: the standard library tells no peak memory"
)]
fn ask(state: &Path, args: &[&str]) -> Asked {
    let started = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent-monitor"));
    command.args(args).env("AGENT_MONITOR_STATE_DIR", state).env("AGENT_MONITOR_SOCKET", state.join("none"));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let (mut buffer, mut lines, mut head) = (vec![0; 1 << 16], 0, Vec::new());
    loop {
        let read = out.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
        if head.len() < 4096 {
            head.extend_from_slice(&buffer[..read.min(4096)]);
        }
    }
    let (ok, peak_kib) = wait(child.id());
    assert!(ok, "{args:?} failed");
    let first_lines = String::from_utf8_lossy(&head).into_owned();
    Asked { lines, first_lines, seconds: started.elapsed().as_secs_f64(), peak_kib }
}

/// Waits for a child; whether it ended well, and its peak resident memory as the kernel counted it.
fn wait(pid: u32) -> (bool, i64) {
    let mut status = 0;
    // SAFETY: a struct of plain integers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let pid = libc::pid_t::try_from(pid).unwrap();
    // SAFETY: the pid is of our own child that nobody else waits for, and both pointers are to live values of their types.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    (waited == pid && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, usage.ru_maxrss)
}

fn place() -> (Option<TempDir>, PathBuf) {
    match std::env::var_os("AGENT_MONITOR_SCALE_DIR") {
        Some(dir) => (None, dir.into()),
        None => {
            let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let path = dir.path().to_owned();
            (Some(dir), path)
        }
    }
}

/// Figures, not a test: but memory is bounded, and the answers are as many as were generated.
#[test]
#[ignore = "minutes, and gigabytes: cargo xtask bench log-scale"]
fn a_long_log_is_asked_within_bounded_memory() {
    let records: u64 = std::env::var("AGENT_MONITOR_RECORDS").map_or(2_000_000, |text| text.parse().unwrap());
    let (_keep, dir) = place();
    let state = dir.join("state");
    if !state.join("log").exists() {
        let started = Instant::now();
        generate(&state, records);
        println!("FIGURES log-scale: {records} records made in {:.0} s", started.elapsed().as_secs_f64());
    }
    let segments = segment::list(&state.join("log")).unwrap();
    let bytes: u64 = segments.iter().map(|segment| fs::metadata(&segment.path).unwrap().len()).sum();
    println!(
        "FIGURES log-scale: {} segments, {bytes} bytes, {:.1} bytes per record",
        segments.len(),
        bytes as f64 / records as f64
    );
    let middle = records / 2;
    let (since, hour) = (time(middle, records), 3_600_000_000_000);
    let until = Time::from_unix_nanos(since.unix_nanos() + hour).to_string();
    let since = since.to_string();
    let hour = ["--since", &since, "--until", &until];
    let in_hour = u64::try_from(i128::from(records) / (DAYS * 24)).unwrap_or(0);
    let mut most = 0;
    let mut told = |what: &str, args: &[&str]| -> Asked {
        let asked = ask(&state, args);
        most = most.max(asked.peak_kib);
        println!(
            "FIGURES log-scale: {what}: {} lines in {:.1} s, {} MiB at most",
            asked.lines,
            asked.seconds,
            asked.peak_kib >> 10
        );
        asked
    };
    let rows = told("one hour, rows", &[&["events", "--log", "-o", "jsonl"], hour.as_slice()].concat());
    assert!(rows.lines.abs_diff(in_hour) <= 2, "{} rows, and {in_hour} were made", rows.lines);
    told(
        "one hour of one agent, refused",
        &[&["events", "--log", "--agent", "agent-3", "--verdict", "deny"], hour.as_slice()].concat(),
    );
    told("one hour, tree", &[&["events", "--log", "--tree"], hour.as_slice()].concat());
    told("one hour, timeline", &[&["events", "--log", "--timeline"], hour.as_slice()].concat());
    told("whole log, free text", &["events", "--log", "-o", "jsonl", "--text", "module-399/source-1234.rs"]);
    told("whole log, the newest ten", &["events", "--log", "-n", "10"]);
    told("whole log, refused", &["events", "--log", "--verdict", "deny", "-o", "jsonl"]);
    told("whole log, timeline", &["events", "--log", "--timeline", "-o", "json"]);
    told("whole log, tree", &["events", "--log", "--tree", "-o", "json"]);
    let all = told("whole log, every record", &["events", "--log", "-o", "jsonl"]);
    assert!(all.lines >= records, "{} of {records}", all.lines);
    let verified = told("verify", &["verify", "-o", "json"]);
    assert!(verified.first_lines.contains("\"ok\": true"), "{}", verified.first_lines);
    assert!(most <= MEMORY_MAX_KIB, "{most} KiB");
}
