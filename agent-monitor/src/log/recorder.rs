//! The thread that writes the log, and the bounded queue before it.
//!
//! Whoever offers an event never waits: not for the disk, not for the thread. What the queue cannot take, or the disk
//! does not, is counted, and one gap record stands for it at the place in the order where it was missed.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::condition::{Condition, SetAside};
use super::copies::{Copied, Sockets};
use super::key::Keys;
use super::writer::{Opened, Unwritten, Writer, about};
use super::{LogError, Moment, OnFull, Settings, retention};
use crate::model::{Event, Gap, Kind, Time};

/// Events are gathered for this long before they are written.
const GATHER: Duration = Duration::from_millis(50);
/// After a failed write, the next try.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks at what is too old, and at the holds.
const RETENTION: Duration = Duration::from_secs(60);
/// File that keeps room for what must be said on a full disk, and its bytes.
const RESERVE: &str = "reserve";
const RESERVE_BYTES: u64 = 256 << 10;
/// Bytes that are staged at the most before they are written.
const STAGED: usize = 1 << 20;

/// How the log is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    /// `writing`, `full`, `failed` or `closed`.
    pub state: String,
    /// The worst of what is known of it.
    #[serde(default)]
    pub condition: Condition,
    /// Why it is not writing.
    pub problem: Option<String>,
    /// Since when.
    #[serde(default)]
    pub since: Option<Time>,
    /// Logs that were set aside and still stand there.
    #[serde(default)]
    pub set_aside: Vec<SetAside>,
    /// Bytes of an unfinished end that were cut off at this start, and where they are kept.
    #[serde(default)]
    pub cut: Option<(u64, String)>,
    /// The directory.
    pub directory: String,
    /// Durability: `checkpoint` or `always`.
    pub sync: super::Sync,
    /// Records in it.
    pub records: u64,
    /// Number of the last checkpoint.
    pub checkpoint: u64,
    /// When it was made.
    pub sealed_at: Option<Time>,
    /// Events that could not be written since the start.
    pub lost: u64,
    /// Events that wait now, and the most that ever did.
    pub waiting: u64,
    /// See `waiting`.
    pub waiting_peak: u64,
    /// Where copies of checkpoints go.
    pub copies: Copied,
    /// Bytes on disk at the last look.
    pub bytes: u64,
    /// Segments kept by a hold at the last look.
    pub held: u64,
}

/// A running log. Shared behind an `Arc`.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    bound: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
    status: Mutex<LogStatus>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Item>,
    peak: usize,
    lost: u64,
    closing: bool,
}

#[derive(Debug)]
enum Item {
    Event(Arc<Event>),
    Missed(Gap),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gap(reason: &str, count: u64, first: Time, last: Time) -> Gap {
    Gap { reason: reason.to_owned(), kind: None, agent: None, count, first, last }
}

impl Recorder {
    /// Opens the log of a state directory and starts its thread. `clock` is asked from that thread.
    ///
    /// # Errors
    /// When the log cannot be opened or the thread not be started.
    pub fn start(
        state: &Path,
        settings: Settings,
        host: &str,
        sockets: Sockets,
        clock: impl Fn() -> Moment + Send + 'static,
    ) -> Result<(Arc<Self>, Opened), LogError> {
        let dir = state.join(super::DIRECTORY);
        let (writer, opened) = Writer::open(&dir, Keys::in_state(state), settings.clone(), host, &clock())?;
        let status = LogStatus {
            state: "writing".to_owned(),
            directory: dir.display().to_string(),
            sync: settings.sync,
            records: writer.size(),
            cut: opened.cut.as_ref().map(|(bytes, kept)| (*bytes, kept.display().to_string())),
            ..LogStatus::default()
        };
        let shared = Arc::new(Shared {
            bound: settings.queue,
            queue: Mutex::default(),
            wake: Condvar::new(),
            status: Mutex::new(status),
        });
        let work = Work {
            shared: Arc::clone(&shared),
            writer,
            state: state.to_owned(),
            dir: dir.clone(),
            settings,
            sockets,
            clock: Box::new(clock),
            missed: None,
            roomless: false,
            undeclared: Vec::new(),
            holds: None,
        };
        let thread = Builder::new().name("log".to_owned()).spawn(move || work.run());
        let thread = thread.map_err(LogError::on("start the thread that writes", &dir))?;
        Ok((Arc::new(Self { shared, thread: Mutex::new(Some(thread)) }), opened))
    }

