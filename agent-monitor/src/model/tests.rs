//! Tests of the JSON contract.

use std::sync::Arc;

use super::*;

/// The example of the design, word for word but for the two elided values.
const DESIGN: &str = r#"{"schema_version":1,"seq":812,"time":"2026-11-21T22:36:01.123456789Z","kind":"file.open","verdict":"deny","errno":"EACCES",
 "agent":{"id":"release-bot","session":"01J","bound_by":"script"},"rule":"scope.file[2]","mode":"enforce","source":"lsm",
 "process":{"pid":4121,"start_time":"2026-11-21T22:35:00.000000001Z","ppid":4100,"exe":"/usr/bin/cat","args":["cat","/etc/shadow"],"cwd":"/srv","uid":1001,"user":"release-bot","container":null,"ancestry":[{"pid":4100,"exe":"/usr/bin/node"}]},
 "file":{"path":"/etc/shadow","access":["read"],"dev":"254:0","inode":1312,"truncated":false},
 "network":null,"labels":[],"technique":["T1003.008"]}"#;

fn at(second: i64) -> Time {
    Time::from_unix_nanos(1_795_300_000_000_000_000 + i128::from(second) * 1_000_000_000 + 7)
}

fn actor() -> Process {
    Process {
        pid: 4121,
        start_time: Some(at(-60)),
        ppid: Some(4100),
        exe: Some("/usr/bin/python3.13".to_owned()),
        args: vec!["python3".to_owned(), text::escape(b"/srv/\xff.py")],
        args_sha256: Some("00".repeat(32)),
        cwd: Some("/srv".to_owned()),
        uid: Some(1001),
        user: Some("bot".to_owned()),
        gid: Some(1001),
        unit: Some("bot.service".to_owned()),
        cgroup: Some("/system.slice/bot.service".to_owned()),
        ancestry: vec![Ancestor {
            pid: 4100,
            exe: Some("/usr/bin/node".to_owned()),
            start_time: Some(at(-90)),
        }],
        ..Process::default()
    }
}

fn event(kind: Kind) -> Event {
    Event {
        seq: 3,
        verdict: Some(Verdict::Allow),
        agent: Some(Arc::new(Agent {
            id: "release-bot".to_owned(),
            session: None,
            bound_by: BoundBy::Argv,
            delegator: Some("planner".to_owned()),
            bound_delay_ms: Some(12),
        })),
        mode: Some(Mode::Observe),
        process: Some(Arc::new(actor())),
        ..Event::new(at(0), kind, Source::Lsm)
    }
}

fn samples() -> Vec<Event> {
    let process = Process { exit_code: Some(3), tid: Some(4125), ..actor() };
    let file = File {
        path: Some("/srv/a".to_owned()),
        access: vec![Access::Rename],
        dev: Some("254:0".to_owned()),
        inode: Some(9),
        new_path: Some("/srv/b".to_owned()),
        ..File::default()
    };
    let network = Network {
        family: AddressFamily::Ipv6,
        protocol: Some("tcp".to_owned()),
        local: "[::1]:40000".parse().ok(),
        remote: "[2001:db8::1]:443".parse().ok(),
        port: Some(443),
        bytes_sent: Some(10),
        bytes_received: Some(2_000),
        duration_ms: Some(15),
        ..Network::default()
    };
    let unix = Network {
        family: AddressFamily::Unix,
        protocol: Some("stream".to_owned()),
        abstract_name: Some("dbus".to_owned()),
        ..Network::default()
    };
    let target = Target { pid: 1, start_time: None, exe: Some("/sbin/init".to_owned()), agent: None };
    let privilege =
        Privilege { target: Some(target), signal: Some("SIGTERM".to_owned()), ..Privilege::default() };
    let gap = Gap {
        reason: "ring_full".to_owned(),
        kind: Some("file.open".to_owned()),
        agent: Some("release-bot".to_owned()),
        count: 41,
        first: at(0),
        last: at(1),
    };
    let detail: Detail = [("file".to_owned(), serde_json::json!("/etc/a.toml"))].into_iter().collect();
    vec![
        Event { process: Some(Arc::new(process)), ..event(Kind::ProcessExit) },
        Event { file: Some(file), ..event(Kind::FileRename) },
        Event { network: Some(network), ..event(Kind::NetworkFlow) },
        Event { network: Some(unix), errno: Some(Errno(111)), ..event(Kind::NetworkConnect) },
        Event { privilege: Some(privilege), ..event(Kind::PrivilegeSignal) },
        Event { agent: None, unattributed_reason: Some("no record".to_owned()), ..event(Kind::ProcessExec) },
        Event::gap(at(2), Kind::GapRing, gap),
        Event { detail: Some(detail), ..Event::new(at(3), Kind::AgentRegistered, Source::Daemon) },
    ]
}

