//! The live host: what the engine and the compilation of records ask, answered from `/proc` and the file system.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256 as Hasher};

use super::cgroups::Cgroups;
use crate::attribute::boot::{self, Seed};
use crate::attribute::image::Resolve;
use crate::attribute::matcher::FileId;
use crate::attribute::mounts::Location;
use crate::attribute::{MountTable, TaskKey};
use crate::engine::Host;
use crate::registry::LinuxFacts;
use crate::registry::facts::HostFacts;
use crate::registry::record::{Sha256, UserRef};
use crate::scope::compile::{MountPlace, Places};

/// Names that are remembered at the most.
const CACHE_MAX: usize = 4096;
/// Symbolic links that are followed on one path, as the kernel does.
const LINKS_MAX: usize = 40;
/// Where symbolic links to scripts are looked for.
const BIN_DIRS: &[&str] = &[
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/opt/bin",
    "/root/.local/bin",
    "/usr/local/lib/node_modules/.bin",
    "/usr/lib/node_modules/.bin",
];

/// Answers of this host, remembered within bounds.
#[derive(Debug, Default)]
pub struct LiveHost {
    users: BTreeMap<u32, Option<Arc<str>>>,
    cgroups: Cgroups,
}

impl LiveHost {
    /// Forgets names, for users may have changed.
    pub fn forget(&mut self) {
        self.users.clear();
        self.cgroups.forget();
    }
}

impl Host for LiveHost {
    fn process(&mut self, key: TaskKey) -> Option<Seed> {
        boot::read(key.tgid).filter(|seed| seed.is(key))
    }

    fn args(&mut self, key: TaskKey) -> Option<Vec<u8>> {
        let same = || boot::start_ticks(key.tgid).is_some_and(|ticks| boot::same_start(key.start, ticks));
        // Before and after, so that a reused pid is noticed.
        if !same() {
            return None;
        }
        boot::args(key.tgid).filter(|_| same())
    }

    fn user(&mut self, uid: u32) -> Option<Arc<str>> {
        if let Some(known) = self.users.get(&uid) {
            return known.clone();
        }
        if self.users.len() >= CACHE_MAX {
            self.users.clear();
        }
        let name = LinuxFacts.user_by_uid(uid).found().map(|user| Arc::from(user.name.as_str()));
        self.users.insert(uid, name.clone());
        name
    }

    fn cgroup(&mut self, id: u64, tgid: u32) -> Option<Arc<str>> {
        self.cgroups.path(id, tgid)
    }

    fn canonical(&mut self, path: &[u8]) -> Option<Vec<u8>> {
        fs::canonicalize(OsStr::from_bytes(path)).ok().map(|path| path.into_os_string().into_vec())
    }

    fn file(&mut self, path: &[u8]) -> Option<FileId> {
        fs::metadata(OsStr::from_bytes(path)).ok().map(|meta| file_id(&meta))
    }

    fn mountinfo(&mut self) -> Option<Vec<u8>> {
        mountinfo()
    }
}

/// The mount table of the daemon's namespace.
#[must_use]
pub fn mountinfo() -> Option<Vec<u8>> {
    fs::read("/proc/self/mountinfo").ok()
}

fn file_id(meta: &fs::Metadata) -> FileId {
    FileId {
        ino: meta.ino(),
        ctime_sec: meta.ctime(),
        ctime_nsec: u32::try_from(meta.ctime_nsec()).unwrap_or(0),
    }
}

/// Answers for one compilation of records.
#[derive(Debug)]
pub struct LiveResolve<'a> {
    /// The mounts that places are looked up in.
    pub mounts: &'a MountTable,
    /// Hashes of files that have not changed since.
    pub hashes: &'a mut Hashes,
    /// Links in the directories of programs: target → links. Read once.
    links: Option<BTreeMap<Vec<u8>, Vec<Vec<u8>>>>,
    /// Ids of the containers here. Read once.
    containers: Option<Vec<String>>,
}

/// SHA-256 of files by path and identity.
pub type Hashes = BTreeMap<Vec<u8>, (FileId, [u8; 32])>;

impl<'a> LiveResolve<'a> {
    /// Answers by this mount table.
    #[must_use]
    pub fn new(mounts: &'a MountTable, hashes: &'a mut Hashes) -> Self {
        Self { mounts, hashes, links: None, containers: None }
    }
}

impl Resolve for LiveResolve<'_> {
    fn canonical(&mut self, path: &[u8]) -> Vec<u8> {
        canonical_prefix(Path::new(OsStr::from_bytes(path))).into_os_string().into_vec()
    }

    fn locate(&mut self, canonical: &[u8]) -> Option<Location> {
        self.mounts.locate(canonical)
    }

    fn aliases(&mut self, canonical: &[u8]) -> Vec<Vec<u8>> {
        let links = self.links.get_or_insert_with(read_links);
        links.get(canonical).cloned().unwrap_or_default()
    }

    fn verify(&mut self, canonical: &[u8], sha256: &Sha256) -> Option<FileId> {
        let path = Path::new(OsStr::from_bytes(canonical));
        let mut file = fs::File::open(path).ok()?;
        let id = file_id(&file.metadata().ok()?);
        let known = self.hashes.get(canonical).filter(|(known, _)| *known == id).map(|(_, hash)| *hash);
        let hash = match known {
            Some(hash) => hash,
            None => {
                let hash = hash_file(&mut file)?;
                // Unchanged while it was read.
                if file_id(&fs::metadata(path).ok()?) != id {
                    return None;
                }
                if self.hashes.len() >= CACHE_MAX {
                    self.hashes.clear();
                }
                self.hashes.insert(canonical.to_vec(), (id, hash));
                hash
            }
        };
        (hash == sha256.0).then_some(id)
    }

    fn uid(&mut self, user: &UserRef) -> Option<u32> {
        match user {
            UserRef::Uid(uid) => Some(*uid),
            UserRef::Name(name) => LinuxFacts.user_by_name(name).found().map(|user| user.uid),
        }
    }

    fn containers(&mut self, start: &str) -> Vec<String> {
        let all = self.containers.get_or_insert_with(super::cgroups::containers);
        all.iter().filter(|id| id.starts_with(start)).cloned().collect()
    }
}

