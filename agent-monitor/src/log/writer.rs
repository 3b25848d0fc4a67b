//! The only one who writes the log: appends, seals, begins segments, and goes on after a crash.
//!
//! Not a thread: [`super::recorder`] gives it one. Reads no clock. What was not flushed when writing fails is taken out
//! of the tree again, so that the file and the tree never disagree.

mod recover;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::condition;
use super::key::{Keys, sync_dir};
use super::merkle::{Frontier, leaf};
use super::note::{self, Checkpoint, PublicKey, SecretKey};
use super::segment::{self, Header, VERSION, sealed};
use super::{LogError, Moment, Settings, Sync};
use crate::model::{Detail, Event, Gap, Kind, Source, Time};

pub use recover::Opened;

/// Checkpoints that may be late by this many intervals before the record says so.
pub const LATE: u64 = 3;

/// Appends to one log.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    settings: Settings,
    keys: Keys,
    key: SecretKey,
    origin: String,
    file: File,
    /// Number of the first record of the open segment.
    first: u64,
    /// Bytes of the open segment that are whole.
    length: u64,
    /// At this length the segment is closed.
    roll_at: u64,
    frontier: Frontier,
    last: Option<Checkpoint>,
    /// Number of the last checkpoint; 0 without any.
    number: u64,
    /// No checkpoint was made in this life: the record that says how the log was opened covers the time before.
    opening: bool,
    /// How the log was opened, until the disk has taken it.
    unopened: Option<Opening>,
    staged: Staged,
}

/// What comes first in a life: without the record the time before is a silence, without the hand-over of a key that was
/// made while nobody wrote, what the key signs is a stranger's.
#[derive(Debug)]
struct Opening {
    event: Event,
    /// What names a log that was set aside.
    aside: Option<Event>,
    /// The key before, the notes that lead from it to the present one, and when.
    handover: Option<(PublicKey, Vec<String>, Time)>,
}

impl Opening {
    fn records(&self) -> u64 {
        1 + u64::from(self.handover.is_some()) + u64::from(self.aside.is_some())
    }
}

/// What is not in the file yet.
#[derive(Debug, Default)]
struct Staged {
    lines: Vec<u8>,
    /// The tree without it.
    before: Frontier,
    times: Option<(Time, Time)>,
}

/// Records that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unwritten {
    /// Why not.
    pub error: LogError,
    /// How many.
    pub count: u64,
    /// Times of the first and the last of them.
    pub times: Option<(Time, Time)>,
}

impl Writer {
    /// Opens the log in `dir`, or begins one, and stages the record that says so. A torn end is cut off; a log that
    /// does not hold is set aside as a whole.
    ///
    /// # Errors
    /// When directory or key cannot be used.
    pub fn open(
        dir: &Path,
        keys: Keys,
        settings: Settings,
        host: &str,
        now: &Moment,
    ) -> Result<(Self, Opened), LogError> {
        let key = keys.load_or_create(&format!("agent-monitor/{host}"))?;
        fs::create_dir_all(dir).map_err(LogError::on("make the log directory", dir))?;
        let (state, mut opened) = recover::recover(dir, &keys, &key, now)?;
        let state = match state {
            Some(state) => state,
            None => recover::Recovered::fresh(host),
        };
        let (file, first, length) = match state.open {
            Some((path, first, length)) => (append_to(&path)?, first, length),
            None => {
                let number = state.number;
                let before = state.key.clone().unwrap_or_else(|| key.public());
                let header = header(&state.origin, &state.frontier, number, &before, now);
                let (file, length) = begin(dir, &header)?;
                (file, state.frontier.size(), length)
            }
        };
        opened.first_record = state.frontier.size();
        if opened.aside.is_none() && opened.first_record == 0 {
            // Whoever set it aside ended before the new log said so.
            opened.aside = condition::set_aside(dir.parent().unwrap_or(dir)).pop();
        }
        let mut writer = Self {
            dir: dir.to_owned(),
            roll_at: settings.segment_bytes,
            settings,
            keys,
            key,
            origin: state.origin,
            file,
            first,
            length,
            staged: Staged { before: state.frontier.clone(), ..Staged::default() },
            frontier: state.frontier,
            last: state.last,
            number: state.number,
            opening: true,
            unopened: None,
        };
        let handover = state.key.filter(|before| *before != writer.key.public()).map(|before| {
            let notes = handover(&before, &writer.key.public(), &writer.keys).unwrap_or_default();
            (before, notes, now.time)
        });
        writer.stage_opening(Opening { event: opened.event(now), aside: opened.aside_event(now), handover });
        Ok((writer, opened))
    }

    /// Records so far, those not flushed included.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The last checkpoint.
    #[must_use]
    pub fn last(&self) -> Option<&Checkpoint> {
        self.last.as_ref()
    }

