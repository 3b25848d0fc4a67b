//! What a program does that talks to a server by name: asks the DNS, and begins to speak TLS.

use super::socket::{connect, family, inet, make, parse};
use super::{Act, Failure, Outcome, fact, word};
use crate::sys::{Arg, call, num, write_all};
use std::os::fd::AsRawFd;

pub(crate) const ACTS: &[Act] =
    &[Act::new("resolve", "SERVER:PORT NAME", resolve), Act::new("tls-hello", "ADDR:PORT NAME|-", tls_hello)];

/// A question for the IPv4 addresses of a name, RFC 1035 4.1.
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// Asks over UDP, and waits for the answer.
fn resolve(args: &[String]) -> Outcome {
    let (server, question) = (parse(word(args, 0)?)?, question(word(args, 1)?));
    let socket = make(family(server), libc::SOCK_DGRAM)?;
    connect(&socket, &inet(server))?;
    write_all(socket.as_raw_fd(), &question)?;
    let mut answer = vec![0_u8; 1500];
    let received =
        call(libc::SYS_read, &mut [num(socket.as_raw_fd()), Arg::Out(&mut answer), num(1500_usize)])?;
    fact("received", received)
}

/// A ClientHello as clients send it, RFC 8446 4.1.2; without a name for `-`.
fn client_hello(name: &str) -> Result<Vec<u8>, Failure> {
    let short = |len: usize| (len as u16).to_be_bytes();
    let mut extensions = vec![0, 43, 0, 3, 2, 3, 4];
    if name != "-" {
        extensions.extend_from_slice(&[0, 0]);
        extensions.extend_from_slice(&short(name.len() + 5));
        extensions.extend_from_slice(&short(name.len() + 3));
        extensions.push(0);
        extensions.extend_from_slice(&short(name.len()));
        extensions.extend_from_slice(name.as_bytes());
    }
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 2, 0x13, 1, 1, 0]);
    body.extend_from_slice(&short(extensions.len()));
    body.extend_from_slice(&extensions);
    let mut record = vec![22, 3, 1];
    record.extend_from_slice(&short(body.len() + 4));
    record.extend_from_slice(&[1, 0]);
    record.extend_from_slice(&short(body.len()));
    record.extend_from_slice(&body);
    Ok(record)
}

fn tls_hello(args: &[String]) -> Outcome {
    let (addr, hello) = (parse(word(args, 0)?)?, client_hello(word(args, 1)?)?);
    let socket = make(family(addr), libc::SOCK_STREAM)?;
    connect(&socket, &inet(addr))?;
    write_all(socket.as_raw_fd(), &hello)?;
    fact("sent", hello.len())
}
