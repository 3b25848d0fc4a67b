//! `cargo deny`: licences, banned crates and sources of the dependency tree, by `deny.toml`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use super::REGISTRY;
use crate::tally::Tally;
use crate::{shell, workspace};

/// The release that the lane runs with; another one may read `deny.toml` differently.
const VERSION: &str = "0.20.2";

/// Runs it over the lock file. Without the tool, and without a registry to build it from, it is a skip.
pub(super) fn run() -> Result<Tally> {
    let tool = match tool() {
        Ok(tool) => tool,
        Err(error) => return Ok(Tally::skip("cargo deny", format!("{REGISTRY} {error:#}"))),
    };
    let mut deny = Command::new(tool);
    deny.args(["--offline", "check", "licenses", "bans", "sources"]).current_dir(workspace::root()?);
    Ok(super::check::one("cargo deny", &mut deny))
}

/// The tool, built once per machine: it stays in the cache outside the work tree.
fn tool() -> Result<PathBuf> {
    let root = workspace::cache()?.join(format!("cargo-deny-{VERSION}"));
    let path = root.join("bin/cargo-deny");
    let says = |path: &PathBuf| shell::output(Command::new(path).arg("--version"));
    if says(&path).is_ok_and(|text| text.contains(VERSION)) {
        return Ok(path);
    }
    println!("check: building cargo-deny {VERSION}, once on this machine; this takes some minutes");
    let build = root.join("build");
    shell::run(
        workspace::cargo()?
            .args(["install", "--locked", "--force", "--root"])
            .arg(&root)
            .arg("--target-dir")
            .arg(&build)
            .arg(format!("cargo-deny@{VERSION}"))
            // Flags meant for the caller's own build can break this one.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )?;
    fs::remove_dir_all(&build)?;
    let said = says(&path)?;
    if !said.contains(VERSION) {
        bail!("the cargo-deny just built reports {}", said.trim());
    }
    Ok(path)
}
