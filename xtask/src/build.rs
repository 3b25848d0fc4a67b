//! `build`: the eBPF object, then the daemon that carries it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

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
    let profile = if args.release { Profile::Release } else { Profile::Dev };
    let daemon = daemon(profile)?;
    println!("built {} with {}", workspace::shown(&daemon), workspace::shown(&object_path()?));
    Ok(ExitCode::SUCCESS)
}

/// How host programs are built.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// Builds everything and returns where the daemon is.
pub(crate) fn daemon(profile: Profile) -> Result<PathBuf> {
    object()?;
    let mut cargo = host_cargo()?;
    cargo.args(["build", "-p", "agent-monitor"]);
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            cargo.arg("--release");
            "release"
        }
    };
    shell::run(&mut cargo)?;
    Ok(workspace::target()?.join(folder).join("agent-monitor"))
}

/// The daemon for the kernel lanes: the dev profile with the library optimised, because under software emulation an
/// unoptimised one takes seconds to read the kernel's types. Dependencies are those of the dev profile, so that they are
/// compiled once; the program is kept under a name of its own beside the unoptimised one.
pub(crate) fn guest_daemon() -> Result<PathBuf> {
    object()?;
    let mut cargo = host_cargo()?;
    cargo.args(["build", "-p", "agent-monitor", "--bin", "agent-monitor"]);
    cargo.args(GUEST_PROFILE.iter().flat_map(|setting| ["--config", setting]));
    let built = programs::executables(&mut cargo)?;
    let (_, program) = built.first().context("cargo built no program `agent-monitor`")?;
    let kept = workspace::target()?.join("vm/agent-monitor");
    fs::create_dir_all(kept.parent().unwrap_or(Path::new(".")))?;
    shell::copy_if_changed(program, &kept)?;
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o755))?;
    Ok(kept)
}

/// What differs from the dev profile in [`guest_daemon`].
const GUEST_PROFILE: &[&str] = &["profile.dev.package.agent-monitor.opt-level=1"];

/// Sets up, then builds the eBPF object; the file changes only when its content does.
pub(crate) fn object() -> Result<PathBuf> {
    setup::ensure_build()?;
    shell::run(bpf_cargo("build")?.args(["--bin", "agent-monitor-ebpf"]))?;
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
