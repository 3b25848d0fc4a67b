//! A small log over several segments, changed in every way that comes to mind: whatever a reader says is verified is what
//! was written, all of it, and the reader finds what the verifier finds.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::log::fake::{Place, event, moment, settings};
use crate::log::merkle::leaf;
use crate::log::note::SecretKey;
use crate::log::writer::Writer;
use crate::log::{Settings, verify};
use crate::model::{Agent, Event};

/// Records of agent `rare` stand in one closed segment only.
const RARE: std::ops::Range<u64> = 24..27;

fn small() -> Settings {
    Settings { segment_bytes: 2500, ..settings() }
}

fn fill(writer: &mut Writer) {
    for number in 1..60u64 {
        let mut event: Event = event(number);
        if RARE.contains(&number) {
            let agent = Agent { id: "rare".to_owned(), ..Agent::clone(event.agent.as_ref().unwrap()) };
            event.agent = Some(agent.into());
        }
        writer.append(&event);
        if number.is_multiple_of(4) {
            writer.checkpoint(&moment(number), false).unwrap();
            if writer.is_due() {
                writer.roll(&moment(number)).unwrap();
            }
        }
    }
    writer.checkpoint(&moment(60), true).unwrap();
}

fn filled() -> Place {
    let place = Place::new();
    let mut writer = place.writer(small(), 0);
    fill(&mut writer);
    place
}

/// What a reader gives and says: all, of one agent, and the newest.
#[derive(Debug, PartialEq, Eq)]
struct Answers {
    all: (Vec<Vec<u8>>, bool),
    rare: (Vec<Vec<u8>>, bool),
    newest: (Vec<Vec<u8>>, bool),
    passed: u64,
}

fn ask(dir: &Path, options: &Options) -> Answers {
    let of = |window: &Window, agent: &str| {
        let mark = format!("\"id\":\"{agent}");
        let mut found = Vec::new();
        let report = records(dir, options, window, |_, json| {
            if String::from_utf8_lossy(json).contains(&mark) {
                found.push(json.to_vec());
            }
            ControlFlow::Continue(())
        });
        let (ok, passed) = report.map_or((false, 0), |report| (report.ok, report.passed));
        ((found, ok), passed)
    };
    let (all, none) = of(&Window::default(), "");
    assert_eq!(none, 0);
    let (rare, passed) = of(&Window { agents: vec!["rare".to_owned()], ..Window::default() }, "rare");
    let newest = newest(dir, options, &Window::default(), 5, |_| true);
    let newest = newest
        .map_or_else(|_| (Vec::new(), false), |(found, report)| (found.into_iter().collect(), report.ok));
    Answers { all, rare, newest, passed }
}

#[test]
fn a_narrow_question_leaves_out_segments_and_is_verified() {
    let place = filled();
    let segments = segment::list(&place.dir()).unwrap();
    assert!(segments.len() >= 5, "{}", segments.len());
    let answers = ask(&place.dir(), &place.options());
    assert!(answers.all.1 && answers.rare.1 && answers.newest.1, "{answers:?}");
    assert_eq!((answers.all.0.len(), answers.rare.0.len(), answers.newest.0.len()), (59, 3, 5));
    assert!(answers.passed as usize >= segments.len() - 3, "{} of {}", answers.passed, segments.len());
}

#[test]
fn a_segment_that_has_just_begun_does_not_make_the_answer_doubtful() {
    let place = Place::new();
    let mut writer = place.writer(small(), 0);
    for number in 1..=20u64 {
        writer.append(&event(number));
    }
    writer.checkpoint(&moment(1), false).unwrap();
    writer.roll(&moment(1)).unwrap();
    let options = Options { now: Some(moment(2).time), ..place.options() };
    let window = Window { agents: vec!["nobody".to_owned()], ..Window::default() };
    let report = records(&place.dir(), &options, &window, |_, _| ControlFlow::Continue(())).unwrap();
    assert!(report.ok && report.passed == 1 && report.last_checkpoint == 1, "{report:?}");
    let (found, report) = newest(&place.dir(), &options, &window, 1, |_| false).unwrap();
    assert!(report.ok && found.is_empty(), "{report:?}");
}

