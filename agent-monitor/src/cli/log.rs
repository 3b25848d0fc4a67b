//! Events from a file, as `events -o jsonl` wrote them.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use agent_monitor::model::Event;
use agent_monitor::replay::log;
use anyhow::Context as _;

use super::exit::{FAILURE, Failure};

/// Longest line that is read.
const LINE_MAX: u64 = 16 << 20;

/// Gives every event of the file to `take`; the first bad line ends it.
pub(super) fn read(path: &Path, mut take: impl FnMut(&Event) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("cannot read the log {}", path.display()))?;
    let mut lines = BufReader::new(file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let limited = &mut std::io::Read::take(&mut lines, LINE_MAX);
        let read = limited.read_until(b'\n', &mut line);
        if read.with_context(|| format!("cannot read the log {}", path.display()))? == 0 {
            break;
        }
        match log::parse(number, &line) {
            Ok(Some(event)) => take(&event)?,
            Ok(None) => {}
            Err(error) => {
                let message = format!("{}: {error}", path.display());
                return Err(Failure { code: FAILURE, message, hint: Some(error.hint.to_owned()) }.into());
            }
        }
    }
    Ok(())
}
