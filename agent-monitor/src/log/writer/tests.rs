//! Crashes at any byte, full disks, changed keys, closed segments.

use proptest::prelude::*;

use super::*;
use crate::log::fake::{Place, event, moment, settings};
use crate::log::reader::{self, Window};

fn numbers(place: &Place) -> Vec<u64> {
    let mut out = Vec::new();
    let read = reader::records(&place.dir(), &Window::default(), |number, _| {
        out.push(number);
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(read.unwrap().damaged, Vec::<String>::new());
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
    let (aside, reason) = opened.aside.unwrap();
    assert!(aside.join("00000000000000000000.open").exists() && reason.contains("sealed"), "{reason}");
    assert_eq!(writer.size(), 1);
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
    assert!(opened.aside.unwrap().1.contains("a checkpoint"), "signed with a key that is not known here");
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
