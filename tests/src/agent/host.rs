//! A host full of real agents: a directory with packages installed from the registries, once per machine.
//!
//! Programs for other platforms are left out (`--os`), so that it stays at a few hundred megabytes; what is plain
//! JavaScript or Python runs.

use super::install::{Installed, cache_dir, local, lock, registry};
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// One real package, and what a sweep must say of it.
#[derive(Debug, Clone, Copy)]
pub struct Real {
    /// Name in its registry.
    pub package: &'static str,
    pub version: &'static str,
    /// Id of the product.
    pub product: &'static str,
    /// Which one, where the product is a group.
    pub variant: Option<&'static str>,
    pub from: From,
}

/// How it is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// `npm install -g` of the user.
    Npm,
    /// As pipx does it.
    Pipx,
    /// Into a project's virtual environment.
    Project,
}

const fn real(from: From, package: &'static str, version: &'static str, product: &'static str) -> Real {
    Real { package, version, product, variant: None, from }
}

const fn server(from: From, package: &'static str, version: &'static str, variant: &'static str) -> Real {
    Real { package, version, product: "mcp-reference-servers", variant: Some(variant), from }
}

/// Everything on the host.
pub const REAL: &[Real] = &[
    real(From::Npm, "@anthropic-ai/claude-code", "2.1.197", "claude-code"),
    real(From::Npm, "@openai/codex", "0.169.0", "codex-cli"),
    real(From::Npm, "@google/gemini-cli", "0.61.0", "gemini-cli"),
    real(From::Npm, "opencode-ai", "1.18.33", "opencode"),
    real(From::Npm, "@qwen-code/qwen-code", "0.15.10", "qwen-code"),
    server(From::Npm, "@modelcontextprotocol/server-filesystem", "2026.8.31", "mcp-server-filesystem"),
    server(From::Npm, "@modelcontextprotocol/server-memory", "2026.8.31", "mcp-server-memory"),
    real(From::Pipx, "aider-chat", "0.86.2", "aider"),
    real(From::Pipx, "open-interpreter", "0.4.3", "open-interpreter"),
    real(From::Pipx, "crewai", "1.15.30", "crewai"),
    server(From::Pipx, "mcp-server-git", "2026.10.19", "mcp-server-git"),
    real(From::Project, "langchain", "1.5.2", "langchain"),
];

/// Where npm packages are, below the host's root.
pub const NPM_PREFIX: &str = "home/dev/.npm-global";
/// Where pipx keeps its environments.
pub const PIPX: &str = "home/dev/.local/share/pipx/venvs";
/// The project's environment.
pub const PROJECT: &str = "home/dev/work/.venv";

/// Installs all of it if it is not there yet. An error is the reason to skip.
pub fn install_host() -> Result<Installed, String> {
    let cache = cache_dir()?;
    let root = cache.join("sweep-host-1");
    let _lock = lock(&cache.join("sweep-host-1.lock"))?;
    let complete = root.join(".complete");
    if !complete.is_file() {
        if root.exists() {
            std::fs::remove_dir_all(&root).map_err(|e| format!("{}: {e}", root.display()))?;
        }
        std::fs::create_dir_all(&root).map_err(|e| format!("{}: {e}", root.display()))?;
        npm(&root)?;
        for real in REAL.iter().filter(|real| real.from != From::Npm) {
            let place = match real.from {
                From::Project => root.join(PROJECT),
                From::Npm | From::Pipx => root.join(PIPX).join(real.package),
            };
            environment(&place, &format!("{}=={}", real.package, real.version))?;
        }
        File::create(&complete).map_err(|e| format!("{}: {e}", complete.display()))?;
    }
    let root = root.canonicalize().map_err(|e| format!("{}: {e}", root.display()))?;
    Ok(Installed { root })
}

fn npm(root: &Path) -> Result<(), String> {
    let mut command = Command::new("npm");
    command.args(["install", "-g", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]);
    command.args([
        "--ignore-scripts",
        "--os=aix",
        "--cpu=ppc64",
        "--force",
        "--fetch-retry-maxtimeout=10000",
    ]);
    command.arg("--prefix").arg(root.join(NPM_PREFIX));
    let npm = REAL.iter().filter(|real| real.from == From::Npm);
    command.args(npm.map(|real| format!("{}@{}", real.package, real.version)));
    registry("npm", command.current_dir(root))
}

/// One distribution in an environment of its own, without what it depends on.
pub(super) fn environment(place: &Path, what: &str) -> Result<(), String> {
    local(Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(place))?;
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--prefix"]);
    registry("PyPI", command.arg(place).arg(what))
}

/// A Python that has DuckDB, for the fleet's example.
pub fn install_duckdb() -> Result<Installed, String> {
    let cache = cache_dir()?;
    let root = cache.join("duckdb-2.0.1");
    let _lock = lock(&cache.join("duckdb-2.0.1.lock"))?;
    let complete = root.join(".complete");
    if !complete.is_file() {
        std::fs::create_dir_all(&root).map_err(|e| format!("{}: {e}", root.display()))?;
        environment(&root, "duckdb==2.0.1")?;
        File::create(&complete).map_err(|e| format!("{}: {e}", complete.display()))?;
    }
    let root = root.canonicalize().map_err(|e| format!("{}: {e}", root.display()))?;
    Ok(Installed { root })
}
