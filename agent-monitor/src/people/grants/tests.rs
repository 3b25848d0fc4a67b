//! Tests of grants.

use super::*;
use crate::people::sessions::NewSession;
use crate::people::tests::{Bench, SECOND, at, bench, oncall};
use crate::people::who::fake::FakeDirectory;

const SCOPE: &str = "[scope]\n[[scope.file]]\npath = \"/srv/x\"\naccess = [\"read\"]\n";

fn add(bench: &mut Bench, uid: u32, need: usize, uses: Option<u32>) -> Result<Grant, GrantError> {
    let by = FakeDirectory.person(uid);
    let ttl = Duration::from_secs(60);
    let new = NewGrant { agent: "bot", session: None, scope: SCOPE, ttl, uses, reason: "ticket 5", by: &by };
    bench.people.add_grant(&new, &oncall(need), &FakeDirectory, at(1), &mut bench.done)
}

#[test]
fn a_grant_is_given_used_up_and_runs_out() {
    let mut bench = bench();
    let counted = add(&mut bench, 100, 1, Some(3)).unwrap();
    let entry = GrantUse { id: 1, expires: 61 * SECOND, uses: 3 };
    assert_eq!(bench.take(), (vec![Effect::Grant(entry)], vec![Kind::GrantAdded]));
    let timed = add(&mut bench, 100, 1, None).unwrap();
    let active = bench.people.active_grants().unwrap();
    assert_eq!(active.iter().map(|grant| grant.uses_left).collect::<Vec<_>>(), [u32::MAX, 3]);
    bench.take();
    assert!(!bench.people.tick_grants(&[(1, 2), (2, u32::MAX)], at(2), &mut bench.done).unwrap());
    assert_eq!(bench.take(), (vec![], vec![Kind::GrantUsed]));
    bench.people.tick_grants(&[(1, 3)], at(3), &mut bench.done).unwrap();
    assert_eq!(bench.people.grant(counted.id).unwrap().unwrap().uses.1, Some(2), "it never grows back");
    assert!(bench.people.tick_grants(&[(1, 0)], at(4), &mut bench.done).unwrap());
    assert_eq!(bench.take().1, [Kind::GrantUsed, Kind::GrantExpired]);
    assert!(bench.people.tick_grants(&[], at(61), &mut bench.done).unwrap());
    let gone = GrantUse { id: 2, expires: 0, uses: 0 };
    assert_eq!(bench.take(), (vec![Effect::Grant(gone)], vec![Kind::GrantExpired]));
    assert!(bench.people.active_grants().unwrap().is_empty());
    let by = FakeDirectory.person(102);
    let over = bench.people.revoke_grant(timed.id, &by, None, at(62), &mut bench.done);
    assert!(matches!(over, Err(GrantError::Over { .. })));
}

#[test]
fn only_approvers_widen_and_anybody_narrows() {
    let mut bench = bench();
    for uid in [0, 102, 200] {
        assert!(matches!(add(&mut bench, uid, 1, None), Err(GrantError::NotAllowed(_))));
        assert_eq!(bench.take(), (vec![], vec![Kind::GrantRefused]));
    }
    let grant = add(&mut bench, 101, 1, None).unwrap();
    bench.take();
    let by = FakeDirectory.person(102);
    let revoked = bench.people.revoke_grant(grant.id, &by, Some("no"), at(2), &mut bench.done).unwrap();
    assert_eq!((revoked.state.as_str(), revoked.ended.1.as_deref()), ("revoked", Some("eve")));
    let (effects, kinds) = bench.take();
    assert_eq!(effects, [Effect::Grant(GrantUse { id: 1, expires: 0, uses: 0 })]);
    assert_eq!(kinds, [Kind::GrantRevoked]);
    let unknown = bench.people.revoke_grant(9, &by, None, at(2), &mut bench.done);
    assert!(matches!(unknown, Err(GrantError::Unknown(9))));
}

#[test]
fn four_eyes_hold_for_grants_too() {
    let mut bench = bench();
    let proposed = add(&mut bench, 100, 2, None).unwrap();
    assert_eq!(bench.take(), (vec![], vec![Kind::GrantProposed]));
    assert!(bench.people.active_grants().unwrap().is_empty());
    let confirm = |bench: &mut Bench, uid| {
        let by = FakeDirectory.person(uid);
        bench.people.confirm_grant(proposed.id, &by, &oncall(2), &FakeDirectory, at(100), &mut bench.done)
    };
    assert!(matches!(confirm(&mut bench, 100), Err(GrantError::Twice(_))));
    assert!(matches!(confirm(&mut bench, 102), Err(GrantError::NotAllowed(_))));
    bench.take();
    let given = confirm(&mut bench, 101).unwrap();
    assert_eq!(given.deadline.map(|end| end.boot), Some(160 * SECOND), "its time begins now");
    assert_eq!(bench.take().1, [Kind::GrantAdded]);
    assert!(matches!(confirm(&mut bench, 101), Err(GrantError::Over { .. })));
}

#[test]
fn uses_that_nobody_counted_are_not_given_again() {
    let mut bench = bench();
    add(&mut bench, 100, 1, Some(3)).unwrap();
    add(&mut bench, 100, 1, None).unwrap();
    bench.take();
    let same = Opened { rebooted: false, clean: false, down: 0 };
    bench.people.restart_grants(same, &[(1, 1)], at(5), &mut bench.done).unwrap();
    let (effects, _) = bench.take();
    assert!(
        effects.contains(&Effect::Grant(GrantUse { id: 1, expires: 61 * SECOND, uses: 1 })),
        "{effects:?}"
    );
    let crashed = Opened { rebooted: true, clean: false, down: 0 };
    bench.people.restart_grants(crashed, &[(1, 3)], at(5), &mut bench.done).unwrap();
    let active = bench.people.active_grants().unwrap();
    assert_eq!(active.iter().map(|grant| grant.id).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_grant_ends_with_its_session() {
    let mut bench = bench();
    let new = NewSession {
        agent: "bot",
        index: 7,
        task: None,
        ttl: None,
        scope: None,
        root: None,
        bound_by: "launch",
        by: None,
    };
    let session = bench.people.open_session(&new, at(1), &mut bench.done).unwrap();
    let by = FakeDirectory.person(100);
    let grant = NewGrant {
        agent: "bot",
        session: Some(session.number),
        scope: SCOPE,
        ttl: Duration::from_secs(60),
        uses: None,
        reason: "r",
        by: &by,
    };
    bench.people.add_grant(&grant, &oncall(1), &FakeDirectory, at(1), &mut bench.done).unwrap();
    bench.take();
    bench.people.end_session(&session, None, "over", at(2), &mut bench.done).unwrap();
    assert_eq!(bench.take().1, [Kind::SessionEnded, Kind::GrantExpired]);
}

mod neighbours;
