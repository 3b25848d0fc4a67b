//! User-space half of agent-monitor.

pub mod kernel;
