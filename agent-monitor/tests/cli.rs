//! The built binary from outside, without root: arguments, output forms, exit codes, and what it says to a
//! daemon of fixed answers.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use agent_monitor::control::fake::FakeDaemon;
use agent_monitor::control::{Daemon, Handle, Peer, Server, SocketConfig};
use agent_monitor::log::condition::SetAside;
use agent_monitor::log::key::Keys;
use agent_monitor::log::recorder::LogStatus;
use agent_monitor::log::writer::Writer;
use agent_monitor::log::{Moment, Settings, segment};
use agent_monitor::model::{Agent, BoundBy, Event, File, Kind, Process, Source, Time, Verdict};
use agent_monitor::record::Limits;
use tempfile::TempDir;

/// The binary in an empty environment, with all its places in `directory`.
fn cli(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent-monitor"));
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin").current_dir(directory);
    command.env("AGENT_MONITOR_SOCKET", directory.join("c.sock"));
    command.env("AGENT_MONITOR_STATE_DIR", directory.join("state"));
    command.env("AGENT_MONITOR_REGISTRY", directory.join("agents.d"));
    command.env("AGENT_MONITOR_CONFIG", directory.join("c.toml"));
    std::fs::OpenOptions::new().create(true).append(true).open(directory.join("c.toml")).unwrap();
    command
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn run(directory: &Path, args: &[&str]) -> Ran {
    ran(cli(directory, args).output().unwrap())
}

fn alone(args: &[&str]) -> Ran {
    run(TempDir::new().unwrap().path(), args)
}

struct Host {
    fake: Arc<FakeDaemon>,
    directory: TempDir,
    handle: Option<Handle>,
}

impl Host {
    fn start(limits: Limits) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("c.sock");
        let fake = FakeDaemon::new(limits);
        let server = Server::bind(&SocketConfig { path, group: None }).unwrap();
        let handle = Some(server.spawn(Arc::clone(&fake) as Arc<dyn Daemon>).unwrap());
        Self { fake, directory, handle }
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(self.directory.path(), args)
    }

    fn append(&self, second: i64, kind: Kind, path: &str) {
        let agent = Agent {
            id: "bot".to_owned(),
            session: None,
            bound_by: BoundBy::Exe,
            delegator: None,
            bound_delay_ms: None,
        };
        let process = Process { pid: 7, exe: Some("/bin/cat".to_owned()), ..Process::default() };
        let event = Event::new(Time::from_unix_nanos(i128::from(second) * 1_000_000_000), kind, Source::Lsm);
        self.fake.store().append(Event {
            verdict: Some(Verdict::Allow),
            agent: Some(Arc::new(agent)),
            process: Some(Arc::new(process)),
            file: Some(File { path: Some(path.to_owned()), ..File::default() }),
            ..event
        });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown().unwrap();
        }
    }
}

#[test]
fn help_and_version_need_nothing() {
    let help = alone(&["--help"]);
    assert_eq!(help.code, 0);
    for word in ["doctor", "status", "events", "exec", "completions", "man", "Exit codes"] {
        assert!(help.out.contains(word), "{word} in {}", help.out);
    }
    assert!(alone(&["--version"]).out.starts_with("agent-monitor "));
    for command in [vec!["events"], vec!["exec"], vec!["status"], vec!["doctor"]] {
        let help = alone(&[command.as_slice(), &["--help"]].concat());
        assert!(help.code == 0 && help.out.contains("--socket"), "{command:?}: {}", help.out);
    }
}

