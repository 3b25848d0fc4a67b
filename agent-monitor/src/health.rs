//! What the monitor knows about itself: counts of events, losses, queues, and calls.
//!
//! Owns counters only; it never decides and never writes events. [`metrics`] turns them into the Prometheus
//! text, [`Summary`] into what `run` says at its end. All sizes here are bounded: agents beyond
//! [`MAX_AGENTS`] are counted together.

pub mod doctor;
pub mod metrics;
pub mod promises;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::log::recorder::LogStatus;
use crate::model::{Event, Family, Kind, Time, Verdict};

/// Agents that are counted by name; what comes later counts as [`OTHER`].
pub const MAX_AGENTS: usize = 512;
/// Loss reasons, rings and routes that are counted by name.
const MAX_NAMES: usize = 64;
/// Counted under this name where there is no agent. No agent id can look like it.
pub const UNATTRIBUTED: &str = "_unattributed";
/// Counted under this name beyond the bounds.
pub const OTHER: &str = "_other";

/// Counters of this daemon. Shared behind an `Arc`; every call is short.
#[derive(Debug, Default)]
pub struct Health {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    pub(crate) by_kind: BTreeMap<(Kind, Option<Verdict>), u64>,
    pub(crate) by_agent: BTreeMap<(String, Family), u64>,
    agents: usize,
    pub(crate) losses: BTreeMap<String, u64>,
    pub(crate) rings: BTreeMap<String, Ring>,
    pub(crate) bound: BTreeMap<String, u64>,
    pub(crate) requests: BTreeMap<(String, u16), u64>,
    pub(crate) refusals: BTreeMap<&'static str, u64>,
    pub(crate) subscriber_missed: u64,
    pub(crate) last_event: Option<Time>,
    pub(crate) started: Option<Time>,
    pub(crate) agents_registered: u64,
    pub(crate) agents_refused: u64,
    pub(crate) agents_stale: u64,
    pub(crate) reloads: u64,
    pub(crate) reloads_refused: u64,
    pub(crate) log: Option<LogStatus>,
}

/// How full a ring is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// Bytes waiting to be read.
    pub used_bytes: u64,
    /// Size in bytes.
    pub capacity_bytes: u64,
    /// The most that was seen waiting.
    pub peak_bytes: u64,
}

impl Health {
    /// Counts from `started` on.
    #[must_use]
    pub fn new(started: Time) -> Self {
        Self { counts: Mutex::new(Counts { started: Some(started), ..Counts::default() }) }
    }

    /// Counts one event of the record; a gap also counts what it says was lost. Called by the store.
    pub fn observe(&self, event: &Event) {
        let mut counts = self.lock();
        *counts.by_kind.entry((event.kind, event.verdict)).or_default() += 1;
        let agent = match &event.agent {
            Some(agent) => counts.admit(&agent.id),
            None => UNATTRIBUTED.to_owned(),
        };
        if event.agent.is_some() || event.process.is_some() {
            *counts.by_agent.entry((agent, event.kind.family())).or_default() += 1;
        }
        if let Some(gap) = &event.gap {
            bounded_add(&mut counts.losses, &gap.reason, gap.count);
        }
        counts.last_event = counts.last_event.max(Some(event.time));
    }

    /// Adds events that readers of the stream were too slow for.
    pub fn missed_by_subscribers(&self, count: u64) {
        if count > 0 {
            self.lock().subscriber_missed += count;
        }
    }

    /// Sets how full the ring `name` is now.
    pub fn ring(&self, name: &str, used_bytes: u64, capacity_bytes: u64) {
        let mut counts = self.lock();
        let full = counts.rings.len() >= MAX_NAMES;
        if full && !counts.rings.contains_key(name) {
            return;
        }
        let ring = counts.rings.entry(name.to_owned()).or_default();
        *ring = Ring { used_bytes, capacity_bytes, peak_bytes: ring.peak_bytes.max(used_bytes) };
    }

