//! Agents by number: what stands in kernel maps is an index, what people read is an id. Pure.
//!
//! An index is given once and never again, also not after its agent is gone: events and bindings that are still on
//! their way keep their name. `run` keeps the table in `agents.index.json`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use agent_monitor_ebpf::task::SHADOW;

use crate::model::{BoundBy, Mode};

/// Number of an agent in kernel maps; never 0.
pub type AgentIndex = u32;

/// Id of known programs that no record speaks of. No record can have it: the ids of records hold no `_`.
pub const SHADOW_ID: &str = "_shadow";
/// Id of a tree of such a program that a person has let go on.
pub const ALLOWED_ID: &str = "_shadow-allowed";
/// Id of one that a person has refused.
pub const REFUSED_ID: &str = "_shadow-refused";
/// Number of [`ALLOWED_ID`].
pub const ALLOWED: AgentIndex = SHADOW - 1;
/// Number of [`REFUSED_ID`].
pub const REFUSED: AgentIndex = SHADOW - 2;
/// The identities that no record gives.
const RESERVED: [(&str, AgentIndex); 3] = [(SHADOW_ID, SHADOW), (ALLOWED_ID, ALLOWED), (REFUSED_ID, REFUSED)];

/// Whether an id is one that no record gives.
#[must_use]
pub fn is_reserved(id: &str) -> bool {
    RESERVED.iter().any(|(known, _)| *known == id)
}

/// Indices and ids.
#[derive(Debug, Clone, Default)]
pub struct Agents {
    ids: BTreeMap<Arc<str>, AgentIndex>,
    names: BTreeMap<AgentIndex, Known>,
    last: AgentIndex,
}

#[derive(Debug, Clone)]
struct Known {
    id: Arc<str>,
    /// `None` when the agent is not registered now.
    mode: Option<Mode>,
}

/// The table as it is kept on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The highest index given so far.
    pub last: AgentIndex,
    /// Id → index.
    pub agents: BTreeMap<String, AgentIndex>,
}

impl Agents {
    /// From what was kept. Entries that contradict each other are left out, so their agents get new numbers.
    #[must_use]
    pub fn restore(stored: &Stored) -> Self {
        let mut agents = Self { last: stored.last, ..Self::default() };
        for (id, index) in &stored.agents {
            if *index >= REFUSED {
                continue;
            }
            agents.last = agents.last.max(*index);
            if *index != 0 && !agents.names.contains_key(index) {
                agents.insert(id, *index);
            }
        }
        agents
    }

    /// What to keep.
    #[must_use]
    pub fn stored(&self) -> Stored {
        let agents = self.ids.iter().filter(|(_, index)| **index < REFUSED);
        let agents = agents.map(|(id, index)| (id.to_string(), *index)).collect();
        Stored { last: self.last, agents }
    }

    /// Makes `registered` the set of registered agents; new ids get new numbers.
    pub fn register<'a>(&mut self, registered: impl IntoIterator<Item = (&'a str, Mode)>) {
        for known in self.names.values_mut() {
            known.mode = None;
        }
        for (id, mode) in registered {
            let index = self.index(id).unwrap_or_else(|| {
                self.last = self.last.saturating_add(1);
                self.insert(id, self.last)
            });
            if let Some(known) = self.names.get_mut(&index) {
                known.mode = Some(mode);
            }
        }
    }

    /// Adds the identities of programs without a record, where the policy stops them.
    pub fn register_shadows(&mut self) {
        for (id, index) in RESERVED {
            self.insert(id, index);
            if let Some(known) = self.names.get_mut(&index) {
                known.mode = Some(if index == ALLOWED { Mode::Observe } else { Mode::Enforce });
            }
        }
    }

    fn insert(&mut self, id: &str, index: AgentIndex) -> AgentIndex {
        let id: Arc<str> = id.into();
        self.ids.insert(Arc::clone(&id), index);
        self.names.insert(index, Known { id, mode: None });
        index
    }

    /// Number of an id.
    #[must_use]
    pub fn index(&self, id: &str) -> Option<AgentIndex> {
        self.ids.get(id).copied()
    }

    /// Every index that was ever given, also those of agents that are gone.
    pub fn indices(&self) -> impl Iterator<Item = AgentIndex> {
        self.names.keys().copied()
    }

    /// Whether the agent is registered now.
    #[must_use]
    pub fn is_registered(&self, index: AgentIndex) -> bool {
        self.mode(index).is_some()
    }

    /// Id of a number, also of an agent that is no longer registered.
    #[must_use]
    pub fn id(&self, index: AgentIndex) -> Option<&str> {
        self.names.get(&index).map(|known| &*known.id)
    }

    /// Id of a number, or a text that says that it is not known.
    #[must_use]
    pub fn name(&self, index: AgentIndex) -> String {
        self.id(index).map_or_else(|| format!("_index-{index}"), str::to_owned)
    }

    /// Mode of a registered agent.
    #[must_use]
    pub fn mode(&self, index: AgentIndex) -> Option<Mode> {
        self.names.get(&index).and_then(|known| known.mode)
    }

    /// Numbers of the agents that are registered now.
    pub fn registered(&self) -> impl Iterator<Item = (AgentIndex, &str)> {
        self.names.iter().filter(|(_, known)| known.mode.is_some()).map(|(index, known)| (*index, &*known.id))
    }
}

