//! Reads a directory of records: what is good is loaded, what is bad is refused with its reasons.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{
    check::check_record,
    cross::Taken,
    diagnostic::{Code, Diagnostic, Severity},
    facts::HostFacts,
    parse::{MAX_RECORD_BYTES, parse_record},
    record::Record,
    source::{Position, Source},
};

/// Most record files in a directory.
pub const MAX_RECORDS: usize = 16_384;

/// A file that was not loaded.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The file.
    pub path: PathBuf,
    /// The record, where the text as such was in order: an expired agent is still an agent whose
    /// name can be given to what it left running.
    pub record: Option<Box<Record>>,
    /// Why, and what else there is to say; at least one error.
    pub diagnostics: Vec<Diagnostic>,
}

impl Refused {
    /// Whether the only thing wrong is that the end date has passed.
    pub fn is_only_expired(&self) -> bool {
        let mut errors = self.diagnostics.iter().filter(|problem| problem.is_error());
        self.record.is_some() && errors.all(|problem| problem.code == Code::Expired)
    }
}

/// One record file as it is on disk: read and parsed, and compared with nothing yet.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The file.
    pub path: PathBuf,
    /// The record, where the text as such is in order.
    pub record: Option<Record>,
    /// What reading and parsing found.
    pub diagnostics: Vec<Diagnostic>,
}

/// What a directory gave.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The good records, by id.
    pub records: Vec<Record>,
    /// The bad files, by name.
    pub refused: Vec<Refused>,
    /// Warnings and notes about the good records and the directory, by file.
    pub warnings: Vec<Diagnostic>,
}

impl Loaded {
    /// The record of an agent.
    pub fn get(&self, id: &str) -> Option<&Record> {
        let index = self.records.binary_search_by(|record| record.id.as_str().cmp(id));
        index.ok().and_then(|index| self.records.get(index))
    }

    /// Every diagnostic: those of refused files first, then the warnings.
    pub fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        let refused = self.refused.iter().flat_map(|refused| &refused.diagnostics);
        refused.chain(&self.warnings)
    }
}

/// Why a directory was not loaded at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The directory cannot be read.
    #[error("cannot read the registry {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Others may change the directory, so its contents prove nothing.
    #[error("the registry {} is not safe: {problem}", path.display())]
    Insecure {
        /// The directory.
        path: PathBuf,
        /// Who may change it.
        problem: String,
    },
    /// There are more files than any host has agents.
    #[error("the registry {} holds more than {MAX_RECORDS} records", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
    /// Strict loading, and at least one file was refused.
    #[error("{} of the records were refused, and --strict asks for all: {}", refused.len(), in_words(refused))]
    Strict {
        /// The refused files.
        refused: Vec<Refused>,
    },
}

/// The refused files with the first reason of each.
fn in_words(refused: &[Refused]) -> String {
    let one = |r: &Refused| {
        let why = r.diagnostics.iter().find(|d| d.is_error()).map_or("", |d| d.message.as_str());
        format!("{}: {why}", r.path.display())
    };
    refused.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What to do about files that others than root and the caller may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Refuse them: what the daemon does, for who can write a record can register an agent.
    Required,
    /// Warn: what `agent check` does, for records in a working copy.
    Reported,
}

/// Loads the records of the daemon's registry: `*.toml` in `directory` itself, in the order of
/// their names; hidden files and editors' backups are passed over. Of two records that clash the
/// later file is refused.
///
/// # Errors
/// When the directory cannot be read or others may change it, and with `strict` when any file is
/// refused.
pub fn load_dir(
    directory: &Path,
    facts: &dyn HostFacts,
    now: Timestamp,
    strict: bool,
) -> Result<Loaded, LoadError> {
    let loaded = load(directory, facts, now, Trust::Required)?;
    if strict && !loaded.refused.is_empty() {
        return Err(LoadError::Strict { refused: loaded.refused });
    }
    Ok(loaded)
}

