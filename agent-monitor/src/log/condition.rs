//! The condition of the log as a state that stays visible: written, recovered after a crash, set aside, or not written.
//!
//! A log that does not hold is renamed to `log.damaged-ID` in the state directory; beside it a note says when, why and up
//! to which checkpoint it was verified. The state lasts for as long as the directory stands there, over any number of
//! restarts: an operator acknowledges it by moving the directory away, as evidence. Nothing else ends it, and a lost note
//! does not hide the directory. An end that a crash left unfinished is ordinary: it is a state until the next start.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::note::Checkpoint;
use super::recorder::LogStatus;
use super::{DIRECTORY, LogError, key};
use crate::health::doctor::{Check, LOG, LOG_SET_ASIDE};
use crate::model::Time;

/// Longest note that is read.
const NOTE_MAX: u64 = 64 << 10;

/// The state of the log, the worst that holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It is written, and nothing is known against it.
    #[default]
    Ok,
    /// The last writer crashed: an unfinished end was cut off at this start.
    Recovered,
    /// A log that does not hold stands beside the one that is written.
    SetAside,
    /// Nothing is written now.
    NotWritten,
}

impl Condition {
    /// All, from the best.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Recovered, Self::SetAside, Self::NotWritten];

    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Recovered => "recovered",
            Self::SetAside => "set_aside",
            Self::NotWritten => "not_written",
        }
    }
}

/// The last checkpoint of a log that could be verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastVerified {
    /// Its number.
    pub checkpoint: u64,
    /// Records that it seals.
    pub records: u64,
    /// When it was made.
    pub time: Time,
}

impl From<&Checkpoint> for LastVerified {
    fn from(last: &Checkpoint) -> Self {
        Self { checkpoint: last.number, records: last.size, time: last.time }
    }
}

/// A log that was set aside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Where it is.
    #[serde(default)]
    pub path: String,
    /// When; absent where the note is missing.
    #[serde(default)]
    pub at: Option<Time>,
    /// What is wrong with it; absent where the note is missing.
    #[serde(default)]
    pub reason: Option<String>,
    /// The last checkpoint that was verified; absent where none could be, or the note is missing.
    #[serde(default)]
    pub last_verified: Option<LastVerified>,
}

impl SetAside {
    /// In one line.
    #[must_use]
    pub fn text(&self) -> String {
        let at = self.at.map_or_else(|| "at an unknown time".to_owned(), |at| format!("at {at}"));
        let reason = self.reason.as_deref().unwrap_or("reason not known, its note is missing");
        let last = match &self.last_verified {
            Some(LastVerified { checkpoint, records, time }) => {
                format!("verified up to checkpoint {checkpoint} ({records} records, {time})")
            }
            None => "no checkpoint of it was verified".to_owned(),
        };
        format!("set aside to {} {at}: {reason}; {last}", self.path)
    }

    /// Writes the note beside the directory.
    ///
    /// # Errors
    /// When it cannot be written; the directory is found all the same.
    pub fn keep(&self) -> Result<(), LogError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        key::replace(&note_of(Path::new(&self.path)), &text, 0o600)
    }
}

fn note_of(aside: &Path) -> PathBuf {
    let mut name = aside.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

/// A name for a log in `dir` that is set aside now.
#[must_use]
pub fn name(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(format!(".damaged-{}", uuid::Uuid::now_v7().simple()));
    dir.with_file_name(name)
}

/// Logs that stand set aside in a state directory, the oldest first.
#[must_use]
pub fn set_aside(state: &Path) -> Vec<SetAside> {
    let entries = match fs::read_dir(state) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let reason = Some(format!("it cannot be searched for logs that were set aside: {error}"));
            return vec![SetAside { path: state.display().to_string(), reason, ..SetAside::default() }];
        }
    };
    let prefix = format!("{DIRECTORY}.damaged-");
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found.iter().map(|path| read(path)).collect()
}

fn read(aside: &Path) -> SetAside {
    let read = || {
        let mut text = Vec::new();
        fs::File::open(note_of(aside)).ok()?.take(NOTE_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice::<SetAside>(&text).ok()
    };
    // Its place is where it was found, whatever the note says.
    SetAside { path: aside.display().to_string(), ..read().unwrap_or_default() }
}

impl LogStatus {
    /// With the logs that stand set aside, and the condition that follows.
    #[must_use]
    pub fn beside(mut self, set_aside: Vec<SetAside>) -> Self {
        self.condition = match self.state.as_str() {
            "full" | "failed" => Condition::NotWritten,
            _ if !set_aside.is_empty() => Condition::SetAside,
            _ if self.cut.is_some() => Condition::Recovered,
            _ => Condition::Ok,
        };
        self.set_aside = set_aside;
        self
    }

    /// Whether a condition holds; several can at once, all but [`Condition::Ok`].
    #[must_use]
    pub fn has(&self, condition: Condition) -> bool {
        match condition {
            Condition::Ok | Condition::NotWritten => self.condition == condition,
            Condition::SetAside => !self.set_aside.is_empty(),
            Condition::Recovered => self.cut.is_some(),
        }
    }

    /// What is to be seen of it beside its counts, one line each.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.has(Condition::NotWritten) {
            let since = self.since.map_or_else(String::new, |since| format!(" since {since}"));
            let problem = self.problem.as_deref().unwrap_or("reason not known");
            lines.push(format!("cannot be written{since}: {problem}"));
        }
        lines.extend(self.set_aside.iter().map(SetAside::text));
        lines.extend(self.cut.iter().map(|(bytes, kept)| {
            format!(
                "recovered at this start: {bytes} bytes of an unfinished end were cut off, kept in {kept}; nothing that \
                 was sealed is lost"
            )
        }));
        lines
    }

    /// The lines of `doctor`.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        let written = !self.has(Condition::NotWritten);
        let about = self.findings().into_iter().filter(|line| !line.starts_with("set aside"));
        let mut found: Vec<String> = about.collect();
        if written {
            found.insert(0, format!("written to {}, checkpoint {}", self.directory, self.checkpoint));
        }
        let fix = format!(
            "make room on the disk or repair what the message names; if `status` does not say `writing` after that, \
             restart the daemon. {} events are lost so far",
            self.lost
        );
        let fix = (!written).then_some(fix);
        let check = Check { name: LOG.to_owned(), ok: written, found: found.join("; "), fix };
        std::iter::once(check).chain(aside_checks(&self.set_aside)).collect()
    }
}

/// A line of `doctor` for each log that stands set aside.
pub fn aside_checks(set_aside: &[SetAside]) -> impl Iterator<Item = Check> + '_ {
    set_aside.iter().map(|aside| Check {
        name: LOG_SET_ASIDE.to_owned(),
        ok: false,
        found: aside.text(),
        fix: Some(format!(
            "agent-monitor verify {} names the damage; find out who wrote there, keep the directory and its .json as \
             evidence, and move both out of the state directory: that acknowledges it",
            aside.path
        )),
    })
}

#[cfg(test)]
mod tests;
