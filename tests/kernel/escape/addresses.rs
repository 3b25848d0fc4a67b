//! Addresses that are written in one way and lead elsewhere: the unspecified ones, IPv4 inside IPv6, the socket's own
//! address, routes of the sender's choice. Each as root and as an ordinary user.

use super::{Row, Stage};

const PEER: &[&str] = &["network.connect", "network.send"];
const SEND: &[&str] = &["network.send"];
const BIND: &[&str] = &["network.bind"];
const OPTION: &[&str] = &["privilege.capability"];

const fn row(
    name: &'static str,
    act: &'static str,
    kinds: &'static [&'static str],
    told: &'static str,
) -> Row {
    Row { name, act, kinds, told, open: None }
}

/// This host, in other words.
pub(crate) const SPELLINGS: &[Row] = &[
    row("tcp_unspecified", "tcp-connect 0.0.0.0:4001", PEER, "0.0.0.0:4001"),
    row("tcp_unspecified6", "tcp-connect [::]:4001", PEER, "[::]:4001"),
    row("tcp_mapped_unspecified", "tcp-connect [::ffff:0.0.0.0]:4001", PEER, "ffff:0.0.0.0"),
    row("tcp_mapped", "tcp-connect [::ffff:127.0.0.1]:4001", PEER, "127.0.0.1"),
    row("fast_open_unspecified", "tcp-fastopen 0.0.0.0:4001 4", PEER, "0.0.0.0:4001"),
    row("uring_unspecified", "uring-connect 0.0.0.0:4001", PEER, "0.0.0.0:4001"),
    row("udp_unspecified", "udp-sendto 0.0.0.0:4002 4", PEER, "0.0.0.0:4002"),
    row("udp_unspecified6", "udp-sendto [::]:4002 4", PEER, "[::]:4002"),
    row("udp_connected_unspecified", "udp-connected 0.0.0.0:4003 4", PEER, "0.0.0.0:4003"),
    row("udp_messages_unspecified", "udp-sendmmsg 0.0.0.0:4004 4", PEER, "0.0.0.0:4004"),
    row("compatible", "udp-connected [::127.0.0.1]:4001 4", PEER, "::127.0.0.1"),
    row("translated", "udp-connected [64:ff9b::7f00:1]:4001 4", PEER, "64:ff9b::7f00:1"),
    row("translated_unspecified", "udp-connected [64:ff9b::]:4001 4", PEER, "64:ff9b::"),
    row("six_to_four", "udp-connected [2002:7f00:1::1]:4001 4", PEER, "2002:7f00:1::1"),
    row("user_tcp_unspecified", "fork setuid 65534 tcp-connect 0.0.0.0:4005", PEER, "0.0.0.0:4005"),
    row("user_udp_unspecified6", "fork setuid 65534 udp-sendto [::]:4006 4", PEER, "[::]:4006"),
    row("bind_unspecified", "tcp-bind 0.0.0.0:4001", BIND, "0.0.0.0:4001"),
    row("bind_unspecified6", "tcp-bind [::]:4001", BIND, "[::]:4001"),
];

/// Forbids this host by its IPv4 addresses alone, and one port of it to take.
pub(crate) fn forbid_loopback(stage: &Stage) {
    stage.scope(
        r#"[scope]
default = "allow"
[[scope.net]]
to = "127.0.0.0/8"
verdict = "deny"
[[scope.net]]
to = "127.0.0.1:4001"
action = ["bind", "listen"]
verdict = "deny"
"#,
    );
}

/// Packets that go to 127.0.0.9 or by way of it, whatever the address of the call.
pub(crate) const DESTINATIONS: &[Row] = &[
    row("own_address", "udp-own 127.0.0.9 0.0.0.0:4011 4", SEND, "0.0.0.0:4011"),
    row("own_address_tcp", "tcp-own 127.0.0.9 0.0.0.0:4012", PEER, "0.0.0.0:4012"),
    row("own_address_of_a_message", "udp-source 127.0.0.9 0.0.0.0:4013 4", SEND, r#""redirected":true"#),
    row("source_route", "route4-option 127.0.0.9 192.0.2.1:4014 4", OPTION, "IP_OPTIONS"),
    row("source_route_message", "route4-message 127.0.0.9 192.0.2.1:4015 4", SEND, r#""source_route":true"#),
    row("routing_header", "route6-option ::1 [2001:db8::1]:4016 4", OPTION, "IPV6_RTHDR"),
    row("routing_header_message", "route6-message ::1 [2001:db8::1]:4017 4", SEND, "[2001:db8::1]:4017"),
    row("routing_header_old", "route6-old ::1 [2001:db8::1]:4018 4", OPTION, "IPV6_2292PKTOPTIONS"),
    row("routing_header_label", "route6-label ::1 [2001:db8::1]:4019", OPTION, "IPV6_FLOWLABEL_MGR"),
    row(
        "user_routing_header",
        "fork setuid 65534 route6-message ::1 [2001:db8::1]:4020 4",
        SEND,
        "[2001:db8::1]:4020",
    ),
    row("user_own_of_message", "fork setuid 65534 udp-source 127.0.0.9 0.0.0.0:4021 4", SEND, r#"4021"#),
];

/// Forbids one address of this host.
pub(crate) fn forbid_one(stage: &Stage) {
    stage.scope(
        r#"[scope]
default = "allow"
[[scope.net]]
to = "127.0.0.9"
verdict = "deny"
"#,
    );
}
