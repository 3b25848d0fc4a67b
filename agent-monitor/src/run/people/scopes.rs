//! Scopes of sessions and grants on their way to the kernel, and the session of a tree that a rule recognised.

use std::collections::{BTreeMap, BTreeSet};

use agent_monitor_ebpf::task::{BackfillEntry, REPLACE_SESSION};

use crate::attribute::TaskKey;
use crate::attribute::backfill::Plan;
use crate::people::grants::ActiveGrant;
use crate::people::sessions::ActiveSession;
use crate::run::core::{Core, lock};
use crate::run::port::PortError;
use crate::scope::compile::{Extra, GrantOf};
use crate::scope::image::{GRANT_INDEX, SESSION_INDEX};

/// Runs of the iterator for one session: each mends what was forked during the one before.
const ROUNDS: usize = 8;

impl Core {
    /// The scopes beside those of records, numbered for the kernel. Sessions whose numbers collide are left out, and so
    /// are not started.
    pub(in crate::run) fn extras(&self) -> Vec<Extra> {
        let (sessions, grants) = (self.active_sessions(), self.active_grants());
        let mut policies = BTreeMap::new();
        let mut taken = BTreeSet::new();
        let mut extras = Vec::new();
        for session in &sessions {
            let index = session_index(session.number);
            if taken.insert(index) {
                policies.insert(session.number, index);
                extras.push(of_session(session, index));
            }
        }
        extras.extend(grants.iter().filter_map(of_grant));
        self.know_session_policies(policies);
        extras
    }

    /// Marks a tree that a rule recognised as a run of its own: the root and what it has forked meanwhile.
    pub(in crate::run) fn enter_session(&self, root: TaskKey, session: u64) -> Result<(), PortError> {
        let mut port = lock(&self.port);
        let mut tasks = port.backfill(&Plan::new())?;
        for _ in 0..ROUNDS {
            let Some(agent) = tasks.iter().find(|task| task.key() == root).map(|task| task.tag.agent) else {
                return Ok(());
            };
            let mut tree = BTreeSet::from([root.tgid]);
            // Children come after their parents in time, not in the list.
            let mut grown = 0;
            while grown != tree.len() {
                grown = tree.len();
                let below = tasks.iter().filter(|task| task.tag.agent == agent && tree.contains(&task.ppid));
                let below: Vec<u32> = below.map(|task| task.tgid).collect();
                tree.extend(below);
            }
            let plan: Plan = tasks
                .iter()
                .filter(|task| tree.contains(&task.tgid) && task.tag.agent == agent && agent != 0)
                .filter(|task| task.tag.session == 0)
                .map(|task| {
                    let tag = agent_monitor_ebpf::task::TaskTag { session, ..task.tag };
                    let entry = BackfillEntry { start: task.start, tag, replace: REPLACE_SESSION, tagged: 0 };
                    (task.tgid, entry)
                })
                .collect();
            if plan.is_empty() {
                break;
            }
            tasks = port.backfill(&plan)?;
        }
        Ok(())
    }
}

/// Index of a session's own scope. Numbers of sessions are random in their low half.
fn session_index(number: u64) -> u32 {
    SESSION_INDEX | u32::try_from(number & 0x3fff_ffff).unwrap_or_default()
}

fn of_session(session: &ActiveSession, index: u32) -> Extra {
    Extra {
        agent: session.agent.to_string(),
        index,
        label: "session".to_owned(),
        scope: session.scope.clone(),
        grant: None,
    }
}

fn of_grant(grant: &ActiveGrant) -> Option<Extra> {
    let number = u32::try_from(grant.id).ok().filter(|number| *number < SESSION_INDEX >> 1)?;
    Some(Extra {
        agent: grant.agent.to_string(),
        index: GRANT_INDEX | number,
        label: format!("grant {}", grant.id),
        scope: grant.scope.clone(),
        grant: Some(GrantOf { id: grant.id, session: grant.session.unwrap_or(0) }),
    })
}
