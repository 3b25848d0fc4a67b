//! User-space half of agent-monitor.

pub mod clock;
pub mod config;
pub mod control;
pub mod health;
pub mod kernel;
pub mod model;
pub mod record;
pub mod registry;
pub mod scope;
