//! `approval …` of the built binary against the real state machine: lists, decisions, refusals, and the screen.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_monitor::control::fake::{FakeDaemon, FakePeople};
use agent_monitor::control::{Daemon, Handle, Server, SocketConfig};
use agent_monitor::log::key::Keys;
use agent_monitor::log::writer::Writer;
use agent_monitor::log::{Moment, Settings, segment};
use agent_monitor::model::{Access, Agent, BoundBy, Event, File, Hold, Kind, Process, Source, Time, Verdict};
use agent_monitor::people::Effect;
use agent_monitor::people::api::ApprovalList;
use agent_monitor::people::who::Approvers;
use agent_monitor::record::Limits;
use agent_monitor::registry::record::Approver;
use tempfile::TempDir;

struct Host {
    fake: Arc<FakeDaemon>,
    directory: TempDir,
    handle: Option<Handle>,
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Host {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("c.toml"), "").unwrap();
        let fake = FakeDaemon::new(Limits::default());
        let config = SocketConfig { path: directory.path().join("c.sock"), group: None };
        let server = Server::bind(&config).unwrap();
        let handle = Some(server.spawn(Arc::clone(&fake) as Arc<dyn Daemon>).unwrap());
        // Whoever runs the tests decides.
        let me = rustix::process::geteuid();
        if !me.is_root() {
            let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
            let named = vec![Approver::User(user.trim().to_owned())];
            fake.asks().unwrap().set_approvers(Approvers { named, need: 1, ..Approvers::default() });
        }
        Self { fake, directory, handle }
    }

    fn people(&self) -> &FakePeople {
        self.fake.asks().unwrap()
    }

    fn hold(&self, pid: u32, digest: u64, path: &str) {
        let process = Process {
            pid,
            exe: Some("/usr/bin/curl".to_owned()),
            args: ["curl", "-T", path].map(str::to_owned).to_vec(),
            ..Process::default()
        };
        let file = File { path: Some(path.to_owned()), access: vec![Access::Read], ..File::default() };
        let event = Event {
            verdict: Some(Verdict::Hold),
            rule: Some("scope.file[1]".to_owned()),
            hold: Some(Hold { digest: format!("{digest:016x}"), held: true, again: false }),
            process: Some(Arc::new(process)),
            file: Some(file),
            ..Event::new(Time::EPOCH, Kind::FileOpen, Source::Lsm)
        };
        self.people().hold(pid, digest, event).unwrap();
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm");
        for (name, file) in [("SOCKET", "c.sock"), ("REGISTRY", "agents.d"), ("CONFIG", "c.toml")] {
            command.env(format!("AGENT_MONITOR_{name}"), self.directory.path().join(file));
        }
        command.current_dir(self.directory.path());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(env!("CARGO_BIN_EXE_agent-monitor"), args).output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn passed(&self) -> usize {
        let pass = |effect: &&Effect| matches!(effect, Effect::Put(ticket) if ticket.pass);
        self.people().effects().iter().filter(pass).count()
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
fn what_waits_is_listed_shown_and_decided_once() {
    let host = Host::start();
    assert!(host.run(&["approval", "list"]).out.contains("nothing waits"));
    host.hold(4121, 0xabc, "/srv/customers/list.csv");
    host.hold(4122, 0xdef, "/srv/x\u{1b}[2J");
    let list = host.run(&["approval", "list"]);
    assert!(
        list.code == 0 && list.out.contains("/srv/customers/list.csv") && list.out.contains(" min "),
        "{}",
        list.out
    );
    assert!(!list.out.contains('\u{1b}'), "what an agent writes is escaped");
    let json: ApprovalList =
        serde_json::from_str(&host.run(&["approval", "list", "-o", "json"]).out).unwrap();
    assert_eq!(json.approvals.len(), 2);
    let shown = host.run(&["approval", "show", "1"]);
    for part in ["scope.file[1]", "curl -T /srv/customers/list.csv", "--once", "(more than this one action)"]
    {
        assert!(shown.out.contains(part), "{part} in {}", shown.out);
    }
    let approved = host.run(&["approval", "approve", "1"]);
    assert!(
        approved.code == 0 && approved.out.contains("approval 1: approved"),
        "{}{}",
        approved.out,
        approved.err
    );
    assert_eq!(host.passed(), 1);
    let again = host.run(&["approval", "approve", "1"]);
    assert!(again.code == 1 && again.err.contains("approval 1 is approved"), "{}", again.err);
    assert_eq!(host.run(&["approval", "deny", "2", "--why", "no"]).code, 0);
    assert_eq!(host.passed(), 1);
    let all = host.run(&["approval", "list", "--all"]);
    assert!(all.out.contains("approved (once)") && all.out.contains("denied"), "{}", all.out);
}

#[test]
fn mistakes_are_told_and_change_nothing() {
    let host = Host::start();
    host.hold(4121, 1, "/srv/x");
    let unknown = host.run(&["approval", "show", "99"]);
    assert!(
        unknown.code == 1 && unknown.err.contains("no approval 99") && unknown.err.contains("hint"),
        "{}",
        unknown.err
    );
    for args in [
        vec!["approval", "approve", "x"],
        vec!["approval", "approve", "1", "--once", "--session"],
        vec!["approval", "approve", "1", "--for", "soon"],
        vec!["approval", "approve", "1", "--for", "2d"],
        vec!["approval", "watch"],
        vec!["session", "show", "../agents"],
        vec!["grant", "add", "--agent", "a", "--ttl", "1h", "--reason", "r"],
        vec!["grant", "add", "--file", "/x", "--ttl", "1h", "--reason", "r"],
        vec!["agent", "suspend", "NOT/an/id"],
        vec!["agent", "renew", "bot", "--until", "someday"],
    ] {
        let ran = host.run(&args);
        assert_eq!(ran.code, 2, "{args:?}: {}{}", ran.out, ran.err);
    }
    let named = vec![Approver::User("no-such-user-1b2c".to_owned())];
    host.people().set_approvers(Approvers { named, need: 1, ..Approvers::default() });
    let refused = host.run(&["approval", "approve", "1"]);
    assert!(refused.code == 4 && refused.err.contains("not among the approvers"), "{}", refused.err);
    assert_eq!(host.passed(), 0);
    let alone = TempDir::new().unwrap();
    let socket = alone.path().join("none").display().to_string();
    assert_eq!(host.run(&["--socket", &socket, "approval", "list"]).code, 3);
}

/// Reads until the word is there. What is blank already is not drawn again, so blanks cannot be waited for.
fn until(from: &mut impl std::io::Read, seen: &mut String, text: &str) {
    while !seen.contains(text) {
        read_some(from, seen);
    }
}

fn read_some(from: &mut impl std::io::Read, seen: &mut String) {
    let mut buffer = [0; 4096];
    let len = from.read(&mut buffer).unwrap();
    assert!(len > 0, "ended: {seen}");
    seen.push_str(&String::from_utf8_lossy(&buffer[..len]));
}

#[test]
fn a_person_decides_on_the_screen() {
    if !Path::new("/usr/bin/script").exists() {
        eprintln!("skipped: no script(1) to make a terminal with");
        return;
    }
    let host = Host::start();
    host.hold(4121, 0xabc, "/srv/customers/list.csv");
    let watch = format!("stty rows 28 cols 100; exec {} approval watch", env!("CARGO_BIN_EXE_agent-monitor"));
    let mut command = host.command("/usr/bin/script", &["-qefc", &watch, "/dev/null"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut seen = String::new();
    until(&mut screen, &mut seen, "COMMAND");
    until(&mut screen, &mut seen, "list.csv");
    // Pressed until the screen takes it, as a person would: what has just come up is to be looked at first.
    let mut press = |key: &[u8], done: &dyn Fn(&str) -> bool| {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            if done(&seen) {
                return;
            }
            keys.write_all(key).unwrap();
            read_some(&mut screen, &mut seen);
        }
        panic!("{}: {seen}", String::from_utf8_lossy(key));
    };
    press(b"m", &|seen| seen.contains("likes,"));
    press(b"n", &|seen| seen.contains("decided"));
    assert_eq!(host.passed(), 0);
    press(b"o", &|_| host.passed() == 1);
    until(&mut screen, &mut seen, "Nothing");
    keys.write_all(b"q").unwrap();
    let mut rest = Vec::new();
    screen.read_to_end(&mut rest).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_decision_shows_where_it_was_called_from_and_what_only_the_environment_says() {
    let host = Host::start();
    host.hold(4121, 0xabc, "/srv/a");
    host.hold(4122, 0xdef, "/srv/b");
    let login = fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
    for (id, act) in [("1", "approve"), ("2", "deny")] {
        let mut command = host.command(env!("CARGO_BIN_EXE_agent-monitor"), &["approval", act, id]);
        command
            .env("SUDO_USER", "ann\u{1b}[2J\nlogin root")
            .env("SSH_CONNECTION", "198.51.100.9 50022 10.0.0.1 22");
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        assert!(child.wait_with_output().unwrap().status.success());
        let shown = host.run(&["approval", "show", id]).out;
        let line = shown.lines().find(|line| line.starts_with("called from")).unwrap();
        let (kernel, environment) = line.split_once("; the environment says: ").unwrap();
        assert!(kernel.contains(&format!("pid {pid}")) && kernel.contains("tty "), "{shown}");
        if login.trim() == u32::MAX.to_string() {
            assert!(kernel.contains("login none,"), "{shown}");
        }
        assert_eq!(environment, "sudo user ann[2Jlogin root, SSH 198.51.100.9 50022 10.0.0.1 22", "{shown}");
        assert!(!shown.contains('\u{1b}'));
    }
}

/// A record of `bot`, and a log in the state directory that shows one act of it.
fn reviewed(host: &Host) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let agents = host.directory.path().join("agents.d");
    fs::create_dir(&agents).unwrap();
    fs::set_permissions(&agents, fs::Permissions::from_mode(0o755)).unwrap();
    let text = "[agent]\nid = \"bot\"\nowner = \"o@example.com\"\npurpose = \"p\"\n\
                expires = 2099-01-01T00:00:00Z\n[[match]]\nuser = 4242\n[scope]\n[[scope.file]]\n\
                path = \"/srv/a\"\naccess = [\"read\"]\n";
    fs::write(agents.join("bot.toml"), text).unwrap();
    fs::set_permissions(agents.join("bot.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    let state = host.directory.path().join("state");
    let now = Moment { time: Time::EPOCH, boot_id: "b".to_owned(), boot_nanos: 0 };
    let (mut writer, _) =
        Writer::open(&state.join("log"), Keys::in_state(&state), Settings::default(), "host", &now).unwrap();
    let agent = Agent {
        id: "bot".to_owned(),
        session: None,
        bound_by: BoundBy::Exe,
        delegator: None,
        bound_delay_ms: None,
    };
    let file = File { path: Some("/srv/a".to_owned()), access: vec![Access::Read], ..File::default() };
    writer.append(&Event {
        verdict: Some(Verdict::Deny),
        agent: Some(Arc::new(agent)),
        process: Some(Arc::new(Process { pid: 7, ..Process::default() })),
        file: Some(file),
        ..Event::new(Time::EPOCH, Kind::FileOpen, Source::Lsm)
    });
    writer.checkpoint(&now, true).unwrap();
    segment::path(&state.join("log"), 0, false)
}

#[test]
fn a_review_rests_on_a_checked_log_and_says_so() {
    let host = Host::start();
    let log = reviewed(&host);
    let run = |args: &[&str]| {
        let mut command = host.command(env!("CARGO_BIN_EXE_agent-monitor"), args);
        command.env("AGENT_MONITOR_STATE_DIR", host.directory.path().join("state"));
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let review = |out: &str| serde_json::from_str::<serde_json::Value>(out).unwrap();
    let (code, out, err) = run(&["agent", "review", "bot", "-o", "json", "--done"]);
    assert!(code == 0 && err.contains("verified up to checkpoint 1") && !err.contains("NOT"), "{code} {err}");
    let first = review(&out);
    assert_eq!((&first["checked"]["verified"], &first["verdicts"]["deny"]), (&true.into(), &1.into()));
    assert!(first["reviewed"].is_string(), "noted");

    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replacen("/srv/a", "/srv/b", 1)).unwrap();
    for (format, said) in
        [("json", "\"verified\":false"), ("markdown", "NOT verified"), ("table", "NOT verified")]
    {
        let (code, out, err) = run(&["agent", "review", "bot", "-o", format]);
        assert!(code == 5 && err.contains("NOT verified: "), "{format}: {code} {err}");
        assert!(out.replace(' ', "").contains(&said.replace(' ', "")), "{format}: {out}");
    }
    let (_, before, _) = run(&["agent", "review", "bot", "-o", "json"]);
    let (code, after, err) = run(&["agent", "review", "bot", "-o", "json", "--done", "--next", "7d"]);
    assert!(code == 5 && err.contains("not noted as reviewed"), "{code} {err}");
    assert_eq!(review(&after)["due"], review(&before)["due"]);

    // A log that was never sealed, or none: it is what the daemon remembers, and said to be.
    let unsealed: Vec<&str> = text.lines().take_while(|line| !line.starts_with('C')).collect();
    assert!(unsealed.len() > 2);
    fs::write(&log, format!("{}\n", unsealed.join("\n"))).unwrap();
    let (code, out, err) = run(&["agent", "review", "bot"]);
    assert!(code == 0 && err.contains("NOT verified: from the daemon's memory"), "{code} {out} {err}");
    fs::remove_dir_all(log.parent().unwrap()).unwrap();
    let (code, out, err) = run(&["agent", "review", "bot"]);
    assert!(code == 0 && err.contains("NOT verified: from the daemon's memory"), "{code} {out} {err}");
}
