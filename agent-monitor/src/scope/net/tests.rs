//! Peer patterns against hand-written cases and random ones.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> NetPattern {
    NetPattern::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_form_reads_and_writes_the_same() {
    for text in [
        "10.0.0.0/8",
        "10.0.0.0/8:5432",
        "10.0.0.0/8:5432/tcp",
        "192.0.2.1",
        "192.0.2.1:443/tcp",
        "0.0.0.0/0",
        "[::1]",
        "[::1]:80",
        "[2001:db8::/32]:443/udp",
        "[::/0]",
        "*",
        "*:53/udp",
        "*:8000-8080",
        "example.com",
        "example.com:443/tcp",
        "*.github.com:443/tcp",
        "a_b.local",
        "example.com/icmp",
        "10.0.0.0/8/icmp",
        "[::1]/icmpv6",
        "localhost:1-65535",
        "unix:/run/docker.sock",
        "unix:/run/app/**",
        "unix:@/tmp/.X11-unix/X0",
        "vsock:2",
        "vsock:3:1024",
    ] {
        assert_eq!(pattern(text).to_string(), text);
    }
    assert_eq!(pattern("API.Example.COM").to_string(), "api.example.com");
    assert_eq!(pattern("192.0.2.1/32"), pattern("192.0.2.1"));
}

#[test]
fn bad_peers_are_refused() {
    for text in [
        "",
        ":443",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "10.0.0/8",
        "256.1.1.1",
        "1.2.3",
        "::1",
        "2001:db8::1:443",
        "[::1",
        "[::1]443",
        "[1.2.3.4]",
        "[::ffff:1.2.3.4]",
        "[::/129]",
        "example.com:0",
        "example.com:65536",
        "example.com:+80",
        "example.com:",
        "example.com:90-80",
        "example.com:80/quic",
        "example.com/",
        "https://example.com",
        "ex*mple.com",
        "*.*.com",
        "*.",
        "-a.com",
        "a..com",
        "a.com.",
        "bücher.de",
        "1.2.3.4:80/icmp",
        "unix:",
        "unix:relative",
        "unix:@",
        "unix:**/x.sock",
        "unix:/a/../b",
        "vsock:",
        "vsock:x",
        "vsock:2:y",
        "foo bar",
        "a/b/c",
    ] {
        assert!(NetPattern::parse(text).is_err(), "{text} was accepted");
    }
}

#[test]
fn precedence_follows_the_longer_match() {
    let order = [
        "*",
        "*:443",
        "*:443/tcp",
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/8:1-100",
        "10.0.0.0/8:80",
        "10.0.0.0/8:80/tcp",
        "10.1.0.0/16",
        "10.1.0.1",
    ];
    for pair in order.windows(2) {
        assert_eq!(pattern(pair[0]).precedence(&pattern(pair[1])), Some(Ordering::Less), "{pair:?}");
    }
    let names = ["*", "*.com", "*.example.com", "api.example.com"];
    for pair in names.windows(2) {
        assert_eq!(pattern(pair[0]).precedence(&pattern(pair[1])), Some(Ordering::Less), "{pair:?}");
    }
}

#[test]
fn a_name_does_not_outrank_a_network() {
    assert_eq!(pattern("evil.com").precedence(&pattern("10.0.0.0/8")), None);
    assert_eq!(pattern("ok.com").precedence(&pattern("0.0.0.0/0")), Some(Ordering::Greater));
}

#[test]
fn covering() {
    assert!(pattern("*.example.com").covers(&pattern("a.b.example.com:443/tcp")));
    assert!(!pattern("*.example.com").covers(&pattern("example.com")));
    assert!(!pattern("*.example.com").covers(&pattern("badexample.com")));
    assert!(pattern("10.0.0.0/8:1-100").covers(&pattern("10.2.0.0/16:80/tcp")));
    assert!(!pattern("10.0.0.0/8:80/tcp").covers(&pattern("10.0.0.0/8:80")));
    assert!(!pattern("10.0.0.0/8").covers(&pattern("example.com")));
    assert!(pattern("unix:/run/**").covers(&pattern("unix:/run/x.sock")));
    assert!(pattern("vsock:2").covers(&pattern("vsock:2:5")));
}

proptest! {
    #[test]
    fn parse_is_total_and_stable(text in "[a-z0-9.:/*@\\[\\]é-]{0,24}|\\PC{0,40}") {
        if let Ok(first) = NetPattern::parse(&text) {
            let written = first.to_string();
            prop_assert_eq!(NetPattern::parse(&written), Ok(first));
        }
    }

    #[test]
    fn covering_never_outranks(a in "(\\*\\.)?[ab](\\.[ab]){0,2}(:1-9|:5)?(/tcp)?", b in "(\\*\\.)?[ab](\\.[ab]){0,2}(:1-9|:5)?(/tcp)?") {
        let (a, b) = (pattern(&a), pattern(&b));
        if a.covers(&b) {
            prop_assert_ne!(a.precedence(&b), Some(Ordering::Greater));
        }
    }
}