/// Reads a directory as [`load_dir`] does, and only warns where others may change a file.
///
/// # Errors
/// When the directory cannot be read.
pub fn check_dir(directory: &Path, facts: &dyn HostFacts, now: Timestamp) -> Result<Loaded, LoadError> {
    load(directory, facts, now, Trust::Reported)
}

/// Reads and parses the record files of a registry, in the order of their names, without comparing them.
///
/// # Errors
/// When the directory cannot be read or holds too many files, and with [`Trust::Required`] when others may change it.
pub fn read_candidates(directory: &Path, trust: Trust) -> Result<Vec<Candidate>, LoadError> {
    let failed = |source| LoadError::Directory { path: directory.to_path_buf(), source };
    let metadata = fs::metadata(directory).map_err(failed)?;
    if trust == Trust::Required {
        check_trust(metadata.mode(), metadata.uid(), caller())
            .map_err(|problem| LoadError::Insecure { path: directory.to_path_buf(), problem })?;
    }
    Ok(record_files(directory)?.iter().map(|path| read_candidate(path, trust)).collect())
}

/// Reads and parses one record file.
pub fn read_candidate(path: &Path, trust: Trust) -> Candidate {
    let mut diagnostics = Vec::new();
    let record = match read_file(path, trust, &mut diagnostics) {
        Ok(text) => {
            let parsed = parse_record(&text, path);
            diagnostics.extend(parsed.diagnostics);
            parsed.record
        }
        Err(problem) => {
            diagnostics.push(*problem);
            None
        }
    };
    Candidate { path: path.to_path_buf(), record, diagnostics }
}

/// Reads one file as [`check_dir`] would, on its own.
pub fn check_file(path: &Path, facts: &dyn HostFacts, now: Timestamp) -> Loaded {
    let mut loader = Loader::new(facts, now, Trust::Reported);
    loader.add(path);
    loader.finish()
}

fn load(directory: &Path, facts: &dyn HostFacts, now: Timestamp, trust: Trust) -> Result<Loaded, LoadError> {
    let failed = |source| LoadError::Directory { path: directory.to_path_buf(), source };
    let mut loader = Loader::new(facts, now, trust);
    let metadata = fs::metadata(directory).map_err(failed)?;
    if let Err(problem) = check_trust(metadata.mode(), metadata.uid(), caller()) {
        match trust {
            Trust::Required => {
                return Err(LoadError::Insecure { path: directory.to_path_buf(), problem });
            }
            Trust::Reported => loader.loaded.warnings.push(untrusted(directory, trust, &problem)),
        }
    }
    for path in record_files(directory)? {
        loader.add(&path);
    }
    Ok(loader.finish())
}

/// The files in a directory that are records by their names, sorted.
///
/// # Errors
/// When the directory cannot be read, or holds too many.
pub fn record_files(directory: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source| LoadError::Directory { path: directory.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if is_record_name(&entry.file_name()) {
            files.push(entry.path());
        }
        if files.len() > MAX_RECORDS {
            return Err(LoadError::TooMany { path: directory.to_path_buf() });
        }
    }
    files.sort();
    Ok(files)
}

/// `x.toml`; neither `.x.toml`, `#x.toml#` nor `x.toml~`.
fn is_record_name(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.ends_with(b".toml") && !name.starts_with(b".") && !name.starts_with(b"#")
}

/// Whether only root and the caller may change a file or directory of this mode and owner.
///
/// # Errors
/// Says who else may.
pub fn check_trust(mode: u32, owner: u32, caller: u32) -> Result<(), String> {
    if owner != 0 && owner != caller {
        return Err(format!("it belongs to user {owner}, not to root"));
    }
    match (mode & 0o020 != 0, mode & 0o002 != 0) {
        (_, true) => Err(format!("everyone may write to it (mode {:04o})", mode & 0o7777)),
        (true, false) => Err(format!("its group may write to it (mode {:04o})", mode & 0o7777)),
        (false, false) => Ok(()),
    }
}

