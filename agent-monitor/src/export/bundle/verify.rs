//! Whether a bundle is what was made: every file, the signature, the proof of every record, the custody log.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde::Serialize;

use super::manifest::{self, Manifest};
use super::{BundleError, custody, proof};
use crate::log::merkle::{Hash, leaf, root_of};
use crate::log::note::{self, Checkpoint, NoteError, PublicKey};
use crate::log::segment::LINE_MAX;
use crate::log::verify::{Damage, Kind};
use crate::model::SCHEMA_VERSION;

/// Longest manifest, proof or note that is read.
const TEXT_MAX: u64 = 256 << 20;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Everything holds.
    pub ok: bool,
    /// Which log the records are of.
    pub origin: Option<String>,
    /// Hash of the key that signed the manifest.
    pub signed_by: Option<String>,
    /// Hash of the key that sealed the records.
    pub sealed_by: Option<String>,
    /// Records that are proven; that are there, where they were renamed.
    pub records: u64,
    /// What was renamed for outsiders.
    pub renamed: Vec<String>,
    /// Files that are as listed.
    pub files: u64,
    /// Entries of the custody log.
    pub custody: u64,
    /// Gaps that the manifest declares.
    pub gaps: u64,
    /// What is no damage and should be known.
    pub notes: Vec<String>,
    /// All damage.
    pub damage: Vec<Damage>,
}

/// A record in a bundle: number and bytes.
#[must_use]
pub fn record(line: &[u8]) -> Option<(u64, &[u8])> {
    let rest = line.strip_prefix(b"{\"number\":")?;
    let end = rest.iter().position(|byte| *byte == b',')?;
    let number = std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()?;
    let rest = rest.get(end..)?;
    let known = ["asked", "frame", "context"];
    let json = known
        .iter()
        .find_map(|word| rest.strip_prefix(format!(",\"because\":\"{word}\",\"record\":").as_bytes()));
    Some((number, json?.strip_suffix(b"}")?))
}

/// Verifies the bundle in `dir`; `keys` are the keys to trust, oldest first, or none to take those in the bundle.
///
/// # Errors
/// When there is no bundle to look at.
pub fn verify(dir: &Path, keys: &[PublicKey]) -> Result<Report, BundleError> {
    let mut report = Report { schema_version: SCHEMA_VERSION, ..Report::default() };
    let bytes = read(dir, manifest::FILE)?;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| {
        BundleError::Cannot(format!("{}/manifest.json is no manifest: {error}", dir.display()))
    })?;
    report.gaps = manifest.gaps.len() as u64;
    let own;
    let keys = if keys.is_empty() {
        let note = "the keys were taken from the bundle itself: give --key from where you trust it";
        report.notes.push(note.to_owned());
        own = own_keys(dir);
        &own
    } else {
        keys
    };
    signature(dir, &bytes, keys, &mut report);
    files(dir, &manifest, &mut report);
    let checked = leaves(dir, &manifest).and_then(|leaves| {
        report.records = leaves.len() as u64;
        if manifest.renamed.is_empty() { records(dir, &manifest, keys, &leaves, &mut report) } else { Ok(()) }
    });
    if let Err(problem) = checked {
        report.records = 0;
        report.damage.push(problem);
    }
    if !manifest.renamed.is_empty() {
        report.origin = Some(manifest.log.origin.clone());
        let note = "the records were renamed for outsiders: the signature of the manifest vouches for them, the log's \
                    seal does not";
        report.notes.push(note.to_owned());
        report.renamed.clone_from(&manifest.renamed);
    }
    match custody::read(dir) {
        Ok(entries) => report.custody = entries.len() as u64,
        Err(error) => report.damage.push(damage(Kind::Changed, Some(manifest::CUSTODY), error.to_string())),
    }
    report.ok = report.damage.is_empty();
    Ok(report)
}

fn damage(kind: Kind, file: Option<&str>, message: String) -> Damage {
    Damage { kind, record: None, checkpoint: None, file: file.map(str::to_owned), message }
}

fn read(dir: &Path, name: &str) -> Result<Vec<u8>, BundleError> {
    let path = dir.join(name);
    let mut bytes = Vec::new();
    let file = crate::log::segment::open(&path)?;
    file.take(TEXT_MAX).read_to_end(&mut bytes).map_err(BundleError::on("read", &path))?;
    Ok(bytes)
}

fn own_keys(dir: &Path) -> Vec<PublicKey> {
    let text = read(dir, "keys.txt").ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    text.lines().filter_map(|line| PublicKey::parse(line).ok()).collect()
}

fn signature(dir: &Path, bytes: &[u8], keys: &[PublicKey], report: &mut Report) {
    let file = Some(manifest::SIGNATURE);
    let Ok(note) = read(dir, manifest::SIGNATURE).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    else {
        report.damage.push(damage(Kind::Removed, file, "the manifest is not signed".to_owned()));
        return;
    };
    match manifest::check(&note, bytes, keys) {
        Ok(key) => report.signed_by = Some(key.hash_hex()),
        Err(error) => {
            let kind = if matches!(error, NoteError::OtherKey(_)) { Kind::OtherKey } else { Kind::Changed };
            report.damage.push(damage(kind, file, format!("the manifest: {error}")));
        }
    }
}

