//! Peer patterns: which network addresses, names and sockets a rule is about.
//!
//! | form | means |
//! |---|---|
//! | `10.0.0.0/8`, `192.0.2.1:443/tcp` | IPv4 network or address |
//! | `[2001:db8::/32]:443`, `[::1]` | IPv6 network or address, always in brackets |
//! | `api.example.com:443/tcp` | a host name |
//! | `*.example.com` | every name below `example.com`, not `example.com` itself |
//! | `*`, `*:53/udp` | every IPv4 and IPv6 address |
//! | `unix:/run/x.sock`, `unix:/run/app/**` | UNIX sockets by path |
//! | `unix:@name` | a UNIX socket in the abstract namespace |
//! | `vsock:2:1024` | a virtual-machine socket: context id and optional port |
//!
//! `:port` or `:low-high` and `/protocol` may follow the IP and name forms. No I/O: names are
//! matched against DNS answers elsewhere.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::path::{PathError, PathPattern};

/// Longest abstract socket name in bytes (`sun_path` without the leading NUL).
const MAX_ABSTRACT_BYTES: usize = 107;
/// Longest path that fits a `sockaddr_un`.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Transport protocols that a rule can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// ICMP for IPv4; has no ports.
    Icmp,
    /// ICMP for IPv6; has no ports.
    Icmpv6,
    /// SCTP.
    Sctp,
    /// TCP, and multipath TCP with it.
    Tcp,
    /// UDP, and QUIC with it.
    Udp,
}

impl Protocol {
    /// The words of a record and the protocols they stand for.
    pub const WORDS: [(&str, Self); 5] = [
        ("icmp", Self::Icmp),
        ("icmpv6", Self::Icmpv6),
        ("sctp", Self::Sctp),
        ("tcp", Self::Tcp),
        ("udp", Self::Udp),
    ];

    /// The word in a record.
    pub fn as_str(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, protocol)| *protocol == self);
        found.map_or("", |(word, _)| word)
    }

    /// Its number (`IPPROTO_*`).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmpv6 => 58,
            Self::Sctp => 132,
        }
    }

    const fn has_ports(self) -> bool {
        matches!(self, Self::Sctp | Self::Tcp | Self::Udp)
    }
}

/// The host part of an IP peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// Every address, IPv4 and IPv6.
    Any,
    /// An address or network; host bits are zero.
    Net(IpNet),
    /// One host name, lower case, without closing dot.
    Name(String),
    /// Every name below this one (`example.com` for `*.example.com`).
    Suffix(String),
}

/// A range of ports, both ends included. `low <= high`, neither is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// First port.
    pub low: u16,
    /// Last port.
    pub high: u16,
}

/// The peers that a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetPattern {
    /// Internet peers.
    Ip {
        /// Which addresses or names.
        host: Host,
        /// `None` is every port.
        ports: Option<Ports>,
        /// `None` is every protocol.
        protocol: Option<Protocol>,
    },
    /// UNIX sockets by path; exact or a subtree.
    UnixPath(PathPattern),
    /// A UNIX socket by its abstract name, without the `@`.
    UnixAbstract(String),
    /// A vsock peer.
    Vsock {
        /// Context id (2 is the host).
        cid: u32,
        /// `None` is every port.
        port: Option<u32>,
    },
}

type Refusal = PathError;

fn refuse(problem: impl Into<String>, hint: impl Into<String>) -> Refusal {
    PathError { problem: problem.into(), hint: hint.into() }
}

