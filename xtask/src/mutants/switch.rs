//! The switch of the mutants. Part of the instrumented copy only (`cargo xtask mutants`).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

const NOT_READ: u32 = u32::MAX;
const RECORD: u32 = u32::MAX - 1;

static ACTIVE: AtomicU32 = AtomicU32::new(NOT_READ);
static OUT: OnceLock<Mutex<File>> = OnceLock::new();
/// Tests that run now, for what threads of theirs reach
static RUNNING: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// True when the mutant of this number is switched on.
#[inline]
pub fn on(id: u32) -> bool {
    match ACTIVE.load(Ordering::Relaxed) {
        NOT_READ => {
            read();
            on(id)
        }
        RECORD => {
            record(id);
            false
        }
        active => active == id,
    }
}

#[cold]
fn read() {
    let active = if let Some(path) = std::env::var_os("AGENT_MONITOR_MUTANTS_REACHED") {
        if let Ok(file) = OpenOptions::new().append(true).create(true).open(path) {
            _ = OUT.set(Mutex::new(file));
        }
        RECORD
    } else {
        std::env::var("AGENT_MONITOR_MUTANT").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    ACTIVE.store(active, Ordering::Relaxed);
}

fn say(line: &str) {
    if let Some(out) = OUT.get() {
        _ = out.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}

/// What this thread has reached.
struct Reached {
    /// Libtest names the thread of a test after it
    test: Option<String>,
    since: Instant,
    seen: BTreeSet<(u32, String)>,
}

impl Reached {
    fn new() -> Self {
        let test = std::thread::current().name().filter(|name| name.contains("::")).map(str::to_string);
        if let Some(test) = &test {
            *RUNNING.lock().unwrap_or_else(PoisonError::into_inner).entry(test.clone()).or_default() += 1;
        }
        Self { test, since: Instant::now(), seen: BTreeSet::new() }
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        if let Some(test) = &self.test {
            RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(test);
            say(&std::format!("time\t{}\t{test}\n", self.since.elapsed().as_millis()));
        }
    }
}

std::thread_local! {
    static REACHED: RefCell<Option<Reached>> = const { RefCell::new(None) };
}

#[cold]
fn record(id: u32) {
    _ = REACHED.try_with(|reached| {
        let Ok(mut reached) = reached.try_borrow_mut() else { return };
        let reached = reached.get_or_insert_with(Reached::new);
        let tests: Vec<String> = match &reached.test {
            Some(test) => std::vec![test.clone()],
            None => RUNNING.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect(),
        };
        for test in tests {
            if reached.seen.insert((id, test.clone())) {
                say(&std::format!("at\t{id}\t{test}\n"));
            }
        }
    });
}
