//! Where a person's call came from: what the kernel says of the calling process, and what its environment says.
//!
//! `sudo` makes every operator root. The login uid and the audit session are set once at login and stay over `sudo` and
//! `su`, so they name the person; the terminal is the kernel's word too. `SSH_CONNECTION` and `SUDO_USER` are texts that
//! the caller could have set to anything: they are cleaned, bounded and kept apart, as what the environment says. Nothing
//! here decides who may do what.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longest value of the environment that is kept, in characters.
const VALUE_MAX: usize = 128;
/// Bytes of an environment that are read.
const ENVIRONMENT_MAX: u64 = 1 << 20;
/// How long the memory of a caller is waited for, and how many that hang are left behind.
const PATIENCE: Duration = Duration::from_millis(200);
const HUNG_MAX: usize = 16;
/// Longest file of the kernel that is read.
const FILE_MAX: u64 = 4096;
/// What the kernel says where nobody has logged in.
const UNSET: u32 = u32::MAX;
/// For people: a value that there is not, and one that could not be read.
const NONE: &str = "none";
const UNKNOWN: &str = "not known";

/// Where a call came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The calling process.
    pub pid: u32,
    /// Who logged in, for people: `ann (1000)`, `none`, `not known`.
    pub login: String,
    /// The login uid; absent where there is none, or it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// The audit session of that login; absent where there is none, or it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_session: Option<u32>,
    /// The terminal: `pts/3`, `none`, `not known`.
    pub tty: String,
    /// What the environment of the process says.
    pub environment: Environment,
}

/// What the environment of a caller says, which the caller chooses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// `SSH_CONNECTION`: address and port of the client, address and port here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_connection: Option<String>,
    /// `SUDO_USER`: who called `sudo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_user: Option<String>,
    /// Why it says nothing: it could not be read, or not to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Caller {
    /// Reads what is known of a process. It has ended since, or another one has its number: that is for whoever holds its
    /// pidfd to find out.
    #[must_use]
    pub fn read(proc: &Path, pid: u32) -> Self {
        let of = proc.join(pid.to_string());
        let (login, login_uid) = match number(&of.join("loginuid")) {
            Some(UNSET) => (NONE.to_owned(), None),
            Some(uid) => (uid.to_string(), Some(uid)),
            None => (UNKNOWN.to_owned(), None),
        };
        let login_session = number(&of.join("sessionid")).filter(|id| *id != UNSET);
        let tty = text(&of.join("stat")).and_then(|stat| tty_of(&stat)).unwrap_or_else(|| UNKNOWN.to_owned());
        let environment = in_time(of.join("environ"), environment);
        Self { pid, login, login_uid, login_session, tty, environment }
    }

    /// Of a process that ended before all could be read: what was read may be of another one.
    #[must_use]
    pub fn ended(pid: u32) -> Self {
        let problem = Some("the caller had ended".to_owned());
        let (login, tty) = (UNKNOWN.to_owned(), UNKNOWN.to_owned());
        Self {
            pid,
            login,
            tty,
            environment: Environment { problem, ..Environment::default() },
            ..Self::default()
        }
    }

    /// With the name of who logged in.
    #[must_use]
    pub fn named(mut self, name: impl FnOnce(u32) -> Option<String>) -> Self {
        if let Some(uid) = self.login_uid {
            self.login = name(uid).map_or_else(|| format!("uid {uid}"), |name| format!("{name} ({uid})"));
        }
        self
    }

    /// In one line.
    #[must_use]
    pub fn text(&self) -> String {
        let session = self.login_session.map_or_else(|| NONE.to_owned(), |id| id.to_string());
        let Environment { ssh_connection, sudo_user, problem } = &self.environment;
        let said = [("sudo user", sudo_user), ("SSH", ssh_connection), ("nothing, because", problem)];
        let said: Vec<String> = said
            .into_iter()
            .filter_map(|(what, value)| value.as_ref().map(|value| format!("{what} {value}")))
            .collect();
        let said = if said.is_empty() {
            String::new()
        } else {
            format!("; the environment says: {}", said.join(", "))
        };
        format!("login {}, login session {session}, tty {}, pid {}{said}", self.login, self.tty, self.pid)
    }

    /// As a field of an event.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

