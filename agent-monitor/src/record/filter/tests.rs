//! Tests of filters.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{Agent, BoundBy, File, Gap, Network, Process, Source};

const NOW: i128 = 1_795_300_000_000_000_000;

fn now() -> Time {
    Time::from_unix_nanos(NOW)
}

fn spec(pairs: &[(&str, &str)]) -> FilterSpec {
    let mut spec = FilterSpec::default();
    pairs.iter().for_each(|(field, value)| spec.set(field, value).unwrap());
    spec
}

fn filter(pairs: &[(&str, &str)]) -> Filter {
    spec(pairs).compile(now()).unwrap()
}

fn base(kind: Kind) -> Event {
    let agent = Agent {
        id: "bot".to_owned(),
        session: Some("s1".to_owned()),
        bound_by: BoundBy::Exe,
        delegator: None,
        bound_delay_ms: None,
    };
    let process =
        Process { pid: 40, tid: Some(41), exe: Some("/usr/bin/git".to_owned()), ..Process::default() };
    Event {
        verdict: Some(Verdict::Deny),
        agent: Some(Arc::new(agent)),
        process: Some(Arc::new(process)),
        ..Event::new(now(), kind, Source::Lsm)
    }
}

fn on_path(path: &str) -> Event {
    Event { file: Some(File { path: Some(path.to_owned()), ..File::default() }), ..base(Kind::FileOpen) }
}

fn to_peer(remote: &str) -> Event {
    let network = Network {
        remote: remote.parse::<SocketAddr>().ok(),
        name: Some("api.Example.com.".to_owned()),
        ..Network::default()
    };
    Event { network: Some(network), ..base(Kind::NetworkConnect) }
}

#[test]
fn each_field_takes_and_leaves() {
    let event = on_path("/srv/a/.env");
    for yes in [
        ("agent", "bot"),
        ("session", "s1"),
        ("kind", "file.open"),
        ("kind", "file"),
        ("kind", "file.*"),
        ("verdict", "deny"),
        ("path", "/srv/a/.env"),
        ("path", "/srv/**"),
        ("path", "/srv/a/.env/**"),
        ("path", "/**"),
        ("path", "**/.env"),
        ("path", "/srv/*/.e?v"),
        ("pid", "40"),
        ("pid", "41"),
        ("since", "2h"),
        ("since", "-1h30m"),
        ("unattributed", "false"),
    ] {
        assert!(filter(&[yes]).matches(&event), "{yes:?}");
    }
    for no in [
        ("agent", "bo"),
        ("session", "s"),
        ("kind", "file.create"),
        ("kind", "network"),
        ("verdict", "allow"),
        ("path", "/srv/a"),
        ("path", "/sr/**"),
        ("path", "/srv/*"),
        ("path", "/usr/bin/git"),
        ("pid", "4"),
        ("until", "2h"),
        ("peer", "10.0.0.1"),
        ("unattributed", "true"),
    ] {
        assert!(!filter(&[no]).matches(&event), "{no:?}");
    }
}

#[test]
fn peers_by_address_network_port_and_name() {
    let event = to_peer("10.1.2.3:443");
    let yes =
        ["10.1.2.3", "10.0.0.0/8", "10.1.2.3:443", ":443", "*:443", "api.example.com", "*.example.com:443"];
    let no = [
        "10.1.2.4",
        "11.0.0.0/8",
        "10.1.2.3:80",
        ":80",
        "example.com",
        "*.api.example.com",
        "*.example.com:80",
    ];
    yes.iter().for_each(|peer| assert!(filter(&[("peer", peer)]).matches(&event), "{peer}"));
    no.iter().for_each(|peer| assert!(!filter(&[("peer", peer)]).matches(&event), "{peer}"));
    assert!(filter(&[("peer", "10.1.2.3")]).matches(&to_peer("[::ffff:10.1.2.3]:443")), "mapped address");
    assert!(filter(&[("peer", "[2001:db8::1]:443")]).matches(&to_peer("[2001:db8::1]:443")));
    assert!(filter(&[("peer", "2001:db8::/32")]).matches(&to_peer("[2001:db8::1]:443")));

    let unix = |path: Option<&str>, name: Option<&str>| Event {
        network: Some(Network {
            path: path.map(str::to_owned),
            abstract_name: name.map(str::to_owned),
            ..Network::default()
        }),
        ..base(Kind::NetworkConnect)
    };
    assert!(filter(&[("peer", "/run/docker.sock")]).matches(&unix(Some("/run/docker.sock"), None)));
    assert!(filter(&[("peer", "/run/**")]).matches(&unix(Some("/run/docker.sock"), None)));
    assert!(filter(&[("peer", "@dbus")]).matches(&unix(None, Some("dbus"))));
    assert!(!filter(&[("peer", "@dbus")]).matches(&unix(Some("/dbus"), None)));
}

#[test]
fn mistakes_are_named() {
    for (field, value) in [
        ("kind", "file.opened"),
        ("kind", "files"),
        ("verdict", "no"),
        ("path", "srv/a"),
        ("path", "/srv/[a"),
        ("peer", "10.0.0.300"),
        ("peer", "host:99999"),
        ("peer", "a b"),
        ("peer", ""),
        ("peer", "*"),
        ("pid", "0"),
        ("pid", "-3"),
        ("since", "yesterday"),
        ("since", "2"),
        ("until", "2y"),
    ] {
        let error = spec(&[(field, value)]).compile(now()).unwrap_err();
        assert_eq!(error.field, field, "{value}: {error}");
        assert!(!error.hint.is_empty());
    }
    assert_eq!(spec(&[("since", "1h"), ("until", "2h")]).compile(now()).unwrap_err().field, "until");
    assert!(FilterSpec::default().set("agents", "x").is_err());
    assert!(spec(&[("since", "1h")]).set("since", "2h").is_err());
}

