//! Reads many things of which any may never answer: a process can lay the pages of its arguments on a file system whose
//! server is itself, and whoever reads them waits for it. One that does not answer is left behind with the thread that
//! asks it, and the others are read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Most that are left behind; then the rest is given up.
const HUNG_MAX: usize = 32;

/// What was read.
#[derive(Debug)]
pub(super) struct Read<T> {
    /// The answers.
    pub(super) answers: Vec<T>,
    /// Who did not answer.
    pub(super) hung: Vec<u32>,
    /// How many were not asked any more.
    pub(super) left: usize,
}

enum Told<T> {
    Asks(u32),
    Has(Box<T>),
    Done,
}

/// Asks everyone on the list, each for at most `patience`, until `until`.
pub(super) fn each<T: Send + 'static>(
    list: impl IntoIterator<Item = u32>,
    one: Arc<dyn Fn(u32) -> Option<T> + Send + Sync>,
    patience: Duration,
    until: Instant,
) -> Read<T> {
    let mut waiting: VecDeque<u32> = list.into_iter().collect();
    let mut read = Read { answers: Vec::new(), hung: Vec::new(), left: 0 };
    while !waiting.is_empty() && read.hung.len() < HUNG_MAX && Instant::now() < until {
        let (tell, told) = channel();
        let (list, one) = (waiting.clone(), Arc::clone(&one));
        let spawned =
            std::thread::Builder::new().name("sweep-read".to_owned()).spawn(move || ask(list, &*one, &tell));
        if spawned.is_err() {
            break;
        }
        let mut asked = None;
        loop {
            match told.recv_timeout(patience) {
                Ok(Told::Asks(who)) => {
                    asked = Some(who);
                    waiting.pop_front();
                    if Instant::now() >= until {
                        break;
                    }
                }
                Ok(Told::Has(answer)) => read.answers.push(*answer),
                Ok(Told::Done) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    read.hung.extend(asked);
                    // Nobody was asked yet: the thread does not even start.
                    if asked.is_none() {
                        read.left = waiting.len();
                        return read;
                    }
                    break;
                }
            }
        }
    }
    read.left = waiting.len();
    read
}

fn ask<T>(list: VecDeque<u32>, one: &dyn Fn(u32) -> Option<T>, tell: &Sender<Told<T>>) {
    for who in list {
        // Nobody listens any more: this one had hung, and others went on.
        if tell.send(Told::Asks(who)).is_err() {
            return;
        }
        if let Some(answer) = one(who)
            && tell.send(Told::Has(Box::new(answer))).is_err()
        {
            return;
        }
    }
    // The same.
    drop(tell.send(Told::Done));
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    #[test]
    fn who_does_not_answer_is_left_behind_and_the_others_are_read() {
        let (hold, held) = channel::<()>();
        let held = Mutex::new(held);
        let one = move |who: u32| {
            if who % 10 == 3 {
                // Never comes while `hold` lives.
                assert!(held.lock().unwrap_or_else(PoisonError::into_inner).recv().is_err());
            }
            (who != 7).then_some(who)
        };
        let until = Instant::now() + Duration::from_secs(60);
        let read = each(0..30, Arc::new(one), Duration::from_millis(200), until);
        assert_eq!((read.hung, read.left), (vec![3, 13, 23], 0));
        let expect: Vec<u32> = (0..30).filter(|who| who % 10 != 3 && *who != 7).collect();
        assert_eq!(read.answers, expect);
        drop(hold);
    }

    #[test]
    fn when_the_time_is_over_the_rest_is_counted() {
        let read = each(0..5, Arc::new(Some), Duration::from_secs(5), Instant::now());
        assert_eq!((read.answers.len(), read.left), (0, 5));
    }
}
