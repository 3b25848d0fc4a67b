//! Following a log over what is not read: what is before the place where reading begins, and closed segments that are
//! left out by their signed indexes.

use super::{Said, Verifier};
use crate::log::note::{self, Checkpoint, PublicKey};
use crate::log::segment::sealed;
use crate::log::verify::Kind;

/// What is known of a segment that was left out.
#[derive(Debug)]
pub(super) struct Passed {
    /// Number of the record after its last.
    pub(super) end: u64,
    /// Number of its last checkpoint, where that is known.
    pub(super) number: Option<u64>,
    /// That checkpoint, where it was looked at.
    pub(super) last: Option<Checkpoint>,
}

impl Verifier<'_> {
    /// Begins in the middle: what is before record `first` is not looked at.
    pub fn begin(&mut self, first: u64) {
        self.passed = Some(Passed { end: first, number: None, last: None });
    }

    /// Number of the record that comes next.
    pub(super) fn due(&self) -> u64 {
        self.passed.as_ref().map_or(self.frontier.size(), |passed| passed.end)
    }

    /// Nobody wants the rest: what comes after is not looked at.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Passes over the closed segment of the file by its index, which `key` signed for the log `origin`. `last` is the
    /// note that it ends with, where that was looked at.
    pub fn pass(&mut self, index: &sealed::Index, origin: &str, key: &PublicKey, last: Option<&str>) {
        self.settle();
        self.report.damage.extend(self.late.take());
        let due = self.due();
        let (first, end) = (index.first, index.end);
        let key = self.options.keys.iter().position(|known| known == key);
        let open = self.passed.is_none() && self.frontier.size() != self.sealed.size();
        let problem = if first != self.named || end < first {
            Some((Kind::Changed, "the index does not fit the segment's name".to_owned()))
        } else if self.report.origin.as_ref().is_some_and(|before| before != origin) {
            Some((Kind::Inserted, "the segment is of another log".to_owned()))
        } else if self.key > key {
            Some((Kind::OtherKey, "the index is signed with a key that had handed over before".to_owned()))
        } else if first < due {
            Some((Kind::Inserted, format!("the segment begins with record {first} a second time")))
        } else if open {
            Some((Kind::Removed, "the segment before does not end with a checkpoint".to_owned()))
        } else {
            None
        };
        if let Some((kind, message)) = problem {
            return self.damage(kind, Some(due.min(first)), None, message);
        }
        let last = match last.map(|note| self.ending(note, index, origin)) {
            Some(Err(message)) => {
                return self.damage(Kind::Changed, Some(end), Some(index.checkpoint), message);
            }
            Some(Ok(last)) => Some(last),
            None => None,
        };
        if first > due {
            self.holes.push((due, first));
        }
        if self.report.origin.is_none() {
            self.report.first = first;
            self.report.origin = Some(origin.to_owned());
        }
        self.key = key;
        self.declared.extend(&index.removed);
        self.number = index.checkpoint;
        self.last.clone_from(&last);
        self.said = Said::default();
        self.passed = Some(Passed { end, number: Some(index.checkpoint), last });
        self.report.passed += 1;
    }

    /// The checkpoint in `note`, if it is the one that ends the segment of `index`.
    fn ending(&self, note: &str, index: &sealed::Index, origin: &str) -> Result<Checkpoint, String> {
        let (text, _) = note::open(note, &self.options.keys).map_err(|error| error.to_string())?;
        let last = Checkpoint::parse(text).map_err(|error| error.to_string())?;
        let fits = (last.origin.as_str(), last.size, last.number) == (origin, index.end, index.checkpoint);
        if fits {
            Ok(last)
        } else {
            Err("the segment does not end with the checkpoint of its index".to_owned())
        }
    }
}