/// Every value of `part` is found at the same place in `whole`, and its keys come in the same order.
fn contained(part: &str, whole: &str) {
    let (a, b): (serde_json::Value, serde_json::Value) =
        (serde_json::from_str(part).unwrap(), serde_json::from_str(whole).unwrap());
    fn walk(a: &serde_json::Value, b: &serde_json::Value) {
        match (a, b) {
            (serde_json::Value::Object(a), serde_json::Value::Object(b)) => {
                a.iter().for_each(|(key, value)| walk(value, b.get(key).unwrap_or(&serde_json::Value::Null)));
            }
            (serde_json::Value::Array(a), serde_json::Value::Array(b)) => {
                assert_eq!(a.len(), b.len());
                a.iter().zip(b).for_each(|(a, b)| walk(a, b));
            }
            (a, b) => assert_eq!(a, b),
        }
    }
    walk(&a, &b);
}

#[test]
fn the_example_of_the_design_is_read_and_written_back() {
    let event: Event = serde_json::from_str(DESIGN).unwrap();
    let line = event.to_line().unwrap();
    contained(DESIGN, &line);
    let places: Vec<_> =
        ["schema_version", "seq", "time", "kind", "verdict", "errno", "agent", "rule", "mode"]
            .into_iter()
            .chain(["source", "process", "file", "network", "privilege", "labels", "technique"])
            .map(|key| line.find(&format!("\"{key}\":")).unwrap())
            .collect();
    assert!(places.is_sorted(), "{line}");
    assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
}

#[test]
fn each_family_keeps_its_form() {
    let lines: Vec<_> = samples().iter().map(|event| event.to_line().unwrap()).collect();
    insta::assert_snapshot!("families", lines.join("\n"));
    for (event, line) in samples().iter().zip(&lines) {
        assert_eq!(&serde_json::from_str::<Event>(line).unwrap(), event);
    }
}

#[test]
fn kinds_and_families_are_read_back_by_name() {
    for kind in Kind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(*kind));
        let (family, rest) = kind.as_str().split_once('.').unwrap();
        assert_eq!(family.parse(), Ok(kind.family()));
        assert!(!rest.is_empty());
    }
    assert_eq!("file.opened".parse::<Kind>(), Err(UnknownKind("file.opened".to_owned())));
}

#[test]
fn errors_have_the_names_of_linux() {
    assert_eq!(Errno::from_return(-13).map(|e| e.to_string()).as_deref(), Some("EACCES"));
    assert_eq!(Errno::from_return(3), None);
    assert_eq!(Errno(4000).to_string(), "errno 4000");
    for errno in [Errno(1), Errno(4000)] {
        let text = serde_json::to_string(&errno).unwrap();
        assert_eq!(serde_json::from_str::<Errno>(&text).unwrap(), errno);
    }
}

#[test]
fn times_have_nine_digits_and_never_fail() {
    assert_eq!(Time::EPOCH.to_string(), "1970-01-01T00:00:00.000000000Z");
    assert_eq!(at(0).to_string(), at(0).to_string().parse::<Time>().unwrap().to_string());
    assert!(Time::from_unix_nanos(i128::MAX).before(std::time::Duration::MAX) < Time::EPOCH);
}
