//! How long people have, and how they are told: table `[approval]` of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::registry::parse::parse_duration;

/// Checked settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long an action is held before it is denied; 1 s to 24 h.
    pub hold_timeout: Duration,
    /// Different requests of one agent that may wait at once; further ones are denied. 1 to 1000.
    pub pending_max: usize,
    /// For how long the same action of the same process stays denied without being asked again.
    pub deny_memory: Duration,
    /// How long an approval waits for the next try of an action that could not be held.
    pub retry_window: Duration,
    /// Where requests are posted to; `http://` only.
    pub webhook: Option<String>,
    /// File with the key of the webhook's signature.
    pub webhook_secret: Option<PathBuf>,
    /// A program that is run for each request, with the request on its standard input.
    pub hook: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hold_timeout: Duration::from_secs(600),
            pending_max: 20,
            deny_memory: Duration::from_secs(10),
            retry_window: Duration::from_secs(600),
            webhook: None,
            webhook_secret: None,
            hook: Vec::new(),
        }
    }
}

/// Table `[approval]` as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Layer {
    /// See [`Settings::hold_timeout`]: `10m`.
    #[serde(alias = "hold_timeout")]
    pub hold_timeout: Option<String>,
    /// See [`Settings::pending_max`].
    #[serde(alias = "pending_max")]
    pub pending_max: Option<usize>,
    /// See [`Settings::deny_memory`].
    #[serde(alias = "deny_memory")]
    pub deny_memory: Option<String>,
    /// See [`Settings::webhook`].
    pub webhook: Option<String>,
    /// See [`Settings::webhook_secret`].
    #[serde(alias = "webhook_secret")]
    pub webhook_secret: Option<PathBuf>,
    /// See [`Settings::hook`].
    pub hook: Option<Vec<String>>,
}

impl Layer {
    /// This layer, with `below` where it says nothing.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            hold_timeout: self.hold_timeout.or(below.hold_timeout),
            pending_max: self.pending_max.or(below.pending_max),
            deny_memory: self.deny_memory.or(below.deny_memory),
            webhook: self.webhook.or(below.webhook),
            webhook_secret: self.webhook_secret.or(below.webhook_secret),
            hook: self.hook.or(below.hook),
        }
    }

    /// Fills in the defaults and checks the values.
    ///
    /// # Errors
    /// Says in words which value does not hold.
    pub fn finish(self) -> Result<Settings, String> {
        let Settings { hold_timeout, pending_max, deny_memory, retry_window, .. } = Settings::default();
        let day = Duration::from_secs(86_400);
        let span = |key: &str, text: Option<String>, default: Duration| {
            let Some(text) = text else { return Ok(default) };
            parse_duration(&text).filter(|span| *span <= day).ok_or_else(|| {
                format!("approval.{key} = \"{text}\" is no time from 1s to 24h: write \"10m\"")
            })
        };
        let pending_max = self.pending_max.unwrap_or(pending_max);
        if !(1..=1000).contains(&pending_max) {
            return Err(format!("approval.pending-max = {pending_max} is out of range: 1 to 1000 requests"));
        }
        if let Some(url) = &self.webhook {
            crate::people::notify::Url::parse(url)
                .map_err(|why| format!("approval.webhook = \"{url}\": {why}"))?;
        }
        let hook = self.hook.unwrap_or_default();
        if hook.first().is_some_and(|program| !program.starts_with('/')) {
            return Err("approval.hook: the program must be an absolute path".to_owned());
        }
        Ok(Settings {
            hold_timeout: span("hold-timeout", self.hold_timeout, hold_timeout)?,
            pending_max,
            deny_memory: span("deny-memory", self.deny_memory, deny_memory)?,
            retry_window,
            webhook: self.webhook,
            webhook_secret: self.webhook_secret,
            hook,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        assert_eq!(Layer::default().finish(), Ok(Settings::default()));
        let bad = |layer: Layer, word: &str| {
            let error = layer.finish().unwrap_err();
            assert!(error.contains(word), "{error}");
        };
        bad(Layer { hold_timeout: Some("2d".to_owned()), ..Layer::default() }, "hold-timeout");
        bad(Layer { pending_max: Some(0), ..Layer::default() }, "pending-max");
        bad(Layer { webhook: Some("ftp://x".to_owned()), ..Layer::default() }, "webhook");
        bad(Layer { hook: Some(vec!["page".to_owned()]), ..Layer::default() }, "absolute");
        let upper = Layer { hold_timeout: Some("5s".to_owned()), ..Layer::default() };
        let lower = Layer { hold_timeout: Some("9s".to_owned()), pending_max: Some(3), ..Layer::default() };
        let both = upper.over(lower).finish().unwrap();
        assert_eq!((both.hold_timeout, both.pending_max), (Duration::from_secs(5), 3));
    }
}
