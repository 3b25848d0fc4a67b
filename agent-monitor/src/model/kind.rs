//! Names of kinds and families: the text form of the contract. What else is known of a kind is in [`super::kinds`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use super::kinds::Kind;

/// First half of a kind: `file` of `file.open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Life of processes.
    Process,
    /// File systems.
    File,
    /// Sockets.
    Network,
    /// Rights used or gained.
    Privilege,
    /// Attempts on the monitor.
    Tamper,
    /// Changes to registered agents, and bindings.
    Agent,
    /// Sessions.
    Session,
    /// Grants.
    Grant,
    /// Approvals.
    Approval,
    /// Something a person should look at.
    Finding,
    /// Something that could not be seen.
    Gap,
    /// What was done to the log itself.
    Log,
}

impl Family {
    /// All families, in the order of the contract.
    pub const ALL: [Self; 12] = [
        Self::Process,
        Self::File,
        Self::Network,
        Self::Privilege,
        Self::Tamper,
        Self::Agent,
        Self::Session,
        Self::Grant,
        Self::Approval,
        Self::Finding,
        Self::Gap,
        Self::Log,
    ];

    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::File => "file",
            Self::Network => "network",
            Self::Privilege => "privilege",
            Self::Tamper => "tamper",
            Self::Agent => "agent",
            Self::Session => "session",
            Self::Grant => "grant",
            Self::Approval => "approval",
            Self::Finding => "finding",
            Self::Gap => "gap",
            Self::Log => "log",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Family {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|f| f.as_str() == name).ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

/// A name that is no kind and no family.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an event kind")]
pub struct UnknownKind(pub String);

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.iter().copied().find(|k| k.as_str() == name).ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}
