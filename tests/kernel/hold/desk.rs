//! A daemon whose agent must ask, and the person at the desk.

use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use agent_monitor_tests::harness::actor::{Actor, Run};
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::monitor::{Daemon, Setup};
use agent_monitor_tests::harness::registry::{Match, Record};
use agent_monitor_tests::harness::{PATIENCE, client, leftover, world};
use agent_monitor_tests::sys::{self, wait};
use serde_json::Value;

use super::rows::Row;

/// What a person says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Approve,
    Deny,
}

/// A process that stands for another one on the host.
struct Bystander(std::process::Child);

impl Drop for Bystander {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(crate) struct Desk {
    pub(crate) daemon: Daemon,
    pub(crate) bot: String,
    stranger: String,
    bystander: Bystander,
}

static SHARED: Mutex<Option<Desk>> = Mutex::new(None);

/// The desk, for a test while nobody else uses it.
pub(crate) struct Shared(MutexGuard<'static, Option<Desk>>);

impl Deref for Shared {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for Shared {
    fn deref_mut(&mut self) -> &mut Desk {
        self.0.as_mut().unwrap()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // What a test that failed leaves waiting is nothing that the next one must meet.
        if std::thread::panicking() {
            drop(self.0.take());
        }
    }
}

pub(crate) fn shared() -> Shared {
    let mut slot = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    // A test that failed may have left it without its daemon.
    if slot.as_ref().is_some_and(|desk| !desk.daemon.runs()) {
        drop(slot.take());
    }
    slot.get_or_insert_with(Desk::set);
    Shared(slot)
}

pub(crate) fn close() {
    drop(SHARED.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// `nobody`: who decides.
pub(crate) const PERSON: u32 = 65_534;

/// Agents with the same scope; each is a copy of the actor of this name.
const AGENTS: &[(&str, &str, Option<&str>)] = &[
    // What the daemon's death does to what is held, and how long it waits.
    ("bot", "deny", None),
    ("patient", "wait", None),
    ("brief", "deny", Some("10s")),
];

/// Scripts that are `bot` too.
pub(crate) const SCRIPTS: &[&str] = &["held.py", "held.js"];

/// What must be asked.
const HOLD: &str = r#"[scope]
default = "allow"
[[scope.file]]
path = "@SECRET/**"
verdict = "hold"
[[scope.exec]]
path = "@SECRET/**"
verdict = "hold"
[[scope.net]]
to = "127.0.0.1:4001-4002"
verdict = "hold"
action = ["connect", "bind", "listen"]
[[scope.privilege]]
kind = "mount"
verdict = "hold"
[[scope.privilege]]
kind = "setuid"
verdict = "hold"
[[scope.privilege]]
kind = "ptrace"
verdict = "hold"
[[scope.privilege]]
kind = "signal"
verdict = "hold"
"#;

impl Desk {
    /// A desk on the whole level of this host.
    fn set() -> Self {
        world::close();
        let setup = Setup::new();
        let scope = HOLD.replace("@SECRET", &setup.scratch.text("secret"));
        let config = setup.scratch.file("config.toml", "[approval]\npending-max = 1000\n");
        Self::with(setup.arg("--config").arg(&config), &scope, AGENTS)
    }

    /// A desk at level partial.
    pub(crate) fn partial() -> Self {
        world::close();
        let scope =
            "[scope]\ndefault = \"allow\"\n[[scope.net]]\nto = \"127.0.0.1:4003\"\nverdict = \"hold\"\n";
        Self::with(Setup::new().arg("--force-partial"), scope, &AGENTS[..1])
    }

    fn with(mut setup: Setup, scope: &str, agents: &[(&str, &str, Option<&str>)]) -> Self {
        let stranger = setup.scratch.program(&actor_program(), "stranger");
        let bot = setup.scratch.text("bin/bot");
        for (name, on_loss, timeout) in agents {
            let exe = setup.scratch.program(&actor_program(), name);
            let mut record = Record::new(name)
                .on(Match::exe(&exe))
                .enforce()
                .scope(scope)
                .on_daemon_loss(on_loss)
                // The agent runs as root, and an agent never approves itself.
                .approver("user:nobody");
            if let Some(timeout) = timeout {
                record = record.hold_timeout(timeout);
            }
            if *name == "bot" {
                let scripts = SCRIPTS.iter().map(|name| setup.scratch.text(&format!("bin/{name}")));
                record = scripts.fold(record, |record, path| record.on(Match::script(&path)));
            }
            setup = setup.record(&record);
        }
        let nobody = PERSON.to_string();
        let daemon = setup.arg("--socket-group").arg(&nobody).start();
        std::os::unix::fs::chown(daemon.setup.scratch.path("run"), None, Some(PERSON)).unwrap();
        for dir in [daemon.setup.scratch.path("run"), daemon.setup.scratch.path("")] {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let bystander = Bystander(
            Command::new(&stranger)
                .arg("--wait")
                .arg("noop")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        );
        leftover::keep(bystander.0.id());
        Self { daemon, bot, stranger, bystander }
    }

    fn dir(&self, name: &str) -> String {
        self.daemon.setup.scratch.text(name)
    }

    /// A row's words.
    pub(crate) fn words(&self, text: &str, name: &str) -> String {
        let (secret, open) = (self.dir(&format!("secret/{name}")), self.dir(&format!("open/{name}")));
        text.replace("@S", &secret)
            .replace("@O", &open)
            .replace("@BYSTANDER", &self.bystander.0.id().to_string())
    }

    /// A row's files, made afresh.
    pub(crate) fn prepare(&self, name: &str) {
        let scratch = &self.daemon.setup.scratch;
        for side in ["secret", "open"] {
            drop(std::fs::remove_dir_all(scratch.path(&format!("{side}/{name}"))));
            scratch.file(&format!("{side}/{name}/f"), "content");
            std::fs::create_dir(scratch.path(&format!("{side}/{name}/empty"))).unwrap();
        }
        let (secret, open) = (scratch.path(&format!("secret/{name}")), scratch.path(&format!("open/{name}")));
        std::fs::hard_link(&self.stranger, secret.join("prog")).unwrap();
        scratch.file(&format!("open/{name}/prelink"), "content");
        std::fs::create_dir(open.join("m")).unwrap();
        scratch
            .script(&format!("open/{name}/script"), &format!("#!{} noop\n", secret.join("prog").display()));
    }

    pub(crate) fn start(&self, row: &Row) -> Actor {
        self.start_as("bot", row, row.name)
    }

    /// Starts a row with files of another name, as this agent.
    pub(crate) fn start_as(&self, agent: &str, row: &Row, name: &str) -> Actor {
        let act = self.words(row.act, name);
        let words: Vec<&str> = act.split(' ').collect();
        Actor::start(&self.dir(&format!("bin/{agent}")), &words)
    }

    /// Requests that wait.
    pub(crate) fn pending(&self) -> Vec<Value> {
        self.requests("").into_iter().filter(|a| a["state"] == "pending").collect()
    }

    /// Requests, with those that were decided if `all=true` is in the query.
    pub(crate) fn requests(&self, query: &str) -> Vec<Value> {
        let path = format!("/v1/approvals?{query}");
        let (status, body) = client::get(&self.daemon.setup.socket(), &path).unwrap();
        assert_eq!(status, 200, "{body}");
        let list: Value = serde_json::from_str(&body).unwrap();
        list["approvals"].as_array().unwrap().clone()
    }

    /// Events of the running daemon, by these filters.
    pub(crate) fn events(&self, filters: &[&str]) -> Vec<Value> {
        let output = self.cli(&[&["events", "-o", "jsonl", "--limit", "100000"], filters].concat());
        assert!(output.status.success(), "{}", client::describe(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What the daemon has told so far, and what it said: for the message of a test that fails.
    pub(crate) fn story(&self) -> String {
        let told = self.cli(&["events", "--limit", "200"]);
        format!("{}\n{}", String::from_utf8_lossy(&told.stdout), self.daemon.output())
    }

    /// Acts of this agent so far that were refused because the kernel had no memory to judge them with: each is counted.
    pub(crate) fn refused_for_memory(&self, agent: &str) -> u64 {
        let gaps = self.events(&["--kind", "gap.copy"]);
        gaps.iter()
            .filter(|gap| gap["gap"]["agent"] == agent)
            .filter_map(|gap| gap["gap"]["count"].as_u64())
            .sum()
    }

    #[track_caller]
    pub(crate) fn wait_for_request(&self) -> Value {
        let mut found = None;
        let there = wait::until(PATIENCE, || {
            found = self.pending().into_iter().next();
            found.is_some()
        });
        assert!(there, "nobody asks\n{}", self.story());
        found.unwrap()
    }

    pub(crate) fn decide(&self, asked: &Value, answer: Answer) {
        let word = if answer == Answer::Approve { "approve" } else { "deny" };
        self.post(asked, word, "{\"why\":\"a test\"}");
    }

    /// Approves for a time.
    pub(crate) fn decide_for(&self, asked: &Value, span: u32) {
        let body = format!("{{\"form\":\"for\",\"seconds\":{span}}}");
        self.post(asked, "approve", &body);
    }

    fn post(&self, asked: &Value, word: &str, body: &str) {
        let path = format!("/v1/approvals/{}/{word}", asked["id"]);
        let (status, body) = client::post_as(PERSON, &self.daemon.setup.socket(), &path, body).unwrap();
        assert!(status == 200 || status == 404 || status == 409, "{status} {body}");
    }

    /// Adds a grant.
    pub(crate) fn grant(&self, body: &str) {
        let socket = self.daemon.setup.socket();
        let (status, answer) = client::post_as(PERSON, &socket, "/v1/grants", body).unwrap();
        assert_eq!(status, 200, "{answer}");
    }

    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        self.daemon.cli(args)
    }

    /// Answers everything from now on.
    pub(crate) fn answering(&self, answer: Answer) -> Answering {
        let socket = self.daemon.setup.socket();
        let done = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut asked = Vec::new();
            wait::until(PATIENCE * 4, || {
                let (_, body) = client::get(&socket, "/v1/approvals").unwrap_or_default();
                let list: Value = serde_json::from_str(&body).unwrap_or_default();
                for one in list["approvals"].as_array().into_iter().flatten() {
                    if one["state"] == "pending" {
                        let word = if answer == Answer::Approve { "approve" } else { "deny" };
                        let path = format!("/v1/approvals/{}/{word}", one["id"]);
                        let (status, body) = client::post_as(PERSON, &socket, &path, "{}").unwrap();
                        assert!(status != 403, "{body}");
                        asked.push(format!(
                            "{} {} held {}",
                            one["event"]["kind"], one["event"]["file"]["path"], one["held"]
                        ));
                    }
                }
                over.load(Ordering::Relaxed)
            });
            asked
        });
        Answering { done, thread }
    }

    /// Plays a row to its end while everything is answered so; what was asked.
    pub(crate) fn played(&self, row: &Row, answer: Answer) -> (Run, Vec<String>) {
        self.prepare(row.name);
        let answers = self.answering(answer);
        let run = self.start(row).finish();
        (run, answers.end())
    }

    /// Processes bound to the agent.
    pub(crate) fn processes(&self) -> usize {
        self.tree().len()
    }

    fn tree(&self) -> Vec<u32> {
        let shown = self.daemon.cli_json(&["agent", "show", "bot", "-o", "json"]);
        let rows = shown["tree"].as_array().cloned().unwrap_or_default();
        rows.iter().filter_map(|row| row["pid"].as_u64()).map(|pid| pid as u32).collect()
    }

    /// Bound processes that are not stopped.
    pub(crate) fn running(&self) -> Vec<(u32, Option<char>)> {
        let states = self.tree().into_iter().map(|pid| (pid, sys::state(pid)));
        states.filter(|(_, state)| !matches!(state, Some('T' | 't' | 'Z' | 'X') | None)).collect()
    }
}

/// A person who answers everything the same.
pub(crate) struct Answering {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Answering {
    /// What was asked.
    pub(crate) fn end(self) -> Vec<String> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
