//! Reading a log: live, at rest, or copied elsewhere, in order, without holding more than one frame, and checking it on
//! the way: this pass is the verifier's too.
//!
//! A window leaves out closed segments by what their indexes say, but only by indexes that the log's key signed, and the
//! chain of records and checkpoints is followed over what is left out. Every segment that is read is checked in full:
//! its records against its own checkpoints, those against the key. What cannot be read is named in the report, and the
//! rest is given out all the same, so that a damaged log still says what it can; whoever uses it looks at the report.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::ops::ControlFlow;
use std::path::Path;

use super::LogError;
use super::note::NoteError;
use super::segment::{self, LINE_MAX, Line, Segment, parse, sealed};
use super::verify::{Kind, Options, Report, Verifier};
use crate::model::Time;

/// Which part of a log. What lies in the same segment or frame may come along.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// Records not before.
    pub since: Option<Time>,
    /// Records before.
    pub until: Option<Time>,
    /// Only segments with records of or about one of these agents; of all where there is none.
    pub agents: Vec<String>,
    /// Only segments with records of the log about itself of one of these kinds; all where there is none.
    pub notes: Vec<String>,
}

impl Window {
    /// Whether a closed segment may have some of it.
    fn wants(&self, index: &sealed::Index) -> bool {
        let agent = |id: &String| index.agents.contains_key(id) || index.agents.contains_key("*");
        self.touches(index.times)
            && (self.agents.is_empty() || self.agents.iter().any(agent))
            && (self.notes.is_empty() || self.notes.iter().any(|kind| index.notes.contains_key(kind)))
    }

    /// Whether records between these times may be in it. Unknown times may.
    #[must_use]
    pub fn touches(&self, times: Option<(Time, Time)>) -> bool {
        times.is_none_or(|(first, last)| {
            self.since.is_none_or(|since| last >= since) && self.until.is_none_or(|until| first < until)
        })
    }
}

