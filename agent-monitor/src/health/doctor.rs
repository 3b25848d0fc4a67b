//! What this host's kernel lets the monitor do: the report that `doctor` prints and `status` sums up.
//!
//! Data only. `kernel` fills it from probes and canaries.

use serde::{Deserialize, Serialize};

/// How much of the monitor works here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// No BPF: registry, sweep, export and verify only.
    None,
    /// Tracepoints and cgroup programs, no LSM.
    Partial,
    /// BPF LSM and BTF.
    Full,
}

impl Level {
    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Partial => "partial",
            Self::Full => "full",
        }
    }
}

/// The whole report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`crate::model::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Overall.
    pub level: Level,
    /// `uname -r`.
    pub kernel: String,
    /// Machine (`x86_64`).
    pub machine: String,
    /// One row per action family.
    pub families: Vec<FamilyReport>,
    /// What was looked at, in the order of looking.
    pub checks: Vec<Check>,
    /// What each attached program cost the kernel's verifier.
    #[serde(default)]
    pub programs: Vec<ProgramCost>,
}

/// What a program cost the kernel's verifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramCost {
    /// Name of the program.
    pub name: String,
    /// Instructions that the verifier walked through; its limit is a million.
    pub verified_instructions: u32,
    /// Bytes of the program after the kernel's rewriting.
    pub translated_bytes: u32,
}

/// What holds for one action family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyReport {
    /// `process`, `file`, `network`, `privilege`, `tamper`.
    pub family: String,
    /// Actions are seen.
    pub see: Ability,
    /// Actions can be refused.
    pub stop: Ability,
    /// Actions can be suspended for a person.
    pub hold: Ability,
    /// Objects are named (whole paths, peer names).
    pub name: Ability,
    /// Budgets are counted in the kernel.
    pub budget: Ability,
}

/// Whether something can be done here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ability {
    /// Yes, in part, or no.
    pub state: AbilityState,
    /// A canary was seen to work; without it `state` is a belief.
    pub confirmed: bool,
    /// By what, or why not.
    pub reason: String,
    /// What would change it (the kernel command line to set).
    pub fix: Option<String>,
}

/// See [`Ability::state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AbilityState {
    /// All of it.
    Yes,
    /// Some of it; the reason says what not.
    Partial,
    /// None.
    No,
}

/// Name of the [`Check`] that stands in the report while pins of the monitor are gone and cannot be put back.
pub const PINS: &str = "pins";
/// Name of the [`Check`] that says whether the durable log is written.
pub const LOG: &str = "log";
/// Name of the [`Check`] for a log that was found damaged and set aside, until somebody moves it away.
pub const LOG_SET_ASIDE: &str = "log set aside";

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Short name (`btf`, `lsm`, `bpffs`).
    pub name: String,
    /// It is as it should be.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What to do about it, where it is not.
    pub fix: Option<String>,
}
