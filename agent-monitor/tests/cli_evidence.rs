//! Evidence from outside, without a daemon and without root: `verify`, `events --log`, `export`, `key`, `hold` on a log
//! that the library wrote.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up has failed")]

#[path = "evidence/checked.rs"]
mod checked;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use agent_monitor::log::copies::{Copied, Sockets};
use agent_monitor::log::key::Keys;
use agent_monitor::log::segment;
use agent_monitor::log::writer::{Writer, about};
use agent_monitor::log::{Moment, Settings};
use agent_monitor::model::{Agent, BoundBy, Event, File, Gap, Kind, Mode, Process, Source, Time, Verdict};
use serde_json::Value;
use tempfile::TempDir;

const START: i128 = 1_700_000_000_000_000_000;

fn at(second: u64) -> Time {
    Time::from_unix_nanos(START + i128::from(second) * 1_000_000_000)
}

fn moment(second: u64) -> Moment {
    Moment { time: at(second), boot_id: "b".to_owned(), boot_nanos: second * 1_000_000_000 }
}

fn event(second: u64, agent: &str, path: &str, verdict: Verdict) -> Event {
    let agent = Agent {
        id: agent.to_owned(),
        session: None,
        bound_by: BoundBy::Exe,
        delegator: None,
        bound_delay_ms: None,
    };
    let process = Process {
        pid: 7,
        start_time: Some(at(0)),
        exe: Some("/bin/cat".to_owned()),
        args: vec!["cat".to_owned(), path.to_owned()],
        user: Some("carol".to_owned()),
        ..Process::default()
    };
    Event {
        verdict: Some(verdict),
        mode: Some(Mode::Enforce),
        agent: Some(Arc::new(agent)),
        process: Some(Arc::new(process)),
        file: Some(File { path: Some(path.to_owned()), ..File::default() }),
        ..Event::new(at(second), Kind::FileOpen, Source::Lsm)
    }
}

/// A state directory with a log of four hundred seconds, over several segments.
struct Place {
    directory: TempDir,
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        let place = Self { directory: TempDir::new().unwrap() };
        fs::write(place.path("c.toml"), "").unwrap();
        let settings = Settings { segment_bytes: 1 << 16, ..Settings::default() };
        let (mut writer, _) =
            Writer::open(&place.log(), Keys::in_state(&place.state()), settings, "host", &moment(0)).unwrap();
        let record = "[agent]\nid = \"bot\"\nowner = \"o@example.com\"\n[scope]\ndefault = \"deny\"\n\
                      [[scope.file]]\npath = \"/srv/**\"\naccess = [\"read\"]\n";
        let fields = [("agent", "bot".into()), ("sha256", "00".into()), ("record", record.into())];
        writer.append(&about(Kind::LogPolicy, at(0), fields));
        for second in 1..=400u64 {
            let verdict = if second % 50 == 0 { Verdict::Deny } else { Verdict::Allow };
            let agent = if second % 2 == 0 { "bot" } else { "other" };
            writer.append(&event(second, agent, &format!("/srv/{second}"), verdict));
            if second == 200 {
                let gap = Gap {
                    reason: "ring_full".into(),
                    kind: None,
                    agent: None,
                    count: 3,
                    first: at(190),
                    last: at(200),
                };
                writer.append(&Event::gap(at(200), Kind::GapRing, gap));
                writer.append(&event(200, "bot", "/srv/<script>alert(1)</script>\u{1b}[2J", Verdict::Deny));
            }
            if second % 10 == 0 {
                writer.checkpoint(&moment(second), false).unwrap();
                if writer.is_due() {
                    writer.roll(&moment(second)).unwrap();
                }
            }
        }
        writer.checkpoint(&moment(401), true).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn state(&self) -> PathBuf {
        self.path("state")
    }

