//! The last good text of each record in force, in the state directory: what a restart goes on from when a file is broken
//! or gone.
//!
//! One file, one line of JSON per record, written whole and renamed, so that a crash leaves the old set or the new one.
//! Each line carries its SHA-256: one that was damaged is left out and named, the others count.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::in_force::{Kept, Set, Stale};
use super::load::MAX_RECORDS;
use super::parse::{MAX_RECORD_BYTES, parse_record};
use super::record::{AgentId, Record};

/// The file's name in the state directory.
pub const FILE: &str = "records-in-force.jsonl";

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    id: AgentId,
    file: PathBuf,
    text: String,
    /// Of id, file and text, in hexadecimal digits.
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stale: Option<Stale>,
}

/// What was kept.
#[derive(Debug, Default)]
pub struct Restored {
    /// The records, by id.
    pub set: Set,
    /// What could not be used, one sentence each.
    pub damaged: Vec<String>,
}

fn digest(id: &AgentId, file: &Path, text: &str) -> String {
    let mut hasher = Sha256::new();
    // A zero byte is in none of them, so that no two lines hash the same bytes.
    for part in [id.as_str().as_bytes(), file.as_os_str().as_encoded_bytes(), text.as_bytes()] {
        hasher.update(part);
        hasher.update([0]);
    }
    super::record::Sha256(hasher.finalize().into()).to_string()
}

/// Keeps a set, durably.
///
/// # Errors
/// When it cannot be written; the old one stays.
pub fn write(dir: &Path, set: &Set) -> io::Result<()> {
    let mut bytes = Vec::new();
    for (id, kept) in set {
        let (file, text) = (kept.record.file(), kept.record.source.text());
        let line = Line {
            id: id.clone(),
            file: file.to_path_buf(),
            text: text.to_owned(),
            sha256: digest(id, file, text),
            stale: kept.stale.clone(),
        };
        serde_json::to_writer(&mut bytes, &line)?;
        bytes.push(b'\n');
    }
    let (path, fresh) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, &path)?;
    File::open(dir)?.sync_all()
}

/// Reads what was kept. Nothing there is nothing kept.
#[must_use]
pub fn read(dir: &Path) -> Restored {
    let path = dir.join(FILE);
    let mut restored = Restored::default();
    let text = match read_text(&path) {
        Ok(Some(text)) => text,
        Ok(None) => return restored,
        Err(error) => {
            restored.damaged.push(format!("cannot use {}: {error}", path.display()));
            return restored;
        }
    };
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        match read_line(line) {
            Ok((id, kept)) => drop(restored.set.insert(id, kept)),
            Err(why) => restored.damaged.push(format!("{} line {}: {why}", path.display(), at + 1)),
        }
    }
    restored
}

fn read_line(line: &[u8]) -> Result<(AgentId, Kept), String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let Line { id, file, text, sha256, stale } = line;
    if digest(&id, &file, &text) != sha256 {
        return Err(format!("the record of agent {id} is not what was written: its SHA-256 differs"));
    }
    let record: Option<Record> = parse_record(&text, &file).record;
    match record {
        Some(record) if record.id.value == id => Ok((id, Kept { record, stale })),
        Some(_) => Err(format!("the record of agent {id} names another agent")),
        None => Err(format!("the record of agent {id} can no longer be parsed")),
    }
}

/// The bytes of the file, where only root or the caller can have written them.
fn read_text(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let (metadata, caller) = (file.metadata()?, rustix::process::geteuid().as_raw());
    let owned = metadata.uid() == 0 || metadata.uid() == caller;
    if !metadata.is_file() || !owned || metadata.mode() & 0o077 != 0 {
        let problem = "it is no regular file of root with mode 0600, so others may have changed it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    // Every record with each byte escaped, and something around it.
    let limit = (MAX_RECORDS as u64).saturating_mul(MAX_RECORD_BYTES as u64);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::registry::fake::record_text;
    use crate::registry::in_force::Cause;

    fn set(ids: &[&str]) -> Set {
        let one = |id: &&str| {
            let text = record_text(id, "", &format!("[[match]]\nexe = \"/opt/{id}\""));
            let record = parse_record(&text, Path::new(&format!("/r/{id}.toml"))).record.unwrap();
            let since = crate::registry::fake::now();
            let stale = Stale { since, cause: Cause::Invalid, reason: "3:1: typo".to_owned() };
            (record.id.value.clone(), Kept { record, stale: Some(stale) })
        };
        ids.iter().map(one).collect()
    }

    #[test]
    fn a_set_comes_back_as_it_was_and_is_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).set.is_empty());
        let kept = set(&["a", "b"]);
        write(dir.path(), &kept).unwrap();
        let back = read(dir.path());
        assert_eq!((&back.set, back.damaged.len()), (&kept, 0));
        assert_eq!(back.set.values().next().unwrap().record.file(), Path::new("/r/a.toml"));
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn every_changed_byte_of_a_record_is_found_and_the_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &set(&["a", "b"])).unwrap();
        let path = dir.path().join(FILE);
        let good = fs::read(&path).unwrap();
        let end = good.iter().position(|byte| *byte == b'\n').unwrap();
        let wanted = read(dir.path()).set.values().next().unwrap().record.clone();
        for at in (0..end).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            let back = read(dir.path());
            let first = back.set.values().find(|kept| kept.record.id.as_str() == "a");
            // The mark is not part of what is protected; the record is.
            assert!(first.is_none_or(|kept| kept.record == wanted), "byte {at}");
            assert!(back.set.values().any(|kept| kept.record.id.as_str() == "b"), "byte {at}");
            assert!(first.is_some() || !back.damaged.is_empty(), "byte {at} is not named");
        }
    }

    #[test]
    fn what_others_may_have_written_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &set(&["a"])).unwrap();
        let path = dir.path().join(FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        let open = read(dir.path());
        assert!(open.set.is_empty() && open.damaged.len() == 1, "{open:?}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&path, dir.path().join("x")).unwrap();
        symlink(dir.path().join("x"), &path).unwrap();
        assert!(read(dir.path()).set.is_empty());
    }
}
