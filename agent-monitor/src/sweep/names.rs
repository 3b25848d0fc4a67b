//! Who the peers of processes are: names of model providers out of DNS answers and TLS, with the addresses that they lead to.
//! Pure; bounded, and what did not fit or could not be read is counted.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::judge::{self, only_product_on};
use super::pack::Pack;
use super::report::ProductKind;
use crate::attribute::TaskKey;
use crate::decode::network::Heard;
use crate::decode::{dns, hello};
use crate::model::Kind;
use crate::registry::argv::glob;

/// Addresses that are remembered; the oldest is forgotten first.
const ADDRESSES_MAX: usize = 4096;
/// Peers that are remembered for a name that comes later.
const RECENT_MAX: usize = 4096;

/// By what a peer is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// The process has asked for it by name in its ClientHello.
    Tls,
    /// A DNS answer that came to this host has given its address to the name.
    Dns,
    /// It lies in a network of the provider.
    Network,
    /// It is the usual port of a model server on this host.
    LocalPort,
    /// The process has asked for another server by name: what the address alone said does not hold.
    OtherName,
}

impl By {
    /// What it says, 0 to 100. A name is what the process itself wrote; an address may be shared by many names, and an
    /// answer is anybody's who can send one; a port is anybody's.
    #[must_use]
    pub fn weight(self) -> u8 {
        match self {
            Self::Tls | Self::Network => judge::PROVIDER,
            Self::Dns => 35,
            Self::LocalPort => 25,
            Self::OtherName => 0,
        }
    }
}

/// A process and whom it reaches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The process.
    pub key: TaskKey,
    /// Its peer.
    pub peer: SocketAddr,
    /// The provider's name, or the product's.
    pub who: String,
    /// By what it is known.
    pub by: By,
}

impl Contact {
    /// A line of evidence.
    #[must_use]
    pub fn evidence(&self) -> String {
        let Self { peer, who, .. } = self;
        match self.by {
            By::Tls => format!("reaches {who} ({peer}), by TLS SNI"),
            By::Dns => format!("reaches {who} ({peer}), by a DNS answer"),
            By::Network => format!("reaches {who} ({peer}), by its networks"),
            By::OtherName => format!("asks {peer} for {who}, by TLS SNI"),
            By::LocalPort => format!("reaches {peer}, the usual port of {who}"),
        }
    }
}

/// Names of peers.
#[derive(Debug, Default)]
pub struct Names {
    /// Patterns of providers' names.
    hosts: Vec<String>,
    networks: Vec<(ipnet::IpNet, String)>,
    /// Ports of model servers.
    ports: BTreeMap<u16, String>,
    addresses: BTreeMap<IpAddr, String>,
    /// The same in order of arrival.
    order: VecDeque<IpAddr>,
    recent: VecDeque<(TaskKey, SocketAddr)>,
    lost: BTreeMap<(Kind, &'static str), u64>,
}

impl Names {
    /// Names of the providers in a pack.
    #[must_use]
    pub fn new(pack: &Pack) -> Self {
        let networks = pack.products().iter().flat_map(|product| {
            product.networks.iter().map(|network| (*network, format!("the provider of {}", product.name)))
        });
        let ports = pack.products().iter().flat_map(|product| product.ports.iter().copied());
        let serves = |port: u16| {
            let product = pack.product(only_product_on(pack, port)?)?;
            let server = matches!(product.kind(), ProductKind::ModelServer | ProductKind::Gateway);
            server.then(|| (port, product.name.clone()))
        };
        Self {
            hosts: pack.provider_hosts().iter().map(|host| host.to_ascii_lowercase()).collect(),
            networks: networks.collect(),
            ports: ports.filter_map(serves).collect(),
            ..Self::default()
        }
    }

    /// Takes what came from the kernel; who is known to reach for a provider by that.
    pub fn hear(&mut self, key: TaskKey, heard: &Heard) -> Vec<Contact> {
        match heard {
            Heard::Peer(peer) => {
                let contact = self.by_address(key, *peer);
                if contact.is_none() {
                    if self.recent.len() >= RECENT_MAX {
                        self.recent.pop_front();
                    }
                    self.recent.push_back((key, *peer));
                }
                contact.into_iter().collect()
            }
            Heard::Hello { peer, bytes } => match hello::server_name(bytes) {
                Some(who) if self.is_provider(&who) => vec![Contact { key, peer: *peer, who, by: By::Tls }],
                // Many names share an address: this one is another, whatever the DNS says of the address, now or later.
                Some(who) => {
                    self.recent.retain(|(of, at)| (of, at) != (&key, peer));
                    vec![Contact { key, peer: *peer, who, by: By::OtherName }]
                }
                None => self.by_address(key, *peer).into_iter().collect(),
            },
            Heard::Answer { message, cut } => self.answer(message, *cut),
        }
    }

