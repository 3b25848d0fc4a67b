//! An event as one sentence, for exports that show text: who did what to what, and what came of it.
//!
//! Plain text without markup; what came from a process is in it as it is, and whoever shows it must escape it. The
//! sentence of each kind is a column of [`crate::model::kinds`].
#![deny(clippy::wildcard_enum_match_arm)]

use serde::Deserialize as _;

use crate::model::{Event, Family, Mode, Network, Verdict};
use crate::people::who::Caller;

/// Most characters of a sentence.
const MAX: usize = 2000;

/// The sentence of `event`.
#[must_use]
pub fn of(event: &Event) -> String {
    let mut text = format!("{} {}", who(event), what(event));
    if let Some(verdict) = event.verdict.filter(|verdict| *verdict != Verdict::Allow) {
        text.push_str(match (verdict, event.mode) {
            (Verdict::Audit, _) => ", let through and marked",
            (Verdict::Deny, Some(Mode::Enforce)) => ", refused",
            (Verdict::Deny, _) => ", outside its scope (observed, not stopped)",
            (Verdict::Hold, _) => ", held for a person",
            (Verdict::Kill, Some(Mode::Enforce)) => ", and the process was ended",
            (Verdict::Kill, _) => ", which would have ended the process (observed)",
            (Verdict::Allow, _) => "",
        });
        if let Some(rule) = &event.rule {
            text.push_str(&format!(" by {rule}"));
        }
    }
    if let Some(errno) = event.errno {
        text.push_str(&format!(" ({errno})"));
    }
    match text.char_indices().nth(MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

/// The agent, or the process where there is none.
#[must_use]
pub fn who(event: &Event) -> String {
    let program = event.process.as_ref().map(|process| {
        let exe = process.exe.as_deref().unwrap_or("a process");
        format!("{}[{}]", exe.rsplit('/').next().unwrap_or(exe), process.pid)
    });
    match (&event.agent, program) {
        (Some(agent), Some(program)) => format!("{} ({program})", agent.id),
        (Some(agent), None) => agent.id.clone(),
        (None, Some(program)) => format!("unattributed {program}"),
        (None, None) => "the monitor".to_owned(),
    }
}

/// What the event is about: a path, a peer, a command line.
#[must_use]
pub fn object(event: &Event) -> Option<String> {
    match event.kind.family() {
        Family::Process => {
            event.process.as_ref().map(|process| process.args.join(" ")).filter(|text| !text.is_empty())
        }
        Family::Network => event.network.as_ref().map(peer),
        Family::File
        | Family::Privilege
        | Family::Tamper
        | Family::Agent
        | Family::Session
        | Family::Grant
        | Family::Approval
        | Family::Finding
        | Family::Gap
        | Family::Log => {
            let file = event.file.as_ref().and_then(|file| file.path.clone());
            let privilege = event.privilege.as_ref();
            file.or_else(|| privilege.and_then(|p| p.object.clone().or_else(|| p.mount_point.clone())))
                .or_else(|| privilege.and_then(|p| Some(format!("process {}", p.target.as_ref()?.pid))))
                .or_else(|| event.network.as_ref().map(peer))
        }
    }
}

/// The peer or socket in words.
#[must_use]
pub fn peer(network: &Network) -> String {
    let place = network.remote.or(network.local).map(|address| address.to_string());
    let place = place.or_else(|| network.path.clone());
    let place = place.or_else(|| network.abstract_name.as_ref().map(|name| format!("@{name}")));
    let place = place.or_else(|| network.query.clone()).unwrap_or_else(|| network.family.as_str().to_owned());
    match &network.name {
        Some(name) => format!("{name} ({place})"),
        None => place,
    }
}

/// The sentence of the kind with its placeholders filled in. What fills one is never searched for others: it may come
/// from a process.
fn what(event: &Event) -> String {
    let mut rest = event.kind.row().sentence;
    let mut text = String::new();
    while let Some((before, from)) = rest.split_once('{') {
        text.push_str(before);
        let (name, after) = from.split_once('}').unwrap_or((from, ""));
        text.push_str(&match name {
            "object" => object(event).unwrap_or_else(|| "something that is not known".to_owned()),
            "new" => event.file.as_ref().and_then(|file| file.new_path.clone()).unwrap_or_default(),
            "access" => accesses(event),
            "ended" => ended(event),
            "traffic" => traffic(event),
            "opened" => opened(event),
            "gap" => of_gap(event),
            "note" => note(event),
            unknown => format!("{{{unknown}}}"),
        });
        rest = after;
    }
    text.push_str(rest);
    text
}

fn ended(event: &Event) -> String {
    let process = event.process.as_ref();
    let signal = process.and_then(|process| process.exit_signal.as_deref());
    let code = process.and_then(|process| process.exit_code);
    match (signal, code) {
        (Some(signal), _) => format!("was ended by {signal}"),
        (None, Some(code)) => format!("ended with {code}"),
        (None, None) => "ended with an unknown code".to_owned(),
    }
}

fn accesses(event: &Event) -> String {
    let access = event.file.iter().flat_map(|file| &file.access).map(|access| access.as_str());
    let access = access.collect::<Vec<_>>().join(" and ");
    if access.is_empty() { "use it".to_owned() } else { access }
}

fn traffic(event: &Event) -> String {
    let count = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), |bytes| bytes.to_string());
    let network = event.network.as_ref();
    format!(
        "{} bytes sent, {} received",
        count(network.and_then(|network| network.bytes_sent)),
        count(network.and_then(|network| network.bytes_received))
    )
}

