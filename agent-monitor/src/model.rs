//! The event: what every other module produces, stores, filters, shows and exports.
//!
//! Owns the names and order of the JSON contract (`schema_version` 1): fields are added, never renamed and
//! never given another meaning. Must not do I/O, read a clock or decide anything. `decode`, `attribute` and
//! `judge` fill events; `record` gives them their `seq`; `cli` and `export` read them.
//!
//! Conventions of the JSON form:
//! - A field that applies to every event is always there, `null` where it is not known; arrays are there even
//!   when empty. A field that belongs to some kinds only (`new_path`, `exit_code`, `gap` …) is left out
//!   elsewhere.
//! - Times are RFC 3339 UTC with nine fractional digits ([`Time`]).
//! - Text from the kernel is bytes. What is not UTF-8 becomes `\xNN`, without loss: see [`text`].

pub mod errno;
pub mod file;
pub mod gap;
pub mod hold;
pub mod kind;
pub mod kinds;
pub mod network;
pub mod privilege;
pub mod process;
pub mod text;
pub mod time;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use errno::Errno;
pub use file::{Access, File};
pub use gap::Gap;
pub use hold::Hold;
pub use kind::{Family, Kind, UnknownKind};
pub use network::{AddressFamily, Network};
pub use privilege::{Privilege, Target};
pub use process::{Ancestor, Process};
pub use time::Time;

/// Version of the JSON contract. Raised only when a reader of the old one would be misled.
pub const SCHEMA_VERSION: u32 = 1;

/// One thing that happened on the host, or that the monitor has to say about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// Position in this daemon's record, from 1, without holes. 0 until the store has taken the event.
    pub seq: u64,
    /// When it happened (kernel time of the hook, as wall clock).
    pub time: Time,
    /// What happened.
    pub kind: Kind,
    /// What was decided; `null` for records that are not about an action (`gap.*`, `agent.*` …).
    pub verdict: Option<Verdict>,
    /// The error the action ended with, where it did and the source can see it.
    pub errno: Option<Errno>,
    /// To whom it is attributed; `null` is an unattributed process.
    pub agent: Option<Arc<Agent>>,
    /// Why there is no agent, where more is known than "no rule matched".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unattributed_reason: Option<String>,
    /// The rule that decided, as a path into the record (`scope.file[2]`).
    pub rule: Option<String>,
    /// Mode of the agent at that moment.
    pub mode: Option<Mode>,
    /// Which kind of hook saw it, and so what it could know.
    pub source: Source,
    /// The acting process; for `process.fork` the new child.
    pub process: Option<Arc<Process>>,
    /// The file acted on.
    pub file: Option<File>,
    /// The peer or socket acted on.
    pub network: Option<Network>,
    /// The right used or asked for.
    pub privilege: Option<Privilege>,
    /// Taint labels of the process at that moment, sorted.
    pub labels: Vec<String>,
    /// MITRE ATT&CK / ATLAS technique ids.
    pub technique: Vec<String>,
    /// Entries of the OWASP Agentic and NHI Top 10, NIST CSF 2.0 and AI RMF that it fits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// What could not be seen (`gap.*`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// The action waits for a person, or was refused until one has been asked (verdict `hold`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Free fields of findings and of changes to agents, sessions, grants and approvals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
}

/// Free-form fields, in key order.
pub type Detail = serde_json::Map<String, serde_json::Value>;

