//! From the log to what others read: which records, in which form.
//!
//! [`select`] streams the records that were asked for, with the declared gaps and what the log says about itself;
//! [`ocsf`], [`timesketch`] and [`html`] give them a form, [`bundle`] makes evidence of them. Nothing here is in memory
//! as a whole but counts, the process tree and the timeline, which are bounded.

pub mod bundle;
pub mod html;
pub mod ocsf;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod pseudonym;
pub mod sentence;
pub mod timeline;
pub mod timesketch;
pub mod tree;

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::log::LogError;
use crate::log::reader::{self, Window};
use crate::log::verify::{Options, Report};
use crate::model::{Event, Family, Kind, Time};
use crate::record::Filter;

/// Which records are asked for.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// By agent, session, kind, time and the rest.
    pub filter: Filter,
    /// An id that findings or approvals carry.
    pub about: Option<String>,
    /// How much of everything before the first and after the last record that was asked for.
    pub context: Option<Duration>,
    /// Records from this number on are left out: they are not sealed yet.
    pub end: Option<u64>,
}

/// Why a record was selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Because {
    /// It was asked for.
    Asked,
    /// It says what could not be seen, what rules were in force, or what happened to the log.
    Frame,
    /// It is near in time to what was asked for.
    Context,
}

impl Selection {
    fn asked(&self, event: &Event) -> bool {
        let of =
            |detail: &crate::model::Detail, id: &str| detail.values().any(|value| value.as_str() == Some(id));
        let about =
            self.about.as_deref().is_none_or(|id| event.detail.as_ref().is_some_and(|detail| of(detail, id)));
        about && self.filter.matches(event)
    }

    fn window(&self) -> Window {
        let context = self.context.unwrap_or_default();
        let later = |time: Time| {
            Time::from_unix_nanos(
                time.unix_nanos().saturating_add(context.as_nanos().try_into().unwrap_or(i128::MAX)),
            )
        };
        Window {
            since: self.filter.since().map(|since| since.before(context)),
            until: self.filter.until().map(later),
            ..Window::default()
        }
    }
}

/// Records that frame whatever is asked: without them a reader would take silence for calm.
fn frames(event: &Event) -> bool {
    matches!(event.kind.family(), Family::Gap | Family::Log) || event.kind == Kind::FindingGap
}

/// Times of the first and the last record that was asked for.
fn extent(
    dir: &Path,
    options: &Options,
    selection: &Selection,
) -> Result<(Option<(Time, Time)>, Report), LogError> {
    let mut times: Option<(Time, Time)> = None;
    let report = reader::records(dir, options, &selection.window(), |_, json| {
        if let Ok(event) = serde_json::from_slice::<Event>(json)
            && selection.asked(&event)
        {
            let (first, last) = times.unwrap_or((event.time, event.time));
            times = Some((first.min(event.time), last.max(event.time)));
        }
        ControlFlow::Continue(())
    })?;
    Ok((times, report))
}

/// What checking the records of the selection's window shows, without giving any out: for forms in which each record
/// says it.
///
/// # Errors
/// When the log cannot be read.
pub fn check(dir: &Path, options: &Options, selection: &Selection) -> Result<Report, LogError> {
    reader::records(dir, options, &selection.window(), |_, _| ControlFlow::Continue(()))
}

/// One selected record.
#[derive(Debug)]
pub struct Selected<'a> {
    /// Its number in the log.
    pub number: u64,
    /// Its bytes, as they are sealed.
    pub json: &'a [u8],
    /// The same, read.
    pub event: &'a Event,
    /// Why it is here.
    pub because: Because,
}

