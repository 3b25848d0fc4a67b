//! What an agent may do, as declared: the model of the `[scope]` part of a record.
//!
//! Owns the rule types, their patterns, their reading and the checks that need nothing but the
//! scope itself. Does no I/O, reads no clock and cannot panic. Compiling a scope for the kernel and
//! deciding by it build on these types.
//!
//! **Which rule decides.** Among the rules of one family that fit an action, the most specific
//! pattern decides ([`PathPattern::specificity`], [`NetPattern::precedence`]); between equals the
//! strictest verdict does, in the order of [`Verdict`]. A rule whose `unless` labels the process
//! carries does not fit. Where no rule fits, [`Scope::default`] decides.

pub mod base;
pub mod compile;
pub mod hold;
pub mod image;
pub mod landlock;
pub mod lint;
pub mod net;
pub mod parse;
pub mod path;

use std::collections::BTreeSet;

use serde::Serialize;

pub use self::{
    net::{Host, NetPattern, Ports, Protocol},
    path::{PathError, PathPattern, Specificity},
};
use crate::registry::{argv::ArgvPattern, source::Located};

/// What happens to an action. Ordered from the mildest to the strictest; the strictest wins a tie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It goes ahead.
    Allow,
    /// It goes ahead and is pointed out in the record.
    Audit,
    /// It waits for a person.
    Hold,
    /// It fails.
    Deny,
    /// It fails and the process dies.
    Kill,
}

impl Verdict {
    /// The words of a record and the verdicts they stand for.
    pub const WORDS: [(&str, Self); 5] = [
        ("allow", Self::Allow),
        ("audit", Self::Audit),
        ("hold", Self::Hold),
        ("deny", Self::Deny),
        ("kill", Self::Kill),
    ];

    /// The word in a record.
    pub fn as_str(self) -> &'static str {
        word(&Self::WORDS, self)
    }

    /// Whether the action goes ahead without anyone being asked.
    pub const fn permits(self) -> bool {
        matches!(self, Self::Allow | Self::Audit)
    }
}

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileAccess {
    /// Make it, also by link or rename into the place.
    Create,
    /// Remove it, also by rename away from the place.
    Delete,
    /// Map it as code. Running it as a program is `scope.exec`.
    ExecuteMap,
    /// Read its contents or list it.
    Read,
    /// Change contents, size, owner, mode or attributes.
    Write,
}

impl FileAccess {
    /// The words of a record and the accesses they stand for.
    pub const WORDS: [(&str, Self); 5] = [
        ("create", Self::Create),
        ("delete", Self::Delete),
        ("execute-map", Self::ExecuteMap),
        ("read", Self::Read),
        ("write", Self::Write),
    ];

    /// The word in a record.
    pub fn as_str(self) -> &'static str {
        word(&Self::WORDS, self)
    }
}

/// What is done with a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetAction {
    /// Take an own address; the pattern is the local address.
    Bind,
    /// Reach a peer: connect, or send without connecting. The default.
    Connect,
    /// Wait for peers; the pattern is the local address.
    Listen,
}

impl NetAction {
    /// The words of a record and the actions they stand for.
    pub const WORDS: [(&str, Self); 3] =
        [("bind", Self::Bind), ("connect", Self::Connect), ("listen", Self::Listen)];

    /// The word in a record.
    pub fn as_str(self) -> &'static str {
        word(&Self::WORDS, self)
    }
}

/// Powers beyond files and network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PrivilegeKind {
    /// Calls to `bpf()`.
    Bpf,
    /// Gaining capabilities; `capabilities` may name which.
    Capability,
    /// Loading kernel modules.
    Module,
    /// Changing mounts.
    Mount,
    /// Making or entering namespaces other than user namespaces.
    Namespace,
    /// Tracing another process or reading its memory.
    Ptrace,
    /// Raw and packet sockets.
    RawSocket,
    /// Changing user or group.
    Setuid,
    /// Signals to processes outside the agent's own tree.
    Signal,
    /// Making user namespaces.
    Userns,
    /// Making and opening block and character devices other than those every program uses.
    Device,
    /// Putting input into a terminal, and requests that change a console.
    Terminal,
}

impl PrivilegeKind {
    /// The words of a record and the kinds they stand for.
    pub const WORDS: [(&str, Self); 12] = [
        ("bpf", Self::Bpf),
        ("capability", Self::Capability),
        ("module", Self::Module),
        ("mount", Self::Mount),
        ("namespace", Self::Namespace),
        ("ptrace", Self::Ptrace),
        ("raw_socket", Self::RawSocket),
        ("setuid", Self::Setuid),
        ("signal", Self::Signal),
        ("userns", Self::Userns),
        ("device", Self::Device),
        ("terminal", Self::Terminal),
    ];

    /// The word in a record.
    pub fn as_str(self) -> &'static str {
        word(&Self::WORDS, self)
    }
}

fn word<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    let found = words.iter().find(|(_, known)| *known == value);
    found.map_or("", |(word, _)| word)
}