    /// Bytes that wait to be flushed.
    #[must_use]
    pub fn staged_bytes(&self) -> usize {
        self.staged.lines.len()
    }

    fn stage_opening(&mut self, opening: Opening) {
        self.append(&opening.event);
        opening.aside.iter().for_each(|event| self.append(event));
        if let Some((before, notes, time)) = &opening.handover {
            self.hand_over(before, notes, *time);
        }
        self.unopened = Some(opening);
    }

    /// Stages a record.
    pub fn append(&mut self, event: &Event) {
        let number = self.frontier.size();
        // No value of the type makes the serialiser fail; an empty object would still be a record.
        let json = event.to_line().unwrap_or_else(|_error| "{}".to_owned());
        let hash = leaf(json.as_bytes());
        segment::push_record(&mut self.staged.lines, number, &hash, json.as_bytes());
        self.frontier.push(hash);
        let (first, last) = self.staged.times.unwrap_or((event.time, event.time));
        self.staged.times = Some((first.min(event.time), last.max(event.time)));
    }

    /// Writes what is staged; flushes it to the disk when the settings say so.
    ///
    /// # Errors
    /// With what was not written. The log is then as if it had never been staged.
    pub fn flush(&mut self) -> Result<(), Unwritten> {
        if self.staged.lines.is_empty() {
            return Ok(());
        }
        let mut written = self.file.write_all(&self.staged.lines);
        if written.is_ok() && self.settings.sync == Sync::Always {
            written = self.file.sync_data();
        }
        match written {
            Ok(()) => {
                self.length += self.staged.lines.len() as u64;
                self.stage_anew();
                self.unopened = None;
                Ok(())
            }
            Err(source) => Err(self.unwritten(source)),
        }
    }

    fn stage_anew(&mut self) {
        let mut lines = std::mem::take(&mut self.staged.lines);
        lines.clear();
        self.staged = Staged { lines, before: self.frontier.clone(), times: None };
    }

    fn unwritten(&mut self, source: io::Error) -> Unwritten {
        // Half a line must not stay: what is appended next would become part of it.
        if let Err(error) = self.file.set_len(self.length) {
            tracing::error!(%error, "a half-written record cannot be taken back; the next start will");
        }
        let count = self.frontier.size() - self.staged.before.size();
        let times = self.staged.times;
        self.frontier = self.staged.before.clone();
        self.stage_anew();
        let count = match self.unopened.take() {
            Some(opening) => {
                let own = opening.records();
                self.stage_opening(opening);
                count.saturating_sub(own)
            }
            None => count,
        };
        let path = segment::path(&self.dir, self.first, false);
        Unwritten { error: LogError { action: "write the log", path, source }, count, times }
    }

    /// Seals what was written, and flushes it to the disk. Says first, in records, what a reader could not tell
    /// otherwise: a clock that was set back, a checkpoint that is late, a new key. Returns the note.
    ///
    /// # Errors
    /// With what was not written.
    pub fn checkpoint(&mut self, now: &Moment, closed: bool) -> Result<String, Unwritten> {
        let before = self.key.clone();
        // A key whose hand-over was not written is not taken up yet.
        self.sealed(now, closed).inspect_err(|_unwritten| self.key = before)
    }

    fn sealed(&mut self, now: &Moment, closed: bool) -> Result<String, Unwritten> {
        self.flush()?;
        self.declare(now);
        self.change_key(now);
        if closed {
            self.append(&about(Kind::LogClosed, now.time, [("records", (self.size() + 1).into())]));
        }
        let checkpoint = Checkpoint {
            origin: self.origin.clone(),
            size: self.frontier.size(),
            root: self.frontier.root(),
            number: self.number + 1,
            time: now.time,
            boot: (now.boot_id.clone(), now.boot_nanos),
            interval: self.settings.interval.as_secs().max(1),
            closed,
        };
        let note = self.key.sign(&checkpoint.to_text());
        segment::push_note(&mut self.staged.lines, 'C', &note);
        self.flush()?;
        if let Err(source) = self.file.sync_data() {
            let path = segment::path(&self.dir, self.first, false);
            let error = LogError { action: "flush the log", path, source };
            return Err(Unwritten { error, count: 0, times: None });
        }
        self.number = checkpoint.number;
        self.last = Some(checkpoint);
        self.opening = false;
        Ok(note)
    }

    fn declare(&mut self, now: &Moment) {
        let Some(last) = self.last.clone() else { return };
        let time = last.time;
        let nanos = now.boot_nanos.saturating_sub(last.boot.1);
        let late = last.boot.0 == now.boot_id && nanos > LATE * last.interval * 1_000_000_000;
        if now.time < time {
            let fields = [("from", time.to_string().into()), ("to", now.time.to_string().into())];
            self.append(&about(Kind::LogClock, now.time, fields));
        }
        if late && !self.opening {
            let gap = Gap {
                reason: "checkpoint_late".to_owned(),
                kind: None,
                agent: None,
                count: 0,
                first: time,
                last: now.time,
            };
            self.append(&Event::gap(now.time, Kind::GapLog, gap));
        }
    }

