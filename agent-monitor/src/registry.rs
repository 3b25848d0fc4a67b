//! The register of agents: TOML records, read, checked, and checked against each other.
//!
//! One file describes one agent (`design.md` §5). The way of a record is
//!
//! ```text
//! file → parse → check (time, host) → cross (other records) → Loaded
//! ```
//!
//! [`parse`] is total and pure; [`check`] and [`cross`] ask the host only through
//! [`facts::HostFacts`] and get the time as a parameter; [`load`] touches files.
//! Nothing here prints or decides what an agent may do:  the CLI shows it, and
//! [`crate::scope`] holds the rules.

pub mod argv;
pub mod check;
pub mod cross;
pub mod diagnostic;
pub mod diff;
pub mod facts;
#[cfg(test)]
pub(crate) mod fake;
pub mod format;
pub mod in_force;
pub mod install;
pub mod kept;
pub mod load;
pub mod parse;
pub(crate) mod reader;
pub mod record;
pub mod renew;
pub mod report;
pub mod schema;
pub mod shared;
pub mod source;

pub use self::{
    diagnostic::{Code, Diagnostic, Severity},
    facts::{HostFacts, LinuxFacts},
    install::{InstallError, Installed, install},
    load::{LoadError, Loaded, Refused, check_dir, check_file, load_dir},
    parse::{Parsed, parse_record},
    record::{AgentId, Match, Mode, Record},
    source::{Located, Position},
};
