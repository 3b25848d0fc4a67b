//! What an agent was seen to do, by the thing it was done to: the matter of a proposal.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use agent_monitor_ebpf::policy::{NET_BIND, NET_CONNECT, ask};

use super::declared::{Declared, Kept};
use super::peers;
use crate::action::{self, Action, Perhaps};
use crate::model::privilege::CAPABILITIES;
use crate::model::{Event, Family, Mode, Time, Verdict, text};
use crate::scope::{FileAccess, NetAction, PathPattern, PrivilegeKind};

/// How often, and when last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Events.
    pub count: u64,
    /// The latest of them.
    pub last: Time,
}

impl Seen {
    /// One event at `time`.
    #[must_use]
    pub fn once(time: Time) -> Self {
        Self { count: 1, last: time }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { count: self.count.saturating_add(other.count), last: self.last.max(other.last) }
    }
}

/// Adds to what is known of `key`.
pub fn add<K: Ord>(map: &mut BTreeMap<K, Seen>, key: K, seen: Seen) {
    map.entry(key).and_modify(|known| *known = known.and(seen)).or_insert(seen);
}

/// Accesses to one place.
pub type Accesses = BTreeMap<FileAccess, Seen>;

/// An internet peer or own address, and what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// A `NET_*` bit.
    pub action: u8,
    /// `IPPROTO_*`, 0 where not known.
    pub protocol: u8,
    /// Port; 0 where there is none.
    pub port: u16,
    /// Address.
    pub addr: IpAddr,
}

/// All that was seen.
#[derive(Debug, Clone, Default)]
pub struct Activity {
    /// Events of the agent that were looked at.
    pub events: u64,
    /// Time of the first and of the last of them.
    pub span: Option<(Time, Time)>,
    /// Accesses by path.
    pub files: BTreeMap<String, Accesses>,
    /// Programs and scripts that were run.
    pub exec: BTreeMap<String, Seen>,
    /// Internet peers and own addresses.
    pub net: BTreeMap<Peer, Seen>,
    /// UNIX sockets (`unix:/path`, `unix:@name`).
    pub unix: BTreeMap<(String, NetAction), Seen>,
    /// Powers that were used.
    pub powers: BTreeMap<PrivilegeKind, Seen>,
    /// Capabilities that were gained, by number.
    pub capabilities: BTreeMap<usize, Seen>,
    /// What no rule can name, by why, with how often.
    pub left_out: BTreeMap<String, u64>,
    /// What the declared scope forbids by a rule of its own, by that rule.
    pub forbidden: BTreeMap<String, u64>,
    /// Events that were refused when they happened; nothing is learned from them.
    pub refused: u64,
}

impl Activity {
    /// Takes in one event of the agent.
    pub fn take(&mut self, event: &Event, declared: &Declared) {
        if matches!(event.kind.family(), Family::Gap | Family::Tamper | Family::Agent | Family::Log) {
            return;
        }
        self.events += 1;
        let (first, last) = self.span.unwrap_or((event.time, event.time));
        self.span = Some((first.min(event.time), last.max(event.time)));
        let stopped = matches!(event.verdict, Some(Verdict::Deny | Verdict::Hold | Verdict::Kill));
        let actions = action::of(event);
        if stopped && event.mode == Some(Mode::Enforce) {
            self.refused += 1;
            return;
        }
        for action in actions {
            match action {
                Ok(action) => self.action(action, Seen::once(event.time), declared),
                Err(unclear) => self.leave_out(unclear.to_string()),
            }
        }
    }

    pub(super) fn leave_out(&mut self, why: impl Into<String>) {
        *self.left_out.entry(why.into()).or_default() += 1;
    }

