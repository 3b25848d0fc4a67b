//! The peer or socket an event is about.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A socket and its peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Address family of the socket.
    pub family: AddressFamily,
    /// `tcp`, `udp`, `mptcp`, `icmp`, `raw`; for UNIX sockets `stream`, `dgram`, `seqpacket`.
    pub protocol: Option<String>,
    /// Own address (`10.0.0.5:40112`, `[::1]:53`).
    pub local: Option<SocketAddr>,
    /// Peer address. Port 0 where the protocol has none.
    pub remote: Option<SocketAddr>,
    /// The port that says what it is about: the peer's, for bind, listen and accept the own one.
    pub port: Option<u16>,
    /// Name the address was looked up by, where an answer was seen.
    pub name: Option<String>,
    /// Path of a UNIX socket, escaped by [`super::text`].
    pub path: Option<String>,
    /// Name of an abstract UNIX socket, without the leading NUL, escaped likewise.
    #[serde(rename = "abstract")]
    pub abstract_name: Option<String>,
    /// Payload bytes from this host to the peer (`network.flow`, `network.send`).
    pub bytes_sent: Option<u64>,
    /// Payload bytes from the peer (`network.flow`).
    pub bytes_received: Option<u64>,
    /// Milliseconds from connect or accept to close (`network.flow`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// The name asked for (`network.dns`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Addresses in the answer (`network.dns`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<std::net::IpAddr>,
}

impl Network {
    pub(super) fn weight(&self) -> usize {
        [&self.protocol, &self.name, &self.path, &self.abstract_name, &self.query]
            .into_iter()
            .map(|text| text.as_ref().map_or(0, String::len))
            .sum::<usize>()
            + self.answers.len() * size_of::<std::net::IpAddr>()
    }
}

/// Address family of a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressFamily {
    /// `AF_INET`.
    Ipv4,
    /// `AF_INET6`.
    Ipv6,
    /// `AF_UNIX`.
    Unix,
    /// `AF_NETLINK`.
    Netlink,
    /// `AF_PACKET`.
    Packet,
    /// `AF_VSOCK`.
    Vsock,
    /// Any other, or not known.
    #[default]
    Other,
}

impl AddressFamily {
    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Unix => "unix",
            Self::Netlink => "netlink",
            Self::Packet => "packet",
            Self::Vsock => "vsock",
            Self::Other => "other",
        }
    }
}
