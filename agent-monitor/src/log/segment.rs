//! Segments: the lines of the log, and the file in which closed ones are kept.
//!
//! ```text
//! H <16 hex of leaf> {header}       first line: origin, first record, tree so far, key
//! R <number> <16 hex of leaf> {…}   a record
//! C <base64 of a signed checkpoint>
//! K <base64 of a signed key rotation>
//! ```
//! `NNNNNNNNNNNNNNNNNNNN.open` (the number of its first record) grows line by line. Closed, it becomes `N….zst`: zstd
//! frames of whole lines, then an index in a frame that zstd skips. `zstdcat` gives the lines back.

pub mod sealed;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::LogError;
use super::merkle::{self, Frontier, Hash};
use crate::model::Time;

/// Version of the form.
pub const VERSION: u32 = 1;
/// Longest line that is read.
pub const LINE_MAX: usize = 16 << 20;
/// Suffix of a segment that grows.
const OPEN: &str = "open";
/// Suffix of a closed one.
const SEALED: &str = "zst";

/// First line of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`VERSION`].
    pub version: u32,
    /// Which log.
    pub origin: String,
    /// Number of its first record.
    pub first: u64,
    /// Number of the last checkpoint before it.
    pub checkpoint: u64,
    /// The tree before its first record, base64 of each peak.
    pub peaks: Vec<String>,
    /// When it was begun.
    pub time: Time,
    /// The key in force, as verifier key.
    pub key: String,
}

impl Header {
    /// The tree before its first record; `None` when it does not fit `first`.
    #[must_use]
    pub fn frontier(&self) -> Option<Frontier> {
        let peaks = self.peaks.iter().map(|text| BASE64.decode(text).ok()?.try_into().ok());
        Frontier::restore(self.first, peaks.collect::<Option<Vec<Hash>>>()?)
    }
}

/// The tree so far in the form of [`Header::peaks`].
#[must_use]
pub fn peaks(frontier: &Frontier) -> Vec<String> {
    frontier.peaks().iter().map(|hash| BASE64.encode(hash)).collect()
}

/// One line of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    /// The first.
    Header(Box<Header>),
    /// A record: its number, the first half of its leaf hash as written, its bytes.
    Record {
        /// Number in the log, from 0.
        number: u64,
        /// First 8 bytes of the leaf hash, as it was written.
        mark: [u8; 8],
        /// The record.
        json: &'a [u8],
    },
    /// A signed checkpoint.
    Checkpoint(String),
    /// A signed change of keys.
    Rotation(String),
}

/// Reads a line without its end; `None` when it has no such form.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let (tag, rest) = line.split_at_checked(2)?;
    let note = || String::from_utf8(BASE64.decode(rest).ok()?).ok();
    match tag {
        b"H " => {
            let (mark, json) = rest.split_at_checked(16)?;
            let json = json.strip_prefix(b" ")?;
            // Not proven by the tree, so that at least an accident is found out.
            let whole = super::hex(merkle::leaf(json).get(..8)?).as_bytes() == mark;
            serde_json::from_slice(json).ok().filter(|_| whole).map(|header| Line::Header(Box::new(header)))
        }
        b"C " => note().map(Line::Checkpoint),
        b"K " => note().map(Line::Rotation),
        b"R " => {
            let space = rest.iter().position(|byte| *byte == b' ')?;
            let (digits, rest) = (rest.get(..space)?, rest.get(space + 1..)?);
            let canonical =
                digits == b"0" || digits.first().is_some_and(|digit| (b'1'..=b'9').contains(digit));
            let number = std::str::from_utf8(digits).ok().filter(|_| canonical)?.parse().ok()?;
            let (mark, json) = rest.split_at_checked(16)?;
            let lower = mark.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            let mark = super::unhex(std::str::from_utf8(mark).ok().filter(|_| lower)?)?.try_into().ok()?;
            let json = json.strip_prefix(b" ").filter(|json| !json.is_empty())?;
            Some(Line::Record { number, mark, json })
        }
        _ => None,
    }
}

