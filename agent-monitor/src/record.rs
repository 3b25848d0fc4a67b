//! The record of this daemon's life: events in order, held in memory within bounds, queried and followed.
//!
//! Owns `seq` (from 1, without holes), what is held, and the queues of followers. It never blocks the one who
//! appends: the oldest events make room, and a follower that is too slow gets a `gap.subscriber` record with
//! the count of what it missed. Knows nothing of hooks, records of agents or rules. `run` appends, `control`
//! reads.

pub mod filter;
pub mod subscription;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub use filter::{Filter, FilterError, FilterSpec};
pub use subscription::Subscription;

use crate::health::Health;
use crate::log::Recorder;
use crate::model::{Event, Gap, Kind, Time};
use crate::redact::Redactor;
use subscription::Queue;

/// Bounds of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Events held at most.
    pub events: usize,
    /// Bytes held at most, by [`Event::weight`].
    pub bytes: usize,
    /// Followers at most.
    pub subscribers: usize,
    /// Events waiting for one follower at most.
    pub queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { events: 65_536, bytes: 128 << 20, subscribers: 64, queue: 8_192 }
    }
}

/// Refused: [`Limits::subscribers`] are following already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} readers are following already")]
pub struct TooManySubscribers(pub usize);

/// How much is held, and what had to go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Extent {
    /// Events held.
    pub events: u64,
    /// Bytes held, roughly.
    pub bytes: u64,
    /// `seq` of the oldest event held; 0 when none is.
    pub oldest_seq: u64,
    /// `seq` of the newest event; 0 before the first.
    pub newest_seq: u64,
    /// Time of the oldest event held.
    pub oldest_time: Option<Time>,
    /// Events that made room since the start.
    pub evicted: u64,
    /// Followers now.
    pub subscribers: u64,
}

/// Answer to a query: events in the order of `seq`.
#[derive(Debug, Default)]
pub struct Page {
    /// A `gap.history` record, where the query reaches back before the oldest event held.
    pub gap: Option<Event>,
    /// What matched.
    pub events: Vec<Arc<Event>>,
    /// What was held when it was asked.
    pub extent: Extent,
}

/// Bounded event store. Shared behind an `Arc`.
#[derive(Debug)]
pub struct Store {
    limits: Limits,
    health: Arc<Health>,
    inner: Mutex<Inner>,
    redactor: OnceLock<Redactor>,
    log: OnceLock<Arc<Recorder>>,
}

#[derive(Debug, Default)]
struct Inner {
    held: VecDeque<(Arc<Event>, usize)>,
    bytes: usize,
    newest_seq: u64,
    evicted: u64,
    /// Time of the first event ever taken and of the last one that made room.
    first_time: Option<Time>,
    last_evicted: Option<Time>,
    queues: Vec<Arc<Queue>>,
}

impl Store {
    /// An empty store. Every event taken is counted in `health`.
    #[must_use]
    pub fn new(limits: Limits, health: Arc<Health>) -> Self {
        Self { limits, health, inner: Mutex::default(), redactor: OnceLock::new(), log: OnceLock::new() }
    }

    /// From now on, secrets are taken out of events before anything else is done with them. Once only.
    pub fn redact_with(&self, redactor: Redactor) {
        self.redactor.set(redactor).ok();
    }

    /// From now on, events are handed to the durable log too. Once only.
    pub fn log_to(&self, log: Arc<Recorder>) {
        self.log.set(log).ok();
    }

    /// The durable log, where there is one.
    #[must_use]
    pub fn log(&self) -> Option<&Arc<Recorder>> {
        self.log.get()
    }

    /// An event for the durable log alone (`seq` 0): what readers of the live record can ask the daemon.
    pub fn note(&self, mut event: Event) {
        if let Some(log) = self.log.get() {
            self.redactor.get().iter().for_each(|redactor| redactor.event(&mut event));
            log.offer(&Arc::new(event));
        }
    }

