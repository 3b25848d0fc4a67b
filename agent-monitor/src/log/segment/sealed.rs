//! Closed segments: zstd frames of whole lines, and behind them an index by time and record number.
//!
//! The index is JSON in a skippable frame, followed in the same frame by its SHA-256, its length and `AMIX`, so that it
//! is found from the end of the file. It is a help for reading: nothing is proven by it, and `verify` compares it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, Read, Seek as _, SeekFrom, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Line, Peek, VERSION, parse};
use crate::log::merkle::{Run, leaf};
use crate::model::Time;

/// Bytes of lines in a frame, about.
pub const BLOCK: usize = 256 << 10;
/// Most bytes that a frame may unpack to: a block and one longest line.
const BLOCK_MAX: u64 = (BLOCK + super::LINE_MAX + (1 << 20)) as u64;
/// Most bytes of an index.
const INDEX_MAX: u64 = 64 << 20;
/// Agents that are counted by name.
const AGENTS_MAX: usize = 4096;
/// Compression level: the next ones cost twice the time for a twentieth less.
const LEVEL: i32 = 3;
/// Magic of a skippable frame.
const SKIPPABLE: u32 = 0x184D_2A5A;
const END: &[u8; 4] = b"AMIX";
/// Bytes after the JSON: hash, length, mark.
const TRAILER: u64 = 32 + 4 + 4;

/// What a closed segment holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// [`VERSION`].
    pub version: u32,
    /// Number of the first record.
    pub first: u64,
    /// Number after the last.
    pub end: u64,
    /// Oldest and newest time of a record; absent without records.
    pub times: Option<(Time, Time)>,
    /// Bytes of the lines.
    pub bytes: u64,
    /// Number of the last checkpoint in it; 0 without any.
    pub checkpoint: u64,
    /// Records by agent; `*` where there are too many agents to name.
    pub agents: BTreeMap<String, u64>,
    /// Records of the log about itself, by kind.
    pub notes: BTreeMap<String, u64>,
    /// Perfect subtrees over its records: level, index, hex.
    pub peaks: Vec<(u32, u64, String)>,
    /// The frames.
    pub blocks: Vec<Block>,
}

/// One frame.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Where it begins.
    pub at: u64,
    /// Its bytes, compressed.
    pub bytes: u64,
    /// Number of its first record, or of the next one where it has none.
    pub first: u64,
    /// Oldest and newest time in it.
    pub times: Option<(Time, Time)>,
    /// First 16 hex digits of the SHA-256 of the frame: other bytes may unpack to the same lines. Empty in old segments.
    #[serde(default)]
    pub hash: String,
}

impl Block {
    fn hash_of(packed: &[u8]) -> String {
        crate::log::hex(Sha256::digest(packed).get(..8).unwrap_or_default())
    }
}

/// Gathers an index while lines go by.
#[derive(Debug)]
pub struct Indexer {
    index: Index,
    run: Run,
    block: Block,
}

impl Indexer {
    /// For a segment that begins with record `first`.
    #[must_use]
    pub fn new(first: u64) -> Self {
        let index = Index {
            version: VERSION,
            first,
            end: first,
            times: None,
            bytes: 0,
            checkpoint: 0,
            agents: BTreeMap::new(),
            notes: BTreeMap::new(),
            peaks: Vec::new(),
            blocks: Vec::new(),
        };
        Self { index, run: Run::from(first), block: Block { first, ..Block::default() } }
    }

    /// Takes a line, its end included.
    pub fn line(&mut self, line: &[u8]) {
        self.index.bytes += line.len() as u64;
        match parse(line.strip_suffix(b"\n").unwrap_or(line)) {
            Some(Line::Record { number, json, .. }) => {
                self.run.push(leaf(json));
                self.index.end = number + 1;
                if let Some(kind) = note_kind(json) {
                    *self.index.notes.entry(kind.to_owned()).or_default() += 1;
                }
                if let Some(peek) = Peek::of(json) {
                    widen(&mut self.index.times, peek.time);
                    widen(&mut self.block.times, peek.time);
                    if let Some(agent) = peek.agent() {
                        let room =
                            self.index.agents.len() < AGENTS_MAX || self.index.agents.contains_key(agent);
                        *self.index.agents.entry(if room { agent } else { "*" }.to_owned()).or_default() += 1;
                    }
                }
            }
            Some(Line::Checkpoint(note)) => {
                let number = note.lines().find_map(|line| line.strip_prefix("checkpoint ")?.parse().ok());
                self.index.checkpoint = number.unwrap_or(self.index.checkpoint);
            }
            _ => {}
        }
    }

    /// Ends a frame of `bytes` bytes with this hash.
    pub fn end_block(&mut self, bytes: u64, hash: String) {
        let next = Block { at: self.block.at + bytes, first: self.index.end, ..Block::default() };
        let done = std::mem::replace(&mut self.block, next);
        self.index.blocks.push(Block { bytes, hash, ..done });
    }

    /// The index.
    #[must_use]
    pub fn finish(mut self) -> Index {
        let peaks = self.run.peaks().iter();
        self.index.peaks = peaks.map(|(at, hash)| (at.level, at.index, crate::log::hex(hash))).collect();
        self.index
    }
}

