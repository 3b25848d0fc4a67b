//! `agent-monitor events --follow -o jsonl`, read by a thread; the tests wait on what has arrived.

use super::event::Event;
use super::expect::Expect;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct State {
    events: Vec<Event>,
    /// Lines that are no event: each is a failure of the contract.
    broken: Vec<String>,
    /// The follower ended: nothing more will come.
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

/// A follower and what it has said so far.
#[derive(Debug)]
pub struct Feed {
    shared: Arc<Shared>,
    follower: Child,
    reader: Option<JoinHandle<()>>,
}

impl Feed {
    /// Starts the follower; `command` must write JSON lines to standard output.
    pub fn start(mut command: Command) -> Self {
        // Its last word, that the daemon ended the stream, is of no use here.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut follower = command.spawn().unwrap();
        let lines = BufReader::new(follower.stdout.take().unwrap());
        let shared = Arc::new(Shared::default());
        let for_reader = Arc::clone(&shared);
        let reader = std::thread::spawn(move || read_all(lines, &for_reader));
        Self { shared, follower, reader: Some(reader) }
    }

    /// Looks at all events so far.
    pub fn with<T>(&self, look: impl FnOnce(&[Event]) -> T) -> T {
        look(&self.shared.state.lock().unwrap().events)
    }

    /// Waits until `done` says so of all events so far; false when `limit` was over or the feed ended first.
    pub fn wait(&self, limit: Duration, mut done: impl FnMut(&[Event]) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.state.lock().unwrap();
        loop {
            if done(&state.events) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return false;
            }
            (state, _) = self.shared.more.wait_timeout(state, left).unwrap();
        }
    }

    /// Waits until at least one event fits.
    pub fn wait_for(&self, limit: Duration, fits: impl Fn(&Event) -> bool) -> bool {
        let mut seen = 0;
        self.wait(limit, |events| {
            let found = events.iter().skip(seen).any(&fits);
            seen = events.len();
            found
        })
    }

    /// Begins to say what is expected; `what` heads the report of a failure.
    pub fn expect(&self, what: impl Into<String>) -> Expect<'_> {
        Expect::new(self, what.into())
    }

    /// Lines that were no JSON event.
    pub fn broken_lines(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().broken.clone()
    }

    /// Nothing more will come.
    pub fn ended(&self) -> bool {
        self.shared.state.lock().unwrap().ended
    }

    /// The follower's pid.
    pub fn pid(&self) -> u32 {
        self.follower.id()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // The follower may have ended by itself with the daemon.
        self.follower.kill().ok();
        self.follower.wait().ok();
        if let Some(reader) = self.reader.take() {
            reader.join().ok();
        }
    }
}

fn read_all(lines: BufReader<ChildStdout>, shared: &Shared) {
    for line in lines.split(b'\n') {
        let Ok(line) = line else { break };
        let parsed = serde_json::from_slice::<Event>(&line);
        let mut state = shared.state.lock().unwrap();
        match parsed {
            Ok(event) => state.events.push(event),
            Err(error) => state.broken.push(format!("{error}: {}", String::from_utf8_lossy(&line))),
        }
        drop(state);
        shared.more.notify_all();
    }
    shared.state.lock().unwrap().ended = true;
    shared.more.notify_all();
}
