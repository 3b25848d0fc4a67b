//! `agent learn --from` and `replay` of the built binary, without root or daemon: files in, text and exit codes out.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::process::Command;

use agent_monitor::model::{
    Access, AddressFamily, Agent, BoundBy, Event, File, Gap, Kind, Network, Source, Time, Verdict,
};
use tempfile::TempDir;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn run(directory: &TempDir, args: &[&str]) -> Ran {
    let at = directory.path();
    fs::write(at.join("c.toml"), "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_agent-monitor"))
        .args(args)
        .env_clear()
        .env("AGENT_MONITOR_SOCKET", at.join("c.sock"))
        .env("AGENT_MONITOR_REGISTRY", at.join("agents.d"))
        .env("AGENT_MONITOR_CONFIG", at.join("c.toml"))
        .current_dir(at)
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn event(agent: &str, kind: Kind) -> Event {
    let agent = Agent {
        id: agent.to_owned(),
        session: None,
        bound_by: BoundBy::Exe,
        delegator: None,
        bound_delay_ms: None,
    };
    let event = Event::new(Time::from_unix_nanos(0), kind, Source::Lsm);
    Event { agent: Some(agent.into()), verdict: Some(Verdict::Allow), ..event }
}

fn open(agent: &str, path: &str) -> Event {
    let file = File { path: Some(path.to_owned()), access: vec![Access::Read], ..File::default() };
    Event { file: Some(file), ..event(agent, Kind::FileOpen) }
}

fn connect(agent: &str, to: &str) -> Event {
    let network = Network {
        family: AddressFamily::Ipv4,
        protocol: Some("tcp".to_owned()),
        remote: to.parse().ok(),
        ..Network::default()
    };
    Event { network: Some(network), ..event(agent, Kind::NetworkConnect) }
}

fn host(events: &[Event]) -> TempDir {
    let directory = TempDir::new().unwrap();
    let lines: Vec<String> = events.iter().map(|event| event.to_line().unwrap() + "\n").collect();
    fs::write(directory.path().join("log.jsonl"), lines.concat()).unwrap();
    directory
}

#[test]
fn what_was_learned_permits_what_was_recorded() {
    let host =
        host(&[open("bot", "/etc/motd"), connect("bot", "10.0.0.1:443"), open("other", "/etc/shadow")]);
    let learned = run(&host, &["agent", "learn", "bot", "--from", "log.jsonl"]);
    assert_eq!(learned.code, 0, "{}", learned.err);
    assert!(learned.out.contains("# complete: yes") && !learned.out.contains("shadow"), "{}", learned.out);
    fs::write(host.path().join("s.toml"), &learned.out).unwrap();
    let replayed = run(&host, &["replay", "log.jsonl", "--scope", "s.toml", "--agent", "bot", "-o", "json"]);
    assert_eq!(replayed.code, 0, "{}", replayed.err);
    let report: serde_json::Value = serde_json::from_str(&replayed.out).unwrap();
    assert_eq!((&report["schema_version"], &report["unchanged"]), (&1.into(), &2.into()), "{report:#}");
    assert_eq!(report["newly_denied"], serde_json::json!([]));
    let other = run(&host, &["replay", "log.jsonl", "--scope", "s.toml", "--agent", "other"]);
    assert!(other.out.contains("newly denied: 1") && other.out.contains("read /etc/shadow"), "{}", other.out);
    assert!(other.out.contains("unused rules: 2"), "{}", other.out);
}

#[test]
fn gaps_are_not_complete() {
    let time = Time::from_unix_nanos(0);
    let gap =
        Gap { reason: "ring_full".to_owned(), kind: None, agent: None, count: 3, first: time, last: time };
    let host = host(&[open("bot", "/etc/motd"), Event::gap(time, Kind::GapRing, gap)]);
    let learned = run(&host, &["agent", "learn", "bot", "--from", "log.jsonl"]);
    assert_eq!(learned.code, 0);
    assert!(learned.out.contains("# complete: no, 25.0 %"), "{}", learned.out);
    assert!(learned.err.contains("complete: no — gap.ring (ring_full): 3 events"), "{}", learned.err);
    let strict = ["agent", "learn", "bot", "--from", "log.jsonl", "--require-complete", "-o", "json"];
    let strict = run(&host, &strict);
    assert_eq!(strict.code, 1);
    let json: serde_json::Value = serde_json::from_str(&strict.out).unwrap();
    assert_eq!(json["completeness"]["complete"], false);
}

#[test]
fn bad_input_is_told_with_its_line() {
    let host = host(&[open("bot", "/etc/motd"), open("other", "/etc/motd")]);
    let at = |name: &str| host.path().join(name);
    fs::write(at("s.toml"), "[scope]\ndefault = \"allow\"\n").unwrap();
    let good = fs::read_to_string(at("log.jsonl")).unwrap();
    let replay = |log: &str| run(&host, &["replay", log, "--scope", "s.toml", "--agent", "bot"]);
    fs::write(at("cut.jsonl"), format!("{good}{{\"schema_ver")).unwrap();
    let ran = replay("cut.jsonl");
    assert!(ran.code == 1 && ran.err.contains("cut.jsonl: line 3: not JSON"), "{}", ran.err);
    assert!(ran.err.contains("hint: "), "{}", ran.err);
    fs::write(at("new.jsonl"), good.replacen("\"schema_version\":1", "\"schema_version\":2", 1)).unwrap();
    let ran = replay("new.jsonl");
    assert!(ran.code == 1 && ran.err.contains("line 1: schema_version 2"), "{}", ran.err);
    let learn = |log: &str| run(&host, &["agent", "learn", "bot", "--from", log]);
    assert!(learn("new.jsonl").err.contains("line 1: schema_version 2"));
    for ran in [replay("none.jsonl"), learn("none.jsonl")] {
        assert!(ran.code == 1 && ran.err.contains("none.jsonl"), "{}", ran.err);
    }
    fs::write(at("bad.toml"), "[scope]\ndefault = \"deny\"\nfil = 1\n").unwrap();
    let ran = run(&host, &["replay", "log.jsonl", "--scope", "bad.toml", "--agent", "bot"]);
    assert!(ran.code == 1 && ran.err.contains("bad.toml:3:1"), "{}", ran.err);
    let ran = run(&host, &["replay", "log.jsonl", "--scope", "s.toml"]);
    assert!(ran.code == 2 && ran.err.contains("bot, other"), "{}", ran.err);
    let ran = run(&host, &["agent", "learn", "nobody", "--from", "log.jsonl"]);
    assert!(ran.code == 1 && ran.err.contains("nothing to learn from"), "{}", ran.err);
    assert_eq!(run(&host, &["agent", "learn", "Bad Id", "--from", "log.jsonl"]).code, 2);
    assert_eq!(run(&host, &["agent", "learn", "bot"]).code, 3, "no daemon");
}
