//! Recorded events from wherever they are: a log, a bundle as a directory or a file, or lines in a file. All are checked
//! while they are read.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use agent_monitor::export::bundle::{manifest, verify};
use agent_monitor::log::note::PublicKey;
use agent_monitor::log::reader::{self, Window};
use agent_monitor::log::segment;
use agent_monitor::log::verify::Outcome;
use agent_monitor::model::Event;
use agent_monitor::replay::log::parse;
use anyhow::Context as _;

use super::exit::{FAILURE, Failure};
use super::place::{self, Trust};

/// Longest line that is read.
const LINE_MAX: u64 = 16 << 20;

/// Where events are.
#[derive(Debug)]
pub(crate) enum Source {
    /// A log's directory.
    Log(PathBuf, Trust),
    /// A bundle, as a directory or packed, and the keys to trust.
    Bundle(PathBuf, Vec<PublicKey>),
    /// Lines of the contract.
    Lines(PathBuf),
}

impl Source {
    /// What lies at `path`, to be checked with the keys that `given` names.
    pub(crate) fn open(path: &Path, given: &[String]) -> anyhow::Result<Self> {
        if is_bundle(path)? {
            let keys = if given.is_empty() { Vec::new() } else { place::trusted(given, path)?.0 };
            return Ok(Self::Bundle(path.to_owned(), keys));
        }
        if path.is_file() {
            first_line(path)?;
            return Ok(Self::Lines(path.to_owned()));
        }
        if let Err(error) = path.symlink_metadata() {
            return Err(Failure::new(FAILURE, format!("cannot read {}: {error}", path.display())).into());
        }
        let dir = place::log_dir(path)?;
        let trust = Trust::of(given, &dir)?;
        Ok(Self::Log(dir, trust))
    }

    /// Gives each record (number, bytes) that may be in the window to `each`. Returns what checking them showed.
    pub(crate) fn each(
        &self,
        window: &Window,
        each: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> anyhow::Result<Outcome> {
        match self {
            Self::Log(dir, trust) => Ok(trust.outcome(&reader::records(dir, &trust.options, window, each)?)),
            Self::Bundle(path, keys) => Ok(verify::records_of(path, keys, each)?.outcome()),
            Self::Lines(path) => lines(path, each),
        }
    }

    /// The newest records in the window that are `wanted`, at most `limit`, in order.
    pub(crate) fn newest(
        &self,
        window: &Window,
        limit: usize,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> anyhow::Result<(VecDeque<Vec<u8>>, Outcome)> {
        if let Self::Log(dir, trust) = self {
            let (found, report) = reader::newest(dir, &trust.options, window, limit, wanted)?;
            return Ok((found, trust.outcome(&report)));
        }
        let mut newest: VecDeque<Vec<u8>> = VecDeque::new();
        let outcome = self.each(window, |_, json| {
            if limit > 0 && wanted(json) {
                if newest.len() == limit {
                    newest.pop_front();
                }
                newest.push_back(json.to_vec());
            }
            ControlFlow::Continue(())
        })?;
        Ok((newest, outcome))
    }

    /// Gives each event to `take`; a record that is no event of this version ends it.
    pub(crate) fn events(
        &self,
        mut take: impl FnMut(&Event) -> anyhow::Result<()>,
    ) -> anyhow::Result<Outcome> {
        let mut result = Ok(());
        let outcome = self.each(&Window::default(), |number, json| {
            result = match parse(usize::try_from(number).unwrap_or(usize::MAX), json) {
                Ok(Some(event)) => take(&event),
                Ok(None) => Ok(()),
                Err(error) => {
                    let message = format!("{}: {error}", self.path().display());
                    let hint = Some(error.hint.to_owned());
                    Err(Failure { code: FAILURE, message, hint }.into())
                }
            };
            if result.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        result?;
        outcome
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Log(path, _) | Self::Bundle(path, _) | Self::Lines(path) => path,
        }
    }

    /// Lines in a file carry no proof and claim none: that is said, and is no failure.
    pub(crate) fn claims_proof(&self) -> bool {
        !matches!(self, Self::Lines(_))
    }
}

/// Whether a bundle lies at `path`, as a directory or packed.
pub(crate) fn is_bundle(path: &Path) -> anyhow::Result<bool> {
    if path.join(manifest::FILE).is_file() {
        return Ok(true);
    }
    if !path.is_file() {
        return Ok(false);
    }
    let mut magic = [0; 4];
    let read =
        segment::open(path)?.read(&mut magic).with_context(|| format!("cannot read {}", path.display()))?;
    // A zstd frame. A closed segment begins with one too.
    let segment = path.file_stem().is_some_and(|stem| stem.len() == 20)
        && path.extension().is_some_and(|end| end == "zst");
    Ok(read == 4 && magic == [0x28, 0xb5, 0x2f, 0xfd] && !segment)
}

/// Refuses a file whose first line is no event: it is something else, not an empty answer.
fn first_line(path: &Path) -> anyhow::Result<()> {
    let mut lines = BufReader::new(segment::open(path)?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut lines).take(LINE_MAX).read_until(b'\n', &mut line);
        if read.with_context(|| format!("cannot read {}", path.display()))? == 0 {
            return Ok(());
        }
        match parse(number, &line) {
            Ok(None) => {}
            Ok(Some(_)) => return Ok(()),
            Err(error) => {
                let message =
                    format!("{} is no log, no bundle and no file of events: {error}", path.display());
                let hint = Some(error.hint.to_owned());
                return Err(Failure { code: FAILURE, message, hint }.into());
            }
        }
    }
    Ok(())
}

fn lines(path: &Path, mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>) -> anyhow::Result<Outcome> {
    let mut lines = BufReader::with_capacity(1 << 17, segment::open(path)?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut lines).take(LINE_MAX).read_until(b'\n', &mut line);
        if read.with_context(|| format!("cannot read {}", path.display()))? == 0 {
            break;
        }
        let whole = line.trim_ascii_end();
        if !whole.is_empty() && each(number, whole).is_break() {
            break;
        }
    }
    Ok(Outcome::unproven(format!("{} is lines of text, which carry no proof", path.display())))
}
