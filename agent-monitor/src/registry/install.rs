//! Puts a record into the registry: all of it or nothing.
//!
//! The text that was checked is the text that is written, into a hidden file that is then renamed
//! over the place; a reader of the registry sees the old record or the new one. A lock on the
//! directory keeps two registrations from checking against the same old state.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use super::{
    check::check_record,
    cross::Taken,
    diagnostic::Diagnostic,
    facts::HostFacts,
    load::{LoadError, Loaded, Trust, load_dir, read_file},
    parse::parse_record,
    record::{AgentId, Record},
};

/// Permissions of a record: secrets have no place in it.
const RECORD_MODE: u32 = 0o644;

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The agent is new.
    Created,
    /// The record took the place of another.
    Replaced,
    /// The very same text was there already; nothing was written.
    Unchanged,
}

/// A record that is in the registry.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The record; its file is the place in the registry.
    pub record: Record,
    /// Where it is.
    pub path: PathBuf,
    /// What was done.
    pub outcome: Outcome,
    /// Warnings and notes about it.
    pub warnings: Vec<Diagnostic>,
    /// What was in its place before.
    before: Option<Vec<u8>>,
}

impl Installed {
    /// Puts back what was there before the record was installed.
    ///
    /// # Errors
    /// When it cannot be written, or somebody has changed the file since.
    pub fn undo(&self, registry_dir: &Path) -> Result<(), InstallError> {
        let _lock = lock(registry_dir)?;
        let found = fs::read(&self.path).map_err(write_error("read", &self.path))?;
        if found != self.record.source.text().as_bytes() {
            let changed = io::Error::other("somebody has changed it since");
            return Err(write_error("put back", &self.path)(changed));
        }
        match &self.before {
            Some(before) => write_atomic(registry_dir, &self.path, before),
            None => {
                fs::remove_file(&self.path).map_err(write_error("remove", &self.path))?;
                let handle = File::open(registry_dir).map_err(write_error("open", registry_dir))?;
                handle.sync_all().map_err(write_error("sync", registry_dir))
            }
        }
    }
}

/// Why a record was not installed. The registry is as it was.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The record has errors, alone or together with the registered ones.
    #[error("the record is refused")]
    Refused {
        /// All problems, at least one error among them.
        diagnostics: Vec<Diagnostic>,
    },
    /// The id is registered with another text, and replacing was not asked for.
    #[error("agent `{id}` is registered with a different record in {}", path.display())]
    Exists {
        /// The id.
        id: AgentId,
        /// The file that holds it.
        path: PathBuf,
    },
    /// The file name that the id would have belongs to another record.
    #[error("{} holds something other than agent `{id}`", path.display())]
    NameTaken {
        /// The id.
        id: AgentId,
        /// The file.
        path: PathBuf,
    },
    /// The registry cannot be read or is not safe.
    #[error(transparent)]
    Registry(#[from] LoadError),
    /// Writing failed.
    #[error("cannot {action} {}", path.display())]
    Write {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Checks the record in a file and puts it into a registry as `<id>.toml`.
///
/// The same text again is no error and writes nothing. A different text for a registered id is
/// refused, unless `replace`, and then takes the place of the file that holds the id.
///
/// # Errors
/// See [`InstallError`]; whatever the error, the registry is as it was.
pub fn install(
    record_path: &Path,
    registry_dir: &Path,
    facts: &dyn HostFacts,
    now: Timestamp,
    replace: bool,
) -> Result<Installed, InstallError> {
    let mut diagnostics = Vec::new();
    match read_file(record_path, Trust::Reported, &mut diagnostics) {
        // Who may change the file that is registered from does not matter once it is registered.
        Ok(text) => install_text(&text, record_path, registry_dir, facts, now, replace),
        Err(problem) => {
            diagnostics.push(*problem);
            Err(InstallError::Refused { diagnostics })
        }
    }
}

/// As [`install`], with the text at hand; `name` is its name for messages.
///
/// # Errors
/// See [`InstallError`]; whatever the error, the registry is as it was.
pub fn install_text(
    text: &str,
    name: &Path,
    registry_dir: &Path,
    facts: &dyn HostFacts,
    now: Timestamp,
    replace: bool,
) -> Result<Installed, InstallError> {
    let parsed = parse_record(text, name);
    let mut diagnostics = parsed.diagnostics;
    let Some(record) = parsed.record else {
        return Err(InstallError::Refused { diagnostics });
    };
    diagnostics.extend(check_record(&record, facts, now));
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(InstallError::Refused { diagnostics });
    }
    create_registry(registry_dir)?;
    let _lock = lock(registry_dir)?;
    let loaded = load_dir(registry_dir, facts, now, false)?;
    let path = place(&record, registry_dir, &loaded)?;
    let found = fs::read(&path).ok();
    diagnostics.extend(clashes(&record, &loaded, facts));
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(InstallError::Refused { diagnostics });
    }
    let outcome = match &found {
        None => Outcome::Created,
        Some(old) if *old == text.as_bytes() => Outcome::Unchanged,
        Some(_) if replace => Outcome::Replaced,
        Some(_) => {
            let id = record.id.value;
            return Err(InstallError::Exists { id, path });
        }
    };
    if outcome != Outcome::Unchanged {
        write_atomic(registry_dir, &path, text.as_bytes())?;
    }
    // So that later messages name the place that stays.
    let record = parse_record(text, &path).record.unwrap_or(record);
    Ok(Installed { record, path, outcome, warnings: diagnostics, before: found })
}

