//! Compiled scopes against a naive reading of the same rules: random scopes, accesses and peers on a host with nested
//! and repeated mounts. `AGENT_MONITOR_CASES` sets how many questions are put (100,000 without it).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use agent_monitor_ebpf::policy::{NET_BIND, NET_CONNECT, NET_LISTEN, SLOTS, ask, slot};
use proptest::{collection::vec, prelude::*, sample::select, test_runner::Config};

use super::*;
use crate::attribute::mounts::Location;
use crate::registry::source::{Located, Position};
use crate::scope::{ExecRule, FileRule, Host as Peers, NetRule, Ports, Protocol};

/// Questions to one scope.
const QUESTIONS: u32 = 100;

fn cases() -> u32 {
    let wanted = std::env::var("AGENT_MONITOR_CASES").ok().and_then(|text| text.parse().ok());
    (wanted.unwrap_or(100_000) / QUESTIONS / 2).max(1)
}

fn located<T>(value: T) -> Located<T> {
    Located::new(value, Position::FILE)
}

fn effect(verdict: Verdict) -> Effect {
    Effect { verdict, adds: BTreeSet::new(), unless: BTreeSet::new() }
}

fn verdict() -> impl Strategy<Value = Verdict> {
    select(Verdict::WORDS.map(|(_, verdict)| verdict).to_vec())
}

/// Directories around every mount of the table, and inside.
fn directory() -> impl Strategy<Value = String> {
    let top = select(
        &["", "/srv", "/srv/a", "/srv/a/b", "/opt", "/opt/data", "/mnt", "/mnt/data", "/home", "/etc"][..],
    );
    (top, vec(select(&["/a", "/b", "/c"][..]), 0..3))
        .prop_map(|(top, rest)| format!("{top}{}", rest.concat()))
}

/// No mount point has one of these names, so that the name of an object is the same on both sides.
fn object() -> impl Strategy<Value = String> {
    (directory(), select(&["f", "k.pem", "x.tar.gz", ".gz", ".env"][..]))
        .prop_map(|(d, f)| format!("{d}/{f}"))
}

fn pattern() -> impl Strategy<Value = PathPattern> {
    prop_oneof![
        4 => directory().prop_map(PathPattern::Subtree),
        2 => object().prop_map(PathPattern::Exact),
        1 => directory().prop_filter_map("the root", |path| (!path.is_empty()).then_some(PathPattern::Exact(path))),
        1 => select(&["f", ".env", "k.pem"][..]).prop_map(|name| PathPattern::Name(name.to_owned())),
        1 => select(&[".pem", ".gz", ".tar.gz"][..]).prop_map(|name| PathPattern::Extension(name.to_owned())),
    ]
}

fn accesses() -> impl Strategy<Value = BTreeSet<FileAccess>> {
    let all = FileAccess::WORDS.map(|(_, access)| access).to_vec();
    proptest::sample::subsequence(all, 1..=5).prop_map(|some| some.into_iter().collect())
}

fn host() -> impl Strategy<Value = Peers> {
    prop_oneof![
        Just(Peers::Any),
        select(
            &[
                "0.0.0.0/0",
                "10.0.0.0/8",
                "10.1.0.0/16",
                "10.1.0.7/32",
                "127.0.0.0/8",
                "127.0.0.1/32",
                "::1/128",
                "64:ff9b::/96",
                "::/0",
                "::/8",
                "::/95",
                "2001:db8::/32",
                "2001:db8::7/128"
            ][..]
        )
        .prop_map(|net| Peers::Net(net.parse().unwrap())),
    ]
}

fn peer_pattern() -> impl Strategy<Value = NetPattern> {
    let ports = select(&[None, Some((443, 443)), Some((400, 500)), Some((1, 65535)), Some((400, 443))][..]);
    let protocol = select(&[None, Some(Protocol::Tcp), Some(Protocol::Udp), Some(Protocol::Icmp)][..]);
    (host(), ports, protocol).prop_map(|(host, ports, protocol)| NetPattern::Ip {
        host,
        ports: ports.filter(|_| protocol != Some(Protocol::Icmp)).map(|(low, high)| Ports { low, high }),
        protocol,
    })
}

