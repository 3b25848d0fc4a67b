//! User-space half of agent-monitor.

pub mod action;
pub mod attribute;
pub mod clock;
pub mod config;
pub mod control;
pub mod decode;
pub mod engine;
pub mod explain;
pub mod export;
pub mod health;
pub mod kernel;
pub mod learn;
pub mod log;
pub mod mapping;
pub mod model;
pub mod people;
pub mod record;
pub mod redact;
pub mod registry;
pub mod replay;
pub mod run;
pub mod scope;
pub mod sweep;
