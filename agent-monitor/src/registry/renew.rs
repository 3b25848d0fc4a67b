//! Moves the end date of a record, in the text that a person wrote: nothing else of it changes.

use jiff::Timestamp;
use toml::de::DeTable;

/// The text with `agent.expires` set to `until`.
///
/// # Errors
/// When the text has no such value; the record was read from another text then.
pub fn text(record: &str, until: Timestamp) -> Result<String, String> {
    let table = DeTable::parse(record).map_err(|error| error.to_string())?;
    let agent = table.get_ref().get("agent").and_then(|agent| agent.get_ref().as_table());
    let span = agent.and_then(|agent| Some(agent.get("expires")?.span()));
    let span = span.ok_or("the record has no agent.expires")?;
    let (before, after) = (record.get(..span.start), record.get(span.end..));
    match (before, after) {
        (Some(before), Some(after)) => Ok(format!("{before}{until}{after}")),
        _ => Err("the place of agent.expires is not in the text".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::registry::parse_record;

    #[test]
    fn only_the_date_changes() {
        let until: Timestamp = "2031-05-06T07:08:09Z".parse().unwrap();
        for value in ["2026-12-31T00:00:00Z", "2026-12-31 00:00:00+01:00", "\"2026-12-31T00:00:00Z\""] {
            let old = format!(
                "# mine\n[agent]\nid = \"a\" # id\nowner = \"o@example.com\"\npurpose = \"p\"\nexpires = {value} # end\n\n[[match]]\nuser = 1\n"
            );
            let new = text(&old, until).unwrap();
            assert_eq!(new.replace("2031-05-06T07:08:09Z", value), old);
            assert_eq!(parse_record(&new, Path::new("a")).record.unwrap().expires.value, until);
        }
        let inline =
            text("agent = { id = \"a\", expires = 2026-01-01T00:00:00Z, mode = \"observe\" }", until);
        assert!(inline.unwrap().contains("expires = 2031-05-06T07:08:09Z, mode"));
        assert!(text("[agent]\n", until).is_err() && text("[", until).is_err());
    }
}
