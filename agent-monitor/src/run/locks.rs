//! The locks of the daemon and their order.
//!
//! A thread takes them in the order of [`Rank`] and never the other way, so that no two threads wait for each other. Debug
//! builds check it at each lock; a release build only locks. What has no rank here is taken for a moment and nothing else
//! is taken under it (`inbox`, the stop).

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The order, outermost first. Two locks of one rank are never held together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Approvals, sessions, grants and lifecycle states.
    People,
    /// The registry in force.
    Book,
    /// Engine and host.
    Live,
    /// Agents without a record.
    Shadows,
    /// Programs that the kernel matches at their exec.
    Known,
    /// The kernel side.
    Port,
    /// What people's decisions put in force.
    InForce,
    /// Why there is no log.
    LogFailed,
}

/// A value behind a lock with a rank.
#[derive(Debug)]
pub(super) struct Ranked<T> {
    rank: Rank,
    value: Mutex<T>,
}

impl<T> Ranked<T> {
    /// `value` behind a lock of this rank.
    pub(super) fn new(rank: Rank, value: T) -> Self {
        Self { rank, value: Mutex::new(value) }
    }
}

/// The lock, held.
#[derive(Debug)]
pub(super) struct Held<'a, T> {
    guard: MutexGuard<'a, T>,
    #[cfg(debug_assertions)]
    _order: order::Entry,
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// Takes a lock.
#[cfg_attr(debug_assertions, track_caller)]
pub(super) fn lock<T>(lock: &Ranked<T>) -> Held<'_, T> {
    #[cfg(debug_assertions)]
    let order = order::Entry::new(lock.rank);
    Held {
        // A panic in a thread ends the daemon's work anyway; what is left must still be counted and written.
        guard: lock.value.lock().unwrap_or_else(PoisonError::into_inner),
        #[cfg(debug_assertions)]
        _order: order,
    }
}

#[cfg(debug_assertions)]
mod order {
    //! What this thread holds, checked before it waits: an order that could end in two threads that wait for each other is
    //! found by one thread alone.

    use std::cell::RefCell;

    use super::Rank;

    thread_local! {
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    /// A rank that this thread holds, until it is dropped.
    #[derive(Debug)]
    pub(super) struct Entry {
        rank: Rank,
        /// A guard belongs to its thread.
        _own: std::marker::PhantomData<*const ()>,
    }

    impl Entry {
        #[track_caller]
        pub(super) fn new(rank: Rank) -> Self {
            HELD.with_borrow_mut(|held| {
                let inner = held.iter().max().copied();
                assert!(
                    inner.is_none_or(|inner| inner < rank),
                    "the lock {rank:?} is taken under {inner:?}: the order is that of `Rank`"
                );
                held.push(rank);
            });
            Self { rank, _own: std::marker::PhantomData }
        }
    }

    impl Drop for Entry {
        fn drop(&mut self) {
            // Guards may be dropped in any order.
            HELD.with_borrow_mut(|held| {
                if let Some(at) = held.iter().rposition(|rank| *rank == self.rank) {
                    held.remove(at);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Rank; 8] = [
        Rank::People,
        Rank::Book,
        Rank::Live,
        Rank::Shadows,
        Rank::Known,
        Rank::Port,
        Rank::InForce,
        Rank::LogFailed,
    ];

    fn takes(outer: Rank, inner: Rank) -> bool {
        let (outer, inner) = (Ranked::new(outer, ()), Ranked::new(inner, ()));
        let work = std::panic::AssertUnwindSafe(|| {
            let first = lock(&outer);
            let second = lock(&inner);
            drop(first);
            drop(second);
        });
        std::panic::catch_unwind(work).is_ok()
    }

    /// Each pair, in a thread that does not hold anything afterwards.
    #[test]
    fn locks_taken_backwards_or_twice_are_found() {
        for (outside, outer) in ALL.into_iter().enumerate() {
            for (inside, inner) in ALL.into_iter().enumerate() {
                assert_eq!(takes(outer, inner), outside < inside, "{inner:?} under {outer:?}");
            }
        }
    }

    #[test]
    fn a_lock_that_was_given_back_does_not_count() {
        let (book, port) = (Ranked::new(Rank::Book, 1), Ranked::new(Rank::Port, 2));
        *lock(&port) += 1;
        let held = lock(&book);
        assert_eq!((*held, *lock(&port)), (1, 3));
        let (book, port) = (held, lock(&port));
        drop(book);
        let in_force = Ranked::new(Rank::InForce, ());
        drop(lock(&in_force));
        drop(port);
        assert!(takes(Rank::People, Rank::LogFailed), "nothing is left of what was dropped out of order");
    }

    /// Another thread's locks are its own.
    #[test]
    fn threads_do_not_count_each_others_locks() {
        let (port, people) = (Ranked::new(Rank::Port, ()), Ranked::new(Rank::People, ()));
        let held = lock(&port);
        std::thread::scope(|scope| scope.spawn(|| drop(lock(&people))).join().unwrap());
        drop(held);
    }
}
