//! Network family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use agent_monitor_ebpf::event::{
    NET_ABSTRACT, NET_BYTES_PARTIAL, NET_FASTOPEN, NET_REDIRECTED, NET_ROUTED, NET_TEXT, NET_UNNAMED, NetBody,
};

use agent_monitor_ebpf::Kind;

use super::file::Place;
use super::{Body, DecodeError, Tail, fixed};

/// `AF_UNIX`.
pub const AF_UNIX: u16 = 1;
/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;

/// What was done with which socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetFacts {
    /// Address family (`AF_*`).
    pub family: u16,
    /// Socket type (`SOCK_*`).
    pub sock_type: u16,
    /// Protocol (`IPPROTO_*`).
    pub protocol: u16,
    /// Own address.
    pub local: Option<SocketAddr>,
    /// Peer.
    pub remote: Option<SocketAddr>,
    /// Own port.
    pub local_port: u16,
    /// Peer's port.
    pub remote_port: u16,
    /// Name of a UNIX socket.
    pub unix: Option<UnixName>,
    /// Bytes sent over the whole flow.
    pub bytes_sent: u64,
    /// Bytes received over the whole flow.
    pub bytes_received: u64,
    /// The counts may leave bytes out.
    pub bytes_partial: bool,
    /// Boot-time nanoseconds at which the flow was first seen, 0 when not known.
    pub first: u64,
    /// Socket inode or cookie, 0 when none.
    pub cookie: u64,
    /// Sent with `MSG_FASTOPEN`.
    pub fastopen: bool,
    /// With a route of the sender's choice.
    pub routed: bool,
    /// For an address other than the one that was judged before.
    pub redirected: bool,
}

/// Name of a UNIX socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnixName {
    /// A place in a file system.
    Place(Place),
    /// Abstract, without the leading NUL.
    Abstract(Vec<u8>),
    /// The peer has no name.
    Unnamed,
}

/// What names the peers of processes without an agent. Bytes are as they came over the wire: of strangers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The process reached for a peer; whether it answered is not known.
    Peer(SocketAddr),
    /// A DNS answer came to this host; the record's process means nothing.
    Answer {
        /// The message, or its beginning.
        message: Vec<u8>,
        /// There was more of it.
        cut: bool,
    },
    /// The process began to speak TLS.
    Hello {
        /// To whom.
        peer: SocketAddr,
        /// From the TLS record's header on, or its beginning.
        bytes: Vec<u8>,
    },
}

pub(super) fn heard(kind: Kind, rest: &[u8], mut tail: Tail<'_>) -> Result<Body, DecodeError> {
    let body: NetBody = fixed(rest)?;
    let bytes = tail.take(body.a, "a")?.to_vec();
    let peer = address(body.family, body.remote, body.remote_port);
    let have = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let heard = match (kind, peer) {
        (Kind::NetAnswer, _) => Heard::Answer { message: bytes, cut: body.bytes_received > have },
        (Kind::NetHello, Some(peer)) => Heard::Hello { peer, bytes },
        (_, Some(peer)) => Heard::Peer(peer),
        (_, None) => return Err(DecodeError::Piece("remote")),
    };
    Ok(Body::Heard(Box::new(heard)))
}

pub(super) fn decode(rest: &[u8], mut tail: Tail<'_>) -> Result<Body, DecodeError> {
    let body: NetBody = fixed(rest)?;
    let unix = unix(&body, &mut tail)?;
    Ok(Body::Net(Box::new(NetFacts {
        family: body.family,
        sock_type: body.sock_type,
        protocol: body.protocol,
        local: address(body.family, body.local, body.local_port),
        remote: address(body.family, body.remote, body.remote_port),
        local_port: body.local_port,
        remote_port: body.remote_port,
        unix,
        bytes_sent: body.bytes_sent,
        bytes_received: body.bytes_received,
        bytes_partial: body.how & NET_BYTES_PARTIAL != 0,
        first: body.first,
        cookie: body.cookie,
        fastopen: body.how & NET_FASTOPEN != 0,
        routed: body.how & NET_ROUTED != 0,
        redirected: body.how & NET_REDIRECTED != 0,
    })))
}

fn unix(body: &NetBody, tail: &mut Tail<'_>) -> Result<Option<UnixName>, DecodeError> {
    if body.how & NET_ABSTRACT != 0 {
        let bytes = tail.take(body.a, "a")?;
        // Callers that pass the whole `sun_path` leave NULs behind the name; nobody can tell them apart from it.
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
        return Ok(Some(UnixName::Abstract(bytes.get(..end).unwrap_or_default().to_vec())));
    }
    if body.how & NET_UNNAMED != 0 {
        return Ok(Some(UnixName::Unnamed));
    }
    if body.how & NET_TEXT != 0 {
        let text = tail.text(body.a, "a")?;
        let base = tail.path(body.b, body.dev_b, "b")?;
        return Ok(text.map(|text| UnixName::Place(Place::Text { base, text })));
    }
    let path = tail.path(body.a, body.dev, "a")?;
    Ok(path.map(|path| UnixName::Place(Place::Path(path))))
}

/// The address, unless there is none (all zero with port 0).
fn address(family: u16, bytes: [u8; 16], port: u16) -> Option<SocketAddr> {
    if port == 0 && bytes == [0; 16] {
        return None;
    }
    match family {
        AF_INET => {
            let [a, b, c, d, ..] = bytes;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port))
        }
        AF_INET6 => Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(bytes)), port)),
        _ => None,
    }
}
