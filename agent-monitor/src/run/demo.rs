//! `run --demo`: an example registry and a scripted example agent, in a directory that is thrown away.
//!
//! The agent is a shell script that reads, writes, renames and removes files, connects to a listener on loopback, tries
//! to leave its scope, pushes a file out if a person lets it, and starts a second registered agent. It runs as `nobody`
//! where it can, for nobody approves what runs as themselves. Nothing of the host is changed.

use std::fs;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

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
    ("push.sh", include_str!("demo/push.sh")),
];
/// `nobody`: whom the agent runs as.
const AGENT: u32 = 65_534;
/// How often a push is tried, a second apart, where it cannot be held.
const TRIES: &str = "60";

/// The directory. Removed when dropped.
#[derive(Debug)]
pub struct Demo {
    dir: PathBuf,
    /// Where the agent pushes a file to.
    outside: TcpListener,
    /// Where its pins go. Left behind only when the programs did not load.
    pins: OnceLock<PathBuf>,
}

/// How the agent ended, and what came out.
#[derive(Debug)]
pub struct Played {
    /// Its exit.
    pub status: ExitStatus,
    /// Bytes of each push that the listener outside received.
    pub pushed: Vec<u64>,
}

impl Demo {
    /// Makes the directory, the records and the scripts.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn new() -> io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("agent-monitor-demo-{}", std::process::id()));
        // The agent is another user.
        fs::DirBuilder::new().mode(0o755).create(&dir)?;
        let outside = TcpListener::bind("127.0.0.1:0")?;
        outside.set_nonblocking(true)?;
        let demo = Self { dir: fs::canonicalize(dir)?, outside, pins: OnceLock::new() };
        for (name, mode) in [
            ("agents.d", 0o755),
            ("bin", 0o755),
            ("state", 0o700),
            ("home", 0o755),
            ("home/work", 0o755),
            ("home/customers", 0o755),
        ] {
            fs::DirBuilder::new().mode(mode).create(demo.dir.join(name))?;
        }
        for (name, text) in RECORDS {
            let path = demo.dir.join("agents.d").join(name);
            fs::write(&path, demo.fill(text)?)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        }
        let list = "home/customers/list.csv";
        fs::write(demo.dir.join(list), "name,mail\nExample,mail@example.com\n")?;
        if is_root() {
            for name in ["home", "home/work", "home/customers", list] {
                chown(demo.dir.join(name), Some(AGENT), Some(AGENT))?;
            }
        }
        for (name, text) in SCRIPTS {
            let path = demo.dir.join("bin").join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(demo)
    }

    fn fill(&self, text: &str) -> io::Result<String> {
        let port = self.outside.local_addr()?.port().to_string();
        Ok(text.replace("@DIR@", &self.dir.display().to_string()).replace("@PORT@", &port))
    }

    /// Where the agent pushes its file to.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn outside(&self) -> io::Result<SocketAddr> {
        self.outside.local_addr()
    }

    /// Where the control socket is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// The settings, with every place inside the directory.
    #[must_use]
    pub fn config(&self, config: Config) -> Config {
        let pins = config.bpffs.with_file_name(format!("agent-monitor-demo-{}", std::process::id()));
        let pins = self.pins.get_or_init(|| pins).clone();
        Config {
            registry: self.dir.join("agents.d"),
            state_dir: self.dir.join("state"),
            socket: self.socket(),
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

    /// Runs the scripted agent to its end. `held`: what must wait for a person is stopped inside the call; else it is
    /// refused, and the agent tries again. `stop` is asked now and then whether to give up.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn play(&self, held: bool, stop: impl Fn() -> bool) -> io::Result<Played> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let mut command = Command::new(self.dir.join("bin/demo-agent.sh"));
        command
            .arg(listener.local_addr()?.port().to_string())
            .arg(self.outside()?.port().to_string())
            .arg(if held { "1" } else { TRIES })
            .current_dir(self.dir.join("home/work"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if is_root() {
            command.uid(AGENT).gid(AGENT);
        }
        let mut child = command.spawn()?;
        let mut pushed = Vec::new();
        loop {
            // What the agent says to the first one does not matter.
            received(&listener)?;
            pushed.extend(received(&self.outside)?);
            if let Some(status) = child.try_wait()? {
                pushed.extend(received(&self.outside)?);
                return Ok(Played { status, pushed });
            }
            if stop() {
                child.kill()?;
                return Ok(Played { status: child.wait()?, pushed });
            }
        }
    }
}

/// Bytes that somebody who has connected sends, if somebody has.
fn received(listener: &TcpListener) -> io::Result<Option<u64>> {
    let Ok((mut peer, _)) = listener.accept() else { return Ok(None) };
    peer.set_nonblocking(false)?;
    peer.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut text = Vec::new();
    // Who sends nothing for so long has sent all.
    peer.by_ref().take(4096).read_to_end(&mut text).ok();
    Ok(Some(u64::try_from(text.len()).unwrap_or(u64::MAX)))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
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
            std::thread::park_timeout(Duration::from_millis(10));
            began.get() > 3000
        };
        let played = demo.play(true, stop).unwrap();
        assert!(played.status.success());
        assert_eq!(played.pushed, [6, 6], "`draft` and a line end, twice: nothing holds it here");
    }
}
