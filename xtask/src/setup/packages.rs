//! Unpacked packages in the cache, each in a folder named by the SHA-256 of its `.deb`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::apt::{LazyApt, Package};
use super::step;
use crate::workspace;

/// Which packages a name (`busybox`, `linux-6.12`) stood for when the index was last asked.
#[derive(Serialize, Deserialize)]
pub(crate) struct Resolved {
    /// What people call this version
    pub(crate) version: String,
    /// SHA-256 of each `.deb` it consists of
    pub(crate) packages: Vec<String>,
    /// Seconds since 1970
    pub(crate) asked: u64,
}

impl Resolved {
    /// The record of an earlier set-up, if all that it names is still in the cache.
    pub(crate) fn load(name: &str) -> Result<Option<Self>> {
        let Ok(text) = fs::read_to_string(record(name)?) else { return Ok(None) };
        let Ok(resolved) = serde_json::from_str::<Self>(&text) else { return Ok(None) };
        let whole = resolved.dirs()?.iter().all(|dir| dir.is_dir());
        Ok(whole.then_some(resolved))
    }

    /// Puts every package into the cache and remembers under `name` what it stood for.
    pub(crate) fn fetch(name: &str, version: &str, packages: &[Package], apt: &LazyApt) -> Result<Self> {
        for package in packages {
            unpacked(package, apt)?;
        }
        let resolved = Self {
            version: version.to_string(),
            packages: packages.iter().map(|package| package.sha256.clone()).collect(),
            asked: now(),
        };
        fs::write(record(name)?, serde_json::to_string_pretty(&resolved)?)?;
        forget_unused()?;
        Ok(resolved)
    }

    /// The unpacked packages.
    pub(crate) fn dirs(&self) -> Result<Vec<PathBuf>> {
        self.packages.iter().map(|sha256| dir_of(sha256)).collect()
    }

    /// Seconds since the index was asked.
    pub(crate) fn age(&self) -> u64 {
        now().saturating_sub(self.asked)
    }
}

/// A statically linked busybox: the shell and tools inside the virtual machines.
///
/// From the package into the cache, not installed: on a host it would replace another busybox.
pub(crate) fn ensure_busybox(apt: &LazyApt) -> Result<()> {
    if Resolved::load("busybox")?.is_some() {
        return Ok(());
    }
    step("busybox (static)", || {
        let package = apt.get()?.candidate("busybox-static")?;
        let version = package.version.clone();
        Resolved::fetch("busybox", &version, &[package], apt).map(|_| ())
    })
}

/// The busybox of [`ensure_busybox`].
pub(crate) fn busybox() -> Result<PathBuf> {
    let resolved = Resolved::load("busybox")?.context("busybox is not set up: cargo xtask setup --vm")?;
    let dirs = resolved.dirs()?;
    let candidates = dirs.iter().flat_map(|dir| [dir.join("bin/busybox"), dir.join("usr/bin/busybox")]);
    candidates.into_iter().find(|file| file.is_file()).context("the busybox-static package holds no busybox")
}

fn unpacked(package: &Package, apt: &LazyApt) -> Result<()> {
    let place = dir_of(&package.sha256)?;
    if place.is_dir() {
        return Ok(());
    }
    let parent = place.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    // Renamed when whole: an interrupted set-up leaves nothing that looks finished.
    let fresh = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(parent)?;
    apt.get()?.unpack(package, fresh.path())?;
    fs::rename(fresh.keep(), &place).with_context(|| format!("cannot move into {}", place.display()))
}

/// Removes packages that no name stands for any more: each week's kernel would stay for ever.
fn forget_unused() -> Result<()> {
    let mut used = BTreeSet::new();
    for entry in fs::read_dir(workspace::cache()?.join("names"))? {
        let text = fs::read_to_string(entry?.path())?;
        // A record that cannot be read is made anew, with its packages.
        used.extend(
            serde_json::from_str::<Resolved>(&text).into_iter().flat_map(|resolved| resolved.packages),
        );
    }
    for entry in fs::read_dir(workspace::cache()?.join("debs"))? {
        let entry = entry?;
        if !used.contains(entry.file_name().to_string_lossy().as_ref()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn dir_of(sha256: &str) -> Result<PathBuf> {
    Ok(workspace::cache()?.join("debs").join(sha256))
}

fn record(name: &str) -> Result<PathBuf> {
    let dir = workspace::cache()?.join("names");
    fs::create_dir_all(&dir)?;
    Ok(dir.join(format!("{name}.json")))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}
