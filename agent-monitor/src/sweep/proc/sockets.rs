//! Listeners and connections from `/proc/PID/net/tcp` of each network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Proc, namespace, read};
use crate::sweep::observe::Harvest;

/// Most network namespaces.
const NAMESPACES_MAX: usize = 256;
/// States in the table.
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Own address.
    pub local: SocketAddr,
    /// The peer.
    pub remote: SocketAddr,
    /// `TCP_*` state.
    pub state: u8,
    /// Inode of the socket.
    pub inode: u64,
}

/// Gives processes their sockets.
pub(super) fn attach(procs: &mut [Proc], out: &mut Harvest) {
    let mut owners: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, proc) in procs.iter().enumerate() {
        owners.extend(proc.sockets.iter().map(|inode| (*inode, at)));
    }
    let mut seen = BTreeSet::new();
    let pids: Vec<u32> = procs.iter().map(|proc| proc.pid).collect();
    for pid in pids {
        let Some(own) = namespace(pid, "net") else { continue };
        if !seen.insert(own) {
            continue;
        }
        if seen.len() > NAMESPACES_MAX {
            out.reason("more network namespaces than are read", format!("pid {pid}"));
            return;
        }
        for table in ["tcp", "tcp6"] {
            let text = read(&format!("/proc/{pid}/net/{table}")).unwrap_or_default();
            for row in rows(&String::from_utf8_lossy(&text)) {
                let owner = owners.get(&row.inode);
                let Some(proc) = owner.and_then(|at| procs.get_mut(*at)) else { continue };
                match row.state {
                    LISTEN if !proc.listens.contains(&row.local) => proc.listens.push(row.local),
                    ESTABLISHED if proc.peers.len() < 1000 => proc.peers.push(row.remote),
                    _ => {}
                }
            }
        }
    }
}

/// The rows of a table. Total on any text.
#[must_use]
pub fn rows(text: &str) -> Vec<Row> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Some(Row {
            local: address(fields.get(1)?)?,
            remote: address(fields.get(2)?)?,
            state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
            inode: fields.get(9)?.parse().ok()?,
        })
    };
    text.lines().skip(1).filter_map(parse).collect()
}

/// `0100007F:2CAA`: words in the byte order of the host.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(host.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match host.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0 100 0\n\
            1: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000200007F:01BB 01 0:0 0:0 0 0 0 77 1\nbroken\n";
        let found = rows(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].local.to_string(), found[0].state), ("127.0.0.1:11434".to_owned(), LISTEN));
        assert_eq!((found[1].remote.to_string(), found[1].inode), ("127.0.0.2:443".to_owned(), 77));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "(?s)\n.{0,200}") {
            let _rows = rows(&text);
        }
    }
}
