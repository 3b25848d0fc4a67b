//! Who had a bundle and what was done with it: lines, each with the hash of the one before, so that none can be taken
//! out or changed without those after it.
//!
//! The first line is made with the bundle and names the manifest's hash. Later lines are written by whoever has the
//! bundle and are not signed: they say what people say, in an order that holds.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::contents::Contents;
use super::{BundleError, manifest};
use crate::log::hex;
use crate::model::Time;

/// Longest custody log that is read.
pub(super) const LOG_MAX: u64 = 64 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When.
    pub time: Time,
    /// Who.
    pub by: String,
    /// What: `made`, `note`, or the annotator's word.
    pub action: String,
    /// In their words.
    pub note: String,
    /// SHA-256 of the manifest, hex.
    pub manifest: String,
    /// SHA-256 of the line before, hex; empty in the first.
    pub before: String,
}

/// Reads and checks the log of a bundle.
///
/// # Errors
/// With the line that does not hold.
pub fn read(contents: &Contents) -> Result<Vec<Entry>, BundleError> {
    let text = contents.read(manifest::CUSTODY, LOG_MAX)?;
    let text = String::from_utf8_lossy(&text);
    let bytes = contents.read(manifest::FILE, manifest::LENGTH_MAX)?;
    let of = hex(&Sha256::digest(bytes));
    let mut entries: Vec<Entry> = Vec::new();
    let mut before = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        let bad = |what: &str| BundleError::Cannot(format!("custody.jsonl:{number}: {what}"));
        let entry: Entry = serde_json::from_str(line).ok().ok_or_else(|| bad("not a custody entry"))?;
        if entry.before != before {
            return Err(bad("it does not follow the line before: a line was changed, removed or put in"));
        }
        if entry.manifest != of {
            return Err(bad("it is of another manifest"));
        }
        before = hex(&Sha256::digest(line));
        entries.push(entry);
    }
    if entries.is_empty() {
        Err(BundleError::Cannot("custody.jsonl is empty".to_owned()))
    } else {
        Ok(entries)
    }
}

/// Adds a line.
///
/// # Errors
/// When the log so far does not hold or cannot be written.
pub fn add(dir: &Path, time: Time, by: &str, action: &str, note: &str) -> Result<Entry, BundleError> {
    let path = dir.join(manifest::CUSTODY);
    let before = match path.symlink_metadata() {
        Ok(_) => {
            let last = read(&Contents::of_directory(dir))?
                .pop()
                .and_then(|entry| serde_json::to_string(&entry).ok());
            last.map(|line| hex(&Sha256::digest(line))).unwrap_or_default()
        }
        Err(_none) => String::new(),
    };
    let bytes = fs::read(dir.join(manifest::FILE)).map_err(BundleError::on("read", &path))?;
    let entry = Entry {
        time,
        by: by.to_owned(),
        action: action.to_owned(),
        note: note.to_owned(),
        manifest: hex(&Sha256::digest(bytes)),
        before,
    };
    let line =
        serde_json::to_string(&entry).map_err(|error| BundleError::on("write", &path)(error.into()))?;
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| writeln!(file, "{line}").and_then(|()| file.sync_all()));
    written.map_err(BundleError::on("write", &path))?;
    Ok(entry)
}
