//! User-space half of agent-monitor.

pub mod registry;
pub mod scope;
