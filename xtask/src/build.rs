//! `build`: the eBPF object, then the daemon that carries it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};

use crate::{programs, setup, shell, workspace};

/// The target that the kernel's BPF machine is to rustc.
const BPF_TARGET: &str = "bpfel-unknown-none";

/// Options of `build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Optimised, as shipped
    #[arg(long)]
    release: bool,
}

/// The command.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    let profile = if args.release { Profile::Release } else { Profile::Test };
    let daemon = daemon(profile)?;
    println!("built {} with {}", workspace::shown(&daemon), workspace::shown(&object_path()?));
    Ok(ExitCode::SUCCESS)
}

/// How the daemon is built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As quickly as possible, to be looked at
    Demo,
    /// For the tests: the library is optimised, because under software emulation one that is not takes seconds to read the
    /// kernel's types. Dependencies are the same as for [`Profile::Demo`], so they are compiled once.
    Test,
    /// As shipped
    Release,
}

impl Profile {
    /// What cargo is told.
    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Demo => &[],
            Self::Test => TESTED,
            Self::Release => &["--release"],
        }
    }

    /// Where the program is kept: two of these end up under one name in cargo's own folder.
    fn folder(self) -> &'static str {
        match self {
            Self::Demo => "built/demo",
            Self::Test => "built/test",
            Self::Release => "built/release",
        }
    }
}

/// How cargo is told to build what [`Profile::Test`] is: for the daemon, and for tests that link the library as it does.
pub(crate) const TESTED: &[&str] = &["--config", "profile.dev.package.agent-monitor.opt-level=1"];

/// Builds everything and returns where the daemon is. The library and the eBPF object, with the linker that it needs, are
/// built side by side: neither waits for the other.
pub(crate) fn daemon(profile: Profile) -> Result<PathBuf> {
    thread::scope(|scope| -> Result<()> {
        let object = scope.spawn(object);
        let mut library = host_cargo()?;
        library.args(["build", "-p", "agent-monitor", "--lib"]).args(profile.args());
        step("the library", || shell::run(&mut library))?;
        object.join().map_err(|_panic| anyhow!("the build of the eBPF object panicked"))??;
        Ok(())
    })?;
    let mut cargo = host_cargo()?;
    cargo.args(["build", "-p", "agent-monitor", "--bin", "agent-monitor"]).args(profile.args());
    let built = step("the daemon", || programs::executables(&mut cargo))?;
    let (_, program) = built.first().context("cargo built no program `agent-monitor`")?;
    let kept = workspace::target()?.join(profile.folder()).join("agent-monitor");
    fs::create_dir_all(kept.parent().unwrap_or(Path::new(".")))?;
    if shell::copy_if_changed(program, &kept)? {
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o755))?;
    }
    Ok(kept)
}

/// Runs one step of a build, and says how long it took where that is worth saying.
fn step<T>(what: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let value = action()?;
    let took = start.elapsed().as_secs_f64();
    if took >= 1.0 {
        println!("build: {what}: done in {took:.1} s");
    }
    Ok(value)
}

/// Sets up, then builds the eBPF object; the file changes only when its content does.
pub(crate) fn object() -> Result<PathBuf> {
    setup::ensure_build()?;
    let mut cargo = bpf_cargo("build")?;
    cargo.args(["--bin", "agent-monitor-ebpf"]);
    step("the eBPF object", || shell::run(&mut cargo))?;
    let fresh = bpf_target()?.join(BPF_TARGET).join("release/agent-monitor-ebpf");
    let object = object_path()?;
    shell::copy_if_changed(&fresh, &object).context("the eBPF object was not built")?;
    Ok(object)
}

/// Cargo for host packages. Each call names the object in the same words, or cargo would rebuild.
pub(crate) fn host_cargo() -> Result<Command> {
    let mut cargo = workspace::cargo()?;
    cargo.env("AGENT_MONITOR_BPF_OBJECT", object_path()?);
    Ok(cargo)
}

/// Cargo for the eBPF programs: `build`, `clippy`, with everything that makes them loadable.
pub(crate) fn bpf_cargo(verb: &str) -> Result<Command> {
    let linker = setup::bpf_linker()?;
    let flags = [
        format!("-Clinker={}", linker.display()),
        // BTF is made from debug information; without it BTF maps do not load.
        "-Cdebuginfo=2".to_string(),
        "-Clink-arg=--btf".to_string(),
        // Atomics with a result need v3. rustc hands the cpu to the linker itself.
        "-Ctarget-cpu=v3".to_string(),
    ];
    let target = bpf_target()?;
    fs::create_dir_all(&target)?;
    let mut cargo = workspace::cargo()?;
    cargo
        .args([verb, "--release", "-p", "agent-monitor-ebpf", "--target", BPF_TARGET, "-Zbuild-std=core"])
        .arg("--target-dir")
        .arg(&target)
        // `build-std` is unstable; the pinned compiler is a stable one.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTFLAGS")
        // The workspace's release profile is for the daemon; the verifier wants one whole, unwinding-free unit.
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort");
    Ok(cargo)
}

/// Where the object is after [`object`].
pub(crate) fn object_path() -> Result<PathBuf> {
    Ok(bpf_target()?.join("agent-monitor.bpf.o"))
}

/// A target folder of its own: other flags than the host's would throw away the host's build.
fn bpf_target() -> Result<PathBuf> {
    let target = workspace::target()?;
    Ok(Path::new(&target).join("bpf"))
}
