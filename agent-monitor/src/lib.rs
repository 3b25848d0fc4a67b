//! User-space half of agent-monitor.

pub mod attribute;
pub mod clock;
pub mod decode;
pub mod model;
pub mod registry;
pub mod scope;
