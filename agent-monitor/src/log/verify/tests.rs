//! A log of 10,000 records, damaged in every way: all found, each by its name, none without cause.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;
use crate::log::fake::{Place, event, moment, settings};
use crate::log::note::SecretKey;
use crate::log::segment;

fn copy_of(place: &Place) -> (tempfile::TempDir, PathBuf) {
    let to = tempfile::tempdir().unwrap();
    let dir = to.path().join("log");
    fs::create_dir(&dir).unwrap();
    for entry in fs::read_dir(place.dir()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
    (to, dir)
}

/// The lines of all segments, unpacked, without headers: (lines, which are records).
fn unpack(dir: &Path) -> Vec<Vec<u8>> {
    let path = segment::path(dir, 0, false);
    fs::read(path).unwrap().split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn pack(dir: &Path, lines: &[Vec<u8>]) {
    fs::write(segment::path(dir, 0, false), lines.concat()).unwrap();
}

/// One open segment of 10,000 records, a checkpoint each hundred.
fn one() -> Place {
    Place::filled(10_000, 100, crate::log::Settings { segment_bytes: 1 << 30, ..settings() })
}

fn damage_of(place: &Place, dir: &Path, lines: &[Vec<u8>]) -> Damage {
    pack(dir, lines);
    let report = place.verify_at(dir, Vec::new());
    assert!(!report.ok, "not found");
    report.damage[0].clone()
}

fn records(lines: &[Vec<u8>]) -> Vec<usize> {
    (0..lines.len()).filter(|at| lines[*at].starts_with(b"R ")).collect()
}

fn checkpoints(lines: &[Vec<u8>]) -> Vec<usize> {
    (0..lines.len()).filter(|at| lines[*at].starts_with(b"C ")).collect()
}

/// Gives records from `from` on their numbers again, as a careful forger would.
fn renumber(lines: &mut [Vec<u8>]) {
    let at = records(lines);
    for (number, at) in at.into_iter().enumerate() {
        let line = String::from_utf8(lines[at].clone()).unwrap();
        let json = line.splitn(4, ' ').nth(3).unwrap().trim_end().to_owned();
        let mut new = Vec::new();
        let leaf = crate::log::merkle::leaf(json.as_bytes());
        segment::push_record(&mut new, number as u64, &leaf, json.as_bytes());
        lines[at] = new;
    }
}

#[test]
fn dropped_doubled_swapped_and_moved_records_are_named() {
    let place = one();
    let (_keep, dir) = copy_of(&place);
    let lines = unpack(&dir);
    assert!(place.verify().ok, "{:?}", place.verify());
    let at = records(&lines);
    for number in [0u64, 1, 99, 100, 101, 5000, 9898] {
        let here = at[number as usize];
        let with = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
            let mut lines = lines.clone();
            change(&mut lines);
            damage_of(&place, &dir, &lines)
        };
        let found = with(&|lines| drop(lines.remove(here)));
        assert_eq!((found.kind, found.record), (Kind::Removed, Some(number)), "{found:?}");
        let found = with(&|lines| lines.insert(here, lines[here].clone()));
        assert_eq!((found.kind, found.record), (Kind::Inserted, Some(number + 1)), "{found:?}");
        if lines[here + 1].starts_with(b"R ") {
            let found = with(&|lines| lines.swap(here, here + 1));
            assert_eq!((found.kind, found.record), (Kind::Reordered, Some(number)), "{found:?}");
        }
        // With numbers and hashes made to fit, the next checkpoint shows it.
        let found = with(&|lines| {
            lines.remove(here);
            renumber(lines);
        });
        assert_eq!(found.kind, Kind::Removed, "{found:?}");
        let found = with(&|lines| {
            lines.insert(here, lines[here].clone());
            renumber(lines);
        });
        assert_eq!(found.kind, Kind::Inserted, "{found:?}");
        let found = with(&|lines| {
            let line = String::from_utf8(lines[here].clone()).unwrap();
            lines[here] = line.replacen("\"seq\":", "\"seq\":1", 1).into_bytes();
            renumber(lines);
        });
        assert_eq!(found.kind, Kind::Changed, "{found:?}");
        assert!(found.record.unwrap() <= number && found.checkpoint.is_some());
    }
}

#[test]
fn every_kind_of_byte_that_is_flipped_is_found_at_its_record() {
    let place = Place::filled(200, 10, settings());
    let (_keep, dir) = copy_of(&place);
    let lines = unpack(&dir);
    let (at, seals) = (records(&lines), checkpoints(&lines));
    let (record, seal) = (at[124], seals[10]);
    for (line, wanted) in [(record, Some(124)), (seal, None), (0, None)] {
        for byte in 0..lines[line].len() {
            let mut lines = lines.clone();
            // Another letter or digit, and something that is neither.
            for flip in [0x01, 0x80] {
                lines[line][byte] ^= flip;
                let found = damage_of(&place, &dir, &lines);
                if let Some(number) = wanted
                    && byte + 1 < lines[line].len()
                {
                    assert_eq!(found.record, Some(number), "byte {byte}: {found:?}");
                    assert!(
                        matches!(found.kind, Kind::Changed | Kind::Inserted | Kind::Removed),
                        "byte {byte}: {found:?}"
                    );
                }
                lines[line][byte] ^= flip;
            }
        }
    }
}

#[test]
fn checkpoints_that_are_dropped_doubled_swapped_and_moved_are_named() {
    let place = one();
    let (_keep, dir) = copy_of(&place);
    let lines = unpack(&dir);
    let at = checkpoints(&lines);
    let with = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        damage_of(&place, &dir, &lines)
    };
    let found = with(&|lines| drop(lines.remove(at[10])));
    assert_eq!((found.kind, found.checkpoint), (Kind::Removed, Some(11)), "{found:?}");
    let found = with(&|lines| lines.insert(at[10], lines[at[10]].clone()));
    assert_eq!((found.kind, found.checkpoint), (Kind::Inserted, Some(11)), "{found:?}");
    let found = with(&|lines| lines.swap(at[10], at[11]));
    assert_eq!((found.kind, found.checkpoint), (Kind::Reordered, Some(12)), "{found:?}");
    let found = with(&|lines| lines.swap(at[10], at[10] - 1));
    assert_eq!((found.kind, found.checkpoint), (Kind::Reordered, Some(11)), "{found:?}");
    let found = with(&|lines| lines.swap(at[10], at[10] + 1));
    assert_eq!((found.kind, found.checkpoint), (Kind::Reordered, Some(11)), "{found:?}");
}

