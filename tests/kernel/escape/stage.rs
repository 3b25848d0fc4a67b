//! What the rows are played on: a daemon, an agent, its neighbour, a stranger, and files of each row.

use std::ops::Deref;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use agent_monitor_tests::harness::actor::Actor;
use agent_monitor_tests::harness::case::Verdict;
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::monitor::{Daemon, Setup};
use agent_monitor_tests::harness::registry::{Match, Record};
use agent_monitor_tests::harness::{PATIENCE, client, leftover, world};
use agent_monitor_tests::sys::{Arg, call, cstr, num, wait};

use super::Row;

/// A process that stands for another one on the host: the target of signals and tracing.
struct Bystander(std::process::Child);

impl Drop for Bystander {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(crate) struct Stage {
    daemon: Daemon,
    bystander: Bystander,
    pub(crate) bot: String,
    pub(crate) neighbour: String,
    pub(crate) stranger: String,
}

/// The one stage of all groups: starting a daemon takes seconds under emulation.
static SHARED: Mutex<Option<Stage>> = Mutex::new(None);

/// The stage, for a test while nobody else uses it.
pub(crate) struct Shared(MutexGuard<'static, Option<Stage>>);

impl Deref for Shared {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        self.0.as_ref().unwrap()
    }
}

pub(crate) fn shared() -> Shared {
    let mut slot = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    slot.get_or_insert_with(Stage::set);
    Shared(slot)
}

pub(crate) fn close() {
    drop(SHARED.lock().unwrap_or_else(PoisonError::into_inner).take());
}

impl Stage {
    fn set() -> Self {
        world::close();
        let setup = Setup::new();
        let program = |name: &str| setup.scratch.program(&actor_program(), name);
        let (bot, neighbour, stranger) = (program("bot"), program("neighbour"), program("stranger"));
        let daemon = setup
            .record(
                &Record::new("bot").on(Match::exe(&bot)).enforce().scope("[scope]\ndefault = \"allow\"\n"),
            )
            .record(&Record::new("neighbour").on(Match::exe(&neighbour)).enforce().scope(PERMIT))
            .start();
        let bystander = Bystander(
            Command::new(&stranger)
                .arg("--wait")
                .arg("noop")
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap(),
        );
        leftover::keep(bystander.0.id());
        Self { daemon, bystander, bot, neighbour, stranger }
    }

    pub(super) fn dir(&self, name: &str) -> String {
        self.daemon.setup.scratch.text(name)
    }

    pub(crate) fn work(&self) -> String {
        self.daemon.setup.scratch.file("open/work/f", "content");
        self.dir("open/work")
    }

    /// Puts a scope of the agent's in force.
    pub(crate) fn scope(&self, text: &str) {
        let record = Record::new("bot").on(Match::exe(&self.bot)).enforce().scope(text);
        let file = self.daemon.setup.scratch.file("bot.toml", &record.toml());
        let registry = self.daemon.setup.registry();
        let args = [
            "--registry",
            registry.to_str().unwrap(),
            "--socket",
            &self.daemon.socket(),
            "agent",
            "register",
            "--replace",
            &file,
        ];
        let output = client::run(&args);
        assert!(output.status.success(), "{}\n{}", client::describe(&output), self.daemon.output());
    }

    pub(crate) fn permit(&self) {
        self.scope(PERMIT);
    }

    fn forbidding(&self) -> String {
        let text = FORBID.replace("@SECRET", &self.dir("secret")).replace("@OPEN", &self.dir("open"));
        text.replace("@READABLE", &self.dir("readable"))
    }

    pub(crate) fn forbid(&self) {
        self.scope(&self.forbidding());
    }

    pub(crate) fn forbid_powers(&self) {
        self.scope(FORBID_POWERS);
    }

    pub(crate) fn default_deny(&self) {
        let text = DEFAULT_DENY.replace("@WORK", &self.work()).replace("@BOT", &self.bot);
        self.scope(&text);
    }

    /// The row's words, with its files made afresh.
    fn words(&self, text: &str, name: &str) -> String {
        let (secret, open) = (self.dir(&format!("secret/{name}")), self.dir(&format!("open/{name}")));
        text.replace("@S", &secret)
            .replace("@O", &open)
            .replace("@R", &self.dir(&format!("readable/{name}")))
            .replace("@BYSTANDER", &self.bystander.0.id().to_string())
    }

