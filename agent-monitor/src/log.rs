//! The durable record: what was told, appended to segments under the state directory and sealed by signed
//! checkpoints, so that a later change can be shown.
//!
//! ```text
//! Store ─► Recorder (bounded queue, own thread) ─► Writer ─► segments      copies of checkpoints ─► journald, syslog
//!                                                     ▲                 reader ─► events, export      verify (offline)
//!                                                 key, retention
//! ```
//! Each record is a leaf of an RFC 6962 Merkle tree ([`merkle`]); a checkpoint ([`note`]) signs size and root, also when
//! nothing happens. A segment ([`segment`]) is lines of text while it grows, and zstd frames of the same lines with an
//! index behind them afterwards: `zstdcat` reads it. Knows nothing of hooks or rules; `run` starts it, `cli` reads it.

pub mod condition;
pub mod copies;
#[cfg(test)]
pub(crate) mod fake;
pub mod key;
pub mod merkle;
pub mod note;
pub mod reader;
pub mod recorder;
pub mod retention;
pub mod segment;
pub mod verify;
pub mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use recorder::Recorder;

use crate::model::Time;

/// Directory of the segments, in the state directory.
pub const DIRECTORY: &str = "log";
/// Directory of the keys, in the state directory.
pub const KEYS: &str = "keys";
/// File of the legal holds, in the state directory.
pub const HOLDS: &str = "holds.json";

/// Something of the log cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct LogError {
    /// What was tried.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl LogError {
    /// For `map_err`.
    pub fn on<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self { action, path: path.to_owned(), source }
    }

    /// The disk or a quota is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// When what was written is flushed to the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// Before each checkpoint: a power cut loses at most the records since the last one.
    #[default]
    Checkpoint,
    /// After each batch: a power cut loses at most the batch that is being written.
    Always,
}

/// What is done when the disk is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFull {
    /// Records that cannot be written are counted as a gap.
    #[default]
    StopWriting,
    /// The oldest segment without a hold makes room.
    DropOldest,
}

/// Settings of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether there is one.
    pub enabled: bool,
    /// See [`Sync`].
    pub sync: Sync,
    /// Between two checkpoints; also when idle.
    pub interval: Duration,
    /// See [`OnFull`].
    pub on_full: OnFull,
    /// Bytes of lines after which a segment is closed and compressed.
    pub segment_bytes: u64,
    /// Records older than this are removed, by whole segments.
    pub max_age: Option<Duration>,
    /// The oldest segments are removed when all take more bytes than this.
    pub max_bytes: Option<u64>,
    /// Records that may wait to be written.
    pub queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            sync: Sync::default(),
            interval: Duration::from_secs(10),
            on_full: OnFull::default(),
            segment_bytes: 16 << 20,
            max_age: Some(Duration::from_secs(90 * 86_400)),
            max_bytes: Some(20 << 30),
            queue: 65_536,
        }
    }
}

/// A moment on all clocks of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Wall clock.
    pub time: Time,
    /// Which boot.
    pub boot_id: String,
    /// Nanoseconds since.
    pub boot_nanos: u64,
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// From hex; `None` when it is none.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| if let [a, b] = pair { Some(digit(*a)? << 4 | digit(*b)?) } else { None }).collect()
}
