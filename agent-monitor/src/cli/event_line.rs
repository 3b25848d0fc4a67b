//! One event as one readable line: time, verdict, agent, process, kind, object.
//!
//! Everything that came from a process is escaped for terminals. Used by `events` and by the live stream of
//! `run`. The form is for people and may change; programs read JSONL.

use std::fmt::Write as _;

use agent_monitor::model::{Event, Family, Kind, Mode, Network, Privilege, Process, Verdict};
use agent_monitor::registry::diagnostic::escape;

use super::output::bytes;

/// Characters of a command line that are shown.
const COMMAND_WIDTH: usize = 240;
/// Most characters of an object.
const OBJECT_WIDTH: usize = 600;

/// The line of `event`, without line end.
pub(crate) fn render(event: &Event, colour: bool) -> String {
    let paint = |code: &str, text: String| match colour {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text,
    };
    let time = event.time.timestamp();
    let agent = match &event.agent {
        Some(agent) => paint("1", format!("{:<16}", escape(&agent.id))),
        None => {
            paint("2", format!("{:<16}", about_agent(event).map_or_else(|| "-".to_owned(), |id| escape(&id))))
        }
    };
    let mut line = format!(
        "{} {} {agent} {} {} {}",
        paint("2", format!("{time:.3}")),
        paint(verdict_colour(event), format!("{:<5}", verdict(event))),
        format_args!("{:<20}", process(event)),
        paint(kind_colour(event.kind), format!("{:<20}", event.kind.as_str())),
        clip(&escape(&object(event)), OBJECT_WIDTH),
    );
    if let Some(errno) = event.errno {
        line.push(' ');
        line.push_str(&paint("33", format!("→ {errno}")));
    }
    if let Some(rule) = &event.rule {
        line.push_str(&paint("2", format!(" [{}]", escape(rule))));
    }
    if event.mode == Some(Mode::Observe) && event.verdict.is_some_and(|v| v >= Verdict::Deny) {
        line.push_str(&paint("2", " (observed, not stopped)".to_owned()));
    }
    if !event.technique.is_empty() || !event.references.is_empty() {
        let fits: Vec<&str> = event.technique.iter().chain(&event.references).map(String::as_str).collect();
        line.push_str(&paint("2", format!(" {{{}}}", escape(&fits.join(", ")))));
    }
    line.truncate(line.trim_end().len());
    line
}

/// What the columns of [`render`] are called.
pub(crate) fn heading() -> String {
    format!("{:<24} {:<5} {:<16} {:<20} {:<20} OBJECT", "TIME", "WHAT", "AGENT", "PROCESS", "KIND")
}

fn verdict(event: &Event) -> &'static str {
    match (event.verdict, event.kind.family()) {
        (Some(verdict), _) => verdict.as_str(),
        (None, Family::Gap) => "GAP",
        (None, _) => "note",
    }
}

fn verdict_colour(event: &Event) -> &'static str {
    match (event.verdict, event.kind.family()) {
        (Some(Verdict::Allow), _) => "32",
        (Some(Verdict::Audit), _) => "33",
        (Some(Verdict::Deny | Verdict::Kill), _) => "1;31",
        (Some(Verdict::Hold), _) => "1;35",
        (None, Family::Gap) => "1;33",
        (None, _) => "36",
    }
}

fn kind_colour(kind: Kind) -> &'static str {
    match kind.family() {
        Family::Process => "36",
        Family::File => "34",
        Family::Network => "35",
        Family::Privilege | Family::Tamper => "31",
        Family::Gap | Family::Finding => "33",
        Family::Agent | Family::Session | Family::Grant | Family::Approval | Family::Log => "0",
    }
}

/// Whom a record without an acting agent is about.
fn about_agent(event: &Event) -> Option<String> {
    let lost = event.gap.as_ref().and_then(|gap| gap.agent.clone());
    lost.or_else(|| Some(event.detail.as_ref()?.get("agent")?.as_str()?.to_owned()))
}

/// `cat[4121]`
fn process(event: &Event) -> String {
    let Some(process) = &event.process else { return "-".to_owned() };
    let exe = process.exe.as_deref().unwrap_or("?");
    let name = exe.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(exe);
    format!("{}[{}]", clip(&escape(name), 24), process.tid.unwrap_or(process.pid))
}

/// What an event is about.
pub(super) fn object(event: &Event) -> String {
    let text = match event.kind.family() {
        Family::Process => event.process.as_ref().map(|process| of_process(event.kind, process)),
        Family::File | Family::Tamper if event.file.is_some() => of_file(event),
        Family::Network => event.network.as_ref().map(of_network),
        Family::Privilege | Family::Tamper => event.privilege.as_ref().map(of_privilege),
        Family::Gap => of_gap(event),
        Family::File
        | Family::Agent
        | Family::Session
        | Family::Grant
        | Family::Approval
        | Family::Finding
        | Family::Log => of_binding(event),
    };
    let detail = event.detail.iter().flatten().filter(|(key, _)| *key != "agent");
    let mut text = text.unwrap_or_default();
    for (key, value) in detail {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        // Writing into a String cannot fail.
        write!(text, "{}{key}={value}", if text.is_empty() { "" } else { " " }).ok();
    }
    text
}

