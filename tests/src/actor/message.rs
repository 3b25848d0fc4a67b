//! Acts on datagrams: UDP and UNIX, connected and not, by every call that sends.

use super::socket::{connect, family, inet, make, parse, unix};
use super::{Act, Failure, Outcome, fact, number, word};
use crate::sys::{Arg, call, num};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

pub(crate) const ACTS: &[Act] = &[
    Act::new("udp-connected", "ADDR:PORT BYTES", udp_connected),
    Act::new("udp-sendto", "ADDR:PORT BYTES", udp_sendto),
    Act::new("udp-sendmsg", "ADDR:PORT BYTES", udp_sendmsg),
    Act::new("udp-sendmmsg", "ADDR:PORT BYTES", udp_sendmmsg),
    Act::new("unix-sendto", "PATH|@NAME BYTES", unix_sendto),
];

fn udp(args: &[String]) -> Result<(OwnedFd, SocketAddr, Vec<u8>), Failure> {
    let addr = parse(word(args, 0)?)?;
    Ok((make(family(addr), libc::SOCK_DGRAM)?, addr, vec![b'u'; number(args, 1)? as usize]))
}

fn sendto(socket: &OwnedFd, bytes: &[u8], peer: Option<&[u8]>) -> Outcome {
    let (addr, length) = peer.map_or((Arg::Null, 0), |p| (Arg::In(p), p.len()));
    let mut args = [num(socket.as_raw_fd()), Arg::In(bytes), num(bytes.len()), num(0), addr, num(length)];
    fact("sent", call(libc::SYS_sendto, &mut args)?)
}

fn udp_connected(args: &[String]) -> Outcome {
    let (socket, addr, bytes) = udp(args)?;
    connect(&socket, &inet(addr))?;
    sendto(&socket, &bytes, None)
}

fn udp_sendto(args: &[String]) -> Outcome {
    let (socket, addr, bytes) = udp(args)?;
    sendto(&socket, &bytes, Some(&inet(addr)))
}

/// A `struct msghdr` for one buffer to one peer; `iovec` must outlive its use.
fn msghdr(peer: &[u8], iovec: &[usize; 2]) -> [usize; 7] {
    // name, namelen (32 bits and padding), iov, iovlen, control, controllen, flags
    [peer.as_ptr() as usize, peer.len(), iovec.as_ptr() as usize, 1, 0, 0, 0]
}

fn words(words: &[usize]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn udp_sendmsg(args: &[String]) -> Outcome {
    let (socket, addr, bytes) = udp(args)?;
    let (peer, iovec) = (inet(addr), [bytes.as_ptr() as usize, bytes.len()]);
    let header = words(&msghdr(&peer, &iovec));
    fact("sent", call(libc::SYS_sendmsg, &mut [num(socket.as_raw_fd()), Arg::In(&header), num(0)])?)
}

/// Two messages in one call: two events.
fn udp_sendmmsg(args: &[String]) -> Outcome {
    let (socket, addr, bytes) = udp(args)?;
    let (peer, iovec) = (inet(addr), [bytes.as_ptr() as usize, bytes.len()]);
    let one = msghdr(&peer, &iovec);
    // struct mmsghdr: msghdr and a length the kernel fills in.
    let mut vector = Vec::new();
    for _ in 0..2 {
        vector.extend_from_slice(&words(&one));
        vector.extend_from_slice(&words(&[0]));
    }
    let mut args = [num(socket.as_raw_fd()), Arg::Out(&mut vector), num(2), num(0)];
    fact("messages", call(libc::SYS_sendmmsg, &mut args)?)
}

fn unix_sendto(args: &[String]) -> Outcome {
    let socket = make(libc::AF_UNIX, libc::SOCK_DGRAM)?;
    let bytes = vec![b'x'; number(args, 1)? as usize];
    sendto(&socket, &bytes, Some(&unix(word(args, 0)?)))
}
