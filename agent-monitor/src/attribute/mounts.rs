//! Between a place in a file system and a path on this host, by the mount table.
//!
//! The kernel tells a file by device and path inside the superblock, whatever namespace, bind mount or chroot the
//! process sees it through. People and records name host paths. Pure: the text of `/proc/self/mountinfo` comes in.

use crate::decode::FsPath;

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    id: u32,
    parent: u32,
    /// `s_dev` in the kernel's encoding. From mountinfo, because `stat` shows another one on btrfs and overlay.
    dev: u32,
    /// Directory of the file system that is mounted.
    root: Vec<u8>,
    /// Where.
    point: Vec<u8>,
    fs_type: String,
}

/// The mounts of the daemon's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountTable {
    mounts: Vec<Mount>,
}

/// A path on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPath {
    /// Its bytes. `//major:minor/…` where the file system is mounted nowhere in the host's namespace.
    pub bytes: Vec<u8>,
    /// Whether a mount was found for it.
    pub mounted: bool,
    /// The part nearest to the root is missing.
    pub truncated: bool,
}

/// A place in a file system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// `s_dev` in the kernel's encoding.
    pub dev: u32,
    /// Path from the superblock's root, with a leading slash, without a trailing one.
    pub inner: Vec<u8>,
}

/// The kernel's encoding of a device number.
#[must_use]
pub fn kernel_dev(major: u32, minor: u32) -> u32 {
    major << 20 | minor & 0xf_ffff
}

/// `major:minor` of a device number in the kernel's encoding.
#[must_use]
pub fn dev_text(dev: u32) -> String {
    format!("{}:{}", dev >> 20, dev & 0xf_ffff)
}

impl MountTable {
    /// Reads mountinfo. Lines that are none are left out.
    #[must_use]
    pub fn parse(mountinfo: &[u8]) -> Self {
        Self { mounts: mountinfo.split(|byte| *byte == b'\n').filter_map(mount).collect() }
    }

    /// Whether a file system with this device is mounted.
    #[must_use]
    pub fn knows(&self, dev: u32) -> bool {
        self.mounts.iter().any(|mount| mount.dev == dev)
    }

    /// File system type on a device.
    #[must_use]
    pub fn fs_type(&self, dev: u32) -> Option<&str> {
        self.mounts.iter().find(|mount| mount.dev == dev).map(|mount| mount.fs_type.as_str())
    }

    /// The host path of a place. Of several mounts the one that shows most of the file system is taken, then the
    /// shortest mount point, then the oldest.
    #[must_use]
    pub fn host_path(&self, path: &FsPath) -> HostPath {
        if path.anon {
            let name = path.components.last().map(Vec::as_slice).unwrap_or_default();
            return HostPath { bytes: name.to_vec(), mounted: false, truncated: path.truncated };
        }
        let inner = path.inner();
        if path.truncated {
            let bytes = [format!("//{}/…", dev_text(path.dev)).as_bytes(), inner.as_slice()].concat();
            return HostPath { bytes, mounted: false, truncated: true };
        }
        let shown = self.mounts.iter().filter(|mount| mount.dev == path.dev).filter_map(|mount| {
            below(&inner, &mount.root).map(|rest| (mount.root.len(), mount.point.len(), mount, rest))
        });
        match shown.min_by_key(|(root, point, _, _)| (*root, *point)) {
            Some((_, _, mount, rest)) => {
                HostPath { bytes: concat(&mount.point, rest), mounted: true, truncated: false }
            }
            None => {
                let bytes = [format!("//{}", dev_text(path.dev)).as_bytes(), inner.as_slice()].concat();
                HostPath { bytes, mounted: false, truncated: false }
            }
        }
    }

    /// The place of a host path without symbolic links, `.` and `..`; it need not exist. Follows the tree of mounts as
    /// the kernel does, so a mount that is hidden below another one is not taken.
    #[must_use]
    pub fn locate(&self, canonical: &[u8]) -> Option<Location> {
        let mut at = self.mounts.iter().rfind(|m| m.point == b"/" && self.parent_of(m).is_none())?;
        loop {
            let over = self.mounts.iter().filter(|m| m.parent == at.id && m.id != at.id);
            let over = over.filter(|m| below(canonical, &m.point).is_some());
            match over.min_by_key(|m| m.point.len()) {
                Some(next) => at = next,
                None => break,
            }
        }
        let rest = below(canonical, &at.point)?;
        at.root.starts_with(b"/").then(|| Location { dev: at.dev, inner: concat(&at.root, rest) })
    }

    /// Every mount that shows a part of a file system, in the table's order: the place of its mount point in the file
    /// system around it (`None` for the root of the host), and what it shows.
    #[must_use]
    pub fn places(&self) -> Vec<(Option<Location>, Location)> {
        let shown =
            self.mounts.iter().filter(|mount| mount.root.starts_with(b"/") && mount.root != b"//deleted");
        shown
            .map(|mount| {
                let on = self.parent_of(mount).and_then(|around| {
                    let rest = below(&mount.point, &around.point)?;
                    Some(Location { dev: around.dev, inner: concat(&around.root, rest) })
                });
                (on, Location { dev: mount.dev, inner: mount.root.clone() })
            })
            .collect()
    }

