//! Jobs on a few threads, each with a time limit. A job that hangs (a mount whose server is gone) is left behind with its
//! thread, and another thread takes its place.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::observe::Harvest;

/// What a job gave.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What it saw.
    pub(super) harvest: Harvest,
    /// Containers whose files are to be looked at: id and a pid in it.
    pub(super) containers: Vec<(String, u32)>,
}

/// Work.
pub(super) type Work = Box<dyn FnOnce() -> Outcome + Send>;

enum Told {
    Began(usize),
    Done(usize, Box<Outcome>),
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<(VecDeque<(usize, Work)>, bool)>,
    more: Condvar,
}

/// The threads.
pub(super) struct Pool {
    queue: Arc<Queue>,
    tell: Sender<Told>,
    told: Receiver<Told>,
    patience: Duration,
    /// Names of jobs that are not done, and when they began.
    open: BTreeMap<usize, (String, Option<Instant>)>,
    total: usize,
}

impl Pool {
    /// Starts as many threads as there are processors, two to four.
    pub(super) fn start(patience: Duration) -> Self {
        let (tell, told) = channel();
        let pool = Self { queue: Arc::default(), tell, told, patience, open: BTreeMap::new(), total: 0 };
        let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4);
        (0..threads).for_each(|_| pool.thread());
        pool
    }

    fn thread(&self) {
        let (queue, tell) = (Arc::clone(&self.queue), self.tell.clone());
        let work = move || {
            while let Some((id, work)) = queue.take() {
                // Nobody listens any more: the sweep is over.
                if tell.send(Told::Began(id)).is_err() || tell.send(Told::Done(id, Box::new(work()))).is_err()
                {
                    return;
                }
            }
        };
        // Without a thread the jobs are timed out and said to be missing.
        drop(std::thread::Builder::new().name("sweep".to_owned()).spawn(work));
    }

    /// Adds a job.
    pub(super) fn add(&mut self, name: &str, work: Work) {
        let id = self.total;
        self.total += 1;
        self.open.insert(id, (name.to_owned(), None));
        let mut waiting = self.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.0.push_back((id, work));
        self.queue.more.notify_one();
    }

    /// Jobs done or given up.
    pub(super) fn done(&self) -> usize {
        self.total - self.open.len()
    }

    /// Jobs added so far.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// The next job that is done, or given up (`None`). Nothing when all are.
    pub(super) fn next(&mut self) -> Option<(String, Option<Outcome>)> {
        while !self.open.is_empty() {
            match self.told.recv_timeout(self.longest()) {
                Ok(Told::Began(id)) => {
                    if let Some((_, began)) = self.open.get_mut(&id) {
                        *began = Some(Instant::now());
                    }
                }
                Ok(Told::Done(id, outcome)) => {
                    // One that was given up and came back after all counts no more.
                    if let Some((name, _)) = self.open.remove(&id) {
                        return Some((name, Some(*outcome)));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(id) = self.overdue() {
                        self.thread();
                        let (name, _) = self.open.remove(&id)?;
                        return Some((name, None));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        None
    }

    fn longest(&self) -> Duration {
        let left = |began: &Instant| (*began + self.patience).saturating_duration_since(Instant::now());
        self.open.values().filter_map(|(_, began)| began.as_ref()).map(left).min().unwrap_or(self.patience)
    }

    fn overdue(&self) -> Option<usize> {
        let late = |began: &Instant| began.elapsed() >= self.patience;
        self.open.iter().find(|(_, (_, began))| began.as_ref().is_some_and(late)).map(|(id, _)| *id)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.queue.more.notify_all();
    }
}

impl Queue {
    fn take(&self) -> Option<(usize, Work)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if waiting.1 {
                return None;
            }
            if let Some(job) = waiting.0.pop_front() {
                return Some(job);
            }
            waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_hangs_is_left_behind_and_the_others_go_on() {
        let mut pool = Pool::start(Duration::from_millis(300));
        let (hold, held) = channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for n in 0..4 {
            let held = Arc::clone(&held);
            let hang = move || {
                assert!(held.lock().unwrap_or_else(PoisonError::into_inner).recv().is_err());
                Outcome::default()
            };
            pool.add(&format!("hangs {n}"), Box::new(hang));
        }
        for n in 0..10 {
            pool.add(&format!("works {n}"), Box::new(Outcome::default));
        }
        let (mut worked, mut hung) = (0, 0);
        while let Some((name, outcome)) = pool.next() {
            assert_eq!(outcome.is_some(), name.starts_with("works"), "{name}");
            if outcome.is_some() { worked += 1 } else { hung += 1 }
        }
        assert_eq!((worked, hung, pool.done()), (10, 4, 14));
        drop(hold);
    }
}
