//! Network family: sockets and peers in the words of the contract.

use agent_monitor_ebpf::header::Kind as RawKind;

use super::{Engine, Host};
use crate::decode::network::{AF_INET, AF_INET6, AF_UNIX, UnixName};
use crate::decode::{Head, NetFacts};
use crate::model::{AddressFamily, Detail, Network, text};

const AF_NETLINK: u16 = 16;
const AF_PACKET: u16 = 17;
const AF_VSOCK: u16 = 40;

impl Engine {
    pub(super) fn network(
        &mut self,
        head: &Head,
        facts: &NetFacts,
        host: &mut dyn Host,
    ) -> (Network, Option<Detail>) {
        let family = family(facts.family);
        let (path, abstract_name) = match &facts.unix {
            Some(UnixName::Place(place)) => (Some(self.host_path(place, host)), None),
            Some(UnixName::Abstract(name)) => (None, Some(text::escape(name))),
            Some(UnixName::Unnamed) | None => (None, None),
        };
        let own = matches!(head.kind, RawKind::NetBind | RawKind::NetListen | RawKind::NetAccept);
        let port = if own { facts.local_port } else { facts.remote_port };
        let internet = matches!(family, AddressFamily::Ipv4 | AddressFamily::Ipv6);
        let counted = head.kind == RawKind::NetFlow;
        let network = Network {
            family,
            protocol: protocol(facts),
            local: facts.local,
            remote: facts.remote,
            port: (internet && port != 0).then_some(port),
            path: path.map(|path| text::escape(&path.bytes)),
            abstract_name,
            bytes_sent: (counted || head.kind == RawKind::NetSend && facts.bytes_sent != 0)
                .then_some(facts.bytes_sent),
            bytes_received: counted.then_some(facts.bytes_received),
            duration_ms: (counted && facts.first != 0)
                .then(|| head.ktime.saturating_sub(facts.first) / 1_000_000),
            ..Network::default()
        };
        let mut detail = Detail::new();
        if facts.bytes_partial {
            detail.insert("bytes_partial".to_owned(), true.into());
        }
        if facts.routed {
            detail.insert("source_route".to_owned(), true.into());
        }
        if facts.redirected {
            detail.insert("redirected".to_owned(), true.into());
        }
        if facts.fastopen {
            detail.insert("fastopen".to_owned(), true.into());
        }
        (network, (!detail.is_empty()).then_some(detail))
    }
}

fn family(family: u16) -> AddressFamily {
    match family {
        AF_UNIX => AddressFamily::Unix,
        AF_INET => AddressFamily::Ipv4,
        AF_INET6 => AddressFamily::Ipv6,
        AF_NETLINK => AddressFamily::Netlink,
        AF_PACKET => AddressFamily::Packet,
        AF_VSOCK => AddressFamily::Vsock,
        _ => AddressFamily::Other,
    }
}

fn protocol(facts: &NetFacts) -> Option<String> {
    let by_type = |stream, datagram| match facts.sock_type & 0xf {
        1 => Some(stream),
        2 => Some(datagram),
        3 => Some("raw"),
        5 => Some("seqpacket"),
        _ => None,
    };
    let name = match (facts.family, facts.protocol) {
        (AF_UNIX, _) => by_type("stream", "dgram"),
        (AF_INET | AF_INET6, _) if facts.sock_type & 0xf == 3 => Some("raw"),
        (AF_INET | AF_INET6, 6) => Some("tcp"),
        (AF_INET | AF_INET6, 17) => Some("udp"),
        (AF_INET | AF_INET6, 262) => Some("mptcp"),
        (AF_INET | AF_INET6, 1 | 58) => Some("icmp"),
        (AF_INET | AF_INET6, 132) => Some("sctp"),
        (AF_INET | AF_INET6, 136) => Some("udplite"),
        (AF_INET | AF_INET6, 0) => by_type("tcp", "udp"),
        _ => None,
    };
    name.map(str::to_owned)
}