/// The kind of a record of the log about itself (`log.…`); the contract has it near the beginning.
fn note_kind(json: &[u8]) -> Option<&str> {
    const MARK: &[u8] = b"\"kind\":\"log.";
    let head = json.get(..json.len().min(160))?;
    let at = head.windows(MARK.len()).position(|part| part == MARK)? + 8;
    let kind = head.get(at..)?;
    let end = kind.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(kind.get(..end)?).ok().filter(|kind| kind.len() < 32)
}

fn widen(times: &mut Option<(Time, Time)>, time: Time) {
    let (first, last) = times.unwrap_or((time, time));
    *times = Some((first.min(time), last.max(time)));
}

/// Compresses the lines of an open segment. Returns its index.
///
/// # Errors
/// When reading or writing fails.
pub fn seal(first: u64, mut lines: impl BufRead, mut to: impl Write) -> io::Result<Index> {
    let mut indexer = Indexer::new(first);
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
    let mut block = Vec::with_capacity(BLOCK * 2);
    loop {
        let start = block.len();
        let read = lines.read_until(b'\n', &mut block)?;
        indexer.line(block.get(start..).unwrap_or_default());
        if block.len() >= BLOCK || (read == 0 && !block.is_empty()) {
            let packed = compressor.compress(&block)?;
            to.write_all(&packed)?;
            indexer.end_block(packed.len() as u64, Block::hash_of(&packed));
            block.clear();
        }
        if read == 0 {
            break;
        }
    }
    let index = indexer.finish();
    to.write_all(&footer(&index)?)?;
    Ok(index)
}

fn footer(index: &Index) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(index)?;
    let too_long = || io::Error::new(io::ErrorKind::InvalidData, "the index is too long");
    let length = u32::try_from(json.len()).ok().ok_or_else(too_long)?;
    let size = length.checked_add(40).ok_or_else(too_long)?;
    let mut out = Vec::with_capacity(json.len() + 48);
    out.extend(SKIPPABLE.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(&json);
    out.extend(Sha256::digest(&json));
    out.extend(length.to_le_bytes());
    out.extend(END);
    Ok(out)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Reads the index of a closed segment, and checks that its frames are all there is before it.
///
/// # Errors
/// When it cannot be read or does not fit the file (kind `InvalidData`).
pub fn index(file: &mut File) -> io::Result<Index> {
    let length = file.seek(SeekFrom::End(0))?;
    let trailer = length.checked_sub(TRAILER).ok_or_else(|| bad("too short for an index"))?;
    let mut tail = [0; TRAILER as usize];
    file.seek(SeekFrom::Start(trailer))?;
    file.read_exact(&mut tail)?;
    let (hash, rest) = tail.split_at(32);
    let (size, end) = rest.split_at(4);
    if end != END {
        return Err(bad("no index at the end"));
    }
    let size = u64::from(u32::from_le_bytes(size.try_into().unwrap_or_default()));
    let start = trailer.checked_sub(size + 8).filter(|_| size <= INDEX_MAX);
    let start = start.ok_or_else(|| bad("the index has a wrong length"))?;
    let mut bytes = vec![0; usize::try_from(size + 8).unwrap_or_default()];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut bytes)?;
    let (head, json) = bytes.split_at(8);
    let frame = u32::try_from(size + TRAILER).unwrap_or_default();
    if head != [SKIPPABLE.to_le_bytes(), frame.to_le_bytes()].concat() || Sha256::digest(json)[..] != *hash {
        return Err(bad("the index was changed"));
    }
    let index: Index = serde_json::from_slice(json)?;
    let mut at = 0;
    for block in &index.blocks {
        if block.at != at {
            return Err(bad("the index does not fit the frames"));
        }
        at = at.checked_add(block.bytes).ok_or_else(|| bad("the index does not fit the frames"))?;
    }
    if at == start && index.version == VERSION {
        Ok(index)
    } else {
        Err(bad("the index does not fit the frames"))
    }
}

/// The lines of one frame.
///
/// # Errors
/// When it cannot be read or unpacked (kind `InvalidData`).
pub fn block(file: &mut File, block: &Block) -> io::Result<Vec<u8>> {
    if block.bytes > BLOCK_MAX {
        return Err(bad("a frame is too long"));
    }
    let mut packed = vec![0; usize::try_from(block.bytes).unwrap_or_default()];
    file.seek(SeekFrom::Start(block.at))?;
    file.read_exact(&mut packed)?;
    if !block.hash.is_empty() && block.hash != Block::hash_of(&packed) {
        return Err(bad("a frame is not the one that was written"));
    }
    let mut out = Vec::new();
    let mut decoder = zstd::Decoder::with_buffer(packed.as_slice())?.single_frame();
    let read = Read::by_ref(&mut decoder).take(BLOCK_MAX + 1).read_to_end(&mut out);
    read.map_err(|error| bad(&format!("a frame cannot be unpacked: {error}")))?;
    let rest = decoder.finish();
    if out.len() as u64 > BLOCK_MAX || !rest.is_empty() {
        return Err(bad("a frame does not end where the index says"));
    }
    Ok(out)
}
