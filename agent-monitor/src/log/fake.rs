//! A small log on disk for tests, with a clock of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::key::{self, Keys};
use super::note::PublicKey;
use super::writer::Writer;
use super::{Moment, Settings, verify};
use crate::model::{Agent, BoundBy, Event, File, Kind, Process, Source, Time, Verdict};

pub(crate) fn moment(second: u64) -> Moment {
    Moment { time: time(second), boot_id: "boot-1".to_owned(), boot_nanos: second * 1_000_000_000 }
}

pub(crate) fn time(second: u64) -> Time {
    Time::from_unix_nanos(i128::from(1_700_000_000 + second) * 1_000_000_000)
}

pub(crate) fn event(number: u64) -> Event {
    let agent = Agent {
        id: if number.is_multiple_of(3) { "other".to_owned() } else { "bot".to_owned() },
        session: None,
        bound_by: BoundBy::Exe,
        delegator: None,
        bound_delay_ms: None,
    };
    let process = Process {
        pid: 7,
        exe: Some("/bin/cat".to_owned()),
        args: vec!["cat".to_owned(), format!("/srv/{number}")],
        ..Process::default()
    };
    let event = Event::new(time(number / 100), Kind::FileOpen, Source::Lsm);
    Event {
        seq: number,
        verdict: Some(Verdict::Allow),
        agent: Some(agent.into()),
        process: Some(process.into()),
        file: Some(File { path: Some(format!("/srv/{number}")), ..File::default() }),
        ..event
    }
}

pub(crate) fn settings() -> Settings {
    Settings { interval: Duration::from_secs(1), segment_bytes: 1 << 20, ..Settings::default() }
}

/// A state directory with a log in it.
pub(crate) struct Place {
    pub(crate) state: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { state: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.state.path().join(super::DIRECTORY)
    }

    pub(crate) fn keys(&self) -> Keys {
        Keys::in_state(self.state.path())
    }

    pub(crate) fn writer(&self, settings: Settings, second: u64) -> Writer {
        Writer::open(&self.dir(), self.keys(), settings, "host", &moment(second)).unwrap().0
    }

    /// `count` records in all, a checkpoint each `every`, closed segments where they are due, and a good end.
    pub(crate) fn filled(count: u64, every: u64, settings: Settings) -> Self {
        let place = Self::new();
        let mut writer = place.writer(settings, 0);
        let mut second = 0;
        while writer.size() < count - 1 {
            writer.append(&event(writer.size()));
            if writer.size().is_multiple_of(every) {
                second += 1;
                writer.checkpoint(&moment(second), false).unwrap();
                if writer.is_due() {
                    writer.roll(&moment(second)).unwrap();
                }
            }
        }
        writer.checkpoint(&moment(second + 1), true).unwrap();
        place
    }

    pub(crate) fn trusted(&self) -> Vec<PublicKey> {
        let rotations = self.keys().rotations().unwrap();
        let current = self.keys().load().unwrap().public();
        let oldest = rotations
            .first()
            .and_then(|note| note.lines().find_map(|line| PublicKey::parse(line.strip_prefix("old ")?).ok()));
        key::chain(oldest.unwrap_or(current), &rotations)
    }

    pub(crate) fn options(&self) -> verify::Options {
        verify::Options { keys: self.trusted(), ..verify::Options::default() }
    }

    pub(crate) fn verify(&self) -> verify::Report {
        self.verify_at(&self.dir(), Vec::new())
    }

    pub(crate) fn verify_at(&self, dir: &Path, copies: Vec<String>) -> verify::Report {
        let options = verify::Options { keys: self.trusted(), copies, now: None };
        verify::log(dir, &options).unwrap()
    }
}
