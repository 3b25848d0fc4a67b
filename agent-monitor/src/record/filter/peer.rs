//! Peer patterns: `10.0.0.7`, `10.0.0.0/8`, `10.0.0.7:443`, `[2001:db8::1]:443`, `:443`, `example.com`,
//! `*.example.com:443`, `/run/docker.sock`, `/run/**`, `@abstract`.
//!
//! IPv4 addresses mapped into IPv6 count as IPv4.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::FilterError;
use super::path::PathPattern;
use crate::model::Network;

#[derive(Debug, Clone)]
pub(super) enum Peer {
    Path(PathPattern),
    Abstract(String),
    Net(IpNet),
    Address(IpAddr, u16),
    Port(u16),
    Name(Name, Option<u16>),
}

#[derive(Debug, Clone)]
pub(super) enum Name {
    Exact(String),
    /// With the leading dot: `.example.com`.
    Below(String),
}

impl Peer {
    pub(super) fn parse(text: &str) -> Result<Self, FilterError> {
        if text.starts_with('/') {
            return PathPattern::parse(text).map(Self::Path).map_err(|e| FilterError { field: "peer", ..e });
        }
        if let Some(name) = text.strip_prefix('@') {
            return Ok(Self::Abstract(name.to_owned()));
        }
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self::Net(net));
        }
        if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(Self::Net(address.to_canonical().into()));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Address(address.ip().to_canonical(), address.port()));
        }
        Self::parse_name(text)
    }

    fn parse_name(text: &str) -> Result<Self, FilterError> {
        let error = || FilterError {
            field: "peer",
            problem: format!("`{text}` is no address, network, name or socket"),
            hint: "10.0.0.7, 10.0.0.0/8, 10.0.0.7:443, :443, example.com:443, *.example.com, \
                   /run/docker.sock or @abstract",
        };
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse::<u16>().ok().ok_or_else(error)?)),
            None => (text, None),
        };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let below = host.strip_prefix('*');
        let label = below.unwrap_or(&host);
        let plain = label.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
        match (below, port) {
            _ if !plain => Err(error()),
            (Some("") | None, Some(port)) if label.is_empty() => Ok(Self::Port(port)),
            (Some(rest), port) if rest.starts_with('.') && rest.len() > 1 => {
                Ok(Self::Name(Name::Below(rest.to_owned()), port))
            }
            (None, port) if !label.is_empty() && !looks_like_address(label) => {
                Ok(Self::Name(Name::Exact(host.clone()), port))
            }
            _ => Err(error()),
        }
    }

    pub(super) fn matches(&self, network: &Network) -> bool {
        let remote = network.remote;
        let ip = remote.map(|address| address.ip().to_canonical());
        let port = remote.map(|address| address.port());
        match self {
            Self::Path(pattern) => network.path.as_deref().is_some_and(|path| pattern.matches(path)),
            Self::Abstract(name) => network.abstract_name.as_ref() == Some(name),
            Self::Net(net) => ip.is_some_and(|ip| net.contains(&ip)),
            Self::Address(address, wanted) => ip == Some(*address) && port == Some(*wanted),
            Self::Port(wanted) => port == Some(*wanted),
            Self::Name(name, wanted) => {
                let named = [&network.name, &network.query].into_iter().flatten().any(|n| name.matches(n));
                named && wanted.is_none_or(|wanted| port == Some(wanted))
            }
        }
    }
}

impl Name {
    fn matches(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        match self {
            Self::Exact(exact) => name == *exact,
            Self::Below(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
        }
    }
}

/// `10.0.0.300` is a mistake, not a name.
fn looks_like_address(host: &str) -> bool {
    host.chars().all(|c| c.is_ascii_digit() || c == '.')
}
