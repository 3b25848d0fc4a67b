//! Logs made by someone who holds the key, each wrong in one way, so that only one check is left to notice.

use std::fs;

use super::*;
use crate::log::fake::time;
use crate::log::merkle::{Frontier, leaf};
use crate::log::note::{Checkpoint, SecretKey, rotation};
use crate::log::segment::{self, Header};

const ORIGIN: &str = "agent-monitor/host/1";

fn key(seed: u8) -> SecretKey {
    SecretKey::new("agent-monitor/host", &[seed; 32])
}

/// Writes a log line by line; checkpoints are ten seconds apart, on one boot.
struct Forger {
    dir: tempfile::TempDir,
    /// Of the segment that is written: number of its first record by name, and its lines
    file: (u64, Vec<u8>),
    tree: Frontier,
    number: u64,
    second: u64,
    notes: Vec<String>,
}

impl Forger {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut forger = Self {
            dir,
            file: (0, Vec::new()),
            tree: Frontier::default(),
            number: 0,
            second: 0,
            notes: Vec::new(),
        };
        forger.header(|_| {});
        forger.record("first").seal(1, |_| {});
        forger
    }

    fn header(&mut self, change: impl Fn(&mut Header)) -> &mut Self {
        let mut header = Header {
            version: segment::VERSION,
            origin: ORIGIN.to_owned(),
            first: self.tree.size(),
            checkpoint: self.number,
            peaks: segment::peaks(&self.tree),
            time: time(0),
            key: key(1).public().to_string(),
        };
        change(&mut header);
        segment::push_header(&mut self.file.1, &header);
        self
    }

    /// Begins a segment whose name says that it begins with record `first`.
    fn roll(&mut self, first: u64, change: impl Fn(&mut Header)) -> &mut Self {
        self.write();
        self.file = (first, Vec::new());
        self.header(change)
    }

    fn record(&mut self, kind: &str) -> &mut Self {
        self.line(&format!("{{\"seq\":{},\"kind\":\"{kind}\"}}", self.tree.size()))
    }

    fn line(&mut self, json: &str) -> &mut Self {
        let hash = leaf(json.as_bytes());
        segment::push_record(&mut self.file.1, self.tree.size(), &hash, json.as_bytes());
        self.tree.push(hash);
        self
    }

    fn seal(&mut self, by: u8, change: impl Fn(&mut Checkpoint)) -> &mut Self {
        self.number += 1;
        self.second += 10;
        let mut checkpoint = Checkpoint {
            origin: ORIGIN.to_owned(),
            size: self.tree.size(),
            root: self.tree.root(),
            number: self.number,
            time: time(self.second),
            boot: ("boot-1".to_owned(), self.second * 1_000_000_000),
            interval: 10,
            closed: false,
        };
        change(&mut checkpoint);
        let note = key(by).sign(&checkpoint.to_text());
        segment::push_note(&mut self.file.1, 'C', &note);
        self.notes.push(note);
        self
    }

    fn rotate(&mut self, from: u8, to: u8) -> &mut Self {
        segment::push_note(&mut self.file.1, 'K', &rotation(&key(from), &key(to).public(), time(0)));
        self
    }

    fn write(&self) {
        fs::write(segment::path(self.dir.path(), self.file.0, false), &self.file.1).unwrap();
    }

    fn report(&self, copies: &[String]) -> Report {
        self.write();
        let keys = vec![key(1).public(), key(2).public()];
        let options = Options { keys, copies: copies.to_vec(), ..Options::default() };
        log(self.dir.path(), &options).unwrap()
    }

    /// Closes the log in good order; what the receiver finds first.
    fn found(&mut self) -> Option<(Kind, Option<u64>)> {
        self.seal(1, |checkpoint| checkpoint.closed = true);
        self.report(&[]).damage.first().map(|damage| (damage.kind, damage.record))
    }
}

fn with(change: impl Fn(&mut Forger)) -> Option<(Kind, Option<u64>)> {
    let mut forger = Forger::new();
    change(&mut forger);
    forger.found()
}

