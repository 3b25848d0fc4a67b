//! User-space half of agent-monitor.

pub mod kernel;
pub mod registry;
pub mod scope;
