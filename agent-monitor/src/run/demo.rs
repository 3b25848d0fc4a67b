//! `run --demo`: an example registry and a scripted example agent, in a directory that is thrown away.
//!
//! The agent is a shell script that reads, writes, renames and removes files, connects to a listener on loopback, tries
//! to leave its scope, and starts a second registered agent. Nothing of the host is changed.

use std::fs;
use std::io::{self, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use crate::config::Config;

/// The records, with `@DIR@` for the directory.
const RECORDS: &[(&str, &str)] = &[
    ("demo-agent.toml", include_str!("demo/demo-agent.toml")),
    ("demo-helper.toml", include_str!("demo/demo-helper.toml")),
];
/// The scripts.
const SCRIPTS: &[(&str, &str)] = &[
    ("demo-agent.sh", include_str!("demo/demo-agent.sh")),
    ("demo-helper.sh", include_str!("demo/demo-helper.sh")),
    ("deploy.sh", include_str!("demo/deploy.sh")),
];

/// The directory. Removed when dropped.
#[derive(Debug)]
pub struct Demo {
    dir: PathBuf,
    /// Where its pins go. Left behind only when the programs did not load.
    pins: OnceLock<PathBuf>,
}

impl Demo {
    /// Makes the directory, the records and the scripts.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn new() -> io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("agent-monitor-demo-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let demo = Self { dir: fs::canonicalize(dir)?, pins: OnceLock::new() };
        for name in ["agents.d", "bin", "work", "state", "customers"] {
            fs::DirBuilder::new().mode(0o755).create(demo.dir.join(name))?;
        }
        for (name, text) in RECORDS {
            let path = demo.dir.join("agents.d").join(name);
            fs::write(&path, demo.fill(text))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        }
        fs::write(demo.dir.join("customers/list.csv"), "name,mail\nExample,mail@example.com\n")?;
        for (name, text) in SCRIPTS {
            let path = demo.dir.join("bin").join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(demo)
    }

    fn fill(&self, text: &str) -> String {
        text.replace("@DIR@", &self.dir.display().to_string())
    }

    /// The settings, with every place inside the directory.
    #[must_use]
    pub fn config(&self, config: Config) -> Config {
        let pins = config.bpffs.with_file_name(format!("agent-monitor-demo-{}", std::process::id()));
        let pins = self.pins.get_or_init(|| pins).clone();
        Config {
            registry: self.dir.join("agents.d"),
            state_dir: self.dir.join("state"),
            socket: self.dir.join("control.sock"),
            bpffs: pins,
            detach_on_exit: true,
            ..config
        }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs the scripted agent to its end. `stop` is asked now and then whether to give up.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn play(&self, stop: impl Fn() -> bool) -> io::Result<ExitStatus> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        listener.set_nonblocking(true)?;
        let mut child = Command::new(self.dir.join("bin/demo-agent.sh"))
            .arg(port.to_string())
            .current_dir(self.dir.join("work"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        loop {
            if let Ok((mut peer, _)) = listener.accept() {
                peer.set_read_timeout(Some(std::time::Duration::from_millis(200)))?;
                // What the agent sends does not matter.
                io::copy(&mut peer.by_ref().take(256), &mut io::sink()).ok();
            }
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if stop() {
                child.kill()?;
                return child.wait();
            }
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Some(pins) = self.pins.get()
            && pins.is_dir()
            && let Err(error) = fs::remove_dir(pins)
        {
            tracing::warn!(path = %pins.display(), %error, "pins are left");
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(path = %self.dir.display(), %error, "cannot remove the demo's directory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{LinuxFacts, check_dir};

    #[test]
    fn the_example_is_in_order_and_runs_to_its_end() {
        let demo = Demo::new().unwrap();
        let now = jiff::Timestamp::from_second(1_795_300_000).unwrap();
        let loaded = check_dir(&demo.dir().join("agents.d"), &LinuxFacts, now).unwrap();
        let problems: Vec<_> = loaded.diagnostics().map(crate::registry::Diagnostic::render).collect();
        assert_eq!((loaded.records.len(), loaded.refused.len()), (2, 0), "{problems:?}");
        let began = std::cell::Cell::new(0u32);
        let stop = || {
            began.set(began.get() + 1);
            std::thread::park_timeout(std::time::Duration::from_millis(10));
            began.get() > 3000
        };
        assert!(demo.play(stop).unwrap().success());
    }
}
