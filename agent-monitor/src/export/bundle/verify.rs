//! Whether a bundle is what was made: every file, the signature, the proof of every record, the custody log.

use std::collections::BTreeSet;
use std::io::{BufRead as _, Read as _};
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::contents::Contents;
use super::manifest::{self, Manifest};
use super::{BundleError, custody, proof};
use crate::log::hex;
use crate::log::key;
use crate::log::merkle::{Hash, leaf, root_of};
use crate::log::note::{self, Checkpoint, NoteError, PublicKey};
use crate::log::segment::LINE_MAX;
use crate::log::verify::{Damage, Kind, Outcome};
use crate::model::SCHEMA_VERSION;

/// Longest proof that is read.
const PROOF_MAX: u64 = 256 << 20;
/// Longest note or list of keys.
const SMALL_MAX: u64 = 16 << 20;
/// Damages that are listed.
const DAMAGE_MAX: usize = 100;

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
    /// Number of the checkpoint that seals the records; 0 where they were renamed.
    pub checkpoint: u64,
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

/// Verifies the bundle at `path`, a directory or a packed one; `keys` are the keys to trust, oldest first, or none to
/// take those in the bundle. One key and the hand-overs in the bundle make all that follow it trusted.
///
/// # Errors
/// When there is no bundle to look at.
pub fn verify(path: &Path, keys: &[PublicKey]) -> Result<Report, BundleError> {
    records_of(path, keys, |_, _| ControlFlow::Continue(()))
}

