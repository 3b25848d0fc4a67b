//! Ring record bytes → typed facts ([`Raw`]).
//!
//! Owns the parsing of what the kernel side sends and nothing else: no table is consulted, no path is translated, no
//! clock is read. Input is hostile: every length is checked, nothing is indexed, nothing panics. What does not parse is
//! a [`DecodeError`], which the engine counts and turns into a `gap.decode` record. One file per event family.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod dns;
#[cfg(test)]
pub(crate) mod encode;
pub mod file;
pub mod hello;
pub mod network;
pub mod piece;
pub mod privilege;
pub mod process;
#[cfg(test)]
mod tests;

use agent_monitor_ebpf::header::{FLAG_JUDGED, Header, Kind, Source, Verdict};
use agent_monitor_ebpf::task::BoundBy;
use agent_monitor_ebpf::{BODY_LEN, HEADER_LEN};
use zerocopy::FromBytes;

pub use file::FileFacts;
pub use network::{Heard, NetFacts};
pub use piece::{FsPath, Tail, Text};
pub use privilege::PrivFacts;
pub use process::{ArgChunk, ExecFacts};

/// What makes a process itself: thread group id and boot time of its leader. A pid alone is never an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    /// Thread group id in the initial PID namespace.
    pub tgid: u32,
    /// `start_boottime` of the leader, nanoseconds.
    pub start: u64,
}

/// Who did it, when, and how it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What the record is about.
    pub kind: Kind,
    /// `FLAG_*` bits of [`agent_monitor_ebpf::header`].
    pub flags: u16,
    /// Boot-time nanoseconds at which the hook ran.
    pub ktime: u64,
    /// The acting process.
    pub key: TaskKey,
    /// The acting thread.
    pub tid: u32,
    /// cgroup v2 id, 0 when not known.
    pub cgroup: u64,
    /// Session, 0 for none.
    pub session: u64,
    /// Real uid.
    pub uid: u32,
    /// Real gid.
    pub gid: u32,
    /// Effective uid.
    pub euid: u32,
    /// Agent index, 0 for none.
    pub agent: u32,
    /// Index of the agent that started this one, 0 for none.
    pub delegator: u32,
    /// How the process came to be bound; `None` when it is not.
    pub bound_by: Option<BoundBy>,
    /// Which kind of hook saw it.
    pub source: Source,
    /// What was decided.
    pub verdict: Verdict,
    /// 0 or a negative errno.
    pub errno: i32,
    /// The rule that decided; `None` where nothing was judged.
    pub rule: Option<RuleRef>,
    /// What exactly was to be done, where people are asked about it; else 0.
    pub digest: u64,
}

/// A rule by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleRef {
    /// Low half of the generation that the number belongs to.
    pub generation: u16,
    /// Number among the agent's rules, or a `RULE_*` value of [`agent_monitor_ebpf::policy`].
    pub number: u16,
}

/// One ring record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// The head.
    pub head: Head,
    /// What its kind adds.
    pub body: Body,
}

/// What a kind adds to the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A process was made; the head is its parent's.
    Fork {
        /// The child.
        child: TaskKey,
        /// `NS_*` bits of namespaces it does not share.
        new_ns: u32,
    },
    /// A program was started.
    Exec(Box<ExecFacts>),
    /// A process ended.
    Exit {
        /// Wait status.
        status: u32,
    },
    /// Part of an argument list that follows in an exec.
    ArgChunk(ArgChunk),
    /// A process was bound.
    Bound {
        /// Agent before, 0 for none.
        before: u32,
    },
    /// File family.
    File(Box<FileFacts>),
    /// Network family.
    Net(Box<NetFacts>),
    /// Privilege family.
    Priv(Box<PrivFacts>),
    /// What names a peer; not an event.
    Heard(Box<Heard>),
    /// Proof that a hook runs; not an event.
    Canary,
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than what its kind needs.
    #[error("record of {found} bytes where {needed} are needed")]
    Short {
        /// Bytes there are.
        found: usize,
        /// Bytes there should be.
        needed: usize,
    },
    /// The length in the head is not the sample's.
    #[error("record says {total} bytes and has {found}")]
    Total {
        /// What the head says.
        total: u32,
        /// Bytes there are.
        found: usize,
    },
    /// A kind of a newer program set.
    #[error("record of unknown kind {0}")]
    Kind(u16),
    /// A source or verdict number that does not exist.
    #[error("record with an unknown {field} {value}")]
    Number {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u8,
    },
    /// A piece does not fit in the tail, or its parts do not fit in it.
    #[error("piece `{0}` does not fit the record")]
    Piece(&'static str),
}

