//! The product as its user meets it: the command line, and the control socket.

use super::PATIENCE;
use super::lane::monitor_program;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};

/// `agent-monitor` with these arguments.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(monitor_program());
    command.args(args).env_remove("RUST_LOG");
    command
}

/// Runs it to its end.
pub fn run(args: &[&str]) -> Output {
    let output = command(args).output();
    output.unwrap_or_else(|error| panic!("{}: {error}", monitor_program().display()))
}

/// Runs it to its end as another user, with no group and no capability of ours.
pub fn run_as(uid: u32, args: &[&str]) -> Output {
    use std::os::unix::process::CommandExt;
    // Started by root, std drops the supplementary groups when it changes the uid.
    command(args).uid(uid).gid(uid).output().unwrap()
}

/// Exit code and standard error, for reports.
pub fn describe(output: &Output) -> String {
    format!(
        "{}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// `GET path` over the control socket: status and body.
pub fn get(socket: &Path, path: &str) -> std::io::Result<(u16, String)> {
    request(socket, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
}

/// `POST path` with a JSON body over the control socket: status and body.
pub fn post(socket: &Path, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let length = body.len();
    request(
        socket,
        &format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ),
    )
}

/// The same as another user without any group: the daemon sees the credentials of the thread that connects.
pub fn post_as(uid: u32, socket: &Path, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let (socket, path, body) = (socket.to_owned(), path.to_owned(), body.to_owned());
    let thread = std::thread::spawn(move || {
        crate::sys::become_user(uid)?;
        post(&socket, &path, &body)
    });
    thread.join().unwrap()
}

fn request(socket: &Path, text: &str) -> std::io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(text.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    match (status, body) {
        (Some(status), Some(body)) => Ok((status, body)),
        _ => Err(std::io::Error::new(std::io::ErrorKind::InvalidData, answer)),
    }
}
