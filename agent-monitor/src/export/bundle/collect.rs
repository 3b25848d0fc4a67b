//! What the records refer to, as it is on the host now: hashes of the programs that ran, and copies of small files.
//!
//! A file may have changed since the record was made; what is written here is of the time of the export, and says so.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use serde::Serialize;

use super::manifest::hash;
use crate::log::segment;
use crate::model::{Time, text};

/// Programs that are hashed.
const PROGRAMS_MAX: usize = 2000;
/// Bytes of a program that is hashed.
const PROGRAM_BYTES_MAX: u64 = 2 << 30;

/// A file that records refer to.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// Its path in the records.
    pub path: String,
    /// Bytes.
    pub size: Option<u64>,
    /// SHA-256, hex.
    pub sha256: Option<String>,
    /// When its content was last changed.
    pub modified: Option<Time>,
    /// Owner, group and mode.
    pub owner: Option<(u32, u32, u32)>,
    /// The package it came with, by dpkg's lists.
    pub package: Option<String>,
    /// Where its copy is in the bundle.
    pub copy: Option<String>,
    /// Why something of it is missing.
    pub problem: Option<String>,
}

/// Limits of copies.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one file.
    pub each: u64,
    /// Bytes of all.
    pub all: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { each: 1 << 20, all: 64 << 20 }
    }
}

fn look(path: &str) -> io::Result<(Found, fs::File)> {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = text::unescape(path);
    let file = segment::open(Path::new(std::ffi::OsStr::from_bytes(&bytes)))?;
    let metadata = file.metadata()?;
    let nanos = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    let found = Found {
        path: path.to_owned(),
        size: Some(metadata.len()),
        sha256: None,
        modified: Some(Time::from_unix_nanos(nanos)),
        owner: Some((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)),
        package: None,
        copy: None,
        problem: None,
    };
    Ok((found, file))
}

fn missing(path: &str, problem: String) -> Found {
    Found {
        path: path.to_owned(),
        size: None,
        sha256: None,
        modified: None,
        owner: None,
        package: None,
        copy: None,
        problem: Some(problem),
    }
}

/// Hashes the programs and scripts at these paths.
#[must_use]
pub fn programs(paths: &BTreeSet<String>) -> Vec<Found> {
    let mut all: Vec<Found> = paths.iter().take(PROGRAMS_MAX).map(|path| program(path)).collect();
    packages(&mut all);
    all
}

fn program(path: &str) -> Found {
    let found = look(path).and_then(|(mut found, file)| {
        if found.size.is_some_and(|size| size > PROGRAM_BYTES_MAX) {
            found.problem = Some("too large to hash".to_owned());
            return Ok(found);
        }
        found.sha256 = Some(hash(file.take(PROGRAM_BYTES_MAX))?.0);
        Ok(found)
    });
    found.unwrap_or_else(|error| missing(path, error.to_string()))
}

/// Names the packages, from the lists that dpkg keeps.
fn packages(all: &mut [Found]) {
    let Ok(lists) = fs::read_dir("/var/lib/dpkg/info") else { return };
    for list in
        lists.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "list"))
    {
        let Ok(text) = fs::read_to_string(&list) else { continue };
        let files: BTreeSet<&str> = text.lines().collect();
        let name = list.file_stem().unwrap_or_default().to_string_lossy();
        for found in all.iter_mut().filter(|found| found.package.is_none()) {
            // Lists say /bin/x where the file is at /usr/bin/x on a merged system.
            let short = found.path.strip_prefix("/usr").unwrap_or(&found.path);
            if files.contains(found.path.as_str()) || files.contains(short) {
                found.package = Some(name.clone().into_owned());
            }
        }
    }
}

/// Copies small files into `to`; everything that was asked for is listed, copied or not.
#[must_use]
pub fn copies(paths: &BTreeSet<String>, to: &Path, limits: Limits) -> Vec<Found> {
    let mut left = limits.all;
    let mut copy = |(number, path): (usize, &String)| -> Found {
        let work = || -> io::Result<Found> {
            let (mut found, file) = look(path)?;
            let size = found.size.unwrap_or(0);
            if size > limits.each || size > left {
                found.problem = Some(format!("{size} bytes: over the limit"));
                return Ok(found);
            }
            fs::DirBuilder::new().recursive(true).mode(0o700).create(to)?;
            let name = format!("{number:05}");
            let mut target = super::write::private(&to.join(&name))?;
            left -= io::copy(&mut file.take(limits.each), &mut target)?;
            found.sha256 = Some(hash(fs::File::open(to.join(&name))?)?.0);
            found.copy = Some(format!("collected/{name}"));
            Ok(found)
        };
        let mut work = work;
        work().unwrap_or_else(|error| missing(path, error.to_string()))
    };
    paths.iter().enumerate().map(&mut copy).collect()
}
