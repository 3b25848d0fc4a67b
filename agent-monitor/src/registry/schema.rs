//! The JSON Schema of a record, for editors and for `agent schema`.
//!
//! Built from the same word lists and key lists as the parser. TOML dates appear as strings. The
//! schema says what a record may look like; what it may not mean (shadowed rules, impossible paths,
//! unknown users) only `agent check` says.

use serde_json::{Map, Value, json};

use super::{
    argv::{MAX_PATTERN_BYTES, MAX_PATTERNS},
    parse::SECTIONS,
};
use crate::scope::{
    FileAccess, NetAction, PrivilegeKind, Verdict,
    parse::{BASE_SETS, CAPABILITIES},
};

/// Where the schema says it lives.
const SCHEMA_ID: &str = "https://agent-monitor.invalid/schema/record-v1.json";

/// The schema (draft 2020-12) as JSON.
pub fn schema() -> Value {
    let mut root = object(
        &["agent"],
        vec![
            ("agent", agent()),
            (
                "match",
                described(
                    "Any one recognises a process; without one the agent is only launched.",
                    list_of(match_table()),
                ),
            ),
            ("scope", scope()),
            ("offboarding", offboarding()),
        ],
    );
    if let Some(fields) = root.as_object_mut() {
        fields.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        fields.insert("$id".to_owned(), json!(SCHEMA_ID));
        fields.insert("title".to_owned(), json!("agent-monitor agent record"));
    }
    root
}

/// The keys of a section as the schema has them; [`SECTIONS`] is the parser's side.
pub fn keys_of(schema: &Value, section: &str) -> Vec<String> {
    let mut parts = section.split('.').filter(|part| !part.is_empty());
    let found = parts.try_fold(schema, |found, part| {
        let property = found.get("properties")?.get(part)?;
        Some(property.get("items").unwrap_or(property))
    });
    let properties = found.and_then(|found| found.get("properties")?.as_object());
    properties.map_or_else(Vec::new, |properties| properties.keys().cloned().collect())
}

/// Whether parser and schema know the same keys everywhere; the first section where they differ.
pub fn first_difference(schema: &Value) -> Option<&'static str> {
    SECTIONS.iter().find_map(|(section, keys)| {
        let mut known: Vec<&str> = keys.to_vec();
        known.sort_unstable();
        let mut ours = keys_of(schema, section);
        ours.sort_unstable();
        (ours != known).then_some(*section)
    })
}

fn object(required: &[&str], properties: Vec<(&str, Value)>) -> Value {
    let properties: Map<String, Value> =
        properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

fn described(text: &str, mut schema: Value) -> Value {
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("description".to_owned(), json!(text));
    }
    schema
}

