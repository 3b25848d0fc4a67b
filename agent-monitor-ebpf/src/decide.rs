//! The one decision. The hooks gather evidence by the same steps that [`judge_place`] takes here, and both end in
//! [`decide`]; `explain`, replay and the property tests run this very code.

use crate::policy::{
    AgentPolicy, EXTENSIONS, NET_RULES, NetSet, POLICY_EXACT, POLICY_NAME, PathRule, PlaceKey, RULE_SELF,
    SLOTS, SPACE_BELOW, SPACE_EXACT, SPACE_EXTENSION, SPACE_NAME, SPACE_SUBTREE, decision, permits, slot,
    stricter,
};
use crate::{
    Verdict,
    path::{HashKey, component_hash, mix, root_hash},
};

/// The object itself.
pub const LEVEL_EXACT: usize = 0;
/// Its name.
pub const LEVEL_NAME: usize = 1;
/// The ending of its name.
pub const LEVEL_EXTENSION: usize = 2;
/// The deepest directory above it, or itself, with a rule about its subtree.
pub const LEVEL_SUBTREE: usize = 3;
/// What holds everywhere.
pub const LEVEL_ROOT: usize = 4;
/// Number of levels, the most specific first.
pub const LEVELS: usize = 5;

pod! {
    /// What the tables say about one place, before anything is decided.
    pub struct Evidence {
        /// Decisions per level and slot; 0 where a level has none.
        pub levels: [[u32; SLOTS]; LEVELS],
        /// Strictest decisions of places below, for a directory that is moved.
        pub below: [u32; SLOTS],
        /// Slots that are refused whatever the levels say.
        pub forced: u32,
        /// Always 0.
        pub reserved: u32,
    }
}

impl Evidence {
    /// Nothing known.
    pub const NONE: Evidence =
        Evidence { levels: [[0; SLOTS]; LEVELS], below: [0; SLOTS], forced: 0, reserved: 0 };
}

/// The decision of the most specific level that has one for `slot`. Below 4 levels are optional, the root has all.
#[inline(always)]
fn of_slot(evidence: &Evidence, slot: usize) -> u32 {
    let mut level = 0;
    while level < LEVELS {
        let found = evidence.levels[level][slot];
        if found != 0 {
            return found;
        }
        level += 1;
    }
    0
}

/// Decides about one place: the strictest of what the asked slots say.
///
/// `asked` are bits of [`crate::policy::ask`]. The result is 0 only when nothing was asked.
#[inline(always)]
pub fn decide(evidence: &Evidence, asked: u32) -> u32 {
    if evidence.forced & asked != 0 {
        return decision(Verdict::Deny, RULE_SELF);
    }
    let mut best = 0;
    let mut slot = 0;
    while slot < SLOTS {
        if asked >> slot & 1 != 0 {
            let mut found = of_slot(evidence, slot);
            if slot == slot::MAP && !permits(found) {
                // Who may run a program may map it.
                let run = of_slot(evidence, slot::EXEC);
                if permits(run) {
                    found = run;
                }
            }
            found = stricter(found, evidence.below[slot]);
            best = stricter(best, found);
        }
        slot += 1;
    }
    best
}

/// Decides about a peer by the set of the longest prefix that fits it; 0 when no rule of the set fits.
#[inline(always)]
pub fn decide_net(set: &NetSet, action: u8, protocol: u8, port: u16) -> u32 {
    let mut i = 0;
    while i < NET_RULES {
        let rule = &set.rules[i];
        if rule.decision == 0 {
            return 0;
        }
        if rule.actions & action != 0
            && (rule.protocol == 0 || rule.protocol == protocol)
            && rule.low <= port
            && port <= rule.high
        {
            return rule.decision;
        }
        i += 1;
    }
    0
}

/// Where an object is, as the hooks find it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// `s_dev` of its file system, kernel encoding.
    pub dev: u32,
    /// Names from the root of the superblock down.
    pub components: &'a [&'a [u8]],
    /// It is a directory that is moved: what lies below counts.
    pub moved_dir: bool,
}

/// Gathers the evidence about a place from tables of one agent and generation.
///
/// `find` looks a key up. The order of look-ups is that of the hooks.
pub fn gather(
    key: HashKey,
    policy: &AgentPolicy,
    agent: u32,
    generation: u32,
    place: Place<'_>,
    mut find: impl FnMut(&PlaceKey) -> Option<PathRule>,
) -> Evidence {
    let at = |hash, dev, space| PlaceKey { hash, agent, dev, generation, space };
    let mut evidence = Evidence::NONE;
    evidence.levels[LEVEL_ROOT] = policy.root;
    let mut hash = root_hash(key);
    let mut depth = 0;
    loop {
        if policy.depths >> (depth & 63) & 1 != 0
            && let Some(rule) = find(&at(hash, place.dev, SPACE_SUBTREE))
        {
            evidence.levels[LEVEL_SUBTREE] = rule.slots;
            evidence.forced = rule.forced;
        }
        let Some(name) = place.components.get(depth) else { break };
        hash = mix(key, hash, component_hash(key, name));
        depth += 1;
    }
    if policy.flags & POLICY_EXACT != 0
        && let Some(rule) = find(&at(hash, place.dev, SPACE_EXACT))
    {
        evidence.levels[LEVEL_EXACT] = rule.slots;
    }
    if place.moved_dir
        && let Some(rule) = find(&at(hash, place.dev, SPACE_BELOW))
    {
        evidence.below = rule.slots;
        evidence.forced |= rule.forced;
    }
    if let Some(name) = place.components.last() {
        by_name(key, policy, name, &mut evidence, |hash, space| find(&at(hash, 0, space)));
    }
    evidence
}

/// The levels that look at the name alone.
fn by_name(
    key: HashKey,
    policy: &AgentPolicy,
    name: &[u8],
    evidence: &mut Evidence,
    mut find: impl FnMut(u64, u32) -> Option<PathRule>,
) {
    if policy.flags & POLICY_NAME != 0
        && let Some(rule) = find(component_hash(key, name), SPACE_NAME)
    {
        evidence.levels[LEVEL_NAME] = rule.slots;
    }
    for length in policy.extensions.iter().take(EXTENSIONS) {
        let length = usize::from(*length);
        if length == 0 || length > name.len() {
            continue;
        }
        let Some(ending) = name.get(name.len() - length..) else { continue };
        let Some(rule) = find(component_hash(key, ending), SPACE_EXTENSION) else { continue };
        for (slot, found) in evidence.levels[LEVEL_EXTENSION].iter_mut().zip(rule.slots) {
            // The longest ending was looked up first.
            if *slot == 0 {
                *slot = found;
            }
        }
    }
}

/// Gathers and decides.
pub fn judge_place(
    key: HashKey,
    policy: &AgentPolicy,
    agent: u32,
    generation: u32,
    place: Place<'_>,
    asked: u32,
    find: impl FnMut(&PlaceKey) -> Option<PathRule>,
) -> u32 {
    decide(&gather(key, policy, agent, generation, place, find), asked)
}
