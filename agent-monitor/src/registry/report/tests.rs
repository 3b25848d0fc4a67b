//! What the CLI shows.

use super::*;
use crate::registry::{
    fake::{now, record_text},
    load::Refused,
    parse_record,
};
use std::path::Path;

fn loaded() -> Loaded {
    let text = record_text(
        "bot",
        "mode = \"enforce\"",
        "[[match]]\nexe = \"/opt/b\\u001b[2Jot\"\nuser = 5\n[scope]\n",
    );
    let good = parse_record(&text, Path::new("bot.toml")).record.unwrap();
    let bad = parse_record("[agent]\nid = \"x\"\n", Path::new("x\u{1b}.toml"));
    Loaded {
        records: vec![good],
        refused: vec![Refused { path: "x\u{1b}.toml".into(), record: None, diagnostics: bad.diagnostics }],
        warnings: Vec::new(),
    }
}

#[test]
fn list() {
    let shown = list_text(&loaded(), now());
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].trim_start().starts_with("ID"), "{shown}");
    for part in ["bot", "team@example.com", "enforce", "2030-01-01 (365d)", "exe=/opt/b\\u{1b}[2Jot+user=5"] {
        assert!(lines[1].contains(part), "{part} in {shown}");
    }
    assert!(lines[2].starts_with("refused: x\\u{1b}.toml: agent.owner is missing"), "{shown}");
}

#[test]
fn json_has_a_version_and_raw_values() {
    let listed = list_json(&loaded(), now());
    assert_eq!(listed["schema_version"], 1);
    assert_eq!(listed["agents"][0]["id"], "bot");
    assert_eq!(listed["agents"][0]["match"][0]["user"], 5);
    assert_eq!(listed["agents"][0]["expires"], "2030-01-01T00:00:00Z");
    assert_eq!(listed["agents"][0]["scope"]["default"], "deny");
    assert_eq!(listed["agents"][0]["expired"], false);
    let checked = check_json(&loaded());
    assert_eq!(checked["ok"], false);
    let first = &checked["refused"][0]["diagnostics"][0];
    assert_eq!(first["code"], "missing-key");
    assert_eq!((first["line"].as_u64(), first["column"].as_u64()), (Some(1), Some(1)));
    assert_eq!(first["severity"], "error");
}

#[test]
fn show_reads_back_and_is_safe() {
    let loaded = loaded();
    let shown = record_text_of(&loaded);
    assert!(!shown.contains('\u{1b}'));
    assert!(shown.starts_with("# bot.toml\n# expires: 2030-01-01 (365d)\n[agent]\n"), "{shown}");
}

fn record_text_of(loaded: &Loaded) -> String {
    super::record_text(&loaded.records[0], now())
}