#[test]
fn a_cut_tail_is_found_wherever_it_is_cut() {
    let place = one();
    let (_keep, dir) = copy_of(&place);
    let lines = unpack(&dir);
    for cut in [lines.len() - 1, lines.len() - 2, lines.len() / 2, lines.len() / 2 + 50, 60, 1] {
        let found = damage_of(&place, &dir, &lines[..cut]);
        let at_seal = lines[cut - 1].starts_with(b"C ");
        let kind = if at_seal { Kind::Truncated } else { Kind::UnsealedTail };
        assert_eq!(found.kind, kind, "{cut}: {found:?}");
    }
    let mut half = lines[..lines.len() - 1].to_vec();
    half.last_mut().unwrap().truncate(40);
    assert_eq!(damage_of(&place, &dir, &half).kind, Kind::UnsealedTail);
}

#[test]
fn a_log_rolled_back_is_found_against_copies_from_elsewhere() {
    let place = Place::new();
    let mut writer = place.writer(settings(), 0);
    let mut copies = Vec::new();
    let mut old = None;
    for second in 1..6 {
        writer.append(&event(second));
        copies.push(writer.checkpoint(&moment(second), second == 3).unwrap());
        if second == 3 {
            old = Some(copy_of(&place));
        }
    }
    copies.push(writer.checkpoint(&moment(6), true).unwrap());
    let (_keep, dir) = old.unwrap();
    assert!(place.verify_at(&dir, copies[..3].to_vec()).ok);
    assert!(place.verify_at(&dir, Vec::new()).ok, "by itself it is whole");
    let report = place.verify_at(&dir, copies.clone());
    assert_eq!(
        (report.damage[0].kind, report.damage[0].checkpoint),
        (Kind::Truncated, Some(6)),
        "{report:?}"
    );
    let mut other = copies[1].clone();
    other = other.replacen("agent-monitor/host/", "agent-monitor/host/x", 1);
    assert!(place.verify_at(&dir, vec![other, "noise".to_owned()]).ok, "what is not signed says nothing");
}

