//! Two grants, agents, sessions and people: what is done to one is not done to the other.

use super::*;
use crate::people::Settings;
use crate::people::store::Db;

fn give(bench: &mut Bench, agent: &str, session: Option<u64>, ttl: u64, uses: Option<u32>) -> Grant {
    let by = FakeDirectory.person(100);
    let ttl = Duration::from_secs(ttl);
    let new = NewGrant { agent, session, scope: SCOPE, ttl, uses, reason: "ticket 5", by: &by };
    bench.people.add_grant(&new, &oncall(1), &FakeDirectory, at(1), &mut bench.done).unwrap()
}

fn open(bench: &mut Bench, agent: &str) -> Session {
    let new = NewSession {
        agent,
        index: 7,
        task: None,
        ttl: None,
        scope: None,
        root: None,
        bound_by: "launch",
        by: None,
    };
    bench.people.open_session(&new, at(1), &mut bench.done).unwrap()
}

fn active(bench: &Bench) -> Vec<u64> {
    let mut ids: Vec<u64> = bench.people.active_grants().unwrap().iter().map(|grant| grant.id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn an_agreement_of_someone_who_lost_the_right_counts_no_more() {
    let mut bench = bench();
    let proposed = add(&mut bench, 100, 2, None).unwrap();
    // ann, who proposed it, is no approver any more: bob alone is one, and eve makes two.
    let named = ["bob", "eve"].map(|name| crate::registry::record::Approver::User(name.to_owned())).to_vec();
    let approvers = Approvers { named, ..oncall(2) };
    let confirm = |bench: &mut Bench, uid| {
        let by = FakeDirectory.person(uid);
        let (people, done) = (&mut bench.people, &mut bench.done);
        people.confirm_grant(proposed.id, &by, &approvers, &FakeDirectory, at(100), done).unwrap().state
    };
    assert_eq!(confirm(&mut bench, 101), "proposed");
    assert!(active(&bench).is_empty());
    assert_eq!(confirm(&mut bench, 102), "active");
    assert_eq!(active(&bench), [1]);
}

#[test]
fn the_end_of_a_session_ends_the_grants_of_that_session() {
    let mut bench = bench();
    let (one, two) = (open(&mut bench, "bot"), open(&mut bench, "bot"));
    let ids = [Some(one.number), Some(two.number), None]
        .map(|session| give(&mut bench, "bot", session, 60, None).number());
    let sessions =
        bench.people.active_grants().unwrap().iter().map(|grant| grant.session).collect::<Vec<_>>();
    assert_eq!(sessions, [None, Some(two.number), Some(one.number)]);
    bench.take();
    bench.people.end_session(&one, None, "over", at(2), &mut bench.done).unwrap();
    assert_eq!(active(&bench), ids[1..]);
    let ended = bench.people.grant(1).unwrap().unwrap();
    assert_eq!((ended.state.as_str(), ended.entry()), ("expired", GrantUse { id: 1, expires: 0, uses: 0 }));
    assert_eq!(ended.ended.0, Some(at(2).wall));
}

#[test]
fn uses_are_counted_for_the_grant_that_was_used() {
    let mut bench = bench();
    give(&mut bench, "bot", None, 60, Some(5));
    give(&mut bench, "cat", None, 60, Some(5));
    give(&mut bench, "cat", None, 10, Some(5));
    bench.take();
    let left = |bench: &Bench| [1, 2, 3].map(|id| bench.people.grant(id).unwrap().unwrap().uses.1);
    assert!(!bench.people.tick_grants(&[(2, 3)], at(10), &mut bench.done).unwrap());
    assert_eq!(left(&bench), [Some(5), Some(3), Some(5)]);
    let events = std::mem::take(&mut bench.done.events);
    let detail = events[0].detail.as_ref().unwrap();
    assert_eq!(
        (events.len(), detail["grant"].to_string(), detail["uses"].to_string(), detail["left"].to_string()),
        (1, "2".into(), "2".into(), "3".into())
    );
    // The same count again is no use.
    assert!(!bench.people.tick_grants(&[(2, 3), (1, 5)], at(10), &mut bench.done).unwrap());
    assert_eq!(bench.take(), (vec![], vec![]));
    // The third one's time is over, a nanosecond is enough; the second is used up in the same tick.
    assert!(bench.people.tick_grants(&[(2, 0)], at(11), &mut bench.done).unwrap());
    let states = [1, 2, 3].map(|id| bench.people.grant(id).unwrap().unwrap().state);
    assert_eq!((states, active(&bench)), (["active".into(), "used".into(), "expired".into()], vec![1]));
    assert_eq!(bench.take().1.len(), 3);
}

#[test]
fn counts_of_another_boot_are_nobodys() {
    let mut bench = bench();
    give(&mut bench, "bot", None, 60, Some(5));
    bench.take();
    // After a clean end the counts were kept; what the new kernel counts begins there.
    let clean = Opened { rebooted: true, clean: true, down: 0 };
    bench.people.restart_grants(clean, &[(1, 0)], at(5), &mut bench.done).unwrap();
    let (effects, kinds) = bench.take();
    assert_eq!(
        (effects, kinds),
        (vec![Effect::Grant(GrantUse { id: 1, expires: 61 * SECOND, uses: 5 })], vec![])
    );
    // A crash of the daemon alone loses nothing: the kernel has counted on.
    let crashed = Opened { rebooted: false, clean: false, down: 0 };
    bench.people.restart_grants(crashed, &[(1, 2)], at(6), &mut bench.done).unwrap();
    let (effects, kinds) = bench.take();
    assert_eq!(
        (effects, kinds),
        (vec![Effect::Grant(GrantUse { id: 1, expires: 61 * SECOND, uses: 2 })], vec![Kind::GrantUsed])
    );
}

#[test]
fn a_proposal_is_not_put_in_by_a_restart_nor_counted_out() {
    let mut bench = bench();
    add(&mut bench, 100, 2, Some(3)).unwrap();
    bench.take();
    let same = Opened { rebooted: false, clean: true, down: 0 };
    bench.people.restart_grants(same, &[(1, 0)], at(500), &mut bench.done).unwrap();
    assert_eq!((bench.take(), active(&bench)), ((vec![], vec![]), vec![]));
    let proposed = bench.people.grant(1).unwrap().unwrap();
    assert_eq!((proposed.state.as_str(), proposed.deadline, proposed.entry().expires), ("proposed", None, 0));
    let by = FakeDirectory.person(102);
    let taken = bench.people.revoke_grant(1, &by, None, at(501), &mut bench.done).unwrap();
    assert_eq!((taken.state.as_str(), taken.ended.2.as_deref()), ("revoked", Some("taken back")));
}

#[test]
fn a_list_is_of_one_agent_and_of_what_is_open() {
    let mut bench = bench();
    give(&mut bench, "bot", None, 60, None);
    let cat = give(&mut bench, "cat", None, 60, None);
    give(&mut bench, "bot", None, 60, None);
    let by = FakeDirectory.person(100);
    bench.people.revoke_grant(3, &by, None, at(2), &mut bench.done).unwrap();
    let list = |agent, all| {
        bench.people.grants(agent, all).unwrap().iter().map(|grant| grant.id).collect::<Vec<_>>()
    };
    assert_eq!((list(None, false), list(None, true)), (vec![2, 1], vec![2, 1, 3]));
    assert_eq!((list(Some("cat"), true), list(Some("bot"), false)), (vec![2], vec![1]));
    let agents = bench.people.active_grants().unwrap();
    assert_eq!(agents.iter().map(|grant| grant.agent.to_string()).collect::<Vec<_>>(), ["cat", "bot"]);
    let seen = bench.people.grant_view(cat, 1, at(11));
    assert_eq!((seen.left_ms, seen.agreed, seen.session, seen.uses_left), (Some(50_000), 1, None, None));
    let over = bench.people.grant(3).unwrap().unwrap();
    let seen = bench.people.grant_view(over, 1, at(11));
    assert_eq!((seen.left_ms, seen.ended_by.as_deref(), seen.state.as_str()), (None, Some("ann"), "revoked"));
}

#[test]
fn a_grant_shows_its_session_by_id_and_an_unknown_one_by_number() {
    let mut bench = bench();
    let session = open(&mut bench, "bot");
    open(&mut bench, "cat");
    let known = give(&mut bench, "bot", Some(session.number), 60, None);
    let unknown = give(&mut bench, "bot", Some(0xab), 60, None);
    assert_eq!(bench.people.grant_view(known, 1, at(2)).session, Some(session.id));
    assert_eq!(bench.people.grant_view(unknown, 1, at(2)).session.as_deref(), Some("00000000000000ab"));
}

#[test]
fn each_event_of_a_grant_says_whose_what_and_why() {
    let mut bench = bench();
    add(&mut bench, 102, 1, None).unwrap_err();
    add(&mut bench, 100, 1, Some(4)).unwrap();
    let by = FakeDirectory.person(101);
    bench.people.revoke_grant(1, &by, Some("done"), at(2), &mut bench.done).unwrap();
    let texts: Vec<String> =
        bench.done.events.iter().map(|event| serde_json::to_string(&event.detail).unwrap()).collect();
    let expect = [
        vec!["\"by\":\"eve\"", "\"uid\":102", "not among"],
        vec!["\"by\":\"ann\"", "\"reason\":\"ticket 5\"", "\"uses\":4", "\"grant\":1", "/srv/x"],
        vec!["\"by\":\"bob\"", "\"why\":\"done\"", "\"grant\":1"],
    ];
    for (text, parts) in texts.iter().zip(&expect) {
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    assert_eq!(texts.len(), expect.len());
}

#[test]
fn a_reboot_moves_no_end_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    let (db, _) = Db::open(&path, "boot-1", at(0)).unwrap();
    let mut people = People::new(db, Settings::default());
    let by = FakeDirectory.person(100);
    let ttl = Duration::from_secs(60);
    let new = NewGrant { agent: "bot", session: None, scope: SCOPE, ttl, uses: None, reason: "r", by: &by };
    let mut done = Done::default();
    people.add_grant(&new, &oncall(1), &FakeDirectory, at(1), &mut done).unwrap();
    drop(people);
    // 70 s later by the wall clock, 2 s after the boot.
    let now = Now { boot: 2 * SECOND, ..at(71) };
    let (db, opened) = Db::open(&path, "boot-2", now).unwrap();
    let mut people = People::new(db, Settings::default());
    let mut done = Done::default();
    people.restart_grants(Opened { clean: true, ..opened }, &[], now, &mut done).unwrap();
    assert!(people.active_grants().unwrap().is_empty(), "{done:?}");
}

#[test]
fn the_words_of_a_command_line_add_only_what_they_say() {
    let words = |text: &str| vec![text.to_owned()];
    let scope = |file: &str| {
        let text = scope::text(&words(file), &[], &[]).unwrap();
        let scope = read_scope(&text).unwrap();
        let rule = scope.file[0].value.clone();
        (rule.path.to_string(), rule.access.iter().map(|access| format!("{access:?}")).collect::<Vec<_>>())
    };
    assert_eq!(scope("/srv/a"), ("/srv/a".into(), vec!["Read".into()]), "read where no access is named");
    assert_eq!(scope("/srv/a:write"), ("/srv/a".into(), vec!["Write".into()]));
    assert_eq!(scope("/srv/a:b"), ("/srv/a:b".into(), vec!["Read".into()]));
    assert_eq!(scope("/srv/a:read,b"), ("/srv/a:read,b".into(), vec!["Read".into()]));
    let many = |count: usize| (0..count).map(|at| format!("/a{at}")).collect::<Vec<_>>();
    assert!(scope::text(&many(64), &[], &[]).is_ok());
    assert!(scope::text(&many(63), &words("a.example:1"), &words("/bin/true")).is_err());
    let text = scope::text(&words("/srv/a"), &words("a.example:1"), &words("/bin/true")).unwrap();
    assert!(text.contains("default = \"deny\""), "{text}");
}
