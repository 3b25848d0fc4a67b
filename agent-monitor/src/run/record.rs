//! Starting the durable record: redaction and log behind the store, and what an investigator must know of the host.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::core::Core;
use crate::clock;
use crate::log::condition::{self, Condition};
use crate::log::copies::Sockets;
use crate::log::key::Keys;
use crate::log::recorder::{self, LogStatus};
use crate::log::writer::Opened;
use crate::log::{self, LogError, Recorder};
use crate::model::{Event, Kind};
use crate::redact::Redactor;
use crate::registry::Loaded;

impl Core {
    /// Puts redaction and the log behind the store. A log that cannot be opened does not keep the daemon from its work:
    /// it is a visible state and a finding.
    pub(super) fn keep_record(&self) {
        let keys = Keys::in_state(&self.config.state_dir);
        let key = keys.redaction().unwrap_or_else(|error| {
            tracing::error!(%error, "redaction marks of this run match no others");
            let mut key = [0; 32];
            // Without randomness the marks could be tried: then they are all alike for this run's id.
            key.iter_mut().zip(uuid::Uuid::now_v7().as_bytes().iter().cycle()).for_each(|(k, b)| *k = *b);
            key
        });
        match Redactor::new(key, &self.config.redact) {
            Ok(redactor) => self.store.redact_with(redactor),
            // Checked with the settings.
            Err(error) => tracing::error!(%error, "redaction does not work"),
        }
        if !self.config.log.enabled {
            return;
        }
        match self.open_log() {
            Ok(log) => {
                self.store.log_to(Arc::clone(&log.0));
                self.store.note(self.host_event());
                // After the log is there: what is told of the old one is in the new.
                if let Some(aside) = &log.1.aside {
                    let reason = aside.reason.as_deref().unwrap_or_default();
                    let fields = [("reason", reason), ("aside", &aside.path)];
                    self.store.append(self.about(Kind::FindingTamper, &fields));
                }
            }
            Err(error) => {
                tracing::error!(%error, "there is no durable record of what happens now");
                let event =
                    self.about(Kind::FindingGap, &[("reason", "no_log"), ("error", &error.to_string())]);
                self.store.append(event);
                let since = self.clock.now();
                *super::core::lock(&self.log_failed) = Some(recorder::failed(&self.log_dir(), &error, since));
                self.log_told.store(true, Ordering::Relaxed);
            }
        }
    }

    fn log_dir(&self) -> std::path::PathBuf {
        self.config.state_dir.join(log::DIRECTORY)
    }

    fn open_log(&self) -> Result<(Arc<Recorder>, Opened), LogError> {
        let (state, settings) = (&self.config.state_dir, self.config.log.clone());
        Recorder::start(state, settings, &host_name(), Sockets::default(), clock::moment)
    }

    /// How the log is; `None` where there is to be none.
    pub(super) fn log_status(&self) -> Option<LogStatus> {
        let running = self.store.log().map(|log| log.status());
        let status = running.or_else(|| super::core::lock(&self.log_failed).clone())?;
        Some(status.beside(condition::set_aside(&self.config.state_dir)))
    }

    /// Notes how the log is for the metrics, and says once when it is not written any more.
    pub(super) fn watch_log(&self) {
        let status = self.log_status();
        if let Some(status) = &status {
            let fails = status.has(Condition::NotWritten);
            if fails && !self.log_told.swap(fails, Ordering::Relaxed) {
                let fields =
                    [("reason", "log_not_written"), ("error", status.problem.as_deref().unwrap_or_default())];
                self.store.append(self.about(Kind::FindingGap, &fields));
            }
            self.log_told.store(fails, Ordering::Relaxed);
        }
        self.health.log(status);
    }

    fn host_event(&self) -> Event {
        let mut event = self.about(
            Kind::LogHost,
            &[
                ("host", &host_name()),
                ("machine_id", &read("/etc/machine-id")),
                ("boot_id", &super::state::boot_id()),
                ("kernel", &self.report.kernel),
                ("command_line", &read("/proc/cmdline")),
                ("os", &os_name()),
                ("version", env!("CARGO_PKG_VERSION")),
                ("program_sha256", &program_hash()),
                ("clock", clock::synchronised()),
                ("unattributed", self.config.unattributed.as_str()),
            ],
        );
        if let (Some(detail), Ok(report)) = (&mut event.detail, serde_json::to_value(&self.report)) {
            detail.insert("doctor".to_owned(), report);
        }
        event
    }