/// What a rule does when it decides, and when it applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// The verdict; `allow` where the record names none.
    pub verdict: Verdict,
    /// Labels that the process takes on when the rule decides and the action goes ahead.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub adds: BTreeSet<String>,
    /// The rule does not apply to a process that carries any of these labels.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub unless: BTreeSet<String>,
}

/// A rule about files: `[[scope.file]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileRule {
    /// `scope.file[N]`, N from 0; the name in events and explanations.
    pub name: String,
    /// Which files.
    pub path: Located<PathPattern>,
    /// Which accesses; never empty.
    pub access: BTreeSet<FileAccess>,
    /// What happens.
    #[serde(flatten)]
    pub effect: Effect,
}

/// A rule about running programs: `[[scope.exec]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExecRule {
    /// `scope.exec[N]`, N from 0.
    pub name: String,
    /// Which programs.
    pub path: Located<PathPattern>,
    /// Only with such arguments. Arguments are the agent's own words: good for telling apart, not
    /// for holding back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Located<ArgvPattern>>,
    /// What happens.
    #[serde(flatten)]
    pub effect: Effect,
}

/// A rule about the network: `[[scope.net]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetRule {
    /// `scope.net[N]`, N from 0.
    pub name: String,
    /// Which peers, or local addresses for `bind` and `listen`.
    pub to: Located<NetPattern>,
    /// Which actions; never empty.
    pub action: BTreeSet<NetAction>,
    /// What happens.
    #[serde(flatten)]
    pub effect: Effect,
}

/// A rule about other powers: `[[scope.privilege]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PrivilegeRule {
    /// `scope.privilege[N]`, N from 0.
    pub name: String,
    /// Which power.
    pub kind: Located<PrivilegeKind>,
    /// With kind `capability` only: which ones (`CAP_NET_ADMIN` …); empty is all of them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub capabilities: BTreeSet<String>,
    /// What happens.
    #[serde(flatten)]
    pub effect: Effect,
}

/// The stretch over which a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// One minute.
    Min,
    /// One session.
    Session,
}

/// A budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// How many, or how many bytes. Never 0.
    pub max: u64,
    /// Over which stretch.
    pub per: Per,
    /// What happens to the action that exceeds it; never a permitting verdict except `audit`.
    pub verdict: Verdict,
}

/// All budgets: `[scope.limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Limits {
    /// Files and directories removed.
    pub deletes: Option<Located<Limit>>,
    /// Bytes sent to the network.
    pub bytes_out: Option<Located<Limit>>,
    /// Processes started.
    pub spawns: Option<Located<Limit>>,
    /// Distinct files opened for writing.
    pub files_written: Option<Located<Limit>>,
    /// Distinct network peers.
    pub peers: Option<Located<Limit>>,
}

/// The whole `[scope]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scope {
    /// Whether the record has a `[scope]` at all. Without one everything is audited.
    pub declared: bool,
    /// For what no rule names. `deny` where `[scope]` names none, `audit` without `[scope]`.
    pub default: Verdict,
    /// For what cannot be judged, such as a path too deep to walk. `deny` unless named.
    pub unknown: Verdict,
    /// Named sets of rules that are pulled in.
    pub base: Vec<Located<String>>,
    /// Rules about files, in the order of the record.
    pub file: Vec<Located<FileRule>>,
    /// Rules about programs, in the order of the record.
    pub exec: Vec<Located<ExecRule>>,
    /// Rules about the network, in the order of the record.
    pub net: Vec<Located<NetRule>>,
    /// Rules about other powers, in the order of the record.
    pub privilege: Vec<Located<PrivilegeRule>>,
    /// Budgets.
    pub limits: Limits,
}

impl Default for Scope {
    fn default() -> Self {
        Self {
            declared: false,
            default: Verdict::Audit,
            unknown: Verdict::Deny,
            base: Vec::new(),
            file: Vec::new(),
            exec: Vec::new(),
            net: Vec::new(),
            privilege: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl Scope {
    /// The effects of all rules, in the order file, exec, net, privilege.
    pub fn effects(&self) -> impl Iterator<Item = &Effect> {
        let file = self.file.iter().map(|rule| &rule.value.effect);
        let exec = self.exec.iter().map(|rule| &rule.value.effect);
        let net = self.net.iter().map(|rule| &rule.value.effect);
        let privilege = self.privilege.iter().map(|rule| &rule.value.effect);
        file.chain(exec).chain(net).chain(privilege)
    }

    /// Whether anything at all waits for a person.
    pub fn can_hold(&self) -> bool {
        self.default == Verdict::Hold
            || self.unknown == Verdict::Hold
            || self.effects().any(|effect| effect.verdict == Verdict::Hold)
            || self.limits.iter().any(|(_, limit)| limit.verdict == Verdict::Hold)
    }
}

impl Limits {
    /// The budgets that are set, by name, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Located<Limit>)> {
        let Self { deletes, bytes_out, spawns, files_written, peers } = self;
        [
            ("deletes", deletes),
            ("bytes_out", bytes_out),
            ("spawns", spawns),
            ("files_written", files_written),
            ("peers", peers),
        ]
        .into_iter()
        .filter_map(|(name, limit)| limit.as_ref().map(|limit| (name, limit)))
    }
}