fn list_of(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn text(description: &str) -> Value {
    json!({"type": "string", "minLength": 1, "description": description})
}

fn pattern(pattern: &str, description: &str) -> Value {
    json!({"type": "string", "pattern": pattern, "description": description})
}

fn words<T>(words: &[(&'static str, T)]) -> Value {
    let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    json!({"type": "string", "enum": words})
}

/// A list of strings, or one string for a list of one.
fn one_or_more(item: &Value, description: &str) -> Value {
    json!({
        "description": description,
        "anyOf": [item, {"type": "array", "items": item}],
    })
}

fn absolute(description: &str) -> Value {
    pattern("^/[^/]", description)
}

fn agent() -> Value {
    object(
        &["id", "owner", "purpose", "expires"],
        vec![
            ("id", pattern("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", "Lower-case DNS label.")),
            ("owner", text("Who answers for the agent.")),
            ("purpose", text("What it is for, in a sentence.")),
            ("environment", text("Where it may run.")),
            ("data_boundary", text("The data that it may see.")),
            (
                "expires",
                json!({
                    "type": "string",
                    "format": "date-time",
                    "description": "When it ends: a TOML date with time and offset, or the same as text.",
                }),
            ),
            (
                "retire_when_idle",
                pattern("^[0-9]+[smhdw]$", "It also ends after this long without activity: 30d."),
            ),
            ("mode", json!({"type": "string", "enum": ["observe", "enforce"], "default": "observe"})),
            (
                "approvers",
                one_or_more(
                    &text("user:NAME, group:NAME, or NAME for both."),
                    "Who may approve what is held; never the agent's own user.",
                ),
            ),
            (
                "approvals",
                json!({
                    "type": "integer", "minimum": 1, "maximum": 8, "default": 1,
                    "description": "How many different people must approve.",
                }),
            ),
            (
                "degrade",
                json!({
                    "type": "string", "enum": ["allow", "refuse"], "default": "refuse",
                    "description": "What to do where this host cannot enforce all of the scope.",
                }),
            ),
            (
                "on_daemon_loss",
                json!({
                    "type": "string", "enum": ["deny", "wait"], "default": "deny",
                    "description": "What becomes of held actions when the daemon is gone.",
                }),
            ),
            (
                "hold_timeout",
                pattern(
                    "^[0-9]+[smhd]$",
                    "How long an action is held before it is denied, 1s to 24h: 10m. Else the daemon's setting.",
                ),
            ),
        ],
    )
}

fn argv() -> Value {
    json!({
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_PATTERNS,
        "items": {"type": "string", "minLength": 1, "maxLength": MAX_PATTERN_BYTES},
        "description": "First the program's base name, then arguments in order, anything between; * and ? are wildcards.",
    })
}

fn match_table() -> Value {
    let mut table = object(
        &[],
        vec![
            ("unit", pattern("\\.(service|scope|slice)$", "systemd unit, with suffix.")),
            ("cgroup", absolute("Path in the cgroup v2 hierarchy, descendants included.")),
            ("container", pattern("^[0-9a-f]{12,64}$", "Container id.")),
            ("exe", absolute("The executable.")),
            ("script", absolute("The script that an interpreter runs.")),
            ("sha256", pattern("^[0-9a-fA-F]{64}$", "Contents of exe or script.")),
            ("argv", argv()),
            (
                "user",
                json!({
                    "description": "Real user at exec: a name, or a number without quotes.",
                    "anyOf": [
                        {"type": "string", "minLength": 1},
                        {"type": "integer", "minimum": 0, "maximum": u32::MAX - 1},
                    ],
                }),
            ),
            ("launch", json!({"const": true, "description": "Only by `agent-monitor exec`; stands alone."})),
        ],
    );
    if let Some(fields) = table.as_object_mut() {
        fields.insert("minProperties".to_owned(), json!(1));
        fields.insert("description".to_owned(), json!("All conditions in one table must hold."));
    }
    table
}

fn effect(mut properties: Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)> {
    let label = pattern("^[a-z0-9_-]{1,32}$", "A label.");
    let mut verdict = described("What happens.", words(&Verdict::WORDS));
    if let Some(fields) = verdict.as_object_mut() {
        fields.insert("default".to_owned(), json!("allow"));
    }
    properties.push(("verdict", verdict));
    properties.push(("adds", one_or_more(&label, "Labels that the process takes on.")));
    properties.push(("unless", one_or_more(&label, "Does not apply to a process with any of these.")));
    properties
}

fn scope() -> Value {
    let path = || pattern("^(/|\\*\\*/)", "/exact, /subtree/**, **/name or **/*.ext.");
    let verdict = |default: &str, text: &str| {
        let mut verdict = described(text, words(&Verdict::WORDS));
        if let Some(fields) = verdict.as_object_mut() {
            fields.insert("default".to_owned(), json!(default));
        }
        verdict
    };
    let file = object(
        &["path"],
        effect(vec![
            ("path", path()),
            (
                "access",
                one_or_more(&words(&FileAccess::WORDS), "Required where the verdict permits; else all."),
            ),
        ]),
    );
    let exec = object(&["path"], effect(vec![("path", path()), ("argv", argv())]));
    let net = object(
        &["to"],
        effect(vec![
            (
                "to",
                text(
                    "host, address or network with :port and /protocol; unix:/path; unix:@name; vsock:CID:PORT.",
                ),
            ),
            ("action", one_or_more(&words(&NetAction::WORDS), "connect unless named.")),
        ]),
    );
    let capabilities: Vec<(&str, ())> = CAPABILITIES.iter().map(|name| (*name, ())).collect();
    let privilege = object(
        &["kind"],
        effect(vec![
            ("kind", words(&PrivilegeKind::WORDS)),
            ("capabilities", one_or_more(&words(&capabilities), "With kind capability: which; else all.")),
        ]),
    );
    let base: Vec<(&str, ())> = BASE_SETS.iter().map(|name| (*name, ())).collect();
    object(
        &[],
        vec![
            ("default", verdict("deny", "For what no rule names.")),
            ("unknown", verdict("deny", "For what cannot be judged.")),
            ("base", one_or_more(&words(&base), "Named sets of rules that are pulled in.")),
            ("file", list_of(file)),
            ("exec", list_of(exec)),
            ("net", list_of(net)),
            ("privilege", list_of(privilege)),
            ("limits", limits()),
        ],
    )
}

fn limits() -> Value {
    let limit = |budget: &str, text: &str| {
        let budget = pattern(budget, text);
        let table = object(
            &["max"],
            vec![
                ("max", budget.clone()),
                (
                    "verdict",
                    json!({"type": "string", "enum": ["audit", "hold", "deny", "kill"], "default": "deny"}),
                ),
            ],
        );
        json!({"anyOf": [budget, table]})
    };
    let count = "^[0-9]+/(session|min)$";
    object(
        &[],
        vec![
            ("deletes", limit(count, "Files and directories removed: 100/session.")),
            ("bytes_out", limit("^[0-9]+(B|KiB|MiB|GiB|TiB)/(session|min)$", "Bytes sent: 50MiB/session.")),
            ("spawns", limit(count, "Processes started: 300/min.")),
            ("files_written", limit(count, "Distinct files opened for writing.")),
            ("peers", limit(count, "Distinct network peers.")),
        ],
    )
}

fn offboarding() -> Value {
    object(
        &[],
        vec![
            ("remove_files", one_or_more(&absolute("A file."), "Credential files to remove.")),
            ("disable_units", one_or_more(&text("A unit."), "systemd units to stop and disable.")),
            ("manual", one_or_more(&text("A step."), "Steps that a person takes and confirms.")),
        ],
    )
}

#[cfg(test)]
#[path = "schema/tests.rs"]
pub(super) mod tests;
