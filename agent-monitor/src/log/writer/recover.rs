//! Finding the end of a log that was written before: whole, torn, or not to be trusted.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use crate::log::condition::{self, LastVerified, SetAside};
use crate::log::key::{self, Keys};
use crate::log::merkle::{Frontier, leaf};
use crate::log::note::{self, Checkpoint, NoteError, PublicKey, SecretKey};
use crate::log::reader;
use crate::log::segment::{self, LINE_MAX, Line, Segment, sealed};
use crate::log::{LogError, Moment};
use crate::model::{Event, Kind, Time};

/// Bytes of a torn end that are kept for the curious.
const KEPT_MAX: u64 = 64 << 20;

/// How the log was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// There was none.
    pub fresh: bool,
    /// The last writer ended in good order.
    pub closed: bool,
    /// Bytes of a half-written end that were cut off, and where they are kept.
    pub cut: Option<(u64, PathBuf)>,
    /// Whole records after the last checkpoint: kept, sealed by the next one.
    pub unsealed: u64,
    /// Time of the last checkpoint.
    pub sealed_at: Option<Time>,
    /// A log that did not hold: where it was moved, and what was wrong with it.
    pub aside: Option<SetAside>,
    /// Number of the first record that is written now.
    pub first_record: u64,
}

impl Opened {
    /// The record that says so.
    #[must_use]
    pub fn event(&self, now: &Moment) -> Event {
        let end = match (self.fresh, &self.aside, self.closed) {
            (_, Some(_), _) => "set aside",
            (true, ..) => "new",
            (_, _, true) => "closed",
            _ => "crashed",
        };
        let mut fields: Vec<(&'static str, serde_json::Value)> =
            vec![("before", end.into()), ("records", self.first_record.into())];
        if let Some(time) = self.sealed_at {
            fields.push(("sealed_until", time.to_string().into()));
        }
        if end == "crashed" {
            let lost = "records that waited in memory, not counted";
            fields.extend([("unsealed_records_kept", self.unsealed.into()), ("lost", lost.into())]);
        }
        if let Some((bytes, _)) = &self.cut {
            fields.push(("torn_bytes_cut", (*bytes).into()));
        }
        super::about(Kind::LogOpened, now.time, fields)
    }

    /// The record that names a log that was set aside.
    #[must_use]
    pub fn aside_event(&self, now: &Moment) -> Option<Event> {
        let SetAside { path, reason, last_verified, .. } = self.aside.as_ref()?;
        let mut fields = vec![("path", path.as_str().into()), ("reason", reason.as_deref().into())];
        match last_verified {
            Some(last) => fields.extend([
                ("verified_checkpoint", last.checkpoint.into()),
                ("verified_records", last.records.into()),
                ("verified_until", last.time.to_string().into()),
            ]),
            None => fields.push(("verified_checkpoint", "none".into())),
        }
        Some(super::about(Kind::LogSetAside, now.time, fields))
    }
}

/// Where to write on.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) origin: String,
    pub(super) frontier: Frontier,
    pub(super) last: Option<Checkpoint>,
    /// Number of the last checkpoint; 0 without any.
    pub(super) number: u64,
    /// The key that the last checkpoint, hand-over or header names.
    pub(super) key: Option<PublicKey>,
    /// The open segment: path, first record, bytes.
    pub(super) open: Option<(PathBuf, u64, u64)>,
}

impl Recovered {
    /// A log of its own name: two logs of one host are never taken for each other.
    pub(super) fn fresh(host: &str) -> Self {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let host = host.replace(|c: char| c.is_whitespace() || c.is_control() || c == '/', "-");
        let origin = format!("agent-monitor/{host}/{id}");
        Self { origin, frontier: Frontier::default(), last: None, number: 0, key: None, open: None }
    }
}

/// The checkpoint that the segment `before` ends with, where it is the one that `header` follows.
fn sealing(before: &Segment, header: &segment::Header, scan: &Scan) -> Option<Checkpoint> {
    let mut last = None;
    let each = &mut |line: &Line<'_>| {
        if let Line::Checkpoint(note) = line {
            last = scan.checkpoint(note).ok();
        }
        std::ops::ControlFlow::Continue(())
    };
    reader::of_one(before, each).ok()?;
    last.filter(|last| {
        (&last.origin, last.number, last.size) == (&header.origin, header.checkpoint, header.first)
    })
}

