//! Rules about networks: each network's set holds its own rules and those of the networks around it.

use std::collections::{BTreeMap, BTreeSet};

use agent_monitor_ebpf::policy::{NET_BIND, NET_CONNECT, NET_LISTEN, NET_RULES, NetRule};
use ipnet::IpNet;

use crate::scope::image::NetPrefix;
use crate::scope::{Host, NetAction, Ports, Protocol};

/// The networks that hold every IPv4 address in the form of the tables, `::ffff:a.b.c.d`.
const MAPPED: NetPrefix =
    NetPrefix { bits: 96, addr: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0] };

/// Whose addresses a rule is about. A wide IPv6 network has the place of IPv4 in the tables inside it, and is not
/// about it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Any,
    V4,
    V6,
}

/// The rules about networks of one agent, in the order of the record.
#[derive(Default)]
pub(super) struct Nets {
    rules: BTreeMap<NetPrefix, Vec<(Family, NetRule)>>,
}

/// A network as a prefix of an IPv6 address; `None` for a name.
fn prefix(host: &Host) -> Option<(Family, NetPrefix)> {
    let (family, bits, addr) = match host {
        Host::Any => (Family::Any, 0, [0; 16]),
        Host::Net(IpNet::V4(net)) => {
            (Family::V4, net.prefix_len().saturating_add(96), net.network().to_ipv6_mapped().octets())
        }
        Host::Net(IpNet::V6(net)) => (Family::V6, net.prefix_len(), net.network().octets()),
        Host::Name(_) | Host::Suffix(_) => return None,
    };
    Some((family, NetPrefix { bits, addr }))
}

impl Nets {
    /// Adds a rule. False when it names a host.
    pub(super) fn add(
        &mut self,
        host: &Host,
        ports: Option<Ports>,
        protocol: Option<Protocol>,
        actions: &BTreeSet<NetAction>,
        decision: u32,
    ) -> bool {
        let Some((family, prefix)) = prefix(host) else { return false };
        let actions = actions.iter().fold(0, |bits, action| {
            bits | match action {
                NetAction::Connect => NET_CONNECT,
                NetAction::Bind => NET_BIND,
                NetAction::Listen => NET_LISTEN,
            }
        });
        let rule = NetRule {
            low: ports.map_or(0, |ports| ports.low),
            high: ports.map_or(u16::MAX, |ports| ports.high),
            protocol: protocol.map_or(0, Protocol::number),
            actions,
            reserved: 0,
            decision,
        };
        self.rules.entry(prefix).or_default().push((family, rule));
        true
    }

    /// The sets, and the networks whose set had no room for all rules that fit it.
    pub(super) fn finish(&self) -> (BTreeMap<NetPrefix, Vec<NetRule>>, Vec<String>) {
        let mut sets = BTreeMap::new();
        let mut full = Vec::new();
        let mut keys: BTreeSet<&NetPrefix> = self.rules.keys().collect();
        // Without an entry of its own, IPv4 would be judged by the IPv6 network around its place.
        if self
            .rules
            .iter()
            .any(|(at, rules)| covers(at, &MAPPED) && rules.iter().any(|(f, _)| *f == Family::V6))
        {
            keys.insert(&MAPPED);
        }
        for at in keys {
            let other = if covers(&MAPPED, at) { Family::V6 } else { Family::V4 };
            let mut fitting: Vec<(u8, &NetRule)> = self
                .rules
                .iter()
                .filter(|(around, _)| covers(around, at))
                .flat_map(|(around, rules)| rules.iter().map(|(family, rule)| (around.bits, *family, rule)))
                .filter(|(_, family, _)| *family != other)
                // `*` yields to every network, `[::/0]` included.
                .map(|(bits, family, rule)| (if family == Family::Any { 0 } else { bits + 1 }, rule))
                .collect();
            // The sort keeps the record's order between equals, and the record's rules come before those of base sets.
            fitting.sort_by_key(|(bits, rule)| {
                let width = u32::from(rule.high) - u32::from(rule.low);
                // A rule with ports is narrower than one for every port, which also fits what has none.
                let any_port = rule.low == 0;
                let rank = u8::MAX - u8::try_from(rule.decision >> 24).unwrap_or(0);
                (u8::MAX - *bits, any_port, width, rule.protocol == 0, rank)
            });
            let mut set: Vec<NetRule> = fitting.into_iter().map(|(_, rule)| *rule).collect();
            set.dedup();
            if set.len() > NET_RULES {
                full.push(text(at));
                set.truncate(NET_RULES);
            }
            sets.insert(*at, set);
        }
        (sets, full)
    }
}

fn covers(outer: &NetPrefix, inner: &NetPrefix) -> bool {
    if outer.bits > inner.bits {
        return false;
    }
    let (a, b) = (u128::from_be_bytes(outer.addr), u128::from_be_bytes(inner.addr));
    outer.bits == 0 || (a ^ b) >> (128 - u32::from(outer.bits)) == 0
}

fn text(prefix: &NetPrefix) -> String {
    let addr = std::net::Ipv6Addr::from(prefix.addr);
    match addr.to_ipv4_mapped() {
        Some(v4) if prefix.bits >= 96 => format!("{v4}/{}", prefix.bits - 96),
        _ => format!("[{addr}]/{}", prefix.bits),
    }
}
