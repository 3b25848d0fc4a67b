//! A daemon of the test's own: private registry, state, socket and bpffs.

use super::PATIENCE;
use super::client;
use super::feed::Feed;
use super::lane::monitor_program;
use super::parked::{self, Pins};
use super::registry::Record;
use super::scratch::Scratch;
use crate::sys::{self, wait};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// How a daemon is to be started.
#[derive(Debug)]
pub struct Setup {
    pub scratch: Scratch,
    pub unattributed: &'static str,
    extra: Vec<String>,
    /// Pins that another daemon left; without them, a BPF file system of its own.
    parked: Option<Pins>,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    pub fn new() -> Self {
        let mut scratch = Scratch::new();
        for dir in ["registry", "state", "run"] {
            scratch.dir(dir);
        }
        let parked = Pins::take();
        if parked.is_none() {
            scratch.bpffs();
        }
        Self { scratch, unattributed: "exec", extra: Vec::new(), parked }
    }

    pub fn record(self, record: &Record) -> Self {
        record.write(&self.registry());
        self
    }

    pub fn unattributed(mut self, what: &'static str) -> Self {
        self.unattributed = what;
        self
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.extra.push(arg.to_owned());
        self
    }

    pub fn registry(&self) -> PathBuf {
        self.scratch.path("registry")
    }

    pub fn socket(&self) -> PathBuf {
        self.scratch.path("run/control.sock")
    }

    /// Below the root of a bpffs of its own, as on a host it is below `/sys/fs/bpf`.
    pub fn bpffs(&self) -> PathBuf {
        let own = || self.scratch.path("bpf/agent-monitor");
        self.parked.as_ref().map_or_else(own, Pins::dir)
    }

    /// The command that runs the daemon in the foreground.
    pub fn command(&self) -> Command {
        let mut command = Command::new(monitor_program());
        command
            .arg("run")
            .arg("--registry")
            .arg(self.registry())
            .arg("--state-dir")
            .arg(self.scratch.path("state"))
            .arg("--socket")
            .arg(self.socket())
            .args(["--unattributed", self.unattributed])
            .args(&self.extra)
            .env_remove("RUST_LOG")
            .env_remove("NOTIFY_SOCKET");
        if !self.extra.iter().any(|arg| arg == "--bpffs") {
            command.arg("--bpffs").arg(self.bpffs());
        }
        command
    }

    /// Starts the daemon and waits until it answers.
    #[track_caller]
    pub fn start(self) -> Daemon {
        let child = launch(&self, true);
        let daemon = Daemon { setup: self, child: Some(child) };
        daemon.wait_ready();
        daemon
    }
}