#[test]
fn what_is_in_order_is_whole() {
    assert_eq!(with(|_| {}), None);
    assert_eq!(with(|log| _ = log.record("a").seal(1, |_| {}).roll(2, |_| {}).record("b")), None);
}

#[test]
fn a_header_is_of_its_file_its_tree_its_log_and_a_trusted_key() {
    let rolled = |first, change: fn(&mut Header)| {
        with(|log| _ = log.record("a").seal(1, |_| {}).roll(first, change).record("b"))
    };
    assert_eq!(rolled(2, |_| {}), None);
    assert_eq!(rolled(3, |_| {}), Some((Kind::Changed, Some(2))), "another name");
    assert_eq!(rolled(2, |header| header.key = key(3).public().to_string()), Some((Kind::OtherKey, Some(2))));
    assert_eq!(rolled(2, |header| header.origin.push('x')), Some((Kind::Inserted, Some(2))));
    assert_eq!(rolled(2, |header| header.checkpoint += 1), Some((Kind::Changed, Some(2))));
    let other = |header: &mut Header| {
        let mut tree = Frontier::default();
        (0..2u8).for_each(|at| tree.push(leaf(&[at])));
        header.peaks = segment::peaks(&tree);
    };
    assert_eq!(rolled(2, other), Some((Kind::Changed, Some(2))), "another tree of the same size");
    assert_eq!(rolled(2, |header| drop(header.peaks.pop())), Some((Kind::Changed, Some(2))));
}

#[test]
fn a_seal_is_of_this_log_and_in_its_turn() {
    let sealed = |change: fn(&mut Checkpoint)| with(|log| _ = log.record("a").seal(1, change).record("b"));
    assert_eq!(sealed(|_| {}), None);
    assert_eq!(sealed(|seal| seal.origin.push('x')), Some((Kind::Inserted, Some(2))));
    assert_eq!(sealed(|seal| seal.number += 1), Some((Kind::Removed, Some(2))));
    assert_eq!(sealed(|seal| seal.root[0] ^= 1), Some((Kind::Changed, Some(1))));
    assert_eq!(sealed(|seal| seal.number -= 1), Some((Kind::Reordered, Some(2))));
}

#[test]
fn a_silence_is_declared_or_found() {
    let late = |kind: &str, change: fn(&mut Checkpoint)| {
        with(|log| {
            log.record(kind).seal(1, change);
            log.second += 100;
            log.record("gap.hook");
        })
    };
    let undeclared = Some((Kind::UndeclaredGap, Some(1)));
    for (kind, nothing) in [("file.open", undeclared), ("log.opened", None), ("gap.clock", None)] {
        assert_eq!(late(kind, |seal| seal.boot.1 += 21_000_000_000), nothing, "{kind}");
        // A new boot is one, however short it was.
        let reboot = |seal: &mut Checkpoint| seal.boot.0 = "boot-0".to_owned();
        assert_eq!(late(kind, reboot), nothing, "{kind}");
    }
    assert_eq!(late("file.open", |seal| seal.boot.1 += 20_000_000_000), None, "three intervals are not late");
    // What comes after a good end is a new life, and says so.
    let reopened = |kind: &str| {
        with(|log| {
            log.record("a").seal(1, |seal| seal.closed = true);
            log.record(kind);
        })
    };
    assert_eq!((reopened("log.opened"), reopened("file.open")), (None, Some((Kind::UndeclaredGap, Some(2)))));
    // A declaration is good for one silence.
    let twice = with(|log| {
        log.record("log.opened").seal(1, |_| {});
        log.second += 100;
        log.record("a");
    });
    assert_eq!(twice, Some((Kind::UndeclaredGap, Some(2))));
}

