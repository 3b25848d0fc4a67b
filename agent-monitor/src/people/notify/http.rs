//! One `POST` over HTTP/1.1, with limits on everything.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

/// For connecting, and for each read and write.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer's first line that are read.
const LINE_MAX: u64 = 8192;

/// `http://host[:port][/path]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
    path: String,
}

impl Url {
    /// Reads it.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").ok_or(
            "only http:// is spoken; put a local forwarder (a sidecar or relay) in front of anything else",
        )?;
        if rest.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("it contains blanks or control characters".to_owned());
        }
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, format!("/{path}")),
            None => (rest, "/".to_owned()),
        };
        if authority.contains('@') {
            return Err("names and passwords in it are not sent; use webhook-secret".to_owned());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().map_err(|why| format!("`{port}` is no port: {why}"))?)
            }
            _ => (authority, 80),
        };
        if host.is_empty() {
            return Err("it names no host".to_owned());
        }
        Ok(Self { host: host.to_owned(), port, path })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.path)
    }
}

/// Posts a JSON body; the status of the answer.
pub(super) fn post(url: &Url, body: &str, signature: Option<&str>) -> io::Result<u16> {
    let bare = url.host.trim_start_matches('[').trim_end_matches(']');
    let address = (bare, url.port).to_socket_addrs()?.next();
    let address = address.ok_or_else(|| io::Error::other("the host has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = format!(
        "POST {} HTTP/1.1\r\nHost: {}:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\nUser-Agent: agent-monitor\r\n",
        url.path,
        url.host,
        url.port,
        body.len()
    );
    if let Some(signature) = signature {
        head.push_str("Agent-Monitor-Signature: ");
        head.push_str(signature);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_MAX)).read_line(&mut line)?;
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    status
        .and_then(|status| status.trim().parse().ok())
        .ok_or_else(|| io::Error::other(format!("it does not answer in HTTP: {:?}", line.trim_end())))
}
