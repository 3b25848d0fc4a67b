//! Who decides for an agent, from its record and its processes.

use std::collections::BTreeSet;

use crate::attribute::identity::SHADOW_ID;
use crate::people::who::Approvers;
use crate::registry::LinuxFacts;
use crate::registry::facts::HostFacts as _;
use crate::registry::record::UserRef;
use crate::run::core::{Core, lock};

impl Core {
    /// Who decides for an agent. Of one without a record nobody does but root, and of programs without a record whom the
    /// settings name.
    pub(in crate::run) fn approvers_of(&self, id: &str) -> Approvers {
        let (record, index) = self.record_of(id);
        let mut own: BTreeSet<u32> = BTreeSet::new();
        if let Some(record) = &record {
            let users = record.matches.iter().filter_map(|found| found.user.as_ref());
            own.extend(users.filter_map(|user| match &user.value {
                UserRef::Uid(uid) => Some(*uid),
                UserRef::Name(name) => LinuxFacts.user_by_name(name).found().map(|user| user.uid),
            }));
        }
        if let Some(index) = index {
            let live = lock(&self.live);
            let mine = live.engine.tree().living();
            let mine = mine.filter(|proc| proc.binding.is_some_and(|binding| binding.agent == index));
            own.extend(mine.filter_map(|proc| proc.uid));
        }
        let named =
            record.as_ref().map(|record| record.approvers.iter().map(|one| one.value.clone()).collect());
        let named = named.or_else(|| (id == SHADOW_ID).then(|| self.config.shadow.approvers.clone()));
        let need = record.as_ref().map_or(1, |record| usize::from(record.approvals));
        Approvers { named: named.unwrap_or_default(), need, own }
    }
}