fn actions() -> impl Strategy<Value = BTreeSet<NetAction>> {
    let all = NetAction::WORDS.map(|(_, action)| action).to_vec();
    proptest::sample::subsequence(all, 1..=3).prop_map(|some| some.into_iter().collect())
}

fn scope() -> impl Strategy<Value = Scope> {
    let file = vec((pattern(), accesses(), verdict()), 0..9);
    let exec = vec((pattern(), verdict()), 0..4);
    let net = vec((peer_pattern(), actions(), verdict()), 0..9);
    (verdict(), file, exec, net).prop_map(|(default, file, exec, net)| Scope {
        declared: true,
        default,
        file: file
            .into_iter()
            .enumerate()
            .map(|(n, (path, access, verdict))| {
                let name = format!("scope.file[{n}]");
                located(FileRule { name, path: located(path), access, effect: effect(verdict) })
            })
            .collect(),
        exec: exec
            .into_iter()
            .enumerate()
            .map(|(n, (path, verdict))| {
                let name = format!("scope.exec[{n}]");
                located(ExecRule { name, path: located(path), argv: None, effect: effect(verdict) })
            })
            .collect(),
        net: net
            .into_iter()
            .enumerate()
            .map(|(n, (to, action, verdict))| {
                let name = format!("scope.net[{n}]");
                located(NetRule { name, to: located(to), action, effect: effect(verdict) })
            })
            .collect(),
        ..Scope::default()
    })
}

fn compiled(scope: &Scope, mounts: &MountTable) -> ImageBook {
    let mut record = parse_scope("", Path::new("x.toml")).record.unwrap();
    record.scope = scope.clone();
    let mut agents = Agents::default();
    agents.register([(record.id.value.as_str(), crate::model::Mode::Enforce)]);
    let compiled = compile(&[record], &[], &agents, &mut Host { mounts, links: &[] }, &Protected::default());
    ImageBook::new(compiled.image.agents.into_values().next().unwrap(), mounts.clone())
}

/// The first name of a place: what is seen again at `/mnt/data` is that of `/opt/data`.
fn first_name(path: &str) -> String {
    match path.strip_prefix("/mnt/data") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("/opt/data{rest}"),
        _ => path.to_owned(),
    }
}

fn first_named(pattern: &PathPattern) -> PathPattern {
    match pattern {
        PathPattern::Exact(path) => PathPattern::Exact(first_name(path)),
        PathPattern::Subtree(path) => PathPattern::Subtree(first_name(path)),
        other => other.clone(),
    }
}

/// What decides and by which rules: several where they are equal in all.
type Answer = (Verdict, BTreeSet<String>);

fn default(scope: &Scope) -> Answer {
    (scope.default, ["scope.default".to_owned()].into())
}

fn strictest(answers: impl IntoIterator<Item = Answer>) -> Option<Answer> {
    answers.into_iter().reduce(|a, b| match a.0.cmp(&b.0) {
        std::cmp::Ordering::Greater => a,
        std::cmp::Ordering::Less => b,
        std::cmp::Ordering::Equal => (a.0, a.1.union(&b.1).cloned().collect()),
    })
}

/// Every rule about a slot, by its first name.
fn rules_of(scope: &Scope, slot: usize) -> Vec<(PathPattern, Verdict, String)> {
    if slot == slot::EXEC {
        let rule = |rule: &Located<ExecRule>| {
            (first_named(&rule.path.value), rule.effect.verdict, rule.name.clone())
        };
        return scope.exec.iter().map(rule).collect();
    }
    let about = |rule: &&Located<FileRule>| rule.access.iter().any(|access| slot_of(*access) == slot);
    let rule =
        |rule: &Located<FileRule>| (first_named(&rule.path.value), rule.effect.verdict, rule.name.clone());
    scope.file.iter().filter(about).map(rule).collect()
}

fn read_slot(scope: &Scope, path: &str, slot: usize) -> Answer {
    let fitting = rules_of(scope, slot).into_iter().filter(|(pattern, _, _)| pattern.matches(path));
    let fitting: Vec<_> = fitting.collect();
    let top = fitting.iter().map(|(pattern, _, _)| pattern.specificity()).max();
    let best = fitting.into_iter().filter(|(pattern, _, _)| Some(pattern.specificity()) == top);
    strictest(best.map(|(_, verdict, name)| (verdict, [name].into()))).unwrap_or_else(|| default(scope))
}