    fn action(&mut self, action: Action, seen: Seen, declared: &Declared) {
        match action {
            Action::Place { path, asked, perhaps, .. } => match nameable(&path) {
                Ok(()) => self.place(path, asked, perhaps, seen, declared),
                Err(why) => self.leave_out(why),
            },
            Action::Net { addr, port, protocol, action } => {
                let peer = Peer { action, protocol, port, addr };
                if self.opens(declared.net(&peers::to(&peer), net_action(action))) {
                    add(&mut self.net, peer, seen);
                }
            }
            Action::Abstract { name, asked } => {
                let to = format!("unix:@{name}");
                if crate::scope::NetPattern::parse(&to).is_ok() && text::unescape(&name) == name.as_bytes() {
                    self.unix_asked(&to, asked, seen, declared);
                } else {
                    self.leave_out("the socket's name cannot be written in a rule");
                }
            }
            Action::Power(power) => match power_kind(power) {
                Some(kind) if self.opens(declared.power(kind, None)) => add(&mut self.powers, kind, seen),
                Some(_) => {}
                None => self.leave_out("a power that rules do not name"),
            },
            Action::Capability(number) => {
                let name = CAPABILITIES.get(number).copied();
                if self.opens(declared.power(PrivilegeKind::Capability, name)) {
                    add(&mut self.capabilities, number, seen);
                }
            }
        }
    }

    /// Whether a rule is to be proposed for what the kept rules say this about.
    fn opens(&mut self, kept: Kept) -> bool {
        match kept {
            Kept::Silent => true,
            Kept::Permits => false,
            Kept::Forbids(rule) => {
                *self.forbidden.entry(rule).or_default() += 1;
                false
            }
        }
    }

    fn place(&mut self, path: String, asked: u32, perhaps: Perhaps, seen: Seen, declared: &Declared) {
        self.unix_asked(&format!("unix:{path}"), asked, seen, declared);
        if asked & ask::EXEC != 0 {
            match declared.exec(&path) {
                Some(rule) => *self.forbidden.entry(rule).or_default() += 1,
                None => add(&mut self.exec, path.clone(), seen),
            }
        }
        // Moved onto something, or onto nothing: the contents of the place were the agent's choice in both cases.
        let replaced = if perhaps == Perhaps::Replaced { ask::WRITE } else { 0 };
        for access in accesses(asked | replaced) {
            match declared.file(&path, access) {
                Some(rule) => *self.forbidden.entry(rule).or_default() += 1,
                None => add(self.files.entry(path.clone()).or_default(), access, seen),
            }
        }
    }

    fn unix_asked(&mut self, to: &str, asked: u32, seen: Seen, declared: &Declared) {
        let actions = [
            (ask::UNIX_CONNECT, NetAction::Connect),
            (ask::UNIX_BIND, NetAction::Bind),
            (ask::UNIX_LISTEN, NetAction::Listen),
        ];
        for (_, action) in actions.into_iter().filter(|(bit, _)| asked & bit != 0) {
            if self.opens(declared.net(to, action)) {
                add(&mut self.unix, (to.to_owned(), action), seen);
            }
        }
    }
}

/// The accesses of a record's words that these bits ask for.
pub fn accesses(asked: u32) -> BTreeSet<FileAccess> {
    let bits = [
        (ask::READ, FileAccess::Read),
        (ask::WRITE, FileAccess::Write),
        (ask::CREATE, FileAccess::Create),
        (ask::DELETE, FileAccess::Delete),
        (ask::MAP, FileAccess::ExecuteMap),
    ];
    bits.into_iter().filter(|(bit, _)| asked & bit != 0).map(|(_, access)| access).collect()
}

/// The word of an action bit.
pub fn net_action(action: u8) -> NetAction {
    match action {
        NET_CONNECT => NetAction::Connect,
        NET_BIND => NetAction::Bind,
        _ => NetAction::Listen,
    }
}

fn power_kind(power: usize) -> Option<PrivilegeKind> {
    // The contract numbers powers in the order of the words.
    PrivilegeKind::WORDS.get(power).map(|(_, kind)| *kind)
}

/// Whether an exact rule can name this path.
fn nameable(path: &str) -> Result<(), String> {
    if text::unescape(path) != path.as_bytes() {
        return Err("the path is not UTF-8".to_owned());
    }
    match PathPattern::parse(path) {
        Ok(PathPattern::Exact(_)) => Ok(()),
        _ if path == "/" => Err("the root directory itself cannot be named".to_owned()),
        _ => Err("the path cannot be written in a rule".to_owned()),
    }
}
