//! Tests.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use agent_monitor_ebpf::policy::ask;

use super::*;
use crate::action::Action;
use crate::model::{
    Access, AddressFamily, Agent, BoundBy, File, Kind, Mode, Network, Process, Source, Verdict,
};
use crate::registry::parse::parse_scope;
use crate::replay::Rulebook as _;
use crate::replay::book::tests::book;

fn event(kind: Kind) -> Event {
    let agent = Agent {
        id: "a".to_owned(),
        session: None,
        bound_by: BoundBy::Exe,
        delegator: None,
        bound_delay_ms: None,
    };
    let mut event = Event::new(Time::from_unix_nanos(1_000_000_000), kind, Source::Lsm);
    event.agent = Some(Arc::new(agent));
    event.verdict = Some(Verdict::Allow);
    event
}

fn file(kind: Kind, path: &str, access: &[Access]) -> Event {
    let file = File {
        path: Some(path.to_owned()),
        access: access.to_vec(),
        dev: Some("254:1".to_owned()),
        ..File::default()
    };
    Event { file: Some(file), ..event(kind) }
}

fn exec(path: &str) -> Event {
    let process = Process { exe: Some(path.to_owned()), ..Process::default() };
    Event { process: Some(Arc::new(process)), ..event(Kind::ProcessExec) }
}

fn connect(to: &str) -> Event {
    let network = Network {
        family: AddressFamily::Ipv4,
        protocol: Some("tcp".to_owned()),
        remote: to.parse().ok(),
        ..Network::default()
    };
    Event { network: Some(network), ..event(Kind::NetworkConnect) }
}

fn scope(text: &str) -> Scope {
    let parsed = parse_scope(text, Path::new("x.toml"));
    parsed.record.unwrap_or_else(|| panic!("{text}\n{:?}", parsed.diagnostics)).scope
}

fn learn(events: &[Event], declared: Option<&Scope>, bases: &[(String, Scope)]) -> Proposal {
    let request = Request { agent: "a", since: None, declared, bases, siblings: generalise::SIBLINGS };
    let mut learner = Learner::new(request);
    events.iter().for_each(|event| learner.take(event));
    learner.finish()
}

#[test]
fn a_proposal_reads_back_and_says_what_it_rests_on() {
    let mut events = vec![exec("/usr/bin/git"), connect("10.1.2.3:443")];
    events.extend((0..5).map(|n| file(Kind::FileOpen, &format!("/srv/app/{n}"), &[Access::Read])));
    let proposal = learn(&events, None, &[]);
    let text = write::toml(&proposal);
    insta::assert_snapshot!(text);
    let scope = scope(&text);
    assert_eq!(scope.file[0].path.to_string(), "/srv/app/**");
    assert_eq!((scope.exec.len(), scope.net[0].to.to_string().as_str()), (1, "10.1.2.3:443/tcp"));
    assert_eq!(write::json(&proposal)["completeness"]["complete"], true);
}

#[test]
fn what_is_declared_forbidden_or_labelled_stays_so() {
    let declared = scope(
        "[scope]\ndefault = \"audit\"\n[[scope.file]]\npath = \"/srv/secret/**\"\nverdict = \"deny\"\n\
         [[scope.file]]\npath = \"/srv/people/**\"\naccess = [\"read\"]\nadds = [\"pii\"]\n",
    );
    let mut refused = file(Kind::FileOpen, "/srv/other", &[Access::Read]);
    (refused.verdict, refused.mode) = (Some(Verdict::Deny), Some(Mode::Enforce));
    let events = [
        file(Kind::FileOpen, "/srv/secret/key", &[Access::Read]),
        file(Kind::FileOpen, "/srv/people/list", &[Access::Read]),
        refused,
    ];
    let proposal = learn(&events, Some(&declared), &[]);
    assert_eq!(proposal.file, []);
    assert_eq!((proposal.forbidden.get("scope.file[0]"), proposal.refused), (Some(&1), 1));
    let again = scope(&write::toml(&proposal));
    assert_eq!(again.file.len(), 2, "the declared rules are kept");
}

#[test]
fn declared_stops_of_peers_and_powers_stay() {
    let declared = scope(
        "[scope]\ndefault = \"audit\"\n[[scope.net]]\nto = \"10.0.0.0/8\"\nverdict = \"deny\"\n\
         [[scope.net]]\nto = \"192.0.2.0/24\"\nadds = [\"lab\"]\n\
         [[scope.privilege]]\nkind = \"setuid\"\nverdict = \"deny\"\n",
    );
    let setuid = Event { privilege: Some(Default::default()), ..event(Kind::PrivilegeSetuid) };
    let ptrace = Event { privilege: Some(Default::default()), ..event(Kind::PrivilegePtrace) };
    let peers = ["10.1.2.3:443", "192.0.2.7:443", "198.51.100.7:443"].map(connect);
    let proposal = learn(&[&peers[..], &[setuid, ptrace]].concat(), Some(&declared), &[]);
    let to: Vec<&str> = proposal.net.iter().map(|(to, ..)| to.as_str()).collect();
    assert_eq!(to, ["198.51.100.7:443/tcp"]);
    assert_eq!(proposal.powers.keys().collect::<Vec<_>>(), [&PrivilegeKind::Ptrace]);
    let forbidden: Vec<&str> = proposal.forbidden.keys().map(String::as_str).collect();
    assert_eq!(forbidden, ["scope.net[0]", "scope.privilege[0]"]);
}