/// Gives the selected records to `each`, in the order of the log, and returns what checking them on the way showed. With
/// a context the log is read twice.
///
/// # Errors
/// When the log cannot be read, or as `each` says.
pub fn select<E: From<LogError>>(
    dir: &Path,
    options: &Options,
    selection: &Selection,
    mut each: impl FnMut(&Selected<'_>) -> Result<(), E>,
) -> Result<Report, E> {
    let mut before = None;
    let near = match selection.context {
        Some(context) => {
            let (times, report) = extent(dir, options, selection)?;
            before = Some(report);
            times.map(|(first, last)| {
                let after =
                    last.unix_nanos().saturating_add(context.as_nanos().try_into().unwrap_or(i128::MAX));
                ((first.before(context), first), (last, Time::from_unix_nanos(after)))
            })
        }
        None => None,
    };
    let window = selection.window();
    let mut result = Ok(());
    let read = reader::records(dir, options, &window, |number, json| {
        if selection.end.is_some_and(|end| number >= end) {
            return ControlFlow::Continue(());
        }
        let Ok(event) = serde_json::from_slice::<Event>(json) else { return ControlFlow::Continue(()) };
        let time = event.time;
        let because = if selection.asked(&event) {
            Because::Asked
        } else if near.is_some_and(|(before, after)| {
            (before.0..=before.1).contains(&time) || (after.0..=after.1).contains(&time)
        }) {
            Because::Context
        } else if frames(&event) && window.touches(Some((time, time))) {
            Because::Frame
        } else {
            return ControlFlow::Continue(());
        };
        result = each(&Selected { number, json, event: &event, because });
        if result.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    // The first pass decided what is near: where it does not hold, the answer does not.
    result.map(|()| before.filter(|before| !before.ok && !before.open_end).unwrap_or(read))
}

/// What was known of the host when the first selected record was written: the last `log.host` and the records of agents
/// in force before it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Setting {
    /// Number and detail of the `log.host` record.
    pub host: Option<(u64, serde_json::Value)>,
    /// Agent → history of its record: number, time, detail, oldest first.
    pub policies: std::collections::BTreeMap<String, Vec<(u64, Time, serde_json::Value)>>,
    /// The records of agents are left out, because they name users, hosts and paths.
    #[serde(default)]
    pub withheld: bool,
}

impl Setting {
    /// For outsiders: the host under its other name, and no records of agents.
    #[must_use]
    pub fn renamed(&self, names: &pseudonym::Pseudonyms) -> Self {
        let mut host = self.host.clone();
        if let Some((_, host)) = &mut host {
            names.detail("host", host);
        }
        Self { host, policies: std::collections::BTreeMap::new(), withheld: true }
    }
}

/// Most versions of an agent's record that are kept.
const HISTORY_MAX: usize = 1000;

/// Reads the setting: everything up to `until`; and what checking it on the way showed.
///
/// # Errors
/// When the log cannot be read.
pub fn setting(
    dir: &Path,
    options: &Options,
    first: Option<Time>,
    until: Option<Time>,
) -> Result<(Setting, Report), LogError> {
    let mut setting = Setting::default();
    let notes = [Kind::LogHost, Kind::LogPolicy].map(|kind| kind.as_str().to_owned());
    let about = Window { until, notes: notes.into(), ..Window::default() };
    let wanted = [b"\"kind\":\"log.host\"".as_slice(), b"\"kind\":\"log.policy\""];
    let report = reader::records(dir, options, &about, |number, json| {
        let head = json.get(..json.len().min(160)).unwrap_or_default();
        if !wanted.iter().any(|kind| head.windows(kind.len()).any(|part| part == *kind)) {
            return ControlFlow::Continue(());
        }
        let Ok(event) = serde_json::from_slice::<Event>(json) else { return ControlFlow::Continue(()) };
        let Some(detail) = event.detail else { return ControlFlow::Continue(()) };
        if until.is_some_and(|until| event.time >= until) {
            return ControlFlow::Continue(());
        }
        let value = serde_json::Value::Object(detail);
        if event.kind == Kind::LogHost {
            if setting.host.is_none() || first.is_none_or(|first| event.time <= first) {
                setting.host = Some((number, value));
            }
        } else if let Some(agent) = value["agent"].as_str() {
            let history = setting.policies.entry(agent.to_owned()).or_default();
            // The same text again, at another start of the daemon, is no change.
            if history.len() < HISTORY_MAX
                && history.last().is_none_or(|(.., last)| last["sha256"] != value["sha256"])
            {
                history.push((number, event.time, value));
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok((setting, report))
}
