//! Freezing a control group that holds one agent and nothing else: all of it stops at one moment.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::attribute::TaskKey;
use crate::attribute::boot;
use crate::kernel::bpffs::cgroup_mount;

/// Looks at whether it is frozen, a millisecond apart at the least.
const LOOKS: usize = 2_000;

/// Freezes the group that all of `keys` are in, if nobody else is in it. Its path, when it is frozen.
#[must_use]
pub fn freeze(keys: &[TaskKey]) -> Option<String> {
    let groups: BTreeSet<String> =
        keys.iter().map(|key| boot::read(key.tgid)?.cgroup).collect::<Option<_>>()?;
    let group = groups.into_iter().next().filter(|group| group.len() > 1 && !group.contains(".."))?;
    let dir = dir_of(&group)?;
    let mine: BTreeSet<u32> = keys.iter().map(|key| key.tgid).collect();
    let all = members(&dir).ok()?;
    if all.is_empty() || !all.is_subset(&mine) {
        return None;
    }
    set(&dir, true).ok()?;
    for _ in 0..LOOKS {
        if is_frozen(&dir) {
            return Some(group);
        }
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
    // Not in time: the caller stops each process instead, and nothing is left half frozen.
    if let Err(error) = set(&dir, false) {
        tracing::error!(%group, %error, "cannot thaw a control group that did not freeze");
    }
    None
}

/// The processes that are in a frozen group; none where it is not frozen.
#[must_use]
pub fn frozen(group: &str) -> BTreeSet<u32> {
    dir_of(group).filter(|dir| is_frozen(dir)).and_then(|dir| members(&dir).ok()).unwrap_or_default()
}

/// Lets a frozen group go on.
///
/// # Errors
/// When it cannot be written; a group that is gone is no error.
pub fn thaw(group: &str) -> io::Result<()> {
    let Some(dir) = dir_of(group) else { return Ok(()) };
    match set(&dir, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A group's directory, wherever the unified hierarchy is mounted: on hybrid hosts that is below `/sys/fs/cgroup`. `None`
/// where none is: then nothing is frozen.
fn dir_of(group: &str) -> Option<PathBuf> {
    Some(cgroup_mount()?.join(group.trim_start_matches('/')))
}

fn set(dir: &Path, frozen: bool) -> io::Result<()> {
    fs::write(dir.join("cgroup.freeze"), if frozen { "1" } else { "0" })
}

fn is_frozen(dir: &Path) -> bool {
    fs::read_to_string(dir.join("cgroup.events"))
        .is_ok_and(|text| text.lines().any(|line| line == "frozen 1"))
}

/// Processes of a group and of those below it.
fn members(dir: &Path) -> io::Result<BTreeSet<u32>> {
    let text = fs::read_to_string(dir.join("cgroup.procs"))?;
    let mut all: BTreeSet<u32> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(members(&entry.path())?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_with_others_in_it_is_not_frozen() {
        // This process shares its group with the test's runner, and the root is never frozen.
        let start = boot::start_ticks(std::process::id()).unwrap() * 10_000_000;
        let me = TaskKey { tgid: std::process::id(), start };
        let parent = TaskKey { tgid: std::os::unix::process::parent_id(), start: 0 };
        assert_eq!(freeze(&[parent]), None);
        assert_eq!(freeze(&[]), None);
        assert!(boot::read(me.tgid).is_some());
        thaw("/no/such/group").unwrap();
    }
}
