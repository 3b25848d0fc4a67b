//! Where things are: the work tree, what is built in it, and the cache outside it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// The root of the work tree that this xtask was started in.
pub(crate) fn root() -> Result<PathBuf> {
    // Cargo sets this at run time too, so a work tree that was moved after the build is still found.
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .context("CARGO_MANIFEST_DIR is not set: start this program with `cargo xtask`")?;
    let manifest = PathBuf::from(manifest);
    Ok(manifest.parent().context("xtask lies outside a workspace")?.to_path_buf())
}

/// The target directory of the work tree.
pub(crate) fn target() -> Result<PathBuf> {
    Ok(match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => env::current_dir()?.join(dir),
        None => root()?.join("target"),
    })
}

/// Cargo, as it started us, at the root of the work tree.
pub(crate) fn cargo() -> Result<Command> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo.current_dir(root()?);
    Ok(cargo)
}

/// Downloads that outlive a clean clone: kernels, busybox.
///
/// Outside the work tree, because a kernel is large and the same for every clone on the machine.
pub(crate) fn cache() -> Result<PathBuf> {
    let dir = if let Some(dir) = env::var_os("AGENT_MONITOR_CACHE") {
        env::current_dir()?.join(dir)
    } else if let Some(dir) = env::var_os("XDG_CACHE_HOME") {
        PathBuf::from(dir).join("agent-monitor-xtask")
    } else {
        let home =
            env::var_os("HOME").context("set HOME or AGENT_MONITOR_CACHE: nowhere to keep downloads")?;
        PathBuf::from(home).join(".cache/agent-monitor-xtask")
    };
    fs::create_dir_all(&dir).with_context(|| format!("cannot create the cache {}", dir.display()))?;
    Ok(dir)
}

/// The path as the terminal shows it: relative to the work tree where that is shorter.
pub(crate) fn shown(path: &Path) -> String {
    let short = root().ok().and_then(|root| path.strip_prefix(root).ok().map(Path::to_path_buf));
    short.as_deref().unwrap_or(path).display().to_string()
}
