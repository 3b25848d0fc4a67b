//! The signing key on the disk: made at the first start, `0600`, changed with the old key signing the new.
//!
//! `log.key` (secret), `log.pub` (to give away) and `rotations` (one base64 note per line, oldest first) in one
//! directory. Whoever can read `log.key` can sign a forged log: copies of checkpoints elsewhere are what shows it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;

use super::LogError;
use super::note::{self, PublicKey, SecretKey};
use crate::model::Time;

const SECRET: &str = "log.key";
const PUBLIC: &str = "log.pub";
const ROTATIONS: &str = "rotations";
/// Key of the marks that redaction leaves.
const REDACTION: &str = "redaction.key";
/// Longest file that is read here.
const FILE_MAX: u64 = 1 << 20;

/// The directory of the keys.
#[derive(Debug, Clone)]
pub struct Keys {
    dir: PathBuf,
}

impl Keys {
    /// In the state directory `state`.
    #[must_use]
    pub fn in_state(state: &Path) -> Self {
        Self { dir: state.join(super::KEYS) }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The key that signs now; a new one when there is none yet.
    ///
    /// # Errors
    /// When it cannot be read, is none, or others can read it.
    pub fn load_or_create(&self, name: &str) -> Result<SecretKey, LogError> {
        let path = self.dir.join(SECRET);
        if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            let key = SecretKey::new(name, &random(&path)?);
            self.write(PUBLIC, &format!("{}\n", key.public()), 0o644)?;
            self.write(SECRET, &format!("{}\n", key.to_text()), 0o600)?;
        }
        self.load()
    }

    /// The key that signs now.
    ///
    /// # Errors
    /// When it cannot be read, is none, or others can read it.
    pub fn load(&self) -> Result<SecretKey, LogError> {
        let path = self.dir.join(SECRET);
        let file = super::segment::open(&path)?;
        let mode = file.metadata().map_err(LogError::on("look at", &path))?.permissions().mode();
        if mode & 0o077 != 0 {
            let message =
                format!("its mode is {:04o}, and must be 0600: chmod it, or rotate the key", mode & 0o7777);
            let source = io::Error::new(io::ErrorKind::InvalidData, message);
            return Err(LogError { action: "use the signing key", path, source });
        }
        let mut text = String::new();
        file.take(FILE_MAX).read_to_string(&mut text).map_err(LogError::on("read the signing key", &path))?;
        SecretKey::parse(&text).map_err(|error| {
            let source = io::Error::new(io::ErrorKind::InvalidData, error.to_string());
            LogError { action: "use the signing key", path, source }
        })
    }

    /// The changes of keys so far, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn rotations(&self) -> Result<Vec<String>, LogError> {
        let path = self.dir.join(ROTATIONS);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(read_rotations(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(LogError { action: "read", path, source }),
        }
    }

    /// Makes a new key, signed by the old one. A running writer takes it up at its next checkpoint.
    ///
    /// # Errors
    /// When the old key cannot be used or the new one not be written.
    pub fn rotate(&self, time: Time) -> Result<(PublicKey, PublicKey), LogError> {
        let old = self.load()?;
        let path = self.dir.join(SECRET);
        let new = SecretKey::new(old.public().name(), &random(&path)?);
        let mut lines: String = self.rotations()?.iter().map(|note| BASE64.encode(note) + "\n").collect();
        lines.push_str(&BASE64.encode(note::rotation(&old, &new.public(), time)));
        lines.push('\n');
        // The hand-over first: a key without one would be an unknown key to every reader.
        self.write(ROTATIONS, &lines, 0o644)?;
        self.write(SECRET, &format!("{}\n", new.to_text()), 0o600)?;
        self.write(PUBLIC, &format!("{}\n", new.public()), 0o644)?;
        Ok((old.public(), new.public()))
    }

    /// The key of redaction marks, made when there is none.
    ///
    /// # Errors
    /// When it cannot be read or made.
    pub fn redaction(&self) -> Result<[u8; 32], LogError> {
        let path = self.dir.join(REDACTION);
        let read = |path: &Path| fs::read_to_string(path).ok().and_then(|text| super::unhex(text.trim()));
        if let Some(key) = read(&path).and_then(|bytes| bytes.try_into().ok()) {
            return Ok(key);
        }
        let key = random(&path)?;
        self.write(REDACTION, &format!("{}\n", super::hex(&key)), 0o600)?;
        Ok(key)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), LogError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(LogError::on("make the key directory", &self.dir))?;
        replace(&self.dir.join(name), text.as_bytes(), mode)
    }
}

/// Notes, one base64 line each; other lines are skipped.
#[must_use]
pub fn read_rotations(text: &str) -> Vec<String> {
    let note = |line: &str| String::from_utf8(BASE64.decode(line.trim()).ok()?).ok();
    text.lines().filter_map(note).collect()
}

/// The keys that `first` hands over to, one after the other, itself included.
#[must_use]
pub fn chain(first: PublicKey, rotations: &[String]) -> Vec<PublicKey> {
    let mut keys = vec![first];
    for note in rotations {
        let last = keys.last().cloned();
        if let Ok((next, _)) = note::open_rotation(note, last.as_slice()) {
            keys.push(next);
        }
    }
    keys
}

/// Writes a whole file or leaves the old one; both are on the disk when it returns.
///
/// # Errors
/// When any step fails.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), LogError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    fs::remove_file(&new).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(LogError { action: "remove", path: new.clone(), source: error }),
    })?;
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new);
    let mut file = file.map_err(LogError::on("make", &new))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(LogError::on("write", &new))?;
    fs::rename(&new, path).map_err(LogError::on("write", path))?;
    sync_dir(path.parent().unwrap_or(Path::new("/")))
}

/// Makes the names in a directory last.
///
/// # Errors
/// When it cannot be opened or flushed.
pub fn sync_dir(dir: &Path) -> Result<(), LogError> {
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(LogError::on("flush", dir))
}

fn random(path: &Path) -> Result<[u8; 32], LogError> {
    let mut seed = [0; 32];
    let filled = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    // Up to 256 bytes come whole or not at all.
    filled.map(|_| seed).map_err(|error| LogError {
        action: "get random bytes for",
        path: path.to_owned(),
        source: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_kept_secret_and_handed_on() {
        let state = tempfile::tempdir().unwrap();
        let keys = Keys::in_state(state.path());
        let first = keys.load_or_create("log").unwrap().public();
        assert_eq!(keys.load_or_create("log").unwrap().public(), first);
        let secret = keys.dir().join(SECRET);
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        let (old, second) = keys.rotate(Time::EPOCH).unwrap();
        let (_, third) = keys.rotate(Time::EPOCH).unwrap();
        assert_eq!(old, first);
        assert_eq!(chain(first, &keys.rotations().unwrap()), [old, second.clone(), third.clone()]);
        assert_eq!(chain(third.clone(), &keys.rotations().unwrap()), [third]);
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(keys.load().unwrap_err().to_string().contains("0600"));
        assert_eq!(keys.redaction().unwrap(), keys.redaction().unwrap());
    }
}
