//! The addresses that a DNS answer gives to a name. Bytes of strangers: parsed by `simple-dns`, which bounds compression;
//! aliases are followed here, for a few steps only.
//!
//! RFC 1035 4.1; RFC 3596 for IPv6.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE};

use super::hello::plain;

/// Most aliases from the asked name to an address, and most addresses that are taken of one answer.
const ALIASES_MAX: usize = 8;
const ADDRESSES_MAX: usize = 64;

/// What an answer says of the name that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The name in lower case, without the last dot.
    pub name: String,
    /// Addresses that it leads to, over aliases too; none twice.
    pub addresses: Vec<IpAddr>,
}

/// Bytes that are no DNS message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no DNS message")]
pub struct NoMessage;

/// Reads an answer. `None` where the message is whole and gives no address to a name: a question, an error, other types.
///
/// # Errors
/// When the bytes are no DNS message, or only a part of one.
pub fn answer(message: &[u8]) -> Result<Option<Answer>, NoMessage> {
    let message = counting(message, [true, true, false, false]).ok_or(NoMessage)?;
    let packet = Packet::parse(&message).map_err(|_malformed| NoMessage)?;
    if !packet.has_flags(PacketFlag::RESPONSE) || packet.rcode() != RCODE::NoError {
        return Ok(None);
    }
    let Some(name) = packet.questions.first().and_then(|question| text(&question.qname)) else {
        return Ok(None);
    };
    let mut aliases: BTreeMap<String, String> = BTreeMap::new();
    let mut given: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for record in packet.answers.iter().filter(|record| record.class == CLASS::IN) {
        let Some(owner) = text(&record.name) else { continue };
        match &record.rdata {
            RData::A(a) => given.entry(owner).or_default().push(IpAddr::V4(Ipv4Addr::from(a.address))),
            RData::AAAA(a) => given.entry(owner).or_default().push(IpAddr::V6(Ipv6Addr::from(a.address))),
            RData::CNAME(to) => drop(text(&to.0).and_then(|to| aliases.insert(owner, to))),
            _ => {}
        }
    }
    let mut addresses = Vec::new();
    let mut at = Some(&name);
    for _ in 0..=ALIASES_MAX {
        let Some(here) = at else { break };
        for address in given.get(here).into_iter().flatten().take(ADDRESSES_MAX) {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        at = aliases.get(here);
    }
    addresses.truncate(ADDRESSES_MAX);
    Ok((!addresses.is_empty()).then_some(Answer { name, addresses }))
}

/// The name that was asked for, also where only the beginning of the message is there.
#[must_use]
pub fn asked(message: &[u8]) -> Option<String> {
    let message = counting(message, [true, false, false, false])?;
    let packet = Packet::parse(&message).ok()?;
    packet.questions.first().and_then(|question| text(&question.qname))
}

/// The message with only some of its four sections counted: what nobody needs need not be whole.
fn counting(message: &[u8], sections: [bool; 4]) -> Option<Vec<u8>> {
    let mut message = message.to_vec();
    for (count, wanted) in message.get_mut(4..12)?.chunks_mut(2).zip(sections) {
        if !wanted {
            count.fill(0);
        }
    }
    Some(message)
}

/// A name that can be a host's; a label with a dot or an escape in it is nobody's.
fn text(name: &Name<'_>) -> Option<String> {
    let mut out = Vec::new();
    for label in name.get_labels() {
        let label: &[u8] = label.as_ref();
        if label.contains(&b'.') {
            return None;
        }
        if !out.is_empty() {
            out.push(b'.');
        }
        out.extend_from_slice(label);
    }
    plain(&out)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use simple_dns::rdata::{A, AAAA, CNAME};
    use simple_dns::{QCLASS, QTYPE, Question, ResourceRecord, TYPE};

    use super::*;

    /// An answer to a question for `asked`, with these records.
    pub(crate) fn reply(asked: &str, records: &[(&str, &str)]) -> Vec<u8> {
        let mut packet = Packet::new_reply(7);
        let asked = Name::new_unchecked(asked).into_owned();
        packet.questions.push(Question::new(asked, QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false));
        for (name, value) in records {
            let data = match value.parse() {
                Ok(IpAddr::V4(four)) => RData::A(A { address: four.into() }),
                Ok(IpAddr::V6(six)) => RData::AAAA(AAAA { address: six.into() }),
                Err(_) => RData::CNAME(CNAME(Name::new_unchecked(value).into_owned())),
            };
            packet.answers.push(ResourceRecord::new(
                Name::new_unchecked(name).into_owned(),
                CLASS::IN,
                60,
                data,
            ));
        }
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn shown(message: &[u8]) -> Option<(String, Vec<String>)> {
        let answer = answer(message).unwrap()?;
        Some((answer.name, answer.addresses.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn addresses_and_aliases() {
        let message = reply(
            "API.openai.com",
            &[
                ("api.openai.com", "edge.example.net"),
                ("Edge.example.net", "192.0.2.7"),
                ("edge.example.net", "2001:db8::9"),
                ("other.example.net", "192.0.2.8"),
                ("edge.example.net", "192.0.2.7"),
            ],
        );
        let addresses = vec!["192.0.2.7".to_owned(), "2001:db8::9".to_owned()];
        assert_eq!(shown(&message), Some(("api.openai.com".to_owned(), addresses)));
    }

    #[test]
    fn what_gives_no_address_gives_none() {
        assert_eq!(shown(&reply("a.b", &[])), None);
        assert_eq!(shown(&reply("a.b", &[("c.d", "192.0.2.7")])), None, "of another name");
        assert_eq!(shown(&reply("a.b", &[("a.b", "b.c"), ("b.c", "a.b")])), None, "a loop of aliases");
        let mut question = reply("a.b", &[("a.b", "192.0.2.7")]);
        *question.get_mut(2).unwrap() &= 0x7f;
        assert_eq!(shown(&question), None);
        let mut failed = reply("a.b", &[("a.b", "192.0.2.7")]);
        *failed.get_mut(3).unwrap() |= 3;
        assert_eq!(shown(&failed), None);
        let odd = reply("a\u{1b}.b", &[("a\u{1b}.b", "192.0.2.7")]);
        assert_eq!(shown(&odd), None, "no host's name");
    }

    #[test]
    fn loops_of_compression_and_cuts_are_refused() {
        // A header for one question, whose name points to itself.
        let mut message = vec![0, 7, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1];
        assert_eq!(answer(&message), Err(NoMessage));
        // Two that point to each other.
        message.splice(12..14, [0xc0, 14, 0xc0, 12]);
        assert_eq!(answer(&message), Err(NoMessage));
        let whole = reply("api.openai.com", &[("api.openai.com", "192.0.2.7")]);
        let part = whole.get(..whole.len() - 1).unwrap();
        assert_eq!((answer(part), asked(part)), (Err(NoMessage), Some("api.openai.com".to_owned())));
        // What stands behind the answers need not be there.
        let mut more = whole.clone();
        *more.get_mut(9).unwrap() = 3;
        assert_eq!(answer(&more), answer(&whole));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _answer = (answer(&bytes), asked(&bytes));
        }

        #[test]
        fn a_damaged_answer_never_gives_more_than_names_and_addresses(
            at in 0usize..200, byte: u8, len in 0usize..400, asked in "[a-z]{1,20}(\\.[a-z]{1,9}){1,3}",
        ) {
            let mut message = reply(&asked, &[(&asked, "x.example.net"), ("x.example.net", "192.0.2.7")]);
            if let Some(slot) = message.get_mut(at) {
                *slot = byte;
            }
            message.truncate(len);
            if let Ok(Some(found)) = answer(&message) {
                prop_assert!(plain(found.name.as_bytes()).is_some());
                prop_assert!(!found.addresses.is_empty() && found.addresses.len() <= ADDRESSES_MAX);
            }
        }
    }
}
