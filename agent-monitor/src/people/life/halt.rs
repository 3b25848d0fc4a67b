//! Stopping or ending a whole tree that may fork while it is done.
//!
//! The kernel refuses the agent everything from the moment its life says so, but a fork is not refused, so the list of
//! bound processes is read again until two readings in a row find nothing left to do. A process that was made meanwhile
//! is bound before it runs, and so is in the next reading.

use std::collections::BTreeSet;

use crate::attribute::TaskKey;
use crate::people::hands::{Act, Condition, Hands};

/// Readings in a row that must find nothing.
const QUIET: usize = 2;

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Halted {
    /// Processes that were acted on.
    pub processes: BTreeSet<TaskKey>,
    /// Readings it took.
    pub rounds: usize,
    /// Nothing is left to do: every process is stopped, or has ended.
    pub complete: bool,
    /// What the kernel refused.
    pub failed: Vec<String>,
}

/// Acts on every process of `list` until all are as they should be. `patience` waits a little, and says when it is enough.
pub fn halt(
    list: &mut dyn FnMut() -> Result<Vec<TaskKey>, String>,
    hands: &mut dyn Hands,
    act: Act,
    patience: &mut dyn FnMut(usize) -> bool,
) -> Halted {
    let mut halted = Halted::default();
    let mut quiet = 0;
    loop {
        halted.rounds += 1;
        let keys = match list() {
            Ok(keys) => keys,
            Err(error) => {
                halted.failed.push(error);
                return halted;
            }
        };
        let wanted = |condition| match act {
            Act::Stop => matches!(condition, Condition::Stopped | Condition::Gone),
            Act::Kill => condition == Condition::Gone,
            Act::Wake => condition != Condition::Stopped,
        };
        let open: Vec<TaskKey> = keys.into_iter().filter(|key| !wanted(hands.condition(*key))).collect();
        quiet = if open.is_empty() { quiet + 1 } else { 0 };
        if quiet >= QUIET {
            halted.complete = true;
            return halted;
        }
        for key in open {
            match hands.act(key, act) {
                Ok(()) => drop(halted.processes.insert(key)),
                Err(error) => {
                    let words = format!("pid {}: {error}", key.tgid);
                    if !halted.failed.contains(&words) {
                        halted.failed.push(words);
                    }
                }
            }
        }
        if !patience(halted.rounds) {
            return halted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::people::hands::fake::FakeHands;
    use crate::people::tests::key;

    /// A storm: each reading finds new processes, for some rounds.
    fn storm(act: Act, rounds: u32) -> (Halted, FakeHands) {
        let mut hands = FakeHands::default();
        let world = hands.clone();
        let mut made = 0;
        let mut list = || {
            made += 1;
            let mut inner = world.0.lock().unwrap();
            if made <= rounds {
                inner.conditions.insert(key(made), Condition::Runs);
            }
            let alive = inner.conditions.iter().filter(|(_, condition)| **condition != Condition::Gone);
            Ok(alive.map(|(key, _)| *key).collect())
        };
        let halted = halt(&mut list, &mut hands, act, &mut |round| round < 50);
        (halted, hands)
    }

    #[test]
    fn a_fork_storm_is_stopped_and_ended() {
        for act in [Act::Stop, Act::Kill] {
            let (halted, hands) = storm(act, 9);
            assert!(halted.complete, "{halted:?}");
            assert_eq!(halted.processes.len(), 9);
            assert!(halted.rounds >= 11, "two quiet readings after the last process");
            let inner = hands.0.lock().unwrap();
            assert!(inner.conditions.values().all(|condition| *condition != Condition::Runs));
        }
    }

    #[test]
    fn what_never_ends_is_said() {
        let (halted, _) = storm(Act::Stop, 1000);
        assert!(!halted.complete && halted.rounds == 50);
        let mut fails = || Err("no table".to_owned());
        let halted = halt(&mut fails, &mut FakeHands::default(), Act::Stop, &mut |_| true);
        assert!(!halted.complete && halted.failed == ["no table"]);
    }
}
