//! What the CLI shows about records, as text and JSON. Prints nothing itself.
//!
//! Text is safe for a terminal; JSON carries `schema_version` and the raw values.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    diagnostic::{Diagnostic, Severity, escape},
    format::to_toml,
    install::{InstallError, Installed, Outcome},
    load::Loaded,
    record::{Match, Mode, Record},
};

/// Version of the JSON in here; raised when a field changes its meaning.
pub const SCHEMA_VERSION: u32 = 1;

/// Diagnostics one below the other, each ending in a line break.
pub fn diagnostics_text<'a>(diagnostics: impl IntoIterator<Item = &'a Diagnostic>) -> String {
    diagnostics.into_iter().map(Diagnostic::render).collect()
}

/// `agent check` for people: every diagnostic and a closing line with the counts.
pub fn check_text(loaded: &Loaded) -> String {
    let mut out = diagnostics_text(loaded.diagnostics());
    let count = |severity| loaded.diagnostics().filter(|d| d.severity == severity).count();
    let counts = [(loaded.records.len(), "record", "good"), (loaded.refused.len(), "record", "refused")];
    let counts = counts.map(|(number, noun, word)| format!("{} {word}", plural(number, noun)));
    // Writing to a String cannot fail.
    let _infallible = writeln!(
        out,
        "{}: {}, {}, {}",
        counts.join(", "),
        plural(count(Severity::Error), "error"),
        plural(count(Severity::Warning), "warning"),
        plural(count(Severity::Note), "note"),
    );
    out
}

fn plural(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

/// `agent check -o json`.
pub fn check_json(loaded: &Loaded) -> Value {
    let records: Vec<Value> =
        loaded.records.iter().map(|record| json!({"id": record.id, "file": record.file()})).collect();
    let refused: Vec<Value> = loaded
        .refused
        .iter()
        .map(|refused| {
            json!({
                "id": refused.record.as_ref().map(|record| &record.id),
                "file": refused.path,
                "expired": refused.is_only_expired(),
                "diagnostics": refused.diagnostics,
            })
        })
        .collect();
    json!({
        "schema_version": SCHEMA_VERSION,
        "ok": loaded.refused.is_empty(),
        "records": records,
        "refused": refused,
        "warnings": loaded.warnings,
    })
}

/// `agent list` for people: one line per good record, one per refused file.
pub fn list_text(loaded: &Loaded, now: Timestamp) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(["ID", "OWNER", "MODE", "EXPIRES", "PURPOSE", "MATCHES"]);
    for record in &loaded.records {
        table.add_row([
            record.id.to_string(),
            escape(&record.owner),
            mode_word(record.mode.value).to_owned(),
            expiry_text(record, now),
            escape(&record.purpose),
            matches_text(record),
        ]);
    }
    let mut out: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    for refused in &loaded.refused {
        let why = refused.diagnostics.iter().find(|problem| problem.is_error());
        let why = why.map_or_else(String::new, |problem| escape(&problem.message));
        let file = escape(&refused.path.to_string_lossy());
        let _infallible = writeln!(out, "refused: {file}: {why}");
    }
    out
}

/// `agent list -o json`: an array of [`record_json`], and what was refused.
pub fn list_json(loaded: &Loaded, now: Timestamp) -> Value {
    let agents: Vec<Value> = loaded.records.iter().map(|record| record_json(record, now)).collect();
    let checked = check_json(loaded);
    json!({
        "schema_version": SCHEMA_VERSION,
        "agents": agents,
        "refused": checked.get("refused"),
    })
}

/// One record as JSON: its fields as in the file, flat, with file and state added.
pub fn record_json(record: &Record, now: Timestamp) -> Value {
    let mut value = serde_json::to_value(record).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.insert("schema_version".to_owned(), json!(SCHEMA_VERSION));
        fields.insert("file".to_owned(), json!(record.file()));
        fields.insert("expired".to_owned(), json!(record.is_expired(now)));
    }
    value
}

/// The part of `agent show` that the record itself knows.
pub fn record_text(record: &Record, now: Timestamp) -> String {
    let file = escape(&record.file().to_string_lossy());
    let expiry = expiry_text(record, now);
    let body: String = to_toml(record).lines().map(|line| format!("{}\n", escape(line))).collect();
    format!("# {file}\n# expires: {expiry}\n{body}")
}

/// One line about a registration.
pub fn installed_text(installed: &Installed) -> String {
    let id = &installed.record.id;
    let path = escape(&installed.path.to_string_lossy());
    match installed.outcome {
        Outcome::Created => format!("registered agent {} in {path}\n", id.value),
        Outcome::Replaced => format!("replaced the record of agent {} in {path}\n", id.value),
        Outcome::Unchanged => format!("agent {} is registered already, unchanged\n", id.value),
    }
}

/// A registration as JSON.
pub fn installed_json(installed: &Installed) -> Value {
    let outcome = match installed.outcome {
        Outcome::Created => "created",
        Outcome::Replaced => "replaced",
        Outcome::Unchanged => "unchanged",
    };
    json!({
        "schema_version": SCHEMA_VERSION,
        "id": installed.record.id,
        "file": installed.path,
        "outcome": outcome,
        "warnings": installed.warnings,
    })
}

/// Why a registration failed, with its diagnostics and what to do.
pub fn install_error_text(error: &InstallError) -> String {
    let mut out = String::new();
    if let InstallError::Refused { diagnostics } = error {
        out.push_str(&diagnostics_text(diagnostics));
    }
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        let _infallible = write!(message, ": {cause}");
        source = cause.source();
    }
    let hint = match error {
        InstallError::Exists { .. } => "; --replace takes its place",
        InstallError::NameTaken { .. } => "; rename that file after its own id",
        _ => "",
    };
    let _infallible = writeln!(out, "error: {}{hint}; nothing was changed", escape(&message));
    out
}

const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
    }
}

fn expiry_text(record: &Record, now: Timestamp) -> String {
    let date = record.expires.value.strftime("%Y-%m-%d");
    let days = record.expires.value.duration_since(now).as_hours() / 24;
    if record.is_expired(now) { format!("{date} (expired)") } else { format!("{date} ({days}d)") }
}

fn matches_text(record: &Record) -> String {
    if record.matches.is_empty() {
        return "launch only".to_owned();
    }
    let matches = record.matches.iter().map(|found| conditions_text(found));
    escape(&matches.collect::<Vec<_>>().join(" or "))
}

fn conditions_text(found: &Match) -> String {
    let text = |key: &str, value: Option<String>| value.map(|value| format!("{key}={value}"));
    let conditions = [
        text("unit", found.unit.as_ref().map(|v| v.value.clone())),
        text("cgroup", found.cgroup.as_ref().map(|v| v.value.clone())),
        text("container", found.container.as_ref().map(|v| v.value.chars().take(12).collect())),
        text("exe", found.exe.as_ref().map(|v| v.value.clone())),
        text("script", found.script.as_ref().map(|v| v.value.clone())),
        text("argv", found.argv.as_ref().map(|v| format!("'{}'", v.value))),
        text("user", found.user.as_ref().map(|v| v.value.to_string())),
        found.launch.then(|| "launch".to_owned()),
    ];
    conditions.into_iter().flatten().collect::<Vec<_>>().join("+")
}

#[cfg(test)]
#[path = "report/tests.rs"]
mod tests;
