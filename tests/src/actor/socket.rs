//! Socket addresses as the kernel takes them, and sockets made by number.

use super::Failure;
use crate::sys::{Arg, call, call_fd, num};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// `sockaddr_in` or `sockaddr_in6`.
pub(crate) fn inet(addr: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    match addr {
        SocketAddr::V4(v4) => {
            bytes.extend_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            bytes.extend_from_slice(&v4.port().to_be_bytes());
            bytes.extend_from_slice(&v4.ip().octets());
            bytes.extend_from_slice(&[0; 8]);
        }
        SocketAddr::V6(v6) => {
            bytes.extend_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            bytes.extend_from_slice(&v6.port().to_be_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&v6.ip().octets());
            bytes.extend_from_slice(&v6.scope_id().to_ne_bytes());
        }
    }
    bytes
}

/// `sockaddr_un`; a name that starts with `@` is abstract.
pub(crate) fn unix(name: &str) -> Vec<u8> {
    let mut bytes = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    match name.strip_prefix('@') {
        Some(hidden) => {
            bytes.push(0);
            bytes.extend_from_slice(hidden.as_bytes());
        }
        None => {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
        }
    }
    bytes
}

pub(crate) fn parse(text: &str) -> Result<SocketAddr, Failure> {
    text.parse().map_err(|error| Failure::Usage(format!("{text}: {error}")))
}

pub(crate) fn family(addr: SocketAddr) -> i32 {
    if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

pub(crate) fn make(family: i32, kind: i32) -> Result<OwnedFd, Failure> {
    Ok(call_fd(libc::SYS_socket, &mut [num(family), num(kind | libc::SOCK_CLOEXEC), num(0)])?)
}

pub(crate) fn connect(socket: &OwnedFd, addr: &[u8]) -> Result<(), Failure> {
    call(libc::SYS_connect, &mut [num(socket.as_raw_fd()), Arg::In(addr), num(addr.len())])?;
    Ok(())
}

pub(crate) fn bind(socket: &OwnedFd, addr: &[u8]) -> Result<(), Failure> {
    call(libc::SYS_bind, &mut [num(socket.as_raw_fd()), Arg::In(addr), num(addr.len())])?;
    Ok(())
}

/// The port a socket is bound to.
pub(crate) fn own_port(socket: &OwnedFd) -> Result<u16, Failure> {
    let (mut addr, mut length) = ([0_u8; 28], 28_u32.to_ne_bytes());
    let mut args = [num(socket.as_raw_fd()), Arg::Out(&mut addr), Arg::Out(&mut length)];
    call(libc::SYS_getsockname, &mut args)?;
    Ok(u16::from_be_bytes([addr[2], addr[3]]))
}

/// Reads and throws away exactly `count` bytes, or up to the end of the stream; how many came.
pub(crate) fn drain(socket: &OwnedFd, count: usize) -> Result<usize, Failure> {
    let (mut chunk, mut total) = (vec![0_u8; 64 * 1024], 0);
    while total < count {
        let want = chunk.len().min(count - total);
        let mut args = [num(socket.as_raw_fd()), Arg::Out(&mut chunk), num(want)];
        match call(libc::SYS_read, &mut args)? {
            0 => break,
            n => total += n,
        }
    }
    Ok(total)
}
