//! Recorded events from wherever they are: a log, a bundle as a directory or a file, or lines in a file.

use std::fs::{self, DirBuilder};
use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use agent_monitor::export::bundle::{archive, manifest, verify};
use agent_monitor::log::reader::{self, Window};
use agent_monitor::log::segment;
use anyhow::Context as _;

use super::place;

/// Longest line that is read.
const LINE_MAX: u64 = 16 << 20;

/// A directory that goes away with this value.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// In the system's directory for such.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("agent-monitor-{}", uuid::Uuid::now_v7().simple()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Where events are.
#[derive(Debug)]
pub(crate) enum Source {
    /// A log's directory.
    Log(PathBuf),
    /// A bundle's directory; unpacked here, where it was one file.
    Bundle(PathBuf, Option<Scratch>),
    /// Lines of the contract.
    Lines(PathBuf),
}

impl Source {
    /// What lies at `path`.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        if path.join(manifest::FILE).is_file() {
            return Ok(Self::Bundle(path.to_owned(), None));
        }
        if !path.is_file() {
            return Ok(Self::Log(place::log_dir(path)?));
        }
        let mut magic = [0; 4];
        let read = segment::open(path)?
            .read(&mut magic)
            .with_context(|| format!("cannot read {}", path.display()))?;
        // A zstd frame.
        if read == 4 && magic == [0x28, 0xb5, 0x2f, 0xfd] {
            let scratch = Scratch::new()?;
            archive::unpack(path, scratch.path())?;
            return Ok(Self::Bundle(scratch.path().to_owned(), Some(scratch)));
        }
        Ok(Self::Lines(path.to_owned()))
    }

    /// Gives each record (number, bytes) that may be in the window to `each`. Returns what could not be read.
    pub(crate) fn each(
        &self,
        window: &Window,
        mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> anyhow::Result<Vec<String>> {
        let path = match self {
            Self::Log(dir) => return Ok(reader::records(dir, window, each)?.damaged),
            Self::Bundle(dir, _) => dir.join("records.jsonl"),
            Self::Lines(path) => path.clone(),
        };
        let mut lines = BufReader::with_capacity(1 << 17, segment::open(&path)?);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = (&mut lines).take(LINE_MAX).read_until(b'\n', &mut line);
            if read.with_context(|| format!("cannot read {}", path.display()))? == 0 {
                break;
            }
            let whole = line.trim_ascii_end();
            let flow = match self {
                Self::Lines(_) if whole.is_empty() => ControlFlow::Continue(()),
                Self::Lines(_) => each(number, whole),
                _ => match verify::record(whole) {
                    Some((number, json)) => each(number, json),
                    None => return Ok(vec![format!("{}:{number}: not a record", path.display())]),
                },
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(Vec::new())
    }
}
