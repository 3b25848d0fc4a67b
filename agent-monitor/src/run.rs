//! The daemon: threads, signals, start and end.
//!
//! ```text
//! rings → Core::read (engine) → Store      control API → Core (Daemon)
//! poll: losses, last-seen, watchdog         mounts: mount table, rules again
//! signals: reload, end
//! ```
//!
//! Owns all I/O of the pipeline. Knows of the kernel side only [`port`]. [`Prepared`] takes what must be had before
//! anything is loaded into the kernel (socket, state directory); [`Running`] is the daemon at work.

mod admission;
mod api;
pub mod cgroups;
pub mod core;
pub mod demo;
#[cfg(test)]
pub(crate) mod fake;
pub mod host;
pub mod live;
mod locks;
mod notify;
pub mod people;
pub mod port;
mod record;
pub mod reload;
mod report;
mod shadow;
pub mod state;
#[cfg(test)]
mod tests;
mod threads;
mod watch;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

pub use self::core::Core;
pub use self::port::{Port, PortError, RingReader};
pub use self::reload::ReloadError;

use crate::config::Config;
use crate::control::{BindError, ControlError, Handle, Server, SocketConfig};
use crate::health::Summary;
use crate::people::store::Opened;
use crate::people::{Db, Now};
use crate::registry::LinuxFacts;
use crate::registry::facts::HostFacts as _;
use state::{State, StateError, StateLock};

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The socket cannot be had, or another daemon has it.
    #[error(transparent)]
    Socket(#[from] BindError),
    /// The group of the socket does not exist.
    #[error("there is no group `{0}` for the control socket")]
    Group(String),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// What people decided cannot be read.
    #[error(transparent)]
    People(#[from] crate::people::StoreError),
    /// The registry cannot be put in force.
    #[error(transparent)]
    Registry(#[from] ReloadError),
    /// The control API does not start.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The kernel side fails.
    #[error("the kernel side failed: {0}")]
    Kernel(#[from] PortError),
    /// A thread or the signals cannot be had.
    #[error("cannot start {what}: {source}")]
    Thread {
        /// What for.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A thread ended that must not.
    #[error("the thread that reads the rings ended: {0}")]
    Reader(String),
}

impl RunError {
    /// More privilege would help.
    #[must_use]
    pub fn is_privilege(&self) -> bool {
        match self {
            Self::Socket(error) => error.is_privilege(),
            Self::State(error) => error.source.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}

/// Socket and state directory are there; nothing is in the kernel yet.
#[derive(Debug)]
pub struct Prepared {
    config: Config,
    server: Server,
    state: State,
    lock: StateLock,
    /// What people decided, and what the last daemon left of it.
    people: (Db, Opened),
    /// Taken first: from then on a signal is a request, also while the programs load.
    signals: Signals,
}

impl Prepared {
    /// Takes the socket and the state directory.
    ///
    /// # Errors
    /// When another daemon runs, or one of them cannot be had.
    pub fn new(config: Config) -> Result<Self, RunError> {
        let signals = Signals::new([SIGHUP, SIGINT, SIGTERM]);
        let signals = signals.map_err(|source| RunError::Thread { what: "signal handling", source })?;
        let group = config.socket_group.as_deref().map(group).transpose()?;
        let server = Server::bind(&SocketConfig { path: config.socket.clone(), group })?;
        let state = State::open(&config.state_dir)?;
        let lock = state.lock()?;
        // A daemon that does not know who is retired must not touch the kernel.
        let clock = crate::clock::Clock::start();
        let now = Now { wall: clock.now(), boot: clock.boot_nanos() };
        let people = Db::open(&config.state_dir.join(people::STATE_FILE), &state::boot_id(), now)?;
        Ok(Self { config, server, state, lock, people, signals })
    }

    /// Starts the daemon over a loaded kernel side: registry in force, what runs already bound, threads at work.
    ///
    /// # Errors
    /// When any part does not start; what was attached is detached again.
    pub fn start(self, port: Box<dyn Port>) -> Result<Running, RunError> {
        let Self { config, server, state, lock, people, signals } = self;
        let taken_over = port.taken_over();
        let core = Arc::new(Core::new(config, state, port));
        core.open_people(people);
        core.keep_record();
        let started = Running::start(Arc::clone(&core), server, signals, lock);
        if started.is_err() {
            core.stop();
            // What an earlier daemon left in force stays so: a start that fails ends no enforcement.
            let ended = if taken_over { Ok(()) } else { core.detach() };
            if let Err(error) = ended {
                tracing::error!(%error, "cannot detach after a failed start");
            }
        }
        started
    }
}

fn group(name: &str) -> Result<u32, RunError> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    LinuxFacts
        .group_by_name(name)
        .found()
        .map(|group| group.gid)
        .ok_or_else(|| RunError::Group(name.to_owned()))
}

/// The daemon at work.
#[derive(Debug)]
pub struct Running {
    core: Arc<Core>,
    signals: Signals,
    reader: JoinHandle<Result<(), PortError>>,
    others: Vec<JoinHandle<()>>,
    control: Handle,
    /// Until the log is closed.
    lock: StateLock,
}

impl Running {
    fn start(core: Arc<Core>, server: Server, signals: Signals, lock: StateLock) -> Result<Self, RunError> {
        let thread = |what| move |source| RunError::Thread { what, source };
        core.resume();
        core.note_damaged_records();
        // Recognition first, then the reader, so that nothing waits while what runs already is bound.
        shadow::look_for_programs(&core).map_err(thread("the search for programs"))?;
        core.load_records()?;
        core.resume_people();
        let reader = core.take_reader()?;
        let mut pulse = core.take_pulse()?;
        core.first_beat(&mut *pulse);
        let ending = signals.handle();
        let reader = threads::reader(Arc::clone(&core), reader, ending).map_err(thread("the ring reader"))?;
        core.backfill()?;
        core.shadows_that_run();
        shadow::scripts(Arc::clone(&core)).map_err(thread("the script reader"))?;
        // From now on a crash is a gap that the next daemon can tell.
        core.poll(false);
        let others = vec![
            threads::poll(Arc::clone(&core)).map_err(thread("the health thread"))?,
            threads::mounts(Arc::clone(&core)).map_err(thread("the mount thread"))?,
            watch::registry(Arc::clone(&core)).map_err(thread("the watch on the registry"))?,
            threads::pulse(Arc::clone(&core), pulse).map_err(thread("the heartbeat"))?,
            threads::people(Arc::clone(&core)).map_err(thread("the thread for approvals"))?,
        ];
        let control = server.spawn(Arc::clone(&core) as Arc<dyn crate::control::Daemon>)?;
        notify::ready();
        Ok(Self { core, signals, reader, others, control, lock })
    }

    /// The daemon.
    #[must_use]
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Ends [`Self::wait`] from another thread.
    #[must_use]
    pub fn ender(&self) -> signal_hook::iterator::Handle {
        self.signals.handle()
    }

    /// Waits for the end: SIGINT, SIGTERM, or a part that failed. SIGHUP reloads the registry.
    pub fn wait(&mut self) {
        for signal in self.signals.forever() {
            if signal != SIGHUP {
                tracing::info!(signal, "ending");
                break;
            }
            notify::reloading();
            self.core.reload_and_log();
            notify::ready();
        }
    }

    /// Ends the daemon: reads what is still in the rings, counts the last losses, detaches or leaves what enforces in
    /// force, closes the record.
    ///
    /// # Errors
    /// When the reader had failed, or something is left in the kernel.
    pub fn shutdown(self) -> Result<Summary, RunError> {
        let Self { core, reader, others, control, lock, .. } = self;
        notify::stopping();
        core.stop();
        let read = reader.join().unwrap_or_else(|_| Err(PortError("it panicked".to_owned())));
        core.poll(true);
        for thread in others {
            if thread.join().is_err() {
                tracing::error!("a thread of the daemon panicked");
            }
        }
        core.close_people();
        let detached = core.let_go();
        let served = control.shutdown();
        core.store().close();
        core.store().log().iter().for_each(|log| log.close());
        drop(lock);
        read.map_err(|error| RunError::Reader(error.to_string()))?;
        detached?;
        served?;
        Ok(core.health().summary())
    }
}