/// What stops something below a directory that is moved.
fn read_below(scope: &Scope, mounts: &MountTable, path: &str, slot: usize) -> Option<Answer> {
    let at = mounts.locate(path.as_bytes());
    let below = rules_of(scope, slot).into_iter().filter(|(pattern, verdict, _)| {
        let (PathPattern::Exact(of) | PathPattern::Subtree(of)) = pattern else { return false };
        let same = |a: &Location, b: &Location| a.dev == b.dev && a != b;
        let there = mounts.locate(if of.is_empty() { b"/" } else { of.as_bytes() });
        !verdict.permits()
            && PathPattern::Subtree(path.to_owned()).matches(of)
            && at.as_ref().zip(there.as_ref()).is_some_and(|(a, b)| same(a, b))
    });
    strictest(below.map(|(_, verdict, name)| (verdict, [name].into())))
}

fn read_place(scope: &Scope, mounts: &MountTable, path: &str, asked: u32, moved: bool) -> Answer {
    let path = first_name(path);
    let answers = (0..SLOTS).filter(|slot| asked >> slot & 1 != 0).filter_map(|slot| {
        let mut found = read_slot(scope, &path, slot);
        let run = read_slot(scope, &path, slot::EXEC);
        if slot == slot::MAP && !found.0.permits() && run.0.permits() {
            found = run;
        }
        let below = if moved { read_below(scope, mounts, &path, slot) } else { None };
        strictest([found].into_iter().chain(below))
    });
    strictest(answers).unwrap()
}

/// What a reader of the documentation says a written address stands for: the unspecified addresses are this host, and an
/// IPv6 address of a kind that carries an IPv4 address is that address too. By text and octets, not by the words of the
/// code under test.
fn also_means(addr: IpAddr, action: NetAction) -> Vec<IpAddr> {
    let v4 = |a: u8, b: u8, c: u8, d: u8| IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    let this_host = v4(127, 0, 0, 1);
    let addr = match addr.to_string().as_str() {
        "0.0.0.0" => return vec![this_host],
        "::" => return vec![this_host, "::1".parse().unwrap()],
        "::1" => return Vec::new(),
        _ => addr,
    };
    let IpAddr::V6(addr) = addr else { return Vec::new() };
    if action != NetAction::Connect {
        return Vec::new();
    }
    let o = addr.octets();
    let last = v4(o[12], o[13], o[14], o[15]);
    let net = |text: &str| text.parse::<ipnet::Ipv6Net>().unwrap().contains(&addr);
    let inside = if net("2002::/16") {
        v4(o[2], o[3], o[4], o[5])
    } else if net("2001::/32") {
        v4(!o[12], !o[13], !o[14], !o[15])
    } else if ["::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"].into_iter().any(net)
        || (matches!(o[8], 0..=3) && o[9..12] == [0, 0x5e, 0xfe])
    {
        last
    } else {
        return Vec::new();
    };
    if inside == v4(0, 0, 0, 0) { vec![inside, this_host] } else { vec![inside] }
}

fn read_net(scope: &Scope, addr: IpAddr, port: u16, protocol: u8, action: NetAction) -> Answer {
    let own = read_one_net(scope, addr, port, protocol, action);
    let others = also_means(addr, action).into_iter();
    let others = others.map(|addr| read_one_net(scope, addr, port, protocol, action));
    // For own addresses the default says nothing more about the loopback address.
    let count = |answer: &Answer| action == NetAction::Connect || !answer.1.contains("scope.default");
    strictest([own].into_iter().chain(others.filter(count))).unwrap()
}

fn read_one_net(scope: &Scope, addr: IpAddr, port: u16, protocol: u8, action: NetAction) -> Answer {
    let fits = |rule: &&Located<NetRule>| {
        let NetPattern::Ip { host, ports, protocol: named } = &rule.to.value else { return false };
        let number = named.map(|named| match named {
            Protocol::Icmp => 1,
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Icmpv6 => 58,
            Protocol::Sctp => 132,
        });
        rule.action.contains(&action)
            && ports.is_none_or(|ports| (ports.low..=ports.high).contains(&port))
            && number.is_none_or(|number| number == protocol)
            && match host {
                Peers::Any => true,
                Peers::Net(net) => net.contains(&addr),
                Peers::Name(_) | Peers::Suffix(_) => false,
            }
    };
    let fitting: Vec<_> = scope.net.iter().filter(fits).collect();
    let loses = |rule: &NetRule| {
        let less = |other: &&&Located<NetRule>| {
            rule.to.value.precedence(&other.to.value) == Some(std::cmp::Ordering::Less)
        };
        fitting.iter().any(|other| less(&other))
    };
    let best = fitting.iter().filter(|rule| !loses(rule));
    strictest(best.map(|rule| (rule.effect.verdict, [rule.name.clone()].into())))
        .unwrap_or_else(|| default(scope))
}

