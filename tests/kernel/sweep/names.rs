//! Home-made agents by the names of their peers: DNS answers and TLS, read off the wire.

use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::thread;

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::actor::Actor;
use agent_monitor_tests::harness::case::Verdict;
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::monitor::Setup;
use agent_monitor_tests::harness::world::{self, World};

use super::Running;
use super::live::{detail, finding};

/// Where the test's DNS server listens; programs ask it as they would ask a resolver on this host.
const RESOLVER: &str = "127.0.0.153:53";
/// What it answers for every name.
const SERVER: [u8; 4] = [127, 0, 0, 91];

/// Answers every question with one address until the test's process ends.
fn resolver(socket: UdpSocket) {
    let mut question = [0; 512];
    while let Ok((len, from)) = socket.recv_from(&mut question) {
        let mut answer = question[..len].to_vec();
        // A response with one answer, whose name is the question's: RFC 1035 4.1.1 to 4.1.4.
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[6..8].copy_from_slice(&[0, 1]);
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend_from_slice(&SERVER);
        socket.send_to(&answer, from).ok();
    }
}

/// Takes connections and lets them go.
fn serve(listener: TcpListener) {
    let mut kept = Vec::new();
    while let Ok((peer, _)) = listener.accept() {
        kept.push(peer);
    }
}

pub(super) fn from_the_wire() -> Verdict {
    world::close();
    let resolver_socket = UdpSocket::bind(RESOLVER).unwrap_or_else(|error| panic!("{RESOLVER}: {error}"));
    thread::spawn(move || resolver(resolver_socket));
    let listener = TcpListener::bind("127.0.0.91:0").unwrap();
    let server = listener.local_addr().unwrap().to_string();
    thread::spawn(move || serve(listener));
    let world = World::start(Setup::new());
    let program = |name: &str| world.daemon.setup.scratch.program(&actor_program(), name);
    let shell = ["+", "run", "/bin/sh", "-c", "true"];
    let act = |name: &str, words: &[&str]| {
        let run = Actor::start(&program(name), &[words, &shell[..]].concat()).finish();
        run.all_ok();
        run.pid
    };
    let said = |pid: u32| {
        assert!(
            world.feed.wait_for(PATIENCE, |e| finding(e, pid)),
            "no finding of pid {pid}\n{}",
            world.daemon.output()
        );
        let said = detail(&world, pid);
        assert_eq!((&said["product"], &said["action"]), (&"home-made".into(), &"audit".into()), "{said:#}");
        (said["level"].clone(), said["evidence"].to_string())
    };

    // The neighbour first: what it leaves behind must not make it one later.
    let other = "example.org";
    let neighbour =
        act("neighbour", &["resolve", RESOLVER, other, "+", "tls-hello", &server, other, "+", "noop"]);
    // The name in TLS, without any question to the DNS.
    let by_tls = act("tls-bot", &["tls-hello", &server, "api.openai.com"]);
    let (level, evidence) = said(by_tls);
    assert_eq!(level, "medium", "{evidence}");
    assert!(evidence.contains("api.openai.com") && evidence.contains("TLS SNI"), "{evidence}");
    assert!(!evidence.contains("DNS"), "{evidence}");
    // The DNS alone: a connection that says no name.
    let name = "api.anthropic.com";
    let by_dns = act("dns-bot", &["resolve", RESOLVER, name, "+", "tls-hello", &server, "-"]);
    let (level, evidence) = said(by_dns);
    assert_eq!(level, "low", "{evidence}");
    assert!(evidence.contains(name) && evidence.contains("DNS answer"), "{evidence}");
    assert!(evidence.contains("127.0.0.91") && evidence.contains("has started"), "{evidence}");
    // Both; the shell before the connection.
    let both =
        ["resolve", RESOLVER, name, "+", "run", "/bin/sh", "-c", "true", "+", "tls-hello", &server, name];
    let (level, evidence) = said(act("both-bot", &both));
    assert_eq!(level, "medium", "{evidence}");
    assert!(evidence.contains("DNS answer") && evidence.contains("TLS SNI"), "{evidence}");
    // Who shares the address and says another name in TLS is none by the name, only by the address.
    let silent = Actor::start(&program("silent"), &["tls-hello", &server, name]).finish();
    world.settle_now();
    // No shell, but a file in its directory; and one that only reads there.
    let work = |who: &str| world.daemon.setup.scratch.dir(who);
    let in_work = |who: &str, act: &[&str]| {
        let words = [&["tls-hello", &server, name, "+", "pause"], act, &["+", "pause", "noop"]].concat();
        Running::start(Command::new(program(who)).args(words).current_dir(work(&format!("{who}-work"))))
    };
    std::fs::write(work("reader-work").join("plan.md"), "old").unwrap();
    let mut reader = in_work("reader", &["open", "plan.md", "read"]);
    let mut editor = in_work("editor", &["open", "plan.md", "create"]);
    // The clock of files goes in steps of up to 10 ms: by now it is beyond their starts.
    world.settle_now();
    reader.go();
    editor.go();
    let (level, evidence) = said(editor.pid());
    assert!(evidence.contains("editor-work/plan.md in its working directory changed"), "{evidence}");
    assert_eq!(level, "medium", "{evidence}");
    let findings = |pid: u32| world.feed.with(|events| events.iter().filter(|e| finding(e, pid)).count());
    assert_eq!(findings(neighbour), 0, "another name is no provider");
    assert_eq!(findings(reader.pid()), 0, "a program that changes nothing is no agent");
    assert_eq!(findings(silent.pid), 0, "a program that starts nothing is no agent");
    assert_eq!((findings(by_tls), findings(by_dns)), (1, 1), "once per tree");
    Ok(())
}
