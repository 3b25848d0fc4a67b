//! What may be removed: old segments by age and size, never what a legal hold needs.
//!
//! Whole closed segments go, and a record says which before they do; `verify` accepts that hole and no other. Of a
//! segment in the middle the subtrees stay (`….gone`), so that records before it can still be proven.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::segment::sealed::{self, Index};
use super::segment::{self, Segment};
use super::{LogError, key};
use crate::model::Time;

/// A legal hold: what it covers is not removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Its id.
    pub id: String,
    /// Agent whose records are held; `None` for all.
    pub agent: Option<String>,
    /// Records not before; `None` for all.
    pub since: Option<Time>,
    /// Records before; `None` for all that come too.
    pub until: Option<Time>,
    /// Why.
    pub reason: String,
    /// Who asked for it.
    pub by: String,
    /// When it was made.
    pub time: Time,
}

impl Hold {
    /// Whether a segment may hold something of it.
    #[must_use]
    pub fn covers(&self, index: &Index) -> bool {
        let Some((first, last)) = index.times else { return false };
        let agent = self.agent.as_ref();
        agent.is_none_or(|id| index.agents.contains_key(id) || index.agents.contains_key("*"))
            && self.since.is_none_or(|since| last >= since)
            && self.until.is_none_or(|until| first < until)
    }
}

/// The holds of a state directory.
///
/// # Errors
/// When they cannot be read: nothing may be removed then.
pub fn holds(state: &Path) -> Result<Vec<Hold>, LogError> {
    let path = state.join(super::HOLDS);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| LogError::on("read the holds", &path)(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(LogError { action: "read the holds", path, source }),
    }
}

/// Keeps the holds of a state directory.
///
/// # Errors
/// When they cannot be written.
pub fn keep_holds(state: &Path, holds: &[Hold]) -> Result<(), LogError> {
    let path = state.join(super::HOLDS);
    let bytes = serde_json::to_vec_pretty(holds)
        .map_err(|error| LogError::on("write the holds", &path)(error.into()))?;
    key::replace(&path, &bytes, 0o600)
}

/// What is to go.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Segments to remove, oldest first.
    pub remove: Vec<(PathBuf, Index)>,
    /// Segments that would go but for a hold.
    pub held: u64,
    /// Bytes of all segments before.
    pub bytes: u64,
}

impl Plan {
    /// The record numbers that go: first, and first after, of each run.
    #[must_use]
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (_, index) in &self.remove {
            match ranges.last_mut() {
                Some((_, end)) if *end == index.first => *end = index.end,
                _ => ranges.push((index.first, index.end)),
            }
        }
        ranges
    }
}

/// What the rule of age and size asks to remove. Never the newest closed segment.
///
/// # Errors
/// When the directory cannot be read.
pub fn plan(
    dir: &Path,
    holds: &[Hold],
    now: Time,
    max_age: Option<Duration>,
    max_bytes: Option<u64>,
) -> Result<Plan, LogError> {
    let segments = segment::list(dir)?;
    let size = |segment: &Segment| segment.path.metadata().map_or(0, |metadata| metadata.len());
    let mut plan = Plan { bytes: segments.iter().map(size).sum(), ..Plan::default() };
    let before = max_age.map(|age| now.before(age));
    let mut left = plan.bytes;
    let closed: Vec<&Segment> = segments.iter().filter(|segment| segment.sealed).collect();
    for segment in closed.iter().take(closed.len().saturating_sub(1)) {
        let too_much = max_bytes.is_some_and(|max| left > max);
        // Only what is needed is opened: the first that is young enough ends it.
        let Ok(index) = segment::open(&segment.path).and_then(|mut file| {
            sealed::index(&mut file).map_err(LogError::on("read the index of", &segment.path))
        }) else {
            // Damage is evidence.
            plan.held += 1;
            continue;
        };
        let too_old = before.is_some_and(|before| index.times.is_none_or(|(_, last)| last < before));
        if !too_old && !too_much {
            break;
        }
        if holds.iter().any(|hold| hold.covers(&index)) {
            plan.held += 1;
            continue;
        }
        left = left.saturating_sub(size(segment));
        plan.remove.push((segment.path.clone(), index));
    }
    Ok(plan)
}

