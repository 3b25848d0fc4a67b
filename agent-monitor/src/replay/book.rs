//! A scope that answers for a host path: evidence is gathered from the rules' patterns, the decision is the kernel's own
//! ([`decide`], [`decide_net`]).
//!
//! Rules that no kernel table can hold (host names, `unless` on a rule that permits, arguments) do not count, as there.

use std::net::IpAddr;

use agent_monitor_ebpf::Verdict as Raw;
use agent_monitor_ebpf::decide::{
    Evidence, LEVEL_EXACT, LEVEL_EXTENSION, LEVEL_NAME, LEVEL_ROOT, LEVEL_SUBTREE, decide, decide_net,
};
use agent_monitor_ebpf::policy::{
    NET_BIND, NET_CONNECT, NET_LISTEN, NET_RULES, NetRule, NetSet, SLOTS, decision, rule_of, slot, stricter,
    verdict_of,
};

use super::{Opinion, Rulebook};
use crate::attribute::MountTable;
use crate::attribute::mounts::dev_text;
use crate::model::text;
use crate::scope::{
    Effect, FileAccess, Host, NetAction, NetPattern, PathPattern, Ports, PrivilegeKind, Protocol, Scope,
    Verdict,
};

/// A rule about places.
#[derive(Debug)]
struct PlaceRule {
    path: PathPattern,
    /// Bits `1 << slot`.
    slots: u32,
    decision: u32,
    /// A base set's rule yields to the record's own of the same pattern.
    own: bool,
}

/// A rule about peers.
#[derive(Debug)]
struct PeerRule {
    to: NetPattern,
    actions: u8,
    decision: u32,
}

/// The rules of one scope and of the base sets it pulls in.
#[derive(Debug)]
pub struct ScopeBook {
    mounts: MountTable,
    default: u32,
    places: Vec<PlaceRule>,
    peers: Vec<PeerRule>,
    powers: Vec<(PrivilegeKind, Vec<usize>, u32)>,
    names: Vec<String>,
    /// Rules that do not count, with why.
    pub left_out: Vec<String>,
}

impl ScopeBook {
    /// The scope with these base sets, on a host with these mounts.
    #[must_use]
    pub fn new(scope: &Scope, bases: &[(String, Scope)], mounts: MountTable) -> Self {
        let mut book = Self {
            mounts,
            default: decision(raw(scope.default), 0),
            places: Vec::new(),
            peers: Vec::new(),
            powers: Vec::new(),
            names: vec!["scope.default".to_owned()],
            left_out: Vec::new(),
        };
        book.add(scope, None);
        for (name, set) in bases.iter().filter(|(name, _)| scope.base.iter().any(|base| base.value == *name))
        {
            book.add(set, Some(name));
        }
        book
    }

    /// All rules of the record itself, with their line.
    #[must_use]
    pub fn rules(scope: &Scope) -> Vec<(String, u32)> {
        let file = scope.file.iter().map(|rule| (rule.value.name.clone(), rule.at.line));
        let exec = scope.exec.iter().map(|rule| (rule.value.name.clone(), rule.at.line));
        let net = scope.net.iter().map(|rule| (rule.value.name.clone(), rule.at.line));
        let privilege = scope.privilege.iter().map(|rule| (rule.value.name.clone(), rule.at.line));
        file.chain(exec).chain(net).chain(privilege).collect()
    }

    fn number(&mut self, name: &str, effect: &Effect, base: Option<&str>) -> u32 {
        let name = match base {
            Some(base) => name.replacen("scope.", &format!("base.{base}."), 1),
            None => name.to_owned(),
        };
        let number = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
        self.names.push(name);
        decision(raw(effect.verdict), number)
    }

    fn drops(&mut self, name: &str, effect: &Effect) -> bool {
        let dropped = effect.verdict.permits() && !effect.unless.is_empty();
        if dropped {
            self.left_out.push(format!("{name}: labels are not followed, so it permits nothing"));
        }
        dropped
    }

    fn add(&mut self, scope: &Scope, base: Option<&str>) {
        let own = base.is_none();
        for rule in scope.file.iter().map(|rule| &rule.value) {
            if !self.drops(&rule.name, &rule.effect) {
                let decision = self.number(&rule.name, &rule.effect, base);
                let slots = rule.access.iter().fold(0, |bits, access| bits | 1 << file_slot(*access));
                self.places.push(PlaceRule { path: rule.path.value.clone(), slots, decision, own });
            }
        }
        for rule in scope.exec.iter().map(|rule| &rule.value) {
            if rule.argv.is_some() {
                self.left_out.push(format!("{}: arguments are not looked at", rule.name));
            } else if !self.drops(&rule.name, &rule.effect) {
                let decision = self.number(&rule.name, &rule.effect, base);
                self.places.push(PlaceRule {
                    path: rule.path.value.clone(),
                    slots: 1 << slot::EXEC,
                    decision,
                    own,
                });
            }
        }
        for rule in scope.net.iter().map(|rule| &rule.value) {
            self.add_peer(rule, base);
        }
        for rule in scope.privilege.iter().map(|rule| &rule.value) {
            if !self.drops(&rule.name, &rule.effect) {
                let decision = self.number(&rule.name, &rule.effect, base);
                let known =
                    |name: &String| crate::scope::parse::CAPABILITIES.iter().position(|known| known == name);
                let capabilities = rule.capabilities.iter().filter_map(known).collect();
                self.powers.push((rule.kind.value, capabilities, decision));
            }
        }
    }