    fn parent_of(&self, mount: &Mount) -> Option<&Mount> {
        self.mounts.iter().find(|m| m.id == mount.parent && m.id != mount.id)
    }
}

/// What of `path` is below `prefix`: empty for `prefix` itself, else with a leading slash.
fn below<'a>(path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let path = if path == b"/" { &[] } else { path };
    let prefix = if prefix == b"/" { &[] } else { prefix };
    path.strip_prefix(prefix).filter(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
}

fn concat(point: &[u8], rest: &[u8]) -> Vec<u8> {
    let point = if point == b"/" { &[] } else { point };
    let whole = [point, rest].concat();
    if whole.is_empty() { b"/".to_vec() } else { whole }
}

fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let dev = kernel_dev(major.parse().ok()?, minor.parse().ok()?);
    let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
    let mut after = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = String::from_utf8_lossy(after.next()?).into_owned();
    // A root that was deleted (`/x//deleted`) shows nothing that can be named.
    let root = if root.ends_with(b"//deleted") { b"//deleted".to_vec() } else { root };
    Some(Mount { id, parent, dev, root, point, fs_type })
}

/// `\040` and relatives back to bytes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: &[u8] = b"22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
        25 22 0:5 / /proc rw - proc proc rw\n\
        30 22 254:2 / /srv rw - xfs /dev/vdb rw\n\
        31 22 254:1 /opt/data /mnt/with\\040space rw - ext4 /dev/vda1 rw\n\
        32 22 0:40 /@home /home rw - btrfs /dev/vdc rw\n\
        33 22 0:50 / /tmp rw - tmpfs tmpfs rw\n\
        34 33 0:51 / /tmp rw - tmpfs tmpfs rw\n\
        35 22 0:4 net:[4026532] /run/netns/x rw - nsfs nsfs rw\n\
        36 30 0:60 / /srv/a/b rw - tmpfs tmpfs rw\n\
        37 30 0:61 / /srv/a rw - tmpfs tmpfs rw\nrubbish\n";

    fn place(major: u32, minor: u32, path: &str) -> FsPath {
        let components = path.split('/').filter(|c| !c.is_empty()).map(|c| c.as_bytes().to_vec()).collect();
        FsPath { dev: kernel_dev(major, minor), components, ..FsPath::default() }
    }

    fn host(major: u32, minor: u32, path: &str) -> String {
        String::from_utf8(MountTable::parse(TABLE).host_path(&place(major, minor, path)).bytes).unwrap()
    }

    #[test]
    fn places_have_host_paths() {
        assert_eq!(host(254, 1, "/etc/shadow"), "/etc/shadow");
        assert_eq!(host(254, 1, "/opt/data/x"), "/opt/data/x", "the mount that shows more");
        assert_eq!(host(254, 1, "/"), "/");
        assert_eq!(host(254, 2, "/"), "/srv");
        assert_eq!(host(0, 40, "/@home/joe"), "/home/joe");
        assert_eq!(host(0, 40, "/@homes/joe"), "//0:40/@homes/joe");
        assert_eq!(host(0, 99, "/x"), "//0:99/x");
    }

    #[test]
    fn host_paths_have_places() {
        let table = MountTable::parse(TABLE);
        let at =
            |path: &str| table.locate(path.as_bytes()).map(|l| (l.dev, String::from_utf8(l.inner).unwrap()));
        assert_eq!(at("/etc/x"), Some((kernel_dev(254, 1), "/etc/x".to_owned())));
        assert_eq!(at("/srv"), Some((kernel_dev(254, 2), "/".to_owned())));
        assert_eq!(at("/srvx"), Some((kernel_dev(254, 1), "/srvx".to_owned())));
        assert_eq!(at("/mnt/with space/f"), Some((kernel_dev(254, 1), "/opt/data/f".to_owned())));
        assert_eq!(at("/home/joe"), Some((kernel_dev(0, 40), "/@home/joe".to_owned())));
        assert_eq!(at("/tmp/x"), Some((kernel_dev(0, 51), "/x".to_owned())), "the upper of two");
        assert_eq!(
            at("/srv/a/b/c"),
            Some((kernel_dev(0, 61), "/b/c".to_owned())),
            "hidden mounts do not count"
        );
        assert_eq!(at("/run/netns/x"), None);
        assert_eq!(at("/"), Some((kernel_dev(254, 1), "/".to_owned())));
    }

    proptest! {
        #[test]
        fn any_text_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(MountTable::parse(&bytes).locate(b"/x"));
        }

        #[test]
        fn there_and_back(path in "(/[a-z]{1,4}){1,5}") {
            let table = MountTable::parse(TABLE);
            if let Some(location) = table.locate(path.as_bytes()) {
                let components =
                    location.inner.split(|b| *b == b'/').filter(|c| !c.is_empty()).map(<[u8]>::to_vec).collect();
                let back = table.host_path(&FsPath { dev: location.dev, components, ..FsPath::default() });
                prop_assert!(back.mounted);
                prop_assert_eq!(String::from_utf8(back.bytes).unwrap(), path);
            }
        }
    }
}
