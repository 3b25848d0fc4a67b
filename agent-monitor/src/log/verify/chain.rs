//! The verifier's state from line to line.

mod passed;

use std::collections::BTreeMap;

use passed::Passed;

use super::{Damage, Kind, Options, Report};
use crate::log::merkle::{Frontier, Hash, leaf};
use crate::log::note::{self, Checkpoint, NoteError, PublicKey};
use crate::log::segment::{self, Header, Line, sealed};
use crate::log::writer::LATE;

/// Leaves since the last checkpoint that are remembered, to tell what was moved from what was put in.
const RECENT: usize = 1 << 20;

/// Takes the lines of a log in order.
#[derive(Debug)]
pub struct Verifier<'a> {
    options: &'a Options,
    report: Report,
    file: String,
    /// The number that the file's name gives to its first record.
    named: u64,
    /// No line of this file was read yet.
    at_start: bool,
    header: Option<Header>,
    /// The segment before was not read, or where reading begins.
    passed: Option<Passed>,
    frontier: Frontier,
    /// The tree at the last checkpoint, and the leaves since.
    sealed: Frontier,
    recent: Vec<Hash>,
    last: Option<Checkpoint>,
    number: u64,
    /// Index of the key in force among the options' keys.
    key: Option<usize>,
    said: Said,
    /// Runs of records that are not there, and those that the log says were removed.
    holes: Vec<(u64, u64)>,
    declared: Vec<(u64, u64)>,
    copies: BTreeMap<u64, Vec<Checkpoint>>,
    suspect: Option<Suspect>,
    /// A checkpoint that stands too late, or records that were put in before it: the next checkpoint tells.
    late: Option<Damage>,
    torn: bool,
    /// Nobody wanted the rest.
    stopped: bool,
}

/// What records since the last checkpoint declare.
#[derive(Debug, Default)]
struct Said {
    clock: bool,
    gap: bool,
}

/// Something that does not fit, and what comes next tells what it is.
#[derive(Debug)]
enum Suspect {
    /// Record `got` where `due` was.
    Record { due: u64, got: u64, lines: u32 },
    /// A checkpoint over more records than came before it.
    Early { checkpoint: Box<Checkpoint>, tree: Frontier },
}

impl<'a> Verifier<'a> {
    /// Before the first line.
    #[must_use]
    pub fn new(options: &'a Options) -> Self {
        let mut copies: BTreeMap<u64, Vec<Checkpoint>> = BTreeMap::new();
        for copy in &options.copies {
            if let Ok((text, _)) = note::open(copy, &options.keys)
                && let Ok(checkpoint) = Checkpoint::parse(text)
            {
                copies.entry(checkpoint.size).or_default().push(checkpoint);
            }
        }
        Self {
            options,
            report: Report::new(),
            file: String::new(),
            named: 0,
            at_start: true,
            header: None,
            passed: None,
            frontier: Frontier::default(),
            sealed: Frontier::default(),
            recent: Vec::new(),
            last: None,
            number: 0,
            key: None,
            said: Said::default(),
            holes: Vec::new(),
            declared: Vec::new(),
            copies,
            suspect: None,
            late: None,
            torn: false,
            stopped: false,
        }
    }

    /// Begins a file whose name says that it begins with record `first`.
    pub fn file(&mut self, name: String, first: u64) {
        if std::mem::take(&mut self.torn) {
            self.settle();
            self.fail(Kind::Changed, "the segment ends with half a line, and another one follows");
        }
        self.file = name;
        self.named = first;
        self.at_start = true;
    }

    /// There is damage already.
    #[must_use]
    pub fn failed(&self) -> bool {
        !self.report.damage.is_empty()
    }

    /// Notes the first damage, at the next record.
    pub fn fail(&mut self, kind: Kind, message: &str) {
        self.damage(kind, Some(self.due()), None, message.to_owned());
    }

    fn damage(&mut self, kind: Kind, record: Option<u64>, checkpoint: Option<u64>, message: String) {
        if self.report.damage.is_empty() {
            let file = (!self.file.is_empty()).then(|| self.file.clone());
            let found = Damage { kind, record, checkpoint, file, message };
            // What comes after the place does not hold either: so records were put in.
            let late = self.late.take().map(|late| Damage { kind: Kind::Inserted, ..late });
            self.report.damage.push(late.unwrap_or(found));
        }
    }

