//! Rules about networks: each network's set holds its own rules and those of the networks around it.

use std::collections::{BTreeMap, BTreeSet};

use agent_monitor_ebpf::policy::{NET_BIND, NET_CONNECT, NET_LISTEN, NET_RULES, NetRule};
use ipnet::IpNet;

use crate::scope::image::NetPrefix;
use crate::scope::{Host, NetAction, Ports, Protocol};

/// The rules about networks of one agent, in the order of the record.
#[derive(Default)]
pub(super) struct Nets {
    rules: BTreeMap<NetPrefix, Vec<NetRule>>,
}

/// A network as a prefix of an IPv6 address; `None` for a name.
fn prefix(host: &Host) -> Option<NetPrefix> {
    match host {
        Host::Any => Some(NetPrefix { bits: 0, addr: [0; 16] }),
        Host::Net(IpNet::V4(net)) => Some(NetPrefix {
            bits: net.prefix_len().saturating_add(96),
            addr: net.network().to_ipv6_mapped().octets(),
        }),
        Host::Net(IpNet::V6(net)) => Some(NetPrefix { bits: net.prefix_len(), addr: net.network().octets() }),
        Host::Name(_) | Host::Suffix(_) => None,
    }
}

/// The number of a protocol (`IPPROTO_*`).
const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Icmp => 1,
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Icmpv6 => 58,
        Protocol::Sctp => 132,
    }
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
        let Some(prefix) = prefix(host) else { return false };
        let actions = actions.iter().fold(0, |bits, action| {
            bits | match action {
                NetAction::Connect => NET_CONNECT,
                NetAction::Bind => NET_BIND,
                NetAction::Listen => NET_LISTEN,
            }
        });
        self.rules.entry(prefix).or_default().push(NetRule {
            low: ports.map_or(0, |ports| ports.low),
            high: ports.map_or(u16::MAX, |ports| ports.high),
            protocol: protocol.map_or(0, number),
            actions,
            reserved: 0,
            decision,
        });
        true
    }

    /// The sets, and the networks whose set had no room for all rules that fit it.
    pub(super) fn finish(&self) -> (BTreeMap<NetPrefix, Vec<NetRule>>, Vec<String>) {
        let mut sets = BTreeMap::new();
        let mut full = Vec::new();
        for at in self.rules.keys() {
            let mut fitting: Vec<(u8, &NetRule)> = self
                .rules
                .iter()
                .filter(|(around, _)| covers(around, at))
                .flat_map(|(around, rules)| rules.iter().map(|rule| (around.bits, rule)))
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
