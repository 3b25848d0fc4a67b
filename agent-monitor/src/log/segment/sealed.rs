//! Closed segments: zstd frames of whole lines, and behind them an index by time and record number.
//!
//! The index is JSON in a skippable frame, followed in the same frame by its SHA-256, its length and `AMIX`, so that it
//! is found from the end of the file. Before it stands, in a skippable frame of its own, a note over the hash that the
//! log's key signed when the segment was closed: a reader leaves a segment out only by an index with a good note. A
//! segment without a note, as older versions wrote them, is read in full and its index compared with what was read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, Read, Seek as _, SeekFrom, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Line, Peek, VERSION, parse};
use crate::log::merkle::{Hash, Run, leaf};
use crate::log::note::{self, NoteError, PublicKey, SecretKey};
use crate::model::{Kind, Time};

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
/// Magic of the skippable frame of the note over the index.
const SEAL: u32 = 0x184D_2A5B;
/// Most bytes of that note.
const SEAL_MAX: u64 = 64 << 10;
/// First line of that note.
const TITLE: &str = "agent-monitor segment index";
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
    /// Runs of records (first, first after) that were removed by rule, as its records declare.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<(u64, u64)>,
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
            removed: Vec::new(),
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
                    if kind == Kind::LogRetained.as_str() {
                        self.index.removed.extend(removed(json));
                    }
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

/// The runs of records that a `log.retained` record declares to be removed.
#[must_use]
pub fn removed(json: &[u8]) -> Vec<(u64, u64)> {
    let value = serde_json::from_slice::<serde_json::Value>(json).unwrap_or_default();
    serde_json::from_value(value["detail"]["removed"].clone()).unwrap_or_default()
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

/// Compresses the lines of an open segment of the log `origin`, whose index `key` signs. Returns the index.
///
/// # Errors
/// When reading or writing fails.
pub fn seal(
    first: u64,
    mut lines: impl BufRead,
    mut to: impl Write,
    key: &SecretKey,
    origin: &str,
) -> io::Result<Index> {
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
    let json = serde_json::to_vec(&index)?;
    let note = key.sign(&statement(origin, &index, &Sha256::digest(&json).into()));
    to.write_all(&SEAL.to_le_bytes())?;
    to.write_all(&u32::try_from(note.len()).unwrap_or_default().to_le_bytes())?;
    to.write_all(note.as_bytes())?;
    to.write_all(&footer(&json)?)?;
    Ok(index)
}

/// What is signed of an index.
fn statement(origin: &str, index: &Index, hash: &Hash) -> String {
    let Index { first, end, .. } = index;
    format!("{TITLE}\n{origin}\nrecords {first} {end}\nsha256 {}\n", crate::log::hex(hash))
}

fn footer(json: &[u8]) -> io::Result<Vec<u8>> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidData, "the index is too long");
    let length = u32::try_from(json.len()).ok().ok_or_else(too_long)?;
    let size = length.checked_add(40).ok_or_else(too_long)?;
    let mut out = Vec::with_capacity(json.len() + 48);
    out.extend(SKIPPABLE.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(json);
    out.extend(Sha256::digest(json));
    out.extend(length.to_le_bytes());
    out.extend(END);
    Ok(out)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// An index as it was found, with the note over it.
#[derive(Debug, Clone)]
pub struct Found {
    /// The index.
    pub index: Index,
    hash: Hash,
    note: Option<String>,
}

impl Found {
    /// The log whose key signed the index, and which key; `None` where it has no note.
    ///
    /// # Errors
    /// When it has one that is not of one of `keys`, or of another index.
    pub fn signed<'k>(&self, keys: &'k [PublicKey]) -> Result<Option<(String, &'k PublicKey)>, NoteError> {
        let Some(note) = &self.note else { return Ok(None) };
        let (text, key) = note::open(note, keys)?;
        let origin = text.lines().nth(1).unwrap_or_default();
        if text == statement(origin, &self.index, &self.hash) {
            Ok(Some((origin.to_owned(), key)))
        } else {
            Err(NoteError::BadSignature)
        }
    }
}

/// The checkpoint note that a closed segment ends with; `None` where its last frame has none.
///
/// # Errors
/// As [`block`].
pub fn last_checkpoint(file: &mut File, index: &Index) -> io::Result<Option<String>> {
    let Some(last) = index.blocks.last() else { return Ok(None) };
    let lines = block(file, last)?;
    let mut lines = lines.rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.next().and_then(parse).and_then(|line| match line {
        Line::Checkpoint(note) => Some(note),
        Line::Header(_) | Line::Record { .. } | Line::Rotation(_) => None,
    }))
}

/// Reads the index of a closed segment, and checks that its frames are all there is before it.
///
/// # Errors
/// When it cannot be read or does not fit the file (kind `InvalidData`).
pub fn index(file: &mut File) -> io::Result<Index> {
    find(file).map(|found| found.index)
}

/// The same, with the note over it.
///
/// # Errors
/// As [`index`].
pub fn find(file: &mut File) -> io::Result<Found> {
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
    if index.version != VERSION || at > start {
        return Err(bad("the index does not fit the frames"));
    }
    let hash = Sha256::digest(json).into();
    let note = if at == start { None } else { Some(note_between(file, at, start)?) };
    Ok(Found { index, hash, note })
}

/// The note over the index, which must be all there is between the frames and the index.
fn note_between(file: &mut File, from: u64, to: u64) -> io::Result<String> {
    let misfit = || bad("the index does not fit the frames");
    let size = (to - from).checked_sub(8).filter(|size| *size <= SEAL_MAX).ok_or_else(misfit)?;
    let mut bytes = vec![0; usize::try_from(size + 8).unwrap_or_default()];
    file.seek(SeekFrom::Start(from))?;
    file.read_exact(&mut bytes)?;
    let (head, note) = bytes.split_at(8);
    if head != [SEAL.to_le_bytes(), u32::try_from(size).unwrap_or_default().to_le_bytes()].concat() {
        return Err(misfit());
    }
    String::from_utf8(note.to_vec()).ok().ok_or_else(|| bad("the note over the index is not text"))
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
