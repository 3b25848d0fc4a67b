//! The signed list of what a bundle holds.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::log::hex;
use crate::log::note::{self, NoteError, PublicKey, SecretKey};
use crate::log::verify::Outcome;
use crate::model::{Gap, Time};

/// Version of the form.
pub const VERSION: u32 = 1;
/// Longest one that is read.
pub(super) const LENGTH_MAX: u64 = 64 << 20;
/// Its file.
pub const FILE: &str = "manifest.json";
/// The signature over it.
pub const SIGNATURE: &str = "manifest.sig";
/// The custody log: the only file that may grow afterwards.
pub const CUSTODY: &str = "custody.jsonl";
/// The list for `sha256sum -c`.
pub const SUMS: &str = "SHA256SUMS";
/// First line of the signed note.
const TITLE: &str = "agent-monitor bundle";
/// Files in a bundle at most.
pub(super) const FILES_MAX: usize = 20_000;

/// What a bundle says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// When it was made.
    pub made: Time,
    /// Who made it, and for what, in their words.
    pub by: String,
    /// The command line, without secrets.
    pub command: Vec<String>,
    /// Name, version and SHA-256 of the program that made it.
    pub tool: BTreeMap<String, String>,
    /// The log: origin, size and key of the sealing checkpoint.
    pub log: Sealed,
    /// What was asked for, in words.
    pub selection: BTreeMap<String, String>,
    /// Records in it, by why they are.
    pub records: BTreeMap<String, u64>,
    /// What was renamed for outsiders (`users`, `hosts`, `paths`): the log's seal does not prove the records then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renamed: Vec<String>,
    /// First and last time of the records that were asked for.
    pub times: Option<(Time, Time)>,
    /// The host as it was then; also in `host.json`.
    pub host: serde_json::Value,
    /// Clock of the host now: kept by a time source or not.
    pub clock: String,
    /// What checking the log showed while the records were read; absent in bundles of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Outcome>,
    /// What could not be seen in that time.
    pub gaps: Vec<Gap>,
    /// What is missing, and why.
    pub missing: Vec<String>,
    /// Each file but this, its signature and the custody log.
    pub files: Vec<Entry>,
}

/// The checkpoint that seals the records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// Which log.
    pub origin: String,
    /// Its records up to then.
    pub size: u64,
    /// Number of the checkpoint.
    pub checkpoint: u64,
    /// Verifier key.
    pub key: String,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Path in the bundle.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, hex.
    pub sha256: String,
}

/// Hash and length of what `from` gives.
///
/// # Errors
/// When reading fails.
pub fn hash(mut from: impl Read) -> io::Result<(String, u64)> {
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok((hex(&hash.finalize()), size)),
            read => {
                hash.update(buffer.get(..read).unwrap_or_default());
                size += read as u64;
            }
        }
    }
}

/// Every regular file below `dir`, by its path in the bundle; other things are errors.
///
/// # Errors
/// When something cannot be read, is a link or device, or there are too many.
pub fn walk(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut todo = vec![(String::new(), dir.to_owned())];
    while let Some((prefix, at)) = todo.pop() {
        for entry in fs::read_dir(&at)? {
            let entry = entry?;
            let bad = |what: &str| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", entry.path().display()))
            };
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| bad("the name is not UTF-8"))?;
            let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                todo.push((path, entry.path()));
            } else if kind.is_file() {
                found.push((path, entry.path()));
            } else {
                return Err(bad("neither a file nor a directory"));
            }
            if found.len() + todo.len() > FILES_MAX {
                return Err(bad("too many files"));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Files that the list does not name: itself, its signature, and what is made from it or grows.
pub(super) const FREE: [&str; 4] = [FILE, SIGNATURE, CUSTODY, SUMS];

/// The files of a bundle that the manifest lists.
///
/// # Errors
/// As [`walk`].
pub fn entries(dir: &Path) -> io::Result<Vec<Entry>> {
    let listed = walk(dir)?.into_iter().filter(|(path, _)| !FREE.contains(&path.as_str()));
    listed
        .map(|(path, file)| {
            let (sha256, size) = hash(fs::File::open(file)?)?;
            Ok(Entry { path, size, sha256 })
        })
        .collect()
}

/// The signed note over a manifest's bytes.
#[must_use]
pub fn sign(key: &SecretKey, manifest: &[u8]) -> String {
    key.sign(&format!("{TITLE}\nsha256 {}\n", hex(&Sha256::digest(manifest))))
}

/// Whether one of `keys` signed these bytes; which.
///
/// # Errors
/// When none did.
pub fn check<'k>(
    signature: &str,
    manifest: &[u8],
    keys: &'k [PublicKey],
) -> Result<&'k PublicKey, NoteError> {
    let (text, key) = note::open(signature, keys)?;
    let wanted = format!("{TITLE}\nsha256 {}\n", hex(&Sha256::digest(manifest)));
    if text == wanted { Ok(key) } else { Err(NoteError::BadSignature) }
}