    /// Notes the text of records that came into force: what an investigator asks for years later.
    pub(super) fn note_records<'a>(&self, loaded: &Loaded, ids: impl Iterator<Item = &'a str>) {
        for record in ids.filter_map(|id| loaded.get(id)) {
            let text = record.source.text();
            let fields = [
                ("agent", record.id.value.as_str()),
                ("file", &record.file().display().to_string()),
                ("sha256", &sha256(text.as_bytes())),
                ("record", text),
            ];
            self.store.note(self.about(Kind::LogPolicy, &fields));
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    log::hex(&sha2::Sha256::digest(bytes))
}

fn program_hash() -> String {
    fs::read("/proc/self/exe").map(|bytes| sha256(&bytes)).unwrap_or_default()
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn os_name() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map(|name| name.trim_matches('"').to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::control::Daemon as _;
    use crate::health::doctor::{LOG, LOG_SET_ASIDE};
    use crate::health::metrics;
    use crate::log::segment;
    use crate::record::{Extent, Filter};
    use crate::run::tests::bench;

    fn state_of(core: &Core) -> String {
        let text = metrics::render(core.health(), Extent::default()).unwrap();
        let rows = text.lines().filter_map(|line| line.strip_prefix("agent_monitor_log_state{state=\""));
        rows.filter_map(|row| row.strip_suffix("\"} 1.0")).collect::<Vec<_>>().join(" ")
    }

    fn told(core: &Core, kind: Kind) -> usize {
        let page = core.store().query(&Filter::default(), None);
        page.events.iter().filter(|event| event.kind == kind).count()
    }

    #[test]
    fn a_damaged_log_is_a_state_of_the_daemon_and_of_the_next_ones() {
        let bench = bench();
        bench.core.keep_record();
        bench.core.poll(false);
        assert_eq!(state_of(&bench.core), "ok");
        bench.core.store().log().unwrap().close();
        let open = segment::path(&bench.core.log_dir(), 0, false);
        let text = fs::read_to_string(&open).unwrap();
        fs::write(&open, text.replacen("log.host", "log.hosp", 1)).unwrap();
        for restart in 0..2 {
            let core = bench.again();
            core.keep_record();
            core.poll(false);
            let status = core.status().log.unwrap();
            assert_eq!((status.state.as_str(), status.condition), ("writing", Condition::SetAside));
            assert_eq!(state_of(&core), "set_aside");
            let checks = core.doctor().checks;
            let found = |name: &str| checks.iter().find(|check| check.name == name).map(|check| check.ok);
            assert_eq!((found(LOG), found(LOG_SET_ASIDE)), (Some(true), Some(false)));
            assert_eq!(told(&core, Kind::FindingTamper), 1 - restart, "raised when it is found");
            core.store().log().unwrap().close();
            // In the new log, not in memory alone.
            let text = fs::read_to_string(&open).unwrap();
            assert_eq!(text.matches("\"kind\":\"finding.tamper\"").count(), 1);
            assert_eq!(text.matches("\"kind\":\"log.set_aside\"").count(), 1);
            if restart == 1 {
                let aside = &status.set_aside[0].path;
                fs::rename(aside, Path::new(aside).with_file_name("case-7")).unwrap();
                core.poll(false);
                assert_eq!(state_of(&core), "ok", "acknowledged while the daemon runs");
            }
        }
    }

    #[test]
    fn a_log_that_cannot_be_opened_says_since_when_and_why() {
        let bench = bench();
        fs::write(bench.core.log_dir(), "a file").unwrap();
        bench.core.keep_record();
        bench.core.poll(false);
        bench.core.poll(false);
        let status = bench.core.status().log.unwrap();
        assert_eq!(status.condition, Condition::NotWritten);
        assert!(status.since.is_some() && status.problem.unwrap().contains("log directory"));
        assert_eq!(state_of(&bench.core), "not_written");
        assert_eq!(told(&bench.core, Kind::FindingGap), 1, "once");
    }
}
