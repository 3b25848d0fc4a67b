//! The pins that daemons of different cases hand on, in a machine: each starts with `--fresh`, which forgets what the one before
//! left in force and keeps its programs. Under emulation, verifying them takes most of what a case costs.
//!
//! One daemon has them at a time; another one that runs beside it has pins of its own, and so have the families that are about
//! loading and detaching.

use super::client;
use super::lane::{Lane, lane};
use super::world;
use crate::sys;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

#[derive(Debug)]
struct State {
    /// Where the BPF file system is mounted, once it was needed.
    mounted: Option<PathBuf>,
    taken: bool,
    /// The family that runs wants programs of its own.
    own: bool,
}

static STATE: Mutex<State> = Mutex::new(State { mounted: None, taken: false, own: false });

fn with<R>(act: impl FnOnce(&mut State) -> R) -> R {
    act(&mut STATE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The right to the parked pins; given back when dropped.
#[derive(Debug)]
pub struct Pins(PathBuf);

impl Pins {
    /// `None` where each daemon has pins of its own, and while another one has these.
    pub fn take() -> Option<Self> {
        if with(|state| state.taken) {
            world::make_way();
        }
        with(|state| {
            if lane() != Lane::Vm || state.own || state.taken {
                return None;
            }
            let mounted = state.mounted.get_or_insert_with(|| {
                let dir = std::env::temp_dir().join("parked-pins");
                std::fs::create_dir_all(&dir).unwrap();
                sys::mount("bpf", dir.to_str().unwrap(), "bpf", 0).unwrap();
                dir
            });
            state.taken = true;
            Some(Self(mounted.join("agent-monitor")))
        })
    }

    /// The directory of the pins.
    pub fn dir(&self) -> PathBuf {
        self.0.clone()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        with(|state| state.taken = false);
    }
}

/// From now on each daemon has programs of its own, or again not.
pub fn own_programs(own: bool) {
    with(|state| state.own = own);
}

/// Takes the programs of these pins out of the kernel, where there are any.
pub fn detach(pins: &Path) {
    if std::fs::read_dir(pins).is_ok_and(|mut pins| pins.next().is_some()) {
        drop(client::run(&["detach", "--force", "--bpffs", pins.to_str().unwrap_or_default()]));
    }
}

/// Takes what is parked out of the kernel: nothing is left behind by the runner.
pub fn remove() {
    let Some(dir) = with(|state| state.mounted.take()) else { return };
    detach(&dir.join("agent-monitor"));
    sys::unmount(dir.to_str().unwrap_or_default()).ok();
}
