//! Installing a pinned package from its registry, once per machine, outside the work tree.

use crate::sys::{self, num};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where a package comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// The npm registry; `scripts` says whether the package's install script has to run.
    Npm { package: &'static str, version: &'static str, scripts: bool },
    /// PyPI: the package and everything it needs, each at one version.
    Pypi { package: &'static str, version: &'static str, requirements: &'static str },
}

impl Source {
    pub fn package(&self) -> &'static str {
        match self {
            Self::Npm { package, .. } | Self::Pypi { package, .. } => package,
        }
    }

    pub fn version(&self) -> &'static str {
        match self {
            Self::Npm { version, .. } | Self::Pypi { version, .. } => version,
        }
    }

    /// Directory name in the cache.
    fn slug(&self) -> String {
        let name: String =
            self.package().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        format!("{}-{}", name.trim_matches('-'), self.version())
    }
}

/// An installed package.
#[derive(Debug)]
pub struct Installed {
    /// Where it lies, symbolic links resolved.
    pub root: PathBuf,
}

/// Installs it if it is not there yet. An error is the reason to skip: `registry: …` where the registry did not
/// answer or did not have it.
pub fn install(source: &Source) -> Result<Installed, String> {
    let cache = cache_dir()?;
    let root = cache.join(source.slug());
    let _lock = lock(&cache.join(format!("{}.lock", source.slug())))?;
    let complete = root.join(".complete");
    if !complete.is_file() {
        // Half of an installation that was interrupted.
        if root.exists() {
            std::fs::remove_dir_all(&root).map_err(|e| format!("{}: {e}", root.display()))?;
        }
        std::fs::create_dir_all(&root).map_err(|e| format!("{}: {e}", root.display()))?;
        match source {
            Source::Npm { package, version, scripts } => npm(&root, package, version, *scripts)?,
            Source::Pypi { requirements, .. } => pip(&root, requirements)?,
        }
        File::create(&complete).map_err(|e| format!("{}: {e}", complete.display()))?;
    }
    let root = root.canonicalize().map_err(|e| format!("{}: {e}", root.display()))?;
    Ok(Installed { root })
}

/// `AGENT_MONITOR_CACHE`, or the user's cache directory.
pub(super) fn cache_dir() -> Result<PathBuf, String> {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let base = var("AGENT_MONITOR_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("agent-monitor-tests")))
        .or_else(|| var("HOME").map(|home| home.join(".cache/agent-monitor-tests")))
        .ok_or("set HOME or AGENT_MONITOR_CACHE: nowhere to keep packages")?;
    let dir = std::path::absolute(base.join("agents")).map_err(|e| e.to_string())?;
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(dir)
}

/// Two test runs on one machine install one after the other; the lock goes with the file.
pub(super) fn lock(path: &Path) -> Result<File, String> {
    let file = File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
    sys::call(libc::SYS_flock, &mut [num(file.as_raw_fd()), num(libc::LOCK_EX)])
        .map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(file)
}

fn npm(root: &Path, package: &str, version: &str, scripts: bool) -> Result<(), String> {
    let mut command = Command::new("npm");
    command.args([
        "install",
        "--no-audit",
        "--no-fund",
        "--no-update-notifier",
        "--loglevel=error",
        "--fetch-retry-maxtimeout=10000",
    ]);
    if !scripts {
        command.arg("--ignore-scripts");
    }
    command.arg("--prefix").arg(root).arg(format!("{package}@{version}"));
    registry("npm", command.current_dir(root))
}

fn pip(root: &Path, requirements: &str) -> Result<(), String> {
    let list = root.join("requirements.txt");
    std::fs::write(&list, requirements).map_err(|e| format!("{}: {e}", list.display()))?;
    local(Command::new("python3").args(["-m", "venv"]).arg(root.join("venv")))?;
    let mut command = Command::new(root.join("venv/bin/python3"));
    command
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"])
        .arg(&list);
    registry("PyPI", &mut command)
}

fn output(command: &mut Command) -> Result<Output, String> {
    let output = command.stdin(Stdio::null()).output();
    output.map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))
}

pub(super) fn local(command: &mut Command) -> Result<(), String> {
    let output = output(command)?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", telling_line(&output))) }
}

pub(super) fn registry(name: &str, command: &mut Command) -> Result<(), String> {
    let output = output(command)?;
    if output.status.success() { Ok(()) } else { Err(format!("registry: {name}: {}", telling_line(&output))) }
}

/// The line of an installer's report that says most: why, or what, or else the last one.
fn telling_line(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let with = |word: &str| lines().find(|line| line.contains(word));
    let telling =
        with("reason:").or_else(|| with("ERROR:")).or_else(|| with("code E")).or_else(|| lines().next_back());
    telling.unwrap_or("no message").to_owned()
}
