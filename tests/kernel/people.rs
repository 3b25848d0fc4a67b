//! Family `people`: sessions, grants and the life of agents, on real processes; and that what was decided outlives the
//! daemon.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::case::{Case, Skip, Verdict};
use agent_monitor_tests::harness::cgroup::Cgroup;
use agent_monitor_tests::harness::client;
use agent_monitor_tests::harness::lane::{cgroup_root, monitor_program};
use agent_monitor_tests::harness::monitor::{Daemon, Setup};
use agent_monitor_tests::harness::registry::Record;
use agent_monitor_tests::harness::world;
use agent_monitor_tests::sys::{self, wait};

pub(crate) const CASES: &[Case] = &[
    Case::both("suspend_stops_a_fork_storm_and_resume_goes_on", suspend_stops_a_fork_storm),
    Case::both("suspend_freezes_a_group_of_its_own", suspend_freezes),
    Case::both("session_has_an_id_a_task_and_an_end", session_has_an_end),
    Case::both("grant_is_given_and_taken_back", grant_is_given_and_taken_back),
    Case::both("retired_is_for_ever", retired_is_for_ever),
    Case::vm("off_boarding_disables_units", off_boarding_disables_units),
    Case::both("state_outlives_kill9", state_outlives_kill9),
    Case::both("a_damaged_database_refuses_the_start", a_damaged_database_refuses_the_start),
];

/// A launched process of the agent; killed when dropped.
struct Launched(Child);