    /// Hands an event over. Never waits; what does not fit is counted.
    pub fn offer(&self, event: &Arc<Event>) {
        let mut queue = lock(&self.shared.queue);
        let behind = matches!(queue.waiting.back(), Some(Item::Missed(_)));
        // Once behind, half of the queue must be written first: few long gaps, not many short ones.
        let bound = if behind { self.shared.bound.div_ceil(2) } else { self.shared.bound };
        if queue.waiting.len() < bound {
            let first = queue.waiting.is_empty();
            queue.waiting.push_back(Item::Event(Arc::clone(event)));
            queue.peak = queue.peak.max(queue.waiting.len());
            let half = queue.waiting.len() == self.shared.bound / 2;
            drop(queue);
            if first || half {
                self.shared.wake.notify_one();
            }
            return;
        }
        queue.lost += 1;
        if let Some(Item::Missed(gap)) = queue.waiting.back_mut() {
            gap.count += 1;
            gap.last = event.time;
        } else {
            queue.waiting.push_back(Item::Missed(gap("log_queue_full", 1, event.time, event.time)));
        }
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> LogStatus {
        let status = lock(&self.shared.status).clone();
        let queue = lock(&self.shared.queue);
        LogStatus {
            waiting: queue.waiting.len() as u64,
            waiting_peak: queue.peak as u64,
            lost: status.lost + queue.lost,
            ..status
        }
    }

    /// Writes what waits, seals it, and ends the thread.
    pub fn close(&self) {
        lock(&self.shared.queue).closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the log panicked");
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the thread has.
struct Work {
    shared: Arc<Shared>,
    writer: Writer,
    state: PathBuf,
    dir: PathBuf,
    settings: Settings,
    sockets: Sockets,
    clock: Box<dyn Fn() -> Moment + Send>,
    /// What the disk did not take, to be told when it does again.
    missed: Option<Gap>,
    /// Runs of records that were removed to make room, and no sealed record says so yet.
    undeclared: Vec<(u64, u64)>,
    /// No room could be kept for a full disk, which was said.
    roomless: bool,
    /// The holds at the last look.
    holds: Option<Vec<retention::Hold>>,
}

impl Work {
    fn run(mut self) {
        self.reserve();
        let mut seal = Instant::now();
        let mut clean = Instant::now();
        loop {
            let due = seal.min(clean).saturating_duration_since(Instant::now());
            let (items, closing) = self.take(due);
            let idle = items.is_empty();
            if !items.is_empty() {
                self.write(items);
            }
            let now = Instant::now();
            if now >= clean {
                self.retain();
                clean = now + RETENTION;
            }
            if closing && idle {
                self.seal(true);
                lock(&self.shared.status).state = "closed".to_owned();
                return;
            }
            if now >= seal || self.writer.is_due() {
                let sealed = self.seal(false);
                seal = now + if sealed { self.settings.interval } else { RETRY };
                if sealed && self.writer.is_due() {
                    self.roll();
                }
            }
        }
    }

    /// Waits for events, gathers for a moment, and takes them.
    fn take(&self, due: Duration) -> (VecDeque<Item>, bool) {
        let queue = lock(&self.shared.queue);
        let idle = |queue: &mut Queue| queue.waiting.is_empty() && !queue.closing;
        let (queue, _) =
            self.shared.wake.wait_timeout_while(queue, due, idle).unwrap_or_else(PoisonError::into_inner);
        let half = self.shared.bound / 2;
        let few = |queue: &mut Queue| queue.waiting.len() < half && !queue.closing;
        let gather = if queue.waiting.is_empty() { Duration::ZERO } else { GATHER };
        let (mut queue, _) =
            self.shared.wake.wait_timeout_while(queue, gather, few).unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut queue.waiting), queue.closing)
    }

    fn write(&mut self, items: VecDeque<Item>) {
        for item in items {
            if self.missed.is_some() && !self.told() {
                self.miss_item(&item);
                continue;
            }
            match item {
                Item::Event(event) => self.writer.append(&event),
                Item::Missed(gap) => self.writer.append(&Event::gap(gap.last, Kind::GapLog, gap)),
            }
            if self.writer.staged_bytes() >= self.staged() {
                self.flush();
                // A batch can be larger than a segment.
                if self.writer.is_due() && self.seal(false) {
                    self.roll();
                }
            }
        }
        self.flush();
    }

    /// Bytes that are staged before they are written: a part of a segment, so that none grows much over its size.
    fn staged(&self) -> usize {
        usize::try_from(self.settings.segment_bytes / 4).map_or(STAGED, |part| part.min(STAGED))
    }

    fn flush(&mut self) {
        if let Err(unwritten) = self.writer.flush() {
            self.failed(unwritten);
        }
        let mut status = lock(&self.shared.status);
        status.records = self.writer.size();
    }

    /// Tries to write the gap record for what was missed before; whether the disk takes records again.
    fn told(&mut self) -> bool {
        let Some(missed) = self.missed.take() else { return true };
        self.writer.append(&Event::gap(missed.last, Kind::GapLog, missed.clone()));
        match self.writer.flush() {
            Ok(()) => {
                self.writes();
                true
            }
            Err(unwritten) => {
                self.missed = Some(missed);
                self.note(&unwritten.error);
                false
            }
        }
    }

    fn miss_item(&mut self, item: &Item) {
        match item {
            Item::Event(event) => self.miss("not_written", 1, event.time, event.time),
            // Counted when it was missed.
            Item::Missed(gap) => {
                if let Some(missed) = &mut self.missed {
                    missed.count += gap.count;
                    missed.last = missed.last.max(gap.last);
                }
            }
        }
    }

    fn miss(&mut self, reason: &str, count: u64, first: Time, last: Time) {
        lock(&self.shared.status).lost += count;
        match &mut self.missed {
            Some(missed) => {
                missed.count += count;
                missed.last = missed.last.max(last);
            }
            None => self.missed = Some(gap(reason, count, first, last)),
        }
    }

    fn failed(&mut self, unwritten: Unwritten) {
        let Unwritten { error, count, times } = unwritten;
        let full = error.is_full();
        self.note(&error);
        if full && self.settings.on_full == OnFull::DropOldest {
            self.drop_oldest();
        }
        // A checkpoint alone that was not made is late, and says so itself.
        if count > 0 {
            let now = (self.clock)().time;
            let (first, last) = times.unwrap_or((now, now));
            self.miss(if full { "disk_full" } else { "write_failed" }, count, first, last);
        }
    }

    /// The disk takes records.
    fn writes(&self) {
        let mut status = lock(&self.shared.status);
        status.state = "writing".to_owned();
        (status.problem, status.since) = (None, None);
    }

    fn note(&self, error: &LogError) {
        let now = (self.clock)().time;
        let mut status = lock(&self.shared.status);
        let state = if error.is_full() { "full" } else { "failed" };
        if status.state != state {
            tracing::error!(%error, "the log cannot be written; what is missed is counted");
        }
        status.state = state.to_owned();
        status.since.get_or_insert(now);
        status.problem = Some(error.to_string());
    }

    /// Makes a checkpoint; whether it was made.
    fn seal(&mut self, closing: bool) -> bool {
        self.seal_with(closing, &[])
    }

    /// The same, and says that the records of `removed` go.
    fn seal_with(&mut self, closing: bool, removed: &[(u64, u64)]) -> bool {
        if self.missed.is_some() && !self.told() {
            return false;
        }
        match self.checkpoint(closing, removed) {
            Ok(()) => true,
            Err(unwritten) => {
                self.failed(unwritten);
                false
            }
        }
    }

    fn checkpoint(&mut self, closing: bool, removed: &[(u64, u64)]) -> Result<(), Unwritten> {
        let now = (self.clock)();
        let ranges = self.undeclared.iter().chain(removed);
        let ranges: Vec<serde_json::Value> =
            ranges.map(|(first, end)| serde_json::json!([first, end])).collect();
        if !ranges.is_empty() {
            self.writer.append(&about(Kind::LogRetained, now.time, [("removed", ranges.into())]));
        }
        let note = self.writer.checkpoint(&now, closing)?;
        self.undeclared.clear();
        self.writes();
        let copies = self.sockets.send(&note);
        let mut status = lock(&self.shared.status);
        status.copies = copies;
        status.records = self.writer.size();
        if let Some(last) = self.writer.last() {
            status.checkpoint = last.number;
            status.sealed_at = Some(last.time);
        }
        Ok(())
    }

    fn roll(&mut self) {
        if let Err(error) = self.writer.roll(&(self.clock)()) {
            tracing::error!(%error, "the segment cannot be closed; it is written on");
            if error.is_full() && self.settings.on_full == OnFull::DropOldest {
                self.drop_oldest();
            }
        }
    }

    /// Removes what is too old or too much, and notes new and lifted holds.
    fn retain(&mut self) {
        let now = (self.clock)().time;
        let holds = match retention::holds(&self.state) {
            Ok(holds) => holds,
            Err(error) => return tracing::error!(%error, "nothing is removed while the holds cannot be read"),
        };
        self.tell_holds(&holds, now);
        let Settings { max_age, max_bytes, .. } = self.settings;
        self.remove(retention::plan(&self.dir, &holds, now, max_age, max_bytes));
        self.reserve();
        self.holds = Some(holds);
    }

    fn tell_holds(&mut self, holds: &[retention::Hold], now: Time) {
        let Some(before) = self.holds.take() else { return };
        let new = holds.iter().filter(|hold| !before.contains(hold)).map(|hold| (Kind::LogHeld, hold));
        let old = before.iter().filter(|hold| !holds.contains(hold)).map(|hold| (Kind::LogReleased, hold));
        for (kind, hold) in new.chain(old) {
            let fields = serde_json::to_value(hold).ok().and_then(|value| value.as_object().cloned());
            let mut event = about(kind, now, []);
            event.detail = fields;
            self.writer.append(&event);
        }
        self.flush();
    }

    /// Removes the oldest segment that may go, to make room on a full disk.
    fn drop_oldest(&mut self) {
        let now = (self.clock)().time;
        let holds = retention::holds(&self.state);
        // One byte less than there is: exactly the oldest that may go.
        let plan = holds.and_then(|holds| {
            let all = retention::plan(&self.dir, &holds, now, None, None)?.bytes;
            retention::plan(&self.dir, &holds, now, None, Some(all.saturating_sub(1)))
        });
        let plan = match plan {
            Ok(plan) if plan.remove.is_empty() => return,
            Ok(plan) => plan,
            Err(error) => return tracing::error!(%error, "cannot make room"),
        };
        // What was kept for this moment lets it be said and sealed before it is done, as everywhere else.
        fs::remove_file(self.dir.join(RESERVE)).ok();
        let said = self.checkpoint(false, &plan.ranges());
        if let Err(error) = retention::remove(&self.dir, &plan) {
            tracing::error!(%error, "cannot make room");
        }
        if said.is_err() {
            // Somebody else took that room: said now, or with the first checkpoint that the disk takes.
            self.undeclared.extend(plan.ranges());
            if let Err(unwritten) = self.checkpoint(false, &[]) {
                self.note(&unwritten.error);
            }
        }
        self.reserve();
    }

    /// Keeps some room on the disk for the record that says what was removed to make more.
    fn reserve(&mut self) {
        let path = self.dir.join(RESERVE);
        if self.settings.on_full != OnFull::DropOldest {
            fs::remove_file(&path).ok();
            return;
        }
        if path.exists() {
            return;
        }
        let make = || -> io::Result<()> {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            Ok(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES)?)
        };
        let made = make();
        if let Err(error) = &made {
            if !self.roomless {
                tracing::warn!(%error, path = %path.display(), "no room is kept for a full disk");
            }
            fs::remove_file(&path).ok();
        }
        self.roomless = made.is_err();
    }

    fn remove(&mut self, plan: Result<retention::Plan, LogError>) {
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => return tracing::error!(%error, "cannot look for old segments"),
        };
        {
            let mut status = lock(&self.shared.status);
            (status.bytes, status.held) = (plan.bytes, plan.held);
        }
        if plan.remove.is_empty() {
            return;
        }
        // Said and sealed first: a hole without its record is damage.
        if self.seal_with(false, &plan.ranges())
            && let Err(error) = retention::remove(&self.dir, &plan)
        {
            tracing::error!(%error, "cannot remove old segments");
        }
    }
}

/// Why a log could not be started, for a daemon that goes on without.
#[must_use]
pub fn failed(dir: &Path, error: &LogError, since: Time) -> LogStatus {
    LogStatus {
        state: "failed".to_owned(),
        since: Some(since),
        problem: Some(error.to_string()),
        directory: dir.display().to_string(),
        ..LogStatus::default()
    }
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        Self::new(error.source.kind(), error.to_string())
    }
}

#[cfg(test)]
mod tests;