fn asked() -> impl Strategy<Value = u32> {
    prop_oneof![
        select(&[ask::READ, ask::WRITE, ask::CREATE, ask::DELETE, ask::MAP, ask::EXEC][..]),
        select(&[ask::LINK_OLD, ask::RENAME_OLD, ask::RENAME_OVER, ask::READ | ask::WRITE][..]),
        1u32..64,
    ]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        select(
            &[
                "10.1.0.7",
                "10.1.0.8",
                "10.2.0.1",
                "192.0.2.1",
                "::1",
                "2001:db8::7",
                "2001:db8::8",
                "2001:db9::1",
                "0.0.0.0",
                "::",
                "127.0.0.1",
                "::127.0.0.1",
                "::ffff:0:127.0.0.1",
                "64:ff9b::10.1.0.7",
                "64:ff9b::127.0.0.1",
                "64:ff9b::0.0.0.0",
                "64:ff9b:1::10.1.0.7",
                "2002:7f00:1::1",
                "2002:a01:7::1",
                "2001:0:5ef5:79fb::80ff:fffe",
                "fe80::5efe:10.1.0.7",
                "2001:db8::200:5efe:127.0.0.1"
            ][..]
        )
        .prop_map(|text| text.parse().unwrap()),
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        // A mapped address is IPv4 for the hooks and never asked about as IPv6.
        any::<u128>()
            .prop_map(Ipv6Addr::from_bits)
            .prop_filter("mapped", |a| a.to_ipv4_mapped().is_none())
            .prop_map(IpAddr::V6),
    ]
}

proptest! {
    #![proptest_config(Config { cases: cases(), failure_persistence: None, ..Config::default() })]

    #[test]
    fn places_are_judged_as_the_rules_read(
        scope in scope(),
        questions in vec((prop_oneof![2 => object(), 1 => directory()], asked(), any::<bool>()), QUESTIONS as usize),
    ) {
        let mounts = MountTable::parse(MOUNTS);
        let mut book = compiled(&scope, &mounts);
        for (path, asked, moved) in questions {
            let path = if path.is_empty() { "/".to_owned() } else { path };
            let found = book.place(&path, None, asked, moved).unwrap();
            let plain = if path == "/" { "" } else { path.as_str() };
            let (verdict, rules) = read_place(&scope, &mounts, plain, asked, moved);
            prop_assert_eq!(found.verdict, verdict, "{} asked {:#b} moved {}: {} for {:?}", path, asked, moved, found.rule, rules);
            prop_assert!(rules.contains(&found.rule), "{path} asked {asked:#b}: {} for {rules:?}", found.rule);
        }
    }

    #[test]
    fn peers_are_judged_as_the_rules_read(
        scope in scope(),
        questions in vec(
            (address(), select(&[0u16, 1, 400, 443, 444, 500, 65535][..]), select(&[1u8, 6, 17, 132][..]), 0usize..3),
            QUESTIONS as usize,
        ),
    ) {
        let mounts = MountTable::parse(MOUNTS);
        let mut book = compiled(&scope, &mounts);
        let all = [(NET_CONNECT, NetAction::Connect), (NET_BIND, NetAction::Bind), (NET_LISTEN, NetAction::Listen)];
        for (addr, port, protocol, action) in questions {
            let (bit, action) = all[action];
            let found = book.net(addr, port, protocol, bit).unwrap();
            let (verdict, rules) = read_net(&scope, addr, port, protocol, action);
            prop_assert_eq!(found.verdict, verdict, "{} {} {}: {} for {:?}", addr, port, protocol, found.rule, rules);
            prop_assert!(rules.contains(&found.rule), "{addr} {port}: {} for {rules:?}", found.rule);
        }
    }
}