/// The same, and gives each record (number, bytes) to `each` on the way.
///
/// # Errors
/// As [`verify`].
pub fn records_of(
    path: &Path,
    keys: &[PublicKey],
    mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Result<Report, BundleError> {
    let mut report = Report { schema_version: SCHEMA_VERSION, ..Report::default() };
    let contents = match Contents::open(path, keys) {
        Ok(contents) => contents,
        Err(BundleError::Refused(damage)) => {
            report.notes.push("nothing of it was unpacked".to_owned());
            report.damage.push(*damage);
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let bytes = contents.read(manifest::FILE, manifest::LENGTH_MAX)?;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| {
        BundleError::Cannot(format!("{}/manifest.json is no manifest: {error}", contents.shown().display()))
    })?;
    report.gaps = manifest.gaps.len() as u64;
    if keys.is_empty() {
        let note = "the keys were taken from the bundle itself: give --key from where you trust it";
        report.notes.push(note.to_owned());
    }
    let text = |name: &str| {
        let bytes = contents.read(name, SMALL_MAX).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let keys = chained(keys, &text("keys.txt"), &text("rotations.txt"));
    signature(&contents, &bytes, &keys, &mut report);
    files(&contents, &manifest, &mut report);
    let checked = leaves(&contents, &manifest, &mut each).and_then(|leaves| {
        report.records = leaves.len() as u64;
        if manifest.renamed.is_empty() {
            records(&contents, &manifest, &keys, &leaves, &mut report)
        } else {
            Ok(())
        }
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
    match custody::read(&contents) {
        Ok(entries) => report.custody = entries.len() as u64,
        Err(error) => report.damage.push(damage(Kind::Changed, Some(manifest::CUSTODY), error.to_string())),
    }
    report.ok = report.damage.is_empty();
    let more = report.damage.len().saturating_sub(DAMAGE_MAX);
    if more > 0 {
        report.damage.truncate(DAMAGE_MAX);
        report.notes.push(format!("{more} more damages are not listed"));
    }
    Ok(report)
}

/// The keys to trust: those given, with what one alone hands over to by the hand-overs in the bundle; else its own.
pub(super) fn chained(given: &[PublicKey], own: &str, rotations: &str) -> Vec<PublicKey> {
    match given {
        [] => own.lines().filter_map(|line| PublicKey::parse(line).ok()).collect(),
        [first] => key::chain(first.clone(), &key::read_rotations(rotations)),
        more => more.to_vec(),
    }
}

impl Report {
    /// In short.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let reason = self.damage.first().map(|damage| {
            let file = damage.file.as_ref().map_or_else(String::new, |file| format!(" in {file}"));
            format!("{}{file}: {}", damage.kind.as_str(), damage.message)
        });
        let remark = (!self.notes.is_empty()).then(|| self.notes.join("; "));
        Outcome {
            verified: reason.is_none(),
            reason,
            remark,
            checkpoint: self.checkpoint,
            ..Outcome::default()
        }
    }
}

fn damage(kind: Kind, file: Option<&str>, message: String) -> Damage {
    Damage { kind, record: None, checkpoint: None, file: file.map(str::to_owned), message }
}

fn signature(contents: &Contents, bytes: &[u8], keys: &[PublicKey], report: &mut Report) {
    let file = Some(manifest::SIGNATURE);
    let Ok(note) = contents
        .read(manifest::SIGNATURE, SMALL_MAX)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
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

fn files(contents: &Contents, manifest: &Manifest, report: &mut Report) {
    let found = match contents.list() {
        Ok(found) => found,
        Err(error) => {
            report.damage.push(damage(Kind::Unreadable, None, error.to_string()));
            return;
        }
    };
    let mut listed = BTreeSet::new();
    for wanted in &manifest.files {
        let path = wanted.path.as_str();
        if !listed.insert(path) || manifest::FREE.contains(&path) {
            let message = format!("{path} is listed where it cannot be");
            report.damage.push(damage(Kind::Inserted, Some(path), message));
            continue;
        }
        let Some(size) = found.get(path) else {
            report.damage.push(damage(Kind::Removed, Some(path), format!("{path} is missing")));
            continue;
        };
        // The records are hashed while they are read as such; of a file of another size nothing is read.
        let same = *size == wanted.size
            && (path == RECORDS
                || contents.reader(path).ok().and_then(|file| manifest::hash(file).ok())
                    == Some((wanted.sha256.clone(), wanted.size)));
        if same {
            report.files += 1;
        } else {
            let message = format!("{path} is not the file that was listed");
            report.damage.push(damage(Kind::Changed, Some(path), message));
        }
    }
    let extra = found.keys().map(String::as_str);
    for extra in extra.filter(|path| !manifest::FREE.contains(path) && !listed.contains(path)) {
        let message = format!("{extra} is not listed");
        report.damage.push(damage(Kind::Inserted, Some(extra), message));
    }
    let sums: String =
        manifest.files.iter().map(|file| format!("{}  {}\n", file.sha256, file.path)).collect();
    if contents.read(manifest::SUMS, SMALL_MAX).ok().as_deref() != Some(sums.as_bytes()) {
        let message = "the list for sha256sum is not that of the manifest".to_owned();
        report.damage.push(damage(Kind::Changed, Some(manifest::SUMS), message));
    }
}

/// Name of the file of the records.
const RECORDS: &str = "records.jsonl";

fn unreadable(error: BundleError) -> Damage {
    damage(Kind::Unreadable, None, error.to_string())
}

/// Numbers and hashes of the records, as many and in the order that the manifest says; `each` gets them on the way.
fn leaves(
    contents: &Contents,
    manifest: &Manifest,
    each: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Result<Vec<(u64, Hash)>, Damage> {
    let mut lines = contents.reader(RECORDS).map_err(unreadable)?;
    let mut hash = Sha256::new();
    let mut leaves: Vec<(u64, Hash)> = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines).take(LINE_MAX as u64 + 128).read_until(b'\n', &mut line);
        if read.map_err(|error| unreadable(BundleError::on("read", Path::new(RECORDS))(error)))? == 0 {
            break;
        }
        hash.update(&line);
        let parsed = line.strip_suffix(b"\n").and_then(record);
        let (number, json) = parsed.ok_or_else(|| {
            damage(Kind::Changed, Some(RECORDS), format!("line {} is no record", leaves.len() + 1))
        })?;
        if let Some((before, _)) = leaves.last().filter(|(before, _)| *before >= number) {
            let message = format!("record {number} stands after record {before}");
            return Err(Damage { record: Some(number), ..damage(Kind::Reordered, Some(RECORDS), message) });
        }
        leaves.push((number, leaf(json)));
        if each(number, json).is_break() {
            return Err(damage(Kind::Unreadable, Some(RECORDS), "it was not read to the end".to_owned()));
        }
    }
    let listed = manifest.files.iter().find(|file| file.path == RECORDS);
    if listed.is_none_or(|listed| listed.sha256 != hex(&hash.finalize())) {
        let message = format!("{RECORDS} is not the file that was listed");
        return Err(damage(Kind::Changed, Some(RECORDS), message));
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
    contents: &Contents,
    manifest: &Manifest,
    keys: &[PublicKey],
    leaves: &[(u64, Hash)],
    report: &mut Report,
) -> Result<(), Damage> {
    let note = contents.read("checkpoint.txt", SMALL_MAX).map_err(unreadable)?;
    let note = String::from_utf8_lossy(&note).into_owned();
    let (checkpoint, key) = note::open(&note, keys)
        .and_then(|(text, key)| Ok((Checkpoint::parse(text)?, key)))
        .map_err(|error| {
            let kind = if matches!(error, NoteError::OtherKey(_)) { Kind::OtherKey } else { Kind::Changed };
            damage(kind, Some("checkpoint.txt"), format!("the checkpoint: {error}"))
        })?;
    report.sealed_by = Some(key.hash_hex());
    report.origin = Some(checkpoint.origin.clone());
    report.checkpoint = checkpoint.number;
    let told = &manifest.log;
    if (&told.origin, told.size, told.checkpoint) != (&checkpoint.origin, checkpoint.size, checkpoint.number)
    {
        let message = "the checkpoint is not the one that the manifest names".to_owned();
        return Err(damage(Kind::Changed, Some("checkpoint.txt"), message));
    }
    let proof = contents.read("proof.json", PROOF_MAX).map_err(unreadable)?;
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
