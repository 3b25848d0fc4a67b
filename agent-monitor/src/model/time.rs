//! Points in time as the contract writes them. Reads no clock: that is `clock`'s.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment, to the nanosecond. Text form: RFC 3339 UTC with nine fractional digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Timestamp);

impl Time {
    /// 1970-01-01T00:00:00Z, for tests and "not set".
    pub const EPOCH: Self = Self(Timestamp::UNIX_EPOCH);

    /// From nanoseconds since 1970; clamped to the years -9999 … 9999.
    #[must_use]
    pub fn from_unix_nanos(nanos: i128) -> Self {
        Self(Timestamp::from_nanosecond(nanos).unwrap_or(if nanos < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        }))
    }

    /// Nanoseconds since 1970.
    #[must_use]
    pub fn unix_nanos(self) -> i128 {
        self.0.as_nanosecond()
    }

    /// Seconds since 1970, with fraction, for metrics.
    #[must_use]
    pub fn unix_seconds(self) -> f64 {
        self.0.as_duration().as_secs_f64()
    }

    /// This moment moved back; stops at the earliest that can be written.
    #[must_use]
    pub fn before(self, span: std::time::Duration) -> Self {
        Self::from_unix_nanos(
            self.unix_nanos().saturating_sub(span.as_nanos().try_into().unwrap_or(i128::MAX)),
        )
    }

    /// The same moment as jiff has it.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        Self(timestamp)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.9}", self.0)
    }
}

impl FromStr for Time {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        text.parse().map(Self)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
