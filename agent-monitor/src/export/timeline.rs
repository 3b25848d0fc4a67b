//! When things happened: counts in even steps, and the moments that matter.

use std::collections::BTreeMap;

use serde::Serialize;

use super::sentence;
use crate::model::{Event, Family, Kind, Time, Verdict};

/// Steps that are kept; when there are more, two become one.
const STEPS_MAX: usize = 480;
/// Moments that are kept.
pub const MOMENTS_MAX: usize = 5_000;

/// Counts in one step.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Step {
    /// By family.
    pub families: BTreeMap<&'static str, u64>,
    /// With a verdict of deny, hold or kill.
    pub refused: u64,
    /// Gap records.
    pub gaps: u64,
}

/// Something that a reader of the timeline should see.
#[derive(Debug, Clone, Serialize)]
pub struct Moment {
    /// Number of the record.
    pub record: u64,
    /// When.
    pub time: Time,
    /// Kind.
    pub kind: &'static str,
    /// Verdict.
    pub verdict: Option<Verdict>,
    /// Agent.
    pub agent: Option<String>,
    /// In a sentence.
    pub text: String,
}

/// A timeline that stays small.
#[derive(Debug)]
pub struct Timeline {
    /// Nanoseconds of a step, a power of two.
    width: i128,
    steps: BTreeMap<i128, Step>,
    /// Moments, in the order of the log.
    pub moments: Vec<Moment>,
    /// Moments that found no place.
    pub more: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { width: 1 << 20, steps: BTreeMap::new(), moments: Vec::new(), more: 0 }
    }
}

/// Whether an event is one that a reader must see one by one.
#[must_use]
pub fn is_notable(event: &Event) -> bool {
    event.verdict.is_some_and(|verdict| verdict >= Verdict::Deny)
        || matches!(
            event.kind.family(),
            Family::Gap
                | Family::Finding
                | Family::Tamper
                | Family::Approval
                | Family::Grant
                | Family::Session
        )
        || matches!(event.kind.family(), Family::Agent if event.kind != Kind::AgentBound)
        || matches!(
            event.kind,
            Kind::LogOpened
                | Kind::LogSetAside
                | Kind::LogClosed
                | Kind::LogRetained
                | Kind::LogKey
                | Kind::LogClock
                | Kind::LogHeld
        )
}

impl Timeline {
    /// Takes an event.
    pub fn take(&mut self, number: u64, event: &Event) {
        let at = event.time.unix_nanos();
        let step = self.steps.entry(at.div_euclid(self.width)).or_default();
        *step.families.entry(event.kind.family().as_str()).or_default() += 1;
        step.refused += u64::from(event.verdict.is_some_and(|verdict| verdict >= Verdict::Deny));
        step.gaps += u64::from(event.kind.family() == Family::Gap);
        while self.steps.len() > STEPS_MAX {
            self.widen();
        }
        if !is_notable(event) {
            return;
        }
        if self.moments.len() >= MOMENTS_MAX {
            self.more += 1;
            return;
        }
        self.moments.push(Moment {
            record: number,
            time: event.time,
            kind: event.kind.as_str(),
            verdict: event.verdict,
            agent: event.agent.as_ref().map(|agent| agent.id.clone()),
            text: sentence::of(event),
        });
    }

    fn widen(&mut self) {
        self.width *= 2;
        for (at, step) in std::mem::take(&mut self.steps) {
            let into = self.steps.entry(at.div_euclid(2)).or_default();
            step.families
                .into_iter()
                .for_each(|(family, count)| *into.families.entry(family).or_default() += count);
            into.refused += step.refused;
            into.gaps += step.gaps;
        }
    }

    /// Nanoseconds of a step.
    #[must_use]
    pub fn width(&self) -> i128 {
        self.width
    }

    /// Beginning and counts of each step that has any.
    pub fn steps(&self) -> impl Iterator<Item = (Time, &Step)> {
        self.steps.iter().map(|(at, step)| (Time::from_unix_nanos(at.saturating_mul(self.width)), step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::fake::event;

    #[test]
    fn it_stays_small_and_counts_everything() {
        let mut timeline = Timeline::default();
        for number in 0..200_000u64 {
            let mut event = event(number);
            event.time = Time::from_unix_nanos(i128::from(number) * 50_000_000);
            event.verdict = Some(if number.is_multiple_of(1000) { Verdict::Deny } else { Verdict::Allow });
            timeline.take(number, &event);
        }
        let steps: Vec<_> = timeline.steps().collect();
        assert!((STEPS_MAX / 4..=STEPS_MAX).contains(&steps.len()), "{}", steps.len());
        assert_eq!(steps.iter().map(|(_, step)| step.families["file"]).sum::<u64>(), 200_000);
        assert_eq!(steps.iter().map(|(_, step)| step.refused).sum::<u64>(), 200);
        assert_eq!(timeline.moments.len(), 200);
        assert!(steps.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