#[test]
fn clocks_that_go_back() {
    let back = |kind: &str, change: fn(&mut Checkpoint)| {
        with(|log| _ = log.record(kind).seal(1, change).record("b"))
    };
    let wall: fn(&mut Checkpoint) = |seal| seal.time = time(5);
    assert_eq!(back("a", wall), Some((Kind::ClockBack, Some(1))));
    assert_eq!(back("log.clock", wall), None);
    assert_eq!(back("a", |seal| seal.time = time(10)), None, "standing still is not going back");
    let boot: fn(&mut Checkpoint) = |seal| seal.boot.1 = 9_000_000_000;
    assert_eq!(back("log.clock", boot), Some((Kind::ClockBack, Some(1))), "no record explains that");
}

#[test]
fn keys_hand_over_forwards_to_known_ones() {
    let after = |from, to, by| {
        let mut log = Forger::new();
        log.rotate(from, to).record("a").seal(by, |_| {}).record("b").seal(by, |seal| seal.closed = true);
        log.report(&[]).damage.first().map(|damage| damage.kind)
    };
    assert_eq!(after(1, 2, 2), None);
    assert_eq!(after(1, 2, 1), Some(Kind::OtherKey), "the old one has handed over");
    assert_eq!(after(1, 3, 1), Some(Kind::OtherKey), "to a stranger");
    assert_eq!(after(3, 2, 2), Some(Kind::Changed), "by a stranger");
    let back = with(|log| _ = log.rotate(1, 2).record("a").seal(2, |_| {}).rotate(2, 1).record("b"));
    assert_eq!(back, Some((Kind::OtherKey, Some(2))));
}

#[test]
fn holes_are_those_that_the_log_declares_and_no_record_more() {
    let hole = |declared: &str| {
        let mut log = Forger::new();
        // Records 1 to 4 go, with what held them.
        let kept = log.file.1.clone();
        (1..5).for_each(|_| _ = log.record("a"));
        log.file.1 = kept;
        log.roll(5, |_| {});
        log.line(&format!("{{\"seq\":5,\"kind\":\"log.retained\",\"detail\":{{\"removed\":{declared}}}}}"));
        log.seal(1, |seal| seal.closed = true);
        let report = log.report(&[]);
        report
            .damage
            .first()
            .map_or(Ok(report.removed_by_rule.clone()), |damage| Err((damage.kind, damage.record)))
    };
    assert_eq!(hole("[[1,5]]"), Ok(vec![(1, 5)]));
    assert_eq!(hole("[[3,5],[1,3]]"), Ok(vec![(1, 5)]), "in two runs, in any order");
    assert_eq!(hole("[[0,9]]"), Ok(vec![(1, 5)]));
    assert_eq!(hole("[[1,4]]"), Err((Kind::Removed, Some(4))));
    assert_eq!(hole("[[2,5]]"), Err((Kind::Removed, Some(1))));
    assert_eq!(hole("[[1,2],[3,5]]"), Err((Kind::Removed, Some(2))), "one between two declared runs");
    assert_eq!(hole("[]"), Err((Kind::Removed, Some(1))));
}

#[test]
fn copies_from_elsewhere_are_compared_record_by_record() {
    let build = |text: &str| {
        let mut log = Forger::new();
        log.record(text).seal(1, |_| {}).record("b").seal(1, |seal| seal.closed = true);
        log
    };
    let (ours, other) = (build("a"), build("x"));
    let whole = ours.report(&ours.notes);
    assert_eq!((whole.ok, whole.copies, whole.end, whole.last_checkpoint), (true, 3, 3, 3));
    let report = ours.report(&other.notes[1..2]);
    let damage = &report.damage[0];
    assert_eq!((damage.kind, damage.record, damage.checkpoint), (Kind::Changed, Some(1), Some(2)));
    // A copy of another log says nothing about this one, nor does one of a stranger's key.
    let mut stranger = Forger::new();
    stranger.record("x").seal(1, |seal| seal.origin.push('x')).record("b").seal(3, |_| {});
    let report = ours.report(&stranger.notes[1..]);
    assert_eq!((report.ok, report.copies), (true, 0));
}