/// Problems with the other registered agents.
fn clashes(record: &Record, loaded: &Loaded, facts: &dyn HostFacts) -> Vec<Diagnostic> {
    let mut taken = Taken::default();
    for other in &loaded.records {
        if other.id != record.id {
            taken.claim(other, facts);
        }
    }
    taken.check(record, facts)
}

/// The file in the registry that holds the id, or that would.
fn place(record: &Record, directory: &Path, loaded: &Loaded) -> Result<PathBuf, InstallError> {
    let id = &record.id.value;
    let good = loaded.records.iter();
    let refused = loaded.refused.iter().filter_map(|refused| refused.record.as_deref());
    if let Some(holder) = good.chain(refused).find(|other| other.id.value == *id) {
        return Ok(holder.file().to_path_buf());
    }
    let path = directory.join(format!("{id}.toml"));
    let holds_another = loaded.records.iter().any(|other| other.file() == path);
    if holds_another {
        let id = id.clone();
        return Err(InstallError::NameTaken { id, path });
    }
    Ok(path)
}

fn write_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    move |source| InstallError::Write { action, path: path.to_path_buf(), source }
}

fn create_registry(directory: &Path) -> Result<(), InstallError> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(write_error("create", directory))
}

/// Held until dropped.
fn lock(directory: &Path) -> Result<File, InstallError> {
    let handle = File::open(directory).map_err(write_error("open", directory))?;
    flock(&handle, FlockOperation::LockExclusive)
        .map_err(|error| write_error("lock", directory)(error.into()))?;
    Ok(handle)
}

fn write_atomic(directory: &Path, path: &Path, bytes: &[u8]) -> Result<(), InstallError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Hidden and without the suffix, so that a crash leaves nothing that is loaded.
    let temporary = directory.join(format!(".{name}.new"));
    let written = write_synced(&temporary, bytes)
        .map_err(write_error("write", &temporary))
        .and_then(|()| fs::rename(&temporary, path).map_err(write_error("replace", path)));
    if let Err(error) = written {
        // The first error is the one to tell; the file is passed over by every reader.
        let _left_behind = fs::remove_file(&temporary);
        return Err(error);
    }
    let handle = File::open(directory).map_err(write_error("open", directory))?;
    handle.sync_all().map_err(write_error("sync", directory))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What an interrupted registration left behind; the lock says that nobody writes it now.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    // Not by the mode of open(2), which the caller's umask would narrow.
    file.set_permissions(Permissions::from_mode(RECORD_MODE))?;
    file.sync_all()
}

#[cfg(test)]
#[path = "install/tests.rs"]
mod tests;
