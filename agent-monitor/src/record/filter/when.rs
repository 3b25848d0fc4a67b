//! Points in time as people write them: RFC 3339, a date, or a distance back from now (`2h`, `-2h`, `1h30m`).

use std::time::Duration;

use super::FilterError;
use crate::model::Time;

const HINT: &str =
    "2026-11-21T22:36:01Z, 2026-11-21 (UTC), or back from now: 90s, 15m, 2h, 1h30m, 3d, 1w (also -2h)";

/// Reads `text` for the field named `field`.
///
/// # Errors
/// When it is none of the forms.
pub fn parse(field: &'static str, text: &str, now: Time) -> Result<Time, FilterError> {
    let absolute = || text.parse::<Time>().ok().or_else(|| civil(text));
    match text {
        "now" => Some(now),
        _ => duration(text.strip_prefix('-').unwrap_or(text)).map(|back| now.before(back)).or_else(absolute),
    }
    .ok_or_else(|| FilterError { field, problem: format!("`{text}` is not a time"), hint: HINT })
}

/// A date, or date and time without a zone: UTC.
fn civil(text: &str) -> Option<Time> {
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().into())
}

/// `90s`, `1h30m`, `500ms`: numbers with units, no sign, no space.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at_checked(unit)?;
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        let number: u64 = number.parse().ok()?;
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = after;
    }
    Some(total)
}
