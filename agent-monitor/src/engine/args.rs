//! Argument blocks: put together from chunks, hashed, and cut to what an event shows.

use std::collections::BTreeMap;

use agent_monitor_ebpf::event::ARGS_MAX;
use agent_monitor_ebpf::header::{FLAG_ARGS_CHUNKED, FLAG_ARGS_FAILED, FLAG_ARGS_LOST, FLAG_ARGS_TRUNCATED};
use sha2::{Digest, Sha256};

use crate::attribute::TaskKey;
use crate::decode::ArgChunk;
use crate::model::text;

/// Execs whose chunks are waited for at the same time.
const PENDING_MAX: usize = 64;
/// Bytes held in chunks at the most.
const BYTES_MAX: usize = 8 << 20;
/// Nanoseconds after which chunks without an exec are dropped.
const EXPIRE_NANOS: u64 = 10_000_000_000;
/// Bytes of the beginning that an event shows.
pub const HEAD_BYTES: usize = 8 << 10;
/// Bytes of the end that an event shows.
pub const TAIL_BYTES: usize = 2 << 10;

/// Arguments of an exec that was not let through, escaped: each NUL-terminated and padded with anything to a multiple of
/// eight bytes. The last one may be cut short, without its end.
#[must_use]
pub fn attempted(block: &[u8]) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = block;
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        words.push(text::escape(rest.get(..end).unwrap_or_default()));
        rest = rest.get((end / 8 + 1) * 8..).unwrap_or_default();
    }
    if !rest.is_empty() {
        words.push(text::escape(rest));
    }
    words
}

/// Chunks that wait for their exec.
#[derive(Debug, Default)]
pub struct Assembly {
    pending: BTreeMap<TaskKey, Pending>,
    bytes: usize,
}

#[derive(Debug)]
struct Pending {
    last: u64,
    chunks: BTreeMap<u32, Vec<u8>>,
}

impl Assembly {
    /// Keeps a chunk. When there are too many, the oldest exec's make room: its arguments are then read from `/proc`, or
    /// shown as truncated.
    pub fn add(&mut self, key: TaskKey, ktime: u64, chunk: ArgChunk) {
        self.expire(ktime);
        let Some(bytes) = chunk.bytes else { return };
        let pending = self.pending.entry(key).or_insert_with(|| Pending { last: 0, chunks: BTreeMap::new() });
        pending.last = ktime;
        self.bytes += bytes.len();
        let replaced = pending.chunks.insert(chunk.offset, bytes);
        self.bytes -= replaced.map_or(0, |bytes| bytes.len());
        while self.pending.len() > PENDING_MAX || self.bytes > BYTES_MAX {
            let oldest = self.pending.iter().min_by_key(|(_, pending)| pending.last).map(|(key, _)| *key);
            let Some(oldest) = oldest else { return };
            self.drop_of(oldest);
        }
    }

    /// Forgets the chunks of a process.
    pub fn drop_of(&mut self, key: TaskKey) {
        if let Some(pending) = self.pending.remove(&key) {
            self.bytes -= pending.chunks.values().map(Vec::len).sum::<usize>();
        }
    }

    fn expire(&mut self, ktime: u64) {
        let too_old = ktime.saturating_sub(EXPIRE_NANOS);
        let old: Vec<_> =
            self.pending.iter().filter(|(_, p)| p.last < too_old).map(|(key, _)| *key).collect();
        old.into_iter().for_each(|key| self.drop_of(key));
    }

    /// The argument block of an exec, and whether it is whole.
    pub fn take(&mut self, key: TaskKey, flags: u16, inline: Vec<u8>, total: u32) -> (Vec<u8>, bool) {
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        let mut block = inline;
        if flags & FLAG_ARGS_CHUNKED != 0 {
            let chunks = self.pending.get_mut(&key).map(|pending| std::mem::take(&mut pending.chunks));
            let chunks = chunks.unwrap_or_default();
            self.bytes -= chunks.values().map(Vec::len).sum::<usize>();
            self.drop_of(key);
            block = Vec::with_capacity(total.min(ARGS_MAX));
            for (offset, bytes) in chunks {
                if usize::try_from(offset) != Ok(block.len()) {
                    break;
                }
                block.extend_from_slice(&bytes);
            }
        }
        let broken = flags & (FLAG_ARGS_FAILED | FLAG_ARGS_TRUNCATED | FLAG_ARGS_LOST) != 0;
        let whole = !broken && block.len() == total;
        (block, whole)
    }
}

/// Arguments as an event shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// Escaped; head and tail only when `truncated`.
    pub args: Vec<String>,
    /// Something is missing.
    pub truncated: bool,
    /// SHA-256 of the whole block, where it is whole.
    pub sha256: Option<String>,
}

