//! Addresses and what they stand for.
#![expect(clippy::unwrap_used, reason = "test code")]

use agent_monitor_ebpf::destination::{ALTERNATIVES, stands_for};
use agent_monitor_ebpf::policy::NET_CONNECT;

fn all(text: &str, action: u8) -> Vec<String> {
    let bits = match text.parse::<std::net::IpAddr>().unwrap() {
        std::net::IpAddr::V4(addr) => addr.to_ipv6_mapped().to_bits(),
        std::net::IpAddr::V6(addr) => addr.to_bits(),
    };
    let found = (1..=ALTERNATIVES).map(|n| stands_for((bits >> 64) as u64, bits as u64, n, action));
    let found = found.filter(|found| *found != (0, 0));
    found
        .map(|(hi, lo)| std::net::Ipv6Addr::from_bits(u128::from(hi) << 64 | u128::from(lo)))
        .map(|addr| addr.to_canonical().to_string())
        .collect()
}

#[test]
fn spellings_of_another_address_are_known() {
    let cases: &[(&str, &[&str])] = &[
        ("0.0.0.0", &["127.0.0.1"]),
        ("::", &["::1", "127.0.0.1"]),
        ("::ffff:0.0.0.0", &["127.0.0.1"]),
        ("::127.0.0.1", &["127.0.0.1"]),
        ("::ffff:0:127.0.0.1", &["127.0.0.1"]),
        ("64:ff9b::127.0.0.1", &["127.0.0.1"]),
        ("64:ff9b::0.0.0.0", &["0.0.0.0", "127.0.0.1"]),
        ("64:ff9b:1::10.0.0.1", &["10.0.0.1"]),
        ("2002:7f00:1::", &["127.0.0.1"]),
        ("2001:0:5ef5:79fb::80ff:fffe", &["127.0.0.1"]),
        ("fe80::5efe:10.0.0.1", &["10.0.0.1"]),
        ("fe80::200:5efe:10.0.0.1", &["10.0.0.1"]),
        ("::1", &[]),
        ("127.0.0.1", &[]),
        ("192.0.2.1", &[]),
        ("2001:db8::1", &[]),
        ("fe80::1", &[]),
    ];
    for (written, expected) in cases {
        assert_eq!(all(written, NET_CONNECT), *expected, "{written}");
    }
}

#[test]
fn own_addresses_stand_for_the_loopback_only() {
    assert_eq!(all("0.0.0.0", agent_monitor_ebpf::policy::NET_BIND), ["127.0.0.1"]);
    assert_eq!(all("::", agent_monitor_ebpf::policy::NET_LISTEN), ["::1", "127.0.0.1"]);
    assert_eq!(all("64:ff9b::127.0.0.1", agent_monitor_ebpf::policy::NET_BIND), [""; 0]);
}