/// `first`: nothing of its own is in force yet.
fn launch(setup: &Setup, first: bool) -> Child {
    let file = |name: &str| {
        let path = setup.scratch.path(name);
        File::options().create(true).append(true).open(path).unwrap()
    };
    let (out, err) = (file("daemon.out"), file("daemon.err"));
    let mut command = setup.command();
    if first && setup.parked.is_some() {
        command.arg("--fresh");
    }
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// A running daemon; dropped, it is killed and everything of it removed.
#[derive(Debug)]
pub struct Daemon {
    pub setup: Setup,
    child: Option<Child>,
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Whether it was started and has not been reaped.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    pub fn socket(&self) -> String {
        self.setup.socket().to_str().unwrap().to_owned()
    }

    /// What it wrote on standard output and error.
    pub fn output(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.setup.scratch.path(name)).unwrap_or_default();
        format!("--- stdout\n{}\n--- stderr\n{}", tail(&read("daemon.out")), tail(&read("daemon.err")))
    }

    #[track_caller]
    fn wait_ready(&self) {
        let pid = self.pid();
        let gone = wait::pidfd(pid).unwrap();
        let deadline = Instant::now() + PATIENCE * 3;
        loop {
            if matches!(client::get(&self.setup.socket(), "/healthz"), Ok((200, _))) {
                return;
            }
            // Nothing announces "ready" on a descriptor of ours, so look again soon, or at once when it dies.
            let died = wait::readable(&[gone.as_fd()], Duration::from_millis(20)).unwrap();
            assert!(died == [false], "the daemon ended before it was ready\n{}", self.output());
            assert!(Instant::now() < deadline, "the daemon does not become ready\n{}", self.output());
        }
    }

    /// A feed of all its events.
    pub fn feed(&self) -> Feed {
        Feed::start(self.follower(&[]))
    }

    /// The command that follows its events, from its start on: asked for history, a follower cannot miss what
    /// happens while it connects.
    pub fn follower(&self, filters: &[&str]) -> Command {
        let socket = self.socket();
        let mut args = vec!["events", "--socket", &socket, "--follow", "--since", "1d", "-o", "jsonl"];
        args.extend(filters);
        client::command(&args)
    }

    /// What was told of one process, and what was lost: for the message of a test that fails.
    pub fn told_of(&self, pid: u32) -> String {
        let told = self.cli(&["events", "--limit", "100000"]);
        let mine = [format!("[{pid}]"), format!("pid={pid} "), " gap.".to_owned()];
        let text = String::from_utf8_lossy(&told.stdout);
        text.lines()
            .filter(|line| mine.iter().any(|part| line.contains(part)))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    /// Runs another subcommand against it: `cli(&["agent", "list", "-o", "json"])`.
    pub fn cli(&self, args: &[&str]) -> Output {
        let (socket, registry) = (self.socket(), self.setup.scratch.text("registry"));
        client::run(&[args, &["--socket", &socket, "--registry", &registry]].concat())
    }

    /// Pids of the live tree that `agent show` lists; empty while there is none.
    pub fn tree(&self, id: &str) -> Vec<u32> {
        let output = self.cli(&["agent", "show", id, "-o", "json"]);
        let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let rows = shown["tree"].as_array().cloned().unwrap_or_default();
        rows.iter().filter_map(|row| u32::try_from(row["pid"].as_u64()?).ok()).collect()
    }

    /// Like [`cli`](Self::cli); must succeed, and its output must be JSON.
    #[track_caller]
    pub fn cli_json(&self, args: &[&str]) -> serde_json::Value {
        let output = self.cli(args);
        assert!(output.status.success(), "{args:?}: {}", client::describe(&output));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {}", client::describe(&output)))
    }

    pub fn signal(&self, signal: i32) {
        sys::kill(self.pid() as i32, signal).unwrap();
    }

    /// Stops it dead (SIGSTOP) until [`thaw`](Self::thaw).
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
        let pid = self.pid();
        assert!(wait::until(PATIENCE, || sys::state(pid) == Some('T')), "the daemon does not stop");
    }

    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Ends it by a signal and gives its exit status; directories stay, and after SIGKILL pins too.
    #[track_caller]
    pub fn end_by(&mut self, signal: i32) -> ExitStatus {
        self.signal(signal);
        self.reap()
    }

    #[track_caller]
    fn reap(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let gone = wait::pidfd(child.id()).unwrap();
        let ended = wait::readable(&[gone.as_fd()], PATIENCE).unwrap() == [true];
        if !ended {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the daemon does not end on a signal\n{}", self.output());
        }
        child.wait().unwrap()
    }

    /// Starts it again on the same directories.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "still running");
        self.child = Some(launch(&self.setup, false));
        self.wait_ready();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.output());
        }
        if self.setup.parked.is_some() {
            // Killed, it leaves its programs to the next daemon.
            if let Some(mut child) = self.child.take() {
                child.kill().ok();
                child.wait().ok();
            }
            return;
        }
        if let Some(mut child) = self.child.take() {
            // A clean end first: killed, it would leave its programs pinned and working.
            let pid = child.id() as i32;
            sys::kill(pid, libc::SIGCONT).ok();
            sys::kill(pid, libc::SIGTERM).ok();
            let gone = wait::pidfd(child.id());
            let ended = gone.and_then(|fd| wait::readable(&[fd.as_fd()], Duration::from_secs(20)));
            if !matches!(ended.as_deref(), Ok([true])) {
                child.kill().ok();
            }
            child.wait().ok();
        }
        // What is enforced stays in force after a clean end.
        parked::detach(&self.setup.bpffs());
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(40);
    lines.get(from..).unwrap_or_default().join("\n")
}
