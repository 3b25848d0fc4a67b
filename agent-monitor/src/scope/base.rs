//! Base sets: what programs of a kind need of a Linux system, so that `default = "deny"` is practical.
//!
//! Data, read by the parser of records: each set is a `[scope]` of its own in `base/*.toml`. A record's own rule of the
//! same pattern decides before that of a set.

use std::path::Path;
use std::sync::LazyLock;

use super::Scope;
use crate::registry::parse::parse_record;
use crate::registry::source::Position;

/// What a set needs around it to be a record.
const AROUND: &str = "[agent]\nid = \"base\"\nowner = \"agent-monitor\"\npurpose = \"base set\"\n\
                      expires = 9999-01-01T00:00:00Z\n\n[[match]]\nlaunch = true\n\n";

const TEXTS: [(&str, &str); 4] = [
    ("linux-runtime", include_str!("base/linux-runtime.toml")),
    ("node", include_str!("base/node.toml")),
    ("python", include_str!("base/python.toml")),
    ("shell", include_str!("base/shell.toml")),
];

static SETS: LazyLock<Vec<(&'static str, Scope)>> =
    LazyLock::new(|| TEXTS.iter().filter_map(|(name, text)| Some((*name, read(name, text)?))).collect());

fn read(name: &str, text: &str) -> Option<Scope> {
    let file = format!("base/{name}.toml");
    parse_record(&format!("{AROUND}{text}"), Path::new(&file)).record.map(|record| record.scope)
}

/// The rules of a set.
#[must_use]
pub fn set(name: &str) -> Option<&'static Scope> {
    SETS.iter().find(|(known, _)| *known == name).map(|(_, scope)| scope)
}

/// A place in the text of a set, of one that its parser told.
#[must_use]
pub fn position(at: Position) -> Position {
    let before = u32::try_from(AROUND.matches('\n').count()).unwrap_or(0);
    Position { line: at.line.saturating_sub(before), ..at }
}

/// All sets, by name.
#[must_use]
pub fn sets() -> Vec<(String, Scope)> {
    SETS.iter().map(|(name, scope)| ((*name).to_owned(), scope.clone())).collect()
}

/// The text of a set, for people.
#[must_use]
pub fn text(name: &str) -> Option<&'static str> {
    TEXTS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::super::parse::BASE_SETS;
    use super::*;

    #[test]
    fn every_set_can_be_read() {
        assert_eq!(TEXTS.map(|(name, _)| name), BASE_SETS);
        for (name, text) in TEXTS {
            let parsed = parse_record(&format!("{AROUND}{text}"), Path::new(name));
            assert!(parsed.record.is_some(), "{name}: {:?}", parsed.diagnostics);
            assert!(set(name).is_some_and(|scope| !scope.file.is_empty()), "{name}");
        }
    }

    #[test]
    fn no_set_permits_writing_or_the_network() {
        for scope in BASE_SETS.iter().filter_map(|name| set(name)) {
            use super::super::{FileAccess, PathPattern};
            for rule in &scope.file {
                let writes = rule.value.access.contains(&FileAccess::Write);
                let path = match &rule.value.path.value {
                    PathPattern::Exact(path) | PathPattern::Subtree(path) => path.clone(),
                    PathPattern::Name(name) | PathPattern::Extension(name) => name.clone(),
                };
                assert!(!writes || path.starts_with("/dev/"), "{path}");
            }
            assert!(scope.net.is_empty() && scope.privilege.is_empty());
        }
    }
}
