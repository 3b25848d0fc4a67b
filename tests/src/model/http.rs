//! The little HTTP/1.1 that agent CLIs need from a server: one request after another, JSON or event stream.

use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Head and body together are refused beyond this; real agents send some hundred KiB of system prompt.
const MAX_REQUEST: usize = 32 << 20;

#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Reply {
    status: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Reply {
    pub(super) fn json(value: &Value) -> Self {
        Self { status: "200 OK", content_type: "application/json", body: value.to_string().into_bytes() }
    }

    /// A whole event stream; `events` are (event name, data).
    pub(super) fn events(events: &[(Option<&str>, String)]) -> Self {
        let mut body = Vec::new();
        for (name, data) in events {
            if let Some(name) = name {
                body.extend_from_slice(format!("event: {name}\n").as_bytes());
            }
            body.extend_from_slice(format!("data: {data}\n\n").as_bytes());
        }
        Self { status: "200 OK", content_type: "text/event-stream", body }
    }

    pub(super) fn not_found() -> Self {
        Self { status: "404 Not Found", content_type: "application/json", body: b"{}".to_vec() }
    }

    pub(super) fn write_to(&self, stream: &mut TcpStream) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 {}\r\ncontent-type: {}\r\ncontent-length: {}\r\ncache-control: no-cache\r\n\r\n",
            self.status,
            self.content_type,
            self.body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body)?;
        stream.flush()
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Reads one request; `None` when the client closed the connection between requests.
pub(super) fn read_request(stream: &mut TcpStream) -> io::Result<Option<Request>> {
    let mut data = Vec::new();
    let head_end = loop {
        if let Some(end) = find(&data, b"\r\n\r\n") {
            break end + 4;
        }
        if !fill(stream, &mut data)? {
            return if data.is_empty() { Ok(None) } else { Err(bad("head cut short")) };
        }
    };
    let head = String::from_utf8(data.drain(..head_end).collect()).map_err(|e| bad(&e.to_string()))?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut length, mut chunked, mut expects) = (0_usize, false, false);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.trim().to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(|e| bad(&format!("length: {e}")))?,
            "transfer-encoding" => chunked = value.to_ascii_lowercase().contains("chunked"),
            "expect" => expects = true,
            _ => {}
        }
    }
    if expects {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let body = if chunked { read_chunks(stream, data)? } else { read_length(stream, data, length)? };
    Ok(Some(Request { method: method.to_owned(), path: path.to_owned(), body }))
}

fn read_length(stream: &mut TcpStream, mut data: Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    while data.len() < length {
        if !fill(stream, &mut data)? {
            return Err(bad("body cut short"));
        }
    }
    data.truncate(length);
    Ok(data)
}

fn read_chunks(stream: &mut TcpStream, mut data: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = loop {
            if let Some(end) = find(&data, b"\r\n") {
                break end;
            }
            if !fill(stream, &mut data)? {
                return Err(bad("chunk size cut short"));
            }
        };
        let line = String::from_utf8_lossy(&data[..line_end]).into_owned();
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(|e| bad(&format!("chunk size: {e}")))?;
        let whole = line_end + 2 + size + 2;
        while data.len() < whole {
            if !fill(stream, &mut data)? {
                return Err(bad("chunk cut short"));
            }
        }
        body.extend_from_slice(&data[line_end + 2..line_end + 2 + size]);
        data.drain(..whole);
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Reads some more; false at end of stream.
fn fill(stream: &mut TcpStream, data: &mut Vec<u8>) -> io::Result<bool> {
    if data.len() > MAX_REQUEST {
        return Err(bad("request too large"));
    }
    let mut chunk = [0_u8; 16 * 1024];
    let n = stream.read(&mut chunk)?;
    data.extend_from_slice(&chunk[..n]);
    Ok(n > 0)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
