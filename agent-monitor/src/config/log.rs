//! Table `[log]`: the durable log.

use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, in_range};
use crate::log::{OnFull, Settings, Sync};

/// Settings of the durable log, as far as they are set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LogLayer {
    /// Whether there is one; without it events are in memory only.
    pub enabled: Option<bool>,
    /// `checkpoint` or `always`.
    pub sync: Option<Sync>,
    /// Seconds between checkpoints, 1 … 3600; also when idle.
    pub checkpoint_seconds: Option<usize>,
    /// `stop-writing` or `drop-oldest`.
    pub on_full: Option<OnFull>,
    /// MiB of lines in a segment, 1 … 1024.
    pub segment_mebibytes: Option<usize>,
    /// Days that records are kept, 1 … 36 500; 0 keeps them for ever.
    pub keep_days: Option<usize>,
    /// MiB that all segments may take, 16 … 16 777 216; 0 is no bound.
    pub keep_mebibytes: Option<usize>,
    /// Events that may wait to be written, 16 … 16 777 216.
    pub queue: Option<usize>,
}

impl LogLayer {
    /// This layer, with `below` where it says nothing.
    #[must_use]
    pub(super) fn over(self, below: Self) -> Self {
        Self {
            enabled: self.enabled.or(below.enabled),
            sync: self.sync.or(below.sync),
            checkpoint_seconds: self.checkpoint_seconds.or(below.checkpoint_seconds),
            on_full: self.on_full.or(below.on_full),
            segment_mebibytes: self.segment_mebibytes.or(below.segment_mebibytes),
            keep_days: self.keep_days.or(below.keep_days),
            keep_mebibytes: self.keep_mebibytes.or(below.keep_mebibytes),
            queue: self.queue.or(below.queue),
        }
    }

    /// Fills in the defaults and checks the ranges.
    pub(super) fn finish(self) -> Result<Settings, ConfigError> {
        let base = Settings::default();
        let seconds = self.checkpoint_seconds.unwrap_or(10);
        in_range("log.checkpoint-seconds", seconds, 1..=3600, "1 to 3600 seconds")?;
        let segment = self.segment_mebibytes.unwrap_or(16);
        in_range("log.segment-mebibytes", segment, 1..=1024, "1 to 1024 MiB")?;
        let days = self.keep_days.unwrap_or(90);
        in_range("log.keep-days", days, 0..=36_500, "0 to 36500 days, 0 for ever")?;
        let keep = self.keep_mebibytes.unwrap_or(20 << 10);
        if keep != 0 {
            in_range("log.keep-mebibytes", keep, 16..=1 << 24, "0 for no bound, or 16 to 16777216 MiB")?;
        }
        let queue = self.queue.unwrap_or(base.queue);
        in_range("log.queue", queue, 16..=1 << 24, "16 to 16777216 events")?;
        Ok(Settings {
            enabled: self.enabled.unwrap_or(base.enabled),
            sync: self.sync.unwrap_or_default(),
            interval: Duration::from_secs(seconds as u64),
            on_full: self.on_full.unwrap_or_default(),
            segment_bytes: (segment as u64) << 20,
            max_age: (days > 0).then(|| Duration::from_secs(days as u64 * 86_400)),
            max_bytes: (keep > 0).then_some((keep as u64) << 20),
            queue,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{ConfigError, Layer};
    use super::*;

    #[test]
    fn the_log_is_set_by_its_table() {
        let text = "[log]\nsync = \"always\"\non-full = \"drop-oldest\"\nkeep-days = 0\ncheckpoint-seconds = 2\n\
                    [[redact]]\nkind = \"acme\"\npattern = \"acme-[0-9]+\"\n";
        let config = Layer::parse(Path::new("a.toml"), text).unwrap().finish().unwrap();
        assert_eq!((config.log.sync, config.log.on_full), (Sync::Always, OnFull::DropOldest));
        assert_eq!((config.log.max_age, config.log.interval), (None, Duration::from_secs(2)));
        assert_eq!(config.redact.len(), 1);
        let bad = |text: &str| Layer::parse(Path::new("a.toml"), text).and_then(Layer::finish).unwrap_err();
        assert!(matches!(bad("[log]\ncheckpoint-seconds = 0\n"), ConfigError::Range { .. }));
        assert!(matches!(bad("[log]\nsyncs = 1\n"), ConfigError::Text(_)));
        assert!(matches!(bad("[[redact]]\nkind = \"a\"\npattern = \"(\"\n"), ConfigError::Redact(_)));
    }
}
