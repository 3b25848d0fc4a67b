//! Acts that send to another host than the address of the call names: by the socket's own address, by source routing, by a
//! routing header.

use super::socket::{bind, connect, family, inet, make, parse};
use super::{Act, Facts, Failure, Outcome, fact, number, word};
use crate::sys::{Arg, call, num};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

pub(crate) const ACTS: &[Act] = &[
    Act::new("udp-own", "OWN ADDR:PORT BYTES", udp_own),
    Act::new("tcp-own", "OWN ADDR:PORT", tcp_own),
    Act::new("udp-source", "OWN ADDR:PORT BYTES", udp_source),
    Act::new("route4-option", "HOP ADDR:PORT BYTES", route4_option),
    Act::new("route4-message", "HOP ADDR:PORT BYTES", route4_message),
    Act::new("route6-option", "HOP ADDR:PORT BYTES", route6_option),
    Act::new("route6-message", "HOP ADDR:PORT BYTES", route6_message),
    Act::new("route6-label", "HOP ADDR:PORT", route6_label),
    Act::new("route6-old", "HOP ADDR:PORT BYTES", route6_old),
];

const SOL_IP: i32 = 0;
const SOL_IPV6: i32 = 41;
const IP_OPTIONS: i32 = 4;
const IP_RETOPTS: i32 = 7;
const IP_PKTINFO: i32 = 8;
const IPV6_2292PKTOPTIONS: i32 = 6;
const IPV6_FLOWLABEL_MGR: i32 = 32;
const IPV6_RTHDR: i32 = 57;

fn ip(args: &[String], at: usize) -> Result<IpAddr, Failure> {
    let text = word(args, at)?;
    text.parse().map_err(|error| Failure::Usage(format!("{text}: {error}")))
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// Socket, peer and payload of a datagram act whose first argument is an address.
fn datagram(args: &[String]) -> Result<(OwnedFd, SocketAddr, Vec<u8>), Failure> {
    let peer = parse(word(args, 1)?)?;
    Ok((make(family(peer), libc::SOCK_DGRAM)?, peer, vec![b'r'; number(args, 2)? as usize]))
}

fn sendto(socket: &OwnedFd, bytes: &[u8], peer: SocketAddr) -> Outcome {
    let peer = inet(peer);
    let mut args =
        [num(socket.as_raw_fd()), Arg::In(bytes), num(bytes.len()), num(0), Arg::In(&peer), num(peer.len())];
    fact("sent", call(libc::SYS_sendto, &mut args)?)
}

fn udp_own(args: &[String]) -> Outcome {
    let (socket, peer, bytes) = datagram(args)?;
    bind(&socket, &inet(SocketAddr::new(ip(args, 0)?, 0)))?;
    sendto(&socket, &bytes, peer)
}

fn tcp_own(args: &[String]) -> Outcome {
    let peer = parse(word(args, 1)?)?;
    let socket = make(family(peer), libc::SOCK_STREAM)?;
    bind(&socket, &inet(SocketAddr::new(ip(args, 0)?, 0)))?;
    connect(&socket, &inet(peer))?;
    Ok(Facts::new())
}

fn set(socket: &OwnedFd, level: i32, option: i32, value: &[u8]) -> Result<(), Failure> {
    let mut args = [num(socket.as_raw_fd()), num(level), num(option), Arg::In(value), num(value.len())];
    call(libc::SYS_setsockopt, &mut args)?;
    Ok(())
}

/// A `struct cmsghdr` with its data, padded.
fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + data.len()).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&level.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Sends with control messages: an innocent one first where there is one, so that the first is not all that is looked at.
fn sendmsg(socket: &OwnedFd, bytes: &[u8], peer: SocketAddr, control: &[u8]) -> Outcome {
    let peer = inet(peer);
    let iovec = [bytes.as_ptr() as usize, bytes.len()];
    // name, namelen (32 bits and padding), iov, iovlen, control, controllen, flags
    let header = [
        peer.as_ptr() as usize,
        peer.len(),
        iovec.as_ptr() as usize,
        1,
        control.as_ptr() as usize,
        control.len(),
        0,
    ];
    let header: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
    fact("sent", call(libc::SYS_sendmsg, &mut [num(socket.as_raw_fd()), Arg::In(&header), num(0)])?)
}

