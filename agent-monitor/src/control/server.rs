//! The server: a thread of its own, so that a busy pipeline and a busy API do not hold each other up.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, oneshot};

use super::limits::{Connection, Users};
use super::routes::{Caller, Shared, router};
use super::socket::{BindError, Bound, SocketConfig};
use super::{Daemon, Peer};
use crate::health::Health;

/// Connections at most; further callers wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// How long calls that are under way may take to end at shutdown.
const GRACE: Duration = Duration::from_secs(2);

/// Why the server could not run.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The runtime or its thread cannot be had.
    #[error("cannot start the control API: {0}")]
    Start(#[source] io::Error),
    /// Serving ended with an error.
    #[error("the control API failed: {0}")]
    Serve(#[source] io::Error),
}

/// A bound socket that nobody serves yet. Binding first is how a second daemon is noticed before anything is
/// loaded into the kernel.
#[derive(Debug)]
pub struct Server {
    bound: Bound,
}

impl Server {
    /// Makes the socket.
    ///
    /// # Errors
    /// [`BindError::AnotherDaemon`] when one lives there already.
    pub fn bind(config: &SocketConfig) -> Result<Self, BindError> {
        Bound::new(config).map(|bound| Self { bound })
    }

    /// Serves on a thread of its own until [`Handle::shutdown`].
    ///
    /// # Errors
    /// When there is no thread or runtime to be had.
    pub fn spawn(self, daemon: Arc<dyn Daemon>) -> Result<Handle, ControlError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(8)
            .thread_name("control-call")
            .build()
            .map_err(ControlError::Start)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = move || {
            let result = runtime.block_on(self.serve(daemon, async { stopped.await.unwrap_or(()) }));
            runtime.shutdown_timeout(GRACE);
            result
        };
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(serve);
        Ok(Handle { stop, thread: thread.map_err(ControlError::Start)? })
    }

    /// Serves on the runtime of the caller until `shutdown` is ready. Then followers get what is waiting for
    /// them and the end, and calls under way have two seconds.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn serve(
        self,
        daemon: Arc<dyn Daemon>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ControlError> {
        let Self { bound } = self;
        let owner = rustix::process::geteuid().as_raw();
        let health = Arc::clone(daemon.health());
        let app = router(Shared { daemon: Arc::clone(&daemon), owner, gid: bound.gid });
        let listener =
            bound.listener.try_clone().and_then(UnixListener::from_std).map_err(ControlError::Serve)?;
        let listener = Limited {
            listener,
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            users: Users::default(),
            health,
        };
        let (ending, mut ended) = oneshot::channel::<()>();
        let signal = async move {
            shutdown.await;
            daemon.store().close();
            drop(ending);
        };
        let serving = axum::serve(listener, app.into_make_service_with_connect_info::<Caller>())
            .with_graceful_shutdown(signal)
            .into_future();
        let overdue = async {
            // An error says that `ending` was dropped, which is the signal.
            if (&mut ended).await.is_err() {
                tokio::time::sleep(GRACE).await;
            }
        };
        tokio::select! {
            result = serving => result.map_err(ControlError::Serve),
            () = overdue => {
                tracing::warn!("calls of the control API were cut off at shutdown");
                Ok(())
            }
        }
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct Handle {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), ControlError>>,
}

impl Handle {
    /// Ends it and removes the socket.
    ///
    /// # Errors
    /// When serving had failed before.
    pub fn shutdown(self) -> Result<(), ControlError> {
        // Where nobody listens any more it has ended already, and says why below.
        self.stop.send(()).ok();
        let gone = || ControlError::Serve(io::Error::other("the control thread panicked"));
        self.thread.join().ok().ok_or_else(gone)?
    }

    /// It has ended by itself: a failure.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

struct Limited {
    listener: UnixListener,
    permits: Arc<Semaphore>,
    users: Users,
    health: Arc<Health>,
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = Caller;

    async fn accept(&mut self) -> (Connection, Caller) {
        loop {
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
                // The semaphore is never closed.
                return std::future::pending().await;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let caller = Caller(Peer::of(&stream).map_err(Arc::new));
                    let uid = caller.0.as_ref().map_or(u32::MAX, Peer::uid);
                    match self.users.admit(uid) {
                        Some(place) => return (Connection::new(stream, place, permit), caller),
                        None => self.health.refused_peer("too_many_connections"),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take in a control connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}

impl Connected<IncomingStream<'_, Limited>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Limited>) -> Self {
        stream.remote_addr().clone()
    }
}