    /// Takes a line, its end included. Whether to go on.
    pub fn line(&mut self, line: &[u8]) -> bool {
        let Some(whole) = line.strip_suffix(b"\n") else {
            self.torn = true;
            return true;
        };
        self.parsed(segment::parse(whole).as_ref())
    }

    /// The same, where the line was read already; `None` is a line that is none of a log.
    pub fn parsed(&mut self, line: Option<&Line<'_>>) -> bool {
        let due = self.due();
        let Some(line) = line else {
            self.settle();
            self.damage(Kind::Changed, Some(due), None, "a line that is none of a log".to_owned());
            return false;
        };
        if self.at_start != matches!(line, Line::Header(_)) {
            self.settle();
            self.damage(
                Kind::Changed,
                Some(due),
                None,
                "the first line of the segment is not its header".to_owned(),
            );
            return false;
        }
        if self.suspect.is_some() {
            return self.resolve(line);
        }
        match line {
            Line::Header(header) => self.header(Header::clone(header)),
            Line::Record { number, mark, json } => self.record(*number, *mark, json),
            Line::Checkpoint(note) => self.checkpoint(note),
            Line::Rotation(note) => self.rotation(note),
        }
        !self.failed()
    }

    fn header(&mut self, header: Header) {
        self.at_start = false;
        let due = self.due();
        let Some(frontier) = header.frontier().filter(|_| header.first == self.named) else {
            let message = "the header does not fit the segment's name or its own tree".to_owned();
            return self.damage(Kind::Changed, Some(due), None, message);
        };
        let known = self.options.keys.iter().any(|key| key.to_string() == header.key);
        if !known {
            let message = format!("the segment names the key {}, which is not one to trust", header.key);
            return self.damage(Kind::OtherKey, Some(due), None, message);
        }
        if self.report.origin.as_ref().is_some_and(|before| *before != header.origin) {
            let message = "the segment is of another log".to_owned();
            return self.damage(Kind::Inserted, Some(due), None, message);
        }
        let first = self.report.origin.is_none();
        let passed = self.passed.take();
        if header.first < due {
            let message = format!("the segment begins with record {} a second time", header.first);
            return self.damage(Kind::Inserted, Some(header.first), None, message);
        }
        if header.first > due {
            self.holes.push((due, header.first));
            // What bridges the hole is proven by the next checkpoint over it.
            self.take_up(frontier, header.checkpoint);
        } else if let Some(passed) = passed {
            let fits = passed.number.is_none_or(|number| number == header.checkpoint)
                && passed.last.as_ref().is_none_or(|last| last.root == frontier.root());
            if !fits {
                let message = "the header does not follow the segment before".to_owned();
                return self.damage(Kind::Changed, Some(due), None, message);
            }
            self.take_up(frontier, header.checkpoint);
            self.last = passed.last;
        } else if first {
            self.take_up(frontier, header.checkpoint);
        } else if frontier != self.frontier || header.checkpoint != self.number {
            let message = "the header's tree is not that of the records before it".to_owned();
            return self.damage(Kind::Changed, Some(due), None, message);
        }
        if first {
            self.report.first = header.first;
            self.report.origin = Some(header.origin.clone());
        }
        self.header = Some(header);
    }

    fn take_up(&mut self, frontier: Frontier, number: u64) {
        self.sealed = frontier.clone();
        self.recent.clear();
        self.frontier = frontier;
        self.number = number;
        self.last = None;
    }

    fn record(&mut self, number: u64, mark: [u8; 8], json: &[u8]) {
        let due = self.frontier.size();
        let hash = leaf(json);
        if !hash.starts_with(&mark) {
            let message = format!("record {due} is not the one that was written");
            return self.damage(Kind::Changed, Some(due), None, message);
        }
        if number != due {
            self.suspect = Some(Suspect::Record { due, got: number, lines: 0 });
            return;
        }
        self.frontier.push(hash);
        if self.recent.len() < RECENT {
            self.recent.push(hash);
        }
        self.report.records += 1;
        self.listen(json);
        self.compare_copies();
    }