/// The source address of one message: where the unspecified address leads.
fn udp_source(args: &[String]) -> Outcome {
    let (socket, peer, bytes) = datagram(args)?;
    let mut data = 0_u32.to_ne_bytes().to_vec();
    data.extend_from_slice(&octets(ip(args, 0)?));
    data.extend_from_slice(&[0; 4]);
    sendmsg(&socket, &bytes, peer, &message(SOL_IP, IP_PKTINFO, &data))
}

/// Loose source routing over one hop.
fn loose(hop: IpAddr) -> Vec<u8> {
    [[1, 131, 7, 4].to_vec(), octets(hop)].concat()
}

fn route4_option(args: &[String]) -> Outcome {
    let (socket, peer, bytes) = datagram(args)?;
    set(&socket, SOL_IP, IP_OPTIONS, &loose(ip(args, 0)?))?;
    sendto(&socket, &bytes, peer)
}

fn route4_message(args: &[String]) -> Outcome {
    let (socket, peer, bytes) = datagram(args)?;
    let mut control = message(SOL_IP, libc::IP_TTL, &64_i32.to_ne_bytes());
    control.extend(message(SOL_IP, IP_RETOPTS, &loose(ip(args, 0)?)));
    sendmsg(&socket, &bytes, peer, &control)
}

/// A segment routing header (type 4, RFC 8754) with one hop before the destination.
fn segments(hop: IpAddr) -> Vec<u8> {
    [[0, 4, 4, 1, 1, 0, 0, 0].to_vec(), vec![0; 16], octets(hop)].concat()
}

fn route6_option(args: &[String]) -> Outcome {
    let (socket, peer, bytes) = datagram(args)?;
    set(&socket, SOL_IPV6, IPV6_RTHDR, &segments(ip(args, 0)?))?;
    sendto(&socket, &bytes, peer)
}

fn route6_message(args: &[String]) -> Outcome {
    let (socket, peer, bytes) = datagram(args)?;
    let mut control = message(SOL_IPV6, libc::IPV6_HOPLIMIT, &64_i32.to_ne_bytes());
    control.extend(message(SOL_IPV6, IPV6_RTHDR, &segments(ip(args, 0)?)));
    sendmsg(&socket, &bytes, peer, &control)
}

/// The old form of sticky options: control messages in the value.
fn route6_old(args: &[String]) -> Outcome {
    let (socket, peer, bytes) = datagram(args)?;
    set(&socket, SOL_IPV6, IPV6_2292PKTOPTIONS, &message(SOL_IPV6, IPV6_RTHDR, &segments(ip(args, 0)?)))?;
    sendto(&socket, &bytes, peer)
}

/// A flow label that brings a routing header along (`struct in6_flowlabel_req`, then control messages).
fn route6_label(args: &[String]) -> Outcome {
    let peer = parse(word(args, 1)?)?;
    let socket = make(family(peer), libc::SOCK_DGRAM)?;
    let mut value = octets(peer.ip());
    value.extend_from_slice(&0x0001_2345_u32.to_be_bytes());
    // Get, exclusive; create; expires and lingers in seconds.
    value.extend_from_slice(&[0, 1]);
    value.extend_from_slice(&1_u16.to_ne_bytes());
    value.extend_from_slice(&6_u16.to_ne_bytes());
    value.extend_from_slice(&6_u16.to_ne_bytes());
    value.extend_from_slice(&[0; 4]);
    value.extend(message(SOL_IPV6, IPV6_RTHDR, &segments(ip(args, 0)?)));
    set(&socket, SOL_IPV6, IPV6_FLOWLABEL_MGR, &value)?;
    Ok(Facts::new())
}
