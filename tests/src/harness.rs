//! What the kernel tests stand on: a daemon of their own, an actor, a feed of events, and words to say what is
//! expected. Everything started here ends when its value is dropped.

pub mod actor;
pub mod case;
pub mod cgroup;
pub mod client;
pub mod event;
pub mod expect;
pub mod feed;
pub mod lane;
pub mod leftover;
pub mod meter;
pub mod monitor;
pub mod parked;
pub mod peer;
pub mod registry;
pub mod scratch;
pub mod terminal;
pub mod world;

use std::time::Duration;

/// How long anything may take to show up. Generous, because the VM lane is emulated; a test that waits this
/// long has failed.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How long a single event may take that is expected. The tests settle the feed before they look, so this is
/// only for what comes on a road of its own.
pub fn expectation_limit() -> Duration {
    match lane::lane() {
        lane::Lane::Host => Duration::from_secs(5),
        lane::Lane::Vm => Duration::from_secs(20),
    }
}
