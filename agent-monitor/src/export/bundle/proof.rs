//! The proof that all records of a bundle are in the log that a checkpoint seals: one for all of them, made from the
//! segments that hold them and from the subtrees that other segments' indexes keep.

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::BundleError;
use crate::log::merkle::{At, Hash, Nodes, Run, leaf, prove};
use crate::log::segment::{self, Line, Segment, parse, sealed};
use crate::log::{LogError, retention, unhex};

/// `proof.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Records in the log.
    pub size: u64,
    /// Base64 of each hash, left to right, as [`prove`] gives them.
    pub hashes: Vec<String>,
}

impl Proof {
    /// The hashes; `None` when one is none.
    #[must_use]
    pub fn read(&self) -> Option<Vec<Hash>> {
        self.hashes.iter().map(|text| BASE64.decode(text).ok()?.try_into().ok()).collect()
    }
}

/// Makes the proof for the records `wanted` (ascending) in a log of `size` records.
///
/// # Errors
/// When the log cannot be read, or lacks something that the proof needs.
pub fn make(dir: &Path, size: u64, wanted: &[u64]) -> Result<Proof, BundleError> {
    let mut nodes = Nodes::default();
    let add = |nodes: &mut Nodes, level: u32, index: u64, hash: &str| {
        if let Some(hash) = unhex(hash).and_then(|bytes| bytes.try_into().ok()) {
            nodes.insert(At { level, index }, hash);
        }
    };
    retention::gone(dir).iter().for_each(|(level, index, hash)| add(&mut nodes, *level, *index, hash));
    let segments = segment::list(dir)?;
    for (at, segment) in segments.iter().enumerate() {
        if segment.first >= size {
            break;
        }
        let end = segments.get(at + 1).map_or(size, |next| next.first).min(size);
        let inside = wanted.partition_point(|number| *number < segment.first)
            < wanted.partition_point(|number| *number < end);
        let mut file = segment::open(&segment.path)?;
        let index = if segment.sealed {
            Some(sealed::index(&mut file).map_err(LogError::on("read the index of", &segment.path))?)
        } else {
            None
        };
        // The right edge of the tree is cut through this one, or it holds what is wanted: every leaf counts.
        let whole = index.as_ref().filter(|index| !inside && index.end <= size);
        let first = leaves(segment, whole.is_none(), size, &mut nodes)
            .map_err(LogError::on("read", &segment.path))?;
        if at == 0 {
            first.into_iter().for_each(|(at, hash)| nodes.insert(at, hash));
        }
        if let Some(index) = whole {
            index.peaks.iter().for_each(|(level, index, hash)| add(&mut nodes, *level, *index, hash));
        }
    }
    let hashes = prove(&nodes, size, wanted);
    let hashes =
        hashes.ok_or_else(|| BundleError::Cannot("the log lacks records that the proof needs".to_owned()))?;
    Ok(Proof { size, hashes: hashes.iter().map(|hash| BASE64.encode(hash)).collect() })
}

/// Reads the leaves of a segment up to `size`, if `all`. Returns the tree before its first record.
fn leaves(segment: &Segment, all: bool, size: u64, nodes: &mut Nodes) -> io::Result<Vec<(At, Hash)>> {
    let mut before = Vec::new();
    let mut run = Run::from(segment.first);
    let mut take = |line: &[u8]| -> bool {
        match parse(line.strip_suffix(b"\n").unwrap_or_default()) {
            Some(Line::Header(header)) => {
                before = header.frontier().map(|frontier| frontier.nodes().collect()).unwrap_or_default();
                all
            }
            Some(Line::Record { number, json, .. }) if number < size => {
                let hash = leaf(json);
                nodes.insert(At { level: 0, index: number }, hash);
                run.push(hash);
                true
            }
            Some(Line::Record { .. }) => false,
            _ => true,
        }
    };
    let mut file = segment::open(&segment.path)?;
    if segment.sealed {
        let index = sealed::index(&mut file)?;
        'blocks: for block in &index.blocks {
            for line in sealed::block(&mut file, block)?.split_inclusive(|byte| *byte == b'\n') {
                if !take(line) {
                    break 'blocks;
                }
            }
        }
    } else {
        let mut lines = io::BufReader::new(file);
        let mut line = Vec::new();
        while io::BufRead::read_until(&mut lines, b'\n', &mut line)? > 0 && take(&line) {
            line.clear();
        }
    }
    run.peaks().iter().for_each(|(at, hash)| nodes.insert(*at, *hash));
    Ok(before)
}