#[test]
fn mistakes_on_the_command_line_are_usage() {
    for (args, word) in [
        (vec![], "Usage"),
        (vec!["nothing"], "unrecognized"),
        (vec!["status", "-o", "xml"], "xml"),
        (vec!["events", "--kind", "file.opened"], "file.opened"),
        (vec!["events", "--since", "yesterday"], "yesterday"),
        (vec!["events", "--path", "relative"], "not absolute"),
        (vec!["events", "--peer", "10.0.0.300"], "10.0.0.300"),
        (vec!["events", "--since", "1h", "--until", "2h"], "not after"),
        (vec!["events", "--follow", "-o", "json"], "jsonl"),
        (vec!["exec", "--agent", "bot"], "required"),
        (vec!["exec", "--agent", "Not An Id", "--", "true"], "Not An Id"),
    ] {
        let ran = alone(&args);
        assert!(
            ran.code == 2 && ran.err.contains(word) && ran.out.is_empty(),
            "{args:?}: {} {}",
            ran.code,
            ran.err
        );
    }
}

#[test]
fn without_a_daemon_the_code_is_three_and_the_socket_is_named() {
    for args in [vec!["status"], vec!["events"], vec!["exec", "--agent", "bot", "--", "true"]] {
        let ran = alone(&args);
        assert_eq!(ran.code, 3, "{args:?}: {}", ran.err);
        assert!(ran.err.contains("c.sock") && ran.err.contains("hint: "), "{}", ran.err);
        assert!(ran.out.is_empty());
    }
}

#[test]
fn a_wrong_configuration_file_has_a_place() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("c.toml"), "strict = true\nsockets = \"/x\"\n").unwrap();
    let ran = run(directory.path(), &["status"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("c.toml:2:1") && ran.err.contains("sockets"), "{}", ran.err);
    let ran = run(directory.path(), &["status", "--config", "/nonexistent/c.toml"]);
    assert!(ran.code == 2 && ran.err.contains("/nonexistent/c.toml"), "{} {}", ran.code, ran.err);
}

#[test]
fn the_flag_beats_the_environment_beats_the_file() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("c.toml"), "socket = \"/from/file.sock\"\n").unwrap();
    let mut file = cli(directory.path(), &["status"]);
    assert!(ran(file.env_remove("AGENT_MONITOR_SOCKET").output().unwrap()).err.contains("/from/file.sock"));
    assert!(run(directory.path(), &["status"]).err.contains("c.sock"));
    assert!(
        run(directory.path(), &["status", "--socket", "/from/flag.sock"]).err.contains("/from/flag.sock")
    );
}

