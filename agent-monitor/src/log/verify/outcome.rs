//! What a pass over a log showed, for the people and programs that read what was made of it.

use serde::{Deserialize, Serialize};

use super::Report;
use crate::model::Time;

/// Whether what was read is what was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Everything that was read holds, and a key that is trusted sealed it.
    pub verified: bool,
    /// Number of the last checkpoint that holds; 0 without any.
    pub checkpoint: u64,
    /// When it was made.
    pub sealed_until: Option<Time>,
    /// Records before this number are sealed by it.
    pub sealed: u64,
    /// Why it is not verified.
    pub reason: Option<String>,
    /// What holds nevertheless, or was left out.
    pub remark: Option<String>,
}

impl Outcome {
    /// Of something that has no proof, and why.
    #[must_use]
    pub fn unproven(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::default() }
    }

    /// In a line: `verified up to checkpoint 12 …` or `NOT verified: …`.
    #[must_use]
    pub fn text(&self) -> String {
        let remark = self.remark.as_ref().map_or_else(String::new, |remark| format!("; {remark}"));
        match &self.reason {
            None => format!("{}{remark}", self.up_to()),
            Some(reason) if self.checkpoint > 0 => {
                format!("NOT verified: {reason}; {}{remark}", self.up_to())
            }
            Some(reason) => format!("NOT verified: {reason}{remark}"),
        }
    }

    fn up_to(&self) -> String {
        let time = self.sealed_until.map_or_else(String::new, |time| format!(" of {time}"));
        format!("verified up to checkpoint {}{time}", self.checkpoint)
    }

    /// The same for one record.
    #[must_use]
    pub fn of(&self, number: u64) -> String {
        if self.reason.is_none() && number >= self.sealed {
            return format!("NOT verified: not sealed when it was read; {}", self.up_to());
        }
        self.text()
    }

    /// What holds of two passes over the same log.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self.verified { other } else { self }
    }
}

impl Report {
    /// In short. Without `trusted`, the keys come from the log itself: it is consistent at best.
    #[must_use]
    pub fn outcome(&self, trusted: bool) -> Outcome {
        let damage = self.damage.first().map(|damage| {
            let at = damage.record.map_or_else(String::new, |record| format!(" at record {record}"));
            let file = damage.file.as_ref().map_or_else(String::new, |file| format!(" in {file}"));
            format!("{}{at}{file}: {}", damage.kind.as_str(), damage.message)
        });
        self.outcome_with(damage, trusted)
    }

    /// The same for those who use only what is sealed: how the log ends is then a remark.
    #[must_use]
    pub fn sealed_outcome(&self, trusted: bool) -> Outcome {
        let Some(end) = self.damage.first().filter(|_| self.open_end) else { return self.outcome(trusted) };
        let mut outcome = Self { ok: true, damage: Vec::new(), ..self.clone() }.outcome(trusted);
        let remark = outcome.remark.map_or_else(String::new, |remark| format!("; {remark}"));
        outcome.remark = Some(format!("{}{remark}", end.message));
        outcome
    }

    fn outcome_with(&self, damage: Option<String>, trusted: bool) -> Outcome {
        let keyless = || (!trusted).then(|| "no key of this log is at hand; give --key".to_owned());
        let stopped = || (!self.ok).then(|| "it was not read to the end".to_owned());
        let reason = damage.or_else(stopped).or_else(keyless);
        let mut remarks = self.notes.clone();
        if self.passed > 0 {
            remarks.push(format!("{} segments were left out by their signed indexes", self.passed));
        }
        Outcome {
            verified: reason.is_none(),
            checkpoint: if trusted { self.last_checkpoint } else { 0 },
            sealed_until: self.sealed_until.filter(|_| trusted),
            sealed: self.sealed,
            reason,
            remark: (!remarks.is_empty()).then(|| remarks.join("; ")),
        }
    }
}
