//! Copies of checkpoints off the file: to journald, else to syslog, so that an older log put back in place of this one
//! is found out by whoever has the journal.
//!
//! One datagram per checkpoint, never waiting: a journal that does not take it is a visible state. The message carries
//! the note itself, so that any system that keeps messages keeps the copy.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::{Deserialize, Serialize};

/// What stands before the note in a message.
pub const MARK: &str = "agent-monitor-checkpoint:";
/// The name under which messages are kept: `journalctl -t agent-monitor`.
pub const IDENTIFIER: &str = "agent-monitor";

/// Where copies go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Copied {
    /// systemd's journal.
    Journald,
    /// A syslog daemon.
    Syslog,
    /// Nowhere: neither takes messages.
    #[default]
    Absent,
}

impl Copied {
    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Journald => "journald",
            Self::Syslog => "syslog",
            Self::Absent => "absent",
        }
    }
}

/// The sockets that take copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets {
    journald: PathBuf,
    syslog: PathBuf,
}

impl Default for Sockets {
    fn default() -> Self {
        Self { journald: "/run/systemd/journal/socket".into(), syslog: "/dev/log".into() }
    }
}

impl Sockets {
    /// Others than the system's.
    #[must_use]
    pub fn at(journald: &Path, syslog: &Path) -> Self {
        Self { journald: journald.to_owned(), syslog: syslog.to_owned() }
    }

    /// Sends a copy of `note` to the first that takes it.
    #[must_use]
    pub fn send(&self, note: &str) -> Copied {
        let message = format!("{MARK} {}", BASE64.encode(note));
        let journald = format!("PRIORITY=5\nSYSLOG_IDENTIFIER={IDENTIFIER}\nMESSAGE={message}\n");
        // 29: facility daemon, severity notice.
        let syslog = format!("<29>{IDENTIFIER}[{}]: {message}", std::process::id());
        if to(&self.journald, &journald) {
            Copied::Journald
        } else if to(&self.syslog, &syslog) {
            Copied::Syslog
        } else {
            Copied::Absent
        }
    }
}

fn to(path: &Path, message: &str) -> bool {
    let send = || {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to(message.as_bytes(), path)
    };
    send().is_ok_and(|sent| sent == message.len())
}

/// The notes in any text that holds copies: a journal's export, a syslog file.
pub fn find(text: &str) -> impl Iterator<Item = String> + '_ {
    let note = |rest: &str| {
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+/=".contains(c))).unwrap_or(rest.len());
        String::from_utf8(BASE64.decode(rest.get(..end)?).ok()?).ok().filter(|note| !note.is_empty())
    };
    text.split(MARK).skip(1).filter_map(move |rest| note(rest.trim_start_matches(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_socket_that_takes_it_gets_the_whole_note() {
        let directory = tempfile::tempdir().unwrap();
        let (journald, syslog) = (directory.path().join("j"), directory.path().join("s"));
        let sockets = Sockets::at(&journald, &syslog);
        assert_eq!(sockets.send("note\n"), Copied::Absent);
        let receive = |socket: &UnixDatagram| {
            let mut buffer = [0; 4096];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        let log = UnixDatagram::bind(&syslog).unwrap();
        assert_eq!(sockets.send("note\n"), Copied::Syslog);
        let first = receive(&log);
        let journal = UnixDatagram::bind(&journald).unwrap();
        assert_eq!(sockets.send("other\n"), Copied::Journald);
        let text = format!("{first}\nnoise {MARK} %%%\n{}", receive(&journal));
        assert_eq!(find(&text).collect::<Vec<_>>(), ["note\n", "other\n"]);
    }
}
