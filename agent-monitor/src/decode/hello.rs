//! The server's name in a TLS ClientHello. Bytes of strangers, and as a rule not the whole message: what is there is read
//! from the front, so that a name before the cut is found. (Parsers of whole records refuse a message that is cut, which
//! with post-quantum key shares most are; that is why this one is here.)
//!
//! RFC 8446 4.1.2 and 5.1; RFC 6066 3.

/// Content type of a handshake record.
const HANDSHAKE: u8 = 22;
/// Handshake type.
const CLIENT_HELLO: u8 = 1;
/// Extension `server_name`, and its type for host names.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Longest name in the DNS, RFC 1035 2.3.4.
pub const NAME_MAX: usize = 253;

/// The server that the client asks for, in lower case; `None` where the bytes do not say. It is what the client wrote: no
/// proof that the peer is of that name. With Encrypted ClientHello it is the name of the outer server.
#[must_use]
pub fn server_name(bytes: &[u8]) -> Option<String> {
    let mut rest = bytes;
    // Record: type, version, length. The length does not matter: a cut record is read as far as it goes.
    let [kind, major, _, _, _] = *take::<5>(&mut rest)?;
    if kind != HANDSHAKE || major != 3 {
        return None;
    }
    let [message, _, _, _] = *take::<4>(&mut rest)?;
    if message != CLIENT_HELLO {
        return None;
    }
    // Version and random; then session, cipher suites and compression methods by their own lengths.
    take::<34>(&mut rest)?;
    skip8(&mut rest)?;
    skip16(&mut rest)?;
    skip8(&mut rest)?;
    let _all = take::<2>(&mut rest)?;
    loop {
        let kind = u16::from_be_bytes(*take::<2>(&mut rest)?);
        let len = usize::from(u16::from_be_bytes(*take::<2>(&mut rest)?));
        let (body, after) = rest.split_at_checked(len)?;
        if kind == SERVER_NAME {
            return host_name(body);
        }
        rest = after;
    }
}

/// The host name in a list of names.
fn host_name(mut list: &[u8]) -> Option<String> {
    let _len = take::<2>(&mut list)?;
    loop {
        let [kind] = *take::<1>(&mut list)?;
        let len = usize::from(u16::from_be_bytes(*take::<2>(&mut list)?));
        let (name, after) = list.split_at_checked(len)?;
        if kind == HOST_NAME {
            return plain(name);
        }
        list = after;
    }
}

/// A name as it may stand in a URL, in lower case; anything else is nobody's.
#[must_use]
pub fn plain(name: &[u8]) -> Option<String> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let good = !name.is_empty() && name.len() <= NAME_MAX && name.iter().all(fits);
    good.then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(first)
}

fn skip8(rest: &mut &[u8]) -> Option<()> {
    let [len] = *take::<1>(rest)?;
    *rest = rest.get(usize::from(len)..)?;
    Some(())
}

fn skip16(rest: &mut &[u8]) -> Option<()> {
    let len = u16::from_be_bytes(*take::<2>(rest)?);
    *rest = rest.get(usize::from(len)..)?;
    Some(())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A ClientHello with these extensions.
    pub(crate) fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let short = |len: usize| u16::try_from(len).unwrap().to_be_bytes();
        let mut all = Vec::new();
        for (kind, body) in extensions {
            all.extend(kind.to_be_bytes());
            all.extend(short(body.len()));
            all.extend(body);
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(32);
        body.extend([9; 32]);
        body.extend([0, 4, 0x13, 1, 0x13, 2, 1, 0]);
        body.extend(short(all.len()));
        body.extend(all);
        let mut message = vec![1, 0];
        message.extend(short(body.len()));
        message.extend(body);
        let mut record = vec![22, 3, 1];
        record.extend(short(message.len()));
        record.extend(message);
        record
    }

    /// The extension that asks for a name.
    pub(crate) fn asks(name: &str) -> (u16, Vec<u8>) {
        let len = u16::try_from(name.len()).unwrap();
        let mut list = len.saturating_add(3).to_be_bytes().to_vec();
        list.push(0);
        list.extend(len.to_be_bytes());
        list.extend(name.as_bytes());
        (0, list)
    }

    #[test]
    fn the_name_is_found_wherever_it_stands() {
        let name = || Some("api.anthropic.com".to_owned());
        let asked = asks("API.anthropic.com.");
        assert_eq!(server_name(&hello(std::slice::from_ref(&asked))), name());
        let behind = hello(&[(51, vec![0; 1216]), (0xfe0d, vec![1]), asked.clone(), (43, vec![2, 3, 4])]);
        assert_eq!(server_name(&behind), name());
        // Cut behind the name: found. Cut inside it: not half a name.
        let at = behind.windows(4).position(|part| part == b"API.").unwrap();
        assert_eq!(server_name(behind.get(..at + 18).unwrap()), name());
        assert_eq!(server_name(behind.get(..at + 17).unwrap()), None);
    }

    #[test]
    fn what_is_none_gives_none() {
        assert_eq!(server_name(&hello(&[])), None);
        assert_eq!(server_name(&hello(&[(0, vec![])])), None);
        assert_eq!(server_name(&hello(&[asks("")])), None);
        assert_eq!(server_name(&hello(&[asks("a b")])), None);
        assert_eq!(server_name(&hello(&[asks("a\u{1b}[31m")])), None);
        assert_eq!(server_name(&hello(&[asks(&"a".repeat(254))])), None);
        assert_eq!(server_name(b"GET / HTTP/1.1\r\n"), None);
        let mut other = hello(&[asks("a.b")]);
        *other.get_mut(5).unwrap() = 2;
        assert_eq!(server_name(&other), None, "a ServerHello");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _name = server_name(&bytes);
        }

        #[test]
        fn a_damaged_hello_never_gives_more_than_a_name(
            at in 0usize..400, byte: u8, len in 0usize..400, name in "[a-z]{1,20}(\\.[a-z]{1,9}){0,3}",
        ) {
            let mut bytes = hello(&[(10, vec![0, 2, 0, 29]), asks(&name)]);
            prop_assert_eq!(server_name(&bytes), Some(name.clone()));
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
            bytes.truncate(len);
            if let Some(found) = server_name(&bytes) {
                prop_assert!(found.len() <= NAME_MAX && plain(found.as_bytes()).is_some());
            }
        }
    }
}
