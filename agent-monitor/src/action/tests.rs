//! Tests.

use std::sync::Arc;

use agent_monitor_ebpf::policy::NET_LISTEN;

use super::*;
use crate::model::{Agent, BoundBy, Kind, Privilege, Process, Source, Target, Time};

fn event(kind: Kind) -> Event {
    Event::new(Time::from_unix_nanos(0), kind, Source::Lsm)
}

fn file(kind: Kind, path: &str, access: &[Access]) -> Event {
    let file = File {
        path: Some(path.to_owned()),
        access: access.to_vec(),
        dev: Some("254:1".to_owned()),
        new_path: Some("/new".to_owned()),
        ..File::default()
    };
    Event { file: Some(file), ..event(kind) }
}

fn asked(event: &Event) -> Vec<(String, u32)> {
    let place = |action| match action {
        Ok(Action::Place { path, asked, .. }) => (path, asked),
        other => (format!("{other:?}"), 0),
    };
    of(event).into_iter().map(place).collect()
}

#[test]
fn files_ask_as_the_hooks_do() {
    let one = |kind, access: &[Access]| asked(&file(kind, "/a", access));
    let at = |asked| vec![("/a".to_owned(), asked)];
    assert_eq!(one(Kind::FileOpen, &[Access::Read]), at(ask::READ));
    assert_eq!(one(Kind::FileOpen, &[Access::Write, Access::Create]), at(ask::WRITE | ask::CREATE));
    assert_eq!(one(Kind::FileOpen, &[Access::Exec]), [], "judged at the exec");
    assert_eq!(one(Kind::FileDelete, &[Access::Delete]), at(ask::DELETE));
    assert_eq!(one(Kind::FileSetattr, &[]), at(ask::WRITE));
    assert_eq!(one(Kind::FileMmapExec, &[]), at(ask::MAP));
    let moved = [("/a".to_owned(), ask::RENAME_OLD), ("/new".to_owned(), ask::RENAME_NEW)];
    assert_eq!(one(Kind::FileRename, &[]), moved);
    let linked = [("/a".to_owned(), ask::LINK_OLD), ("/new".to_owned(), ask::LINK_NEW)];
    assert_eq!(one(Kind::FileLink, &[]), linked);
}

#[test]
fn what_is_unclear_is_told() {
    let mut open = file(Kind::FileOpen, "pipe:[1]", &[Access::Read]);
    assert_eq!(of(&open), [], "no place, nothing to judge");
    if let Some(file) = &mut open.file {
        file.dev = None;
    }
    assert_eq!(of(&open), [Err(Unclear::NoPath)], "a relative text");
    let mut open = file(Kind::FileOpen, "/a", &[Access::Read]);
    if let Some(file) = &mut open.file {
        file.truncated = true;
    }
    assert_eq!(of(&open), [Err(Unclear::Truncated)]);
    assert_eq!(of(&file(Kind::FileOpen, "//0:99/x", &[Access::Read])), [Err(Unclear::NotMounted)]);
    assert_eq!(of(&event(Kind::ProcessExec)), [Err(Unclear::NoPath)]);
}

#[test]
fn scripts_are_run_like_their_interpreters() {
    let process = Process {
        exe: Some("/usr/bin/dash".to_owned()),
        script: Some("/srv/x.sh".to_owned()),
        ..Process::default()
    };
    let exec = Event { process: Some(Arc::new(process)), ..event(Kind::ProcessExec) };
    let run = ["/usr/bin/dash", "/srv/x.sh"].map(|path| (path.to_owned(), ask::EXEC));
    assert_eq!(asked(&exec), run);
    let mut argument = exec;
    if let Some(process) = &mut argument.process {
        Arc::make_mut(process).script_argument = true;
    }
    assert_eq!(asked(&argument).len(), 1, "read by its interpreter");
}

#[test]
fn sockets_ask_about_the_address_that_counts() {
    let network = Network {
        family: AddressFamily::Ipv4,
        protocol: Some("mptcp".to_owned()),
        local: "10.0.0.1:40000".parse().ok(),
        remote: "10.0.0.2:443".parse().ok(),
        ..Network::default()
    };
    let of_kind = |kind| of(&Event { network: Some(network.clone()), ..event(kind) });
    let net =
        |addr: [u8; 4], port, action| vec![Ok(Action::Net { addr: addr.into(), port, protocol: 6, action })];
    assert_eq!(of_kind(Kind::NetworkConnect), net([10, 0, 0, 2], 443, NET_CONNECT));
    assert_eq!(of_kind(Kind::NetworkListen), net([10, 0, 0, 1], 40000, NET_LISTEN));
    assert_eq!(of_kind(Kind::NetworkFlow), [], "told again when it ends");
}

#[test]
fn signals_inside_the_agent_are_free() {
    let agent = Agent {
        id: "a".to_owned(),
        session: None,
        bound_by: BoundBy::Exe,
        delegator: None,
        bound_delay_ms: None,
    };
    let to = |agent: Option<&str>| {
        let target = Target { pid: 7, start_time: None, exe: None, agent: agent.map(str::to_owned) };
        Some(Privilege { target: Some(target), ..Privilege::default() })
    };
    let signal = Event { agent: Some(Arc::new(agent)), ..event(Kind::PrivilegeSignal) };
    assert_eq!(of(&Event { privilege: to(Some("a")), ..signal.clone() }), []);
    for other in [None, Some("b")] {
        let outside = Event { privilege: to(other), ..signal.clone() };
        assert_eq!(of(&outside), [Ok(Action::Power(power::SIGNAL))]);
    }
}

/// Every judged kind asks something, also where the event lacks what it is about, or has more than its family needs.
#[test]
fn no_judged_kind_is_taken_for_free() {
    use crate::model::kinds::Asks;
    for kind in Kind::ALL {
        let bare = of(&event(*kind));
        assert_eq!(bare.is_empty(), matches!(kind.row().asks, Asks::Nothing(_)), "{kind} without an object");
        // A module's file does not turn the question into one about that file, or into none.
        if let Asks::Power(power) = kind.row().asks {
            let with_file = Event { privilege: Some(Privilege::default()), ..file(*kind, "/lib/x.ko", &[]) };
            assert_eq!(of(&with_file), [Ok(Action::Power(power))], "{kind} with a file");
        }
    }
}