#[test]
fn other_keys_and_old_keys_are_named() {
    let place = Place::new();
    let mut writer = place.writer(settings(), 0);
    writer.checkpoint(&moment(1), false).unwrap();
    let old = place.keys().load().unwrap();
    place.keys().rotate(Time::EPOCH).unwrap();
    writer.checkpoint(&moment(2), false).unwrap();
    writer.append(&event(3));
    writer.checkpoint(&moment(3), true).unwrap();
    assert!(place.verify().ok, "{:?}", place.verify());
    let (_keep, dir) = copy_of(&place);
    let lines = unpack(&dir);
    let last = *checkpoints(&lines).last().unwrap();
    let Some(segment::Line::Checkpoint(note)) = segment::parse(lines[last].trim_ascii_end()) else {
        panic!()
    };
    let text = &note[..note.rfind("\n\n").unwrap() + 1];
    for key in [old, SecretKey::new("agent-monitor/host", &[9; 32])] {
        let mut lines = lines.clone();
        lines[last].clear();
        segment::push_note(&mut lines[last], 'C', &key.sign(text));
        let found = damage_of(&place, &dir, &lines);
        assert_eq!((found.kind, found.checkpoint), (Kind::OtherKey, Some(3)), "{found:?}");
    }
    let none = Options { keys: vec![SecretKey::new("x", &[1; 32]).public()], ..Options::default() };
    assert_eq!(log(&place.dir(), &none).unwrap().damage[0].kind, Kind::OtherKey);
}

#[test]
fn a_clock_that_goes_back_and_a_silence_must_be_declared() {
    let place = Place::new();
    let mut writer = place.writer(settings(), 100);
    writer.checkpoint(&moment(101), false).unwrap();
    let back = crate::log::Moment { boot_nanos: 102_000_000_000, ..moment(50) };
    writer.checkpoint(&back, false).unwrap();
    drop(writer);
    let key = place.keys().load().unwrap();
    for (drop_kind, second, kind) in
        [("log.clock", None, Kind::ClockBack), ("", Some(900), Kind::UndeclaredGap)]
    {
        let (_keep, dir) = copy_of(&place);
        let mut lines = unpack(&dir);
        let mut tree = crate::log::merkle::Frontier::default();
        // A forger with the key, who leaves the declaration out.
        lines.retain(|line| drop_kind.is_empty() || !String::from_utf8_lossy(line).contains(drop_kind));
        for line in &mut lines {
            match segment::parse(&line.clone()[..line.len() - 1]) {
                Some(segment::Line::Record { json, .. }) => tree.push(crate::log::merkle::leaf(json)),
                Some(segment::Line::Checkpoint(note)) => {
                    let text = &note[..note.rfind("\n\n").unwrap() + 1];
                    let mut checkpoint = crate::log::note::Checkpoint::parse(text).unwrap();
                    (checkpoint.size, checkpoint.root) = (tree.size(), tree.root());
                    if let Some(second) = second.filter(|_| checkpoint.number == 2) {
                        (checkpoint.time, checkpoint.boot) =
                            (moment(second).time, ("boot-1".into(), second * 1_000_000_000));
                    }
                    line.clear();
                    segment::push_note(line, 'C', &key.sign(&checkpoint.to_text()));
                }
                _ => {}
            }
        }
        let found = damage_of(&place, &dir, &lines);
        assert_eq!((found.kind, found.checkpoint), (kind, Some(2)), "{found:?}");
    }
}

#[test]
fn closed_segments_that_are_dropped_changed_or_swapped_are_named() {
    let place = Place::filled(10_000, 500, settings());
    let segments = segment::list(&place.dir()).unwrap();
    assert!(segments.len() >= 4 && place.verify().ok, "{:?}", place.verify());
    for at in [0, 1, segments.len() - 2] {
        let (_keep, dir) = copy_of(&place);
        let path = dir.join(segments[at].path.file_name().unwrap());
        let whole = fs::read(&path).unwrap();
        for byte in (0..whole.len()).step_by(whole.len() / 23 + 1).chain(whole.len() - 12..whole.len()) {
            let mut bytes = whole.clone();
            bytes[byte] ^= 4;
            fs::write(&path, bytes).unwrap();
            let report = place.verify_at(&dir, Vec::new());
            assert!(!report.ok, "segment {at} byte {byte}");
            let record = report.damage[0].record.unwrap();
            assert!((segments[at].first..=segments[at + 1].first).contains(&record), "{report:?}");
        }
        fs::remove_file(&path).unwrap();
        let report = place.verify_at(&dir, Vec::new());
        assert_eq!(
            (report.damage[0].kind, report.damage[0].record),
            (Kind::Removed, Some(segments[at].first)),
            "{report:?}"
        );
        fs::copy(dir.join(segments[(at + 1) % 3].path.file_name().unwrap()), &path).unwrap();
        assert!(!place.verify_at(&dir, Vec::new()).ok);
    }
    let (_keep, dir) = copy_of(&place);
    fs::remove_file(dir.join(segments.last().unwrap().path.file_name().unwrap())).unwrap();
    assert_eq!(place.verify_at(&dir, Vec::new()).damage[0].kind, Kind::Truncated);
}