impl DecodeError {
    /// One word for the reason of a gap record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Short { .. } => "decode_short",
            Self::Total { .. } => "decode_total",
            Self::Kind(_) => "decode_kind",
            Self::Number { .. } => "decode_number",
            Self::Piece(_) => "decode_piece",
        }
    }
}

/// Reads one record.
///
/// # Errors
/// When the bytes are no record of this contract; never panics, whatever the bytes.
pub fn decode(bytes: &[u8]) -> Result<Raw, DecodeError> {
    let (header, _) = Header::read_from_prefix(bytes)
        .map_err(|_short| DecodeError::Short { found: bytes.len(), needed: HEADER_LEN })?;
    let head = head(&header)?;
    let total = usize::try_from(header.total).unwrap_or(usize::MAX);
    let record = bytes.get(..total).filter(|record| record.len() >= HEADER_LEN);
    let record = record.ok_or(DecodeError::Total { total: header.total, found: bytes.len() })?;
    let rest = record.get(HEADER_LEN..).unwrap_or_default();
    let tail = Tail::new(rest.get(BODY_LEN..).unwrap_or_default());
    let body = match head.kind {
        Kind::Fork => process::fork(rest)?,
        Kind::Exec => process::exec(rest, tail)?,
        Kind::Exit => process::exit(rest)?,
        Kind::ArgChunk => process::arg_chunk(rest, tail)?,
        Kind::Bound => process::bound(rest)?,
        Kind::FileOpen
        | Kind::FileCreate
        | Kind::FileDelete
        | Kind::FileRename
        | Kind::FileLink
        | Kind::FileTruncate
        | Kind::FileSetattr
        | Kind::FileMmapExec => file::decode(rest, tail)?,
        Kind::NetConnect
        | Kind::NetBind
        | Kind::NetListen
        | Kind::NetAccept
        | Kind::NetSend
        | Kind::NetFlow => network::decode(rest, tail)?,
        Kind::NetPeer | Kind::NetAnswer | Kind::NetHello => network::heard(head.kind, rest, tail)?,
        Kind::PrivSetuid
        | Kind::PrivCapability
        | Kind::PrivPtrace
        | Kind::PrivSignal
        | Kind::PrivMount
        | Kind::PrivNamespace
        | Kind::PrivModule
        | Kind::PrivBpf => privilege::decode(rest, tail)?,
        Kind::Canary => Body::Canary,
    };
    Ok(Raw { head, body })
}

/// The kind a record claims to be of, for counting records that do not parse.
#[must_use]
pub fn claimed_kind(bytes: &[u8]) -> Option<Kind> {
    Header::read_from_prefix(bytes).ok().and_then(|(header, _)| Kind::from_u16(header.kind))
}

fn head(header: &Header) -> Result<Head, DecodeError> {
    let number = |field, value| DecodeError::Number { field, value };
    Ok(Head {
        kind: Kind::from_u16(header.kind).ok_or(DecodeError::Kind(header.kind))?,
        flags: header.flags,
        ktime: header.ktime,
        key: TaskKey { tgid: header.tgid, start: header.start },
        tid: header.tid,
        cgroup: header.cgroup,
        session: header.session,
        uid: header.uid,
        gid: header.gid,
        euid: header.euid,
        agent: header.agent,
        delegator: header.delegator,
        bound_by: BoundBy::from_u8(header.bound_by),
        source: Source::from_u8(header.source).ok_or(number("source", header.source))?,
        verdict: Verdict::from_u8(header.verdict).ok_or(number("verdict", header.verdict))?,
        errno: header.errno,
        rule: (header.flags & FLAG_JUDGED != 0).then(|| RuleRef {
            generation: u16::try_from(header.rule >> 16).unwrap_or_default(),
            number: u16::try_from(header.rule & 0xffff).unwrap_or_default(),
        }),
        digest: header.digest,
    })
}

/// The fixed part of a body.
fn fixed<T: FromBytes>(rest: &[u8]) -> Result<T, DecodeError> {
    let needed = HEADER_LEN.saturating_add(size_of::<T>());
    T::read_from_prefix(rest)
        .map(|(body, _)| body)
        .map_err(|_short| DecodeError::Short { found: HEADER_LEN.saturating_add(rest.len()), needed })
}
