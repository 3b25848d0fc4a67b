//! Which addresses the host's own resolver has given to model providers: the cache of systemd-resolved, asked over its local
//! socket (varlink, `io.systemd.Resolve.Monitor.DumpCache`; systemd 254 and later, root). Nothing leaves the host, and
//! nothing is looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// Where systemd-resolved is asked.
pub const SOCKET: &str = "/run/systemd/resolve/io.systemd.Resolve.Monitor";
/// Longest that one answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most bytes of an answer.
const ANSWER_MAX: u64 = 16 << 20;
/// Most aliases from one name to the next.
const ALIASES_MAX: usize = 8;

/// Addresses that are in the cache for these names.
///
/// # Errors
/// When there is nobody to ask, or what comes is no answer.
pub fn addresses(socket: &Path, names: &BTreeSet<String>) -> io::Result<BTreeMap<IpAddr, String>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"{\"method\":\"io.systemd.Resolve.Monitor.DumpCache\",\"parameters\":{}}\0")?;
    let mut answer = Vec::new();
    let mut chunk = [0; 8192];
    let mut stream = stream.take(ANSWER_MAX);
    // One message, which a NUL ends; the other side keeps the connection.
    while !answer.ends_with(b"\0") {
        match stream.read(&mut chunk)? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer has no end")),
            n => answer.extend_from_slice(chunk.get(..n).unwrap_or_default()),
        }
    }
    answer.pop();
    read(&answer, names).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no dump of a cache"))
}

/// The pure half: names and aliases in the answer. `None` where it is an error or something else.
#[must_use]
pub fn read(answer: &[u8], names: &BTreeSet<String>) -> Option<BTreeMap<IpAddr, String>> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let scopes = answer.get("parameters")?.get("dump")?.as_array()?;
    let mut aliases: BTreeMap<String, String> = BTreeMap::new();
    let mut given: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    let entries = scopes.iter().filter_map(|scope| scope.get("cache")?.as_array()).flatten();
    for record in entries.filter_map(|entry| entry.get("rrs")?.as_array()).flatten() {
        let Some(record) = record.get("rr") else { continue };
        let Some(name) = record.get("key").and_then(|key| plain(key.get("name")?)) else { continue };
        if let Some(address) = record.get("address").and_then(address) {
            given.entry(name).or_default().push(address);
        } else if let Some(other) = record.get("name").and_then(plain) {
            aliases.insert(name, other);
        }
    }
    let mut found = BTreeMap::new();
    for name in names {
        let chain = std::iter::successors(Some(name), |name| aliases.get(*name)).take(ALIASES_MAX);
        for address in chain.filter_map(|name| given.get(name)).flatten() {
            found.entry(*address).or_insert_with(|| name.clone());
        }
    }
    Some(found)
}

fn plain(name: &Value) -> Option<String> {
    name.as_str().map(|name| name.trim_end_matches('.').to_ascii_lowercase())
}

fn address(value: &Value) -> Option<IpAddr> {
    let bytes = value.as_array()?.iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()));
    let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
    let four = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from).ok();
    four.or_else(|| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from).ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use proptest::prelude::*;

    use super::*;

    const DUMP: &str = r#"{"parameters":{"dump":[{"protocol":"dns","cache":[
        {"key":{"class":1,"type":5,"name":"api.openai.com"},"rrs":[{"rr":{"key":{"class":1,"type":5,"name":"api.openai.com"},"name":"edge.example.net"},"raw":""}],"until":1},
        {"key":{"class":1,"type":1,"name":"edge.example.net"},"rrs":[{"rr":{"key":{"class":1,"type":1,"name":"edge.example.net"},"address":[192,0,2,7]},"raw":""}],"until":1},
        {"key":{"class":1,"type":28,"name":"api.anthropic.com"},"rrs":[{"rr":{"key":{"class":1,"type":28,"name":"API.anthropic.com."},"address":[32,1,13,184,0,0,0,0,0,0,0,0,0,0,0,9]},"raw":""}],"until":1},
        {"key":{"class":1,"type":1,"name":"example.org"},"rrs":[{"rr":{"key":{"class":1,"type":1,"name":"example.org"},"address":[192,0,2,8]},"raw":""}],"until":1},
        {"key":{"class":1,"type":1,"name":"a.b"},"type":"nxdomain","until":1},
        {"key":{"class":1,"type":5,"name":"loop"},"rrs":[{"rr":{"key":{"class":1,"type":5,"name":"loop"},"name":"loop"},"raw":""}],"until":1}]}]}}"#;

    fn names() -> BTreeSet<String> {
        ["api.openai.com", "api.anthropic.com", "loop"].map(str::to_owned).into()
    }

    #[test]
    fn names_and_aliases_lead_to_addresses() {
        let found = read(DUMP.as_bytes(), &names()).unwrap();
        let shown: Vec<(String, &str)> =
            found.iter().map(|(ip, name)| (ip.to_string(), name.as_str())).collect();
        assert_eq!(
            shown,
            [("192.0.2.7".to_owned(), "api.openai.com"), ("2001:db8::9".to_owned(), "api.anthropic.com")]
        );
        assert_eq!(read(br#"{"error":"org.varlink.service.PermissionDenied"}"#, &names()), None);
    }

    #[test]
    fn the_resolver_is_asked_over_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("monitor");
        assert!(addresses(&path, &names()).is_err(), "nobody is there");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut asked = [0; 256];
            let n = peer.read(&mut asked).unwrap();
            let (first, rest) = DUMP.split_at(100);
            peer.write_all(first.as_bytes()).unwrap();
            peer.write_all(rest.as_bytes()).unwrap();
            peer.write_all(b"\0").unwrap();
            // One that hangs up half-way.
            let (mut peer, _) = listener.accept().unwrap();
            peer.write_all(b"{\"para").unwrap();
            asked[..n].to_vec()
        });
        assert_eq!(addresses(&path, &names()).unwrap().len(), 2);
        assert!(addresses(&path, &names()).is_err());
        assert!(server.join().unwrap().ends_with(b"\0"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300), number in any::<i64>()) {
            let _found = read(&bytes, &names());
            let odd = format!(r#"{{"parameters":{{"dump":[{{"cache":[{{"rrs":[{{"rr":{{"key":{{"name":"a"}},"address":[{number}]}}}}]}}]}}]}}}}"#);
            prop_assert_eq!(read(odd.as_bytes(), &names()), Some(BTreeMap::new()));
        }
    }
}