impl Drop for Launched {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Launched {
    fn ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

fn daemon(more: &str) -> Daemon {
    world::close();
    Setup::new().record(&Record::new("bot").scope(more)).start()
}

fn launch(daemon: &Daemon, options: &[&str], script: &str) -> Launched {
    let mut command = Command::new(monitor_program());
    command.args(["exec", "--agent", "bot", "--socket", &daemon.socket()]).args(options);
    command.args(["--", "/bin/sh", "-c", script]).stdin(Stdio::null());
    Launched(command.spawn().unwrap())
}

/// Runs it, and it must succeed.
#[track_caller]
fn good(daemon: &Daemon, args: &[&str]) -> String {
    let output = daemon.cli(args);
    assert!(output.status.success(), "{args:?}: {}", client::describe(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs it, and it must fail with these words.
#[track_caller]
fn bad(daemon: &Daemon, args: &[&str], words: &str) {
    let output = daemon.cli(args);
    let said = client::describe(&output);
    assert!(!output.status.success() && said.contains(words), "{args:?}: {said}");
}

fn kinds(daemon: &Daemon) -> Vec<String> {
    let text = good(daemon, &["events", "-o", "jsonl"]);
    let kind = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["kind"].as_str().unwrap().to_owned()
    };
    text.lines().map(kind).collect()
}

fn size(path: &PathBuf) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

fn suspend_stops_a_fork_storm() -> Verdict {
    let daemon = daemon("");
    let trace = daemon.setup.scratch.path("trace");
    let storm =
        format!("while :; do (echo x >> {0}) & (echo y >> {0}; /bin/true) & wait; done", trace.display());
    let _bot = launch(&daemon, &[], &storm);
    assert!(wait::until(PATIENCE, || size(&trace) > 200), "the storm does not begin");
    good(&daemon, &["agent", "suspend", "bot", "--why", "a storm"]);
    // Nothing of the tree runs after suspend has returned.
    let written = size(&trace);
    for _ in 0..50 {
        let tree = daemon.tree("bot");
        assert!(!tree.is_empty());
        let running: Vec<_> =
            tree.iter().filter(|pid| !matches!(sys::state(**pid), Some('T' | 'Z') | None)).collect();
        assert!(running.is_empty(), "{running:?} run");
    }
    assert_eq!(size(&trace), written, "it wrote after it was suspended");
    bad(&daemon, &["agent", "suspend", "bot"], "is suspended");
    let mut new = launch(&daemon, &[], "exit 0");
    assert!(wait::until(PATIENCE, || new.ended()) && !new.0.wait().unwrap().success(), "something new began");
    assert!(good(&daemon, &["agent", "review"]).contains("suspended"));
    good(&daemon, &["agent", "resume", "bot"]);
    assert!(wait::until(PATIENCE, || size(&trace) > written), "it does not go on");
    let kinds = kinds(&daemon);
    for kind in ["agent.suspended", "agent.resumed", "session.started"] {
        assert!(kinds.iter().any(|known| known == kind), "no {kind}");
    }
    Ok(())
}

/// An agent that has a control group for itself is frozen in it: not even a signal moves it, and it goes on where it was.
fn suspend_freezes() -> Verdict {
    let name = format!("/agent-monitor-tests-{}", std::process::id());
    let Some(group) = Cgroup::make(&name) else { return Skip::because("no cgroup v2 is mounted") };
    let daemon = daemon("");
    let trace = daemon.setup.scratch.path("trace");
    let script = format!("while :; do echo x >> {}; done", trace.display());
    let mut command = Command::new(monitor_program());
    command.args(["exec", "--agent", "bot", "--socket", &daemon.socket(), "--", "/bin/sh", "-c", &script]);
    group.start_in(command.stdin(Stdio::null()));
    let bot = Launched(command.spawn().unwrap());
    let frozen = || {
        let text = std::fs::read_to_string(cgroup_root().unwrap().join(&name[1..]).join("cgroup.events"));
        text.unwrap().lines().any(|line| line == "frozen 1")
    };
    assert!(wait::until(PATIENCE, || size(&trace) > 20), "it does not run");
    good(&daemon, &["agent", "suspend", "bot"]);
    assert!(frozen(), "it was stopped in another way");
    let written = size(&trace);
    // A signal would wake what is only stopped.
    sys::kill(bot.0.id() as i32, libc::SIGCONT).unwrap();
    good(&daemon, &["agent", "show", "bot"]);
    assert_eq!(size(&trace), written, "it went on by a signal");
    good(&daemon, &["agent", "resume", "bot"]);
    assert!(!frozen() && wait::until(PATIENCE, || size(&trace) > written), "it does not go on");
    drop(bot);
    Ok(())
}

fn session_has_an_end() -> Verdict {
    let daemon = daemon("");
    let mut bot =
        launch(&daemon, &["--task", "ticket 5", "--ttl", "1h"], "read line < /dev/zero & sleep 600");
    let session = || {
        let list = daemon.cli_json(&["session", "list", "-o", "json"]);
        list["sessions"].as_array().and_then(|all| all.first().cloned())
    };
    assert!(wait::until(PATIENCE, || session().is_some()), "no session");
    let session = session().unwrap();
    let id = session["id"].as_str().unwrap().to_owned();
    assert_eq!((session["task"].as_str(), session["by"].as_str()), (Some("ticket 5"), Some("root")));
    let named = || good(&daemon, &["events", "-o", "jsonl", "--session", &id]).lines().count() > 0;
    assert!(wait::until(PATIENCE, named), "no event of session {id}");
    assert!(good(&daemon, &["session", "show", &id]).contains("ticket 5"));
    good(&daemon, &["session", "end", &id, "--kill", "--why", "enough"]);
    assert!(wait::until(PATIENCE, || bot.ended()), "its process goes on");
    bad(&daemon, &["session", "end", &id], "has ended already");
    let mut short = launch(&daemon, &[], "exit 0");
    assert!(wait::until(PATIENCE, || short.ended()));
    let none = || good(&daemon, &["session", "list"]).contains("no sessions");
    assert!(wait::until(PATIENCE, none), "a session whose processes have ended goes on");
    let mut none = launch(&daemon, &["--scope", "/dev/null"], "exit 0");
    assert!(wait::until(PATIENCE, || none.ended()) && !none.0.wait().unwrap().success());
    Ok(())
}

fn grant_is_given_and_taken_back() -> Verdict {
    let daemon = daemon("");
    let add =
        ["grant", "add", "--agent", "bot", "--file", "/srv/x:read,write", "--ttl", "1h", "--reason", "r"];
    let grant = daemon.cli_json(&[&add[..], &["--uses", "3", "-o", "json"]].concat());
    let id = grant["id"].to_string();
    assert_eq!((grant["state"].as_str(), grant["uses_left"].as_u64()), (Some("active"), Some(3)));
    assert!(good(&daemon, &["grant", "list"]).contains("/srv/x"));
    good(&daemon, &["grant", "revoke", &id]);
    bad(&daemon, &["grant", "revoke", &id], "is revoked");
    bad(&daemon, &["grant", "revoke", "99"], "no grant 99");
    let nobody = ["grant", "add", "--agent", "nobody", "--exec", "/bin/sh", "--ttl", "1h", "--reason", "r"];
    bad(&daemon, &nobody, "nobody");
    let long = ["grant", "add", "--agent", "bot", "--exec", "/bin/sh", "--ttl", "5w", "--reason", "r"];
    bad(&daemon, &long, "30d");
    Ok(())
}

fn retired_is_for_ever() -> Verdict {
    world::close();
    let setup = Setup::new();
    let token = setup.scratch.path("token");
    std::fs::write(&token, "secret").unwrap();
    let off =
        format!("[offboarding]\nremove_files = [\"{}\"]\nmanual = [\"tell the owner\"]\n", token.display());
    let record = Record::new("bot").scope(&off);
    let daemon = setup.record(&record).start();
    let mut bot = launch(&daemon, &[], "trap '' TERM; while :; do sleep 1; done");
    assert!(wait::until(PATIENCE, || !daemon.tree("bot").is_empty()), "it does not run");
    let reply = daemon.cli_json(&["agent", "retire", "bot", "--why", "over", "-o", "json"]);
    assert_eq!((reply["state"].as_str(), reply["complete"].as_bool()), (Some("retired"), Some(true)));
    assert!(wait::until(PATIENCE, || bot.ended()), "it goes on");
    assert!(!token.exists());
    assert_eq!(reply["steps"][0]["result"], "done");
    assert_eq!(reply["steps"][0]["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(reply["steps"][1]["result"], "open");
    good(&daemon, &["agent", "retire", "bot", "--confirm", "2", "--note", "told"]);
    bad(&daemon, &["agent", "retire", "bot", "--confirm", "2"], "no open step");
    bad(&daemon, &["agent", "retire", "bot"], "is retired");
    bad(&daemon, &["agent", "resume", "bot"], "is retired");
    bad(&daemon, &["agent", "renew", "bot", "--until", "90d"], "never renewed");
    // Registered anew under the old id: refused before anything is written, and by the daemon.
    let again = daemon.setup.scratch.path("again.toml");
    std::fs::write(&again, Record::new("bot").toml()).unwrap();
    let state = daemon.setup.scratch.text("state");
    let config = daemon.setup.scratch.path("config.toml");
    std::fs::write(&config, format!("state-dir = \"{state}\"\n")).unwrap();
    let register = ["agent", "register", "--replace", again.to_str().unwrap()];
    bad(&daemon, &[&register[..], &["--config", config.to_str().unwrap()]].concat(), "is retired");
    bad(&daemon, &register, "is retired");
    let mut late = launch(&daemon, &[], "exit 0");
    assert!(wait::until(PATIENCE, || late.ended()));
    assert!(!late.0.wait().unwrap().success(), "a retired agent was launched");
    Ok(())
}

/// What off-boarding asks of systemd, and that it believes only what it sees afterwards. No systemd runs in the machine: a
/// program of its name keeps two units, one of which will not go.
fn off_boarding_disables_units() -> Verdict {
    world::close();
    let setup = Setup::new();
    let gone = setup.scratch.text("gone");
    let systemctl = format!(
        "#!/bin/sh\nfor unit; do :; done\ncase \"$2 $unit\" in\n\
         'disable good.service') echo Removed; : > {gone};;\n\
         'disable stubborn.service') echo 'Access denied' >&2; exit 1;;\n\
         'is-active good.service') [ -e {gone} ] && echo inactive || echo active;;\n\
         'is-enabled good.service') [ -e {gone} ] && echo disabled || echo enabled;;\n\
         'is-active stubborn.service') echo active;;\n\
         'is-enabled stubborn.service') echo enabled;;\nesac\n"
    );
    std::fs::create_dir_all("/run/systemd/system").unwrap();
    for unit in ["good", "stubborn"] {
        std::fs::write(format!("/run/systemd/system/{unit}.service"), "[Service]\nExecStart=/bin/true\n")
            .unwrap();
    }
    std::fs::write("/usr/bin/systemctl", systemctl).unwrap();
    std::fs::set_permissions("/usr/bin/systemctl", std::fs::Permissions::from_mode(0o755)).unwrap();
    let off = "[offboarding]\ndisable_units = [\"good.service\", \"stubborn.service\"]\n";
    let daemon = setup.record(&Record::new("bot").scope(off)).start();
    // A step that failed is a failure of the command, told after what was done.
    let output = daemon.cli(&["agent", "retire", "bot", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", client::describe(&output));
    let reply: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let [good, stubborn] = [&reply["steps"][0], &reply["steps"][1]];
    assert_eq!(
        (good["target"].as_str(), good["result"].as_str()),
        (Some("good.service"), Some("done")),
        "{reply}"
    );
    assert_eq!(good["evidence"]["active"], "inactive", "{reply}");
    assert_eq!(stubborn["result"], "failed", "{reply}");
    assert!(stubborn["evidence"]["said"].as_str().unwrap().contains("Access denied"), "{reply}");
    std::fs::remove_dir_all("/run/systemd").unwrap();
    std::fs::remove_file("/usr/bin/systemctl").unwrap();
    Ok(())
}

fn state_outlives_kill9() -> Verdict {
    let mut daemon = daemon("");
    // Before it runs: then it runs as root, and nobody that an agent runs as decides for it.
    let add = ["grant", "add", "--agent", "bot", "--exec", "/bin/sh", "--ttl", "1h", "--reason", "r"];
    good(&daemon, &add);
    let _bot = launch(&daemon, &[], "while :; do sleep 1; done");
    assert!(wait::until(PATIENCE, || !daemon.tree("bot").is_empty()), "it does not run");
    bad(&daemon, &add, "never approves itself");
    good(&daemon, &["agent", "suspend", "bot"]);
    let tree = daemon.tree("bot");
    daemon.end_by(libc::SIGKILL);
    daemon.restart();
    let agents = daemon.cli_json(&["agent", "show", "bot", "-o", "json"]);
    assert_eq!(agents["state"].as_str(), Some("suspended"));
    assert!(tree.iter().all(|pid| matches!(sys::state(*pid), Some('T'))), "it was woken by the restart");
    assert!(good(&daemon, &["grant", "list"]).contains("/bin/sh"));
    assert!(good(&daemon, &["session", "list"]).contains("bot"));
    good(&daemon, &["agent", "resume", "bot"]);
    assert!(wait::until(PATIENCE, || tree.iter().any(|pid| sys::state(*pid) != Some('T'))));
    Ok(())
}

fn a_damaged_database_refuses_the_start() -> Verdict {
    world::close();
    let setup = Setup::new().record(&Record::new("bot"));
    std::fs::write(setup.scratch.path("state/state.sqlite"), "x".repeat(9000)).unwrap();
    let output = setup.command().output().unwrap();
    let said = client::describe(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("state database") && said.contains("damaged"), "{said}");
    let kept = std::fs::read_to_string(setup.scratch.path("state/state.sqlite")).unwrap();
    assert!(kept.starts_with("xxx"), "it was written to");
    Ok(())
}
