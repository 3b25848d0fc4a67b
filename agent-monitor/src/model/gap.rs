//! What could not be seen.

use serde::{Deserialize, Serialize};

use super::Time;

/// A stretch in which something was missed. Every loss becomes one of these; none is silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Why, in one snake-case word of the component that counted it (`ring_full`, `subscriber_slow`).
    pub reason: String,
    /// Kind or family of what was missed (`file.open`, `file`), or the name of a record that is no event
    /// (`record.dns_answer`, see [`super::kinds::of_record`]); `null` for any.
    pub kind: Option<String>,
    /// Agent whose events were missed; `null` for any or unattributed.
    pub agent: Option<String>,
    /// How many were missed; 0 where it cannot be counted (a hook that is not attached).
    pub count: u64,
    /// First moment of the gap.
    pub first: Time,
    /// Last moment of the gap.
    pub last: Time,
}
