//! cgroup ids and paths of the v2 hierarchy. The id is the inode number of the cgroup's directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::attribute::container;

/// Paths that are remembered at the most.
const CACHE_MAX: usize = 4096;
/// Directories that a walk looks at, at the most.
const WALK_MAX: usize = 16_384;

/// Paths by id.
#[derive(Debug, Default)]
pub struct Cgroups {
    mount: Option<PathBuf>,
    paths: BTreeMap<u64, Option<Arc<str>>>,
}

impl Cgroups {
    /// Path of the cgroup with this id. `tgid` was in it: the quick way is to ask where it is now.
    pub fn path(&mut self, id: u64, tgid: u32) -> Option<Arc<str>> {
        if let Some(known) = self.paths.get(&id) {
            return known.clone();
        }
        if self.paths.len() >= CACHE_MAX {
            self.paths.clear();
        }
        if self.mount.is_none() {
            self.mount = mount();
        }
        let mount = self.mount.as_deref()?;
        let path = of_process(tgid).filter(|path| inode(&below(mount, path)) == Some(id));
        let path = path.or_else(|| find(mount, |dir, _| inode(dir) == Some(id)).pop());
        // An id is never used again, so one that is gone stays unknown.
        let path: Option<Arc<str>> = path.map(Into::into);
        self.paths.insert(id, path.clone());
        path
    }

    /// Forgets everything, for hierarchies may have been mounted meanwhile.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Where the v2 hierarchy is mounted.
#[must_use]
pub fn mount() -> Option<PathBuf> {
    crate::kernel::bpffs::cgroup_mount()
}

/// Ids of the containers that have a cgroup here.
#[must_use]
pub fn containers() -> Vec<String> {
    let Some(mount) = mount() else { return Vec::new() };
    let paths = find(&mount, |_, path| path.rsplit('/').next().is_some_and(|leaf| leaf.len() >= 64));
    let mut ids: Vec<String> = paths.iter().filter_map(|path| container::names(path).container).collect();
    ids.sort();
    ids.dedup();
    ids
}

fn of_process(tgid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{tgid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

fn below(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.ino())
}

/// Cgroups below the mount for which `wanted` holds, by path.
fn find(mount: &Path, wanted: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let (mut found, mut looked) = (Vec::new(), 0);
    let mut waiting = vec!["/".to_owned()];
    while let Some(path) = waiting.pop() {
        looked += 1;
        if looked > WALK_MAX {
            break;
        }
        let dir = below(mount, &path);
        if wanted(&dir, &path) {
            found.push(path.clone());
        }
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let name = entry.file_name();
            waiting.push(format!("{}/{}", path.trim_end_matches('/'), name.to_string_lossy()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_by_its_id() {
        let Some(mount) = mount() else { return };
        let path = of_process(std::process::id()).unwrap();
        let Some(id) = inode(&below(&mount, &path)) else { return };
        let mut cgroups = Cgroups::default();
        assert_eq!(cgroups.path(id, std::process::id()).as_deref(), Some(path.as_str()));
        assert_eq!(Cgroups::default().path(id, u32::MAX).as_deref(), Some(path.as_str()), "by walking");
    }
}