#[test]
fn base_sets_are_used_where_they_save_rules() {
    let set =
        scope("[scope]\n[[scope.file]]\npath = \"/usr/lib/**\"\naccess = [\"read\", \"execute-map\"]\n");
    let bases = [("linux-runtime".to_owned(), set.clone()), ("node".to_owned(), set)];
    let libraries: Vec<Event> =
        (0..3).map(|n| file(Kind::FileOpen, &format!("/usr/lib/{n}"), &[Access::Read])).collect();
    let proposal = learn(&libraries, None, &bases);
    assert_eq!((proposal.base.as_slice(), proposal.rules()), (&[("linux-runtime".to_owned(), 3)][..], 0));
    assert_eq!(learn(&libraries[..2], None, &bases).rules(), 2);
}

#[test]
fn near_addresses_become_the_smallest_network() {
    let near = ["10.0.0.4:443", "10.0.0.5:443", "10.0.0.6:443", "10.0.1.4:443", "10.0.0.4:80"].map(connect);
    let to: Vec<String> = learn(&near, None, &[]).net.into_iter().map(|(to, ..)| to).collect();
    assert_eq!(to, ["10.0.0.4/30:443/tcp", "10.0.0.4:80/tcp", "10.0.1.4:443/tcp"]);
}

#[test]
fn what_no_rule_can_say_makes_it_incomplete() {
    for path in ["/proc/77/environ", "/srv/a*b", "/srv/\\xff", "/"] {
        let proposal = learn(&[file(Kind::FileOpen, path, &[Access::Read])], None, &[]);
        assert!(!proposal.completeness.complete && proposal.rules() == 0, "{path}");
        assert!(write::toml(&proposal).contains("# complete: no"), "{path}");
    }
}

/// Paths in places of several kinds, with siblings that are near.
fn path() -> impl Strategy<Value = String> {
    let place = prop_oneof![
        Just("/srv/app"),
        Just("/srv/app/sub"),
        Just("/etc"),
        Just("/home/x/.ssh"),
        Just("/home/x/work"),
        Just("/usr/lib"),
        Just("/tmp"),
        Just("/var/log"),
    ];
    (place, "[a-d]{1,2}").prop_map(|(place, name)| format!("{place}/{name}"))
}

fn any_event() -> impl Strategy<Value = Event> {
    let kind = prop_oneof![
        Just((Kind::FileOpen, vec![Access::Read])),
        Just((Kind::FileOpen, vec![Access::Read, Access::Write])),
        Just((Kind::FileCreate, vec![Access::Create])),
        Just((Kind::FileDelete, vec![Access::Delete])),
        Just((Kind::FileMmapExec, vec![Access::Exec])),
    ];
    let on_file = (kind, path()).prop_map(|((kind, access), path)| file(kind, &path, &access));
    let peer = (0..4_u8, 0..6_u8, 1..3_u16).prop_map(|(c, d, port)| connect(&format!("10.0.{c}.{d}:{port}")));
    prop_oneof![4 => on_file, 1 => path().prop_map(|path| exec(&path)), 1 => peer]
}

/// Whether a subtree of the proposal opens this on purpose.
fn opened(proposal: &Proposal, path: &str, asked: u32) -> bool {
    let named =
        |rule: &FileProposal| seen::accesses(asked).iter().all(|access| rule.access.contains_key(access));
    proposal.subtrees().any(|rule| named(rule) && rule.path.matches(path))
}

/// Whether one of the actions asked this.
fn was_seen(actions: &[Action], path: &str, bit: u32) -> bool {
    actions.iter().any(|action| match action {
        Action::Place { path: at, asked, .. } => {
            let map = bit == ask::MAP && asked & ask::EXEC != 0;
            at == path && (map || asked & bit != 0)
        }
        _ => false,
    })
}

fn check(events: &[Event]) -> Result<(), TestCaseError> {
    let proposal = learn(events, None, &[]);
    let text = write::toml(&proposal);
    let mut book = book(&text);
    let seen: Vec<Action> = events.iter().flat_map(crate::action::of).map(|action| action.unwrap()).collect();
    for action in &seen {
        match action {
            Action::Place { path, asked, .. } => {
                let near = format!("{path}~");
                for bit in [ask::READ, ask::WRITE, ask::CREATE, ask::DELETE, ask::MAP, ask::EXEC] {
                    let mut permits =
                        |path: &str| book.place(path, None, bit, false).unwrap().verdict.permits();
                    prop_assert!(asked & bit == 0 || permits(path), "{bit} {path} in\n{text}");
                    let run = bit == ask::EXEC;
                    prop_assert!(
                        !permits(&near) || !run && opened(&proposal, &near, bit),
                        "{bit} {near} in\n{text}"
                    );
                    let wanted = was_seen(&seen, path, bit) || !run && opened(&proposal, path, bit);
                    prop_assert!(!permits(path) || wanted, "{bit} {path} in\n{text}");
                }
            }
            Action::Net { addr, port, protocol, action } => {
                let mut reaches =
                    |addr, port| book.net(addr, port, *protocol, *action).unwrap().verdict.permits();
                prop_assert!(reaches(*addr, *port), "{addr} {port} in\n{text}");
                prop_assert!(!reaches(*addr, port + 1000), "{addr} in\n{text}");
                prop_assert!(!reaches([10, 0, 9, 1].into(), *port), "in\n{text}");
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_was_seen_is_permitted_and_what_is_near_is_not(events in proptest::collection::vec(any_event(), 1..60)) {
        check(&events)?;
    }
}