    fn log(&self) -> PathBuf {
        self.state().join("log")
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agent-monitor"));
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin").current_dir(self.directory.path());
        command.env("AGENT_MONITOR_CONFIG", self.path("c.toml"));
        command.env("AGENT_MONITOR_STATE_DIR", self.state());
        command.env("AGENT_MONITOR_REGISTRY", self.path("agents.d"));
        command.env("AGENT_MONITOR_SOCKET", self.path("c.sock"));
        let output = command.output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_log_verifies_until_a_byte_is_changed() {
    let place = Place::new();
    let good = place.run(&["verify"]);
    assert!(good.code == 0 && good.out.contains("holds"), "{} {}", good.out, good.err);
    assert!(good.out.contains("beside the log"), "{}", good.out);
    let key = place.run(&["key", "export"]).out;
    let json: Value =
        serde_json::from_str(&place.run(&["verify", "state", "--key", key.trim(), "-o", "json"]).out)
            .unwrap();
    assert_eq!(
        (&json["ok"], &json["closed"], &json["notes"]),
        (&true.into(), &true.into(), &Value::Array(Vec::new()))
    );
    let other = TempDir::new().unwrap();
    let foreign =
        Keys::in_state(other.path()).load_or_create("agent-monitor/host").unwrap().public().to_string();
    let wrong = place.run(&["verify", "--key", &foreign, "-o", "json"]);
    assert_eq!((wrong.code, lines_of(&wrong.out)["damage"][0]["kind"].clone()), (1, "other-key".into()));
    let last = segment::list(&place.log()).unwrap().pop().unwrap().path;
    let text = fs::read_to_string(&last).unwrap();
    fs::write(&last, text.replacen("log.closed", "log.clocks", 1)).unwrap();
    let bad = place.run(&["verify", "-o", "json"]);
    let json = lines_of(&bad.out);
    assert_eq!((bad.code, &json["damage"][0]["kind"]), (1, &"changed".into()), "{}", bad.out);
    assert!(place.run(&["verify"]).out.contains("DOES NOT HOLD"));
}

fn lines_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn what_is_no_log_is_a_mistake_of_the_caller() {
    let place = Place::new();
    for args in [vec!["verify", "/nonexistent"], vec!["verify", "/etc"], vec!["events", "--log", "/etc"]] {
        let ran = place.run(&args);
        assert!(ran.code == 2 && ran.err.contains("is no log"), "{args:?} {} {}", ran.code, ran.err);
    }
    let ran = place.run(&["events", "--log", "--follow"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert_eq!(place.run(&["export", "--format", "bundle"]).code, 2);
    assert_eq!(place.run(&["export", "--with-context", "soon"]).code, 2);
}

#[test]
fn events_come_from_the_log_filtered_and_in_each_form() {
    let place = Place::new();
    assert_eq!(lines(&place.run(&["events", "--log", "-o", "jsonl", "--agent", "other"]).out).len(), 200);
    let hour = place.run(&[
        "events",
        "--log",
        "-o",
        "jsonl",
        "--since",
        &at(100).to_string(),
        "--until",
        &at(110).to_string(),
        "--kind",
        "file",
    ]);
    assert_eq!(lines(&hour.out).len(), 10);
    let found = place.run(&["events", "--log", "-o", "jsonl", "--text", "SCRIPT"]);
    assert_eq!(lines(&found.out).len(), 1);
    let newest = lines(&place.run(&["events", "--log", "-o", "jsonl", "--kind", "file.open", "-n", "2"]).out);
    assert_eq!((newest.len(), &newest[1]["file"]["path"]), (2, &"/srv/400".into()));
    let table = place.run(&["events", "--log", "--text", "script>"]);
    assert!(!table.out.contains('\u{1b}') && table.out.contains("\\u{1b}"), "{:?}", table.out);
    let tree = place.run(&["events", "--log", "--tree", "--agent", "bot"]);
    assert!(
        tree.out.contains("cat[7]") && tree.out.contains("OUT OF SCOPE") && !tree.out.contains('\u{1b}'),
        "{}",
        tree.out
    );
    let timeline = place.run(&["events", "--log", "--timeline"]);
    assert!(timeline.out.contains("GAPS") && timeline.out.contains("refused"), "{}", timeline.out);
    // A copy on another machine: the directory alone, and lines in a file.
    let copy = place.path("copy");
    fs::create_dir(&copy).unwrap();
    for segment in segment::list(&place.log()).unwrap() {
        fs::copy(&segment.path, copy.join(segment.path.file_name().unwrap())).unwrap();
    }
    assert_eq!(
        lines(&place.run(&["events", "--log", "copy", "-o", "jsonl", "--agent", "other"]).out).len(),
        200
    );
    let all = place.run(&["events", "--log", "-o", "jsonl"]);
    fs::write(place.path("all.jsonl"), &all.out).unwrap();
    assert_eq!(place.run(&["events", "--log", "all.jsonl", "-o", "jsonl"]).out, all.out);
}

#[test]
fn without_a_daemon_events_come_from_the_log() {
    let place = Place::new();
    let ran = place.run(&["events", "-o", "jsonl", "--agent", "other"]);
    assert_eq!((ran.code, lines(&ran.out).len()), (0, 200), "{}", ran.err);
    assert!(ran.err.contains("no daemon answers") && ran.err.contains("state/log"), "{}", ran.err);
    let newest = lines(&place.run(&["events", "-o", "jsonl", "--kind", "file.open", "-n", "250"]).out);
    let paths: Vec<&str> = newest.iter().map(|event| event["file"]["path"].as_str().unwrap()).collect();
    assert_eq!((paths.len(), paths[249]), (250, "/srv/400"));
    assert!(
        paths.iter().zip(&paths[1..]).all(|(before, after)| before != after),
        "over several segments, in order"
    );
    assert!(place.run(&["events", "--tree"]).out.contains("cat[7]"));
    assert!(place.run(&["events", "--timeline"]).out.contains("GAPS"));
    let tree = lines(&place.run(&["events", "--tree", "-o", "jsonl"]).out);
    assert_eq!((tree.len(), &tree[0]["depth"], &tree[0]["process"]["pid"]), (1, &0.into(), &7.into()));
    let same = lines_of(&place.run(&["events", "--tree", "-o", "json"]).out);
    assert_eq!(same, Value::Array(tree));
    assert_eq!(place.run(&["events", "--tree", "--follow"]).code, 2);
    assert_eq!(place.run(&["events", "--follow"]).code, 3, "what comes only a daemon knows");
    fs::remove_dir_all(place.state()).unwrap();
    assert_eq!(place.run(&["events"]).code, 3);
}

#[test]
fn a_bundle_for_outsiders_has_other_names_and_is_signed() {
    let place = Place::new();
    let form = ["export", "--format", "bundle", "--agent", "bot", "--redact", "users,hosts,paths"];
    assert_eq!(place.run(&[&form[..], &["--collect", "--out", "x"]].concat()).code, 2);
    let made = place.run(&[&form[..], &["--path", "/srv/**", "--out", "r"]].concat());
    assert_eq!(made.code, 0, "{}", made.err);
    let key = made.err.lines().find_map(|line| line.strip_prefix("signed as ")).unwrap();
    let packed = place.run(&[&form[..], &["--out", "r.tar.zst"]].concat());
    assert_eq!(packed.code, 0, "{}", packed.err);
    for bundle in ["r", "r.tar.zst"] {
        let ran = place.run(&["verify", bundle, "--key", key]);
        assert!(
            ran.code == 0 && ran.out.contains("renamed (users, hosts, paths)"),
            "{} {}",
            ran.out,
            ran.err
        );
    }
    let mut todo = vec![place.path("r")];
    while let Some(at) = todo.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for bad in ["carol", "/srv/50", "agent-monitor/host/", "agent-monitor/host+", "o@example.com"] {
                assert!(!text.contains(bad), "{}: {bad}", path.display());
            }
        }
    }
    let ocsf =
        place.run(&["export", "--agent", "bot", "--format", "ocsf", "--redact", "users,hosts,paths"]).out;
    assert!(
        !ocsf.contains("carol")
            && !ocsf.contains("agent-monitor/host/")
            && !ocsf.contains("attestation_list")
    );
}

#[test]
fn a_log_that_was_rolled_back_is_found_with_the_copies_in_a_journal() {
    let place = Place::new();
    let earlier = place.path("earlier");
    fs::create_dir(&earlier).unwrap();
    for segment in segment::list(&place.log()).unwrap() {
        fs::copy(&segment.path, earlier.join(segment.path.file_name().unwrap())).unwrap();
    }
    let journal = std::os::unix::net::UnixDatagram::bind(place.path("journal")).unwrap();
    let sockets = Sockets::at(&place.path("journal"), &place.path("none"));
    let (mut writer, _) =
        Writer::open(&place.log(), Keys::in_state(&place.state()), Settings::default(), "host", &moment(500))
            .unwrap();
    let mut text = String::new();
    for second in 501..504 {
        assert_eq!(
            sockets.send(&writer.checkpoint(&moment(second), second == 503).unwrap()),
            Copied::Journald
        );
        let mut buffer = [0; 8192];
        let length = journal.recv(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    drop(writer);
    fs::write(place.path("journal.txt"), text).unwrap();
    let good = place.run(&["verify", "--copies", "journal.txt"]);
    assert!(good.code == 0 && good.out.contains("3 agree"), "{} {}", good.out, good.err);
    fs::remove_dir_all(place.log()).unwrap();
    fs::rename(&earlier, place.log()).unwrap();
    assert_eq!(place.run(&["verify"]).code, 0, "by itself it is whole");
    let ran = place.run(&["verify", "--copies", "journal.txt", "-o", "json"]);
    let damage = &lines_of(&ran.out)["damage"][0];
    assert_eq!((ran.code, &damage["kind"]), (1, &"truncated".into()), "{}", ran.out);
    assert!(damage["message"].as_str().unwrap().contains("rolled back"), "{damage}");
}

#[test]
fn exports_have_what_their_readers_require() {
    let place = Place::new();
    let jsonl = lines(&place.run(&["export", "--agent", "bot"]).out);
    assert!(jsonl.iter().any(|event| event["kind"] == "gap.ring"), "gaps are always part of it");
    assert!(!jsonl.iter().any(|event| event["agent"]["id"] == "other"));
    for line in lines(&place.run(&["export", "--agent", "bot", "--format", "timesketch"]).out) {
        let (micros, text) = (line["timestamp"].as_i64().unwrap(), line["datetime"].as_str().unwrap());
        let parsed: Time = text.parse().unwrap();
        assert_eq!(parsed.unix_nanos(), i128::from(micros) * 1000);
        assert!(
            text.ends_with("+00:00") && line["message"].is_string() && line["timestamp_desc"].is_string()
        );
        // Whoever makes a table of it: no text that a spreadsheet would take for a formula.
        let first = line["message"].as_str().and_then(|text| text.chars().next()).unwrap();
        assert!(!"=+-@\t\r".contains(first), "{line}");
        let refused = line["verdict"] == "deny";
        assert_eq!(refused, line["tag"].as_array().unwrap().contains(&"ASI02".into()), "{line}");
    }
    let ocsf =
        lines(&place.run(&["export", "--agent", "bot", "--format", "ocsf", "--ocsf-version", "1.8"]).out);
    assert!(
        ocsf.iter().all(|event| event["metadata"]["version"] == "1.8.0" && event.get("ai_agent").is_none())
    );
    let html = place.run(&["export", "--agent", "bot", "--format", "html"]).out;
    assert!(html.contains("&lt;script&gt;alert(1)") && !html.contains("<script>alert"));
    assert!(html.contains("o@example.com") && html.contains("ring_full"));
    for part in [
        "ASI02",
        "OWASP Top 10 for Agentic Applications 2026",
        "PR.AA-05",
        "NIST Cybersecurity Framework 2.0",
    ] {
        assert!(html.contains(part), "{part}");
    }
    assert!(html.contains("The log when it was read: verified up to checkpoint"), "{html}");
    let label = ocsf[0]["metadata"]["labels"][0].as_str().unwrap();
    assert!(label.starts_with("verified up to checkpoint"), "{label}");
    let none = place.run(&["export", "--agent", "nobody"]);
    assert!(none.code == 1 && none.err.contains("no record matches"), "{} {}", none.code, none.err);
}

#[test]
fn context_adds_what_is_near_and_names_can_be_changed() {
    let place = Place::new();
    let (since, until) = (at(100).to_string(), at(110).to_string());
    let window = ["export", "--agent", "bot", "--since", &since, "--until", &until];
    let alone = lines(&place.run(&window).out);
    assert_eq!(alone.iter().filter(|event| event["kind"] == "file.open").count(), 5);
    let near = lines(&place.run(&[window.as_slice(), &["--with-context", "4s"]].concat()).out);
    // Before 100 and after 108, both agents: 96 to 100, and 109 to 112.
    assert_eq!(near.iter().filter(|event| event["kind"] == "file.open").count(), 5 + 4 + 4);
    let renamed = place.run(&[window.as_slice(), &["--redact", "users,paths"]].concat()).out;
    assert!(!renamed.contains("carol") && renamed.contains("user-"), "{renamed}");
    assert_eq!(renamed, place.run(&[window.as_slice(), &["--redact", "users,paths"]].concat()).out);
}

#[test]
fn a_bundle_is_evidence_on_another_machine() {
    let place = Place::new();
    let key = place.run(&["key", "export"]).out;
    let made = place.run(&[
        "export",
        "--format",
        "bundle",
        "--agent",
        "bot",
        "--out",
        "b.tar.zst",
        "--reason",
        "case",
    ]);
    assert_eq!(made.code, 0, "{}", made.err);
    let directory = place.run(&["export", "--format", "bundle", "--agent", "bot", "--out", "b"]);
    assert_eq!(directory.code, 0, "{}", directory.err);
    fs::rename(place.state(), place.path("gone")).unwrap();
    for bundle in ["b", "b.tar.zst"] {
        let ran = place.run(&["verify", bundle, "--key", key.trim()]);
        assert!(ran.code == 0 && ran.out.contains("1 declared"), "{} {}", ran.out, ran.err);
        let events = place.run(&["events", "--log", bundle, "-o", "jsonl", "--verdict", "deny"]);
        assert_eq!(lines(&events.out).len(), 9, "{}", events.err);
    }
    for part in ["report.html", "tree.json", "agents/bot.toml", "gaps.jsonl", "files.json", "proof.json"] {
        assert!(place.path("b").join(part).exists(), "{part}");
    }
    assert_eq!(place.run(&["export", "annotate", "b", "--note", "received", "--by", "me"]).code, 0);
    let ran = place.run(&["verify", "b", "-o", "json"]);
    assert_eq!((ran.code, &lines_of(&ran.out)["custody"]), (0, &2.into()));
    let records = place.path("b/records.jsonl");
    let text = fs::read_to_string(&records).unwrap();
    fs::write(&records, text.replacen("/srv/50\"", "/srv/51\"", 1)).unwrap();
    assert_eq!(place.run(&["verify", "b"]).code, 1);
    assert!(!Path::new("b").exists());
}

#[test]
fn keys_change_hands_and_holds_are_kept() {
    let place = Place::new();
    let old = place.run(&["key", "export"]).out;
    let new = place.run(&["key", "rotate"]);
    assert_eq!(new.code, 0, "{}", new.err);
    assert_ne!(old, new.out);
    assert_eq!(place.run(&["verify", "--key", old.trim()]).code, 0, "the old key still leads to it");
    let added = place.run(&["hold", "add", "--agent", "bot", "--reason", "case 7"]);
    assert_eq!((added.code, added.out.trim()), (0, "hold-1"), "{}", added.err);
    let list = lines_of(&place.run(&["hold", "list", "-o", "json"]).out);
    assert_eq!((&list[0]["agent"], &list[0]["reason"]), (&"bot".into(), &"case 7".into()));
    assert_eq!(place.run(&["hold", "release", "hold-9"]).code, 2);
    assert_eq!(place.run(&["hold", "release", "hold-1"]).code, 0);
    assert_eq!(place.run(&["hold", "list", "-o", "json"]).out.trim(), "[]");
}

/// Needs DuckDB for Python (`pip install duckdb`): another implementation must read what was written.
#[cfg(feature = "parquet")]
#[test]
fn duckdb_reads_the_same_rows_and_nested_fields() {
    let place = Place::new();
    let made = place.run(&["export", "--format", "parquet", "--out", "table"]);
    assert_eq!(made.code, 0, "{}", made.err);
    let script = "import duckdb, json\n\
        t = \"read_parquet('table/**/*.parquet', hive_partitioning=true)\"\n\
        c = duckdb.connect()\n\
        one = lambda q: c.execute(q.replace('T', t)).fetchone()[0]\n\
        print(json.dumps([one('select count(*) from T'), one('select count(*) from T where class_uid = 1001'),\
        one(\"select count(*) from T where ai_agent.uid = 'bot'\"),\
        one(\"select max(actor.process.user.name) from T where file.path = '/srv/7'\"),\
        one('select count(distinct eventDay) from T'), one('select sum(metadata.sequence) from T')]))\n";
    let python =
        Command::new("python3").args(["-c", script]).current_dir(place.directory.path()).output().unwrap();
    let text = String::from_utf8_lossy(&python.stdout).into_owned();
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let found: Value = serde_json::from_str(&text).unwrap();
    let ocsf = lines(&place.run(&["export", "--format", "ocsf"]).out);
    let count = |keep: &dyn Fn(&Value) -> bool| ocsf.iter().filter(|event| keep(event)).count();
    let sum: u64 = ocsf.iter().map(|event| event["metadata"]["sequence"].as_u64().unwrap()).sum();
    let wanted = serde_json::json!([
        ocsf.len(),
        count(&|event| event["class_uid"] == 1001),
        count(&|event| event["ai_agent"]["uid"] == "bot"),
        "carol",
        1,
        sum
    ]);
    assert_eq!(found, wanted);
}
