//! Crashes at any byte, full disks, changed keys, closed segments.

use proptest::prelude::*;

use super::*;
use crate::log::fake::{Place, event, moment, settings};
use crate::log::reader::{self, Window};

fn numbers(place: &Place) -> Vec<u64> {
    let mut out = Vec::new();
    let read = reader::records(&place.dir(), &place.options(), &Window::default(), |number, _| {
        out.push(number);
        std::ops::ControlFlow::Continue(())
    });
    let report = read.unwrap();
    assert!(report.ok || report.open_end, "{report:?}");
    out
}

#[test]
fn a_log_over_several_segments_and_lives_verifies() {
    let place = Place::filled(5000, 500, settings());
    let mut writer = place.writer(settings(), 100);
    assert_eq!(writer.size(), 5001, "log.opened was staged");
    (0..3000).for_each(|number| writer.append(&event(number)));
    writer.checkpoint(&moment(101), false).unwrap();
    assert!(writer.is_due());
    writer.roll(&moment(101)).unwrap();
    writer.checkpoint(&moment(102), true).unwrap();
    let report = place.verify();
    assert!(report.ok && report.closed, "{report:?}");
    assert_eq!((report.end, report.records), (8002, 8002));
    assert_eq!(numbers(&place), (0..8002).collect::<Vec<_>>());
    assert!(segment::list(&place.dir()).unwrap().iter().filter(|s| s.sealed).count() >= 2);
}

#[test]
fn a_crash_says_what_was_kept_and_the_log_goes_on() {
    let place = Place::new();
    let mut writer = place.writer(settings(), 0);
    writer.append(&event(1));
    writer.checkpoint(&moment(1), false).unwrap();
    (0..5).for_each(|number| writer.append(&event(number)));
    writer.flush().unwrap();
    writer.append(&event(9));
    drop(writer);
    let path = segment::path(&place.dir(), 0, false);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"R 7 0123456789abcdef {\"half\":").unwrap();
    let (mut writer, opened) =
        Writer::open(&place.dir(), place.keys(), settings(), "host", &moment(60)).unwrap();
    assert_eq!((opened.unsealed, opened.closed, opened.first_record), (5, false, 7));
    let (bytes, kept) = opened.cut.unwrap();
    assert_eq!((bytes, fs::read(kept).unwrap().len()), (29, 29));
    writer.checkpoint(&moment(61), true).unwrap();
    let report = place.verify();
    assert!(report.ok, "{report:?}");
    assert_eq!(report.end, 9, "opened and closed records");
}

#[test]
fn what_was_sealed_and_is_damaged_is_set_aside_not_repaired() {
    let place = Place::filled(50, 10, settings());
    let path = segment::path(&place.dir(), 0, false);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("/srv/20\"", "/srv/21\"", 1)).unwrap();
    let (writer, opened) = Writer::open(&place.dir(), place.keys(), settings(), "host", &moment(60)).unwrap();
    let aside = opened.aside.unwrap();
    let reason = aside.reason.unwrap();
    let moved = Path::new(&aside.path).join("00000000000000000000.open");
    assert!(moved.exists() && reason.contains("sealed"), "{reason}");
    assert_eq!(writer.size(), 2, "opened, and what names the old one");
}

#[test]
fn a_new_key_is_taken_up_while_running_and_between_lives() {
    let place = Place::new();
    let mut writer = place.writer(settings(), 0);
    writer.checkpoint(&moment(1), false).unwrap();
    place.keys().rotate(Time::EPOCH).unwrap();
    writer.checkpoint(&moment(2), true).unwrap();
    drop(writer);
    place.keys().rotate(Time::EPOCH).unwrap();
    place.keys().rotate(Time::EPOCH).unwrap();
    let mut writer = place.writer(settings(), 3);
    writer.checkpoint(&moment(3), true).unwrap();
    let report = place.verify();
    assert!(report.ok, "{report:?}");
    assert_eq!(report.keys.len(), 4);
    assert_eq!(fs::read_to_string(segment::path(&place.dir(), 0, false)).unwrap().matches("\nK ").count(), 3);
}

#[test]
fn a_key_put_in_its_place_is_not_taken_up() {
    let place = Place::new();
    let mut writer = place.writer(settings(), 0);
    writer.checkpoint(&moment(1), true).unwrap();
    drop(writer);
    fs::remove_dir_all(place.keys().dir()).unwrap();
    let (_, opened) = Writer::open(&place.dir(), place.keys(), settings(), "host", &moment(60)).unwrap();
    assert!(
        opened.aside.unwrap().reason.unwrap().contains("a checkpoint"),
        "signed with a key that is not known here"
    );
}

