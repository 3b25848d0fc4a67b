//! Self-protection: a root agent tries to end, blind, slow or rewrite the monitor. Each try is refused and told as
//! `tamper.*`, in both modes; a stranger is free to do the same, and the daemon goes on.

use agent_monitor_tests::harness::actor::Actor;
use agent_monitor_tests::harness::case::{Case, Verdict};
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::monitor::{Daemon, Setup};
use agent_monitor_tests::harness::registry::{Match, Record};
use agent_monitor_tests::harness::{PATIENCE, client, world};
use agent_monitor_tests::sys::wait;

pub(crate) const CASES: &[Case] =
    &[Case::vm("by_an_enforced_agent", || tries(true)), Case::vm("by_an_observed_agent", || tries(false))];

/// What is tried, with `@D` for the daemon's pid, `@P` for its pins and `@S` for the directory of its other places; the kind that tells it.
const TRIES: &[(&str, &str)] = &[
    ("kill @D 9", "tamper.signal"),
    ("kill @D 19", "tamper.signal"),
    ("kill @D 15", "tamper.signal"),
    ("run /bin/busybox kill -TERM @D", "tamper.signal"),
    ("run /bin/busybox renice 5 -p @D", "tamper.signal"),
    ("run /bin/busybox taskset -p 1 @D", "tamper.signal"),
    ("ptrace-pid @D", "tamper.ptrace"),
    ("open /proc/@D/mem read", "tamper.ptrace"),
    ("open /proc/@D/environ read", "tamper.ptrace"),
    ("open /proc/@D/oom_score_adj write", "tamper.file"),
    ("unlink @P/link_file_open", "tamper.file"),
    ("rename @P/map_PLACES @P/map_OTHER", "tamper.file"),
    ("rename @P @P-elsewhere", "tamper.file"),
    ("open @S/registry/bot.toml write", "tamper.file"),
    ("unlink @S/registry/bot.toml", "tamper.file"),
    ("rename @S/registry/bot.toml @S/registry/gone", "tamper.file"),
    ("creat @S/registry/more.toml", "tamper.file"),
    ("rename @S/registry @S/elsewhere", "tamper.file"),
    ("open @S/state/agents.index.json read", "tamper.file"),
    ("open @S/state/agents.index.json write", "tamper.file"),
    ("unlink @S/run/control.sock", "tamper.file"),
    ("unix-connect @S/run/control.sock", "tamper.control"),
    ("bpf", "tamper.bpf"),
];

fn tries(enforce: bool) -> Verdict {
    world::close();
    let setup = Setup::new();
    let (bot, stranger) =
        (setup.scratch.program(&actor_program(), "bot"), setup.scratch.program(&actor_program(), "stranger"));
    let record = Record::new("bot").on(Match::exe(&bot)).scope("[scope]\ndefault = \"allow\"\n");
    let daemon = setup.record(&if enforce { record.enforce() } else { record }).start();
    let mut wrong = Vec::new();
    for (act, kind) in TRIES {
        let words = words(&daemon, act);
        let words: Vec<&str> = words.split(' ').collect();
        let run = Actor::start(&bot, &words).finish();
        let refused = run.marks.iter().any(|mark| {
            let errno = mark.facts.get("errno").map(String::as_str);
            let status = mark.facts.get("status").is_some_and(|status| status != "0");
            matches!(errno, Some("EACCES" | "EPERM")) || status
        });
        if !refused {
            wrong.push(format!("{act}: {:?}", run.marks));
        }
        if !wait::until(PATIENCE, || told(&daemon, kind)) {
            wrong.push(format!("{act}: no {kind} with verdict deny in the record"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), TRIES.len(), wrong.join("\n"));
    let status = daemon.cli(&["status"]);
    assert!(status.status.success(), "the daemon does not answer\n{}", client::describe(&status));
    for act in [
        "open @S/registry/bot.toml write",
        "open @S/state/agents.index.json read",
        "kill @D 18",
        "bpf",
        "unix-connect @S/run/control.sock",
    ] {
        let words = words(&daemon, act);
        let words: Vec<&str> = words.split(' ').collect();
        Actor::start(&stranger, &words).finish().all_ok();
    }
    Ok(())
}

fn words(daemon: &Daemon, act: &str) -> String {
    let places = daemon.setup.scratch.text("");
    let pins = daemon.setup.bpffs();
    act.replace("@D", &daemon.pid().to_string())
        .replace("@P", pins.to_str().unwrap())
        .replace("@S", places.trim_end_matches('/'))
}

/// Whether a refusal of this kind is in the record.
fn told(daemon: &Daemon, kind: &str) -> bool {
    let output = daemon.cli(&["events", "--agent", "bot", "--kind", kind, "-o", "jsonl"]);
    String::from_utf8_lossy(&output.stdout).lines().any(|line| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["verdict"] == "deny" && event["rule"] == "self-protection" && event["mode"] == "enforce"
    })
}
