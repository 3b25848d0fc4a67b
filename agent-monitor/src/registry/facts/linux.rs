//! The facts of the host that this process runs on.
//!
//! Users and groups come from the C library, so that directory services answer too. Nothing is
//! executed and nothing is changed.

use std::{
    ffi::{CStr, CString, c_char, c_int},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    ptr,
};

use super::{Group, HostFacts, Lookup, PathKind, User};

/// Where unit files are, in no particular order.
const UNIT_DIRECTORIES: [&str; 10] = [
    "/etc/systemd/system",
    "/etc/systemd/user",
    "/lib/systemd/system",
    "/run/systemd/generator",
    "/run/systemd/generator.late",
    "/run/systemd/system",
    "/run/systemd/transient",
    "/usr/lib/systemd/system",
    "/usr/lib/systemd/user",
    "/usr/local/lib/systemd/system",
];

/// First and largest buffer for an account entry, in bytes; groups can have many members.
const BUFFER_BYTES: (usize, usize) = (4096, 1 << 22);

/// Reads the running host.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinuxFacts;

impl HostFacts for LinuxFacts {
    fn user_by_name(&self, name: &str) -> Lookup<User> {
        let Ok(name) = CString::new(name) else {
            return Lookup::Absent;
        };
        passwd(|entry, buffer, length, result| {
            // SAFETY: `name` is a C string, the rest are valid for writes of their sizes.
            unsafe { libc::getpwnam_r(name.as_ptr(), entry, buffer, length, result) }
        })
    }

    fn user_by_uid(&self, uid: u32) -> Lookup<User> {
        passwd(|entry, buffer, length, result| {
            // SAFETY: all pointers are valid for writes of their sizes.
            unsafe { libc::getpwuid_r(uid, entry, buffer, length, result) }
        })
    }

    fn group_by_name(&self, name: &str) -> Lookup<Group> {
        let Ok(name) = CString::new(name) else {
            return Lookup::Absent;
        };
        // SAFETY: a group entry is pointers and numbers, for which zero is a value.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        look_up(
            &mut entry,
            |entry, buffer, length, result| {
                // SAFETY: `name` is a C string, the rest are valid for writes of their sizes.
                unsafe { libc::getgrnam_r(name.as_ptr(), entry, buffer, length, result) }
            },
            |entry| Group { gid: entry.gr_gid, members: members(entry.gr_mem) },
        )
    }

    fn unit(&self, name: &str) -> Lookup<()> {
        if !Path::new("/run/systemd/system").is_dir() {
            return Lookup::Unavailable("systemd does not run here".to_owned());
        }
        // `worker@1.service` is an instance of `worker@.service`.
        let template = name
            .split_once('@')
            .and_then(|(stem, rest)| Some(format!("{stem}@.{}", rest.rsplit_once('.')?.1)));
        let candidates = [Some(name.to_owned()), template];
        let known = UNIT_DIRECTORIES.iter().any(|directory| {
            let directory = Path::new(directory);
            let mut names = candidates.iter().flatten();
            names.any(|name| directory.join(name).symlink_metadata().is_ok())
        });
        if known { Lookup::Found(()) } else { Lookup::Absent }
    }

    fn path(&self, path: &Path) -> PathKind {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => PathKind::File { dev: metadata.dev(), ino: metadata.ino() },
            Ok(metadata) if metadata.is_dir() => PathKind::Directory,
            Ok(_) => PathKind::Special,
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => PathKind::Missing,
                _ => PathKind::Unreadable,
            },
        }
    }

    fn real_path(&self, path: &Path) -> Option<PathBuf> {
        fs::canonicalize(path).ok()
    }

    fn callers(&self) -> Vec<u32> {
        // SAFETY: getuid has no arguments and cannot fail.
        let own = unsafe { libc::getuid() };
        let before = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
        std::iter::once(own).chain(before).collect()
    }
}

fn passwd(
    call: impl Fn(*mut libc::passwd, *mut c_char, usize, *mut *mut libc::passwd) -> c_int,
) -> Lookup<User> {
    // SAFETY: a user entry is pointers and numbers, for which zero is a value.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    look_up(&mut entry, call, |entry| User {
        name: text(entry.pw_name),
        uid: entry.pw_uid,
        gid: entry.pw_gid,
    })
}

/// Calls one of the `get…_r` functions with a growing buffer and copies the entry out.
fn look_up<E, T>(
    entry: &mut E,
    call: impl Fn(*mut E, *mut c_char, usize, *mut *mut E) -> c_int,
    copy: impl Fn(&E) -> T,
) -> Lookup<T> {
    let (mut length, largest) = BUFFER_BYTES;
    loop {
        let mut buffer: Vec<c_char> = vec![0; length];
        let mut result: *mut E = ptr::null_mut();
        let status = call(entry, buffer.as_mut_ptr(), length, &raw mut result);
        match status {
            0 if !result.is_null() => return Lookup::Found(copy(entry)),
            // POSIX lets "no such entry" be 0 or any of these.
            0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Lookup::Absent,
            libc::EINTR => {}
            libc::ERANGE if length < largest => length *= 4,
            error => return Lookup::Unavailable(io::Error::from_raw_os_error(error).to_string()),
        }
    }
}

/// Copies a C string that the C library returned; empty for null.
fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: entries hold C strings inside the buffer, which outlives this call.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_string_lossy().into_owned()
}

/// Copies a null-ended array of C strings that the C library returned.
fn members(mut list: *mut *mut c_char) -> Vec<String> {
    let mut names = Vec::new();
    if list.is_null() {
        return names;
    }
    loop {
        // SAFETY: the array ends with a null pointer, which was not reached yet. It may be
        // unaligned on no platform that we build for: the C library aligns it in the buffer.
        let name = unsafe { *list };
        if name.is_null() {
            return names;
        }
        names.push(text(name));
        // SAFETY: the element was not the closing one, so there is a next.
        list = unsafe { list.add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_nonsense_is_not() {
        let root = LinuxFacts.user_by_name("root").found().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(LinuxFacts.user_by_uid(0).found().unwrap().name, "root");
        assert_eq!(LinuxFacts.user_by_name("no-such-user-1b2c"), Lookup::Absent);
        assert_eq!(LinuxFacts.user_by_name("nul\0"), Lookup::Absent);
        assert_eq!(LinuxFacts.group_by_name("root").found().unwrap().gid, 0);
        assert_eq!(LinuxFacts.group_by_name("no-such-group-1b2c"), Lookup::Absent);
    }

    #[test]
    fn paths() {
        assert!(matches!(LinuxFacts.path(Path::new("/proc/self/exe")), PathKind::File { .. }));
        assert_eq!(LinuxFacts.path(Path::new("/")), PathKind::Directory);
        assert_eq!(LinuxFacts.path(Path::new("/dev/null")), PathKind::Special);
        assert_eq!(LinuxFacts.path(Path::new("/no/such/path")), PathKind::Missing);
        assert_eq!(LinuxFacts.path(Path::new("/dev/null/x")), PathKind::Missing);
    }
}
