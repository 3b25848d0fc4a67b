//! The decision over every verdict, level and slot, against what the documentation of each says.

use std::vec::Vec;

use crate::Verdict;
use crate::decide::*;
use crate::path::{HashKey, component_hash, mix, root_hash};
use crate::policy::*;

const VERDICTS: [Verdict; 5] = [Verdict::Allow, Verdict::Audit, Verdict::Hold, Verdict::Deny, Verdict::Kill];

#[test]
fn each_verdict_permits_asks_kills_and_ranks_as_it_says() {
    for (at, verdict) in VERDICTS.into_iter().enumerate() {
        let one = decision(verdict, 7);
        assert_ne!(one, 0);
        assert_eq!((verdict_of(one), rule_of(one)), (verdict as u8, 7));
        assert_eq!(permits(one), matches!(verdict, Verdict::Allow | Verdict::Audit), "{verdict:?}");
        assert_eq!(holds(one), verdict == Verdict::Hold, "{verdict:?}");
        assert_eq!(kills(one), verdict == Verdict::Kill, "{verdict:?}");
        for (beside, other) in VERDICTS.into_iter().enumerate() {
            let (other_verdict, other) = (other, decision(other, 9));
            assert_eq!(
                stricter(one, other),
                if beside > at { other } else { one },
                "{verdict:?} {other_verdict:?}"
            );
        }
        assert_eq!((stricter(0, one), stricter(one, 0)), (one, one));
    }
    assert_eq!((stricter(0, 0), rule_of(decision(Verdict::Deny, RULE_SELF))), (0, RULE_SELF));
}

fn allow() -> u32 {
    decision(Verdict::Allow, 1)
}

fn deny() -> u32 {
    decision(Verdict::Deny, 2)
}

fn hold() -> u32 {
    decision(Verdict::Hold, 3)
}

fn rooted(decision: u32) -> Evidence {
    let mut evidence = Evidence::NONE;
    evidence.levels[LEVEL_ROOT] = [decision; SLOTS];
    evidence
}

#[test]
fn the_most_specific_level_decides_slot_by_slot() {
    for level in 0..LEVEL_ROOT {
        for slot in 0..SLOTS {
            let mut evidence = rooted(deny());
            evidence.levels[level][slot] = allow();
            for asked in 0..SLOTS {
                let expect =
                    if asked == slot || asked == slot::MAP && slot == slot::EXEC { allow() } else { deny() };
                assert_eq!(
                    decide(&evidence, 1 << asked),
                    expect,
                    "level {level}, slot {slot}, asked {asked}"
                );
            }
            // A wider level says nothing beside it.
            for wider in level + 1..LEVELS {
                evidence.levels[wider][slot] = hold();
            }
            assert_eq!(decide(&evidence, 1 << slot), allow());
        }
    }
    assert_eq!(decide(&rooted(deny()), 0), 0, "nothing was asked");
}

#[test]
fn of_several_questions_the_strictest_answer_counts() {
    let mut evidence = rooted(allow());
    evidence.levels[LEVEL_EXACT][1] = hold();
    evidence.levels[LEVEL_NAME][2] = deny();
    assert_eq!(decide(&evidence, 0b1), allow());
    assert_eq!(decide(&evidence, 0b11), hold());
    assert_eq!(decide(&evidence, 0b111), deny());
    assert_eq!(decide(&evidence, 0b110), deny());
}

#[test]
fn who_may_run_may_map_and_nothing_else_is_lent() {
    let mut evidence = rooted(deny());
    evidence.levels[LEVEL_EXACT][slot::MAP] = hold();
    assert_eq!(decide(&evidence, 1 << slot::MAP), hold());
    evidence.levels[LEVEL_EXACT][slot::EXEC] = allow();
    assert_eq!(decide(&evidence, 1 << slot::MAP), allow());
    // Who may map keeps what the rule about mapping says.
    evidence.levels[LEVEL_EXACT][slot::MAP] = decision(Verdict::Audit, 8);
    assert_eq!(decide(&evidence, 1 << slot::MAP), decision(Verdict::Audit, 8));
    // And who may map may not run.
    evidence.levels[LEVEL_EXACT][slot::EXEC] = deny();
    assert_eq!(decide(&evidence, 1 << slot::EXEC), deny());
}

