//! The Merkle tree of RFC 6962 §2.1 over SHA-256: leaves, the growing edge of a tree, and one proof for many leaves.
//!
//! Pure. A [`Frontier`] is all that a writer keeps (at most 64 hashes); [`prove`] needs the [`Nodes`] of the part of
//! the tree that is asked about.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

/// A SHA-256 value.
pub type Hash = [u8; 32];

/// Hash of a record: `SHA-256(0x00 || record)`.
#[must_use]
pub fn leaf(record: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(record).finalize().into()
}

/// Hash of a node over its children: `SHA-256(0x01 || left || right)`.
#[must_use]
pub fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Root of the empty tree.
#[must_use]
pub fn empty() -> Hash {
    Sha256::digest([]).into()
}

/// The right edge of a tree: the perfect subtrees it is made of, largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// From what [`Self::peaks`] gave; `None` when there are not as many as `size` has.
    #[must_use]
    pub fn restore(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (u32::try_from(peaks.len()) == Ok(size.count_ones())).then_some(Self { size, peaks })
    }

    /// Leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the perfect subtrees, largest first.
    #[must_use]
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        let mut size = self.size;
        while size & 1 == 1 {
            if let Some(left) = self.peaks.pop() {
                hash = node(&left, &hash);
            }
            size >>= 1;
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// Root of the tree so far.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return empty() };
        peaks.fold(*last, |right, left| node(left, &right))
    }

    /// The peaks as nodes of the tree.
    pub fn nodes(&self) -> impl Iterator<Item = (At, Hash)> + '_ {
        let mut start = 0u64;
        let levels = (0..64u32).rev().filter(|level| self.size >> level & 1 == 1);
        levels.zip(&self.peaks).map(move |(level, hash)| {
            let at = At { level, index: start >> level };
            start += 1 << level;
            (at, *hash)
        })
    }
}

/// A perfect subtree: `2^level` leaves from leaf `index * 2^level` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// Height above the leaves.
    pub level: u32,
    /// Which of that height.
    pub index: u64,
}

/// Known nodes of a tree.
#[derive(Debug, Clone, Default)]
pub struct Nodes {
    known: BTreeMap<At, Hash>,
}

impl Nodes {
    /// Makes a node known.
    pub fn insert(&mut self, at: At, hash: Hash) {
        self.known.insert(at, hash);
    }

    /// The node, from what is known.
    #[must_use]
    pub fn get(&self, at: At) -> Option<Hash> {
        if let Some(hash) = self.known.get(&at) {
            return Some(*hash);
        }
        let level = at.level.checked_sub(1)?;
        let left = self.get(At { level, index: at.index * 2 })?;
        Some(node(&left, &self.get(At { level, index: at.index * 2 + 1 })?))
    }

    /// Root of the leaves from `start` to `end`, for the right edge too.
    fn range(&self, start: u64, end: u64) -> Option<Hash> {
        let count = end - start;
        if count.is_power_of_two() {
            let level = count.trailing_zeros();
            return self.get(At { level, index: start >> level });
        }
        let middle = start + split(count);
        Some(node(&self.range(start, middle)?, &self.range(middle, end)?))
    }
}

/// The perfect subtrees of a run of leaves, made while it is read: what a reader needs of leaves it does not prove.
#[derive(Debug, Clone, Default)]
pub struct Run {
    next: u64,
    peaks: Vec<(At, Hash)>,
}

impl Run {
    /// A run that begins at leaf `start`.
    #[must_use]
    pub fn from(start: u64) -> Self {
        Self { next: start, peaks: Vec::new() }
    }

    /// Adds the next leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut at = At { level: 0, index: self.next };
        let mut hash = leaf;
        while at.index & 1 == 1
            && let Some((left, left_hash)) = self.peaks.last()
            && left.level == at.level
            && left.index + 1 == at.index
        {
            hash = node(left_hash, &hash);
            at = At { level: at.level + 1, index: at.index >> 1 };
            self.peaks.pop();
        }
        self.peaks.push((at, hash));
        self.next += 1;
    }

    /// The subtrees, left to right.
    #[must_use]
    pub fn peaks(&self) -> &[(At, Hash)] {
        &self.peaks
    }
}

/// The largest power of two below `count`, which is at least 2.
fn split(count: u64) -> u64 {
    let half = 1u64 << (63 - count.leading_zeros());
    if half == count { half / 2 } else { half }
}

/// Hashes that, with the leaves `wanted` (ascending, without repeats), give the root of a tree of `size` leaves: of
/// each largest subtree without a wanted leaf, left to right. `None` when a node is not known.
#[must_use]
pub fn prove(nodes: &Nodes, size: u64, wanted: &[u64]) -> Option<Vec<Hash>> {
    let mut out = Vec::new();
    walk_prove(nodes, 0, size, wanted, &mut out)?;
    Some(out)
}

fn walk_prove(nodes: &Nodes, start: u64, end: u64, wanted: &[u64], out: &mut Vec<Hash>) -> Option<()> {
    if start == end {
        return Some(());
    }
    if wanted.is_empty() {
        out.push(nodes.range(start, end)?);
        return Some(());
    }
    if end - start == 1 {
        return Some(());
    }
    let middle = start + split(end - start);
    let (left, right) = wanted.split_at(wanted.partition_point(|leaf| *leaf < middle));
    walk_prove(nodes, start, middle, left, out)?;
    walk_prove(nodes, middle, end, right, out)
}

/// The root that `leaves` (ascending by number, without repeats) and a proof give; `None` when they do not fit a tree
/// of `size` leaves.
#[must_use]
pub fn root_of(size: u64, leaves: &[(u64, Hash)], proof: &[Hash]) -> Option<Hash> {
    let ascending = leaves.iter().zip(leaves.iter().skip(1)).all(|((a, _), (b, _))| a < b);
    if !ascending || leaves.last().is_some_and(|(last, _)| *last >= size) {
        return None;
    }
    if size == 0 {
        return proof.is_empty().then(empty);
    }
    let mut proof = proof.iter();
    let root = walk_root(0, size, leaves, &mut proof)?;
    proof.next().is_none().then_some(root)
}

fn walk_root(
    start: u64,
    end: u64,
    leaves: &[(u64, Hash)],
    proof: &mut std::slice::Iter<'_, Hash>,
) -> Option<Hash> {
    match leaves {
        [] => return proof.next().copied(),
        [(_, hash)] if end - start == 1 => return Some(*hash),
        _ => {}
    }
    let middle = start + split(end - start);
    let (left, right) = leaves.split_at(leaves.partition_point(|(leaf, _)| *leaf < middle));
    let left = walk_root(start, middle, left, proof)?;
    Some(node(&left, &walk_root(middle, end, right, proof)?))
}

#[cfg(test)]
mod forged_tests;
#[cfg(test)]
mod tests;
