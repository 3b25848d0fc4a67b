//! Path texts: joined to the directory they start from, `.` and `..` taken out.

use crate::decode::file::Place;
use crate::decode::{FsPath, Text};

use super::mounts::{HostPath, MountTable};

/// Joins `text` to `base` and takes out `.`, `..` and doubled slashes, by text alone: a symbolic link before a `..` is
/// not followed. `..` at the root stays there.
#[must_use]
pub fn join(base: &[u8], text: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    let base_parts = base.split(|byte| *byte == b'/');
    for component in base_parts.chain(text.split(|byte| *byte == b'/')) {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    let mut out = Vec::with_capacity(base.len() + text.len() + 1);
    for component in components {
        out.push(b'/');
        out.extend_from_slice(component);
    }
    if out.is_empty() { b"/".to_vec() } else { out }
}

/// The host path of a place.
#[must_use]
pub fn of_place(mounts: &MountTable, place: &Place) -> HostPath {
    match place {
        Place::Path(path) => mounts.host_path(path),
        Place::Text { base, text } => of_text(mounts, base.as_ref(), text),
    }
}

/// The host path of a text. An absolute one starts at the process' root, which comes as `base` too.
#[must_use]
pub fn of_text(mounts: &MountTable, base: Option<&FsPath>, text: &Text) -> HostPath {
    let base = base.map(|base| mounts.host_path(base));
    let absolute = text.bytes.first() == Some(&b'/');
    match base {
        Some(base) if text.bytes.is_empty() => base,
        Some(base) if base.mounted && absolute => {
            // `..` stops at the process' root, not at the host's.
            let inside = join(b"/", &text.bytes);
            HostPath { bytes: join(&base.bytes, &inside), truncated: text.truncated, mounted: true }
        }
        Some(base) if base.mounted => {
            HostPath { bytes: join(&base.bytes, &text.bytes), truncated: text.truncated, mounted: true }
        }
        Some(base) => {
            let bytes = [base.bytes.as_slice(), b"/", &text.bytes].concat();
            HostPath { bytes, truncated: text.truncated || base.truncated, mounted: false }
        }
        None if absolute => {
            HostPath { bytes: join(b"/", &text.bytes), truncated: text.truncated, mounted: true }
        }
        None => HostPath { bytes: text.bytes.clone(), truncated: true, mounted: false },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::mounts::kernel_dev;
    use super::*;

    const TABLE: &[u8] =
        b"22 1 254:1 / / rw - ext4 /dev/vda1 rw\n30 22 254:2 / /box/root rw - overlay o rw\n";

    fn text(base: Option<FsPath>, text: &str) -> String {
        let text = Text { bytes: text.as_bytes().to_vec(), truncated: false };
        let path = of_text(&MountTable::parse(TABLE), base.as_ref(), &text);
        String::from_utf8(path.bytes).unwrap()
    }

    fn dir(minor: u32, name: &str) -> Option<FsPath> {
        let components = name.split('/').filter(|c| !c.is_empty()).map(|c| c.as_bytes().to_vec()).collect();
        Some(FsPath { dev: kernel_dev(254, minor), components, ..FsPath::default() })
    }

    #[test]
    fn texts_start_from_their_directory() {
        assert_eq!(text(dir(1, "/srv/x"), "../y/./z"), "/srv/y/z");
        assert_eq!(text(dir(1, "/"), "/etc/../etc//shadow"), "/etc/shadow");
        assert_eq!(text(dir(2, "/"), "/../../etc/passwd"), "/box/root/etc/passwd");
        assert_eq!(text(dir(2, "/home"), "f"), "/box/root/home/f");
        assert_eq!(text(dir(9, "/home"), "f"), "//254:9/home/f");
        assert_eq!(text(dir(1, "/srv"), ""), "/srv");
        assert_eq!(text(None, "/a/./b"), "/a/b");
    }

    proptest! {
        #[test]
        fn joined_paths_are_normal(base in "(/[a-z.]{1,3}){0,4}", text in "[a-z./]{0,20}") {
            let joined = join(base.as_bytes(), text.as_bytes());
            prop_assert_eq!(&join(b"/", &joined), &joined);
            prop_assert!(joined.starts_with(b"/"));
            prop_assert!(!joined.split(|b| *b == b'/').any(|c| c == b".." || c == b"."));
        }
    }
}
