//! The bounded queue between the store and one follower.
//!
//! Must never block or grow past its bound: when it is full, one `gap.subscriber` record takes the place of
//! what is missed, at the very place in the order where it was missed, and counts on until there is room.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::Filter;
use crate::model::{Event, Gap, Kind};

#[derive(Debug)]
pub(super) struct Queue {
    filter: Filter,
    bound: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Item>,
    waker: Option<Waker>,
    /// No more will come.
    closed: bool,
    /// Nobody reads any more.
    abandoned: bool,
}

#[derive(Debug)]
enum Item {
    Event(Arc<Event>),
    Missed(Gap),
}

impl Queue {
    pub(super) fn new(filter: Filter, bound: usize) -> Self {
        Self { filter, bound, state: Mutex::default() }
    }

    /// Queues `event` if it matches. Returns how many events this made the follower miss: 0 or 1.
    pub(super) fn offer(&self, event: &Arc<Event>) -> u64 {
        if !self.filter.matches(event) {
            return 0;
        }
        let mut state = self.lock();
        // Once behind, it gets new events when it has caught up by half: a few long gaps, not many short ones.
        let behind = matches!(state.waiting.back(), Some(Item::Missed(_)));
        let missed = state.waiting.len() >= if behind { self.bound.div_ceil(2) } else { self.bound };
        if !missed {
            state.waiting.push_back(Item::Event(Arc::clone(event)));
        } else if let Some(Item::Missed(gap)) = state.waiting.back_mut() {
            gap.count += 1;
            gap.last = event.time;
        } else {
            state.waiting.push_back(Item::Missed(Gap {
                reason: "subscriber_slow".to_owned(),
                kind: None,
                agent: None,
                count: 1,
                first: event.time,
                last: event.time,
            }));
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        u64::from(missed)
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One follower's end. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Queue>,
}

impl Subscription {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue }
    }

    /// The next event in order, or a `gap.subscriber` record (with `seq` 0: it is not in the record, it is
    /// about this reader). `None` when the store was closed and all was read.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// What is waiting now; `None` when nothing is.
    pub fn try_next(&mut self) -> Option<Arc<Event>> {
        self.queue.lock().waiting.pop_front().map(deliver)
    }

    /// Poll form of [`next`](Self::next).
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Arc<Event>>> {
        let mut state = self.queue.lock();
        if let Some(item) = state.waiting.pop_front() {
            return Poll::Ready(Some(deliver(item)));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.abandoned = true;
        state.waiting.clear();
    }
}

fn deliver(item: Item) -> Arc<Event> {
    match item {
        Item::Event(event) => event,
        Item::Missed(gap) => Arc::new(Event::gap(gap.last, Kind::GapSubscriber, gap)),
    }
}