impl NetPattern {
    /// Reads one of the forms of the module table.
    ///
    /// # Errors
    /// Says what is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if let Some(name) = text.strip_prefix("unix:") {
            return parse_unix(name);
        }
        if let Some(address) = text.strip_prefix("vsock:") {
            return parse_vsock(address);
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(refuse(
                format!("`{scheme}://` is an URL"),
                "name host, port and protocol: example.com:443/tcp",
            ));
        }
        let (rest, protocol) = split_protocol(text)?;
        let (host, ports) = split_ports(rest)?;
        let host = parse_host(host)?;
        let ports = ports.map(parse_ports).transpose()?;
        if let (Some(protocol), Some(_)) = (protocol, ports)
            && !protocol.has_ports()
        {
            return Err(refuse(format!("{} has no ports", protocol.as_str()), "remove the port"));
        }
        Ok(Self::Ip { host, ports, protocol })
    }

    /// Which of two peer patterns decides where both fit, `None` where neither is more specific
    /// and the stricter verdict wins.
    ///
    /// A narrower address, a longer name, a narrower port range, then a named protocol. A name and
    /// a network are *not* ordered, except that `*` and `/0` networks yield to everything: a name
    /// that answers with an address in a denied network (DNS rebinding) must not win by being a
    /// name.
    pub fn precedence(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (
                Self::Ip { host: a, ports: ap, protocol: aproto },
                Self::Ip { host: b, ports: bp, protocol: bproto },
            ) => {
                let (kind_a, length_a) = a.rank();
                let (kind_b, length_b) = b.rank();
                if kind_a != kind_b && kind_a != 0 && kind_b != 0 {
                    return None;
                }
                let width = |ports: &Option<Ports>| ports.map_or(u32::MAX, Ports::count);
                Some(
                    (kind_a, length_a)
                        .cmp(&(kind_b, length_b))
                        .then(width(bp).cmp(&width(ap)))
                        .then(aproto.is_some().cmp(&bproto.is_some())),
                )
            }
            (Self::UnixPath(a), Self::UnixPath(b)) => Some(a.specificity().cmp(&b.specificity())),
            (Self::UnixAbstract(_), Self::UnixAbstract(_)) => Some(std::cmp::Ordering::Equal),
            (Self::Vsock { port: a, .. }, Self::Vsock { port: b, .. }) => Some(a.is_some().cmp(&b.is_some())),
            _ => None,
        }
    }

    /// Whether every peer that `other` fits is one that `self` fits, as far as can be known without
    /// asking DNS: a network never covers a name.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Ip { host: a, ports: ap, protocol: aproto },
                Self::Ip { host: b, ports: bp, protocol: bproto },
            ) => {
                let ports = match (ap, bp) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(a), Some(b)) => a.low <= b.low && b.high <= a.high,
                };
                ports && a.covers(b) && (aproto.is_none() || aproto == bproto)
            }
            (Self::UnixPath(a), Self::UnixPath(b)) => a.covers(b),
            (Self::UnixAbstract(a), Self::UnixAbstract(b)) => a == b,
            (Self::Vsock { cid: a, port: ap }, Self::Vsock { cid: b, port: bp }) => {
                a == b && (ap.is_none() || ap == bp)
            }
            _ => false,
        }
    }

    /// The host of an IP pattern.
    pub fn host(&self) -> Option<&Host> {
        match self {
            Self::Ip { host, .. } => Some(host),
            Self::UnixPath(_) | Self::UnixAbstract(_) | Self::Vsock { .. } => None,
        }
    }
}

impl Ports {
    fn count(self) -> u32 {
        u32::from(self.high) - u32::from(self.low) + 1
    }
}

impl Host {
    /// Kind (0 everything, 1 network, 2 name) and how long the fixed part is.
    fn rank(&self) -> (u8, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Net(net) if net.prefix_len() == 0 => (0, 1),
            // An IPv4 and an IPv6 network never fit the same address.
            Self::Net(net) => (1, usize::from(net.prefix_len())),
            Self::Suffix(name) => (2, name.len()),
            Self::Name(_) => (2, usize::MAX),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Net(a), Self::Net(b)) => a.contains(b),
            (Self::Name(a), Self::Name(b)) => a == b,
            (Self::Suffix(a), Self::Name(b)) => is_under(b, a),
            (Self::Suffix(a), Self::Suffix(b)) => a == b || is_under(b, a),
            _ => false,
        }
    }
}

