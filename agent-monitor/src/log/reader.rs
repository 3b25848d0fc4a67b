//! Reading a log: live, at rest, or copied elsewhere, in order, without holding more than one frame.
//!
//! A window of time opens only the segments and frames that the index says can hold some of it. Nothing is proven here:
//! that is `verify`'s. What cannot be read is skipped and counted, so that a damaged log still tells what it can.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::ops::ControlFlow;
use std::path::Path;

use super::LogError;
use super::segment::{self, LINE_MAX, Line, Segment, parse, sealed};
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

/// What was read, and what could not be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// Records given out.
    pub records: u64,
    /// Files that could not be read to the end, and why.
    pub damaged: Vec<String>,
}

/// Gives every line of the segments that the window touches to `each`, in order.
///
/// # Errors
/// When the directory cannot be read.
pub fn lines(
    dir: &Path,
    window: &Window,
    each: &mut dyn FnMut(&Line<'_>) -> ControlFlow<()>,
) -> Result<Read, LogError> {
    let mut read = Read::default();
    for segment in segment::list(dir)? {
        match of_segment(&segment, window, each, &mut read) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            Err(error) => read.damaged.push(format!("{}: {error}", segment.path.display())),
        }
    }
    Ok(read)
}

/// Gives every record (number, bytes) of the window's segments to `each`. Those outside of it, in the same frames, too.
///
/// # Errors
/// When the directory cannot be read.
pub fn records(
    dir: &Path,
    window: &Window,
    mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Result<Read, LogError> {
    lines(dir, window, &mut |line| match line {
        Line::Record { number, json, .. } => each(*number, json),
        _ => ControlFlow::Continue(()),
    })
}

/// The newest records (bytes) of the window's segments that are `wanted`, at most `limit`, in the order of the log. Reads
/// from the newest segment back, and no further than it takes.
///
/// # Errors
/// When the directory cannot be read.
pub fn newest(
    dir: &Path,
    window: &Window,
    limit: usize,
    mut wanted: impl FnMut(&[u8]) -> bool,
) -> Result<(VecDeque<Vec<u8>>, Read), LogError> {
    let mut read = Read::default();
    let mut found: VecDeque<Vec<u8>> = VecDeque::new();
    for segment in segment::list(dir)?.iter().rev() {
        let room = limit.saturating_sub(found.len());
        if room == 0 {
            break;
        }
        let mut here = VecDeque::new();
        let each = &mut |line: &Line<'_>| {
            if let Line::Record { json, .. } = line
                && wanted(json)
            {
                if here.len() == room {
                    here.pop_front();
                }
                here.push_back(json.to_vec());
            }
            ControlFlow::Continue(())
        };
        if let Err(error) = of_segment(segment, window, each, &mut read) {
            read.damaged.push(format!("{}: {error}", segment.path.display()));
        }
        here.append(&mut found);
        found = here;
    }
    Ok((found, read))
}

/// Gives every line of one segment to `each`.
///
/// # Errors
/// When it cannot be read to the end.
pub fn of_one(segment: &Segment, each: &mut dyn FnMut(&Line<'_>) -> ControlFlow<()>) -> io::Result<()> {
    of_segment(segment, &Window::default(), each, &mut Read::default()).map(|_flow| ())
}

fn of_segment(
    segment: &Segment,
    window: &Window,
    each: &mut dyn FnMut(&Line<'_>) -> ControlFlow<()>,
    read: &mut Read,
) -> io::Result<ControlFlow<()>> {
    let mut give = |line: &[u8]| {
        // The end of a growing segment may be half a line.
        let Some(line) = line.strip_suffix(b"\n") else { return ControlFlow::Continue(()) };
        let Some(line) = parse(line) else { return ControlFlow::Continue(()) };
        read.records += u64::from(matches!(line, Line::Record { .. }));
        each(&line)
    };
    let file = match segment::open(&segment.path) {
        // Closed between listing and opening.
        Err(error) if error.source.kind() == io::ErrorKind::NotFound && !segment.sealed => {
            segment::open(&segment.path.with_extension("zst"))?
        }
        other => other?,
    };
    if !segment.sealed && segment.path.exists() {
        return split(BufReader::with_capacity(1 << 17, file), &mut give);
    }
    of_sealed(file, window, &mut give)
}

fn of_sealed(
    mut file: File,
    window: &Window,
    give: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let index = match sealed::index(&mut file) {
        Ok(index) => index,
        // Without its index, a segment is still a stream of frames.
        Err(error) => {
            io::Seek::rewind(&mut file)?;
            let flow = split(BufReader::new(zstd::Decoder::new(file)?), give)?;
            return if flow.is_break() { Ok(flow) } else { Err(error) };
        }
    };
    if !window.wants(&index) {
        return Ok(ControlFlow::Continue(()));
    }
    for block in index.blocks.iter().filter(|block| window.touches(block.times)) {
        let lines = sealed::block(&mut file, block)?;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if give(line).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
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