/// How the writer before ended, and what of its end was kept.
fn opened(event: &Event) -> String {
    let field = |key: &str| event.detail.as_ref().and_then(|detail| detail.get(key)).map(ToString::to_string);
    let before = field("before").unwrap_or_default();
    let kept = field("unsealed_records_kept")
        .map_or_else(String::new, |kept| format!("; {kept} unsealed records kept"));
    let cut = field("torn_bytes_cut")
        .map_or_else(String::new, |cut| format!("; {cut} bytes of a torn end cut off"));
    format!("{before}{kept}{cut}")
}

/// Name and meaning of the kind, what it is about, and its details.
fn note(event: &Event) -> String {
    let kind = event.kind;
    let about = kind.about().trim_end_matches('.');
    let detail = event.detail.iter().flatten().filter(|(key, _)| !is_long(key));
    let detail = detail
        .map(|(key, value)| match caller(key, value) {
            Some(caller) => format!("called from: {}", caller.text()),
            None => format!("{key} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        })
        .collect::<Vec<_>>()
        .join(", ");
    let known = event.file.is_some() || event.network.is_some() || event.privilege.is_some();
    let object = if known {
        format!(": {}", object(event).unwrap_or_else(|| "something that is not known".to_owned()))
    } else {
        String::new()
    };
    format!("[{kind}] {about}{object}{}{detail}", if detail.is_empty() { "" } else { "; " })
}

/// Where a person's call came from.
fn caller(key: &str, value: &serde_json::Value) -> Option<Caller> {
    (key == "caller").then(|| Caller::deserialize(value).ok()).flatten()
}

/// Details that are documents or ids of their own: shown where they belong.
fn is_long(key: &str) -> bool {
    matches!(
        key,
        "record" | "doctor" | "command_line" | "machine_id" | "boot_id" | "program_sha256" | "sha256"
    )
}

fn of_gap(event: &Event) -> String {
    let Some(gap) = &event.gap else { return "could not see something".to_owned() };
    let count = if gap.count == 0 { "an unknown number of".to_owned() } else { gap.count.to_string() };
    let kind = gap.kind.as_deref().unwrap_or("any");
    let agent = gap.agent.as_ref().map_or_else(String::new, |agent| format!(" of {agent}"));
    format!(
        "did not see {count} events (kind: {kind}){agent} between {} and {}: {}",
        gap.first, gap.last, gap.reason
    )
}
