//! Family `network`: connections, listeners, datagrams and flows, exactly once each, with the right peer.

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::actor::Actor;
use agent_monitor_tests::harness::case::{Case, Skip, Verdict};
use agent_monitor_tests::harness::expect::Expect;
use agent_monitor_tests::harness::peer::{LOOPBACKS, answer_once, free_port, udp_sink};
use agent_monitor_tests::harness::world::{self, World};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener};

pub(crate) const CASES: &[Case] = &[
    Case::both("tcp_connect_v4", || tcp_connect(LOOPBACKS[0])),
    Case::both("tcp_connect_v6", || tcp_connect(LOOPBACKS[1])),
    Case::both("tcp_connect_refused", tcp_connect_refused),
    Case::vm("connect_io_uring", connect_io_uring),
    Case::both("tcp_fastopen", tcp_fastopen),
    Case::both("flow_bytes_v4", || flow_bytes(LOOPBACKS[0])),
    Case::both("flow_bytes_v6", || flow_bytes(LOOPBACKS[1])),
    Case::both("bind", bind),
    Case::both("listen_accept_v4", || listen_accept(LOOPBACKS[0])),
    Case::both("listen_accept_v6", || listen_accept(LOOPBACKS[1])),
    Case::both("udp_connected_v4", || udp("udp-connected", LOOPBACKS[0], "network.connect")),
    Case::both("udp_connected_v6", || udp("udp-connected", LOOPBACKS[1], "network.connect")),
    Case::both("udp_sendto_v4", || udp("udp-sendto", LOOPBACKS[0], "network.send")),
    Case::both("udp_sendto_v6", || udp("udp-sendto", LOOPBACKS[1], "network.send")),
    Case::both("udp_sendmsg_v4", || udp("udp-sendmsg", LOOPBACKS[0], "network.send")),
    Case::both("udp_sendmsg_v6", || udp("udp-sendmsg", LOOPBACKS[1], "network.send")),
    Case::both("udp_sendmmsg_v4", || udp_sendmmsg(LOOPBACKS[0])),
    Case::both("udp_sendmmsg_v6", || udp_sendmmsg(LOOPBACKS[1])),
    Case::both("unix_stream_path", unix_stream_path),
    Case::both("unix_stream_abstract", unix_stream_abstract),
    Case::both("unix_dgram_path", unix_dgram_path),
    Case::both("unix_dgram_abstract", unix_dgram_abstract),
];

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "ipv4" } else { "ipv6" }
}

/// What is expected of a socket of this family and protocol, at this peer.
fn peer<'w>(world: &'w World, what: &str, addr: SocketAddr, protocol: &str) -> Expect<'w> {
    world
        .expect(what)
        .remote(&addr.to_string())
        .protocol(protocol)
        .network("network.family", family(addr.ip()), |n| Some(n.family.clone()))
        .network("network.port", addr.port(), |n| n.port.map(|p| p.to_string()))
}

fn tcp_connect(ip: IpAddr) -> Verdict {
    let world = world::shared();
    let (addr, server) = answer_once(ip, 0);
    let run = world.act(&["tcp-connect", &addr.to_string()]);
    server.join().unwrap();
    run.all_ok();
    peer(&world, "connect", addr, "tcp").kind("network.connect").pid(run.pid).exactly_once();
    Ok(())
}

/// The attempt is what counts.
fn tcp_connect_refused() -> Verdict {
    let world = world::shared();
    let addr = free_port(LOOPBACKS[0]);
    let run = world.act(&["tcp-connect", &addr.to_string()]);
    assert!(!run.mark("tcp-connect").ok);
    peer(&world, "refused", addr, "tcp").kind("network.connect").pid(run.pid).exactly_once();
    Ok(())
}

fn connect_io_uring() -> Verdict {
    let world = world::shared();
    let (addr, server) = answer_once(LOOPBACKS[0], 0);
    let run = world.act(&["uring-connect", &addr.to_string()]);
    if let Some(reason) = run.skipped() {
        // The server still waits for its connection.
        drop(TcpStream::connect(addr).unwrap());
        return Skip::because(reason);
    }
    server.join().unwrap();
    run.all_ok();
    peer(&world, "io_uring", addr, "tcp").kind("network.connect").pid(run.pid).exactly_once();
    Ok(())
}

/// A connection without `connect(2)`: it may be shown as either, but once.
fn tcp_fastopen() -> Verdict {
    let world = world::shared();
    let (addr, server) = answer_once(LOOPBACKS[0], 0);
    let run = world.act(&["tcp-fastopen", &addr.to_string(), "100"]);
    server.join().unwrap();
    run.all_ok();
    let kinds = ["network.connect", "network.send"];
    peer(&world, "fast open", addr, "tcp").kind_one_of(&kinds).pid(run.pid).exactly_once();
    Ok(())
}