/// Whether `name` is a proper child of `parent`.
fn is_under(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

fn parse_unix(name: &str) -> Result<NetPattern, PathError> {
    if let Some(name) = name.strip_prefix('@') {
        if name.is_empty() || name.len() > MAX_ABSTRACT_BYTES {
            return Err(refuse("an abstract socket name has 1 to 107 bytes", "write unix:@name"));
        }
        return Ok(NetPattern::UnixAbstract(name.to_owned()));
    }
    match PathPattern::parse(name)? {
        PathPattern::Exact(path) if path.len() > MAX_SOCKET_PATH_BYTES => Err(refuse(
            format!("the socket path has {} bytes", path.len()),
            format!("a UNIX address holds at most {MAX_SOCKET_PATH_BYTES}; name the directory with /**"),
        )),
        pattern @ (PathPattern::Exact(_) | PathPattern::Subtree(_)) => Ok(NetPattern::UnixPath(pattern)),
        PathPattern::Name(_) | PathPattern::Extension(_) => {
            Err(refuse("sockets are named by path", "write unix:/run/x.sock or unix:/run/app/**"))
        }
    }
}

fn parse_vsock(address: &str) -> Result<NetPattern, PathError> {
    let (cid, port) = match address.split_once(':') {
        Some((cid, port)) => (cid, Some(port)),
        None => (address, None),
    };
    let number = |text: &str| {
        digits(text)
            .and_then(|text| text.parse::<u32>().ok())
            .ok_or_else(|| refuse(format!("`{text}` is no number"), "write vsock:CID or vsock:CID:PORT"))
    };
    Ok(NetPattern::Vsock { cid: number(cid)?, port: port.map(number).transpose()? })
}

/// Takes `/tcp` off the end; a `/8` of a network stays.
fn split_protocol(text: &str) -> Result<(&str, Option<Protocol>), PathError> {
    let Some((rest, word)) = text.rsplit_once('/') else {
        return Ok((text, None));
    };
    // `10.0.0.0/8`, `10.0.0.0/8:53`, `[::/0]:53`: the slash belongs to the network.
    if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok((text, None));
    }
    let found = Protocol::WORDS.iter().find(|(known, _)| *known == word);
    match found {
        Some((_, protocol)) => Ok((rest, Some(*protocol))),
        None => Err(refuse(
            format!("unknown protocol `{word}`"),
            "one of: icmp, icmpv6, sctp, tcp, udp (QUIC is udp)",
        )),
    }
}

/// Splits host and port text; brackets hold an IPv6 host.
fn split_ports(text: &str) -> Result<(&str, Option<&str>), PathError> {
    if text.starts_with('[') {
        let Some((host, rest)) = text.split_once(']') else {
            return Err(refuse("the bracket is not closed", "write [2001:db8::1]:443"));
        };
        return match rest {
            "" => Ok((text, None)),
            _ => match rest.strip_prefix(':') {
                Some(ports) => Ok((text.get(..=host.len()).unwrap_or(text), Some(ports))),
                None => Err(refuse(format!("`{rest}` after the bracket"), "write [2001:db8::/32]:443/tcp")),
            },
        };
    }
    let mut parts = text.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(_), Some(_)) => {
            Err(refuse(format!("`{text}` has several colons"), "IPv6 goes in brackets: [2001:db8::1]:443"))
        }
        (Some(host), Some(ports), None) => Ok((host, Some(ports))),
        _ => Ok((text, None)),
    }
}

fn parse_host(text: &str) -> Result<Host, PathError> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return parse_net(inner, true);
    }
    match text {
        "" => return Err(refuse("the host is missing", "write host:port, or *:port for every host")),
        "*" => return Ok(Host::Any),
        _ => {}
    }
    // What ends in a number is an address: no host name has an all-digit last label.
    let address = text.split('/').next().unwrap_or_default();
    let last = address.rsplit('.').next().unwrap_or_default();
    if digits(last).is_some() || text.contains('/') {
        return parse_net(text, false);
    }
    if let Some(parent) = text.strip_prefix("*.") {
        return Ok(Host::Suffix(parse_name(parent)?));
    }
    Ok(Host::Name(parse_name(text)?))
}