    /// What was lost since the last call: kind of gap, reason, how many.
    pub fn lost(&mut self) -> Vec<(Kind, &'static str, u64)> {
        std::mem::take(&mut self.lost).into_iter().map(|((kind, why), count)| (kind, why, count)).collect()
    }

    fn is_provider(&self, name: &str) -> bool {
        self.hosts.iter().any(|host| glob(host.as_bytes(), name.as_bytes()))
    }

    fn lose(&mut self, kind: Kind, why: &'static str) {
        *self.lost.entry((kind, why)).or_default() += 1;
    }

    fn by_address(&self, key: TaskKey, peer: SocketAddr) -> Option<Contact> {
        let ip = peer.ip().to_canonical();
        let contact = |who: &String, by| Contact { key, peer, who: who.clone(), by };
        if let Some(who) = self.addresses.get(&ip) {
            return Some(contact(who, By::Dns));
        }
        if let Some((_, who)) = self.networks.iter().find(|(network, _)| network.contains(&ip)) {
            return Some(contact(who, By::Network));
        }
        let local = self.ports.get(&peer.port()).filter(|_| ip.is_loopback());
        local.map(|who| contact(who, By::LocalPort))
    }

    fn answer(&mut self, message: &[u8], cut: bool) -> Vec<Contact> {
        let answer = match dns::answer(message) {
            Ok(Some(answer)) => answer,
            Ok(None) => return Vec::new(),
            Err(dns::NoMessage) => {
                // What nobody wanted is not lost.
                match dns::asked(message) {
                    Some(name) if self.is_provider(&name) => self.lose(Kind::GapDecode, "dns_cut"),
                    Some(_) => {}
                    None if cut => self.lose(Kind::GapDecode, "dns_cut"),
                    None => self.lose(Kind::GapDecode, "dns_malformed"),
                }
                return Vec::new();
            }
        };
        if !self.is_provider(&answer.name) {
            // The address has another name now: it is not sure any more whose it is.
            answer.addresses.iter().for_each(|address| self.forget(&address.to_canonical()));
            return Vec::new();
        }
        let mut contacts = Vec::new();
        for address in answer.addresses.iter().map(IpAddr::to_canonical).filter(|ip| !ip.is_unspecified()) {
            if self.addresses.insert(address, answer.name.clone()).is_none() {
                self.order.push_back(address);
            }
            let late = self.recent.iter().filter(|(_, peer)| peer.ip().to_canonical() == address);
            contacts.extend(late.map(|(key, peer)| Contact {
                key: *key,
                peer: *peer,
                who: answer.name.clone(),
                by: By::Dns,
            }));
            self.recent.retain(|(_, peer)| peer.ip().to_canonical() != address);
        }
        while self.addresses.len() > ADDRESSES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            if self.addresses.remove(&oldest).is_some() {
                self.lose(Kind::GapMap, "names_full");
            }
        }
        contacts
    }