#[test]
fn times_as_people_write_them() {
    let parse = |text| when::parse("since", text, now()).unwrap();
    assert_eq!(parse("2h"), now().before(std::time::Duration::from_secs(7_200)));
    assert_eq!(parse("-2h"), parse("2h"));
    assert_eq!(parse("1d12h"), parse("36h"));
    assert_eq!(parse("now"), now());
    assert_eq!(parse("2026-11-21"), parse("2026-11-21T00:00:00Z"));
    assert_eq!(parse("2026-11-21T10:00:00"), parse("2026-11-21T12:00:00+02:00"));
}

#[test]
fn an_agent_is_found_in_gaps_and_in_changes_to_it() {
    let gap = Gap {
        reason: "ring_full".to_owned(),
        kind: None,
        agent: Some("bot".to_owned()),
        count: 1,
        first: now(),
        last: now(),
    };
    let mut change = Event::new(now(), Kind::AgentRegistered, Source::Daemon);
    change.detail = Some([("agent".to_owned(), "bot".into())].into_iter().collect());
    for event in [Event::gap(now(), Kind::GapRing, gap), change] {
        assert!(filter(&[("agent", "bot")]).matches(&event));
        assert!(!filter(&[("unattributed", "true")]).matches(&event));
    }
    let nobody = Event { agent: None, ..base(Kind::ProcessExec) };
    assert!(filter(&[("unattributed", "true"), ("agent", "bot")]).matches(&nobody));
    assert!(filter(&[("unattributed", "true"), ("agent", "bot")]).matches(&base(Kind::ProcessExec)));
}

fn any_pair() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop::sample::select(vec![
        ("agent", "bot"),
        ("agent", "other"),
        ("kind", "file"),
        ("kind", "network.connect"),
        ("verdict", "deny"),
        ("verdict", "allow"),
        ("path", "/srv/**"),
        ("path", "**/x"),
        ("peer", "10.0.0.0/8"),
        ("pid", "40"),
        ("pid", "9"),
        ("unattributed", "true"),
    ])
}

fn any_event() -> impl Strategy<Value = Event> {
    (any::<bool>(), any::<bool>(), any::<[u8; 4]>(), "/srv/[a-c]/[x-z]|/x|/srv").prop_map(
        |(file, agent, ip, path)| {
            let mut event = if file { on_path(&path) } else { to_peer(&format!("{}:1", IpAddr::from(ip))) };
            if !agent {
                event.agent = None;
            }
            event
        },
    )
}

proptest! {
    #[test]
    fn another_field_never_adds_and_another_value_never_takes(
        event in any_event(), pairs in prop::collection::vec(any_pair(), 0..5), more in any_pair(),
    ) {
        let before = filter(&pairs).matches(&event);
        let mut wider = pairs.clone();
        wider.push(more);
        let after = filter(&wider).matches(&event);
        let who = ["agent", "unattributed"];
        let same = pairs.iter().any(|(f, _)| *f == more.0 || (who.contains(f) && who.contains(&more.0)));
        let (wide, narrow) = if same { (after, before) } else { (before, after) };
        prop_assert!(wide || !narrow);
    }

    #[test]
    fn a_moment_is_before_or_not_before(at in -1_000_000_000_000i64..1_000_000_000_000) {
        let event = Event { time: Time::from_unix_nanos(NOW + i128::from(at)), ..base(Kind::FileOpen) };
        prop_assert_ne!(filter(&[("since", "5m")]).matches(&event), filter(&[("until", "5m")]).matches(&event));
    }

    #[test]
    fn networks_are_compared_by_bits(ip in any::<u32>(), net in any::<u32>(), len in 0u32..=32) {
        let text = format!("{}/{len}", IpAddr::from(net.to_be_bytes()));
        let mask = u32::MAX.checked_shl(32 - len).unwrap_or(0);
        let event = to_peer(&format!("{}:1", IpAddr::from(ip.to_be_bytes())));
        prop_assert_eq!(filter(&[("peer", &text)]).matches(&event), ip & mask == net & mask);
    }

    #[test]
    fn subtrees_are_compared_by_names(path in "(/[ab]{1,2}){1,4}", dir in "(/[ab]{1,2}){1,3}") {
        let names = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        let pattern = format!("{dir}/**");
        prop_assert_eq!(filter(&[("path", &pattern)]).matches(&on_path(&path)), names(&path).starts_with(&names(&dir)));
    }

    #[test]
    fn no_text_makes_it_panic(field in prop::sample::select(vec!["kind", "path", "peer", "pid", "since", "until"]), value in ".{0,24}") {
        if let Ok(filter) = spec(&[(field, &value)]).compile(now()) {
            prop_assert!(!filter.matches(&base(Kind::GapDecode)) || field != "peer");
            prop_assert!(!filter.matches(&on_path("/a")) || field != "peer");
        }
    }

    #[test]
    fn what_was_set_is_what_is_sent(pairs in prop::collection::vec(any_pair(), 0..6)) {
        let original = spec(&pairs);
        let mut copy = FilterSpec::default();
        for (field, value) in original.pairs() {
            copy.set(field, value).unwrap();
        }
        prop_assert_eq!(copy, original);
    }
}