    /// Takes an event, gives it its `seq` and hands it to the followers it matches. Never blocks on a reader.
    pub fn append(&self, mut event: Event) -> Arc<Event> {
        if let Some(redactor) = self.redactor.get() {
            redactor.event(&mut event);
        }
        if event.technique.is_empty() {
            crate::mapping::mark(&mut event);
        }
        let weight = event.weight();
        let mut inner = self.lock();
        inner.newest_seq += 1;
        event.seq = inner.newest_seq;
        let event = Arc::new(event);
        self.health.observe(&event);
        if let Some(log) = self.log.get() {
            log.offer(&event);
        }
        inner.first_time.get_or_insert(event.time);
        inner.held.push_back((Arc::clone(&event), weight));
        inner.bytes += weight;
        while inner.held.len() > 1
            && (inner.held.len() > self.limits.events || inner.bytes > self.limits.bytes)
        {
            inner.evict_oldest();
        }
        inner.queues.retain(|queue| !queue.is_abandoned());
        for queue in &inner.queues {
            self.health.missed_by_subscribers(queue.offer(&event));
        }
        event
    }

    /// Events held that `filter` matches; with `limit` the newest so many.
    #[must_use]
    pub fn query(&self, filter: &Filter, limit: Option<usize>) -> Page {
        self.lock().page(filter, limit)
    }

    /// Follows: what is held and matches when `history` is set, then everything that comes. Between the two
    /// nothing is lost and nothing comes twice.
    ///
    /// # Errors
    /// When [`Limits::subscribers`] follow already.
    pub fn subscribe(
        &self,
        filter: Filter,
        history: bool,
    ) -> Result<(Page, Subscription), TooManySubscribers> {
        let mut inner = self.lock();
        inner.queues.retain(|queue| !queue.is_abandoned());
        if inner.queues.len() >= self.limits.subscribers {
            return Err(TooManySubscribers(inner.queues.len()));
        }
        let page = if history {
            inner.page(&filter, None)
        } else {
            Page { extent: inner.extent(), ..Page::default() }
        };
        let queue = Arc::new(Queue::new(filter, self.limits.queue));
        inner.queues.push(Arc::clone(&queue));
        Ok((page, Subscription::new(queue)))
    }

    /// Ends all subscriptions, after what is already waiting for them: for shutdown.
    pub fn close(&self) {
        self.lock().queues.drain(..).for_each(|queue| queue.close());
    }

    /// How much is held.
    #[must_use]
    pub fn extent(&self) -> Extent {
        let mut inner = self.lock();
        inner.queues.retain(|queue| !queue.is_abandoned());
        inner.extent()
    }

    /// The state is whole after every statement that could panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn evict_oldest(&mut self) {
        if let Some((event, weight)) = self.held.pop_front() {
            self.bytes -= weight;
            self.evicted += 1;
            self.last_evicted = Some(event.time);
        }
    }

    fn page(&self, filter: &Filter, limit: Option<usize>) -> Page {
        let limit = limit.unwrap_or(usize::MAX);
        let newest_first = self.held.iter().rev().map(|(event, _)| event);
        let mut events: Vec<_> =
            newest_first.filter(|event| filter.matches(event)).take(limit).map(Arc::clone).collect();
        events.reverse();
        let gap = if events.len() < limit { self.history_gap(filter) } else { None };
        Page { gap, events, extent: self.extent() }
    }

    /// What made room may have matched, when the filter asks for that time.
    fn history_gap(&self, filter: &Filter) -> Option<Event> {
        let (first, last) = (self.first_time?, self.last_evicted?);
        if filter.since().is_some_and(|since| since > last) {
            return None;
        }
        let gap =
            Gap { reason: "evicted".to_owned(), kind: None, agent: None, count: self.evicted, first, last };
        Some(Event::gap(last, Kind::GapHistory, gap))
    }

    fn extent(&self) -> Extent {
        let oldest = self.held.front().map(|(event, _)| event);
        Extent {
            events: self.held.len() as u64,
            bytes: self.bytes as u64,
            oldest_seq: oldest.map_or(0, |event| event.seq),
            newest_seq: self.newest_seq,
            oldest_time: oldest.map(|event| event.time),
            evicted: self.evicted,
            subscribers: self.queues.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests;
