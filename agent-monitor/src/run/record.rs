//! Starting the durable record: redaction and log behind the store, and what an investigator must know of the host.

use std::fs;

use super::core::Core;
use crate::clock;
use crate::log::copies::Sockets;
use crate::log::key::Keys;
use crate::log::recorder::{self, LogStatus};
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
                self.store.log_to(log);
                self.store.note(self.host_event());
            }
            Err(error) => {
                tracing::error!(%error, "there is no durable record of what happens now");
                let event =
                    self.about(Kind::FindingGap, &[("reason", "no_log"), ("error", &error.to_string())]);
                self.store.append(event);
                *super::core::lock(&self.log_failed) = Some(recorder::failed(&self.log_dir(), &error));
            }
        }
    }

    fn log_dir(&self) -> std::path::PathBuf {
        self.config.state_dir.join(log::DIRECTORY)
    }

    fn open_log(&self) -> Result<std::sync::Arc<Recorder>, LogError> {
        let (state, settings) = (&self.config.state_dir, self.config.log.clone());
        let (log, opened) =
            Recorder::start(state, settings, &host_name(), Sockets::default(), clock::moment)?;
        if let Some((path, reason)) = &opened.aside {
            let path = path.display().to_string();
            let fields = [("reason", reason.as_str()), ("aside", &path)];
            self.store.append(self.about(Kind::FindingTamper, &fields));
        }
        Ok(log)
    }

    /// How the log is; `None` where there is to be none.
    pub(super) fn log_status(&self) -> Option<LogStatus> {
        let running = self.store.log().map(|log| log.status());
        running.or_else(|| super::core::lock(&self.log_failed).clone())
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
