//! Facts of a record → whose it is, and in the words of this host.
//!
//! Owns the process table, the translation between places in file systems and host paths, the recognition of command
//! lines, the names of agents and containers, and the plan by which running trees are bound. Does no I/O and reads no
//! clock, except [`boot`], which reads `/proc`. What it needs of the host comes in as values.

pub mod argv;
pub mod backfill;
pub mod boot;
pub mod container;
pub mod identity;
pub mod image;
pub mod matcher;
pub mod mounts;
pub mod paths;
pub mod tree;

pub use crate::decode::TaskKey;
pub use identity::{AgentIndex, Agents};
pub use image::{Compiled, MatchImage};
pub use matcher::Matcher;
pub use mounts::MountTable;
pub use tree::Tree;