#[test]
fn completions_and_pages_are_written() {
    assert!(alone(&["completions", "bash"]).out.contains("agent-monitor"));
    assert!(alone(&["man"]).out.contains(".TH agent-monitor"));
    let directory = TempDir::new().unwrap();
    assert_eq!(run(directory.path(), &["man", "--out", "pages"]).code, 0);
    let pages: Vec<PathBuf> = std::fs::read_dir(directory.path().join("pages"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(pages.iter().any(|page| page.ends_with("agent-monitor-events.1")), "{pages:?}");
}

#[test]
fn status_and_doctor_are_shown_in_each_form() {
    let host = Host::start(Limits::default());
    host.append(1, Kind::FileOpen, "/a");
    let status = host.run(&["status"]);
    assert_eq!(status.code, 0, "{}", status.err);
    assert!(
        status.out.contains("level partial") && status.out.contains("1 events recorded"),
        "{}",
        status.out
    );
    let json: serde_json::Value = serde_json::from_str(&host.run(&["status", "-o", "json"]).out).unwrap();
    assert_eq!((&json["schema_version"], &json["record"]["newest_seq"]), (&1.into(), &1.into()));
    assert_eq!(host.run(&["status", "-o", "jsonl"]).out.lines().count(), 1);
    let doctor = host.run(&["doctor"]);
    assert!(doctor.out.contains("lsm=landlock") && doctor.out.contains("FAMILY"), "{}", doctor.out);
    let json: serde_json::Value = serde_json::from_str(&host.run(&["doctor", "-o", "json"]).out).unwrap();
    assert_eq!(json["families"][0]["see"]["confirmed"], true);
}

#[test]
fn a_log_that_is_set_aside_or_not_written_is_shown_and_changes_the_exit_code_of_doctor() {
    let host = Host::start(Limits::default());
    let log = |state: &str, aside: &[&str]| {
        let aside = aside.iter().map(|path| SetAside {
            path: (*path).to_owned(),
            reason: Some("record 12 \u{1b}[2J".to_owned()),
            ..SetAside::default()
        });
        LogStatus {
            state: state.to_owned(),
            problem: Some("no space left".to_owned()),
            ..LogStatus::default()
        }
        .beside(aside.collect())
    };
    let rows = [
        ("writing", &[][..], 0, "ok"),
        ("writing", &["/state/log.damaged-1"][..], 5, "set_aside"),
        ("full", &[][..], 1, "not_written"),
        ("full", &["/state/log.damaged-1"][..], 1, "not_written"),
    ];
    for (state, aside, code, condition) in rows {
        host.fake.set_log(Some(log(state, aside)));
        let doctor = host.run(&["doctor"]);
        assert_eq!(doctor.code, code, "{state} {aside:?}: {}", doctor.out);
        assert_eq!(doctor.out.contains("log set aside"), !aside.is_empty(), "{}", doctor.out);
        let status = host.run(&["status"]);
        let shown = status.out.contains("set aside to /state/log.damaged-1 at an unknown time: record 12");
        assert_eq!((status.code, shown), (0, !aside.is_empty()), "{}", status.out);
        assert_eq!(
            status.out.contains("cannot be written: no space left"),
            state == "full",
            "{}",
            status.out
        );
        assert!(!status.out.contains('\u{1b}') && !doctor.out.contains('\u{1b}'));
        let json: serde_json::Value = serde_json::from_str(&host.run(&["status", "-o", "json"]).out).unwrap();
        assert_eq!(json["log"]["condition"], condition);
    }
}

#[test]
fn events_of_the_log_about_itself_are_those_of_the_log_while_a_daemon_answers() {
    let host = Host::start(Limits::default());
    host.append(1, Kind::FileOpen, "/a");
    let state = host.directory.path().join("state");
    let now = Moment { time: Time::EPOCH, boot_id: "b".to_owned(), boot_nanos: 0 };
    let open = || {
        Writer::open(&state.join("log"), Keys::in_state(&state), Settings::default(), "host", &now).unwrap()
    };
    let (mut writer, _) = open();
    writer.checkpoint(&now, true).unwrap();
    let segment = segment::path(&state.join("log"), 0, false);
    let text = std::fs::read_to_string(&segment).unwrap();
    std::fs::write(&segment, text.replacen("log.closed", "log.clocks", 1)).unwrap();
    let (mut writer, opened) = open();
    writer.checkpoint(&now, true).unwrap();
    let aside = opened.aside.unwrap().path;
    for kind in ["log.*", "log", "log.set_aside"] {
        let shown = host.run(&["events", "--kind", kind]);
        assert!(shown.code == 0 && shown.out.contains(&aside), "{kind}: {} {}", shown.out, shown.err);
        assert!(shown.err.contains("verified up to checkpoint 1"), "{}", shown.err);
    }
    let both = host.run(&["events", "--kind", "log.*", "--kind", "file.open"]);
    assert!(both.out.contains("/a") && !both.out.contains(&aside), "the daemon answers: {}", both.out);
}

#[test]
fn events_come_filtered_in_each_form() {
    let host = Host::start(Limits { events: 3, ..Limits::default() });
    let paths = ["/a", "/b", "/c\u{1b}[2J", "/d"];
    paths.iter().zip(1..).for_each(|(path, second)| host.append(second, Kind::FileOpen, path));
    let lines = host.run(&["events", "-o", "jsonl"]);
    assert!(lines.err.contains("1 older events"), "{}", lines.err);
    let kinds: Vec<Event> = lines.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(kinds.iter().map(|event| event.seq).collect::<Vec<_>>(), [0, 2, 3, 4]);
    let table = host.run(&["events", "--path", "/c*"]);
    assert!(table.out.contains("/c\\u{1b}[2J") && !table.out.contains('\u{1b}'), "{:?}", table.out);
    assert_eq!(table.out.lines().count(), 2, "a heading and a row");
    let json: Vec<Event> = serde_json::from_str(&host.run(&["events", "-o", "json", "-n", "2"]).out).unwrap();
    assert_eq!(json.len(), 2);
    let none = host.run(&["events", "-o", "json", "--kind", "network", "--since", "1h"]);
    assert_eq!(none.out.trim(), "[]");
}

#[test]
fn exit_code_says_that_something_matched() {
    let host = Host::start(Limits { events: 1, ..Limits::default() });
    host.append(1, Kind::FileOpen, "/a");
    host.append(2, Kind::FileOpen, "/b");
    assert_eq!(host.run(&["events", "--exit-code", "7"]).code, 7);
    let other = ["events", "--exit-code", "7", "--path", "/other"];
    assert_eq!(host.run(&other).code, 0, "a gap is no match");
    assert_eq!(host.run(&["events"]).code, 0);
}

#[test]
fn following_shows_what_comes_and_a_closed_pipe_ends_it_quietly() {
    let host = Host::start(Limits::default());
    host.append(1, Kind::FileOpen, "/old");
    let args = ["events", "--follow", "-o", "jsonl", "--since", "1970-01-01"];
    let mut child =
        cli(host.directory.path(), &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("/old"));
    host.append(2, Kind::FileOpen, "/new");
    assert!(lines.next().unwrap().unwrap().contains("/new"));
    drop(lines);
    // More than one: a child that another test just forked may hold the reading end for a moment.
    let status = (3..3_000_000).find_map(|second| {
        host.append(second, Kind::FileOpen, "/unread");
        std::thread::yield_now();
        child.try_wait().unwrap()
    });
    let status = status.unwrap();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(status.success() && err.is_empty(), "{status}: {err}");
}

#[test]
fn exec_binds_itself_and_becomes_the_command() {
    let host = Host::start(Limits::default());
    let script = "echo $$; ls -l /proc/$$/fd | grep -c socket; exit 9";
    let child = cli(host.directory.path(), &["exec", "--agent", "bot", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 9);
    assert_eq!(ran.out.lines().next(), Some(pid.to_string().as_str()), "the same process");
    assert_eq!(ran.out.lines().nth(1), Some("0"), "no socket is left open");
    assert_eq!(host.fake.bindings().get(&pid).map(String::as_str), Some("bot"));
}

#[test]
fn exec_says_why_it_did_not() {
    let host = Host::start(Limits::default());
    let nobody = host.run(&["exec", "--agent", "nobody", "--", "true"]);
    assert!(nobody.code == 1 && nobody.err.contains("no agent `nobody`"), "{} {}", nobody.code, nobody.err);
    let missing = host.run(&["exec", "--agent", "bot", "--", "/nonexistent"]);
    assert!(missing.code == 1 && missing.err.contains("cannot run /nonexistent"), "{}", missing.err);
    host.fake.set_blind(true);
    let refused = host.run(&["exec", "--agent", "bot", "--", "true"]);
    assert!(refused.code == 4 && refused.err.contains("hint: "), "{} {}", refused.code, refused.err);
}

#[test]
fn a_caller_is_the_process_that_connected_and_no_other() {
    let directory = TempDir::new().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(directory.path().join("c.sock")).unwrap();
    let mut child =
        cli(directory.path(), &["status"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (stream, _) = listener.accept().unwrap();
    let peer = Peer::of(&stream).unwrap();
    assert_eq!(peer.pid(), child.id());
    assert!(peer.is_alive() && peer.start_ticks() > 0 && peer.may_call(peer.uid(), u32::MAX));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!peer.is_alive());
    assert!(Peer::of(&stream).is_err(), "the pid alone is not enough");
}