    /// Notes what a record of the log about itself declares.
    fn listen(&mut self, json: &[u8]) {
        let head = json.get(..json.len().min(200)).unwrap_or_default();
        let is = |kind: &str| head.windows(kind.len()).any(|part| part == kind.as_bytes());
        if is("\"kind\":\"log.clock\"") {
            self.said.clock = true;
        } else if is("\"kind\":\"log.opened\"") || is("\"kind\":\"gap.") {
            self.said.gap = true;
        } else if is("\"kind\":\"log.retained\"") {
            self.declared.extend(sealed::removed(json));
        }
    }

    fn compare_copies(&mut self) {
        let Some(copies) = self.copies.remove(&self.frontier.size()) else { return };
        let ours = self.header.as_ref().map(|header| header.origin.clone());
        for copy in copies.into_iter().filter(|copy| Some(&copy.origin) == ours.as_ref()) {
            if copy.root != self.frontier.root() {
                let (record, number) = (self.sealed.size(), copy.number);
                let message =
                    format!("the log is not the one that the copy of checkpoint {number} was made of");
                return self.damage(Kind::Changed, Some(record), Some(number), message);
            }
            self.report.copies += 1;
            // Kept for the end: an idle log can be rolled back without a record less.
            self.copies.entry(u64::MAX).or_default().push(copy);
        }
    }