    fn add_peer(&mut self, rule: &crate::scope::NetRule, base: Option<&str>) {
        if self.drops(&rule.name, &rule.effect) {
            return;
        }
        if matches!(rule.to.host(), Some(Host::Name(_) | Host::Suffix(_))) {
            self.left_out.push(format!("{}: host names are not followed", rule.name));
            return;
        }
        let decision = self.number(&rule.name, &rule.effect, base);
        match &rule.to.value {
            NetPattern::UnixPath(path) => {
                let slots = rule.action.iter().fold(0, |bits, action| bits | 1 << unix_slot(*action));
                self.places.push(PlaceRule { path: path.clone(), slots, decision, own: base.is_none() });
            }
            to => {
                let actions = rule.action.iter().fold(0, |bits, action| bits | net_bit(*action));
                self.peers.push(PeerRule { to: to.clone(), actions, decision });
            }
        }
    }

    fn opinion(&self, decision: u32) -> Opinion {
        let verdict = match Raw::from_u8(verdict_of(decision)) {
            Some(Raw::Allow) => Verdict::Allow,
            Some(Raw::Audit) => Verdict::Audit,
            Some(Raw::Hold) => Verdict::Hold,
            Some(Raw::Kill) => Verdict::Kill,
            Some(Raw::Deny) | None => Verdict::Deny,
        };
        let rule = self.names.get(usize::from(rule_of(decision))).cloned().unwrap_or_default();
        Opinion { verdict, rule }
    }

    fn evidence(&self, path: &str, moved_dir: bool) -> Evidence {
        let mut evidence = Evidence { below: [0; SLOTS], ..Evidence::NONE };
        let fitting = self.places.iter().filter(|rule| rule.path.matches(path));
        let root =
            |rule: &PlaceRule| matches!(&rule.path, PathPattern::Subtree(directory) if directory.is_empty());
        for slot in 0..SLOTS {
            for (level, found) in evidence.levels.iter_mut().enumerate() {
                let of_level = fitting.clone().filter(|rule| rule.slots >> slot & 1 != 0).filter(|rule| {
                    level
                        == match rule.path {
                            PathPattern::Exact(_) => LEVEL_EXACT,
                            PathPattern::Name(_) => LEVEL_NAME,
                            PathPattern::Extension(_) => LEVEL_EXTENSION,
                            PathPattern::Subtree(_) if root(rule) => LEVEL_ROOT,
                            PathPattern::Subtree(_) => LEVEL_SUBTREE,
                        }
                });
                let best =
                    of_level.max_by_key(|rule| (rule.path.specificity(), rule.own, rule.decision >> 24));
                let fallback = if level == LEVEL_ROOT { self.default } else { 0 };
                if let Some(found) = found.get_mut(slot) {
                    *found = best.map_or(fallback, |rule| rule.decision);
                }
            }
        }
        if moved_dir {
            let inside = |rule: &&PlaceRule| match &rule.path {
                PathPattern::Exact(at) | PathPattern::Subtree(at) => {
                    at.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
                }
                PathPattern::Name(_) | PathPattern::Extension(_) => false,
            };
            for rule in self.places.iter().filter(inside) {
                for (at, found) in evidence.below.iter_mut().enumerate() {
                    if rule.slots >> at & 1 != 0 {
                        *found = stricter(*found, rule.decision);
                    }
                }
            }
        }
        evidence
    }

    /// The host path as the mounts of now have it: the place it names must be on the file system that was recorded.
    fn place_now(&self, path: &str, dev: Option<&str>) -> Result<(), String> {
        let Some(dev) = dev else { return Ok(()) };
        let location =
            self.mounts.locate(&text::unescape(path)).ok_or("the path is on no mounted file system now")?;
        if dev_text(location.dev) == dev {
            return Ok(());
        }
        Err(format!(
            "another file system is mounted there now ({} then, {} now)",
            dev,
            dev_text(location.dev)
        ))
    }

