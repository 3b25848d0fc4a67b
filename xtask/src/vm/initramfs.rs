//! What a virtual machine boots into: busybox, our programs, their libraries, a few kernel modules.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use super::kernel::Kernel;
use crate::programs::Programs;
use crate::setup::packages::busybox;
use crate::{shell, workspace};

/// Modules that tests may need; what they depend on comes along, what is built in is left out.
///
/// Nothing loads them: the kernel asks for them through `/sbin/modprobe` when they are first used.
const MODULES: &[&str] = &[
    "overlay",
    "squashfs",
    "loop",
    "fuse",
    "virtio_blk",
    "virtio_net",
    "veth",
    "dummy",
    "tun",
    "vsock",
    "vsock_loopback",
    "sctp",
    "unix_diag",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "nf_tables",
];

/// Users and groups of the machine: root, two that agents may run as, nobody.
const USERS: &[(&str, u32)] = &[("root", 0), ("agent", 1001), ("other", 1002), ("nobody", 65534)];

/// Mount points and the like that exist from the start.
const FOLDERS: &[&str] =
    &["bin", "dev", "etc", "lib64", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "var/lib", "srv"];

/// The part that is the same for every kernel, as a compressed archive.
pub(crate) fn base(programs: &Programs, with: &[PathBuf], script: Option<&Path>) -> Result<PathBuf> {
    let stage = tempfile::Builder::new().prefix("agent-monitor-initramfs-").tempdir()?;
    let root = stage.path();
    for folder in FOLDERS {
        fs::create_dir_all(root.join(folder))?;
    }
    accounts(root)?;
    applets(root)?;
    let mut ours =
        vec![(&programs.guest_init, "init".to_string()), (&programs.daemon, "bin/agent-monitor".to_string())];
    ours.extend(programs.kernel_tests.iter().map(|path| (path, "bin/kernel-tests".to_string())));
    ours.extend(programs.helpers.iter().map(|(name, path)| (path, format!("bin/{name}"))));
    for (from, to) in &ours {
        strip(from, &root.join(to))?;
    }
    let mut linked: Vec<PathBuf> = ours.into_iter().map(|(from, _)| from.clone()).collect();
    for path in with {
        linked.extend(take_along(path, root)?);
    }
    libraries(&linked, root)?;
    executable(root, "bin/monitor-up", include_str!("monitor-up.sh"))?;
    if let Some(script) = script {
        let text = fs::read_to_string(script).with_context(|| format!("cannot read {}", script.display()))?;
        executable(root, "script", &text)?;
    }
    let name = if script.is_some() { "vm/script.cpio.gz" } else { "vm/base.cpio.gz" };
    let archive = workspace::target()?.join(name);
    pack(root, &archive)?;
    Ok(archive)
}

/// The whole for one kernel: the kernel unpacks archives that follow one another as one.
pub(crate) fn build(kernel: &Kernel, base: &Path) -> Result<PathBuf> {
    let whole = workspace::target()?.join(format!("vm/{}.initramfs", kernel.series));
    let mut file = fs::File::create(&whole)?;
    let mut parts = vec![base.to_path_buf(), modules(kernel)?];
    parts.extend(super::interpreters::archive(kernel)?);
    for part in parts {
        file.write_all(&fs::read(part)?)?;
    }
    Ok(whole)
}

fn executable(root: &Path, name: &str, text: &str) -> Result<()> {
    let path = root.join(name);
    fs::write(&path, text)?;
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
}

fn accounts(root: &Path) -> Result<()> {
    let passwd: String =
        USERS.iter().map(|(name, id)| format!("{name}:x:{id}:{id}::/root:/bin/sh\n")).collect();
    let group: String = USERS.iter().map(|(name, id)| format!("{name}:x:{id}:\n")).collect();
    fs::write(root.join("etc/passwd"), passwd)?;
    fs::write(root.join("etc/group"), group)?;
    fs::write(root.join("etc/nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    fs::write(root.join("etc/hostname"), "guest\n")?;
    Ok(())
}

/// Every tool of busybox at `/bin`, and where scripts and the kernel look for some of them.
fn applets(root: &Path) -> Result<()> {
    let busybox = busybox()?;
    fs::copy(&busybox, root.join("bin/busybox"))?;
    for applet in shell::output(Command::new(&busybox).arg("--list"))?.lines() {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(applet))?;
        }
    }
    symlink("/bin/busybox", root.join("sbin/modprobe"))?;
    Ok(symlink("/bin/busybox", root.join("usr/bin/env"))?)
}

/// Copies a file or folder of the host to the same path; returns the programs in it.
pub(super) fn take_along(path: &Path, root: &Path) -> Result<Vec<PathBuf>> {
    let path = std::path::absolute(path)?;
    let place = root.join(path.strip_prefix("/")?);
    let parent = place.parent().context("the root folder cannot be taken along")?;
    fs::create_dir_all(parent)?;
    shell::output(Command::new("cp").args(["-aL"]).arg(&path).arg(parent))?;
    let files = shell::output(Command::new("find").arg(&path).args(["-follow", "-type", "f"]))?;
    Ok(files.lines().map(PathBuf::from).filter(|file| is_elf(file)).collect())
}

