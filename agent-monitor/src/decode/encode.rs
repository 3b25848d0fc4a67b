//! Writes records as the kernel side does. For tests only.
#![expect(clippy::arithmetic_side_effects, reason = "tests may panic")]

use agent_monitor_ebpf::event::{PIECE_DENTRY, Piece};
use agent_monitor_ebpf::header::{Header, Kind, Source};
use agent_monitor_ebpf::{BODY_LEN, HEADER_LEN};
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// A head with `tgid` as its own leader, at `ktime`, of agent `agent`.
pub(crate) fn head(kind: Kind, ktime: u64, tgid: u32, start: u64, agent: u32) -> Header {
    Header {
        kind: kind as u16,
        ktime,
        tgid,
        tid: tgid,
        start,
        agent,
        bound_by: if agent == 0 { 0 } else { 1 },
        source: Source::Lsm as u8,
        ..Header::new_zeroed()
    }
}

/// The record of `head`, `body` and tail pieces.
pub(crate) fn record<B: IntoBytes + Immutable>(mut head: Header, body: &B, tail: &[Vec<u8>]) -> Vec<u8> {
    let tail = tail.concat();
    head.total = u32::try_from(HEADER_LEN + BODY_LEN + tail.len()).unwrap();
    let mut out = head.as_bytes().to_vec();
    out.extend_from_slice(body.as_bytes());
    out.resize(HEADER_LEN + BODY_LEN, 0xee);
    out.extend_from_slice(&tail);
    out
}

/// A dentry piece of a path text, padded with rubbish as the kernel may.
pub(crate) fn dentry(path: &str) -> (Piece, Vec<u8>) {
    let mut out = Vec::new();
    let mut depth = 0;
    for name in path.split('/').filter(|name| !name.is_empty()).rev() {
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(8), 0xa5);
        depth += 1;
    }
    (Piece { len: u16::try_from(out.len()).unwrap(), depth, flags: PIECE_DENTRY }, out)
}

/// A text piece, NUL-terminated and padded.
pub(crate) fn text(text: &[u8]) -> (Piece, Vec<u8>) {
    let mut out = text.to_vec();
    out.push(0);
    out.resize(out.len().next_multiple_of(8), 0);
    (Piece { len: u16::try_from(out.len()).unwrap(), depth: 0, flags: 0 }, out)
}

/// An absent piece.
pub(crate) const NONE: Piece = Piece { len: 0, depth: 0, flags: 0 };