    fn forget(&mut self, address: &IpAddr) {
        if self.addresses.remove(address).is_some() {
            self.order.retain(|other| other != address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::dns::tests::reply;
    use crate::decode::hello::tests::{asks, hello};
    use crate::sweep::pack::embedded;

    fn key(tgid: u32) -> TaskKey {
        TaskKey { tgid, start: 1 }
    }

    fn answer(name: &str, address: &str) -> Heard {
        Heard::Answer { message: reply(name, &[(name, address)]), cut: false }
    }

    fn peer(at: &str) -> Heard {
        Heard::Peer(at.parse().unwrap())
    }

    fn hello_of(name: &str) -> Vec<u8> {
        hello(&[asks(name)])
    }

    fn says(contacts: &[Contact]) -> Vec<String> {
        contacts.iter().map(|contact| format!("{} {}", contact.key.tgid, contact.evidence())).collect()
    }

    #[test]
    fn answers_name_peers_before_and_after() {
        let mut names = Names::new(embedded());
        assert!(names.hear(key(1), &peer("192.0.2.7:443")).is_empty());
        assert!(names.hear(key(2), &peer("192.0.2.8:443")).is_empty());
        let late = names.hear(key(0), &answer("api.anthropic.com", "192.0.2.7"));
        let by_dns = |pid: u32| format!("{pid} reaches api.anthropic.com (192.0.2.7:443), by a DNS answer");
        assert_eq!(says(&late), [by_dns(1)]);
        assert_eq!(says(&names.hear(key(3), &peer("192.0.2.7:443"))), [by_dns(3)]);
        // IPv4 in IPv6 is the same peer.
        assert_eq!(names.hear(key(3), &peer("[::ffff:192.0.2.7]:443")).len(), 1);
        // Others' names are none, and take an address away.
        assert!(names.hear(key(0), &answer("example.org", "192.0.2.7")).is_empty());
        assert!(names.hear(key(4), &peer("192.0.2.7:443")).is_empty());
    }

    #[test]
    fn the_name_in_tls_counts_more_than_the_address() {
        let mut names = Names::new(embedded());
        names.hear(key(0), &answer("api.anthropic.com", "192.0.2.7"));
        let at = "192.0.2.7:8443".parse().unwrap();
        let hello = |name: &str| Heard::Hello { peer: at, bytes: hello_of(name) };
        let contacts = names.hear(key(1), &hello("bedrock-runtime.us-east-1.amazonaws.com"));
        assert_eq!(
            says(&contacts),
            ["1 reaches bedrock-runtime.us-east-1.amazonaws.com (192.0.2.7:8443), by TLS SNI"]
        );
        let shared = names.hear(key(1), &hello("example.org"));
        assert_eq!(shared.first().map(|contact| contact.by), Some(By::OtherName), "a shared address");
        let other = Heard::Hello { peer: "192.0.2.9:443".parse().unwrap(), bytes: hello_of("example.org") };
        names.hear(key(2), &peer("192.0.2.9:443"));
        names.hear(key(2), &other);
        assert!(
            names.hear(key(0), &answer("api.openai.com", "192.0.2.9")).is_empty(),
            "it has said whom it means"
        );
        let unnamed = Heard::Hello { peer: at, bytes: vec![22, 3, 1] };
        assert_eq!(names.hear(key(1), &unnamed).first().map(|contact| contact.by), Some(By::Dns));
        assert!(By::Tls.weight() > By::Dns.weight() && By::Dns.weight() > By::LocalPort.weight());
    }

    #[test]
    fn model_servers_on_this_host_are_peers_too() {
        let mut names = Names::new(embedded());
        let ollama = names.hear(key(1), &peer("127.0.0.1:11434"));
        assert_eq!(ollama.first().map(|contact| contact.by), Some(By::LocalPort), "{ollama:?}");
        assert!(names.hear(key(1), &peer("192.0.2.1:11434")).is_empty());
        assert!(names.hear(key(1), &peer("127.0.0.1:8000")).is_empty(), "half the world's");
    }

    #[test]
    fn memory_is_bounded_and_loss_counted() {
        let mut names = Names::new(embedded());
        for n in 0..5000u32 {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
            names.hear(key(n), &peer(&format!("10.9.{}.{}:1", n >> 8, n & 255)));
            names.hear(key(0), &answer("api.openai.com", &address));
        }
        assert_eq!((names.addresses.len(), names.order.len()), (ADDRESSES_MAX, ADDRESSES_MAX));
        assert_eq!(names.recent.len(), RECENT_MAX);
        assert_eq!(names.lost(), [(Kind::GapMap, "names_full", 904)]);
        let whole = reply("api.openai.com", &[("api.openai.com", "10.0.0.1")]);
        let part = |message: &[u8]| Heard::Answer {
            message: message.get(..message.len() - 2).unwrap().to_vec(),
            cut: true,
        };
        names.hear(key(0), &part(&whole));
        names.hear(key(0), &part(&reply("example.org", &[("example.org", "10.0.0.1")])));
        names.hear(key(0), &Heard::Answer { message: vec![7; 30], cut: false });
        let lost = names.lost();
        assert_eq!(lost, [(Kind::GapDecode, "dns_cut", 1), (Kind::GapDecode, "dns_malformed", 1)]);
        assert!(names.lost().is_empty());
    }
}
