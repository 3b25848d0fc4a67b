//! Timesketch: JSON lines with `message`, `datetime`, `timestamp_desc`, and the time in microseconds.
//!
//! Without the integer the importer would lose the fraction of a second. Long values are cut in `message`; the field
//! that is searched by keyword takes 32,766 bytes at most, so command lines are cut to fit and marked.
#![deny(clippy::wildcard_enum_match_arm)]

use serde_json::{Map, Value, json};

use super::Selected;
use super::sentence;
use crate::log::verify::Outcome;
use crate::model::Family;

/// Most bytes of a text field.
const FIELD_MAX: usize = 32_000;

/// One line, without its end.
#[must_use]
pub fn line(record: &Selected<'_>, host: &str, outcome: &Outcome) -> String {
    let event = record.event;
    let time = event.time.timestamp();
    let micros = event.time.unix_nanos().div_euclid(1000);
    let mut out = Map::new();
    let mut set = |key: &str, value: Value| {
        if !value.is_null() {
            out.insert(key.to_owned(), value);
        }
    };
    set("message", cut(&sentence::of(event)).into());
    set("datetime", format!("{time:.6}").replace('Z', "+00:00").into());
    set("timestamp", i64::try_from(micros).unwrap_or(i64::MAX).into());
    set("timestamp_desc", description(event.kind.family()).into());
    set("data_type", format!("agentmon:{}", event.kind.as_str().replace('.', ":")).into());
    set("hostname", host.into());
    set("kind", event.kind.as_str().into());
    set("record", record.number.into());
    set("verdict", event.verdict.map(|verdict| verdict.as_str()).into());
    set("errno", event.errno.map(|errno| errno.to_string()).into());
    set("rule", event.rule.clone().into());
    set("source", event.source.as_str().into());
    set("verification", outcome.of(record.number).into());
    if let Some(agent) = &event.agent {
        set("agent", agent.id.clone().into());
        set("session", agent.session.clone().into());
        set("bound_by", agent.bound_by.as_str().into());
    }
    if let Some(process) = &event.process {
        set("pid", process.pid.into());
        set("ppid", process.ppid.into());
        set("username", process.user.clone().into());
        set("uid", process.uid.into());
        set("executable", process.exe.clone().into());
        set("command_line", cut(&process.args.join(" ")).into());
        set("working_directory", process.cwd.clone().into());
        set("container_id", process.container.clone().into());
    }
    if let Some(file) = &event.file {
        set("path", file.path.clone().into());
        set("new_path", file.new_path.clone().into());
    }
    if let Some(network) = &event.network {
        set("dst_ip", network.remote.map(|remote| remote.ip().to_string()).into());
        set("dst_port", network.remote.map(|remote| remote.port()).into());
        set("domain", network.name.clone().into());
        set("socket", network.path.clone().into());
        set("bytes_sent", network.bytes_sent.into());
        set("bytes_received", network.bytes_received.into());
    }
    let mut tags: Vec<String> = crate::mapping::of(event).iter().map(|entry| entry.id.to_owned()).collect();
    tags.extend(event.labels.iter().map(|label| format!("label:{label}")));
    tags.extend(event.verdict.map(|verdict| verdict.as_str().to_owned()));
    set("tag", tags.into());
    json!(out).to_string()
}

fn description(family: Family) -> &'static str {
    match family {
        Family::Gap => "Not Seen Until",
        Family::Log | Family::Agent | Family::Session | Family::Grant | Family::Approval => "Recorded Time",
        Family::Process
        | Family::File
        | Family::Network
        | Family::Privilege
        | Family::Tamper
        | Family::Finding => "Event Time",
    }
}

fn cut(text: &str) -> String {
    if text.len() <= FIELD_MAX {
        return text.to_owned();
    }
    let mut end = FIELD_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} [cut]", text.get(..end).unwrap_or_default())
}
