//! The other end of the actor's connections, on loopback or on a UNIX socket.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread::JoinHandle;

/// Loopback addresses of both families.
pub const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Takes one connection: reads to its end, then answers with so many bytes.
pub fn answer_once(ip: IpAddr, bytes: usize) -> (SocketAddr, JoinHandle<usize>) {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        stream.write_all(&vec![b'r'; bytes]).unwrap();
        received.len()
    });
    (addr, server)
}

/// A UDP socket that nobody reads: what is sent to it arrives.
pub fn udp_sink(ip: IpAddr) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// A port that nobody listens on: it was free a moment ago.
pub fn free_port(ip: IpAddr) -> SocketAddr {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}
