//! Family `evidence`: a real incident, through a killed daemon, to a bundle that answers what people ask.

use std::collections::BTreeSet;
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
    Case::host("killed_again_and_again_while_it_writes", killed_while_writing),
    Case::host("a_full_disk_is_a_counted_gap", full_disk),
    Case::host("a_full_disk_drops_the_oldest_and_the_rest_holds", drop_oldest),
    Case::host("a_hostile_name_stays_text_in_a_browser", browser),
    Case::both("an_incident_becomes_a_bundle", incident),
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

/// The agent reads a labelled file of customers, packs it, and tries to send it out, with a secret on a command line.
fn incident() -> Verdict {
    world::close();
    let setup = Setup::new();
    let customers = setup.scratch.file("customers.csv", "id,name\n");
    let (out, sender) = (setup.scratch.text("out.tgz"), setup.scratch.program(&actor_program(), "sender"));
    let script = setup.scratch.script(
        "courier",
        &format!(
            "#!/bin/sh\ncat {customers} >/dev/null\ntar czf {out} {customers} 2>/dev/null\n\
             env true --token hunter2hunter2\n{sender} tcp-connect 127.0.0.1:9\ntrue\n"
        ),
    );
    let scope = format!(
        "[scope]\ndefault = \"allow\"\n[[scope.file]]\npath = \"{customers}\"\naccess = [\"read\"]\nadds = [\"pii\"]\n\
         [[scope.net]]\nto = \"127.0.0.1:9\"\nverdict = \"deny\"\n"
    );
    let record = Record::new("courier").on(Match::script(&script)).enforce().scope(&scope);
    let state = setup.scratch.text("state");
    let bundle = setup.scratch.text("case7");
    let mut daemon = setup.record(&record).start();
    drop(Command::new(&script).output().unwrap());
    wait_for(&state, &["--agent", "courier", "--kind", "network.connect"], 1, &daemon);
    assert!(daemon.end_by(libc::SIGTERM).success(), "{}", daemon.output());
    let form = ["export", "--state-dir", &state, "--format", "bundle", "--agent", "courier"];
    let made = client::run(&[&form[..], &["--with-context", "5m", "--collect", "--out", &bundle]].concat());
    assert!(made.status.success(), "{}", client::describe(&made));
    let report = json(&["verify", &bundle, "-o", "json"]);
    assert_eq!(report["ok"], true, "{report:#}");
    answers(&bundle, &customers, &out);
    keep(&bundle);
    // The same for outsiders: signed, and without the names of places.
    let outside = daemon.setup.scratch.text("case7-outside");
    let made = client::run(&[&form[..], &["--redact", "users,hosts,paths", "--out", &outside]].concat());
    assert!(made.status.success(), "{}", client::describe(&made));
    let report = json(&["verify", &outside, "-o", "json"]);
    assert_eq!((&report["ok"], &report["renamed"][2]), (&true.into(), &"paths".into()), "{report:#}");
    let text = std::fs::read_to_string(format!("{outside}/records.jsonl")).unwrap();
    assert!(!text.contains("customers.csv") && !text.contains("out.tgz"));
    Ok(())
}

/// What people ask of a bundle.
fn answers(bundle: &str, customers: &str, out: &str) {
    let read = |name: &str| std::fs::read_to_string(format!("{bundle}/{name}")).unwrap();
    // What did it do: read, packed, tried to send, and was refused.
    let records = read("records.jsonl");
    for part in [customers, out, "127.0.0.1:9", "\"verdict\":\"deny\"", "scope.net[0]"] {
        assert!(records.contains(part), "{part}");
    }
    assert!(!records.contains("hunter2") && records.contains("[redacted:option:"), "the secret is not in it");
    // Who allowed it, and what could it have reached: its record at that time.
    let record = read("agents/courier.toml");
    assert!(record.contains("127.0.0.1:9") && record.contains("pii"));
    // What do we not know: what the host could see then.
    let host: Value = serde_json::from_str(&read("host.json")).unwrap();
    assert!(host["doctor"]["level"].is_string());
    let files: Value = serde_json::from_str(&read("files.json")).unwrap();
    let programs = files["programs"].as_array().unwrap();
    let packer = |found: &&Value| {
        found["path"].as_str().is_some_and(|path| path.ends_with("/tar") || path.ends_with("/busybox"))
    };
    assert!(programs.iter().find(packer).is_some_and(|found| found["sha256"].is_string()), "{programs:#?}");
    let html = read("report.html");
    let parts = [
        "What did it do?",
        "customers.csv",
        "refused, held or ended",
        "Who allowed it?",
        "tests@example.com",
        "What could it have reached?",
        "scope.net[0]",
        "What do we not know?",
        "What the host could see then",
        "OWASP Top 10 for Agentic Applications",
        "T1041",
        "PR.AA-05",
    ];
    for part in parts {
        assert!(html.contains(part), "{part}");
    }
}

/// Leaves a copy of a bundle for people to look at, where they asked for one.
fn keep(bundle: &str) {
    if let Some(to) = std::env::var_os("AGENT_MONITOR_KEEP") {
        drop(Command::new("cp").arg("-rT").arg(bundle).arg(to).status());
    }
}

