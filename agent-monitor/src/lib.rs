//! User-space half of agent-monitor.

pub mod clock;
pub mod decode;
pub mod model;
