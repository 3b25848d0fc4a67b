//! The file system of what is swept: this host, a mounted image (`--root`), or a container through its own root.
//!
//! Every look-up stays below the root, also through symbolic links (`openat2` with `RESOLVE_IN_ROOT`); nothing but
//! regular files is opened for reading, so no FIFO and no device is ever touched; every read has a limit; access times
//! stay as they are where the kernel lets us. Network and FUSE file systems are left alone unless they were asked for:
//! a server that does not answer would hold the sweep.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, statat,
};

use crate::model::Time;

/// File systems whose server is elsewhere or is a process.
const REMOTE: &[&str] = &[
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "gpfs",
    "beegfs",
    "fuse",
    "fuseblk",
    "autofs",
    "ncpfs",
    "coda",
    "ocfs2",
    "gfs2",
    "davfs",
];
/// File systems that hold no programs.
const VIRTUAL: &[&str] =
    &["proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "bpf", "mqueue"];

/// Why something was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// It is not there.
    Missing,
    /// We may not.
    Denied,
    /// It is no regular file, or no directory.
    Kind,
    /// It has more bytes or entries than are read.
    TooLarge,
    /// It lies on a file system that was not to be looked at.
    Remote,
    /// Anything else that the kernel said.
    Error,
}

impl Trouble {
    /// For coverage.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Denied => "not permitted",
            Self::Kind => "not a regular file or directory",
            Self::TooLarge => "too large",
            Self::Remote => "on a network or FUSE file system",
            Self::Error => "unreadable",
        }
    }
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// A regular file.
    pub is_file: bool,
    /// A directory.
    pub is_dir: bool,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Last change of contents.
    pub modified: Time,
}

impl Meta {
    fn of(stat: &Stat) -> Self {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let nanos = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
        Self {
            is_file: kind == FileType::RegularFile,
            is_dir: kind == FileType::Directory,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            modified: Time::from_unix_nanos(nanos),
        }
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, escaped without loss.
    pub name: String,
    /// A directory itself; symbolic links are none.
    pub is_dir: bool,
    /// A symbolic link.
    pub is_link: bool,
    /// A regular file.
    pub is_file: bool,
}

/// A root below which everything stays.
#[derive(Debug, Clone)]
pub struct Root {
    fd: Arc<OwnedFd>,
    /// What its `/` is called in reports: empty for this host.
    prefix: String,
    /// Network, FUSE and virtual file systems below, with their type.
    mounts: Arc<Vec<(String, String)>>,
    /// They are looked into all the same.
    remote: bool,
}

impl Root {
    /// The directory `path` as a root. `remote` lets network and FUSE file systems in.
    ///
    /// # Errors
    /// When it is no directory that can be opened.
    pub fn open(path: &Path, prefix: &str, remote: bool) -> io::Result<Self> {
        let below = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let below = crate::model::text::escape(below.as_os_str().as_bytes());
        Self::with(path, prefix, remote, "/proc/self/mountinfo", below.trim_end_matches('/'))
    }

    /// The root directory of a process, with the mounts that it sees.
    ///
    /// # Errors
    /// When it is gone, or may not be looked at.
    pub fn of_process(pid: u32, prefix: &str, remote: bool) -> io::Result<Self> {
        let path = format!("/proc/{pid}/root");
        Self::with(Path::new(&path), prefix, remote, &format!("/proc/{pid}/mountinfo"), "")
    }

    fn with(path: &Path, prefix: &str, remote: bool, mountinfo: &str, below: &str) -> io::Result<Self> {
        let fd = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let table = std::fs::read(mountinfo).unwrap_or_default();
        let mounts = mounts_left_alone(&String::from_utf8_lossy(&table), below);
        Ok(Self { fd: Arc::new(fd), prefix: prefix.to_owned(), mounts: Arc::new(mounts), remote })
    }