/// A full disk: a visible state, nothing waits for it, and what was missed is one counted gap.
fn full_disk() -> Verdict {
    world::close();
    let setup = Setup::new();
    let program = setup.scratch.program(&actor_program(), "bot");
    let file = setup.scratch.file("f", "x");
    let disk = Disk::mount(&setup.scratch.text("state"), 4);
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

/// A full disk with `drop-oldest`: the oldest segments make room, which is said, and what is left verifies.
fn drop_oldest() -> Verdict {
    world::close();
    let setup = Setup::new();
    let program = setup.scratch.program(&actor_program(), "bot");
    let dir = setup.scratch.dir("work").to_str().unwrap().to_owned();
    let text = "[log]\non-full = \"drop-oldest\"\nsegment-mebibytes = 1\ncheckpoint-seconds = 1\n";
    let config = setup.scratch.file("daemon.toml", text);
    let disk = Disk::mount(&setup.scratch.text("state"), 32);
    let setup = setup.record(&Record::new("bot").on(Match::exe(&program))).arg("--config").arg(&config);
    let mut daemon = setup.start();
    let segments = || {
        let files = std::fs::read_dir(format!("{}/log", disk.0)).unwrap().flatten().map(|entry| entry.path());
        files.filter(|path| path.extension().is_some_and(|end| end == "zst")).collect::<BTreeSet<_>>()
    };
    let closed = || segments().len();
    let words = format!("dir={dir}");
    let storm = |opens: &str| {
        let counts = [opens, "connects=0", "forks=0", "files=0", "rounds=1"];
        Actor::start(&program, &[&["storm", words.as_str()], counts.as_slice()].concat()).finish().all_ok();
    };
    for wanted in 1..=4 {
        // More than one segment's worth, once: asked for again and again, a fast machine fills the disk in one batch.
        storm("opens=1000");
        let there = wait::until(PATIENCE * 3, || closed() >= wanted);
        assert!(there, "{} closed segments\n{}", closed(), daemon.output());
    }
    let (before, oldest) = (closed(), segments().pop_first().unwrap());
    std::fs::write(format!("{}/filler", disk.0), vec![0; 64 << 20]).unwrap_err();
    let made_room = wait::until(PATIENCE, || {
        storm("opens=200");
        !logged(&disk.0, &["--kind", "log.retained"]).is_empty()
    });
    assert!(made_room, "{} of {before} closed segments\n{}", closed(), daemon.output());
    let state = || daemon.cli_json(&["status", "-o", "json"])["log"]["state"].clone();
    let writes = wait::until(PATIENCE, || state() == "writing");
    // Not by their number: with room again another one is closed.
    assert!(writes && !oldest.exists(), "{} with {}", state(), oldest.display());
    assert!(daemon.end_by(libc::SIGTERM).success(), "{}", daemon.output());
    let report = json(&["verify", &disk.0, "-o", "json"]);
    assert_eq!((&report["ok"], &report["closed"]), (&true.into(), &true.into()), "{report:#}");
    assert!(report["first"].as_u64() > Some(0) && report["removed_by_rule"][0][0] == 0, "{report:#}");
    let gaps = logged(&disk.0, &["--kind", "gap.log"]);
    assert!(gaps.iter().any(|event| event["gap"]["reason"] == "disk_full"), "{gaps:#?}");
    Ok(())
}

/// Killed while it writes, three times: each start goes on, says so, and the log holds in the end.
fn killed_while_writing() -> Verdict {
    world::close();
    let setup = Setup::new();
    let program = setup.scratch.program(&actor_program(), "bot");
    let words = format!("dir={}", setup.scratch.dir("work").display());
    let state = setup.scratch.text("state");
    let mut daemon = setup.record(&Record::new("bot").on(Match::exe(&program))).start();
    for _ in 0..3 {
        let records = |daemon: &Daemon| daemon.cli_json(&["status", "-o", "json"])["log"]["records"].as_u64();
        let before = records(&daemon);
        let storm = Actor::start(&program, &["storm", &words, "seconds=3", "opens=40", "files=0"]);
        assert!(wait::until(PATIENCE, || records(&daemon) > before.map(|count| count + 1000)));
        daemon.end_by(libc::SIGKILL);
        storm.finish().all_ok();
        daemon.restart();
    }
    assert!(daemon.end_by(libc::SIGTERM).success(), "{}", daemon.output());
    let report = json(&["verify", &state, "-o", "json"]);
    assert_eq!((&report["ok"], &report["closed"]), (&true.into(), &true.into()), "{report:#}");
    let opened = logged(&state, &["--kind", "log.opened"]);
    let before: Vec<&Value> = opened.iter().map(|event| &event["detail"]["before"]).collect();
    assert_eq!(before, ["new", "crashed", "crashed", "crashed"]);
    Ok(())
}

/// A small file system, gone with this value.
struct Disk(String);

impl Disk {
    fn mount(at: &str, mebibytes: u32) -> Self {
        let options = format!("size={mebibytes}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs", at]).status();
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
        let reason = if std::env::var_os("AGENT_MONITOR_NO_BROWSER").is_some() {
            "registry: no Chromium, and apt brought none"
        } else {
            "no Chromium in the path; apt-get install chromium"
        };
        return Skip::because(reason);
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