    fn prepare(&self, name: &str) {
        let scratch = &self.daemon.setup.scratch;
        for side in ["secret", "open", "readable"] {
            let dir = scratch.path(&format!("{side}/{name}"));
            drop(std::fs::remove_dir_all(&dir));
            scratch.file(&format!("{side}/{name}/f"), "content");
            std::fs::create_dir(dir.join("empty")).unwrap();
        }
        let (secret, open) = (scratch.path(&format!("secret/{name}")), scratch.path(&format!("open/{name}")));
        std::fs::hard_link(&self.stranger, secret.join("prog")).unwrap();
        std::fs::create_dir_all(open.join("above/inner")).unwrap();
        std::fs::hard_link(secret.join("f"), open.join("prelink")).unwrap();
        std::os::unix::fs::symlink(secret.join("f"), open.join("link")).unwrap();
        std::os::unix::fs::symlink(open.join("link"), open.join("chain")).unwrap();
        std::os::unix::fs::symlink(&secret, open.join("dirlink")).unwrap();
        std::fs::create_dir(open.join("m")).unwrap();
        kernel_log(&open.join("node"));
        scratch
            .script(&format!("open/{name}/script"), &format!("#!{} noop\n", secret.join("prog").display()));
        scratch.script(&format!("secret/{name}/script"), "#!/bin/sh\nexit 0\n");
    }

    /// Performs acts; the errno of the first that failed.
    pub(crate) fn attempt(&self, program: &str, act: &str) -> Result<(), String> {
        self.run(program, act).0
    }

    fn run(&self, program: &str, act: &str) -> (Result<(), String>, u32) {
        let words: Vec<&str> = act.split(' ').collect();
        let run = Actor::start(program, &words).finish();
        if let Some(reason) = run.skipped() {
            return (Err(format!("skipped: {reason}")), run.pid);
        }
        let failed = run.marks.iter().find(|mark| !mark.ok);
        // A child that could not run its program says so by its status only.
        let status = run.marks.iter().filter_map(|mark| mark.facts.get("status")).find(|s| *s != "0");
        if let (None, Some(status)) = (failed, status) {
            return (Err(format!("status {status}")), run.pid);
        }
        let errno = failed.map(|mark| mark.facts.get("errno").cloned().unwrap_or_else(|| "?".to_owned()));
        let silent = run.marks.is_empty() && !run.status.success();
        match errno {
            Some(errno) => (Err(errno), run.pid),
            None if silent => (Err(format!("{}", run.status)), run.pid),
            None => (Ok(()), run.pid),
        }
    }

    /// What is wrong with a row that is to pass. An act that fails for a reason of its own (nobody listens) passes.
    pub(crate) fn passes(&self, phase: &str, program: &str, row: &Row) -> Option<String> {
        self.prepare(row.name);
        let result = self.attempt(program, &self.words(row.act, row.name));
        let refused =
            result.as_ref().is_err_and(|e| is_refusal(e) || e.contains("skipped") || e.contains("signal"));
        refused.then(|| format!("{}: {phase}: {}", row.name, result.unwrap_err()))
    }

    /// What is wrong with a row that is to be refused.
    pub(crate) fn refused(&self, row: &Row) -> Option<String> {
        self.prepare(row.name);
        let (result, pid) = self.run(&self.bot, &self.words(row.act, row.name));
        let note = self.daemon.setup.scratch.file(&format!("pids/{}", row.name), &pid.to_string());
        assert!(Path::new(&note).exists());
        let content =
            std::fs::read_to_string(self.daemon.setup.scratch.path(&format!("secret/{}/f", row.name)));
        match result {
            Err(errno) if is_refusal(&errno) => match content {
                Ok(text) if text == "content" => None,
                other => Some(format!("{}: refused, and yet the object is {other:?}", row.name)),
            },
            other => Some(format!("{}: not refused: {other:?}", row.name)),
        }
    }

