//! Counting instead of keeping: for storms, whose events would not fit into memory.
//!
//! Each kind has a follower of its own, so that what a slow follower missed (`gap.subscriber`) is known to be of
//! that kind; one more follows the gap records.

use super::monitor::Daemon;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// As much of an event as is counted.
#[derive(Debug, Deserialize)]
struct Line {
    kind: String,
    #[serde(default)]
    gap: Option<Gap>,
}

#[derive(Debug, Deserialize)]
struct Gap {
    reason: String,
    kind: Option<String>,
    agent: Option<String>,
    count: u64,
}

/// Of one kind: what came, and what was admitted not to have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Came through the follower.
    pub delivered: u64,
    /// Reached the record, but this follower was too slow (`gap.subscriber`).
    pub missed: u64,
    /// Lost before the record (any other gap).
    pub lost: u64,
}

impl Count {
    pub fn sum(self) -> u64 {
        self.delivered + self.missed + self.lost
    }
}

/// Counts by kind.
pub type Counts = BTreeMap<String, Count>;

/// `kind delivered+missed+lost`, one per kind.
pub fn table(counts: &Counts) -> String {
    let row = |(kind, c): (&String, &Count)| format!("{kind} {}+{}+{}", c.delivered, c.missed, c.lost);
    counts.iter().map(row).collect::<Vec<_>>().join(", ")
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    /// Gap records that could not be booked on a kind that is counted.
    unbooked: Vec<String>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

/// Followers that count the events of one agent.
#[derive(Debug)]
pub struct Meter {
    shared: Arc<Shared>,
    followers: Vec<(Child, Option<JoinHandle<()>>)>,
}

impl Meter {
    pub fn start(daemon: &Daemon, agent: &str, kinds: &[&str]) -> Self {
        let shared = Arc::new(Shared::default());
        for kind in kinds {
            shared.state.lock().unwrap().counts.insert((*kind).to_owned(), Count::default());
        }
        let mut followers = Vec::new();
        let what = kinds.iter().map(|kind| Some((*kind).to_owned())).chain([None]);
        for kind in what {
            let filters = ["--agent", agent, "--kind", kind.as_deref().unwrap_or("gap")];
            let mut command = daemon.follower(&filters);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let lines = BufReader::with_capacity(1 << 20, child.stdout.take().unwrap());
            let (shared, agent) = (Arc::clone(&shared), agent.to_owned());
            let reader = std::thread::spawn(move || count(lines, kind.as_deref(), &agent, &shared));
            followers.push((child, Some(reader)));
        }
        Self { shared, followers }
    }

    pub fn counts(&self) -> Counts {
        self.shared.state.lock().unwrap().counts.clone()
    }

    /// Gap records that no kind accounts for.
    pub fn unbooked(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().unbooked.clone()
    }

    /// Waits until `done` says so of the counts.
    pub fn wait(&self, limit: Duration, done: impl Fn(&Counts) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.state.lock().unwrap();
        while !done(&state.counts) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (state, _) = self.shared.more.wait_timeout(state, left).unwrap();
        }
        true
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        for (child, reader) in &mut self.followers {
            // Ended with the daemon, perhaps.
            child.kill().ok();
            child.wait().ok();
            if let Some(reader) = reader.take() {
                reader.join().ok();
            }
        }
    }
}

/// Reads one follower: of a kind, or of the gap records.
fn count(lines: BufReader<ChildStdout>, of: Option<&str>, agent: &str, shared: &Shared) {
    for line in lines.split(b'\n') {
        let Ok(line) = line else { break };
        let parsed = serde_json::from_slice::<Line>(&line);
        let mut state = shared.state.lock().unwrap();
        match (parsed, of) {
            (Err(error), _) => state.unbooked.push(format!("{error}: {}", String::from_utf8_lossy(&line))),
            (Ok(line), Some(kind)) => {
                let count = state.counts.entry(kind.to_owned()).or_default();
                match line.gap {
                    Some(gap) => count.missed += gap.count,
                    None if line.kind == kind => count.delivered += 1,
                    None => {}
                }
            }
            (Ok(line), None) => book(&mut state, &line, agent),
        }
        drop(state);
        shared.more.notify_all();
    }
}

/// Books a gap on its kind. What is about kinds that this meter does not count, or has no number, is left out.
fn book(state: &mut State, line: &Line, agent: &str) {
    let Some(gap) = line.gap.as_ref().filter(|gap| gap.count > 0) else { return };
    let one_kind = gap.kind.as_deref().filter(|kind| kind.contains('.'));
    match one_kind.map(|kind| state.counts.get_mut(kind)) {
        Some(Some(count)) if gap.agent.as_deref() == Some(agent) => count.lost += gap.count,
        Some(None) => {}
        _ => state.unbooked.push(format!("{} {}: {gap:?}", line.kind, gap.reason)),
    }
}