/// Gives every line of the segments that the window touches to `each`, in order. Returns what checking them showed.
///
/// # Errors
/// When the directory cannot be read, or holds no log.
pub fn lines(
    dir: &Path,
    options: &Options,
    window: &Window,
    each: &mut dyn FnMut(&Line<'_>) -> ControlFlow<()>,
) -> Result<Report, LogError> {
    Pass { options, window, audit: false, each }.run(dir, None)
}

/// Looks at every byte, compares every index, and ends at the first damage.
pub(super) fn audit(dir: &Path, options: &Options) -> Result<Report, LogError> {
    let each = &mut |_: &Line<'_>| ControlFlow::Continue(());
    Pass { options, window: &Window::default(), audit: true, each }.run(dir, None)
}

/// Gives every record (number, bytes) of the window's segments to `each`. Those outside of it, in the same frames, too.
///
/// # Errors
/// As [`lines`].
pub fn records(
    dir: &Path,
    options: &Options,
    window: &Window,
    mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Result<Report, LogError> {
    lines(dir, options, window, &mut |line| match line {
        Line::Record { number, json, .. } => each(*number, json),
        Line::Header(_) | Line::Checkpoint(_) | Line::Rotation(_) => ControlFlow::Continue(()),
    })
}

/// The newest records (bytes) of the window's segments that are `wanted`, at most `limit`, in the order of the log.
/// Looks from the newest segment back for where to begin, and no further than it takes; reads and checks from there.
///
/// # Errors
/// As [`lines`].
pub fn newest(
    dir: &Path,
    options: &Options,
    window: &Window,
    limit: usize,
    mut wanted: impl FnMut(&[u8]) -> bool,
) -> Result<(VecDeque<Vec<u8>>, Report), LogError> {
    let mut from = None;
    let mut seen = 0;
    for segment in segment::list(dir)?.iter().rev() {
        if seen >= limit && from.is_some() {
            break;
        }
        from = Some(segment.first);
        let index = segment::open(&segment.path).ok().filter(|_| segment.sealed);
        if index.and_then(|mut file| sealed::index(&mut file).ok()).is_some_and(|index| !window.wants(&index))
        {
            continue;
        }
        // What cannot be read is named by the pass that checks.
        let _problem = of_one(segment, &mut |line| {
            seen += usize::from(matches!(line, Line::Record { json, .. } if wanted(json)));
            ControlFlow::Continue(())
        });
    }
    let mut found: VecDeque<Vec<u8>> = VecDeque::new();
    let each = &mut |line: &Line<'_>| {
        if let Line::Record { json, .. } = line
            && limit > 0
            && wanted(json)
        {
            if found.len() == limit {
                found.pop_front();
            }
            found.push_back(json.to_vec());
        }
        ControlFlow::Continue(())
    };
    let report = Pass { options, window, audit: false, each }.run(dir, from)?;
    Ok((found, report))
}

/// Gives every line of one segment to `each`. Nothing is checked: for those who check it themselves.
///
/// # Errors
/// When it cannot be read to the end.
pub fn of_one(segment: &Segment, each: &mut dyn FnMut(&Line<'_>) -> ControlFlow<()>) -> io::Result<()> {
    let mut give = |line: &[u8]| {
        // The end of a growing segment may be half a line.
        line.strip_suffix(b"\n").and_then(parse).map_or(ControlFlow::Continue(()), |line| each(&line))
    };
    let Some((mut file, closed)) = open(segment)? else { return Ok(()) };
    if !closed {
        return split(BufReader::with_capacity(1 << 17, file), &mut give).map(|_flow| ());
    }
    for block in &sealed::index(&mut file)?.blocks {
        for line in sealed::block(&mut file, block)?.split_inclusive(|byte| *byte == b'\n') {
            if give(line).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Opens a segment, and says whether it is closed; `None` where a closed one was removed since it was listed.
fn open(segment: &Segment) -> io::Result<Option<(File, bool)>> {
    let missing = |error: &LogError| error.source.kind() == io::ErrorKind::NotFound;
    match segment::open(&segment.path) {
        Err(error) if missing(&error) && segment.sealed => Ok(None),
        // Closed between listing and opening.
        Err(error) if missing(&error) => {
            let file = segment::open(&segment.path.with_extension("zst")).map_err(|error| error.source)?;
            Ok(Some((file, true)))
        }
        Err(error) => Err(error.source),
        Ok(file) => Ok(Some((file, segment.sealed))),
    }
}

/// One reading of a log from front to back.
struct Pass<'a> {
    options: &'a Options,
    window: &'a Window,
    /// Compare also indexes that are signed, and end at the first damage.
    audit: bool,
    each: &'a mut dyn FnMut(&Line<'_>) -> ControlFlow<()>,
}

/// Where a segment stands among the others.
#[derive(Clone, Copy)]
struct Place {
    /// It is the last: how the log ends must be seen.
    last: bool,
    /// The next one grows, and may have no checkpoint of its own yet.
    before_open: bool,
    /// Records of it are asked for, if the window has any.
    asked: bool,
}

impl Pass<'_> {
    /// Reads from the segment that begins with record `from` on, or all. Of what is before, the last checkpoint only.
    fn run(mut self, dir: &Path, from: Option<u64>) -> Result<Report, LogError> {
        let mut segments = segment::list(dir)?;
        if segments.is_empty() {
            let source = io::Error::new(io::ErrorKind::NotFound, "there is no segment in it");
            return Err(LogError { action: "read the log", path: dir.to_owned(), source });
        }
        let options = self.options;
        let mut verifier = Verifier::new(options);
        let from = from.unwrap_or(0);
        let before = segments.partition_point(|segment| segment.first < from).saturating_sub(1);
        segments.drain(..before);
        if before > 0 {
            verifier.begin(segments.first().map_or(from, |segment| segment.first));
        }
        for (at, segment) in segments.iter().enumerate() {
            let name = segment.path.file_name().map(|name| name.to_string_lossy().into_owned());
            verifier.file(name.unwrap_or_default(), segment.first);
            let next = segments.get(at + 1);
            let place = Place {
                last: next.is_none(),
                before_open: next.is_some_and(|next| !next.sealed),
                asked: segment.first >= from,
            };
            let flow = match open(segment) {
                Ok(None) => Ok(ControlFlow::Continue(())),
                Ok(Some((file, true))) => self.closed(file, place, &mut verifier),
                Ok(Some((file, false))) => {
                    let lines = BufReader::with_capacity(1 << 17, file);
                    split(lines, &mut |line| self.give(&mut verifier, line, true))
                }
                Err(error) => Err(error),
            };
            match flow {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => {
                    verifier.stop();
                    break;
                }
                Err(error) => verifier.fail(kind(&error), &error.to_string()),
            }
            if self.audit && verifier.failed() {
                break;
            }
        }
        Ok(verifier.finish())
    }

    /// Checks a line and gives it out if it is in the window.
    fn give(&mut self, verifier: &mut Verifier<'_>, line: &[u8], inside: bool) -> ControlFlow<()> {
        let Some(whole) = line.strip_suffix(b"\n") else {
            // The end of a growing segment may be half a line.
            verifier.line(line);
            return ControlFlow::Continue(());
        };
        let parsed = parse(whole);
        if !verifier.failed() && !verifier.parsed(parsed.as_ref()) && self.audit {
            return ControlFlow::Break(());
        }
        match parsed {
            Some(line) if inside => (self.each)(&line),
            _ => ControlFlow::Continue(()),
        }
    }

    fn closed(
        &mut self,
        mut file: File,
        place: Place,
        verifier: &mut Verifier<'_>,
    ) -> io::Result<ControlFlow<()>> {
        let found = match sealed::find(&mut file) {
            Ok(found) => found,
            Err(error) => {
                verifier.fail(kind(&error), &error.to_string());
                // Without its index, a segment is still a stream of frames.
                io::Seek::rewind(&mut file)?;
                let lines = BufReader::new(zstd::Decoder::new(file)?);
                return split(lines, &mut |line| self.give(verifier, line, true));
            }
        };
        let signed = found.signed(&self.options.keys).unwrap_or_else(|error| {
            let other = matches!(error, NoteError::OtherKey(_));
            let kind = if other { Kind::OtherKey } else { Kind::Changed };
            verifier.fail(kind, &format!("the index: {error}"));
            None
        });
        let index = &found.index;
        if let Some((origin, key)) = &signed
            && !place.last
            && !(place.asked && self.window.wants(index))
        {
            let last = if place.before_open { sealed::last_checkpoint(&mut file, index)? } else { None };
            if last.is_some() || !place.before_open {
                if !verifier.failed() {
                    verifier.pass(index, origin, key, last.as_deref());
                }
                return Ok(ControlFlow::Continue(()));
            }
        }
        let mut indexer = (self.audit || signed.is_none()).then(|| sealed::Indexer::new(index.first));
        for block in &index.blocks {
            let lines = match sealed::block(&mut file, block) {
                Ok(lines) => lines,
                Err(error) => {
                    verifier.fail(kind(&error), &error.to_string());
                    if self.audit {
                        break;
                    }
                    continue;
                }
            };
            // Only a signed index is believed about what is not in a frame.
            let inside = signed.is_none() || self.window.touches(block.times);
            for line in lines.split_inclusive(|byte| *byte == b'\n') {
                if let Some(indexer) = &mut indexer {
                    indexer.line(line);
                }
                if self.give(verifier, line, inside).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if let Some(indexer) = &mut indexer {
                indexer.end_block(block.bytes, block.hash.clone());
            }
        }
        if let Some(made) = indexer.map(sealed::Indexer::finish) {
            let old = sealed::Index { removed: Vec::new(), ..made.clone() };
            // An index without a note is of a version that did not keep what was removed.
            if made != *index && (signed.is_some() || old != *index) {
                verifier.fail(Kind::Changed, "the index does not fit the records");
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn kind(error: &io::Error) -> Kind {
    if error.kind() == io::ErrorKind::InvalidData { Kind::Changed } else { Kind::Unreadable }
}

/// Splits text into lines of bounded length.
fn split(
    mut text: impl io::BufRead,
    give: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut text).take(LINE_MAX as u64 + 64).read_until(b'\n', &mut line)? == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        if give(&line).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
}

/// Whether anything of a log was ever sealed: a daemon seals for the first time after an interval.
///
/// # Errors
/// When the directory cannot be read.
pub fn has_checkpoint(dir: &Path) -> Result<bool, LogError> {
    let segments = segment::list(dir)?;
    let mut found = segments.iter().any(|segment| segment.sealed);
    for segment in segments.iter().filter(|segment| !segment.sealed) {
        let _problem = of_one(segment, &mut |line| {
            found |= matches!(line, Line::Checkpoint(_));
            if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }
    Ok(found)
}

/// What the headers of a log name as its keys, in order: only what the log says of itself.
///
/// # Errors
/// When the directory cannot be read.
pub fn named_keys(dir: &Path) -> Result<Vec<super::note::PublicKey>, LogError> {
    let mut keys = Vec::new();
    for segment in segment::list(dir)? {
        let _problem = of_one(&segment, &mut |line| {
            if let Line::Header(header) = line
                && let Ok(key) = super::note::PublicKey::parse(&header.key)
                && !keys.contains(&key)
            {
                keys.push(key);
            }
            ControlFlow::Break(())
        });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests;