/// Appends the line of a record.
pub fn push_record(out: &mut Vec<u8>, number: u64, leaf: &Hash, json: &[u8]) {
    let mark = super::hex(leaf.get(..8).unwrap_or_default());
    out.extend_from_slice(format!("R {number} {mark} ").as_bytes());
    out.extend_from_slice(json);
    out.push(b'\n');
}

/// Appends a line with a note: `C` or `K`.
pub fn push_note(out: &mut Vec<u8>, tag: char, note: &str) {
    out.extend_from_slice(format!("{tag} {}\n", BASE64.encode(note)).as_bytes());
}

/// Appends the first line.
pub fn push_header(out: &mut Vec<u8>, header: &Header) {
    // A plain struct of texts and numbers: the serialiser cannot fail on it.
    let json = serde_json::to_vec(header).unwrap_or_default();
    out.extend_from_slice(
        format!("H {} ", super::hex(merkle::leaf(&json).get(..8).unwrap_or_default())).as_bytes(),
    );
    out.extend_from_slice(&json);
    out.push(b'\n');
}

/// What is looked for in a record without reading all of it.
#[derive(Debug, Deserialize)]
pub struct Peek {
    /// When it happened.
    pub time: Time,
    agent: Option<AgentId>,
    #[serde(default)]
    gap: Option<About>,
    #[serde(default)]
    detail: Option<Named>,
}

#[derive(Debug, Deserialize)]
struct AgentId {
    id: String,
}

#[derive(Debug, Deserialize)]
struct About {
    agent: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Named {
    #[serde(default)]
    agent: serde_json::Value,
}

impl Peek {
    /// Reads a record; `None` when it is no event.
    #[must_use]
    pub fn of(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// The agent it is of or about.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        let of = self.agent.as_ref().map(|agent| agent.id.as_str());
        of.or_else(|| self.gap.as_ref()?.agent.as_deref()).or_else(|| self.detail.as_ref()?.agent.as_str())
    }
}

/// A segment in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Number of its first record, by its name.
    pub first: u64,
    /// It is closed and compressed.
    pub sealed: bool,
    /// The file.
    pub path: PathBuf,
}

/// Where the segment that begins with record `first` lies.
#[must_use]
pub fn path(dir: &Path, first: u64, sealed: bool) -> PathBuf {
    dir.join(format!("{first:020}.{}", if sealed { SEALED } else { OPEN }))
}

/// The segments of a directory in order. Of one that was being closed when the writer died, only the closed file.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(dir: &Path) -> Result<Vec<Segment>, LogError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(LogError::on("read the log directory", dir))? {
        let path = entry.map_err(LogError::on("read the log directory", dir))?.path();
        let (stem, end) =
            (path.file_stem().and_then(|s| s.to_str()), path.extension().and_then(|s| s.to_str()));
        let number = stem.filter(|stem| stem.len() == 20 && stem.bytes().all(|b| b.is_ascii_digit()));
        let Some(first) = number.and_then(|stem| stem.parse().ok()) else { continue };
        match end {
            Some(SEALED) => found.push(Segment { first, sealed: true, path }),
            Some(OPEN) => found.push(Segment { first, sealed: false, path }),
            _ => {}
        }
    }
    // The closed one of two with the same number comes first.
    found.sort_by_key(|segment| (segment.first, !segment.sealed));
    found.dedup_by_key(|segment| segment.first);
    Ok(found)
}

/// Opens a regular file; links, pipes and devices are refused.
///
/// # Errors
/// When it cannot be opened or is none.
pub fn open(path: &Path) -> Result<File, LogError> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(LogError::on("open", path))?;
    let metadata = file.metadata().map_err(LogError::on("look at", path))?;
    if metadata.is_file() {
        return Ok(file);
    }
    let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
    Err(LogError { action: "read", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