    /// Takes up a key that `key rotate` made.
    fn change_key(&mut self, now: &Moment) {
        let current = match self.keys.load() {
            Ok(key) if key.public() == self.key.public() => return,
            Ok(key) => key,
            Err(error) => return tracing::warn!(%error, "the log is signed on with the key in memory"),
        };
        let before = self.key.public();
        let Some(notes) = handover(&before, &current.public(), &self.keys) else {
            tracing::error!(
                "the key was replaced without `key rotate`; the log is signed on with the old one"
            );
            return;
        };
        self.key = current;
        self.hand_over(&before, &notes, now.time);
    }

    fn hand_over(&mut self, before: &PublicKey, notes: &[String], time: Time) {
        notes.iter().for_each(|note| segment::push_note(&mut self.staged.lines, 'K', note));
        let fields = [("old", before.to_string().into()), ("new", self.key.public().to_string().into())];
        self.append(&about(Kind::LogKey, time, fields));
    }

    /// The open segment is long enough to be closed. To be asked after a checkpoint: a closed segment ends with one.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.length >= self.roll_at
    }

    /// Closes and compresses the open segment and begins the next.
    ///
    /// # Errors
    /// When that fails; the open one is then written on.
    pub fn roll(&mut self, now: &Moment) -> Result<(), LogError> {
        self.roll_at = self.length + self.settings.segment_bytes / 4;
        let (open, closed) =
            (segment::path(&self.dir, self.first, false), segment::path(&self.dir, self.first, true));
        let new = closed.with_extension("zst.new");
        let sealed = self.seal(&open, &new);
        if let Err(error) = sealed {
            fs::remove_file(&new).ok();
            return Err(error);
        }
        fs::rename(&new, &closed).map_err(LogError::on("close the segment", &closed))?;
        sync_dir(&self.dir)?;
        let header = header(&self.origin, &self.frontier, self.number, &self.key.public(), now);
        let (file, length) = begin(&self.dir, &header)?;
        self.file = file;
        self.first = self.frontier.size();
        self.length = length;
        self.roll_at = self.settings.segment_bytes;
        fs::remove_file(&open).map_err(LogError::on("remove the closed segment's lines", &open))
    }

    /// Compresses the open segment `open` into `new`, with its signed index.
    fn seal(&self, open: &Path, new: &Path) -> Result<(), LogError> {
        let lines = BufReader::with_capacity(1 << 16, segment::open(open)?);
        let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(new);
        let mut to = BufWriter::new(to.map_err(LogError::on("make", new))?);
        sealed::seal(self.first, lines, &mut to, &self.key, &self.origin)
            .map_err(LogError::on("compress the log to", new))?;
        let file = to.into_inner().map_err(|error| LogError::on("write", new)(error.into_error()))?;
        file.sync_all().map_err(LogError::on("flush", new))
    }
}

/// The notes by which `from` hands over to `to`, in order; `None` where they do not lead there.
fn handover(from: &PublicKey, to: &PublicKey, keys: &Keys) -> Option<Vec<String>> {
    let mut notes = Vec::new();
    let mut at = from.clone();
    for note in keys.rotations().ok()? {
        if at == *to {
            break;
        }
        if let Ok((next, _)) = note::open_rotation(&note, std::slice::from_ref(&at)) {
            at = next;
            notes.push(note);
        }
    }
    (at == *to).then_some(notes)
}

fn header(origin: &str, frontier: &Frontier, checkpoint: u64, key: &PublicKey, now: &Moment) -> Header {
    Header {
        version: VERSION,
        origin: origin.to_owned(),
        first: frontier.size(),
        checkpoint,
        peaks: segment::peaks(frontier),
        time: now.time,
        key: key.to_string(),
    }
}

fn begin(dir: &Path, header: &Header) -> Result<(File, u64), LogError> {
    let path = segment::path(dir, header.first, false);
    let mut lines = Vec::new();
    segment::push_header(&mut lines, header);
    super::key::replace(&path, &lines, 0o600)?;
    Ok((append_to(&path)?, lines.len() as u64))
}

fn append_to(path: &Path) -> Result<File, LogError> {
    OpenOptions::new().append(true).open(path).map_err(LogError::on("open", path))
}

/// A record of the log about itself.
#[must_use]
pub fn about(
    kind: Kind,
    time: Time,
    fields: impl IntoIterator<Item = (&'static str, serde_json::Value)>,
) -> Event {
    let detail: Detail = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Event { detail: Some(detail), ..Event::new(time, kind, Source::Daemon) }
}

#[cfg(test)]
mod tests;