    /// The name of a path in reports.
    #[must_use]
    pub fn shown(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Mount points that are left alone, with their type.
    #[must_use]
    pub fn skipped(&self) -> &[(String, String)] {
        if self.remote { &[] } else { &self.mounts }
    }

    /// Whether a path lies where looking may take for ever.
    #[must_use]
    pub fn is_remote(&self, path: &str) -> bool {
        self.mounts.iter().any(|(mount, _)| {
            path.strip_prefix(mount.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// What a path leads to, symbolic links followed inside the root.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn meta(&self, path: &str) -> Result<Meta, Trouble> {
        let fd = self.handle(path, OFlags::empty())?;
        fstat(&fd).map(|stat| Meta::of(&stat)).map_err(trouble)
    }

    /// Whether anything is at a path.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.meta(path).is_ok()
    }

    /// The contents of a regular file of at most `max` bytes.
    ///
    /// # Errors
    /// See [`Trouble`]; nothing of a larger file is read.
    pub fn read(&self, path: &str, max: u64) -> Result<Vec<u8>, Trouble> {
        let (file, size) = self.regular(path)?;
        if size > max {
            return Err(Trouble::TooLarge);
        }
        take(file, max)
    }

    /// The first bytes of a regular file of any size.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn head(&self, path: &str, max: u64) -> Result<Vec<u8>, Trouble> {
        take(self.regular(path)?.0, max)
    }

    /// A text file of at most `max` bytes; what is no UTF-8 is replaced.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn text(&self, path: &str, max: u64) -> Result<String, Trouble> {
        Ok(String::from_utf8_lossy(&self.read(path, max)?).into_owned())
    }

    fn regular(&self, path: &str) -> Result<(std::fs::File, u64), Trouble> {
        let handle = self.handle(path, OFlags::empty())?;
        let stat = fstat(&handle).map_err(trouble)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Trouble::Kind);
        }
        // The very file that was looked at, by its handle.
        let again = format!("/proc/self/fd/{}", handle.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = openat(CWD, again.as_str(), flags | OFlags::NOATIME, Mode::empty())
            .or_else(|_| openat(CWD, again.as_str(), flags, Mode::empty()));
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        Ok((std::fs::File::from(opened.map_err(trouble)?), size))
    }

    /// The names in a directory, at most `max`, in order; whether there are more.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn list(&self, path: &str, max: usize) -> Result<(Vec<Entry>, bool), Trouble> {
        let handle = self.handle(path, OFlags::DIRECTORY)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = openat(&handle, ".", flags | OFlags::NOATIME, Mode::empty())
            .or_else(|_| openat(&handle, ".", flags, Mode::empty()))
            .map_err(trouble)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(fd.as_fd()).map_err(trouble)? {
            let entry = entry.map_err(trouble)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if entries.len() >= max {
                return Ok((sorted(entries), true));
            }
            let kind = match entry.file_type() {
                FileType::Unknown => statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
                    .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
                kind => kind,
            };
            entries.push(Entry {
                name: crate::model::text::escape(name.to_bytes()),
                is_dir: kind == FileType::Directory,
                is_link: kind == FileType::Symlink,
                is_file: kind == FileType::RegularFile,
            });
        }
        Ok((sorted(entries), false))
    }

    /// A handle on what a path leads to; opens nothing.
    fn handle(&self, path: &str, extra: OFlags) -> Result<OwnedFd, Trouble> {
        if !self.remote && self.is_remote(path) {
            return Err(Trouble::Remote);
        }
        let bytes = crate::model::text::unescape(path);
        let flags = OFlags::PATH | OFlags::CLOEXEC | extra;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = Path::new(std::ffi::OsStr::from_bytes(&bytes));
        for _ in 0..4 {
            match openat2(self.fd.as_fd(), path, flags, Mode::empty(), resolve) {
                // Something was renamed meanwhile.
                Err(rustix::io::Errno::AGAIN) => {}
                result => return result.map_err(trouble),
            }
        }
        Err(Trouble::Error)
    }

    /// Where a path really lies inside the root, symbolic links followed.
    #[must_use]
    pub fn canonical(&self, path: &str) -> Option<String> {
        let handle = self.handle(path, OFlags::empty()).ok()?;
        let own = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok();
        let (target, root) = (own(handle.as_raw_fd())?, own(self.fd.as_raw_fd())?);
        let rest = target.strip_prefix(&root).ok()?;
        Some(crate::model::text::escape(PathBuf::from("/").join(rest).as_os_str().as_bytes()))
    }
}

fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

fn take(file: std::fs::File, max: u64) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Trouble::Denied,
        _ => Trouble::Error,
    })?;
    Ok(bytes)
}

