//! The programs of the lanes that need root: the daemon, the `kernel` tests and their helpers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::build::{self, Profile};
use crate::shell;

/// Built programs.
pub(crate) struct Programs {
    /// The daemon and CLI
    pub(crate) daemon: PathBuf,
    /// Test binary of the lanes `host` and `vm`; a machine that runs a script does without
    pub(crate) kernel_tests: Option<PathBuf>,
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

/// Builds the eBPF object, the daemon as the kernel lanes start it, the tests and what they start.
pub(crate) fn build() -> Result<Programs> {
    let daemon = build::daemon(Profile::Test)?;
    let (guest_init, mut helpers) = helpers(&["--bins", "--test", "kernel"])?;
    let kernel_tests = Some(take(&mut helpers, "kernel")?);
    Ok(Programs { daemon, kernel_tests, guest_init, helpers })
}

/// What a machine needs that runs a script: everything but the tests.
pub(crate) fn build_for_script() -> Result<Programs> {
    let daemon = build::daemon(Profile::Test)?;
    let (guest_init, helpers) = helpers(&["--bins"])?;
    Ok(Programs { daemon, kernel_tests: None, guest_init, helpers })
}

/// Builds targets of the tests' package: the first process of a machine, and the others by name.
fn helpers(targets: &[&str]) -> Result<(PathBuf, Vec<(String, PathBuf)>)> {
    let mut cargo = build::host_cargo()?;
    cargo.args(["build", "-p", "agent-monitor-tests"]).args(targets);
    let mut built = executables(&mut cargo)?;
    Ok((take(&mut built, "guest-init")?, built))
}

fn take(built: &mut Vec<(String, PathBuf)>, name: &str) -> Result<PathBuf> {
    let at = built.iter().position(|(target, _)| target == name);
    at.map(|at| built.swap_remove(at).1).with_context(|| format!("cargo built no program `{name}`"))
}

/// Runs a `cargo build` and returns the programs it made, by the names of their targets.
pub(crate) fn executables(cargo: &mut Command) -> Result<Vec<(String, PathBuf)>> {
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let out = cargo.output().context("cannot start cargo")?;
    if !out.status.success() {
        bail!("`{}` failed", shell::line(cargo));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter_map(|message| Some((message.target?.name, message.executable?)))
        .collect())
}

impl Programs {
    /// The test binary.
    pub(crate) fn tests(&self) -> Result<&Path> {
        self.kernel_tests.as_deref().context("the kernel tests were not built")
    }

    /// The helper that acts out what the tests observe.
    pub(crate) fn actor(&self) -> Result<&Path> {
        let found = self.helpers.iter().find(|(name, _)| name == "actor");
        found.map(|(_, path)| path.as_path()).context("cargo built no program `actor`")
    }
}
