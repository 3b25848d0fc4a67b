//! One incident as a directory that proves itself: records with their seals, what frames them, and a signed list of it
//! all.
//!
//! ```text
//! manifest.json  manifest.sig     SHA-256 of each file; a signed note over the manifest's hash
//! SHA256SUMS                      the same list for `sha256sum -c`
//! records.jsonl                   {"number":…,"because":…,"record":"…"}: the record's bytes as they were sealed
//! proof.json  checkpoint.txt      one RFC 6962 proof that all of them are in the log that the checkpoint seals
//! keys.txt  rotations.txt         public keys, and their hand-overs
//! tree.json timeline.json gaps.jsonl agents/ approvals.jsonl findings.jsonl files.json host.json
//! report.html                     for people
//! custody.jsonl                   who had it and what was done, each entry chained to the one before; grows
//! collected/                      copies of small files, if asked for
//! ```

pub mod archive;
pub mod collect;
pub mod contents;
pub mod custody;
pub mod manifest;
pub mod proof;
pub mod verify;
mod write;

pub use write::{Asked, Made, write};

use crate::log::verify::{Damage, Outcome};

/// Why a bundle cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The log or a file of it.
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
    /// A file of the bundle.
    #[error("cannot {action} {file}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        file: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It cannot be done with what there is.
    #[error("{0}")]
    Cannot(String),
    /// The log does not hold, and nothing unchecked is signed.
    #[error("the log does not hold, and nothing unchecked is signed: {}", .0.text())]
    NotVerified(Box<Outcome>),
    /// The bundle is not unpacked: its list, its signature or its sizes do not hold.
    #[error("the bundle is not unpacked: {}", .0.message)]
    Refused(Box<Damage>),
}

impl BundleError {
    fn on<'a>(action: &'static str, file: &'a std::path::Path) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::File { action, file: file.display().to_string(), source }
    }
}

#[cfg(test)]
mod tests;
