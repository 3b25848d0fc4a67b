//! The record of one agent, as read: who it is, how it is recognised, what it may do, how it ends.
//!
//! Plain data. Every part that a diagnostic or an explanation may point at keeps its place in the
//! file. Nothing here reads files, asks the host or knows the time.

use std::{fmt, path::Path, str::FromStr, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    argv::ArgvPattern,
    source::{Located, Source},
};
use crate::scope::Scope;

/// Longest agent id in bytes.
pub const MAX_ID_BYTES: usize = 63;

/// The name of an agent: a lower-case DNS label of 1 to 63 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(Arc<str>);

/// Why a text is no agent id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an agent id is 1 to 63 lower-case letters, digits and -, and neither begins nor ends with -")]
pub struct AgentIdError;

impl AgentId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AgentId {
    type Err = AgentIdError;
    fn from_str(text: &str) -> Result<Self, AgentIdError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = (1..=MAX_ID_BYTES).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if fits { Ok(Self(text.into())) } else { Err(AgentIdError) }
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for AgentId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for AgentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AgentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether verdicts are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Verdicts stop actions.
    Enforce,
    /// Verdicts are recorded, nothing is stopped.
    #[default]
    Observe,
}

/// What to do where this host cannot enforce all that the scope asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Degrade {
    /// Go on with what is possible, and say what is lost.
    Allow,
    /// Do not register the agent.
    #[default]
    Refuse,
}

/// What becomes of held actions when the daemon is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDaemonLoss {
    /// They fail.
    #[default]
    Deny,
    /// They wait and are offered again when it is back.
    Wait,
}

/// A user, by name or number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum UserRef {
    /// By number.
    Uid(u32),
    /// By name.
    Name(String),
}

impl UserRef {
    /// Whether it is root by its own words; a host may give user 0 other names.
    pub fn is_root(&self) -> bool {
        match self {
            Self::Uid(uid) => *uid == 0,
            Self::Name(name) => name == "root",
        }
    }
}

impl fmt::Display for UserRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "{uid}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Who may approve: `user:NAME`, `group:NAME`, or a bare name that stands for both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Approver {
    /// The user of this name, or a member of the group of this name.
    Any(String),
    /// A member of this group.
    Group(String),
    /// This user.
    User(String),
}

impl Approver {
    /// By the kind (`user`, `group`, or nothing) and the name; `None` for another kind.
    pub fn of(kind: &str, name: &str) -> Option<Self> {
        match kind {
            "" => Some(Self::Any(name.to_owned())),
            "user" => Some(Self::User(name.to_owned())),
            "group" => Some(Self::Group(name.to_owned())),
            _ => None,
        }
    }

    /// Reads `user:NAME`, `group:NAME` or `NAME`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':').unwrap_or(("", text));
        let is_name =
            !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':');
        Self::of(kind, name).filter(|_| is_name)
    }

    /// The name without its kind.
    pub fn name(&self) -> &str {
        match self {
            Self::Any(name) | Self::Group(name) | Self::User(name) => name,
        }
    }
}

impl fmt::Display for Approver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(name) => f.write_str(name),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::User(name) => write!(f, "user:{name}"),
        }
    }
}

impl Serialize for Approver {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// SHA-256 of a file's contents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One `[[match]]`: a process is the agent's when *all* conditions in here hold. At least one is
/// set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Match {
    /// `match[N]`, N from 0; the name in messages.
    pub name: String,
    /// Name of a systemd unit, with suffix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<Located<String>>,
    /// Absolute path in the cgroup v2 hierarchy (`/system.slice/x.service`), descendants included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Located<String>>,
    /// Container id, 12 to 64 lower-case hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Located<String>>,
    /// Absolute path of the executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<Located<String>>,
    /// Absolute path of the script that an interpreter runs (`#!`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<Located<String>>,
    /// Contents of `exe` or `script`, whichever is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Located<Sha256>>,
    /// The command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Located<ArgvPattern>>,
    /// Real user id of the process at exec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Located<UserRef>>,
    /// Only by `agent-monitor exec`, which is always possible; stands alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub launch: bool,
}

/// How closely a match looks; the greater wins where two agents claim one process.
///
/// First the number of conditions, then the strongest of them: contents, script, executable,
/// command line, container, cgroup or unit, user. Two agents that are still equal fit different
/// conditions of the same strength; the smaller agent id wins, so that the answer never varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct MatchRank {
    /// Number of conditions.
    pub conditions: u8,
    /// Strength of the strongest condition, 1 (user) to 7 (contents).
    pub strongest: u8,
}