#[test]
fn every_byte_of_a_closed_segment_that_is_flipped_is_found() {
    let place = Place::filled(300, 50, settings());
    let mut writer = place.writer(settings(), 100);
    writer.checkpoint(&moment(101), false).unwrap();
    writer.roll(&moment(101)).unwrap();
    writer.checkpoint(&moment(102), true).unwrap();
    assert!(place.verify().ok, "{:?}", place.verify());
    let (_keep, dir) = copy_of(&place);
    let path = segment::path(&dir, 0, true);
    let whole = fs::read(&path).unwrap();
    for byte in 0..whole.len() {
        for flip in [0x01, 0x80] {
            let mut bytes = whole.clone();
            bytes[byte] ^= flip;
            fs::write(&path, bytes).unwrap();
            assert!(!place.verify_at(&dir, Vec::new()).ok, "byte {byte} of {}", whole.len());
        }
    }
    for length in (0..whole.len()).step_by(7) {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(!place.verify_at(&dir, Vec::new()).ok, "cut to {length}");
    }
    fs::write(&path, [whole.as_slice(), b"x"].concat()).unwrap();
    assert!(!place.verify_at(&dir, Vec::new()).ok, "a byte more");
    fs::write(&path, [whole.as_slice(), &whole].concat()).unwrap();
    assert!(!place.verify_at(&dir, Vec::new()).ok, "doubled");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Any few changes to the lines of a log of 10,000 records, whatever they are, are found; the log itself holds.
    #[test]
    fn any_change_of_lines_is_found(changes in proptest::collection::vec((0usize..10_100, 0usize..10_100, 0u8..6), 1..4)) {
        thread_local! {
            static LOG: (Place, Vec<Vec<u8>>) = {
                let place = one();
                let lines = unpack(&place.dir());
                (place, lines)
            };
        }
        LOG.with(|(place, whole)| -> Result<(), TestCaseError> {
            let (_keep, dir) = copy_of(place);
            let mut lines = whole.clone();
            for (at, to, what) in &changes {
                let (at, to) = (at % lines.len(), to % lines.len());
                match what {
                    0 => drop(lines.remove(at)),
                    1 => lines.insert(to, whole[at].clone()),
                    2 => lines.swap(at, to),
                    3 => lines.truncate(at.max(1)),
                    4 => {
                        let line = lines.remove(at);
                        lines.insert(to.min(lines.len()), line);
                    }
                    _ => {
                        let byte = to % lines[at].len();
                        lines[at][byte] ^= 1;
                    }
                }
            }
            pack(&dir, &lines);
            let report = place.verify_at(&dir, Vec::new());
            prop_assert_eq!(report.ok, lines == *whole, "{:?} {:?}", changes, report);
            Ok(())
        })?;
    }
}

#[test]
fn a_log_that_is_being_written_has_a_tail_and_says_so() {
    let place = Place::new();
    let mut writer = place.writer(settings(), 0);
    writer.checkpoint(&moment(1), false).unwrap();
    writer.append(&event(1));
    writer.flush().unwrap();
    let options =
        |second| Options { keys: place.trusted(), now: Some(moment(second).time), ..Options::default() };
    let live = log(&place.dir(), &options(2)).unwrap();
    assert!(live.ok && live.notes[0].contains("1 records wait"), "{live:?}");
    let dead = log(&place.dir(), &options(60)).unwrap();
    assert_eq!(dead.damage[0].kind, Kind::UnsealedTail);
}
