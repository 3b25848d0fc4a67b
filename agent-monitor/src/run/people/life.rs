//! Lives of agents in the running daemon.

use std::collections::BTreeMap;

use crate::run::core::{Core, lock};
use crate::run::port::{Life, LifeState};

/// Lives of agents as the kernel has them from us, by number.
pub(in crate::run) type Lives = BTreeMap<u32, Life>;

impl Core {
    /// The life of an agent.
    pub(in crate::run) fn life_of(&self, agent: u32) -> LifeState {
        lock(&self.in_force).lives.get(&agent).map_or(LifeState::Active, |life| life.state)
    }
}