    /// Rows whose refusal is not in the record, or not as it was.
    pub(crate) fn record_disagrees(&self, rows: &[Row]) -> Vec<String> {
        let mut missing = Vec::new();
        let all = |stage: &Self| {
            let output = stage.daemon.cli(&["events", "--agent", "bot", "--verdict", "deny", "-o", "jsonl"]);
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        wait::until(PATIENCE, || {
            let text = all(self);
            missing = rows
                .iter()
                .filter(|row| row.open.is_none())
                .filter(|row| {
                    let pid = std::fs::read_to_string(
                        self.daemon.setup.scratch.path(&format!("pids/{}", row.name)),
                    );
                    let told = self
                        .words(row.told, row.name)
                        .replace("@PID", &format!("\"pid\":{},", pid.unwrap_or_default()));
                    !text.lines().any(|line| agrees(line, row, &told))
                })
                .map(|row| format!("{}: no event with verdict deny, errno, rule and {}", row.name, row.told))
                .collect();
            missing.is_empty()
        });
        missing
    }

    pub(crate) fn storm_of_flips(&self) -> Verdict {
        let secret = self.daemon.setup.scratch.file("secret/storm/f", "content");
        let scopes = [self.forbidding(), FORBID_EXACT.replace("@F", &secret)];
        self.scope(&scopes[0]);
        let acts =
            vec!["open"; 400].into_iter().flat_map(|act| [act, &secret, "read", "+"]).collect::<Vec<_>>();
        let mut attempts = 0;
        for round in 0..6 {
            let actors: Vec<Actor> =
                (0..4).map(|_| Actor::start(&self.bot, &acts[..acts.len() - 1])).collect();
            for turn in 0..4 {
                self.scope(&scopes[(round + turn) % 2]);
            }
            for actor in actors {
                let run = actor.finish();
                let opened = run.marks.iter().filter(|mark| mark.ok).count();
                attempts += run.marks.len();
                assert_eq!(
                    opened,
                    0,
                    "{opened} of {} opens passed while the scope changed\n{}",
                    run.marks.len(),
                    self.daemon.told_of(run.pid)
                );
            }
        }
        assert!(attempts >= 9000, "only {attempts} attempts");
        Ok(())
    }
}

/// A node of the device 1:11, the kernel's log, that everybody may open.
fn kernel_log(path: &Path) {
    let name = cstr(path.to_str().unwrap());
    let device = libc::makedev(1, 11);
    call(libc::SYS_mknod, &mut [Arg::Str(&name), num(libc::S_IFCHR | 0o666), num(device as i64)]).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
}

/// What a refused process sees: an errno, or a child that did not come to run its program.
pub(crate) fn is_refusal(error: &str) -> bool {
    error == "EACCES" || error == "EPERM" || error.starts_with("status")
}

/// Whether a line of the record tells the refusal of a row.
fn agrees(line: &str, row: &Row, told: &str) -> bool {
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    let kind = event["kind"].as_str().unwrap_or_default();
    row.kinds.contains(&kind)
        && event["mode"] == "enforce"
        && matches!(event["errno"].as_str(), Some("EACCES" | "EPERM"))
        && event["rule"].as_str().is_some_and(|rule| rule.starts_with("scope."))
        && line.contains(told)
}

/// Permits everything, programs without a place included, and what no default permits.
const PERMIT: &str = "[scope]
default = \"allow\"
unknown = \"allow\"
[[scope.privilege]]
kind = \"device\"
[[scope.privilege]]
kind = \"terminal\"
";

/// Forbids what the rows try.
const FORBID: &str = r#"[scope]
default = "allow"
[[scope.file]]
path = "@SECRET/**"
verdict = "deny"
[[scope.file]]
path = "@OPEN/rename_the_directory_above/above/inner/**"
verdict = "deny"
[[scope.file]]
path = "@READABLE/**"
access = ["write", "create", "delete"]
verdict = "deny"
[[scope.exec]]
path = "@SECRET/**"
verdict = "deny"
[[scope.net]]
to = "127.0.0.1:4001"
verdict = "deny"
action = ["connect", "bind", "listen"]
[[scope.net]]
to = "[::1]:4001"
verdict = "deny"
action = ["connect", "bind", "listen"]
[[scope.net]]
to = "unix:@SECRET/**"
verdict = "deny"
[[scope.net]]
to = "unix:@agent-monitor-escape"
verdict = "deny"
action = ["connect", "bind"]
"#;

/// Forbids powers.
const FORBID_POWERS: &str = r#"[scope]
default = "allow"
[[scope.privilege]]
kind = "mount"
verdict = "deny"
[[scope.privilege]]
kind = "namespace"
verdict = "deny"
[[scope.privilege]]
kind = "userns"
verdict = "deny"
[[scope.privilege]]
kind = "setuid"
verdict = "deny"
[[scope.privilege]]
kind = "ptrace"
verdict = "deny"
[[scope.privilege]]
kind = "signal"
verdict = "deny"
[[scope.privilege]]
kind = "module"
verdict = "deny"
[[scope.privilege]]
kind = "raw_socket"
verdict = "deny"
[[scope.privilege]]
kind = "capability"
capabilities = ["CAP_SYS_BOOT"]
verdict = "deny"
"#;

/// Forbids one file in other words.
const FORBID_EXACT: &str =
    "[scope]\ndefault = \"allow\"\n[[scope.file]]\npath = \"@F\"\nverdict = \"deny\"\n";

/// Default deny with a base set and a handful of rules.
const DEFAULT_DENY: &str = r#"[scope]
default = "deny"
base = ["linux-runtime"]
[[scope.file]]
path = "@WORK/**"
access = ["read", "write", "create", "delete"]
[[scope.exec]]
path = "@BOT"
[[scope.net]]
to = "127.0.0.1:5353/udp"
"#;