fn trouble(errno: rustix::io::Errno) -> Trouble {
    use rustix::io::Errno;
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG => Trouble::Missing,
        Errno::ACCESS | Errno::PERM => Trouble::Denied,
        Errno::XDEV => Trouble::Remote,
        _ => Trouble::Error,
    }
}

/// The pure half: which mounts of a mount table are left alone.
fn mounts_left_alone(mountinfo: &str, root: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let (Some(on), Some(kind)) = (before.split(' ').nth(4), after.split(' ').next()) else { continue };
        let name = kind.split('.').next().unwrap_or(kind);
        if !REMOTE.contains(&name) && !VIRTUAL.contains(&kind) {
            continue;
        }
        let on = octal(on);
        match on.strip_prefix(root) {
            Some(rest) if rest.starts_with('/') && rest.len() > 1 => {
                found.push((rest.to_owned(), kind.to_owned()))
            }
            _ => {}
        }
    }
    found
}

/// `\040` and its like in a mount table.
fn octal(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'\\').then(|| tail.get(..3)).flatten();
        match code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    crate::model::text::escape(&out)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(dir: &tempfile::TempDir) -> Root {
        Root::open(dir.path(), "", false).unwrap()
    }

    #[test]
    fn symbolic_links_stay_inside() {
        let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("secret"), "outside").unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "inside").unwrap();
        symlink(outside.path().join("secret"), dir.path().join("out")).unwrap();
        symlink("../../../../../../etc/passwd", dir.path().join("up")).unwrap();
        symlink("/etc/passwd", dir.path().join("abs")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        symlink("/proc/self/root/etc/passwd", dir.path().join("magic")).unwrap();
        let root = root(&dir);
        assert_eq!(root.text("/out", 100), Err(Trouble::Missing));
        assert_eq!(root.text("/up", 100).as_deref(), Ok("inside"));
        assert_eq!(root.text("/abs", 100).as_deref(), Ok("inside"));
        assert_eq!(root.text("/../../etc/passwd", 100).as_deref(), Ok("inside"));
        assert_eq!(root.text("/loop", 100), Err(Trouble::Missing));
        assert!(root.text("/magic", 100).is_err());
        assert_eq!(root.canonical("/up").as_deref(), Some("/etc/passwd"));
    }

    #[test]
    fn only_regular_files_within_limits_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = std::ffi::CString::new(dir.path().join("fifo").as_os_str().as_bytes()).unwrap();
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let huge = fs::File::create(dir.path().join("huge")).unwrap();
        huge.set_len(2 << 30).unwrap();
        fs::write(dir.path().join("\u{1b}[31m"), "x").unwrap();
        let root = root(&dir);
        assert_eq!(root.read("/fifo", 10), Err(Trouble::Kind));
        assert_eq!(root.read("/huge", 1 << 20), Err(Trouble::TooLarge));
        assert_eq!(root.head("/huge", 16).map(|b| b.len()), Ok(16));
        assert_eq!(root.read("/", 10), Err(Trouble::Kind));
        let (entries, more) = root.list("/", 2).unwrap();
        assert!(entries.len() == 2 && more);
        let (entries, _) = root.list("/", 10).unwrap();
        let odd = entries.iter().find(|e| e.name.contains('\u{1b}')).unwrap();
        assert_eq!(root.text(&format!("/{}", odd.name), 10).as_deref(), Ok("x"));
    }

    #[test]
    fn network_and_virtual_mounts_are_left_alone() {
        let table = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
            2 1 0:5 / /mnt/a\\040b rw shared:1 - nfs4 server:/x rw\n\
            3 1 0:6 / /home/u/s rw - fuse.sshfs x rw\n\
            4 1 0:7 / /proc rw - proc proc rw\n\
            5 1 0:8 / /srv rw - xfs /dev/sdb rw\n";
        let paths =
            |root: &str| mounts_left_alone(table, root).into_iter().map(|(p, _)| p).collect::<Vec<_>>();
        assert_eq!(paths(""), ["/mnt/a b", "/home/u/s", "/proc"]);
        assert_eq!(paths("/home"), ["/u/s"]);
        assert_eq!(paths("/srv"), Vec::<String>::new());
    }
}