/// The arguments in a block.
#[must_use]
pub fn split(block: &[u8]) -> Vec<Vec<u8>> {
    if block.is_empty() {
        return Vec::new();
    }
    let block = block.strip_suffix(b"\0").unwrap_or(block);
    block.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// What an event shows of a block.
#[must_use]
pub fn show(block: &[u8], whole: bool) -> Shown {
    let escaped = |bytes: &[u8]| split(bytes).iter().map(|arg| text::escape(arg)).collect::<Vec<_>>();
    let sha256 = whole.then(|| hex(&Sha256::digest(block)));
    let cut = block.split_at_checked(HEAD_BYTES).filter(|(_, rest)| rest.len() > TAIL_BYTES);
    let Some((head, rest)) = cut else {
        return Shown { args: escaped(block), truncated: !whole, sha256 };
    };
    let mut args = escaped(head);
    // The tail starts at an argument's beginning; one that began before stays out.
    let tail = rest.get(rest.len() - TAIL_BYTES..).unwrap_or_default();
    if let Some(start) = tail.iter().position(|byte| *byte == 0) {
        args.extend(escaped(tail.get(start + 1..).unwrap_or_default()));
    }
    Shown { args, truncated: true, sha256 }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into a String cannot fail.
        write!(out, "{byte:02x}").ok();
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: TaskKey = TaskKey { tgid: 1, start: 1 };

    fn chunk(offset: u32, bytes: &[u8]) -> ArgChunk {
        ArgChunk { offset, args_total: 0, bytes: Some(bytes.to_vec()) }
    }

    #[test]
    fn attempted_arguments_may_be_cut() {
        assert_eq!(attempted(b"a\0......12345678\0.......\0......."), ["a", "12345678", ""]);
        assert_eq!(attempted(b"a\0......12345678"), ["a", "12345678"]);
        assert_eq!(attempted(b""), Vec::<String>::new());
    }

    #[test]
    fn chunks_become_one_block() {
        let mut assembly = Assembly::default();
        assembly.add(KEY, 1, chunk(4, b"b\0"));
        assembly.add(KEY, 1, chunk(0, b"aaa\0"));
        assert_eq!(assembly.take(KEY, FLAG_ARGS_CHUNKED, Vec::new(), 6), (b"aaa\0b\0".to_vec(), true));
        assert_eq!((assembly.bytes, assembly.pending.len()), (0, 0));
        assembly.add(KEY, 1, chunk(4, b"b\0"));
        assert_eq!(assembly.take(KEY, FLAG_ARGS_CHUNKED, Vec::new(), 6), (Vec::new(), false), "a hole");
    }

    #[test]
    fn chunks_without_an_exec_are_bounded() {
        let mut assembly = Assembly::default();
        for tgid in 0..1000 {
            assembly.add(TaskKey { tgid, start: 1 }, u64::from(tgid), chunk(0, &[1; 4096]));
        }
        assert_eq!(assembly.pending.len(), PENDING_MAX);
        assembly.add(KEY, EXPIRE_NANOS * 3, chunk(0, &[1; 8]));
        assert_eq!((assembly.pending.len(), assembly.bytes), (1, 8));
    }

    #[test]
    fn long_blocks_show_head_and_tail() {
        let block: Vec<u8> = (0..5000).flat_map(|n| format!("arg{n:05}\0").into_bytes()).collect();
        let shown = show(&block, true);
        assert!(shown.truncated && shown.sha256.is_some());
        assert_eq!(shown.args.first().map(String::as_str), Some("arg00000"));
        assert_eq!(shown.args.last().map(String::as_str), Some("arg04999"));
        assert!(shown.args.iter().map(String::len).sum::<usize>() <= HEAD_BYTES + TAIL_BYTES);
        assert_eq!(show(b"", true).args, Vec::<String>::new());
        assert_eq!(show(b"a\0\0b\0", true).args, ["a", "", "b"]);
    }

    proptest! {
        #[test]
        fn any_block_is_shown(block in proptest::collection::vec(0u8..3, 0..20_000), whole in any::<bool>()) {
            let shown = show(&block, whole);
            prop_assert_eq!(shown.sha256.is_some(), whole);
        }

        #[test]
        fn counts_stay_right(steps in proptest::collection::vec((0u32..4, 0u32..4, 0usize..40), 0..60)) {
            let mut assembly = Assembly::default();
            for (tgid, offset, len) in steps {
                let key = TaskKey { tgid, start: 1 };
                if len == 39 {
                    assembly.take(key, FLAG_ARGS_CHUNKED, Vec::new(), 0);
                } else {
                    assembly.add(key, 1, chunk(offset, &vec![1; len]));
                }
                let held: usize = assembly.pending.values().flat_map(|p| p.chunks.values()).map(Vec::len).sum();
                prop_assert_eq!(held, assembly.bytes);
            }
        }
    }
}
