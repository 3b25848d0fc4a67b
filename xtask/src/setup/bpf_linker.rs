//! bpf-linker, which turns LLVM bitcode into the eBPF object.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use super::{Rustc, step};
use crate::{shell, workspace};

/// The last release that links against the compiler's own libLLVM; later ones need a system LLVM.
const VERSION: &str = "0.10.3";

/// The LLVM that [`VERSION`] speaks.
const LLVM: &str = "22";

/// Where the linker is, once set up.
pub(crate) fn path() -> Result<PathBuf> {
    Ok(tools()?.join("bin/bpf-linker"))
}

/// Inside the target directory: the user's own cargo bin is none of our business.
fn tools() -> Result<PathBuf> {
    Ok(workspace::target()?.join("tools"))
}

/// A linker with another LLVM than the compiler reads its bitcode wrongly or not at all.
pub(super) fn check_llvm(rustc: &Rustc) -> Result<()> {
    if rustc.llvm != LLVM {
        bail!(
            "rustc {} has LLVM {}, but bpf-linker {VERSION} needs LLVM {LLVM}: use rustc 1.95.0 \
             (`rustup toolchain install 1.95.0 && rustup override set 1.95.0`)",
            rustc.release,
            rustc.llvm
        );
    }
    Ok(())
}

/// Builds the pinned release unless it is there.
pub(super) fn ensure() -> Result<()> {
    let path = path()?;
    if shell::output(Command::new(&path).arg("--version")).is_ok_and(|text| text.contains(VERSION)) {
        return Ok(());
    }
    step(&format!("bpf-linker {VERSION} from the crates registry"), || {
        let tools = tools()?;
        let build = tools.join("build");
        shell::run(
            workspace::cargo()?
                .args(["install", "--locked", "--force", "--root"])
                .arg(&tools)
                .arg("--target-dir")
                .arg(&build)
                .arg(format!("bpf-linker@{VERSION}"))
                // Flags meant for the caller's own build can break this one.
                .env_remove("RUSTFLAGS")
                .env_remove("CARGO_ENCODED_RUSTFLAGS"),
        )?;
        fs::remove_dir_all(&build)?;
        let said = shell::output(Command::new(&path).arg("--version"))?;
        if !said.contains(VERSION) {
            bail!("the bpf-linker just built says it is {}", said.trim());
        }
        Ok(())
    })
}
