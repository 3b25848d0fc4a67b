//! The standard library's source, of which `-Z build-std` builds `core` for BPF.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use super::apt::{LazyApt, Package};
use super::{Rustc, step};
use crate::shell;

/// Debian's packages of the source: compiler release, package version, SHA-256.
const DEBIAN: &[(&str, &str, &str)] = &[(
    "1.95.0",
    "1.95.0+dfsg1-2~bpo13+1",
    "7b76db5b880a77f9e52975d2baa6209d2f76d2c9c2789515c3088cb960e2c83b",
)];

/// rustup retries for minutes where its server cannot be reached.
const RUSTUP_LIMIT: Duration = Duration::from_secs(90);

/// Which release this program put there: rustup neither knows nor removes what it did not install.
const STAMP: &str = "lib/rustlib/src/rust/.agent-monitor-release";

/// Puts the source where cargo looks for it, unless the right one is there.
pub(super) fn ensure(rustc: &Rustc, apt: &LazyApt) -> Result<()> {
    if present(rustc) {
        return Ok(());
    }
    step(&format!("rust-src {}", rustc.release), || {
        let rustup = by_rustup(rustc);
        let Err(rustup) = rustup else { return Ok(()) };
        println!("setup: rustup could not ({}); trying Debian's package", reason(&rustup));
        by_debian(rustc, apt).map_err(|debian| {
            anyhow!(
                "no source of the standard library for rustc {release} in {sysroot}; both ways failed\n  \
                 1. `rustup component add rust-src`: {rustup:#}\n  \
                 2. Debian package rust-src from trixie-backports: {debian:#}\n  \
                 Make either possible, or unpack `library/` of rustc {release} to \
                 {sysroot}/lib/rustlib/src/rust/library by hand",
                release = rustc.release,
                sysroot = rustc.sysroot.display(),
            )
        })
    })
}

fn present(rustc: &Rustc) -> bool {
    let library = rustc.sysroot.join("lib/rustlib/src/rust/library");
    // Cargo resolves the library's own lock file, so a tree without it is not enough.
    let whole = library.join("core/src/lib.rs").is_file() && library.join("Cargo.lock").is_file();
    let stamp = fs::read_to_string(rustc.sysroot.join(STAMP));
    whole && stamp.map_or(true, |release| release.trim() == rustc.release)
}

fn by_rustup(rustc: &Rustc) -> Result<()> {
    if rustc.sysroot.join(STAMP).exists() {
        // An older source of ours is in the way of rustup's own.
        fs::remove_dir_all(rustc.sysroot.join("lib/rustlib/src/rust"))?;
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", "rust-src"]).env_remove("RUST_BACKTRACE");
    shell::output_within(&mut rustup, RUSTUP_LIMIT)?;
    if !present(rustc) {
        bail!("rustup reports success, but the source is not in {}", rustc.sysroot.display());
    }
    Ok(())
}

fn by_debian(rustc: &Rustc, apt: &LazyApt) -> Result<()> {
    let Some((_, version, sha256)) = DEBIAN.iter().find(|(release, ..)| *release == rustc.release) else {
        bail!("no package is pinned for this release; use rustc {}", DEBIAN[0].0);
    };
    let package = Package {
        name: "rust-src".to_string(),
        version: (*version).to_string(),
        sha256: (*sha256).to_string(),
    };
    let unpacked = tempfile::tempdir()?;
    apt.get()?.unpack(&package, unpacked.path())?;
    let library = unpacked.path().join(format!("usr/src/rustc-{}/library", rustc.release));
    install(&library, &rustc.sysroot)?;
    fs::write(rustc.sysroot.join(STAMP), &rustc.release)?;
    if !present(rustc) {
        bail!("the package holds no usable library source");
    }
    Ok(())
}

/// Copies beside the final place and renames, so that a build never sees half a library.
fn install(library: &Path, sysroot: &Path) -> Result<()> {
    let parent = sysroot.join("lib/rustlib/src/rust");
    fs::create_dir_all(&parent)
        .with_context(|| format!("cannot write to the toolchain at {}", sysroot.display()))?;
    let (fresh, place) = (parent.join("library.new"), parent.join("library"));
    for stale in [&fresh, &place] {
        if stale.exists() {
            fs::remove_dir_all(stale)?;
        }
    }
    shell::output(Command::new("cp").args(["-a", "--no-preserve=ownership"]).arg(library).arg(&fresh))?;
    Ok(fs::rename(&fresh, &place)?)
}

/// rustup's own reason, without the backtrace that the environment may ask for.
fn reason(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let line = text.lines().find(|line| line.starts_with("error:")).or_else(|| text.lines().next());
    line.unwrap_or_default().trim_start_matches("error:").trim().to_string()
}
