//! Where a log is: a directory of segments, the state directory it lies in, or the daemon's own by default; and which
//! keys may have signed it.

use std::path::{Path, PathBuf};

use agent_monitor::clock;
use agent_monitor::log::key::{self, Keys};
use agent_monitor::log::note::PublicKey;
use agent_monitor::log::verify::{Options, Outcome, Report};
use agent_monitor::log::{DIRECTORY, KEYS};
use agent_monitor::log::{reader, segment};
use anyhow::Context as _;

use super::Shared;
use super::exit::Failure;

/// A directory with segments in it: `path` itself, or `log` in it.
pub(crate) fn log_dir(path: &Path) -> anyhow::Result<PathBuf> {
    for dir in [path.to_owned(), path.join(DIRECTORY)] {
        match segment::list(&dir) {
            Ok(segments) if !segments.is_empty() => return Ok(dir),
            Err(error) if error.source.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(error.into());
            }
            _ => {}
        }
    }
    let hint = "name the directory that holds NNNN.zst and NNNN.open, the state directory it lies in, a bundle, or a \
                file of `events -o jsonl`";
    let why = match path.metadata() {
        Err(error) => error.to_string(),
        Ok(meta) if meta.is_dir() => "no segment is in it".to_owned(),
        Ok(_) => "it is not a directory".to_owned(),
    };
    Err(Failure::usage(format!("{} is no log: {why}", path.display()), hint).into())
}

/// The log that `given` names, else the one of the settings' state directory.
pub(crate) fn log_or_own(given: Option<&Path>, shared: &Shared) -> anyhow::Result<PathBuf> {
    match given {
        Some(path) => log_dir(path),
        None => log_dir(&shared.state_dir()?.join(DIRECTORY)),
    }
}

/// The state directory of a log: where its keys are, unless it was copied without them.
pub(crate) fn keys_beside(log: &Path) -> Keys {
    Keys::in_state(log.parent().unwrap_or(Path::new("/")))
}

/// How a log is checked while it is read.
#[derive(Debug)]
pub(crate) struct Trust {
    /// With which keys.
    pub(crate) options: Options,
    /// The keys were given, or lie beside the log; else the log named them itself, which proves nothing.
    pub(crate) trusted: bool,
}

impl Trust {
    /// For the log in `dir`, with the keys that `given` names.
    pub(crate) fn of(given: &[String], dir: &Path) -> anyhow::Result<Self> {
        let beside = dir.parent().unwrap_or(Path::new("/"));
        let (keys, trusted) = if given.is_empty() && !beside.join(KEYS).join("log.pub").exists() {
            (reader::named_keys(dir)?, false)
        } else {
            (trusted(given, beside)?.0, true)
        };
        Ok(Self { options: Options { keys, copies: Vec::new(), now: Some(clock::now()) }, trusted })
    }

    /// In short, what a pass over the log showed.
    pub(crate) fn outcome(&self, report: &Report) -> Outcome {
        report.outcome(self.trusted)
    }
}

/// The keys that may have signed: from `given` (a verifier key, a file of one, or a file of hand-overs), else from the
/// directory beside the log. Whether they were given, and so can be trusted more than the log itself.
pub(crate) fn trusted(given: &[String], beside: &Path) -> anyhow::Result<(Vec<PublicKey>, bool)> {
    let mut first = None;
    let mut rotations = Vec::new();
    for value in given {
        if let Ok(key) = PublicKey::parse(value) {
            first = first.or(Some(key));
            continue;
        }
        let text = std::fs::read_to_string(value).with_context(|| format!("cannot read the key {value}"))?;
        match PublicKey::parse(&text) {
            Ok(key) => first = first.or(Some(key)),
            Err(_) => rotations.extend(key::read_rotations(&text)),
        }
    }
    let dir = beside.join(KEYS);
    if rotations.is_empty() {
        rotations = std::fs::read_to_string(dir.join("rotations"))
            .map(|t| key::read_rotations(&t))
            .unwrap_or_default();
    }
    if let Some(first) = first {
        return Ok((key::chain(first, &rotations), true));
    }
    let path = dir.join("log.pub");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("no --key was given, and there is none in {}", dir.display()))?;
    let current = PublicKey::parse(&text).with_context(|| format!("{} is no key", path.display()))?;
    let oldest = rotations
        .first()
        .and_then(|note| note.lines().find_map(|line| PublicKey::parse(line.strip_prefix("old ")?).ok()));
    let chain = key::chain(oldest.unwrap_or_else(|| current.clone()), &rotations);
    Ok((if chain.contains(&current) { chain } else { vec![current] }, false))
}