fn parse_net(text: &str, bracketed: bool) -> Result<Host, PathError> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address = if bracketed {
        address.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    } else {
        address.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
    };
    let family = if bracketed { "IPv6" } else { "IPv4" };
    let Some(address) = address else {
        return Err(refuse(
            format!("`{text}` is no {family} address or network"),
            "write 192.0.2.1, 10.0.0.0/8, [2001:db8::1] or [2001:db8::/32]",
        ));
    };
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(refuse("the kernel sees IPv4-mapped IPv6 addresses as IPv4", format!("write {v4}")));
    }
    let widest = if bracketed { 128 } else { 32 };
    let length = match length {
        None => widest,
        Some(length) => digits(length)
            .and_then(|length| length.parse::<u8>().ok())
            .filter(|length| *length <= widest)
            .ok_or_else(|| {
                refuse(format!("`/{length}` is no prefix length"), format!("from /0 to /{widest}"))
            })?,
    };
    let net = IpNet::new(address, length)
        .map_err(|error| refuse(error.to_string(), format!("from /0 to /{widest}")))?;
    if net.trunc() != net {
        return Err(refuse(
            format!("`{text}` has bits set after the prefix"),
            format!("the network is {}", Host::Net(net.trunc())),
        ));
    }
    Ok(Host::Net(net))
}

fn parse_name(text: &str) -> Result<String, PathError> {
    let hint = "labels of letters, digits and -, parted by dots; a wildcard is a leading *.";
    if !text.is_ascii() {
        return Err(refuse(format!("`{text}` is not ASCII"), "DNS carries the punycode form: xn--…"));
    }
    let well_formed = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if text.len() > 253 || !text.split('.').all(well_formed) {
        return Err(refuse(format!("`{text}` is no host name"), hint));
    }
    Ok(text.to_ascii_lowercase())
}

fn parse_ports(text: &str) -> Result<Ports, PathError> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| {
        digits(text).and_then(|text| text.parse::<u16>().ok()).filter(|port| *port > 0).ok_or_else(|| {
            refuse(
                format!("`{text}` is no port"),
                "a number from 1 to 65535, or a range such as 8000-8080; leave it out for every port",
            )
        })
    };
    let ports = Ports { low: port(low)?, high: port(high)? };
    if ports.low > ports.high {
        return Err(refuse(
            format!("the port range {text} is empty"),
            format!("write {}-{}", ports.high, ports.low),
        ));
    }
    Ok(ports)
}

/// Only digits: the number parsers of the standard library also take a `+`.
fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Name(name) => f.write_str(name),
            Self::Suffix(name) => write!(f, "*.{name}"),
            Self::Net(IpNet::V4(net)) if net.prefix_len() == 32 => write!(f, "{}", net.addr()),
            Self::Net(IpNet::V4(net)) => write!(f, "{net}"),
            Self::Net(IpNet::V6(net)) if net.prefix_len() == 128 => write!(f, "[{}]", net.addr()),
            Self::Net(IpNet::V6(net)) => write!(f, "[{net}]"),
        }
    }
}

impl fmt::Display for NetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip { host, ports, protocol } => {
                write!(f, "{host}")?;
                match ports {
                    Some(ports) if ports.low == ports.high => write!(f, ":{}", ports.low)?,
                    Some(ports) => write!(f, ":{}-{}", ports.low, ports.high)?,
                    None => {}
                }
                protocol.map_or(Ok(()), |protocol| write!(f, "/{}", protocol.as_str()))
            }
            Self::UnixPath(path) => write!(f, "unix:{path}"),
            Self::UnixAbstract(name) => write!(f, "unix:@{name}"),
            Self::Vsock { cid, port } => {
                write!(f, "vsock:{cid}")?;
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }
    }
}

impl Serialize for NetPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
#[path = "net/tests.rs"]
mod tests;