/// Finds the end. `None` where a new log is to be begun.
pub(super) fn recover(
    dir: &Path,
    keys: &Keys,
    current: &SecretKey,
    now: &Moment,
) -> Result<(Option<Recovered>, Opened), LogError> {
    let segments = segment::list(dir)?;
    let Some(last) = segments.last() else {
        return Ok((None, Opened { fresh: true, ..Opened::default() }));
    };
    let rotations = keys.rotations()?;
    let first_key = rotations.first().and_then(|note| oldest(note)).unwrap_or_else(|| current.public());
    let mut scan = Scan::new(key::chain(first_key, &rotations));
    let found = if last.sealed { whole(last, &mut scan) } else { torn(last, &mut scan) };
    match found {
        Ok(cut) => {
            for segment in segments.iter().filter(|segment| segment.sealed) {
                // Left behind by a writer that died between closing and removing.
                fs::remove_file(segment::path(dir, segment.first, false)).ok();
            }
            let Some(header) = scan.header.take() else {
                return set_aside(dir, "its first line is missing", None, now);
            };
            if scan.last.is_none() {
                // It died before the first checkpoint of this segment: the one before it ends with the last there is.
                scan.last = segments.iter().rev().nth(1).and_then(|before| sealing(before, &header, &scan));
            }
            let number = scan.last.as_ref().map_or(header.checkpoint, |last| last.number);
            let opened = Opened {
                closed: scan
                    .last
                    .as_ref()
                    .is_some_and(|last| last.closed && last.size == scan.frontier.size()),
                unsealed: scan.frontier.size() - scan.last.as_ref().map_or(header.first, |last| last.size),
                sealed_at: scan.last.as_ref().map(|last| last.time),
                cut: cut.kept,
                ..Opened::default()
            };
            if scan.key.as_ref().is_none_or(|key| super::handover(key, &current.public(), keys).is_none()) {
                let reason = "it was signed with another key, and no hand-over leads to the one here";
                return set_aside(dir, reason, scan.last.as_ref(), now);
            }
            let open = (!last.sealed).then(|| (last.path.clone(), last.first, cut.good));
            let (origin, last) = (header.origin, scan.last);
            Ok((
                Some(Recovered { origin, frontier: scan.frontier, last, number, key: scan.key, open }),
                opened,
            ))
        }
        Err(Found::Io(error)) => Err(error),
        Err(Found::Bad(reason)) => {
            let before = || {
                let header = scan.header.as_ref()?;
                sealing(segments.iter().rev().nth(1)?, header, &scan)
            };
            let last = scan.last.clone().or_else(before);
            set_aside(dir, &reason, last.as_ref(), now)
        }
    }
}

/// The key that a hand-over says is the old one; not proven by this.
fn oldest(note: &str) -> Option<PublicKey> {
    note.lines().find_map(|line| PublicKey::parse(line.strip_prefix("old ")?).ok())
}

fn set_aside(
    dir: &Path,
    reason: &str,
    last: Option<&Checkpoint>,
    now: &Moment,
) -> Result<(Option<Recovered>, Opened), LogError> {
    let path = condition::name(dir);
    let aside = SetAside {
        path: path.display().to_string(),
        at: Some(now.time),
        reason: Some(reason.to_owned()),
        last_verified: last.map(LastVerified::from),
    };
    // The note first: a directory without one would not say why.
    if let Err(error) = aside.keep() {
        tracing::error!(%error, "why the log is set aside is in the messages and in the new log alone");
    }
    fs::rename(dir, &path).map_err(LogError::on("set aside the damaged log", dir))?;
    fs::create_dir_all(dir).map_err(LogError::on("make the log directory", dir))?;
    tracing::error!(path = %path.display(), reason, "the log does not hold; it was set aside and a new one is begun");
    Ok((None, Opened { aside: Some(aside), ..Opened::default() }))
}

enum Found {
    Io(LogError),
    Bad(String),
}

#[derive(Default)]
struct Cut {
    good: u64,
    kept: Option<(u64, PathBuf)>,
}

fn whole(last: &Segment, scan: &mut Scan) -> Result<Cut, Found> {
    let mut file = segment::open(&last.path).map_err(Found::Io)?;
    let bad = |error: std::io::Error| Found::Bad(format!("{}: {error}", last.path.display()));
    let index = sealed::index(&mut file).map_err(bad)?;
    for block in &index.blocks {
        let lines = sealed::block(&mut file, block).map_err(bad)?;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let line = scan.line(line);
            line.map_err(|problem| Found::Bad(format!("{}: {}", last.path.display(), problem.text)))?;
        }
    }
    Ok(Cut::default())
}

