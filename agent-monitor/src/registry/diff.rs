//! What changed between two records of one agent, in words: one line for each thing that is there no more or is new.

use serde_json::Value;

use super::Record;

/// Lines at most; the last one says how many were left out.
const LINES: usize = 64;

/// The changes from `old` to `new`: `scope.file +{…}` for a rule that is new, `-` for one that is gone, `a → b` for a value.
/// Rules are compared by what they say; their order and place in the file count for nothing.
#[must_use]
pub fn words(old: &Record, new: &Record) -> Vec<String> {
    let mut lines = Vec::new();
    let value = |record: &Record| serde_json::to_value(record).unwrap_or_default();
    compare("", &plain(value(old)), &plain(value(new)), &mut lines);
    if lines.len() > LINES {
        let more = lines.len() - LINES;
        lines.truncate(LINES);
        lines.push(format!("and {more} more"));
    }
    lines
}

/// Without the numbers by which rules are named: one that moved says the same.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let named = fields.get("name").and_then(Value::as_str).is_some_and(|name| name.ends_with(']'));
            let kept = fields.into_iter().filter(|(key, _)| !(named && key == "name"));
            Value::Object(kept.map(|(key, value)| (key, plain(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        other => other,
    }
}

fn compare(at: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let below = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                let side = |fields: &serde_json::Map<String, Value>| fields.get(key).cloned();
                compare(&below, &side(old).unwrap_or_default(), &side(new).unwrap_or_default(), lines);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            lines.extend(missing(old, new).map(|item| format!("{at} -{item}")));
            lines.extend(missing(new, old).map(|item| format!("{at} +{item}")));
        }
        (old, new) if old != new => lines.push(format!("{at} {old} → {new}")),
        _ => {}
    }
}

/// Items of `of` that `from` has not, each as often as it is more there.
fn missing<'a>(of: &'a [Value], from: &'a [Value]) -> impl Iterator<Item = &'a Value> {
    let count = |items: &[Value], item: &Value| items.iter().filter(|other| *other == item).count();
    of.iter()
        .enumerate()
        .filter(move |(index, item)| {
            let before = of.get(..*index).unwrap_or_default();
            count(before, item) >= count(from, item)
        })
        .map(|(_, item)| item)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::registry::parse::parse_record;

    fn record(text: &str) -> Record {
        let head = "[agent]\nid = \"a\"\nowner = \"o\"\npurpose = \"p\"\nexpires = 2099-01-01T00:00:00Z\n";
        let parsed = parse_record(&format!("{head}{text}"), Path::new("a.toml"));
        parsed.record.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
    }

    #[test]
    fn rules_that_come_go_and_change() {
        let old = record(
            "mode = \"observe\"\n[scope]\ndefault = \"allow\"\n[[scope.file]]\npath = \"/a\"\nverdict = \"deny\"\n\
             [[scope.file]]\npath = \"/b\"\nverdict = \"deny\"\n",
        );
        let new = record(
            "mode = \"enforce\"\n[scope]\ndefault = \"deny\"\n[[scope.file]]\npath = \"/b\"\nverdict = \"deny\"\n\
             [[scope.exec]]\npath = \"/c\"\n",
        );
        let lines = words(&old, &new);
        let has = |start: &str, part: &str| lines.iter().any(|l| l.starts_with(start) && l.contains(part));
        assert!(has("mode ", "\"observe\" → \"enforce\""), "{lines:#?}");
        assert!(has("scope.default ", "\"allow\" → \"deny\""), "{lines:#?}");
        assert!(has("scope.file -", "/a") && !has("scope.file", "/b"), "{lines:#?}");
        assert!(has("scope.exec +", "/c"), "{lines:#?}");
    }

    #[test]
    fn nothing_changed_has_no_words() {
        let text = "[scope]\ndefault = \"deny\"\n[[scope.file]]\npath = \"/a\"\nverdict = \"deny\"\n\
                    [[scope.file]]\npath = \"/b\"\naccess = [\"read\"]\n";
        assert_eq!(words(&record(text), &record(text)), Vec::<String>::new());
    }
}