/// Removes what a plan says, leaving the subtrees where something older stays.
///
/// # Errors
/// At the first that cannot be removed.
pub fn remove(dir: &Path, plan: &Plan) -> Result<(), LogError> {
    let oldest = segment::list(dir)?.first().map(|segment| segment.first);
    let mut prefix = oldest;
    for (path, index) in &plan.remove {
        if prefix == Some(index.first) {
            prefix = Some(index.end);
        } else {
            let bytes = serde_json::to_vec(&index.peaks).unwrap_or_default();
            key::replace(&path.with_extension("gone"), &bytes, 0o600)?;
        }
        fs::remove_file(path).map_err(LogError::on("remove the old segment", path))?;
    }
    key::sync_dir(dir)
}

/// The subtrees of removed segments.
#[must_use]
pub fn gone(dir: &Path) -> Vec<(u32, u64, String)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let gone = entries.filter(|path| path.extension().is_some_and(|end| end == "gone"));
    let read = |path: PathBuf| -> Option<Vec<_>> { serde_json::from_slice(&fs::read(path).ok()?).ok() };
    gone.filter_map(read).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::bundle::proof;
    use crate::log::fake::{Place, event, moment, settings, time};
    use crate::log::merkle::{leaf, root_of};
    use crate::log::reader::{self, Window};
    use crate::log::writer::about;
    use crate::model::Kind;

    fn hold(agent: &str, until: Option<Time>) -> Hold {
        Hold {
            id: "hold-1".into(),
            agent: Some(agent.into()),
            since: None,
            until,
            reason: "case".into(),
            by: "me".into(),
            time: Time::EPOCH,
        }
    }

    /// A log of several closed segments whose first is held, and whose others but the last closed one are old.
    #[test]
    fn a_hole_in_the_middle_verifies_and_what_is_before_it_can_be_proven() {
        let place = Place::new();
        let mut writer = place.writer(settings(), 0);
        for second in 1..=20 {
            (0..500).for_each(|_| writer.append(&event(writer.size())));
            writer.checkpoint(&moment(second), false).unwrap();
            if writer.is_due() {
                writer.roll(&moment(second)).unwrap();
            }
        }
        let before = segment::list(&place.dir()).unwrap();
        let held = [hold("bot", Some(time(1)))];
        let plan = plan(&place.dir(), &held, time(10_000), Some(Duration::from_secs(60)), None).unwrap();
        assert_eq!((plan.held, plan.remove.len()), (1, before.len() - 3), "{:?}", plan.ranges());
        let ranges: Vec<serde_json::Value> =
            plan.ranges().iter().map(|(a, b)| serde_json::json!([a, b])).collect();
        writer.append(&about(Kind::LogRetained, time(30), [("removed", ranges.into())]));
        writer.checkpoint(&moment(21), true).unwrap();
        remove(&place.dir(), &plan).unwrap();
        let report = place.verify();
        assert!(report.ok, "{report:?}");
        assert_eq!(report.removed_by_rule, plan.ranges());
        // One record from before the hole, one from after it.
        let wanted = [3, report.end - 3];
        let proof = proof::make(&place.dir(), report.end, &wanted).unwrap();
        let mut leaves = Vec::new();
        reader::records(&place.dir(), &place.options(), &Window::default(), |number, json| {
            leaves.extend(wanted.contains(&number).then(|| (number, leaf(json))));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        let size = writer.last().unwrap().size;
        assert_eq!(root_of(size, &leaves, &proof.read().unwrap()), Some(writer.last().unwrap().root));
        // Without the record that says so, the same hole is damage.
        fs::remove_file(&segment::list(&place.dir()).unwrap()[0].path).unwrap();
        assert!(!place.verify().ok);
    }

    #[test]
    fn nothing_goes_that_is_young_small_held_or_the_newest() {
        let place = Place::filled(8000, 500, settings());
        let dir = place.dir();
        let all = segment::list(&dir).unwrap().len();
        assert!(
            plan(&dir, &[], time(10), Some(Duration::from_secs(3600)), Some(1 << 40))
                .unwrap()
                .remove
                .is_empty()
        );
        let everything = plan(&dir, &[], time(10), None, Some(1)).unwrap();
        assert_eq!(everything.remove.len(), all - 2, "neither the open nor the newest closed one");
        let none = plan(&dir, &[hold("bot", None)], time(10), None, Some(1)).unwrap();
        assert!(none.remove.is_empty() && none.held as usize == all - 2);
        let other = plan(&dir, &[hold("stranger", None)], time(10), None, Some(1)).unwrap();
        assert_eq!(other.remove.len(), all - 2);
        keep_holds(place.state.path(), &[hold("bot", None)]).unwrap();
        assert_eq!(holds(place.state.path()).unwrap(), [hold("bot", None)]);
    }
}
