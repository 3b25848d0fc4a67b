//! The programs of the lanes that need root: the daemon, the `kernel` tests and their helpers.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{build, shell};

/// Built programs, in the dev profile.
pub(crate) struct Programs {
    /// The daemon and CLI
    pub(crate) daemon: PathBuf,
    /// Test binary of the lanes `host` and `vm`
    pub(crate) kernel_tests: PathBuf,
    /// What the tests start, by name: `actor`, which does what they observe, and others beside it
    pub(crate) helpers: Vec<(String, PathBuf)>,
    /// First process of a virtual machine
    pub(crate) guest_init: PathBuf,
}

/// The fields of cargo's JSON messages that matter here.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds the eBPF object and all four.
pub(crate) fn build() -> Result<Programs> {
    build::object()?;
    let mut cargo = build::host_cargo()?;
    cargo
        .args(["build", "-p", "agent-monitor", "-p", "agent-monitor-tests", "--bins", "--test", "kernel"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    let out = cargo.output().context("cannot start cargo")?;
    if !out.status.success() {
        bail!("`{}` failed", shell::line(&cargo));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    let mut built: Vec<(String, PathBuf)> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter_map(|message| Some((message.target?.name, message.executable?)))
        .collect();
    let mut take = |name: &str| {
        let at = built.iter().position(|(target, _)| target == name);
        at.map(|at| built.swap_remove(at).1).with_context(|| format!("cargo built no program `{name}`"))
    };
    Ok(Programs {
        daemon: take("agent-monitor")?,
        kernel_tests: take("kernel")?,
        guest_init: take("guest-init")?,
        helpers: built,
    })
}

impl Programs {
    /// The helper that acts out what the tests observe.
    pub(crate) fn actor(&self) -> Result<&Path> {
        let found = self.helpers.iter().find(|(name, _)| name == "actor");
        found.map(|(_, path)| path.as_path()).context("cargo built no program `actor`")
    }
}