impl Places for LiveResolve<'_> {
    fn canonical(&mut self, path: &[u8]) -> Vec<u8> {
        follow(Path::new(OsStr::from_bytes(path))).into_os_string().into_vec()
    }

    fn locate(&mut self, canonical: &[u8]) -> Option<Location> {
        self.mounts.locate(canonical)
    }

    fn mounts(&mut self) -> Vec<MountPlace> {
        self.mounts.places().into_iter().map(|(on, shows)| MountPlace { on, shows }).collect()
    }
}

/// The longest part of a path that exists, resolved, and the rest as it is.
#[must_use]
pub fn canonical_prefix(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(found) = fs::canonicalize(ancestor) {
            let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return if rest.as_os_str().is_empty() { found } else { found.join(rest) };
        }
    }
    path.to_path_buf()
}

/// Follows symbolic links as far as a path exists and keeps the rest. Stops at `/proc/self` and its like, which would
/// lead to this process.
#[must_use]
pub fn follow(path: &Path) -> PathBuf {
    let parts = |path: &Path| -> Vec<OsString> {
        let named = |part: Component<'_>| match part {
            Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        };
        path.components().rev().filter_map(named).collect()
    };
    let mut done = PathBuf::from("/");
    // The next part is the last.
    let mut rest = parts(path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&name);
        if done == Path::new("/proc") && (name == "self" || name == "thread-self") {
            return rest.iter().rev().fold(next, |path, part| path.join(part));
        }
        done = match fs::read_link(&next) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                rest.extend(parts(&target));
                if target.is_absolute() { PathBuf::from("/") } else { done }
            }
            _ => next,
        };
    }
    done
}

fn hash_file(file: &mut fs::File) -> Option<[u8; 32]> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(hasher.finalize().into()),
            len => hasher.update(buffer.get(..len)?),
        }
    }
}

fn read_links() -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut links: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for dir in BIN_DIRS {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_symlink())
                && let Ok(target) = fs::canonicalize(&path)
            {
                let target = target.into_os_string().into_vec();
                links.entry(target).or_default().push(path.into_os_string().into_vec());
            }
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_do_not_exist_yet_are_resolved_as_far_as_they_do() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        let real = fs::canonicalize(real).unwrap();
        assert_eq!(canonical_prefix(&dir.path().join("link/a/b")), real.join("a/b"));
        assert_eq!(canonical_prefix(&dir.path().join("link")), real);
    }

    #[test]
    fn links_are_followed_but_not_to_this_process() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(real.join("d")).unwrap();
        std::os::unix::fs::symlink("d/../d", real.join("link")).unwrap();
        std::os::unix::fs::symlink("/proc/self/fd", real.join("fd")).unwrap();
        std::os::unix::fs::symlink("loop", real.join("loop")).unwrap();
        assert_eq!(follow(&real.join("link/a/b")), real.join("d/a/b"));
        assert_eq!(follow(&real.join("fd/1")), Path::new("/proc/self/fd/1"));
        assert_eq!(follow(&real.join("loop")), real.join("loop"));
        assert_eq!(follow(Path::new("/")), Path::new("/"));
    }

    #[test]
    fn contents_are_verified_and_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"x").unwrap();
        let bytes = path.clone().into_os_string().into_vec();
        let (mounts, mut hashes) = (MountTable::default(), Hashes::new());
        let mut resolve = LiveResolve::new(&mounts, &mut hashes);
        let right = Sha256(Hasher::digest(b"x").into());
        assert_eq!(
            resolve.verify(&bytes, &right).map(|id| id.ino),
            fs::metadata(&path).ok().map(|m| m.ino())
        );
        assert_eq!(resolve.verify(&bytes, &Sha256([0; 32])), None);
        fs::write(&path, b"y").unwrap();
        assert_eq!(resolve.verify(&bytes, &right), None);
        assert_eq!(hashes.len(), 1);
    }

    #[test]
    fn this_process_is_known() {
        let mut host = LiveHost::default();
        let ticks = boot::start_ticks(std::process::id()).unwrap();
        let key = TaskKey { tgid: std::process::id(), start: ticks * 10_000_000 };
        assert!(host.process(key).is_some() && host.args(key).is_some());
        let other = TaskKey { start: key.start + 100_000_000, ..key };
        assert!(host.process(other).is_none() && host.args(other).is_none());
        assert_eq!(host.user(0).as_deref(), Some("root"));
    }
}
