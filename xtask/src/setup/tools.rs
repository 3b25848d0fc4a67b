//! QEMU, the archive tools and a browser, installed by the system's own apt.

use std::process::Command;

use anyhow::{Result, bail};

use super::step;
use crate::shell;

/// Program on `PATH`, and the package that brings it.
const TOOLS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("cpio", "cpio"),
    ("gzip", "gzip"),
    ("xz", "xz-utils"),
    ("dpkg-deb", "dpkg"),
];

/// What the host lane shows the report in.
const BROWSER: &[(&str, &str)] = &[("chromium", "chromium")];

/// Installs what is missing for virtual machines; never touches what is there.
pub(super) fn ensure() -> Result<()> {
    install(TOOLS)
}

/// Installs a browser where there is none.
pub(super) fn ensure_browser() -> Result<()> {
    install(BROWSER)
}

fn install(tools: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = tools
        .iter()
        .filter(|(program, _)| shell::find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !shell::is_root() {
        bail!("missing: {packages}; run as root once: apt-get install --no-install-recommends {packages}");
    }
    step(&format!("apt-get install {packages}"), || {
        shell::output(apt_get().args(["-q", "update"]))?;
        shell::output(apt_get().args(["-q", "-y", "install", "--no-install-recommends"]).args(&missing))?;
        let still: Vec<&str> = tools
            .iter()
            .map(|(program, _)| *program)
            .filter(|program| shell::find(program).is_none())
            .collect();
        if !still.is_empty() {
            bail!("installed, yet not on PATH: {}", still.join(" "));
        }
        Ok(())
    })
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
