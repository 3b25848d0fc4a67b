//! `setup`: makes a fresh machine able to build and test. Each step is skipped when it is already right.

pub(crate) mod apt;
mod bpf_linker;
pub(crate) mod packages;
mod rust_src;
mod tools;

use std::fs::File;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::{shell, workspace};
use apt::LazyApt;
pub(crate) use bpf_linker::path as bpf_linker;

/// Options of `setup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also what the VM matrix needs: QEMU, busybox, the kernels
    #[arg(long)]
    vm: bool,
    /// Ask the package index for newer kernels now, not only once a week
    #[arg(long, requires = "vm")]
    refresh: bool,
}

/// The command.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    ensure_build()?;
    if args.vm {
        let series: Vec<String> = crate::vm::kernel::SERIES.iter().map(ToString::to_string).collect();
        ensure_vm(&series, args.refresh)?;
    }
    println!("setup: everything is in place");
    Ok(ExitCode::SUCCESS)
}

/// What a build needs: the standard library's source and the BPF linker.
pub(crate) fn ensure_build() -> Result<()> {
    let _lock = lock()?;
    let rustc = Rustc::ask()?;
    bpf_linker::check_llvm(&rustc)?;
    rust_src::ensure(&rustc, &LazyApt::default())?;
    bpf_linker::ensure()
}

/// What the VM matrix needs on top; returns the kernels in the order asked for.
pub(crate) fn ensure_vm(series: &[String], refresh: bool) -> Result<Vec<crate::vm::kernel::Kernel>> {
    let _lock = lock()?;
    let apt = LazyApt::default();
    tools::ensure()?;
    packages::ensure_busybox(&apt)?;
    series.iter().map(|name| crate::vm::kernel::ensure(name, &apt, refresh)).collect()
}

/// What the host lane needs on top: a browser to show the report in.
pub(crate) fn ensure_host() -> Result<()> {
    let _lock = lock()?;
    tools::ensure_browser()
}

/// Two work trees that set up at the same time would fight over the toolchain and the cache.
fn lock() -> Result<File> {
    let path = workspace::cache()?.join("setup.lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    if file.try_lock().is_err() {
        println!("setup: waiting for another setup on this machine");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// Runs one step that has something to do, and says what and how long.
pub(crate) fn step<T>(what: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("setup: {what} …");
    let start = Instant::now();
    let value = action().with_context(|| format!("setup: {what}"))?;
    println!("setup: {what}: done in {:.1} s", start.elapsed().as_secs_f64());
    Ok(value)
}

/// The compiler that cargo uses here.
pub(crate) struct Rustc {
    /// `1.95.0`
    pub(crate) release: String,
    /// Major version of its LLVM
    pub(crate) llvm: String,
    /// Its `--print sysroot`
    pub(crate) sysroot: std::path::PathBuf,
}

impl Rustc {
    fn ask() -> Result<Self> {
        let root = workspace::root()?;
        let text = shell::output(Command::new("rustc").arg("-vV").current_dir(&root))?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let (Some(release), Some(llvm)) = (field("release:"), field("LLVM version:")) else {
            bail!("`rustc -vV` names no release or LLVM version:\n{text}");
        };
        let llvm = llvm.split('.').next().unwrap_or(llvm).to_string();
        let sysroot = shell::output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(&root))?;
        Ok(Self { release: release.to_string(), llvm, sysroot: sysroot.trim().into() })
    }
}