    fn checkpoint(&mut self, note: &str) {
        let (due, next) = (self.frontier.size(), self.number + 1);
        let opened =
            note::open(note, &self.options.keys).and_then(|(text, key)| Ok((Checkpoint::parse(text)?, key)));
        let (checkpoint, key) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let kind =
                    if matches!(error, NoteError::OtherKey(_)) { Kind::OtherKey } else { Kind::Changed };
                return self.damage(kind, Some(due), Some(next), format!("checkpoint {next}: {error}"));
            }
        };
        let key = self.options.keys.iter().position(|known| known == key);
        if self.key > key {
            let message = format!("checkpoint {next} is sealed with a key that had handed over before");
            return self.damage(Kind::OtherKey, Some(due), Some(next), message);
        }
        let number = checkpoint.number;
        if self.header.as_ref().is_some_and(|header| header.origin != checkpoint.origin) {
            let message = format!("checkpoint {number} is one of another log");
            return self.damage(Kind::Inserted, Some(due), Some(number), message);
        }
        if number <= self.number {
            let message = format!("checkpoint {number} stands after checkpoint {}", self.number);
            let again = self.last.as_ref() == Some(&checkpoint);
            let kind = if again { Kind::Inserted } else { Kind::Reordered };
            return self.damage(kind, Some(due), Some(number), message);
        }
        if checkpoint.size > due {
            let tree = self.frontier.clone();
            self.suspect = Some(Suspect::Early { checkpoint: Box::new(checkpoint), tree });
            return;
        }
        if checkpoint.size < due {
            return self.too_many(&checkpoint);
        }
        if number != next {
            let message = format!("checkpoints {next} to {} are missing", number - 1);
            return self.damage(Kind::Removed, Some(due), Some(next), message);
        }
        if checkpoint.root != self.frontier.root() {
            let from = self.sealed.size();
            let message =
                format!("of the records {from} to {} one or more were rewritten", due.saturating_sub(1));
            return self.damage(Kind::Changed, Some(from), Some(number), message);
        }
        if let Some(late) = self.late.take() {
            self.report.damage.push(late);
            return;
        }
        self.times(&checkpoint);
        self.compare_copies();
        self.key = key;
        self.number = number;
        self.report.checkpoints += 1;
        self.sealed = self.frontier.clone();
        self.recent.clear();
        self.said = Said::default();
        self.last = Some(checkpoint);
    }

    /// More records than the checkpoint seals: put in, or moved before it.
    fn too_many(&mut self, checkpoint: &Checkpoint) {
        let mut tree = self.sealed.clone();
        let count = checkpoint.size.checked_sub(tree.size()).and_then(|count| usize::try_from(count).ok());
        let leaves = count.and_then(|count| self.recent.get(..count)).unwrap_or_default();
        leaves.iter().for_each(|leaf| tree.push(*leaf));
        let moved = tree.size() == checkpoint.size && tree.root() == checkpoint.root;
        let message = format!(
            "{} records stand before checkpoint {}, which seals {}",
            self.frontier.size(),
            checkpoint.number,
            checkpoint.size
        );
        if !moved {
            return self.damage(Kind::Inserted, Some(self.sealed.size()), Some(checkpoint.number), message);
        }
        let (record, number) = (Some(checkpoint.size), Some(checkpoint.number));
        let file = (!self.file.is_empty()).then(|| self.file.clone());
        self.late = Some(Damage { kind: Kind::Reordered, record, checkpoint: number, file, message });
        self.recent.drain(..count.unwrap_or(0));
        self.sealed = tree;
        self.number = checkpoint.number;
        self.last = Some(checkpoint.clone());
    }

    fn times(&mut self, checkpoint: &Checkpoint) {
        let Some(last) = &self.last else { return };
        let (number, from, to) = (checkpoint.number, last.time, checkpoint.time);
        let same_boot = last.boot.0 == checkpoint.boot.0;
        let nanos = checkpoint.boot.1.saturating_sub(last.boot.1);
        let late = !same_boot || last.closed || nanos > LATE * last.interval * 1_000_000_000;
        let sealed = Some(self.sealed.size());
        if same_boot && checkpoint.boot.1 < last.boot.1 {
            let message = format!("the time since boot goes back at checkpoint {number}");
            return self.damage(Kind::ClockBack, sealed, Some(number), message);
        }
        if to < from && !self.said.clock {
            let message = format!(
                "the clock goes back at checkpoint {number}, from {from} to {to}, and no record says so"
            );
            return self.damage(Kind::ClockBack, sealed, Some(number), message);
        }
        if late && !self.said.gap {
            let message = format!("nothing was sealed from {from} to {to}, and no record says why");
            self.damage(Kind::UndeclaredGap, sealed, Some(number), message);
        }
    }

    fn rotation(&mut self, note: &str) {
        let due = self.frontier.size();
        match note::open_rotation(note, &self.options.keys) {
            Ok((next, _)) => {
                let at = self.options.keys.iter().position(|key| *key == next);
                if at.is_none() || at < self.key {
                    let message = "a key hands over to one that is not to be trusted".to_owned();
                    return self.damage(Kind::OtherKey, Some(due), None, message);
                }
                self.key = at;
            }
            Err(error) => self.damage(Kind::Changed, Some(due), None, format!("a change of keys: {error}")),
        }
    }

    /// Looks at the line after something that did not fit.
    fn resolve(&mut self, line: &Line<'_>) -> bool {
        match (&mut self.suspect, line) {
            (Some(Suspect::Record { due, got, lines }), Line::Record { number, .. }) => {
                let (due, got) = (*due, *got);
                *lines += 1;
                if *number == due + 1 && *lines == 1 && got != due + 1 {
                    let message = format!("record {due} has the number {got}");
                    self.damage(Kind::Changed, Some(due), None, message);
                } else if *number == due && got > due {
                    let message = format!("record {due} stands after record {got}");
                    self.damage(Kind::Reordered, Some(due), None, message);
                } else if got < due || *lines == u32::MAX {
                    self.settle();
                }
            }
            (Some(Suspect::Early { checkpoint, tree }), Line::Record { number, json, .. }) => {
                let have = self.frontier.size();
                if *number > tree.size() && tree.size() == have {
                    let message = format!("the records {have} to {} are missing", number - 1);
                    let checkpoint = checkpoint.number;
                    self.damage(Kind::Removed, Some(have), Some(checkpoint), message);
                    return false;
                }
                tree.push(leaf(json));
                if *number + 1 == tree.size()
                    && (tree.size(), tree.root()) == (checkpoint.size, checkpoint.root)
                {
                    let (number, size) = (checkpoint.number, checkpoint.size);
                    let message = format!(
                        "checkpoint {number} stands before records that it seals, up to {}",
                        size - 1
                    );
                    self.damage(Kind::Reordered, Some(self.frontier.size()), Some(number), message);
                } else if *number + 1 != tree.size() || tree.size() >= checkpoint.size {
                    self.settle();
                }
            }
            // A key change says nothing about records.
            (_, Line::Rotation(_)) => {}
            _ => self.settle(),
        }
        !self.failed()
    }

    /// Nothing more is known about what did not fit.
    fn settle(&mut self) {
        match self.suspect.take() {
            Some(Suspect::Record { due, got, .. }) if got < due => {
                let message = format!("record {got} stands a second time, where {due} is due");
                self.damage(Kind::Inserted, Some(due), None, message);
            }
            Some(Suspect::Record { due, got, .. }) => {
                let message = format!("the records {due} to {} are missing", got - 1);
                self.damage(Kind::Removed, Some(due), None, message);
            }
            Some(Suspect::Early { checkpoint, .. }) => {
                let (from, have) = (self.sealed.size(), self.frontier.size());
                let Checkpoint { number: checkpoint, size, .. } = *checkpoint;
                let message = format!(
                    "checkpoint {checkpoint} seals {size} records, but there are {have}; missing after {from}"
                );
                self.damage(Kind::Removed, Some(from), Some(checkpoint), message);
            }
            None => {}
        }
    }

    /// After the last line.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.settle();
        self.report.damage.extend(self.late.take());
        if !self.failed() && !self.stopped {
            self.holes();
        }
        if !self.failed() && !self.stopped {
            self.end();
            self.report.open_end = self.failed();
        }
        if !self.stopped && (!self.failed() || self.report.open_end) {
            self.rolled_back();
        }
        let end = self.due();
        let mut report = self.report;
        report.end = end;
        report.sealed = if self.passed.is_some() { end } else { self.sealed.size() };
        report.last_checkpoint = self.number;
        report.sealed_until = self.last.as_ref().map(|last| last.time);
        report.keys = self.options.keys.iter().map(PublicKey::hash_hex).collect();
        report.ok = report.damage.is_empty() && !self.stopped;
        report
    }

    fn holes(&mut self) {
        for (from, to) in std::mem::take(&mut self.holes) {
            let mut at = from;
            let mut declared = self.declared.clone();
            declared.sort_unstable();
            for (first, end) in declared {
                if first <= at {
                    at = at.max(end);
                }
            }
            if at < to {
                let message = format!(
                    "the records {at} to {} are missing, and no record says that they were removed",
                    to - 1
                );
                return self.damage(Kind::Removed, Some(at), None, message);
            }
            self.report.removed_by_rule.push((from, to));
        }
    }

    fn end(&mut self) {
        let tail = if self.passed.is_some() { 0 } else { self.frontier.size() - self.sealed.size() };
        let Some(last) = self.last.clone() else {
            let message = "there is no checkpoint".to_owned();
            return self.damage(Kind::UnsealedTail, Some(self.sealed.size()), None, message);
        };
        self.report.closed = last.closed && tail == 0;
        let window = std::time::Duration::from_secs(LATE * last.interval);
        let live = self.options.now.is_some_and(|now| now.before(window) <= last.time);
        match (live, tail, self.torn, last.closed) {
            (true, ..) if !self.report.closed => {
                self.report
                    .notes
                    .push(format!("the log is being written; {tail} records wait for their checkpoint"));
            }
            (_, 0, false, true) => {}
            (_, 0, false, false) => {
                let message = format!(
                    "the log ends at checkpoint {} of {} without having been closed: its writer was ended, or the rest was cut off",
                    last.number, last.time
                );
                self.damage(Kind::Truncated, Some(self.frontier.size()), Some(last.number), message);
            }
            (_, tail, torn, _) => {
                let half = if torn { ", and half a record" } else { "" };
                let message =
                    format!("{tail} records{half} stand after the last checkpoint and are not sealed");
                self.damage(Kind::UnsealedTail, Some(self.sealed.size()), Some(last.number), message);
            }
        }
    }

    fn rolled_back(&mut self) {
        let ours = self.report.origin.clone();
        let copies = std::mem::take(&mut self.copies);
        let newest = copies.into_values().flatten().filter(|copy| Some(&copy.origin) == ours.as_ref());
        let newest = newest.max_by_key(|copy| copy.number);
        if let Some(copy) = newest.filter(|copy| copy.number > self.number) {
            let message = format!(
                "a copy of checkpoint {} over {} records exists, but the log ends at checkpoint {}: it was rolled back",
                copy.number, copy.size, self.number
            );
            // It explains an end without a seal.
            self.report.damage.clear();
            self.report.open_end = false;
            self.damage(Kind::Truncated, Some(self.frontier.size()), Some(copy.number), message);
        }
    }
}