impl Event {
    /// An event with nothing known but when, what and from where.
    #[must_use]
    pub fn new(time: Time, kind: Kind, source: Source) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            seq: 0,
            time,
            kind,
            verdict: None,
            errno: None,
            agent: None,
            unattributed_reason: None,
            rule: None,
            mode: None,
            source,
            process: None,
            file: None,
            network: None,
            privilege: None,
            labels: Vec::new(),
            technique: Vec::new(),
            references: Vec::new(),
            gap: None,
            hold: None,
            detail: None,
        }
    }

    /// A `gap.*` record of the daemon. `kind` should be of [`Family::Gap`].
    #[must_use]
    pub fn gap(time: Time, kind: Kind, gap: Gap) -> Self {
        Self { gap: Some(gap), ..Self::new(time, kind, Source::Daemon) }
    }

    /// The contract form: one JSON object without a line end.
    ///
    /// # Errors
    /// Only if the serialiser itself fails; no value of this type makes it do so.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Bytes this event holds, roughly and never far below the truth; shared parts are counted in full.
    #[must_use]
    pub fn weight(&self) -> usize {
        let detail = self.detail.as_ref().map_or(0, |d| d.len() * 96);
        size_of::<Self>()
            + self.process.as_ref().map_or(0, |p| p.weight())
            + self.agent.as_ref().map_or(0, |a| size_of::<Agent>() + a.id.len())
            + self.file.as_ref().map_or(0, File::weight)
            + self.network.as_ref().map_or(0, Network::weight)
            + self
                .labels
                .iter()
                .chain(&self.technique)
                .chain(&self.references)
                .map(|s| s.len() + size_of::<String>())
                .sum::<usize>()
            + detail
    }
}

/// To whom an action is attributed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Registered id (lower-case DNS label).
    pub id: String,
    /// Session (UUIDv7 text), where there is one.
    pub session: Option<String>,
    /// How the process came to be bound.
    pub bound_by: BoundBy,
    /// The agent that started this one, for an agent run by another agent.
    pub delegator: Option<String>,
    /// Milliseconds from the exec to the binding, for bindings made in user space; absent where the kernel
    /// bound before the first instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_delay_ms: Option<u64>,
}

/// How a process came to be bound to its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoundBy {
    /// Executable file, at exec, in the kernel.
    Exe,
    /// Script of a shebang program, at exec, in the kernel.
    Script,
    /// Script named in the argument list, from user space, late.
    Argv,
    /// User id, at exec.
    User,
    /// Control group, at exec.
    Cgroup,
    /// systemd unit, at exec.
    Unit,
    /// Container, at exec.
    Container,
    /// `agent-monitor exec`.
    Launch,
    /// Fork, vfork or clone of a bound process.
    Inherited,
    /// It ran before the daemon or the registration.
    Backfill,
}

impl BoundBy {
    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exe => "exe",
            Self::Script => "script",
            Self::Argv => "argv",
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Unit => "unit",
            Self::Container => "container",
            Self::Launch => "launch",
            Self::Inherited => "inherited",
            Self::Backfill => "backfill",
        }
    }
}

/// What was decided about an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Within scope, or observed without a rule.
    Allow,
    /// Let through and marked.
    Audit,
    /// Refused (in mode `observe`: would have been).
    Deny,
    /// Suspended until a person answers.
    Hold,
    /// The process was ended.
    Kill,
}

impl Verdict {
    /// All of them, in the order of severity.
    pub const ALL: [Self; 5] = [Self::Allow, Self::Audit, Self::Deny, Self::Hold, Self::Kill];

    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Audit => "audit",
            Self::Deny => "deny",
            Self::Hold => "hold",
            Self::Kill => "kill",
        }
    }
}

/// Whether verdicts of an agent are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Verdicts are recorded, nothing is stopped.
    Observe,
    /// Verdicts are carried out.
    Enforce,
}

/// What kind of hook saw the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// BPF LSM: on kernel objects, after all resolution (level *full*).
    Lsm,
    /// BTF tracepoint (`sched_*`).
    TpBtf,
    /// Raw tracepoint on `sys_enter`/`sys_exit`: on syscall arguments (level *partial*).
    RawTracepoint,
    /// At the return of a kernel function.
    Fexit,
    /// Classic tracepoint, in records of earlier versions.
    Tracepoint,
    /// cgroup program (connect, sendmsg, skb).
    Cgroup,
    /// A task iterator or `/proc`, at back-fill: inferred, not witnessed.
    Backfill,
    /// The daemon itself.
    Daemon,
}

impl Source {
    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lsm => "lsm",
            Self::TpBtf => "tp_btf",
            Self::RawTracepoint => "raw_tracepoint",
            Self::Fexit => "fexit",
            Self::Tracepoint => "tracepoint",
            Self::Cgroup => "cgroup",
            Self::Backfill => "backfill",
            Self::Daemon => "daemon",
        }
    }
}

#[cfg(test)]
mod tests;