fn files(dir: &Path, manifest: &Manifest, report: &mut Report) {
    let found = match manifest::entries(dir) {
        Ok(found) => found,
        Err(error) => {
            report.damage.push(damage(Kind::Unreadable, None, error.to_string()));
            return;
        }
    };
    for wanted in &manifest.files {
        match found.iter().find(|file| file.path == wanted.path) {
            Some(file) if file == wanted => report.files += 1,
            Some(_) => {
                let message = format!("{} is not the file that was listed", wanted.path);
                report.damage.push(damage(Kind::Changed, Some(&wanted.path), message));
            }
            None => {
                let message = format!("{} is missing", wanted.path);
                report.damage.push(damage(Kind::Removed, Some(&wanted.path), message));
            }
        }
    }
    for extra in found.iter().filter(|file| !manifest.files.iter().any(|wanted| wanted.path == file.path)) {
        let message = format!("{} is not listed", extra.path);
        report.damage.push(damage(Kind::Inserted, Some(&extra.path), message));
    }
    let sums: String =
        manifest.files.iter().map(|file| format!("{}  {}\n", file.sha256, file.path)).collect();
    if fs::read(dir.join(manifest::SUMS)).ok().as_deref() != Some(sums.as_bytes()) {
        let message = "the list for sha256sum is not that of the manifest".to_owned();
        report.damage.push(damage(Kind::Changed, Some(manifest::SUMS), message));
    }
}

/// Name of the file of the records.
const RECORDS: &str = "records.jsonl";

fn unreadable(error: BundleError) -> Damage {
    damage(Kind::Unreadable, None, error.to_string())
}

/// Numbers and hashes of the records, as many and in the order that the manifest tells of.
fn leaves(dir: &Path, manifest: &Manifest) -> Result<Vec<(u64, Hash)>, Damage> {
    let path = dir.join(RECORDS);
    let file = crate::log::segment::open(&path).map_err(|error| unreadable(error.into()))?;
    let mut lines = BufReader::with_capacity(1 << 17, file);
    let mut leaves: Vec<(u64, Hash)> = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines).take(LINE_MAX as u64 + 128).read_until(b'\n', &mut line);
        if read.map_err(|error| unreadable(BundleError::on("read", &path)(error)))? == 0 {
            break;
        }
        let parsed = line.strip_suffix(b"\n").and_then(record);
        let (number, json) = parsed.ok_or_else(|| {
            damage(Kind::Changed, Some(RECORDS), format!("line {} is no record", leaves.len() + 1))
        })?;
        if let Some((before, _)) = leaves.last().filter(|(before, _)| *before >= number) {
            let message = format!("record {number} stands after record {before}");
            return Err(Damage { record: Some(number), ..damage(Kind::Reordered, Some(RECORDS), message) });
        }
        leaves.push((number, leaf(json)));
    }
    let told = manifest.records.values().fold(0u64, |sum, count| sum.saturating_add(*count));
    if told != leaves.len() as u64 {
        let kind = if (leaves.len() as u64) < told { Kind::Removed } else { Kind::Inserted };
        let message = format!("there are {} records, and the manifest tells of {told}", leaves.len());
        return Err(damage(kind, Some(RECORDS), message));
    }
    Ok(leaves)
}

/// Proves every record against the checkpoint.
fn records(
    dir: &Path,
    manifest: &Manifest,
    keys: &[PublicKey],
    leaves: &[(u64, Hash)],
    report: &mut Report,
) -> Result<(), Damage> {
    let note = read(dir, "checkpoint.txt").map_err(unreadable)?;
    let note = String::from_utf8_lossy(&note).into_owned();
    let (checkpoint, key) = note::open(&note, keys)
        .and_then(|(text, key)| Ok((Checkpoint::parse(text)?, key)))
        .map_err(|error| {
            let kind = if matches!(error, NoteError::OtherKey(_)) { Kind::OtherKey } else { Kind::Changed };
            damage(kind, Some("checkpoint.txt"), format!("the checkpoint: {error}"))
        })?;
    report.sealed_by = Some(key.hash_hex());
    report.origin = Some(checkpoint.origin.clone());
    let told = &manifest.log;
    if (&told.origin, told.size, told.checkpoint) != (&checkpoint.origin, checkpoint.size, checkpoint.number)
    {
        let message = "the checkpoint is not the one that the manifest names".to_owned();
        return Err(damage(Kind::Changed, Some("checkpoint.txt"), message));
    }
    let proof = read(dir, "proof.json").map_err(unreadable)?;
    let proof: proof::Proof = serde_json::from_slice(&proof)
        .map_err(|error| damage(Kind::Changed, Some("proof.json"), format!("not a proof: {error}")))?;
    let root = proof.read().filter(|_| proof.size == checkpoint.size);
    let root = root.and_then(|hashes| root_of(checkpoint.size, leaves, &hashes));
    if root != Some(checkpoint.root) {
        let message = "one or more records are not those that the checkpoint seals".to_owned();
        return Err(damage(Kind::Changed, Some(RECORDS), message));
    }
    Ok(())
}
