//! Acts on connections: TCP and UNIX streams, both ends.

use super::socket::{bind, connect, drain, family, inet, make, own_port, parse, unix};
use super::{Act, Facts, Outcome, fact, number, word};
use crate::sys::{Arg, call, call_fd, num, write_all};
use std::os::fd::{AsRawFd, OwnedFd};

pub(crate) const ACTS: &[Act] = &[
    Act::new("tcp-connect", "ADDR:PORT [SEND [RECEIVE]]", tcp_connect),
    Act::new("tcp-fastopen", "ADDR:PORT BYTES", tcp_fastopen),
    Act::new("socket", "FAMILY TYPE PROTOCOL", socket),
    Act::new("tcp-bind", "ADDR:PORT", tcp_bind),
    Act::new("tcp-serve", "ADDR:PORT", tcp_serve),
    Act::new("unix-connect", "PATH|@NAME", unix_connect),
];

fn tcp_connect(args: &[String]) -> Outcome {
    let addr = parse(word(args, 0)?)?;
    let socket = make(family(addr), libc::SOCK_STREAM)?;
    connect(&socket, &inet(addr))?;
    let port = own_port(&socket)?;
    let (send, receive) = match args.len() {
        0 | 1 => (0, 0),
        2 => (number(args, 1)?, 0),
        _ => (number(args, 1)?, number(args, 2)?),
    };
    write_all(socket.as_raw_fd(), &vec![b's'; send as usize])?;
    // Says the end of what it sends, so that the peer need not know the length.
    call(libc::SYS_shutdown, &mut [num(socket.as_raw_fd()), num(libc::SHUT_WR)])?;
    let received = drain(&socket, receive as usize)?;
    Ok(vec![("port", port.to_string()), ("sent", send.to_string()), ("received", received.to_string())])
}

/// Makes a socket and closes it.
fn socket(args: &[String]) -> Outcome {
    let (family, kind, protocol) = (number(args, 0)?, number(args, 1)?, number(args, 2)?);
    drop(call_fd(libc::SYS_socket, &mut [num(family as i32), num(kind as i32), num(protocol as i32)])?);
    Ok(Facts::new())
}

fn tcp_fastopen(args: &[String]) -> Outcome {
    let addr = parse(word(args, 0)?)?;
    let (socket, bytes) = (make(family(addr), libc::SOCK_STREAM)?, vec![b'f'; number(args, 1)? as usize]);
    let peer = inet(addr);
    let mut args = [
        num(socket.as_raw_fd()),
        Arg::In(&bytes),
        num(bytes.len()),
        num(libc::MSG_FASTOPEN),
        Arg::In(&peer),
        num(peer.len()),
    ];
    fact("sent", call(libc::SYS_sendto, &mut args)?)
}

fn listener(text: &str) -> Result<(OwnedFd, u16), super::Failure> {
    let addr = parse(text)?;
    let socket = make(family(addr), libc::SOCK_STREAM)?;
    bind(&socket, &inet(addr))?;
    let port = own_port(&socket)?;
    Ok((socket, port))
}

fn tcp_bind(args: &[String]) -> Outcome {
    let (_socket, port) = listener(word(args, 0)?)?;
    fact("port", port)
}

/// Listens, says its port by a marker of its own (`ACT tcp-listen … port=…`), takes one connection and reads
/// it to the end.
fn tcp_serve(args: &[String]) -> Outcome {
    let (socket, port) = listener(word(args, 0)?)?;
    call(libc::SYS_listen, &mut [num(socket.as_raw_fd()), num(8)])?;
    super::mark("tcp-listen", &fact("port", port));
    let mut args = [num(socket.as_raw_fd()), Arg::Null, Arg::Null, num(libc::SOCK_CLOEXEC)];
    let peer = call_fd(libc::SYS_accept4, &mut args)?;
    let received = drain(&peer, usize::MAX)?;
    Ok(vec![("port", port.to_string()), ("received", received.to_string())])
}

fn unix_connect(args: &[String]) -> Outcome {
    let socket = make(libc::AF_UNIX, libc::SOCK_STREAM)?;
    connect(&socket, &unix(word(args, 0)?))?;
    Ok(Facts::new())
}