    /// Sets how many processes are bound, by agent. Replaces the last answer.
    pub fn bound_processes<'a>(&self, by_agent: impl IntoIterator<Item = (&'a str, u64)>) {
        let mut bound = BTreeMap::new();
        for (agent, processes) in by_agent {
            let name = if bound.len() < MAX_AGENTS { agent } else { OTHER };
            *bound.entry(name.to_owned()).or_default() += processes;
        }
        self.lock().bound = bound;
    }

    /// Sets how the durable log is.
    pub fn log(&self, status: Option<LogStatus>) {
        self.lock().log = status;
    }

    /// Sets what the last (re)load of the registry gave.
    pub fn registry(&self, registered: u64, refused: u64) {
        let mut counts = self.lock();
        counts.reloads += 1;
        counts.agents_registered = registered;
        counts.agents_refused = refused;
    }

    /// Sets how many agents are under their last good record instead of what is on disk.
    pub fn stale(&self, agents: u64) {
        self.lock().agents_stale = agents;
    }

    /// Counts a reload that was refused as a whole: the old records stay.
    pub fn reload_refused(&self) {
        self.lock().reloads_refused += 1;
    }

    /// Counts a call of the control API. `route` is the pattern, not the path.
    pub fn request(&self, route: &str, status: u16) {
        let mut counts = self.lock();
        let known = counts.requests.len() < MAX_NAMES * 4;
        let route = if known { route } else { OTHER };
        *counts.requests.entry((route.to_owned(), status)).or_default() += 1;
    }

    /// Counts a caller that was turned away (`bound_to_agent`, `not_allowed`, `unknown_peer`).
    pub fn refused_peer(&self, reason: &'static str) {
        *self.lock().refusals.entry(reason).or_default() += 1;
    }

    /// Everything so far, in the form `run` shows at its end and `status` embeds.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let counts = self.lock();
        let mut summary = Summary {
            started: counts.started,
            lost: counts.losses.clone(),
            subscriber_missed: counts.subscriber_missed,
            ..Summary::default()
        };
        for ((kind, verdict), count) in &counts.by_kind {
            summary.events += count;
            *summary.by_kind.entry(kind.as_str().to_owned()).or_default() += count;
            if let Some(verdict) = verdict {
                *summary.by_verdict.entry(verdict.as_str().to_owned()).or_default() += count;
            }
            if kind.family() == Family::Gap {
                summary.gaps += count;
            }
        }
        for ((agent, _), count) in &counts.by_agent {
            *summary.by_agent.entry(agent.clone()).or_default() += count;
        }
        summary
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// Counters are whole after every statement, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// The name to count `id` under.
    fn admit(&mut self, id: &str) -> String {
        let first = (id.to_owned(), Family::ALL[0]);
        let known = self.by_agent.range(first..).next().is_some_and(|((name, _), _)| name == id);
        if known {
            return id.to_owned();
        }
        if self.agents >= MAX_AGENTS {
            return OTHER.to_owned();
        }
        self.agents += 1;
        id.to_owned()
    }
}

fn bounded_add(map: &mut BTreeMap<String, u64>, name: &str, count: u64) {
    let name = if map.len() < MAX_NAMES || map.contains_key(name) { name } else { OTHER };
    *map.entry(name.to_owned()).or_default() += count;
}

/// Totals since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// When counting began.
    pub started: Option<Time>,
    /// Events in the record.
    pub events: u64,
    /// By kind.
    pub by_kind: BTreeMap<String, u64>,
    /// By verdict.
    pub by_verdict: BTreeMap<String, u64>,
    /// By agent id; [`UNATTRIBUTED`] and [`OTHER`] beside them.
    pub by_agent: BTreeMap<String, u64>,
    /// Events that were missed, by reason.
    pub lost: BTreeMap<String, u64>,
    /// Gap records.
    pub gaps: u64,
    /// Events that readers of the stream were too slow for (they are in the record all the same).
    pub subscriber_missed: u64,
}

#[cfg(test)]
mod tests;