#[test]
fn the_end_of_a_log_is_no_reason_to_distrust_what_is_sealed() {
    let place = filled();
    let path = segment::list(&place.dir()).unwrap().pop().unwrap().path;
    let text = fs::read_to_string(&path).unwrap();
    let cut = text.rfind("\nC ").unwrap();
    fs::write(&path, &text[..=cut]).unwrap();
    let report =
        records(&place.dir(), &place.options(), &Window::default(), |_, _| ControlFlow::Continue(()));
    let report = report.unwrap();
    assert!(!report.ok && report.open_end, "{report:?}");
    assert!(!report.outcome(true).verified && report.sealed_outcome(true).verified);
    assert!(!report.sealed_outcome(false).verified, "without a key nothing is");
}

/// The parts of a closed segment: frames, note, index.
fn parts(bytes: &[u8]) -> (Vec<u8>, Vec<u8>, sealed::Index) {
    let end = bytes.len() - 40;
    let size = u32::from_le_bytes(bytes[end + 32..end + 36].try_into().unwrap()) as usize;
    let index: sealed::Index = serde_json::from_slice(&bytes[end - size..end]).unwrap();
    let frames = index.blocks.iter().map(|block| block.bytes as usize).sum::<usize>();
    (bytes[..frames].to_vec(), bytes[frames..end - size - 8].to_vec(), index)
}

/// The same put together again, with all that needs no key made to fit.
fn join(frames: &[u8], note: &[u8], index: &sealed::Index) -> Vec<u8> {
    let json = serde_json::to_vec(index).unwrap();
    let size = u32::try_from(json.len()).unwrap();
    [
        frames,
        note,
        &0x184D_2A5Au32.to_le_bytes(),
        &(size + 40).to_le_bytes(),
        &json,
        &Sha256::digest(&json),
        &size.to_le_bytes(),
        b"AMIX",
    ]
    .concat()
}

fn unpacked(bytes: &[u8]) -> Vec<Vec<u8>> {
    let lines = zstd::decode_all(bytes).unwrap();
    lines.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// Changes lines as somebody without a key can who knows the form; marks and numbers are made to fit.
fn change_lines(lines: &mut Vec<Vec<u8>>, what: u8, at: usize, to: usize) {
    let (at, to) = (at % lines.len(), to % lines.len());
    match what % 6 {
        0 => drop(lines.remove(at)),
        1 => lines.insert(to, lines[at].clone()),
        2 => lines.swap(at, to),
        3 => lines.truncate(at.max(1)),
        4 => {
            let line = String::from_utf8_lossy(&lines[at]).replace("\"allow\"", "\"audit\"");
            lines[at] = line.replace("\"id\":\"rare\"", "\"id\":\"bare\"").into_bytes();
        }
        _ => lines.retain(|line| !String::from_utf8_lossy(line).contains("\"id\":\"rare\"")),
    }
    let mut number = None;
    for line in lines.iter_mut() {
        let text = String::from_utf8_lossy(line).into_owned();
        let mut fields = text.trim_end_matches('\n').splitn(4, ' ');
        if fields.next() == Some("R")
            && let (Some(own), Some(_), Some(json)) = (fields.next(), fields.next(), fields.next())
        {
            let own = number.map_or_else(|| own.parse().unwrap_or(0), |before: u64| before + 1);
            number = Some(own);
            line.clear();
            segment::push_record(line, own, &leaf(json.as_bytes()), json.as_bytes());
        }
    }
}

/// Changes an index so that readers would look elsewhere.
fn change_index(index: &mut sealed::Index, what: u8, at: usize) {
    match what % 6 {
        0 => drop(index.agents.remove("rare").or_else(|| index.agents.remove("bot"))),
        1 => index.times = index.times.map(|(first, _)| (first, first)),
        2 => index.end += 1 + at as u64 % 3,
        3 => index.checkpoint += 1,
        4 => index.removed.push((0, 1000)),
        _ => index.agents.clear(),
    }
}

/// A closed segment that an earlier change has not broken already.
fn is_whole(bytes: &[u8]) -> bool {
    let mut file = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut file, bytes).unwrap();
    sealed::find(&mut file).is_ok() && zstd::decode_all(bytes).is_ok_and(|lines| !lines.is_empty())
}

