//! The directory of pins: is it on bpffs, whose is it, which version.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::KernelError;

/// `BPF_FS_MAGIC`, include/uapi/linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// Where distributions mount bpffs.
pub const DEFAULT_MOUNT: &str = "/sys/fs/bpf";

/// Makes sure that `dir` exists on a BPF file system. The default mount point is mounted when nothing is there, as
/// systemd would have done; any other place is the operator's to mount.
///
/// # Errors
/// When `dir` is elsewhere or cannot be made.
pub fn prepare(dir: &Path) -> Result<(), KernelError> {
    let existing = nearest(dir);
    if !is_bpffs(&existing) {
        if !dir.starts_with(DEFAULT_MOUNT) || !Path::new(DEFAULT_MOUNT).is_dir() {
            let mount = existing.display().to_string();
            return Err(KernelError::NotBpffs { path: dir.display().to_string(), mount });
        }
        rustix::mount::mount("bpf", DEFAULT_MOUNT, "bpf", rustix::mount::MountFlags::empty(), None)
            .map_err(|e| KernelError::io("mount a BPF file system on", DEFAULT_MOUNT, e.into()))?;
        tracing::info!("mounted a BPF file system on {DEFAULT_MOUNT}: none was there");
    }
    fs::create_dir_all(dir).map_err(|e| KernelError::io("make", dir, e))
}

fn nearest(dir: &Path) -> PathBuf {
    dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/")).to_path_buf()
}

/// Whether a path lies on a BPF file system.
pub fn is_bpffs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|s| s.f_type as u64 == BPF_FS_MAGIC)
}

/// Removes every pin in a directory and the directory itself: what only the pins held is detached and freed.
///
/// # Errors
/// When something cannot be removed.
pub fn remove(dir: &Path) -> Result<(), KernelError> {
    if !dir.exists() {
        return Ok(());
    }
    // Links first: a program must not run over maps that are going away.
    for links in [true, false] {
        for entry in fs::read_dir(dir).map_err(|e| KernelError::io("read", dir, e))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = if links { &["link_", "new_"][..] } else { &["map_"][..] };
            if ours.iter().any(|start| name.starts_with(start)) {
                fs::remove_file(entry.path()).map_err(|e| KernelError::io("remove", entry.path(), e))?;
            }
        }
    }
    match fs::remove_dir(dir) {
        Ok(()) => Ok(()),
        // A mount point, or a place where somebody else pins too: what was ours is gone.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY | libc::EPERM)) => Ok(()),
        Err(e) => Err(KernelError::io("remove", dir, e)),
    }
}

/// cgroup v2 mount of this host: unified, or beside the v1 hierarchies.
pub fn cgroup_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        (back.split(' ').next()? == "cgroup2").then(|| PathBuf::from(front.split(' ').nth(4).unwrap_or("/")))
    })
}
