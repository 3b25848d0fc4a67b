//! Canaries: small acts that make hooks fire, and the kernel's own count of how often each program ran meanwhile.
//!
//! A program that attached is not yet a program that runs: `lsm=` may leave BPF out, a hook may be compiled away. Nothing
//! here leaves a trace on the host: files go into a directory that is removed, sockets stay on loopback.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::{
        fs::{FileExt as _, PermissionsExt as _, symlink},
        net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
};

use aya::sys::{Stats, enable_stats};
use rustix::fs::{Mode, OFlags, XattrFlags};

use super::{KernelError, object::Kernel};

impl Kernel {
    /// How often each program ran while the canary acts were done.
    ///
    /// # Errors
    /// When the kernel does not count, or the directory for the acts cannot be made.
    pub fn canary(&mut self) -> Result<BTreeMap<&'static str, u64>, KernelError> {
        let counting =
            enable_stats(Stats::RunTime).map_err(|e| KernelError::bpf("count program runs", &e))?;
        let before = self.runs();
        let dir = std::env::temp_dir().join(format!("agent-monitor-canary-{}", std::process::id()));
        fs::create_dir(&dir).map_err(|e| KernelError::io("make", &dir, e))?;
        act(&dir, self.cgroup_mount());
        fs::remove_dir_all(&dir).map_err(|e| KernelError::io("remove", &dir, e))?;
        let after = self.runs();
        drop(counting);
        Ok(after
            .into_iter()
            .map(|(name, n)| (name, n - before.get(name).copied().unwrap_or(0).min(n)))
            .collect())
    }

    fn runs(&self) -> BTreeMap<&'static str, u64> {
        let run = |name: &str| self.program_figure(name, "run_cnt:");
        self.outcomes().keys().filter_map(|name| Some((*name, run(name)?))).collect()
    }
}

/// Every act. A failing one only leaves its hook unconfirmed, which is what the result then says.
fn act(dir: &Path, cgroup: Option<&Path>) {
    let done = [files(dir), sockets(dir), processes(dir), privileges(dir), cgroups(cgroup)];
    for error in done.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "a canary act failed");
    }
}

fn files(dir: &Path) -> std::io::Result<()> {
    let (a, b, c) = (dir.join("a"), dir.join("b"), dir.join("c"));
    fs::write(&a, b"canary")?;
    fs::hard_link(&a, &b)?;
    fs::rename(&b, &c)?;
    symlink(&a, &b)?;
    fs::File::options().write(true).open(&a)?.set_len(1)?;
    fs::set_permissions(&a, fs::Permissions::from_mode(0o600))?;
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("n"), rustix::fs::FileType::Fifo, Mode::RUSR, 0)?;
    fs::create_dir(dir.join("d"))?;
    fs::remove_dir(dir.join("d"))?;
    fs::remove_file(&c)?;
    // Not every file system takes these; the hook runs before it says so.
    let set = rustix::fs::setxattr(&a, "user.canary", b"1", XattrFlags::empty());
    let removed = rustix::fs::removexattr(&a, "user.canary");
    set.and(removed)?;
    Ok(())
}

fn sockets(dir: &Path) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.write_all(b"x")?;
    far.read_exact(&mut [0])?;
    drop((near, far));
    let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    a.send_to(b"x", b.local_addr()?)?;
    b.recv(&mut [0])?;
    if let Ok(six) = UdpSocket::bind("[::1]:0") {
        six.send_to(b"x", six.local_addr()?)?;
        six.connect(six.local_addr()?)?;
    }
    let path = dir.join("s");
    let listener = UnixListener::bind(&path)?;
    let _near = UnixStream::connect(&path)?;
    let _far = listener.accept()?;
    let datagram = UnixDatagram::bind_addr(&SocketAddr::from_pathname(dir.join("g"))?)?;
    UnixDatagram::unbound()?.send_to(b"x", dir.join("g"))?;
    datagram.recv(&mut [0])?;
    Ok(())
}

fn processes(dir: &Path) -> std::io::Result<()> {
    let itself = std::env::current_exe()?;
    let mut child = Command::new(itself)
        .arg("--version")
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .uid(65534)
        .gid(65534)
        .spawn()?;
    let memory = fs::File::open(format!("/proc/{}/mem", child.id()));
    if let Ok(memory) = memory {
        // Reading at 0 fails; opening is what asks for permission.
        let _nothing_there = memory.read_at(&mut [0], 0);
    }
    let killed = child.kill();
    child.wait()?;
    killed
}

fn privileges(dir: &Path) -> std::io::Result<()> {
    let thread = std::thread::spawn(|| -> rustix::io::Result<()> {
        // A thread of its own: its file table is not shared afterwards, and it ends.
        // SAFETY: only this thread's descriptor table is copied; it opens and closes nothing.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }?;
        let own = rustix::thread::capabilities(None)?;
        rustix::thread::set_capabilities(None, own)?;
        let root = rustix::fs::open("/proc/self/ns/uts", OFlags::RDONLY, Mode::empty())?;
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&root), None)
    });
    // A type that no kernel has: refused, after the hook.
    let flags = rustix::mount::MountFlags::empty();
    let _refused = rustix::mount::mount("none", dir, "agent-monitor-canary", flags, None);
    let _not_mounted = rustix::mount::unmount(dir, rustix::mount::UnmountFlags::empty());
    thread.join().unwrap_or(Ok(()))?;
    Ok(())
}

fn cgroups(mount: Option<&Path>) -> std::io::Result<()> {
    let Some(mount) = mount else { return Ok(()) };
    let dir = mount.join(format!("agent-monitor-canary-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let moved = fs::write(dir.join("cgroup.procs"), child.id().to_string());
    child.wait()?;
    // The child is gone only after a moment for the cgroup; an unused directory does no harm for that long.
    for _ in 0..50 {
        if fs::remove_dir(&dir).is_ok() {
            return moved;
        }
        std::thread::yield_now();
    }
    fs::remove_dir(&dir)?;
    moved
}
