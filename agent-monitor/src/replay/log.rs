//! Lines of a record as `events -o jsonl` writes them.

use crate::model::{Event, SCHEMA_VERSION};

/// Why a line is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LineError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub hint: &'static str,
}

const BROKEN: &str =
    "write the log with `agent-monitor events -o jsonl`; a line that was cut short must be removed";
const VERSION: &str = "read it with the agent-monitor that wrote it, or a newer one";

/// Reads one line; `None` for an empty one.
///
/// # Errors
/// When it is not an event of this schema version.
pub fn parse(line: usize, text: &[u8]) -> Result<Option<Event>, LineError> {
    let fail = |problem: String, hint| LineError { line, problem, hint };
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    match serde_json::from_slice::<Event>(text) {
        Ok(event) if event.schema_version == SCHEMA_VERSION => Ok(Some(event)),
        Ok(event) => Err(fail(other_version(u64::from(event.schema_version)), VERSION)),
        Err(error) => Err(match serde_json::from_slice::<serde_json::Value>(text) {
            Ok(value) => match value.get("schema_version").and_then(serde_json::Value::as_u64) {
                Some(version) if version != u64::from(SCHEMA_VERSION) => {
                    fail(other_version(version), VERSION)
                }
                Some(_) => fail(format!("not an event: {error}"), BROKEN),
                None => fail("not an event: it has no schema_version".to_owned(), BROKEN),
            },
            Err(error) => fail(format!("not JSON: {error}"), BROKEN),
        }),
    }
}

fn other_version(version: u64) -> String {
    format!("schema_version {version}, but this program reads {SCHEMA_VERSION}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_bad_line_is_told_apart() {
        let problem = |text: &str| parse(7, text.as_bytes()).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(parse(1, b"  \n"), Ok(None));
        assert!(problem("{\"schema_version\":1,\"seq\":").unwrap_err().starts_with("line 7: not JSON"));
        assert!(problem("\u{1}").unwrap_err().contains("not JSON"));
        assert!(problem("[1]").unwrap_err().contains("no schema_version"));
        assert!(problem("{\"schema_version\":1}").unwrap_err().contains("not an event: missing field"));
        let newer = problem("{\"schema_version\":2,\"what\":1}").unwrap_err();
        assert!(newer.contains("schema_version 2, but this program reads 1"), "{newer}");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            drop(parse(1, &bytes));
        }
    }
}
