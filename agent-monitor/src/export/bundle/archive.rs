//! A bundle as one file: `.tar.zst`, made and unpacked without trusting what is in it.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::{Component, Path};

use super::{BundleError, manifest};

/// Bytes that a bundle may unpack to.
const UNPACKED_MAX: u64 = 64 << 30;
/// Files in it.
const FILES_MAX: usize = 100_000;

/// Packs the directory `dir` into `to`; the paths in it begin with its name.
///
/// # Errors
/// When reading or writing fails.
pub fn pack(dir: &Path, to: &Path) -> Result<(), BundleError> {
    let work = || -> io::Result<()> {
        let file = fs::OpenOptions::new().write(true).create_new(true).open(to)?;
        let mut encoder = zstd::Encoder::new(file, 9)?;
        encoder.include_checksum(true)?;
        let mut tar = tar::Builder::new(encoder);
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (path, file) in manifest::walk(dir)? {
            let mut file = File::open(file)?;
            let mut header = tar::Header::new_gnu();
            header.set_size(file.metadata()?.len());
            header.set_mode(0o600);
            header.set_mtime(0);
            tar.append_data(&mut header, format!("{name}/{path}"), &mut file)?;
        }
        let mut file = tar.into_inner()?.finish()?;
        file.flush()?;
        file.sync_all()
    };
    work().map_err(BundleError::on("pack the bundle into", to))
}

/// Unpacks a bundle into `to`, which must be empty. Only regular files with plain relative names are taken; anything
/// else is an error.
///
/// # Errors
/// When it cannot be read, or holds something else.
pub fn unpack(from: &Path, to: &Path) -> Result<(), BundleError> {
    let work = || -> io::Result<()> {
        let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let file = crate::log::segment::open(from)?;
        let mut tar = tar::Archive::new(zstd::Decoder::new(file)?.take(UNPACKED_MAX));
        for (number, entry) in tar.entries()?.enumerate() {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let shown = path.display().to_string();
            if number >= FILES_MAX {
                return Err(bad("too many files".to_owned()));
            }
            if !entry.header().entry_type().is_file() {
                return Err(bad(format!("{shown:?} is not a regular file")));
            }
            let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
            let inside: std::path::PathBuf = path.components().skip(1).collect();
            if !plain || inside.as_os_str().is_empty() {
                return Err(bad(format!("{shown:?} is not a path in a bundle")));
            }
            let target = to.join(inside);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&target)?;
            io::copy(&mut entry, &mut file)?;
        }
        Ok(())
    };
    work().map_err(BundleError::on("unpack the bundle", from))
}