fn of_process(kind: Kind, process: &Process) -> String {
    match kind {
        Kind::ProcessExit => match (&process.exit_signal, process.exit_code) {
            (Some(signal), _) => format!("killed by {signal}"),
            (None, Some(code)) => format!("exit {code}"),
            (None, None) => "exit".to_owned(),
        },
        Kind::ProcessFork => {
            format!("child of {}", process.ppid.map_or_else(|| "?".to_owned(), |p| p.to_string()))
        }
        _ => {
            let mut command = clip(&command_line(&process.args), COMMAND_WIDTH);
            if process.args_truncated {
                command.push_str(" (cut)");
            }
            match &process.script {
                Some(script) if !process.args.iter().any(|arg| arg == script) => {
                    format!("{command} (script {script})")
                }
                _ => command,
            }
        }
    }
}

/// Arguments as a shell would want them, where that needs no thought.
fn command_line(args: &[String]) -> String {
    let plain = |arg: &str| {
        !arg.is_empty() && !arg.contains(|c: char| c.is_whitespace() || "'\"`$&|;<>()*?#".contains(c))
    };
    let quoted = args
        .iter()
        .map(|arg| if plain(arg) { arg.clone() } else { format!("'{}'", arg.replace('\'', "'\\''")) });
    quoted.collect::<Vec<_>>().join(" ")
}

fn of_file(event: &Event) -> Option<String> {
    let file = event.file.as_ref()?;
    let access = file.access.iter().map(|access| access.as_str()).collect::<Vec<_>>().join(",");
    let own_word = event.kind.as_str().rsplit('.').next();
    let mut text =
        if access.is_empty() || Some(access.as_str()) == own_word { String::new() } else { access + " " };
    text.push_str(file.path.as_deref().unwrap_or("(path not known)"));
    if file.truncated {
        text.push_str(" (path cut)");
    }
    if let Some(new_path) = &file.new_path {
        text.push_str(" → ");
        text.push_str(new_path);
    }
    if let Some(change) = &file.change {
        text.push(' ');
        text.push_str(change);
    }
    Some(text)
}

fn of_network(network: &Network) -> String {
    let mut text = network.protocol.clone().unwrap_or_else(|| network.family.as_str().to_owned());
    let place = match (&network.remote, &network.path, &network.abstract_name, &network.local) {
        (Some(remote), ..) => Some(remote.to_string()),
        (None, Some(path), ..) => Some(path.clone()),
        (None, None, Some(name), _) => Some(format!("@{name}")),
        (None, None, None, local) => local.map(|local| local.to_string()),
    };
    let name = network.name.as_ref().map(|name| format!("({name})"));
    for part in [place, name, network.query.clone()].into_iter().flatten() {
        text.push(' ');
        text.push_str(&part);
    }
    let counts = [("sent", network.bytes_sent), ("received", network.bytes_received)];
    for (word, count) in counts.into_iter().filter_map(|(word, count)| Some((word, count?))) {
        // Writing into a String cannot fail.
        write!(text, ", {word} {}", bytes(count)).ok();
    }
    text
}

fn of_privilege(privilege: &Privilege) -> String {
    let Privilege {
        target, signal, operation, capabilities, namespaces, object, mount_point, fs_type, ..
    } = privilege;
    let ids = |name: &str, old: Option<u32>, new: Option<u32>| match (old, new) {
        (None, None) => None,
        (old, new) => {
            let number = |id: Option<u32>| id.map_or_else(|| "?".to_owned(), |id| id.to_string());
            Some(format!("{name} {} → {}", number(old), number(new)))
        }
    };
    let joined = |list: &[String]| (!list.is_empty()).then(|| list.join(","));
    let target = target.as_ref().map(|target| {
        let exe = target.exe.as_deref().unwrap_or("?");
        let agent = target.agent.as_ref().map_or_else(String::new, |agent| format!(" of {agent}"));
        format!("to {exe}[{}]{agent}", target.pid)
    });
    let parts = [
        operation.clone(),
        signal.clone(),
        ids("uid", privilege.old_uid, privilege.new_uid),
        ids("gid", privilege.old_gid, privilege.new_gid),
        joined(capabilities),
        joined(namespaces),
        object.clone(),
        mount_point.as_ref().map(|place| format!("on {place}")),
        fs_type.as_ref().map(|kind| format!("({kind})")),
        target,
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn of_gap(event: &Event) -> Option<String> {
    let gap = event.gap.as_ref()?;
    let what = gap.kind.as_deref().map_or_else(|| "events".to_owned(), |kind| format!("{kind} events"));
    let count = if gap.count == 0 { "uncounted".to_owned() } else { gap.count.to_string() };
    let (first, last) = (gap.first.timestamp(), gap.last.timestamp());
    Some(format!("{count} {what} missed: {}, {first:.3} to {last:.3}", gap.reason))
}

fn of_binding(event: &Event) -> Option<String> {
    let agent = event.agent.as_ref()?;
    let late = agent.bound_delay_ms.map_or_else(String::new, |delay| format!(", {delay} ms late"));
    let by =
        agent.delegator.as_ref().map_or_else(String::new, |delegator| format!(", started by {delegator}"));
    let command = event
        .process
        .as_ref()
        .map_or_else(String::new, |p| format!(": {}", clip(&command_line(&p.args), COMMAND_WIDTH)));
    (event.kind == Kind::AgentBound).then(|| format!("by {}{late}{by}{command}", agent.bound_by.as_str()))
}

/// At most `width` characters, the loss marked.
fn clip(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
