//! Rules about places: resolved along each file system and across mounts.

use std::collections::{BTreeMap, BTreeSet};

use agent_monitor_ebpf::policy::{PathRule, SLOTS, ask, permits, stricter};

use super::{MountPlace, Places, Protected, Slots, fill, merge};
use crate::attribute::mounts::Location;
use crate::scope::image::Target;

/// All a closed place refuses.
const CLOSED: u32 = ask::READ | ask::WRITE | ask::CREATE | ask::DELETE | ask::MAP | ask::EXEC;
/// All a place that may only be read refuses. The control socket is one: who may not ask is refused at the connection, and
/// takes no place among those who may.
const WRITTEN: u32 = ask::WRITE | ask::CREATE | ask::DELETE | ask::UNIX_CONNECT;
/// Mounts on mounts that are followed at the most.
const NESTED: usize = 64;

/// Protected places with the slots that are refused there.
pub(super) type Own = BTreeMap<Location, u32>;

/// Finds the monitor's own places.
pub(super) fn locate_protected(protected: &Protected, host: &mut dyn Places) -> Own {
    let mut own = Own::new();
    let all = protected.written.iter().map(|path| (path, WRITTEN));
    for (path, mask) in all.chain(protected.closed.iter().map(|path| (path, CLOSED))) {
        let canonical = host.canonical(path);
        if let Some(at) = host.locate(&canonical) {
            *own.entry(at).or_insert(0) |= mask;
        }
    }
    own
}

/// Components of a path inside a file system.
pub(super) fn depth(inner: &[u8]) -> usize {
    inner.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).count()
}

/// The directory above, `None` for the root.
fn above(at: &Location) -> Option<Location> {
    let cut = at.inner.iter().rposition(|byte| *byte == b'/')?;
    if at.inner.len() <= 1 {
        return None;
    }
    let inner = at.inner.get(..cut.max(1)).unwrap_or_default().to_vec();
    Some(Location { dev: at.dev, inner })
}

/// Whether a place is another one or below it.
fn inside(inner: &[u8], outer: &[u8]) -> bool {
    let outer = if outer == b"/" { &[] } else { outer };
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The rules about places of one agent.
pub(super) struct Tree<'a> {
    own: &'a Own,
    /// Root of a file system's first mount → the place it is mounted on.
    mounts: BTreeMap<&'a Location, &'a Location>,
    root: Slots,
    subtrees: BTreeMap<Location, Slots>,
    exact: BTreeMap<Location, Slots>,
    /// Slots of protected places that a rule of the record opens again.
    opened: BTreeMap<Location, u32>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(mounts: &'a [MountPlace], own: &'a Own) -> Self {
        let mut first: BTreeMap<&Location, &Location> = BTreeMap::new();
        let mut seen: Vec<&Location> = Vec::new();
        for mount in mounts {
            // A second mount of what is shown already is an alias: the place keeps the rules of its first name.
            let alias =
                seen.iter().any(|at| at.dev == mount.shows.dev && inside(&mount.shows.inner, &at.inner));
            if !alias && let Some(on) = &mount.on {
                first.insert(&mount.shows, on);
            }
            seen.push(&mount.shows);
        }
        Self {
            own,
            mounts: first,
            root: [0; SLOTS],
            subtrees: BTreeMap::new(),
            exact: BTreeMap::new(),
            opened: BTreeMap::new(),
        }
    }

    /// What holds everywhere.
    pub(super) fn root(&mut self) -> &mut Slots {
        &mut self.root
    }

    pub(super) fn add(&mut self, at: Location, subtree: bool, mask: u32, found: u32, yields: bool) {
        if subtree && !yields && permits(found) {
            let owned = self.own.keys().any(|own| own.dev == at.dev && inside(&at.inner, &own.inner));
            if owned {
                *self.opened.entry(at.clone()).or_insert(0) |= mask;
            }
        }
        let rules = if subtree { &mut self.subtrees } else { &mut self.exact };
        merge(rules.entry(at).or_default(), mask, found, yields);
    }

    /// What rules about subtrees say of a place, the deepest first, through mount points to the root.
    fn effective(&self, at: &Location) -> Slots {
        let mut slots = [0; SLOTS];
        for place in self.chain(at) {
            if let Some(found) = self.subtrees.get(&place) {
                fill(&mut slots, found);
            }
        }
        fill(&mut slots, &self.root);
        slots
    }

    /// A place and all above it, the deepest first, through mount points to the root.
    fn chain(&self, at: &Location) -> Vec<Location> {
        let mut chain = Vec::new();
        let mut next = Some(at.clone());
        let mut crossed = 0;
        while let Some(place) = next {
            next = match self.mounts.get(&place) {
                Some(on) if crossed < NESTED => {
                    crossed += 1;
                    Some((*on).clone())
                }
                _ => above(&place),
            };
            chain.push(place);
        }
        chain
    }

    /// Slots that are refused at a place whatever rules say: what the places above it protect, less what rules open.
    fn forced(&self, at: &Location) -> u32 {
        self.chain(at).iter().rev().fold(0, |mask, place| {
            let mask = mask | self.own.get(place).copied().unwrap_or(0);
            mask & !self.opened.get(place).copied().unwrap_or(0)
        })
    }

    pub(super) fn finish(&self) -> BTreeMap<Target, PathRule> {
        let mut out = BTreeMap::new();
        let mut subtrees: BTreeSet<&Location> = self.subtrees.keys().chain(self.own.keys()).collect();
        // A mount brings the rules around its mount point along, unless those hold everywhere anyway. One of a directory
        // inside a file system needs its entry in any case: rules about what is around that directory are not about it.
        subtrees.extend(
            self.mounts
                .keys()
                .copied()
                .filter(|at| at.inner != b"/" || self.forced(at) != 0 || self.effective(at) != self.root),
        );
        for at in subtrees {
            let rule = PathRule { slots: self.effective(at), forced: self.forced(at) };
            out.insert(Target::Subtree(at.clone()), rule);
        }
        for (at, slots) in &self.exact {
            out.insert(Target::Exact(at.clone()), PathRule { slots: *slots, forced: 0 });
        }
        for (at, rule) in self.below() {
            out.insert(Target::Below(at), rule);
        }
        out
    }

    /// For each directory the strictest of what rules say about places below it.
    fn below(&self) -> BTreeMap<Location, PathRule> {
        let mut below: BTreeMap<Location, PathRule> = BTreeMap::new();
        let rules = self.subtrees.iter().chain(&self.exact).map(|(at, slots)| (at, *slots, 0));
        let own = self.own.iter().map(|(at, mask)| (at, [0; SLOTS], *mask));
        for (at, slots, forced) in rules.chain(own) {
            let stops = slots.iter().any(|found| *found != 0 && !permits(*found));
            if !stops && forced == 0 {
                continue;
            }
            let mut next = above(at);
            while let Some(place) = next {
                let entry = below.entry(place.clone()).or_insert(PathRule::NONE);
                for (to, found) in entry.slots.iter_mut().zip(slots) {
                    if found != 0 && !permits(found) {
                        *to = stricter(*to, found);
                    }
                }
                entry.forced |= forced;
                next = above(&place);
            }
        }
        below
    }
}