    /// The rules that fit an address, the most specific first, as the kernel's table has them.
    fn net_set(&self, fits: impl Fn(&NetPattern) -> bool) -> NetSet {
        let mut rules: Vec<&PeerRule> = self.peers.iter().filter(|rule| fits(&rule.to)).collect();
        rules.sort_by(|a, b| {
            let specific = b.to.precedence(&a.to).unwrap_or(std::cmp::Ordering::Equal);
            specific.then((b.decision >> 24).cmp(&(a.decision >> 24)))
        });
        let none = NetRule { low: 0, high: 0, protocol: 0, actions: 0, reserved: 0, decision: 0 };
        let mut set = NetSet { rules: [none; NET_RULES] };
        for (to, rule) in set.rules.iter_mut().zip(rules) {
            let (ports, protocol) = match &rule.to {
                NetPattern::Ip { ports, protocol, .. } => (*ports, *protocol),
                _ => (None, None),
            };
            let Ports { low, high } = ports.unwrap_or(Ports { low: 0, high: u16::MAX });
            *to = NetRule {
                low,
                high,
                protocol: protocol.map_or(0, number),
                actions: rule.actions,
                reserved: 0,
                decision: rule.decision,
            };
        }
        set
    }
}

impl Rulebook for ScopeBook {
    fn place(
        &mut self,
        path: &str,
        dev: Option<&str>,
        asked: u32,
        moved_dir: bool,
    ) -> Result<Opinion, String> {
        self.place_now(path, dev)?;
        Ok(self.opinion(decide(&self.evidence(path, moved_dir), asked)))
    }

    fn net(&mut self, addr: IpAddr, port: u16, protocol: u8, action: u8) -> Result<Opinion, String> {
        let fits = |to: &NetPattern| match to.host() {
            Some(Host::Any) => true,
            Some(Host::Net(net)) => net.contains(&addr),
            _ => false,
        };
        let found = decide_net(&self.net_set(fits), action, protocol, port);
        Ok(self.opinion(if found == 0 { self.default } else { found }))
    }

    fn unix_abstract(&mut self, name: &[u8], asked: u32) -> Result<Opinion, String> {
        let actions =
            [(slot::UNIX_CONNECT, NET_CONNECT), (slot::UNIX_BIND, NET_BIND), (slot::UNIX_LISTEN, NET_LISTEN)];
        let action = actions.iter().find(|(slot, _)| asked >> slot & 1 != 0).map_or(0, |(_, action)| *action);
        let fits =
            |to: &NetPattern| matches!(to, NetPattern::UnixAbstract(known) if known.as_bytes() == name);
        let found = decide_net(&self.net_set(fits), action, 0, 0);
        Ok(self.opinion(if found == 0 { self.default } else { found }))
    }

    fn power(&mut self, power: usize) -> Result<Opinion, String> {
        let (_, kind) = PrivilegeKind::WORDS.get(power).ok_or("the power is not known")?;
        let rules = self.powers.iter().filter(|(of, capabilities, _)| of == kind && capabilities.is_empty());
        let found = rules.fold(0, |found, (_, _, decision)| stricter(found, *decision));
        Ok(self.opinion(if found == 0 { self.default } else { found }))
    }

    fn capability(&mut self, number: usize) -> Result<Opinion, String> {
        let of_kind = || self.powers.iter().filter(|(kind, ..)| *kind == PrivilegeKind::Capability);
        let strictest =
            |found, (_, _, decision): &(PrivilegeKind, Vec<usize>, u32)| stricter(found, *decision);
        let named =
            of_kind().filter(|(_, capabilities, _)| capabilities.contains(&number)).fold(0, strictest);
        let all = of_kind().filter(|(_, capabilities, _)| capabilities.is_empty()).fold(0, strictest);
        let found = [named, all, self.default].into_iter().find(|found| *found != 0).unwrap_or_default();
        Ok(self.opinion(found))
    }
}

fn raw(verdict: Verdict) -> Raw {
    match verdict {
        Verdict::Allow => Raw::Allow,
        Verdict::Audit => Raw::Audit,
        Verdict::Hold => Raw::Hold,
        Verdict::Deny => Raw::Deny,
        Verdict::Kill => Raw::Kill,
    }
}

fn file_slot(access: FileAccess) -> usize {
    match access {
        FileAccess::Read => slot::READ,
        FileAccess::Write => slot::WRITE,
        FileAccess::Create => slot::CREATE,
        FileAccess::Delete => slot::DELETE,
        FileAccess::ExecuteMap => slot::MAP,
    }
}

fn unix_slot(action: NetAction) -> usize {
    match action {
        NetAction::Connect => slot::UNIX_CONNECT,
        NetAction::Bind => slot::UNIX_BIND,
        NetAction::Listen => slot::UNIX_LISTEN,
    }
}

fn net_bit(action: NetAction) -> u8 {
    match action {
        NetAction::Connect => NET_CONNECT,
        NetAction::Bind => NET_BIND,
        NetAction::Listen => NET_LISTEN,
    }
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Icmp => 1,
        Protocol::Icmpv6 => 58,
        Protocol::Sctp => 132,
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

#[cfg(test)]
mod tests;