#[test]
fn what_lies_below_a_moved_directory_and_what_is_forced() {
    let mut evidence = rooted(allow());
    evidence.below[1] = deny();
    assert_eq!((decide(&evidence, 0b10), decide(&evidence, 0b01)), (deny(), allow()));
    let mut evidence = rooted(allow());
    evidence.forced = 0b10;
    assert_eq!(
        (decide(&evidence, 0b10), decide(&evidence, 0b01)),
        (decision(Verdict::Deny, RULE_SELF), allow())
    );
    assert_eq!(decide(&evidence, 0b11), decision(Verdict::Deny, RULE_SELF));
}

#[test]
fn a_peer_is_decided_by_the_first_rule_that_fits_wholly() {
    let mut set = NetSet { rules: [net(); NET_RULES] };
    set.rules[0] = NetRule { decision: deny(), low: 10, high: 20, protocol: 6, actions: 1, ..net() };
    set.rules[1] = NetRule { decision: hold(), low: 0, high: 65535, protocol: 0, actions: 3, ..net() };
    for (action, protocol, port, expect) in [
        (1, 6, 10, deny()),
        (1, 6, 20, deny()),
        (1, 6, 9, hold()),
        (1, 6, 21, hold()),
        (1, 17, 15, hold()),
        (2, 6, 15, hold()),
        (4, 6, 15, 0),
    ] {
        assert_eq!(decide_net(&set, action, protocol, port), expect, "{action} {protocol} {port}");
    }
    // The last of a full set counts, and behind an end nothing does.
    let mut full = set;
    full.rules = [NetRule { decision: hold(), actions: 2, ..net() }; NET_RULES];
    full.rules[NET_RULES - 1] = NetRule { decision: allow(), low: 0, high: 65535, actions: 1, ..net() };
    assert_eq!(decide_net(&full, 1, 6, 5), allow());
    full.rules[3].decision = 0;
    assert_eq!(decide_net(&full, 1, 6, 5), 0);
}

fn net() -> NetRule {
    NetRule { low: 0, high: u16::MAX, protocol: 0, actions: 0, reserved: 0, decision: 0 }
}

const KEY: HashKey = HashKey { k0: 1, k1: 3 };

/// What is looked up for a place, in order, when only `rules` are found.
fn gathered(
    policy: &AgentPolicy,
    place: Place<'_>,
    rules: &[(u64, u32, u32)],
) -> (Evidence, Vec<(u64, u32, u32)>) {
    let mut asked = Vec::new();
    let evidence = gather(KEY, policy, 5, 9, place, |key| {
        assert_eq!((key.agent, key.generation), (5, 9));
        asked.push((key.hash, key.space, key.dev));
        let found = rules.iter().position(|(hash, space, _)| (*hash, *space) == (key.hash, key.space))?;
        let mut rule = PathRule::NONE;
        rule.slots = [decision(Verdict::Deny, u16::try_from(found).unwrap() + 1); SLOTS];
        rule.forced = rules[found].2;
        Some(rule)
    });
    (evidence, asked)
}

fn nothing() -> AgentPolicy {
    zerocopy::FromZeros::new_zeroed()
}

fn rule_at(evidence: &Evidence, level: usize) -> u16 {
    rule_of(evidence.levels[level][0])
}