impl Match {
    /// How closely the match looks.
    pub fn rank(&self) -> MatchRank {
        let set = [
            (self.sha256.is_some(), 7),
            (self.script.is_some(), 6),
            (self.exe.is_some(), 5),
            (self.argv.is_some(), 4),
            (self.container.is_some(), 3),
            (self.cgroup.is_some() || self.unit.is_some(), 2),
            (self.user.is_some(), 1),
        ];
        let present = set.iter().filter(|(is_set, _)| *is_set);
        let both = u8::from(self.cgroup.is_some() && self.unit.is_some());
        MatchRank {
            conditions: u8::try_from(present.clone().count()).unwrap_or(u8::MAX) + both,
            strongest: present.map(|(_, strength)| *strength).max().unwrap_or(0),
        }
    }
}

/// What is left to do when an agent is retired: `[offboarding]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Offboarding {
    /// Credential files to remove; absolute paths.
    pub remove_files: Vec<Located<String>>,
    /// systemd units to stop and disable.
    pub disable_units: Vec<Located<String>>,
    /// Steps that a person takes and confirms, in words.
    pub manual: Vec<Located<String>>,
}

impl Offboarding {
    /// Whether nothing is left to do.
    pub fn is_empty(&self) -> bool {
        self.remove_files.is_empty() && self.disable_units.is_empty() && self.manual.is_empty()
    }
}

/// One agent as registered.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// The text that it was read from.
    #[serde(skip)]
    pub source: Arc<Source>,
    /// Who it is.
    pub id: Located<AgentId>,
    /// Who answers for it.
    pub owner: Located<String>,
    /// What it is for.
    pub purpose: Located<String>,
    /// Where it may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Located<String>>,
    /// The data that it may see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_boundary: Option<Located<String>>,
    /// When it ends.
    pub expires: Located<Timestamp>,
    /// It also ends after this long without activity; whole seconds.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "whole_seconds")]
    pub retire_when_idle: Option<Located<Duration>>,
    /// Whether verdicts are carried out.
    pub mode: Located<Mode>,
    /// Who may approve what is held.
    pub approvers: Vec<Located<Approver>>,
    /// How many different people must approve; at least 1.
    pub approvals: u8,
    /// What to do where the host cannot enforce the scope.
    pub degrade: Degrade,
    /// What becomes of held actions when the daemon is gone.
    pub on_daemon_loss: OnDaemonLoss,
    /// How long an action of it is held before it is denied: 1 s to 24 h, whole seconds; the daemon's setting where it
    /// says nothing.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "whole_seconds")]
    pub hold_timeout: Option<Located<Duration>>,
    /// How its processes are recognised; any one is enough. May be empty: launch only.
    #[serde(rename = "match")]
    pub matches: Vec<Located<Match>>,
    /// What it may do.
    pub scope: Scope,
    /// What is left to do when it is retired.
    #[serde(skip_serializing_if = "Offboarding::is_empty")]
    pub offboarding: Offboarding,
}

fn whole_seconds<S: Serializer>(span: &Option<Located<Duration>>, serializer: S) -> Result<S::Ok, S::Error> {
    span.map(|span| span.as_secs()).serialize(serializer)
}

impl Record {
    /// The file it was read from.
    pub fn file(&self) -> &Path {
        self.source.file()
    }

    /// Whether the end date has passed.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.value <= now
    }
}

/// Two records are equal when they say the same, wherever and however they say it.
impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            source: _,
            id,
            owner,
            purpose,
            environment,
            data_boundary,
            expires,
            retire_when_idle,
            mode,
            approvers,
            approvals,
            degrade,
            on_daemon_loss,
            hold_timeout,
            matches,
            scope,
            offboarding,
        } = self;
        *id == other.id
            && *owner == other.owner
            && *purpose == other.purpose
            && *environment == other.environment
            && *data_boundary == other.data_boundary
            && *expires == other.expires
            && *retire_when_idle == other.retire_when_idle
            && *mode == other.mode
            && *approvers == other.approvers
            && *approvals == other.approvals
            && *degrade == other.degrade
            && *on_daemon_loss == other.on_daemon_loss
            && *hold_timeout == other.hold_timeout
            && *matches == other.matches
            && *scope == other.scope
            && *offboarding == other.offboarding
    }
}

impl Eq for Record {}
