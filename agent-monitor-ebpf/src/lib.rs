//! The contract between the eBPF programs and the daemon, and the pure logic that both run.
//!
//! Nothing here knows aya, a clock or a file. Types hold fixed-width integers and byte arrays only, have no implicit
//! padding (the derive refuses it) and are little-endian, as the only supported targets are. The layout of each type is
//! a golden file (`tests/golden/layout.txt`, checked by `tests/layout.rs`); change [`ABI_VERSION`] with it, because maps
//! stay pinned in bpffs while the daemon is replaced.
//!
//! A record on a ring is [`Header`], then one body of [`BODY_LEN`] bytes chosen by [`Kind`], then a tail of
//! `header.total - HEADER_LEN - BODY_LEN` bytes which the body's [`event::Piece`]s describe in order.
#![no_std]
#![warn(missing_docs)]

#[cfg(test)]
extern crate std;

#[macro_use]
mod pod;

pub mod bind;
pub mod config;
pub mod decide;
pub mod destination;
pub mod event;
pub mod fields;
pub mod header;
pub mod loss;
pub mod path;
pub mod people;
pub mod policy;
pub mod task;

pub use header::{BODY_LEN, HEADER_LEN, Header, Kind, Source, Verdict};

/// Version of everything in this crate that lives in pinned maps. A daemon that finds maps of another version pinned
/// does not reuse them.
pub const ABI_VERSION: u32 = 4;

#[cfg(test)]
mod decide_tests;
