//! Tests of event lines.

use std::sync::Arc;

use agent_monitor::model::*;

use super::*;

fn event(kind: Kind) -> Event {
    let agent = Agent {
        id: "release-bot".to_owned(),
        session: None,
        bound_by: BoundBy::Argv,
        delegator: Some("planner".to_owned()),
        bound_delay_ms: Some(12),
    };
    let process = Process {
        pid: 4121,
        ppid: Some(4100),
        exe: Some("/usr/bin/cat".to_owned()),
        args: ["cat", "it's", "/etc/shadow"].map(str::to_owned).to_vec(),
        ..Process::default()
    };
    Event {
        verdict: Some(Verdict::Allow),
        agent: Some(Arc::new(agent)),
        process: Some(Arc::new(process)),
        ..Event::new(Time::from_unix_nanos(1_795_300_000_123_456_789), kind, Source::Lsm)
    }
}

fn with_process(kind: Kind, change: impl FnOnce(&mut Process)) -> Event {
    let mut event = event(kind);
    change(Arc::make_mut(event.process.as_mut().unwrap()));
    event
}

fn samples() -> Vec<Event> {
    let file = |path: &str, access: &[Access]| {
        Some(File { path: Some(path.to_owned()), access: access.to_vec(), ..File::default() })
    };
    let tcp = Network {
        family: AddressFamily::Ipv4,
        protocol: Some("tcp".to_owned()),
        remote: "140.82.121.4:443".parse().ok(),
        name: Some("github.com".to_owned()),
        bytes_sent: Some(812),
        bytes_received: Some(2_097_152),
        ..Network::default()
    };
    let unix = Network {
        family: AddressFamily::Unix,
        protocol: Some("stream".to_owned()),
        path: Some("/run/docker.sock".to_owned()),
        ..Network::default()
    };
    let target = Target { pid: 1, start_time: None, exe: Some("/sbin/init".to_owned()), agent: None };
    let signal =
        Privilege { signal: Some("SIGTERM".to_owned()), target: Some(target), ..Privilege::default() };
    let setuid = Privilege { old_uid: Some(1000), new_uid: Some(0), ..Privilege::default() };
    let gap = Gap {
        reason: "ring_full".to_owned(),
        kind: Some("file.open".to_owned()),
        agent: Some("release-bot".to_owned()),
        count: 41,
        first: Time::EPOCH,
        last: Time::EPOCH,
    };
    let mut registered = Event::new(Time::EPOCH, Kind::AgentRegistered, Source::Daemon);
    registered.detail =
        serde_json::from_str(r#"{"agent":"release-bot","file":"/etc/a.toml","line":3}"#).unwrap();
    let moved = File {
        new_path: Some("/srv/b".to_owned()),
        truncated: true,
        ..file("/srv/a", &[Access::Rename]).unwrap()
    };
    vec![
        event(Kind::ProcessExec),
        event(Kind::ProcessFork),
        with_process(Kind::ProcessExit, |process| process.exit_code = Some(3)),
        with_process(Kind::ProcessExit, |process| process.exit_signal = Some("SIGKILL".to_owned())),
        Event {
            verdict: Some(Verdict::Deny),
            errno: Some(Errno(13)),
            rule: Some("scope.file[2]".to_owned()),
            mode: Some(Mode::Observe),
            file: file("/etc/shadow", &[Access::Read, Access::Write]),
            ..event(Kind::FileOpen)
        },
        Event { file: Some(moved), ..event(Kind::FileRename) },
        Event { network: Some(tcp), ..event(Kind::NetworkFlow) },
        Event { network: Some(unix), agent: None, ..event(Kind::NetworkConnect) },
        Event { privilege: Some(signal), ..event(Kind::PrivilegeSignal) },
        Event { privilege: Some(setuid), ..event(Kind::PrivilegeSetuid) },
        Event { verdict: None, ..event(Kind::AgentBound) },
        registered,
        Event::gap(Time::EPOCH, Kind::GapRing, gap),
    ]
}

#[test]
fn lines_are_aligned_and_say_what_matters() {
    let lines: Vec<_> =
        std::iter::once(heading()).chain(samples().iter().map(|e| render(e, false))).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn nothing_from_a_process_reaches_the_terminal_raw() {
    let evil = "\x1b[2J\u{202e}\r\n\u{9b}31m\u{7}";
    let mut event = with_process(Kind::ProcessExec, |process| {
        process.exe = Some(format!("/bin/{evil}"));
        process.args = vec![evil.to_owned()];
        process.script = Some(evil.to_owned());
    });
    Arc::make_mut(event.agent.as_mut().unwrap()).id = evil.to_owned();
    event.rule = Some(evil.to_owned());
    event.detail = Some([(evil.to_owned(), evil.into())].into_iter().collect());
    let mut events = vec![event.clone()];
    event.kind = Kind::FileRename;
    event.file = Some(File {
        path: Some(evil.to_owned()),
        new_path: Some(evil.to_owned()),
        change: Some(evil.to_owned()),
        ..File::default()
    });
    events.push(event.clone());
    event.kind = Kind::NetworkConnect;
    event.network = Some(Network {
        protocol: Some(evil.to_owned()),
        name: Some(evil.to_owned()),
        path: Some(evil.to_owned()),
        query: Some(evil.to_owned()),
        ..Network::default()
    });
    events.push(event);
    for event in events {
        let line = render(&event, false);
        assert!(line.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{line:?}");
    }
}

#[test]
fn long_objects_are_cut_and_colours_are_closed() {
    let event = with_process(Kind::ProcessExec, |process| process.args = vec!["x".repeat(100_000)]);
    let line = render(&event, true);
    assert!(line.chars().count() < 900 && line.contains('…'));
    assert_eq!(line.matches("\x1b[").count(), 2 * line.matches("\x1b[0m").count());
}
