//! An event as one sentence, for exports that show text: who did what to what, and what came of it.
//!
//! Plain text without markup; what came from a process is in it as it is, and whoever shows it must escape it.

use crate::model::{Event, Family, Kind, Mode, Network, Verdict};

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
        _ => {
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

fn what(event: &Event) -> String {
    let object = object(event).unwrap_or_else(|| "something that is not known".to_owned());
    let to = event.file.as_ref().and_then(|file| file.new_path.clone()).unwrap_or_default();
    match event.kind {
        Kind::ProcessFork => "was made as a new process".to_owned(),
        Kind::ProcessExec => format!("ran {object}"),
        Kind::ProcessExit => {
            let process = event.process.as_ref();
            let signal = process.and_then(|process| process.exit_signal.as_deref());
            let code = process.and_then(|process| process.exit_code);
            signal.map_or_else(
                || {
                    format!(
                        "ended with {}",
                        code.map_or_else(|| "an unknown code".to_owned(), |code| code.to_string())
                    )
                },
                |signal| format!("was ended by {signal}"),
            )
        }
        Kind::FileOpen => {
            let access = event.file.iter().flat_map(|file| &file.access).map(|access| access.as_str());
            let access = access.collect::<Vec<_>>().join(" and ");
            format!("opened {object} to {}", if access.is_empty() { "use it" } else { &access })
        }
        Kind::FileCreate => format!("made {object}"),
        Kind::FileDelete => format!("deleted {object}"),
        Kind::FileRename => format!("renamed {object} to {to}"),
        Kind::FileLink => format!("linked {object} as {to}"),
        Kind::FileTruncate => format!("cut {object}"),
        Kind::FileSetattr => format!("changed attributes of {object}"),
        Kind::FileMmapExec => format!("mapped {object} to run it"),
        Kind::NetworkConnect => format!("connected to {object}"),
        Kind::NetworkBind => format!("took the address {object}"),
        Kind::NetworkListen => format!("listened on {object}"),
        Kind::NetworkAccept => format!("took a connection from {object}"),
        Kind::NetworkSend => format!("sent to {object}"),
        Kind::NetworkDns => format!("looked up {object}"),
        Kind::NetworkFlow => {
            let count =
                |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), |bytes| bytes.to_string());
            let network = event.network.as_ref();
            format!(
                "closed the connection to {object}: {} bytes sent, {} received",
                count(network.and_then(|network| network.bytes_sent)),
                count(network.and_then(|network| network.bytes_received))
            )
        }
        Kind::LogOpened => {
            let word =
                |key: &str| event.detail.as_ref().and_then(|detail| detail.get(key)).map(ToString::to_string);
            let before = word("before").unwrap_or_default();
            let kept = word("unsealed_records_kept")
                .map_or_else(String::new, |kept| format!("; {kept} unsealed records kept"));
            let cut = word("torn_bytes_cut")
                .map_or_else(String::new, |cut| format!("; {cut} bytes of a torn end cut off"));
            format!("opened the log; the writer before: {before}{kept}{cut}")
        }
        Kind::LogClosed => "closed the log in good order".to_owned(),
        kind if kind.family() == Family::Gap => of_gap(event),
        kind => {
            let about = kind.about().trim_end_matches('.');
            let detail = event.detail.iter().flatten().filter(|(key, _)| !is_long(key));
            let detail = detail
                .map(|(key, value)| {
                    format!("{key} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                })
                .collect::<Vec<_>>()
                .join(", ");
            let known = event.file.is_some() || event.network.is_some() || event.privilege.is_some();
            let object = if known { format!(": {object}") } else { String::new() };
            format!("[{kind}] {about}{object}{}{detail}", if detail.is_empty() { "" } else { "; " })
        }
    }
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
