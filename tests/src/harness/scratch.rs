//! A directory of a test's own, with a private bpffs when it is asked for; gone when dropped.

use crate::sys;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Roots of all that exist.
static LIVE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Roots of the scratch directories that exist now.
pub fn live() -> BTreeSet<PathBuf> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// How the path of each scratch directory of this process begins.
pub fn prefix() -> String {
    let dir = std::env::temp_dir();
    let dir = dir.canonicalize().unwrap_or(dir);
    dir.join(format!("amt-{}-", std::process::id())).to_string_lossy().into_owned()
}

#[derive(Debug)]
pub struct Scratch {
    root: PathBuf,
    mounted: Option<PathBuf>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// Under `/tmp`, readable by every user: acts under another uid must get at it.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("amt-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        // Paths in events are real paths; a linked /tmp would make every comparison fail.
        let root = root.canonicalize().unwrap();
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).insert(root.clone());
        std::fs::set_permissions(&root, PermissionsExt::from_mode(0o755)).unwrap();
        Self { root, mounted: None }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The path as text, for command lines.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A directory in it.
    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A file in it, with its directory; its path as text.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A copy of a program, to be recognised by its path; its path as text.
    pub fn program(&self, from: &Path, name: &str) -> String {
        let path = self.dir("bin").join(name);
        std::fs::copy(from, &path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// An executable script; its path as text.
    pub fn script(&self, name: &str, content: &str) -> String {
        let path = self.file(name, content);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    /// The private bpffs, mounted at the first call.
    pub fn bpffs(&mut self) -> PathBuf {
        if let Some(mounted) = &self.mounted {
            return mounted.clone();
        }
        let dir = self.dir("bpf");
        sys::mount("bpf", dir.to_str().unwrap(), "bpf", 0).unwrap();
        self.mounted.insert(dir).clone()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.root);
        if let Some(mounted) = &self.mounted {
            // Failing to clean up must not hide how the test ended.
            sys::unmount(mounted.to_str().unwrap_or_default()).ok();
        }
        if std::env::var_os("AGENT_MONITOR_KEEP").is_none() {
            std::fs::remove_dir_all(&self.root).ok();
        }
    }
}