fn caller() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn untrusted(path: &Path, trust: Trust, problem: &str) -> Diagnostic {
    let mut diagnostic = Diagnostic::of_file(path.to_path_buf(), Code::FilePermissions, problem)
        .hint(format!("chown root and chmod go-w {}", path.display()));
    if trust == Trust::Reported {
        diagnostic.severity = Severity::Warning;
    }
    diagnostic
}

/// Loads files one after the other, each against those before it.
struct Loader<'a> {
    facts: &'a dyn HostFacts,
    now: Timestamp,
    trust: Trust,
    taken: Taken,
    loaded: Loaded,
}

impl<'a> Loader<'a> {
    fn new(facts: &'a dyn HostFacts, now: Timestamp, trust: Trust) -> Self {
        Self { facts, now, trust, taken: Taken::default(), loaded: Loaded::default() }
    }

    fn add(&mut self, path: &Path) {
        let Candidate { record, mut diagnostics, .. } = read_candidate(path, self.trust);
        if let Some(record) = &record {
            diagnostics.extend(check_record(record, self.facts, self.now));
            diagnostics.extend(self.taken.check(record, self.facts));
        }
        match record {
            Some(record) if !diagnostics.iter().any(Diagnostic::is_error) => {
                self.taken.claim(&record, self.facts);
                self.loaded.warnings.extend(diagnostics);
                self.loaded.records.push(record);
            }
            record => self.loaded.refused.push(Refused {
                path: path.to_path_buf(),
                record: record.map(Box::new),
                diagnostics,
            }),
        }
    }

    fn finish(mut self) -> Loaded {
        self.loaded.records.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
        self.loaded
    }
}

/// Reads a record file as text, whoever may change it: the text that is registered is the text that is read here.
///
/// # Errors
/// What is wrong with the file.
pub fn read_record_text(path: &Path, diagnostics: &mut Vec<Diagnostic>) -> Result<String, Box<Diagnostic>> {
    read_file(path, Trust::Reported, diagnostics)
}

/// Reads a record file as text. Checks the file that was opened, not a name that may change.
pub(super) fn read_file(
    path: &Path,
    trust: Trust,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<String, Box<Diagnostic>> {
    let unreadable =
        |error: io::Error| Diagnostic::of_file(path.to_path_buf(), Code::Unreadable, error.to_string());
    // Without O_NONBLOCK a pipe that is called x.toml would stop the daemon.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        let problem = "it is no regular file";
        return Err(Diagnostic::of_file(path.to_path_buf(), Code::NotAFile, problem).into());
    }
    if let Err(problem) = check_trust(metadata.mode(), metadata.uid(), caller()) {
        let problem = untrusted(path, trust, &problem);
        if problem.is_error() {
            return Err(problem.into());
        }
        diagnostics.push(problem);
    }
    read_text(file, path)
}

fn read_text(file: File, path: &Path) -> Result<String, Box<Diagnostic>> {
    let limit = u64::try_from(MAX_RECORD_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Diagnostic::of_file(path.to_path_buf(), Code::Unreadable, error.to_string()))?;
    if bytes.len() > MAX_RECORD_BYTES {
        let problem = format!("the file has more than {MAX_RECORD_BYTES} bytes");
        let problem = Diagnostic::of_file(path.to_path_buf(), Code::TooLarge, problem);
        return Err(problem.hint("a record is a page or two; is this the right file?").into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        let source = Source::new(path, &text);
        let at: Position = source.position(good..good + 1);
        let problem = "the file is not UTF-8 text";
        let problem = Diagnostic::new(&source, Severity::Error, Code::NotUtf8, at, problem);
        problem.hint("save it as UTF-8; is this the right file?").into()
    })
}

#[cfg(test)]
#[path = "load/tests.rs"]
mod tests;