fn bytes(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text(path: &Path) -> Option<String> {
    Some(String::from_utf8_lossy(&bytes(path, FILE_MAX).ok()?).into_owned())
}

fn number(path: &Path) -> Option<u32> {
    text(path)?.trim().parse().ok()
}

/// The terminal of a process, from its `stat`. The name of the program stands in it, with any bytes.
fn tty_of(stat: &str) -> Option<String> {
    let (_, rest) = stat.rsplit_once(')')?;
    let number: i32 = rest.split_ascii_whitespace().nth(4)?.parse().ok()?;
    Some(tty_name(number.cast_unsigned()))
}

/// The name of a terminal by its device number (`Documentation/admin-guide/devices.txt`).
fn tty_name(device: u32) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    match (major, minor) {
        (0, 0) => NONE.to_owned(),
        (4, 64..) => format!("ttyS{}", minor - 64),
        (4, _) => format!("tty{minor}"),
        (5, 1) => "console".to_owned(),
        (136..=143, _) => format!("pts/{}", (major - 136) * 256 + minor),
        (204, 64..) => format!("ttyAMA{}", minor - 64),
        (229, _) => format!("hvc{minor}"),
        _ => format!("device {major}:{minor}"),
    }
}

/// Reads with a bound on the time: the pages belong to the process, which can lay them where nobody answers. A reader that
/// hangs is left behind, so many at most.
fn in_time(path: PathBuf, read: fn(&Path) -> Environment) -> Environment {
    static HUNG: AtomicUsize = AtomicUsize::new(0);
    let problem = |why: &str| Environment { problem: Some(why.to_owned()), ..Environment::default() };
    if HUNG.fetch_add(1, Ordering::Relaxed) >= HUNG_MAX {
        HUNG.fetch_sub(1, Ordering::Relaxed);
        return problem("too many callers did not let theirs be read");
    }
    let (tell, told) = channel();
    let work = move || {
        let found = read(&path);
        HUNG.fetch_sub(1, Ordering::Relaxed);
        // Nobody waits any more where it took too long.
        drop(tell.send(found));
    };
    if std::thread::Builder::new().name("caller".to_owned()).spawn(work).is_err() {
        HUNG.fetch_sub(1, Ordering::Relaxed);
        return problem("there is no thread to read it");
    }
    told.recv_timeout(PATIENCE).unwrap_or_else(|_| problem("the caller did not let it be read in time"))
}

fn environment(path: &Path) -> Environment {
    let all = match bytes(path, ENVIRONMENT_MAX + 1) {
        Ok(all) => all,
        Err(error) => {
            let problem = Some(format!("it cannot be read: {error}"));
            return Environment { problem, ..Environment::default() };
        }
    };
    let long = all.len() as u64 > ENVIRONMENT_MAX;
    // The first of a name, as the C library reads it.
    let value = |name: &str| {
        let mut entries = all.split(|byte| *byte == 0);
        let found = entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        Some(clean(found)).filter(|text| !text.is_empty())
    };
    Environment {
        ssh_connection: value("SSH_CONNECTION"),
        sudo_user: value("SUDO_USER"),
        problem: long.then(|| "it was read in part: it is longer than 1 MiB".to_owned()),
    }
}

/// A text of the environment as it is kept: printable, short.
fn clean(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let plain = text.chars().filter(|c| !c.is_control() && !hidden(*c));
    plain.take(VALUE_MAX).collect::<String>().trim().to_owned()
}

/// Characters without a shape of their own, that change how others are shown.
fn hidden(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests;
