//! Whether a log is what was written: offline, with nothing but the public key.
//!
//! Follows what [`super::reader`] reads, in order, up to the first damage, which it names by kind, record and
//! checkpoint. [`log`] reads every byte; other readers may leave out closed segments by their signed indexes. What it
//! takes on trust: the key it is given, and that SHA-256 and Ed25519 hold. What it cannot see: a log that was rolled
//! back as a whole, unless it is given copies of checkpoints from elsewhere.

mod chain;

mod outcome;

use std::path::Path;

use serde::Serialize;

pub use chain::Verifier;
pub use outcome::Outcome;

use super::LogError;
use super::note::PublicKey;
use super::reader;
use crate::model::{SCHEMA_VERSION, Time};

/// What kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Bytes are not those that were written.
    Changed,
    /// Records or checkpoints are missing.
    Removed,
    /// There is more than was written.
    Inserted,
    /// All is there, in another order.
    Reordered,
    /// The end is missing, or may be.
    Truncated,
    /// Sealed with a key that is not, or no longer, the log's.
    OtherKey,
    /// Records after the last checkpoint.
    UnsealedTail,
    /// The clock went back and no record says so.
    ClockBack,
    /// Nothing was written for longer than it should, and no record says so.
    UndeclaredGap,
    /// A file cannot be read.
    Unreadable,
}

impl Kind {
    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Inserted => "inserted",
            Self::Reordered => "reordered",
            Self::Truncated => "truncated",
            Self::OtherKey => "other-key",
            Self::UnsealedTail => "unsealed-tail",
            Self::ClockBack => "clock-back",
            Self::UndeclaredGap => "undeclared-gap",
            Self::Unreadable => "unreadable",
        }
    }
}

/// One damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// What kind.
    pub kind: Kind,
    /// Number of the first record that is not as it was.
    pub record: Option<u64>,
    /// Number of the checkpoint that shows it.
    pub checkpoint: Option<u64>,
    /// The file.
    pub file: Option<String>,
    /// What is wrong, in a sentence.
    pub message: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Everything holds.
    pub ok: bool,
    /// Which log.
    pub origin: Option<String>,
    /// Hash of each key that signed, in order.
    pub keys: Vec<String>,
    /// Number of the first record that is there.
    pub first: u64,
    /// Number after the last one.
    pub end: u64,
    /// Records read.
    pub records: u64,
    /// Checkpoints that hold.
    pub checkpoints: u64,
    /// Number of the last of them.
    pub last_checkpoint: u64,
    /// When it was made.
    pub sealed_until: Option<Time>,
    /// The last writer ended in good order.
    pub closed: bool,
    /// Records that are sealed by checkpoints that hold: number after the last.
    pub sealed: u64,
    /// Closed segments that were left out by their signed indexes.
    pub passed: u64,
    /// The only damage is how the log ends: records after the last checkpoint, or none that closes it. What is sealed
    /// holds.
    pub open_end: bool,
    /// Records that the retention rule removed, as the log itself says: first, and first after.
    pub removed_by_rule: Vec<(u64, u64)>,
    /// Copies of checkpoints from elsewhere that agree.
    pub copies: u64,
    /// What is no damage and should be known.
    pub notes: Vec<String>,
    /// The first damage; empty where everything holds.
    pub damage: Vec<Damage>,
}

/// How to look.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Keys that may have signed, the oldest first: each was handed over to by the one before.
    pub keys: Vec<PublicKey>,
    /// Copies of checkpoints from elsewhere.
    pub copies: Vec<String>,
    /// Wall clock, for a log that is being written: its newest records may wait for the next checkpoint.
    pub now: Option<Time>,
}

/// Verifies the log in `dir`: the pass that every reader makes, over all of it, up to the first damage.
///
/// # Errors
/// When the directory cannot be read at all, or holds no log.
pub fn log(dir: &Path, options: &Options) -> Result<Report, LogError> {
    reader::audit(dir, options)
}

impl Report {
    pub(super) fn new() -> Self {
        Self { schema_version: SCHEMA_VERSION, ..Self::default() }
    }
}

#[cfg(test)]
mod tests;
