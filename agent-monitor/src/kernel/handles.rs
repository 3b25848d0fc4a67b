//! The daemon's own handles of everything that it pinned. A pin can be removed by any process with the right to (an unmounted BPF
//! file system takes all of them away at once); what the daemon holds stays attached. Each look compares the pins with the
//! handles and puts back what is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::raw::{get, id, pin};
use super::{KernelError, bpffs};

/// Something that was not where it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Names of pins: `link_file_open`, `map_PLACES`.
    pub pins: Vec<String>,
    /// Why they could not be put back; `None`: they are there again.
    pub problem: Option<String>,
}

/// A link or map, with the number that the kernel gave it.
#[derive(Debug)]
struct Handle {
    fd: OwnedFd,
    id: u32,
}

/// Handles by the name of the pin.
#[derive(Debug)]
pub(super) struct Handles {
    dir: PathBuf,
    /// Where the BPF file system of the pins was mounted.
    mount: PathBuf,
    held: BTreeMap<String, Handle>,
    /// What is known to be missing: each is reported once.
    missing: BTreeSet<String>,
}

impl Handles {
    /// Opens every pin of the monitor in a directory.
    ///
    /// # Errors
    /// When a pin cannot be opened.
    pub(super) fn open(dir: &Path) -> Result<Self, KernelError> {
        let mount = dir.ancestors().take_while(|place| bpffs::is_bpffs(place)).last().unwrap_or(dir);
        let mut held = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(|e| KernelError::io("read", dir, e))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if ["link_", "map_"].iter().any(|start| name.starts_with(start)) {
                let opened = get(&entry.path()).and_then(|fd| Ok(Handle { id: id(fd.as_fd())?, fd }));
                let handle = opened.map_err(|e| KernelError::io("open the pin", entry.path(), e))?;
                held.insert(name, handle);
            }
        }
        Ok(Self { dir: dir.to_owned(), mount: mount.to_owned(), held, missing: BTreeSet::new() })
    }

    /// Compares the pins with what is held, and puts back those that are missing or are something else. `None` when there
    /// is nothing new to report.
    pub(super) fn check(&mut self) -> Option<Detached> {
        let wrong: BTreeSet<String> = self
            .held
            .iter()
            .filter(|(name, handle)| self.pinned(name) != Some(handle.id))
            .map(|(name, _)| name.clone())
            .collect();
        if wrong.is_empty() {
            self.missing.clear();
            return None;
        }
        let problem = self.put_back(&wrong).err();
        let news: Vec<String> = wrong.difference(&self.missing).cloned().collect();
        let mended = problem.is_none() && !self.missing.is_empty();
        self.missing = if problem.is_none() { BTreeSet::new() } else { wrong.clone() };
        let pins = if mended { wrong.into_iter().collect() } else { news };
        (!pins.is_empty()).then_some(Detached { pins, problem })
    }

    /// How many pins are missing and could not be put back.
    pub(super) fn missing(&self) -> usize {
        self.missing.len()
    }

    /// Number of the object that is pinned under a name.
    fn pinned(&self, name: &str) -> Option<u32> {
        let fd = get(&self.dir.join(name)).ok()?;
        id(fd.as_fd()).ok()
    }

    fn put_back(&self, names: &BTreeSet<String>) -> Result<(), String> {
        if !self.dir.ancestors().find(|place| place.exists()).is_some_and(bpffs::is_bpffs) {
            let mount = self.mount.display();
            rustix::mount::mount("bpf", &self.mount, "bpf", rustix::mount::MountFlags::empty(), None)
                .map_err(|error| format!("cannot mount a BPF file system on {mount}: {error}"))?;
        }
        fs::create_dir_all(&self.dir).map_err(|e| format!("cannot make {}: {e}", self.dir.display()))?;
        for name in names {
            let Some(handle) = self.held.get(name) else { continue };
            let (path, fresh) = (self.dir.join(name), self.dir.join(format!("new_{name}")));
            let cannot = |error: io::Error| format!("cannot pin {}: {error}", path.display());
            if fresh.exists() {
                fs::remove_file(&fresh).map_err(cannot)?;
            }
            pin(handle.fd.as_fd(), &fresh).map_err(cannot)?;
            fs::rename(&fresh, &path).map_err(cannot)?;
        }
        Ok(())
    }
}