fn is_elf(path: &Path) -> bool {
    use std::io::Read as _;
    let mut magic = [0; 4];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

/// Symbols would be most of the image, and of the time to unpack it and to hash the daemon at each start under emulation.
fn strip(from: &Path, to: &Path) -> Result<()> {
    if shell::find("strip").is_some() {
        shell::output(Command::new("strip").arg("--strip-all").arg("-o").arg(to).arg(from))?;
    } else {
        fs::copy(from, to)?;
    }
    Ok(())
}

/// Every shared library that `ldd` names for these programs, at the same path.
pub(super) fn libraries(programs: &[PathBuf], root: &Path) -> Result<()> {
    let mut found = BTreeSet::new();
    for program in programs {
        // ldd fails for a static program, which needs nothing.
        let Ok(text) = shell::output(Command::new("ldd").arg(program)) else { continue };
        if text.contains("not found") {
            bail!("{} needs a library that is missing here:\n{text}", program.display());
        }
        found.extend(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
    }
    for library in found {
        let place = root.join(library.strip_prefix("/")?);
        fs::create_dir_all(place.parent().unwrap_or(root))?;
        fs::copy(&library, &place).with_context(|| format!("cannot copy {}", library.display()))?;
    }
    Ok(())
}

/// The modules of one kernel as an archive; kept, because they change only with the kernel.
fn modules(kernel: &Kernel) -> Result<PathBuf> {
    let digest = Sha256::digest(MODULES.join(","));
    let key: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let archive = workspace::target()?.join(format!("vm/modules-{}-{key}.cpio.gz", kernel.release));
    if archive.is_file() {
        return Ok(archive);
    }
    let stage = tempfile::tempdir()?;
    let place = stage.path().join("lib/modules").join(&kernel.release);
    fs::create_dir_all(&place)?;
    for name in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        if kernel.modules.join(name).is_file() {
            fs::copy(kernel.modules.join(name), place.join(name))?;
        }
    }
    let all =
        shell::output(Command::new("find").arg(kernel.modules.join("kernel")).args(["-name", "*.ko*"]))?;
    let mut wanted: VecDeque<String> = MODULES.iter().map(ToString::to_string).collect();
    let mut taken = BTreeSet::new();
    while let Some(name) = wanted.pop_front() {
        // What is not there as a module is built in, or this kernel does not have it.
        let Some(file) = all.lines().map(Path::new).find(|file| module_name(file) == name) else { continue };
        if taken.insert(name.clone()) {
            let to = place.join("kernel").join(format!("{name}.ko"));
            wanted.extend(unpack_module(file, &to)?);
        }
    }
    let base = stage.path();
    shell::output(Command::new(busybox()?).args(["depmod", "-b"]).arg(base).arg(&kernel.release))?;
    pack(base, &archive)?;
    Ok(archive)
}

fn module_name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split(".ko").next().unwrap_or_default().replace('-', "_")
}

/// Writes the module uncompressed (busybox cannot load others) and returns what it depends on.
fn unpack_module(file: &Path, to: &Path) -> Result<Vec<String>> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    let bytes = if file.extension().is_some_and(|end| end == "xz") {
        let out = Command::new("xz").arg("-dc").arg(file).output().context("cannot start xz")?;
        if !out.status.success() {
            bail!("xz cannot unpack {}", file.display());
        }
        out.stdout
    } else {
        fs::read(file)?
    };
    fs::write(to, &bytes)?;
    Ok(dependencies(&bytes))
}

/// `depends=` of a module's information section, a list of strings that each end with a zero byte.
fn dependencies(module: &[u8]) -> Vec<String> {
    let entry = module.split(|byte| *byte == 0).find_map(|text| text.strip_prefix(b"depends="));
    let text = String::from_utf8_lossy(entry.unwrap_or_default()).replace('-', "_");
    text.split(',').filter(|name| !name.is_empty()).map(ToString::to_string).collect()
}

pub(super) fn pack(root: &Path, archive: &Path) -> Result<()> {
    let parent = archive.parent().context("an archive needs a folder")?;
    fs::create_dir_all(parent)?;
    let fresh = tempfile::NamedTempFile::new_in(parent)?;
    let script = "set -e -o pipefail; find . -mindepth 1 -print0 | LC_ALL=C sort -z \
                  | cpio --null --create --format=newc --owner=0:0 --quiet | gzip -1";
    let mut shell = Command::new("bash");
    shell.args(["-c", script]).current_dir(root).stdout(Stdio::from(fresh.reopen()?));
    shell::run(&mut shell).context("cannot pack the initramfs")?;
    fresh.persist(archive)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_module_information() {
        let module = b"\x7fELF..\0license=GPL\0depends=vsock,vmw-vsock-common\0name=x\0";
        assert_eq!(dependencies(module), ["vsock", "vmw_vsock_common"]);
        assert!(dependencies(b"license=GPL\0depends=\0").is_empty());
    }

    #[test]
    fn module_files_are_known_by_the_kernels_name() {
        assert_eq!(module_name(Path::new("/x/vmw-vsock.ko.xz")), "vmw_vsock");
        assert_eq!(module_name(Path::new("/x/loop.ko")), "loop");
    }
}