/// The contract's word for the kernel's number.
#[must_use]
pub fn bound_by(by: agent_monitor_ebpf::task::BoundBy) -> BoundBy {
    use agent_monitor_ebpf::task::BoundBy as Kernel;
    match by {
        Kernel::Exe => BoundBy::Exe,
        Kernel::Script => BoundBy::Script,
        Kernel::Argv => BoundBy::Argv,
        Kernel::User => BoundBy::User,
        Kernel::Cgroup => BoundBy::Cgroup,
        Kernel::Unit => BoundBy::Unit,
        Kernel::Container => BoundBy::Container,
        Kernel::Launch => BoundBy::Launch,
        Kernel::Inherited => BoundBy::Inherited,
        Kernel::Backfill => BoundBy::Backfill,
    }
}

#[cfg(test)]
mod tests {
    use agent_monitor_ebpf::task::SPARED;

    use super::*;

    #[test]
    fn numbers_are_never_given_twice() {
        let mut agents = Agents::default();
        agents.register([("a", Mode::Observe), ("b", Mode::Enforce)]);
        let b = agents.index("b").unwrap();
        agents.register([("a", Mode::Observe)]);
        assert_eq!((agents.id(b), agents.mode(b)), (Some("b"), None));
        let mut again = Agents::restore(&agents.stored());
        again.register([("c", Mode::Observe), ("b", Mode::Observe)]);
        assert_eq!(again.index("b"), Some(b));
        assert_eq!(again.index("c"), Some(3));
        assert_eq!(again.name(77), "_index-77");
    }

    #[test]
    fn what_no_record_gives_is_not_kept_and_not_counted() {
        let mut agents = Agents::default();
        agents.register([("a", Mode::Observe)]);
        agents.register_shadows();
        assert_eq!((agents.index(SHADOW_ID), agents.mode(SHADOW)), (Some(SHADOW), Some(Mode::Enforce)));
        assert!(ALLOWED < SHADOW && REFUSED < ALLOWED && SHADOW < SPARED && is_reserved(ALLOWED_ID));
        assert_eq!(agents.stored(), Stored { last: 1, agents: [("a".to_owned(), 1)].into() });
        agents.register([("a", Mode::Observe), ("b", Mode::Observe)]);
        assert_eq!((agents.index("b"), agents.mode(SHADOW)), (Some(2), None), "only while the policy asks");
        let stored = Stored { last: 1, agents: [("x".to_owned(), SHADOW)].into() };
        let mut again = Agents::restore(&stored);
        again.register([("x", Mode::Observe)]);
        assert_eq!(again.index("x"), Some(2));
    }

    #[test]
    fn a_damaged_table_gives_new_numbers() {
        let stored = Stored {
            last: 1,
            agents: [("a".to_owned(), 9), ("b".to_owned(), 9), ("c".to_owned(), 0)].into(),
        };
        let mut agents = Agents::restore(&stored);
        agents.register([("a", Mode::Observe), ("b", Mode::Observe), ("c", Mode::Observe)]);
        let numbers: std::collections::BTreeSet<_> =
            ["a", "b", "c"].iter().filter_map(|id| agents.index(id)).collect();
        assert_eq!(numbers.len(), 3);
        assert!(!numbers.contains(&0));
    }
}
