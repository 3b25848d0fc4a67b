//! Loads the signature pack: the embedded one, and files of a directory over it.

use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::pack::{self, Pack, PackFile};
use crate::registry::diagnostic::{Code, Diagnostic};
use crate::registry::load::check_trust;

/// The pack, and what was wrong with files over it; such a file is left out.
#[must_use]
pub fn load(directory: &Path) -> (Pack, Vec<Diagnostic>) {
    let mut problems = Vec::new();
    let mut files = Vec::new();
    for path in listed(directory) {
        match read(&path) {
            Ok(text) => {
                let (file, found) = pack::check(&text, &path);
                if found.iter().any(Diagnostic::is_error) {
                    problems.extend(found);
                } else {
                    files.push(file);
                }
            }
            Err(problem) => problems.push(*problem),
        }
    }
    (Pack::build(&files), problems)
}

/// Checks one file as `sweep --pack check` does. Anybody may own it.
#[must_use]
pub fn check(path: &Path) -> (Option<PackFile>, Vec<Diagnostic>) {
    match read_any(path) {
        Ok((text, _)) => {
            let (file, problems) = pack::check(&text, path);
            (Some(file), problems)
        }
        Err(problem) => (None, vec![*problem]),
    }
}

fn listed(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let named = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "toml")
            && path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."))
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(named).collect();
    paths.sort();
    paths
}

/// Who can write a signature can hide an agent: only files of root or our own.
fn read(path: &Path) -> Result<String, Box<Diagnostic>> {
    let (text, (mode, uid)) = read_any(path)?;
    check_trust(mode, uid, rustix::process::geteuid().as_raw()).map_err(|problem| {
        let hint = format!("chown root and chmod go-w {}", path.display());
        Box::new(Diagnostic::of_file(path.to_owned(), Code::FilePermissions, problem).hint(hint))
    })?;
    Ok(text)
}

fn read_any(path: &Path) -> Result<(String, (u32, u32)), Box<Diagnostic>> {
    let unreadable = |why: String| Box::new(Diagnostic::of_file(path.to_owned(), Code::Unreadable, why));
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| unreadable(error.to_string()))?;
    let meta = file.metadata().map_err(|error| unreadable(error.to_string()))?;
    if !meta.is_file() {
        return Err(Box::new(Diagnostic::of_file(path.to_owned(), Code::NotAFile, "it is no regular file")));
    }
    let mut text = String::new();
    file.take(8 << 20).read_to_string(&mut text).map_err(|error| unreadable(error.to_string()))?;
    Ok((text, (meta.mode(), meta.uid())))
}