fn torn(last: &Segment, scan: &mut Scan) -> Result<Cut, Found> {
    let path = &last.path;
    let on = |error| Found::Io(LogError::on("read the log", path)(error));
    let mut lines = BufReader::with_capacity(1 << 16, segment::open(path).map_err(Found::Io)?);
    let (mut good, mut line) = (0, Vec::new());
    let problem = loop {
        line.clear();
        let read = (&mut lines).take(LINE_MAX as u64 + 64).read_until(b'\n', &mut line).map_err(on)?;
        if read == 0 {
            return Ok(Cut { good, kept: None });
        }
        match scan.line(&line) {
            Ok(()) => good += line.len() as u64,
            Err(problem) => break problem,
        }
    };
    let Problem { text: problem, torn } = problem;
    if !torn {
        return Err(Found::Bad(format!("record {}: {problem}", scan.frontier.size())));
    }
    // A checkpoint behind the place seals more than is there: that is no crash.
    loop {
        if let Some(Line::Checkpoint(note)) = segment::parse(line.trim_ascii_end())
            && scan.checkpoint(&note).is_ok_and(|checkpoint| checkpoint.size > scan.frontier.size())
        {
            return Err(Found::Bad(format!("record {}: {problem}, but it was sealed", scan.frontier.size())));
        }
        line.clear();
        if (&mut lines).take(LINE_MAX as u64 + 64).read_until(b'\n', &mut line).map_err(on)? == 0 {
            break;
        }
    }
    if scan.header.is_none() && good == 0 {
        return Err(Found::Bad(problem));
    }
    cut(last, good).map_err(Found::Io)
}

/// Cuts the open segment after its last whole line; the rest is kept beside it.
fn cut(last: &Segment, good: u64) -> Result<Cut, LogError> {
    use std::io::{Seek as _, SeekFrom, copy};
    let path = &last.path;
    let mut file =
        OpenOptions::new().read(true).write(true).open(path).map_err(LogError::on("open", path))?;
    let length = file.metadata().map_err(LogError::on("look at", path))?.len();
    let kept = path.with_file_name(format!("{:020}-{good}.torn", last.first));
    let keep = || {
        file.seek(SeekFrom::Start(good))?;
        let mut to = fs::File::create(&kept)?;
        copy(&mut (&file).take(KEPT_MAX), &mut to)
    };
    if let Err(error) = { keep }() {
        tracing::warn!(%error, path = %kept.display(), "cannot keep the torn end");
    }
    file.set_len(good).and_then(|()| file.sync_all()).map_err(LogError::on("cut the torn end of", path))?;
    Ok(Cut { good, kept: Some((length - good, kept)) })
}

/// A line that does not fit.
struct Problem {
    text: String,
    /// As a write that was cut short leaves it: not a line at all, or not the bytes that its hash is of.
    torn: bool,
}

impl From<&str> for Problem {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), torn: true }
    }
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self { text, torn: false }
    }
}

/// Follows the lines of one segment.
struct Scan {
    keys: Vec<PublicKey>,
    header: Option<segment::Header>,
    frontier: Frontier,
    last: Option<Checkpoint>,
    key: Option<PublicKey>,
}

impl Scan {
    fn new(keys: Vec<PublicKey>) -> Self {
        Self { keys, header: None, frontier: Frontier::default(), last: None, key: None }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Problem> {
        let line = line.strip_suffix(b"\n").ok_or("the line has no end")?;
        let line = segment::parse(line).ok_or("not a line of a log")?;
        if self.header.is_none() != matches!(line, Line::Header(_)) {
            return Err("the first line is not the header".to_owned().into());
        }
        match line {
            Line::Header(header) => {
                self.frontier = header.frontier().ok_or("the header's tree does not fit")?;
                self.key = PublicKey::parse(&header.key).ok();
                self.header = Some(*header);
            }
            Line::Record { number, mark, json } => {
                let hash = leaf(json);
                if number != self.frontier.size() {
                    return Err(format!("record {number} where {} is due", self.frontier.size()).into());
                }
                if !hash.starts_with(&mark) {
                    return Err("the record does not fit its hash".into());
                }
                self.frontier.push(hash);
            }
            Line::Checkpoint(note) => {
                let checkpoint = self.checkpoint(&note)?;
                let number = self.last.as_ref().map_or_else(
                    || self.header.as_ref().map_or(0, |header| header.checkpoint),
                    |last| last.number,
                );
                if (checkpoint.size, checkpoint.root) != (self.frontier.size(), self.frontier.root()) {
                    return Err(format!("checkpoint {} does not fit the records", checkpoint.number).into());
                }
                if checkpoint.number != number + 1 {
                    return Err(format!("checkpoint {} after {number}", checkpoint.number).into());
                }
                self.last = Some(checkpoint);
            }
            Line::Rotation(note) => {
                self.key = Some(note::open_rotation(&note, &self.keys).map_err(|e| e.to_string())?.0);
            }
        }
        Ok(())
    }

    fn checkpoint(&self, note: &str) -> Result<Checkpoint, Problem> {
        let problem = |error: NoteError| Problem {
            text: format!("a checkpoint: {error}"),
            torn: !matches!(error, NoteError::OtherKey(_)),
        };
        let (text, _) = note::open(note, &self.keys).map_err(problem)?;
        let checkpoint = Checkpoint::parse(text).map_err(problem)?;
        let ours = self.header.as_ref().is_none_or(|header| header.origin == checkpoint.origin);
        if ours { Ok(checkpoint) } else { Err("a checkpoint of another log".to_owned().into()) }
    }
}
