//! From peers to network rules: one address each, or the smallest network around several near ones.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use agent_monitor_ebpf::policy::NET_CONNECT;

use super::seen::{Peer, Seen};

/// Addresses of one /24 that become a network.
pub const NEIGHBOURS: usize = 3;

/// A rule about the network to be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerProposal {
    /// As a record writes it: `10.0.0.1:443/tcp`.
    pub to: String,
    /// A `NET_*` bit.
    pub action: u8,
}

/// Addresses by action, protocol, port and /24.
type Near = BTreeMap<(u8, u8, u16, [u8; 3]), Vec<(Ipv4Addr, Seen)>>;

/// Rules for the peers that were seen, with what a network stands for.
pub fn summarise(peers: &BTreeMap<Peer, Seen>) -> BTreeMap<PeerProposal, (Seen, Option<String>)> {
    let mut near = Near::new();
    let mut out = BTreeMap::new();
    for (peer, seen) in peers {
        match peer.addr {
            IpAddr::V4(addr) if peer.action == NET_CONNECT => {
                let [a, b, c, _] = addr.octets();
                let key = (peer.action, peer.protocol, peer.port, [a, b, c]);
                near.entry(key).or_default().push((addr, *seen));
            }
            _ => single(&mut out, peer, *seen),
        }
    }
    for ((action, protocol, port, _), addrs) in near {
        let peer = |addr| Peer { action, protocol, port, addr: IpAddr::V4(addr) };
        match network(&addrs) {
            Some((net, seen)) => {
                let to = write(&net, protocol, port);
                let why = Some(format!("{} addresses", addrs.len()));
                out.insert(PeerProposal { to, action }, (seen, why));
            }
            None => addrs.iter().for_each(|(addr, seen)| single(&mut out, &peer(*addr), *seen)),
        }
    }
    out
}

/// One peer, as a record writes it.
#[must_use]
pub fn to(peer: &Peer) -> String {
    let host = match peer.addr {
        IpAddr::V4(addr) => addr.to_string(),
        IpAddr::V6(addr) => format!("[{addr}]"),
    };
    write(&host, peer.protocol, peer.port)
}

fn single(out: &mut BTreeMap<PeerProposal, (Seen, Option<String>)>, peer: &Peer, seen: Seen) {
    let key = PeerProposal { to: to(peer), action: peer.action };
    let why = (peer.port == 0).then(|| "no port was named, so every port".to_owned());
    let merged = out.get(&key).map_or(seen, |(known, _): &(Seen, _)| known.and(seen));
    out.insert(key, (merged, why));
}

/// The smallest network around enough addresses of one /24.
fn network(addrs: &[(Ipv4Addr, Seen)]) -> Option<(String, Seen)> {
    if addrs.len() < NEIGHBOURS {
        return None;
    }
    let (first, seen) = addrs.first()?;
    let bits = addrs.iter().fold(0, |bits, (addr, _)| bits | (addr.to_bits() ^ first.to_bits()));
    let length = bits.leading_zeros();
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
    let seen = addrs.iter().skip(1).fold(*seen, |all, (_, seen)| all.and(*seen));
    Some((format!("{}/{length}", Ipv4Addr::from_bits(first.to_bits() & mask)), seen))
}

fn write(host: &str, protocol: u8, port: u16) -> String {
    let word = match protocol {
        1 => "/icmp",
        6 => "/tcp",
        17 => "/udp",
        58 => "/icmpv6",
        132 => "/sctp",
        _ => "",
    };
    if port == 0 || matches!(protocol, 1 | 58) {
        format!("{host}{word}")
    } else {
        format!("{host}:{port}{word}")
    }
}