#[test]
fn a_disk_that_takes_nothing_leaves_the_log_as_it_was() {
    let place = Place::new();
    let mut writer = place.writer(settings(), 0);
    writer.checkpoint(&moment(1), false).unwrap();
    let good = std::mem::replace(&mut writer.file, OpenOptions::new().write(true).open("/dev/full").unwrap());
    (0..4).for_each(|number| writer.append(&event(number)));
    let unwritten = writer.flush().unwrap_err();
    assert_eq!((unwritten.count, unwritten.error.is_full()), (4, true));
    assert_eq!(unwritten.times, Some((crate::log::fake::time(0), crate::log::fake::time(0))));
    assert_eq!(writer.checkpoint(&moment(2), false).unwrap_err().count, 0);
    writer.file = good;
    writer.append(&event(9));
    writer.checkpoint(&moment(3), true).unwrap();
    let report = place.verify();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.end, report.checkpoints), (3, 2));
}

#[test]
fn clocks_and_late_checkpoints_are_declared() {
    let place = Place::new();
    let mut writer = place.writer(settings(), 100);
    writer.checkpoint(&moment(101), false).unwrap();
    let back = Moment { boot_nanos: 102_000_000_000, ..moment(50) };
    writer.checkpoint(&back, false).unwrap();
    writer.checkpoint(&moment(500), true).unwrap();
    let report = place.verify();
    assert!(report.ok, "{report:?}");
    let text = fs::read_to_string(segment::path(&place.dir(), 0, false)).unwrap();
    assert!(text.contains("\"log.clock\"") && text.contains("checkpoint_late"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any crash leaves a prefix of the file; a torn page leaves zeroes or noise behind it.
    #[test]
    fn a_crash_at_any_byte_recovers_to_the_last_whole_record(
        at in 0.0f64..1.0, noise in proptest::collection::vec(any::<u8>(), 0..40), zeroes in 0usize..64
    ) {
        let place = Place::new();
        let mut writer = place.writer(settings(), 0);
        for number in 1..30 {
            writer.append(&event(number));
            if number % 10 == 0 {
                writer.checkpoint(&moment(number), false).unwrap();
            }
        }
        writer.flush().unwrap();
        drop(writer);
        let path = segment::path(&place.dir(), 0, false);
        let whole = fs::read(&path).unwrap();
        let header = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let cut = header + ((whole.len() - header) as f64 * at) as usize;
        let mut torn = whole[..cut].to_vec();
        torn.extend(std::iter::repeat_n(0, zeroes));
        torn.extend(&noise);
        fs::write(&path, &torn).unwrap();
        let records = whole[..cut].split_inclusive(|b| *b == b'\n').filter(|l| l.starts_with(b"R ") && l.ends_with(b"\n")).count() as u64;
        let (mut writer, opened) = Writer::open(&place.dir(), place.keys(), settings(), "host", &moment(60)).unwrap();
        prop_assert_eq!(opened.aside, None);
        prop_assert_eq!(opened.first_record, records);
        writer.checkpoint(&moment(61), true).unwrap();
        let report = place.verify();
        prop_assert!(report.ok, "{:?}", report);
    }
}

/// What happens to a writer and its disk.
#[derive(Debug, Clone)]
enum Fate {
    Append(u8),
    Checkpoint,
    Roll,
    /// The process dies; of what was not synced, this share is left, then noise.
    Crash(f64, Vec<u8>),
    /// It dies while it closes a segment, at this step.
    CrashInRoll(u8),
    /// The disk takes nothing for a while.
    Full(u8),
    Rotate,
    /// The wall clock is set back.
    Back,
    /// Nothing is sealed for longer than it should.
    Silence,
    /// A good end, and a new start.
    Restart,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => (1u8..60).prop_map(Fate::Append),
        4 => Just(Fate::Checkpoint),
        2 => Just(Fate::Roll),
        3 => (0.0f64..1.0, proptest::collection::vec(any::<u8>(), 0..30)).prop_map(|(at, noise)| Fate::Crash(at, noise)),
        1 => (0u8..4).prop_map(Fate::CrashInRoll),
        2 => (1u8..20).prop_map(Fate::Full),
        1 => Just(Fate::Rotate),
        1 => Just(Fate::Back),
        1 => Just(Fate::Silence),
        1 => Just(Fate::Restart),
    ]
}

/// A log that lives through fates. What was sealed must stay; what was not may be lost.
struct Life {
    place: Place,
    writer: Option<Writer>,
    second: u64,
    /// Seconds that the wall clock is behind.
    behind: u64,
    next: u64,
    waiting: Vec<u64>,
    sealed: Vec<u64>,
    /// Bytes of the open segment that were synced.
    synced: u64,
}

impl Life {
    fn new() -> Self {
        let place = Place::new();
        let writer = Some(place.writer(settings(), 5000));
        let synced = 0;
        let mut life = Self {
            place,
            writer,
            second: 5000,
            behind: 0,
            next: 0,
            waiting: Vec::new(),
            sealed: Vec::new(),
            synced,
        };
        life.synced = life.length();
        life
    }

    fn now(&mut self) -> Moment {
        self.second += 1;
        Moment { boot_nanos: self.second * 1_000_000_000, ..moment(self.second - self.behind) }
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().unwrap()
    }

    fn length(&self) -> u64 {
        self.writer.as_ref().unwrap().file.metadata().unwrap().len()
    }

    fn seal(&mut self, closed: bool) {
        let now = self.now();
        self.writer().checkpoint(&now, closed).unwrap();
        self.sealed.append(&mut self.waiting);
        self.synced = self.length();
    }

    fn open(&mut self) {
        let now = self.now();
        let (writer, opened) =
            Writer::open(&self.place.dir(), self.place.keys(), settings(), "host", &now).unwrap();
        assert_eq!(opened.aside, None);
        self.writer = Some(writer);
        self.waiting.clear();
        self.synced = self.length();
    }

    fn roll(&mut self) {
        self.seal(false);
        let now = self.now();
        if self.writer().size() > self.writer().first {
            self.writer().roll(&now).unwrap();
            self.synced = self.length();
        }
    }

    fn crash(&mut self, at: f64, noise: &[u8]) {
        self.writer().flush().unwrap();
        let path = segment::path(&self.place.dir(), self.writer().first, false);
        let (synced, length) = (self.synced, self.length());
        self.writer = None;
        let left = synced + ((length - synced) as f64 * at) as u64;
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(usize::try_from(left).unwrap());
        bytes.extend(noise);
        fs::write(&path, bytes).unwrap();
        self.open();
    }

    fn crash_in_roll(&mut self, step: u8) {
        self.seal(false);
        let (dir, first) = (self.place.dir(), self.writer().first);
        if self.writer().size() == first {
            return;
        }
        let open = segment::path(&dir, first, false);
        let lines = fs::read(&open).unwrap();
        let now = self.now();
        self.writer().roll(&now).unwrap();
        let next = segment::path(&dir, self.writer().first, false);
        self.writer = None;
        let closed = segment::path(&dir, first, true);
        match step {
            // While it compressed, after it had, before the next was begun, before the lines were removed.
            0 => {
                fs::rename(&closed, closed.with_extension("zst.new")).unwrap();
                fs::remove_file(&next).unwrap();
                fs::write(&open, &lines).unwrap();
            }
            1 => {
                fs::remove_file(&next).unwrap();
                fs::write(&open, &lines).unwrap();
            }
            2 => fs::remove_file(&next).unwrap(),
            _ => fs::write(&open, &lines).unwrap(),
        }
        self.open();
        if step > 0 {
            assert!(!open.exists() || self.writer().first == first, "the lines of a closed segment are left");
        }
    }

    fn meet(&mut self, fate: &Fate) {
        match fate {
            Fate::Append(count) => {
                for _ in 0..*count {
                    self.next += 1;
                    let number = self.next;
                    self.writer().append(&event(number));
                    self.waiting.push(number);
                }
                self.writer().flush().unwrap();
            }
            Fate::Checkpoint => self.seal(false),
            Fate::Roll => self.roll(),
            Fate::Crash(at, noise) => self.crash(*at, noise),
            Fate::CrashInRoll(step) => self.crash_in_roll(*step),
            Fate::Full(count) => {
                let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
                let good = std::mem::replace(&mut self.writer().file, full);
                (0..*count).for_each(|number| self.writer().append(&event(1_000_000 + u64::from(number))));
                assert_eq!(self.writer().flush().unwrap_err().count, u64::from(*count));
                let now = self.now();
                assert!(self.writer().checkpoint(&now, false).is_err());
                self.writer().file = good;
            }
            Fate::Rotate => drop(self.place.keys().rotate(Time::EPOCH).unwrap()),
            Fate::Back => self.behind += 50,
            Fate::Silence => self.second += 100,
            Fate::Restart => {
                self.seal(true);
                self.writer = None;
                self.open();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// However its writer lived and died: the log verifies, and every record that was sealed is there, in order.
    #[test]
    fn any_life_leaves_a_log_that_holds(fates in proptest::collection::vec(fate(), 1..40)) {
        let mut life = Life::new();
        for fate in &fates {
            life.meet(fate);
            if life.behind > 4000 {
                break;
            }
        }
        life.seal(true);
        let report = life.place.verify();
        prop_assert!(report.ok && report.closed, "{:?}", report);
        let mut found = Vec::new();
        let read = reader::records(&life.place.dir(), &life.place.options(), &Window::default(), |_, json| {
            let event: Event = serde_json::from_slice(json).unwrap();
            found.extend((event.kind == Kind::FileOpen).then_some(event.seq));
            std::ops::ControlFlow::Continue(())
        });
        let report = read.unwrap();
        prop_assert!(report.ok || report.open_end, "{:?}", report);
        prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", found);
        let missing: Vec<&u64> = life.sealed.iter().filter(|number| found.binary_search(number).is_err()).collect();
        prop_assert!(missing.is_empty(), "sealed and lost: {:?}", missing);
        prop_assert!(found.iter().all(|number| *number < 1_000_000), "what the disk did not take is there");
    }
}
