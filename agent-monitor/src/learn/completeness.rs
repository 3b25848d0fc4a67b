//! How much of what the agent did is known, by what the record itself says was lost.
//!
//! Complete means: nothing in the record says that anything of this agent's was missed in the window. One gap is
//! enough to say no.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{BoundBy, Event, Kind, Source, Time};

/// What is known to be missing.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Completeness {
    /// Nothing is known to be missing.
    pub complete: bool,
    /// Events of the agent that were looked at.
    pub seen: u64,
    /// Events that were lost, where they could be counted.
    pub lost: u64,
    /// Part of what happened that was seen, in percent, where all losses could be counted.
    pub percent: Option<f64>,
    /// Losses by reason and kind.
    pub gaps: Vec<Loss>,
    /// Stretches in which the daemon was not running.
    pub daemon_down: Vec<(Time, Time)>,
    /// Processes that were bound some time after their start, or that ran already.
    pub bound_late: u64,
    /// What is known but cannot be put into a rule, by why.
    pub left_out: BTreeMap<String, u64>,
    /// Every reason why it is not complete, in words.
    pub reasons: Vec<String>,
}

/// What was lost for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// Kind of gap.
    pub gap: Kind,
    /// Its reason.
    pub reason: String,
    /// Kind or family of what was missed.
    pub kind: Option<String>,
    /// How many; 0 where it could not be counted.
    pub count: u64,
}

/// Collects what the record says about losses.
#[derive(Debug, Clone, Default)]
pub struct Book {
    gaps: BTreeMap<(Kind, String, Option<String>), u64>,
    uncounted: bool,
    down: Vec<(Time, Time)>,
    late: u64,
    by_calls: bool,
}

impl Book {
    /// Notes what an event of this agent, or a gap, says about what is missing.
    pub fn take(&mut self, event: &Event, agent: &str) {
        let own = event.agent.as_ref().filter(|known| known.id == agent);
        if let Some(own) = own {
            self.by_calls |= event.source == Source::RawTracepoint;
            let late = own.bound_delay_ms.is_some() || own.bound_by == BoundBy::Backfill;
            self.late += u64::from(event.kind == Kind::AgentBound && late);
        }
        let Some(gap) =
            event.gap.as_ref().filter(|gap| gap.agent.as_deref().is_none_or(|known| known == agent))
        else {
            return;
        };
        if event.kind == Kind::GapDaemon {
            self.down.push((gap.first, gap.last));
        }
        self.uncounted |= gap.count == 0;
        let count = self.gaps.entry((event.kind, gap.reason.clone(), gap.kind.clone())).or_default();
        *count = count.saturating_add(gap.count);
    }

    /// The result, with the number of events that were seen and what no rule can say.
    #[must_use]
    pub fn close(self, seen: u64, left_out: BTreeMap<String, u64>) -> Completeness {
        let Self { gaps, uncounted, down, late, by_calls } = self;
        let gaps: Vec<Loss> =
            gaps.into_iter().map(|((gap, reason, kind), count)| Loss { gap, reason, kind, count }).collect();
        let lost = gaps.iter().fold(0_u64, |lost, loss| lost.saturating_add(loss.count));
        let mut reasons: Vec<String> = gaps.iter().map(describe).collect();
        if late > 0 {
            reasons.push(format!(
                "{late} processes were bound after they had started: what they did before is not attributed"
            ));
        }
        if by_calls {
            reasons.push(
                "level partial: failed acts, scripts that are run as programs, io_uring and 32-bit programs are not seen"
                    .to_owned(),
            );
        }
        reasons
            .extend(left_out.iter().map(|(why, count)| format!("{count} acts that no rule can say: {why}")));
        if seen == 0 {
            reasons.push("nothing of the agent is in the record".to_owned());
        }
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let percent =
            (!uncounted && seen > 0).then(|| 100.0 * seen as f64 / seen.saturating_add(lost) as f64);
        Completeness {
            complete: reasons.is_empty(),
            seen,
            lost,
            percent,
            gaps,
            daemon_down: down,
            bound_late: late,
            left_out,
            reasons,
        }
    }
}

fn describe(loss: &Loss) -> String {
    let what = loss.kind.as_deref().unwrap_or("any kind");
    match (loss.gap, loss.count) {
        (Kind::GapDaemon, _) => "the daemon was not running for some of the time".to_owned(),
        (Kind::GapHistory, count) => format!("{count} older events are no longer held"),
        (_, 0) => format!("{} ({}): {what}, not counted", loss.gap, loss.reason),
        (_, count) => format!("{} ({}): {count} events of {what}", loss.gap, loss.reason),
    }
}

#[cfg(test)]
mod tests;