#[test]
fn places_are_looked_up_by_prefix_object_name_and_ending() {
    let names: [&[u8]; 3] = [b"srv", b"www", b"a.tar.gz"];
    let place = Place { dev: 3, components: &names, moved_dir: false };
    let root = root_hash(KEY);
    let srv = mix(KEY, root, component_hash(KEY, b"srv"));
    let www = mix(KEY, srv, component_hash(KEY, b"www"));
    let whole = mix(KEY, www, component_hash(KEY, b"a.tar.gz"));
    let mut policy = nothing();
    policy.root = [allow(); SLOTS];
    let (evidence, asked) = gathered(&policy, place, &[]);
    assert!(asked.is_empty(), "no rule of any kind, no look-up");
    assert_eq!(evidence.levels[LEVEL_ROOT], [allow(); SLOTS]);
    // Depths 1 and 3 have rules; the deepest that is found counts, with what it forces.
    policy.depths = 0b1010;
    let (evidence, asked) = gathered(&policy, place, &[(srv, SPACE_SUBTREE, 4), (whole, SPACE_SUBTREE, 8)]);
    assert_eq!(asked, [(srv, SPACE_SUBTREE, 3), (whole, SPACE_SUBTREE, 3)]);
    assert_eq!((rule_at(&evidence, LEVEL_SUBTREE), evidence.forced), (2, 8));
    let (evidence, _) = gathered(&policy, place, &[(srv, SPACE_SUBTREE, 4), (www, SPACE_SUBTREE, 8)]);
    assert_eq!((rule_at(&evidence, LEVEL_SUBTREE), evidence.forced), (1, 4));
    policy.depths = 0;
    policy.flags = POLICY_EXACT | POLICY_NAME;
    let name = component_hash(KEY, b"a.tar.gz");
    let (evidence, asked) = gathered(&policy, place, &[(whole, SPACE_EXACT, 1), (name, SPACE_NAME, 2)]);
    assert_eq!(asked, [(whole, SPACE_EXACT, 3), (name, SPACE_NAME, 0)], "names are of no device");
    assert_eq!((rule_at(&evidence, LEVEL_EXACT), rule_at(&evidence, LEVEL_NAME), evidence.forced), (1, 2, 0));
    for (flags, count) in [(POLICY_EXACT, 1), (POLICY_NAME, 1), (0, 0)] {
        policy.flags = flags;
        assert_eq!(gathered(&policy, place, &[]).1.len(), count);
    }
}

#[test]
fn the_longest_ending_decides_and_none_is_longer_than_the_name() {
    let names: [&[u8]; 1] = [b"x.tar.gz"];
    let place = Place { dev: 3, components: &names, moved_dir: false };
    let mut policy = nothing();
    policy.extensions[0] = 9;
    policy.extensions[1] = 8;
    policy.extensions[2] = 7;
    policy.extensions[4] = 3;
    let hash = |text: &[u8]| component_hash(KEY, text);
    let (long, short) = (hash(b".tar.gz"), hash(b".gz"));
    let (evidence, asked) =
        gathered(&policy, place, &[(short, SPACE_EXTENSION, 0), (long, SPACE_EXTENSION, 0)]);
    let looked: Vec<u64> = asked.iter().map(|(hash, ..)| *hash).collect();
    assert_eq!(looked, [hash(b"x.tar.gz"), long, short]);
    assert!(asked.iter().all(|(_, space, dev)| (*space, *dev) == (SPACE_EXTENSION, 0)));
    assert_eq!(rule_at(&evidence, LEVEL_EXTENSION), 2, "the longer one");
    let bare = Place { components: &[], ..place };
    policy.flags = POLICY_NAME;
    assert!(gathered(&policy, bare, &[]).1.is_empty(), "the root has no name");
}

#[test]
fn what_lies_below_counts_only_where_a_directory_is_moved() {
    let names: [&[u8]; 1] = [b"srv"];
    let hash = mix(KEY, root_hash(KEY), component_hash(KEY, b"srv"));
    let place = Place { dev: 3, components: &names, moved_dir: true };
    let policy = AgentPolicy { depths: 0b10, ..nothing() };
    let rules = [(hash, SPACE_SUBTREE, 1), (hash, SPACE_BELOW, 2)];
    let (evidence, asked) = gathered(&policy, place, &rules);
    assert_eq!((rule_of(evidence.below[0]), evidence.forced, asked.len()), (2, 3, 2));
    let (evidence, asked) = gathered(&policy, Place { moved_dir: false, ..place }, &rules);
    assert_eq!((evidence.below[0], evidence.forced, asked.len()), (0, 1, 1));
    assert_eq!(judge_place(KEY, &policy, 5, 9, place, 0b10, |_| None), 0);
    let root = AgentPolicy { root: [hold(); SLOTS], ..policy };
    assert_eq!(judge_place(KEY, &root, 5, 9, place, 0b10, |_| None), hold());
}