/// One change of the files of a log.
fn change(dir: &Path, (what, file, at, to): (u8, usize, usize, usize)) {
    let segments = segment::list(dir).unwrap();
    let segment = &segments[file % segments.len()];
    let bytes = fs::read(&segment.path).unwrap();
    let write = |bytes: &[u8]| fs::write(&segment.path, bytes).unwrap();
    if bytes.is_empty() || (segment.sealed && !is_whole(&bytes)) {
        return;
    }
    match what % 8 {
        0 | 1 => {
            let mut bytes = bytes;
            let at = at % bytes.len();
            bytes[at] ^= 1 << (to % 8);
            write(&bytes);
        }
        2 => write(&bytes[..at % bytes.len()]),
        3 if to.is_multiple_of(4) => fs::remove_file(&segment.path).unwrap(),
        3 => write(&[&bytes[..at % bytes.len()], &bytes[to % bytes.len()..]].concat()),
        4 if segment.sealed => {
            let (frames, note, mut index) = parts(&bytes);
            change_index(&mut index, to as u8, at);
            let note = if at.is_multiple_of(2) { note } else { Vec::new() };
            write(&join(&frames, &note, &index));
        }
        5 if segment.sealed => {
            // Sealed again by a stranger, index and all.
            let mut lines = unpacked(&bytes);
            change_lines(&mut lines, what, at, to);
            let mut made = Vec::new();
            let key = SecretKey::new("agent-monitor/host", &[9; 32]);
            let index = sealed::seal(segment.first, lines.concat().as_slice(), &mut made, &key, "o").unwrap();
            let (frames, ..) = parts(&made);
            let (_, note, _) = parts(&bytes);
            write(&match to % 3 {
                0 => made,
                1 => join(&frames, &note, &index),
                _ => join(&frames, &[], &index),
            });
        }
        6 => {
            // One segment in the place of another.
            let other = &segments[to % segments.len()];
            if other.sealed == segment.sealed {
                fs::copy(&other.path, &segment.path).unwrap();
            }
        }
        _ => {
            let mut lines = if segment.sealed {
                unpacked(&bytes)
            } else {
                bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
            };
            change_lines(&mut lines, at as u8, at, to);
            if segment.sealed {
                let _gone = fs::remove_file(&segment.path);
            }
            fs::write(segment.path.with_extension("open"), lines.concat()).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn what_is_called_verified_is_what_was_written(
        changes in proptest::collection::vec((any::<u8>(), 0usize..64, 0usize..9000, 0usize..9000), 1..3)
    ) {
        thread_local! {
            static LOG: (Place, Answers, Vec<(PathBuf, Vec<u8>)>) = {
                let place = filled();
                let answers = ask(&place.dir(), &place.options());
                let files = segment::list(&place.dir()).unwrap();
                let files = files.into_iter().map(|segment| {
                    let bytes = fs::read(&segment.path).unwrap();
                    (segment.path, bytes)
                });
                (place, answers, files.collect())
            };
        }
        LOG.with(|(place, whole, files)| -> Result<(), TestCaseError> {
            let at = tempfile::tempdir().unwrap();
            for (path, bytes) in files {
                fs::write(at.path().join(path.file_name().unwrap()), bytes).unwrap();
            }
            for change_of in &changes {
                if !segment::list(at.path()).unwrap().is_empty() {
                    change(at.path(), *change_of);
                }
            }
            let options = place.options();
            let audit = verify::log(at.path(), &options);
            let holds = audit.as_ref().is_ok_and(|report| report.ok);
            let answers = ask(at.path(), &options);
            prop_assert_eq!(answers.all.1, holds, "reader and verifier: {:?}", audit);

            for (found, wanted) in
                [(&answers.all, &whole.all), (&answers.rare, &whole.rare), (&answers.newest, &whole.newest)]
            {
                prop_assert!(!found.1 || found.0 == wanted.0, "verified, but not what was written: {:?}", audit);
            }
            let same = files.iter().all(|(path, bytes)| {
                fs::read(at.path().join(path.file_name().unwrap())).ok().as_ref() == Some(bytes)
            });
            prop_assert!(same || !holds || answers.all.0 == whole.all.0);
            Ok(())
        })?;
    }
}
