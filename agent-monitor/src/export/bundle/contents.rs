//! The files of a bundle, wherever they are: in a directory, or unpacked from one file.
//!
//! A packed bundle is unpacked into one file without a name, so that nothing of it stays behind however the program
//! ends, and only after its list was found to be signed and to fit what is in the archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::{BundleError, archive, manifest};
use crate::log::note::PublicKey;
use crate::log::segment;

/// The files of a bundle.
#[derive(Debug)]
pub struct Contents {
    shown: PathBuf,
    at: At,
}

#[derive(Debug)]
enum At {
    Directory,
    Unpacked { spool: File, files: BTreeMap<String, Part> },
}

/// Where a file is in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) at: u64,
    pub(super) size: u64,
}

impl Contents {
    /// The bundle in the directory `dir`.
    #[must_use]
    pub fn of_directory(dir: &Path) -> Self {
        Self { shown: dir.to_owned(), at: At::Directory }
    }

    /// The bundle at `path`: a directory, or a packed one, which is checked with `keys` (none: with its own) before it is
    /// unpacked.
    ///
    /// # Errors
    /// When it cannot be read, or is refused.
    pub fn open(path: &Path, keys: &[PublicKey]) -> Result<Self, BundleError> {
        if path.is_dir() {
            return Ok(Self::of_directory(path));
        }
        let (spool, files) = archive::unpack(path, keys)?;
        Ok(Self { shown: path.to_owned(), at: At::Unpacked { spool, files } })
    }

    /// Names and sizes of all files.
    ///
    /// # Errors
    /// When a directory cannot be read, or holds something that is neither file nor directory.
    pub fn list(&self) -> Result<BTreeMap<String, u64>, BundleError> {
        match &self.at {
            At::Unpacked { files, .. } => {
                Ok(files.iter().map(|(name, part)| (name.clone(), part.size)).collect())
            }
            At::Directory => {
                let walk = || -> io::Result<BTreeMap<String, u64>> {
                    let files = manifest::walk(&self.shown)?.into_iter();
                    files.map(|(name, path)| Ok((name, path.symlink_metadata()?.len()))).collect()
                };
                walk().map_err(BundleError::on("list", &self.shown))
            }
        }
    }

    /// One file, to be read from its beginning.
    ///
    /// # Errors
    /// When there is none.
    pub fn reader(&self, name: &str) -> Result<BufReader<Box<dyn Read + '_>>, BundleError> {
        let read: Box<dyn Read + '_> = match &self.at {
            At::Directory => Box::new(segment::open(&self.shown.join(name))?),
            At::Unpacked { spool, files } => {
                let part = files.get(name).copied().ok_or_else(|| {
                    BundleError::Cannot(format!("{} has no file {name}", self.shown.display()))
                })?;
                Box::new(Window { spool, part })
            }
        };
        Ok(BufReader::with_capacity(1 << 17, read))
    }

    /// One whole file of at most `max` bytes.
    ///
    /// # Errors
    /// When there is none, or it is longer.
    pub fn read(&self, name: &str, max: u64) -> Result<Vec<u8>, BundleError> {
        let mut bytes = Vec::new();
        let read = self.reader(name)?.take(max.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(BundleError::on("read", &self.shown.join(name)))?;
        if bytes.len() as u64 > max {
            return Err(BundleError::Cannot(format!(
                "{name} in {} is longer than {max} bytes",
                self.shown.display()
            )));
        }
        Ok(bytes)
    }

    /// What it is called in messages.
    #[must_use]
    pub fn shown(&self) -> &Path {
        &self.shown
    }
}

/// A part of the spool as a reader.
struct Window<'a> {
    spool: &'a File,
    part: Part,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.part.size).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.spool.read_at(buffer.get_mut(..left).unwrap_or_default(), self.part.at)?;
        self.part.at += read as u64;
        self.part.size -= read as u64;
        Ok(read)
    }
}
