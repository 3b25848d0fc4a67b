//! The schema and the parser say the same.

use std::{fs, path::Path};

use super::*;
use crate::registry::parse_record;

/// TOML as JSON, with dates as text.
fn to_json(text: &str) -> Value {
    fn convert(value: toml::Value) -> Value {
        match value {
            toml::Value::Datetime(datetime) => json!(datetime.to_string()),
            toml::Value::Array(items) => items.into_iter().map(convert).collect(),
            toml::Value::Table(table) => {
                Value::Object(table.into_iter().map(|(key, value)| (key, convert(value))).collect())
            }
            toml::Value::String(text) => json!(text),
            toml::Value::Integer(number) => json!(number),
            toml::Value::Float(number) => json!(number),
            toml::Value::Boolean(flag) => json!(flag),
        }
    }
    convert(toml::Value::Table(text.parse().unwrap()))
}

/// What the schema has against a record.
pub(crate) fn schema_errors(text: &str) -> Vec<String> {
    static VALIDATOR: std::sync::LazyLock<jsonschema::Validator> = std::sync::LazyLock::new(|| {
        jsonschema::options().should_validate_formats(true).build(&schema()).unwrap()
    });
    let record = to_json(text);
    VALIDATOR.iter_errors(&record).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn parser_and_schema_know_the_same_keys() {
    assert_eq!(first_difference(&schema()), None);
}

#[test]
fn every_example_fits() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/agents.d");
    let mut seen = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(schema_errors(&text), [""; 0], "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 4);
}

#[test]
fn what_the_schema_refuses_the_parser_refuses() {
    let good = crate::registry::fake::record_text(
        "a",
        "",
        "[[match]]\nexe = \"/x\"\n[scope]\n[[scope.file]]\npath = \"/a\"\naccess = \"read\"\n[scope.limits]\nspawns = \"1/min\"",
    );
    assert_eq!(schema_errors(&good), [""; 0]);
    let changes = [
        ("id = \"a\"", "id = \"A\""),
        ("owner", "ownr"),
        ("owner = \"team@example.com\"", ""),
        ("2030-01-01T00:00:00Z", "2030-01-01"),
        ("2030-01-01T00:00:00Z", "17"),
        ("exe = \"/x\"", ""),
        ("exe = \"/x\"", "launch = false"),
        ("exe = \"/x\"", "user = 4294967295"),
        ("exe = \"/x\"", "container = \"x\""),
        ("path = \"/a\"", ""),
        ("path = \"/a\"", "path = \"a\""),
        ("\"read\"", "\"reed\""),
        ("[scope]", "[scope]\ndefault = \"no\""),
        ("[scope]", "[scope]\nbase = \"no\""),
        ("1/min", "1/hour"),
        ("spawns", "spwns"),
    ];
    for (from, to) in changes {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from}");
        assert_ne!(schema_errors(&text), [""; 0], "{from} -> {to}");
        assert!(parse_record(&text, Path::new("a.toml")).record.is_none(), "{from} -> {to}");
    }
}

#[test]
fn the_schema_itself_is_valid() {
    assert!(jsonschema::meta::is_valid(&schema()));
}