fn flow_bytes(ip: IpAddr) -> Verdict {
    let world = world::shared();
    let (addr, server) = answer_once(ip, 70_000);
    let run = world.act(&["tcp-connect", &addr.to_string(), "12345", "70000"]);
    assert_eq!(server.join().unwrap(), 12_345);
    assert_eq!(run.all_ok().mark("tcp-connect").number("received"), 70_000);
    peer(&world, "flow", addr, "tcp")
        .kind("network.flow")
        .network("network.bytes_sent", 12_345, |n| n.bytes_sent.map(|b| b.to_string()))
        .network("network.bytes_received", 70_000, |n| n.bytes_received.map(|b| b.to_string()))
        .exactly_once();
    peer(&world, "no second flow", addr, "tcp").kind("network.flow").exactly_once();
    Ok(())
}

fn bind() -> Verdict {
    let world = world::shared();
    let addr = free_port(LOOPBACKS[0]);
    let run = world.act(&["tcp-bind", &addr.to_string()]);
    run.all_ok();
    let event = world.expect("bind").kind("network.bind").pid(run.pid).exactly_once();
    let network = event.network.unwrap();
    assert_eq!(network.local, Some(addr.to_string()));
    assert_eq!((network.port, network.protocol.as_deref()), (Some(addr.port()), Some("tcp")));
    Ok(())
}

fn listen_accept(ip: IpAddr) -> Verdict {
    let world = world::shared();
    let fence = world.fence_file();
    let any = SocketAddr::new(ip, 0).to_string();
    let mut actor = Actor::start(&world.agent, &["tcp-serve", &any, "+", "open", &fence, "read"]);
    let port = actor.mark("tcp-listen").number("port") as u16;
    let addr = SocketAddr::new(ip, port);
    let client = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
    let own = client.local_addr().unwrap();
    drop(client);
    let run = actor.finish();
    run.all_ok();
    world.settle(&run, &fence);
    let of_server = |kind: &str| {
        world
            .expect(kind)
            .kind(kind)
            .pid(run.pid)
            .network("network.local", addr, |n| n.local.clone())
            .network("network.port", port, |n| n.port.map(|p| p.to_string()))
    };
    of_server("network.listen").exactly_once();
    of_server("network.accept").remote(&own.to_string()).exactly_once();
    Ok(())
}

fn udp(act: &str, ip: IpAddr, kind: &str) -> Verdict {
    let world = world::shared();
    let (_sink, addr) = udp_sink(ip);
    let run = world.act(&[act, &addr.to_string(), "100"]);
    run.all_ok();
    peer(&world, act, addr, "udp").kind(kind).pid(run.pid).exactly_once();
    // One way to be told of it, not two.
    let kinds = ["network.connect", "network.send"];
    peer(&world, act, addr, "udp").kind_one_of(&kinds).pid(run.pid).exactly_once();
    Ok(())
}

/// Two messages to one peer in one call: the peer is told of, at least once and at most per message.
fn udp_sendmmsg(ip: IpAddr) -> Verdict {
    let world = world::shared();
    let (_sink, addr) = udp_sink(ip);
    let run = world.act(&["udp-sendmmsg", &addr.to_string(), "100"]);
    assert_eq!(run.all_ok().mark("udp-sendmmsg").number("messages"), 2);
    let found = peer(&world, "sendmmsg", addr, "udp").kind("network.send").pid(run.pid).found();
    assert!((1..=2).contains(&found.len()), "{} events for two messages", found.len());
    Ok(())
}

/// What is expected of a UNIX socket.
fn unix<'w>(world: &'w World, kind: &str, protocol: &str, pid: u32) -> Expect<'w> {
    let expect = world.expect("unix socket").kind(kind).pid(pid).protocol(protocol);
    expect.network("network.family", "unix", |n| Some(n.family.clone()))
}

fn unix_stream_path() -> Verdict {
    let world = world::shared();
    let path = format!("{}.sock", world.fence_file());
    let _listener = UnixListener::bind(&path).unwrap();
    let run = world.act(&["unix-connect", &path]);
    run.all_ok();
    unix(&world, "network.connect", "stream", run.pid)
        .network("network.path", &path, |n| n.path.clone())
        .exactly_once();
    Ok(())
}

fn abstract_name() -> String {
    format!("amt-{}-abstract", std::process::id())
}

fn unix_stream_abstract() -> Verdict {
    let world = world::shared();
    let name = abstract_name();
    let _listener = UnixListener::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
    let run = world.act(&["unix-connect", &format!("@{name}")]);
    run.all_ok();
    unix(&world, "network.connect", "stream", run.pid)
        .network("network.abstract", &name, |n| n.abstract_name.clone())
        .exactly_once();
    Ok(())
}

fn unix_dgram_path() -> Verdict {
    let world = world::shared();
    let path = format!("{}.sock", world.fence_file());
    let _socket = UnixDatagram::bind(&path).unwrap();
    let run = world.act(&["unix-sendto", &path, "10"]);
    run.all_ok();
    unix(&world, "network.send", "dgram", run.pid)
        .network("network.path", &path, |n| n.path.clone())
        .exactly_once();
    Ok(())
}

fn unix_dgram_abstract() -> Verdict {
    let world = world::shared();
    let name = abstract_name();
    let _socket = UnixDatagram::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
    let run = world.act(&["unix-sendto", &format!("@{name}"), "10"]);
    run.all_ok();
    unix(&world, "network.send", "dgram", run.pid)
        .network("network.abstract", &name, |n| n.abstract_name.clone())
        .exactly_once();
    Ok(())
}
