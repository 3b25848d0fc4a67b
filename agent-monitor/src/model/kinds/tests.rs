//! Tests of the table of kinds, and that the rest of the repository answers for each row.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;

#[test]
fn every_record_of_the_kernel_is_an_event_of_one_kind_or_none() {
    let mut of: BTreeMap<Kind, Vec<RawKind>> = BTreeMap::new();
    for raw in RawKind::ALL {
        match of_record(*raw) {
            Record::Event(kind) => {
                assert_eq!(kind.row().raw, Some(*raw), "{raw:?}");
                of.entry(kind).or_default().push(*raw);
            }
            Record::Material(name) => {
                assert_eq!(name.parse::<Kind>().ok(), None, "{raw:?} is no event, and {name} is one");
                assert!(name.starts_with("record."), "{raw:?}: {name}");
            }
        }
    }
    assert_eq!(of.values().filter(|raws| raws.len() != 1).count(), 0, "{of:?}");
    let with_raw = Kind::ALL.iter().filter(|kind| kind.row().raw.is_some()).count();
    assert_eq!(with_raw, of.len(), "a row names a record that leads to another kind");
}

#[test]
fn rows_agree_with_themselves() {
    for kind in Kind::ALL {
        let row = kind.row();
        assert_eq!(row.kind, *kind);
        assert!(row.name.starts_with(&format!("{}.", row.family)), "{}", row.name);
        let judged = !matches!(row.asks, Asks::Nothing(_));
        assert_eq!(judged, row.wait != Wait::NotJudged, "{kind}: judged, and what a hold does");
        assert!(judged || matches!(row.escape, Escape::None(_)), "{kind}: escape rows of what is not judged");
        let aimed = row.tamper;
        assert!(aimed == *kind || aimed.family() == Family::Tamper, "{kind} aimed at the monitor is {aimed}");
        assert!(
            row.raw.is_none() || *kind == Kind::AgentBound || aimed != *kind,
            "{kind}: no kind of tampering"
        );
        for (at, _) in row.sentence.match_indices('{') {
            let from = &row.sentence[at..];
            assert!(PLACEHOLDERS.iter().any(|known| from.starts_with(known)), "{kind}: {}", row.sentence);
        }
    }
}

fn sources(folder: &Path, into: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            into.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Rows that state that nothing proves them, in place of a kernel case or an escape row.
fn unanswered(rows: &[&Row], files: &[(PathBuf, String)]) -> Vec<String> {
    let escape = |path: &Path| path.components().any(|part| part.as_os_str() == "escape");
    let names = |row: &Row, in_escape: bool| {
        let name = format!("\"{}\"", row.name);
        files.iter().any(|(path, text)| escape(path) == in_escape && text.contains(&name))
    };
    let mut missing = Vec::new();
    for row in rows {
        if row.raw.is_some() && !names(row, false) {
            missing.push(format!("{}: no case in tests/kernel names it", row.name));
        }
        match row.escape {
            Escape::Rows if !names(row, true) => {
                missing.push(format!("{}: no row in tests/kernel/escape names it", row.name));
            }
            Escape::None("") => missing.push(format!("{}: no reason why it has no escape row", row.name)),
            Escape::Rows | Escape::None(_) => {}
        }
    }
    missing
}

#[test]
fn every_kind_has_a_kernel_case_and_an_escape_row_or_a_reason() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kernel"), &mut files);
    let rows: Vec<&Row> = Kind::ALL.iter().map(|kind| kind.row()).collect();
    assert_eq!(unanswered(&rows, &files), Vec::<String>::new());

    // The check itself can fail, in each of its three ways.
    let new = Row { name: "file.new", escape: Escape::Rows, ..*Kind::FileOpen.row() };
    let silent = Row { escape: Escape::None(""), ..*Kind::FileOpen.row() };
    assert_eq!(unanswered(&[&new, &silent], &files).len(), 3);
}

#[test]
fn capabilities_have_the_numbers_of_the_kernel() {
    use crate::model::privilege::CAPABILITIES;
    // include/uapi/linux/capability.h.
    for (number, name) in [(0, "CAP_CHOWN"), (12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")] {
        assert_eq!(CAPABILITIES[number], name);
    }
    assert_eq!(CAPABILITIES.len(), agent_monitor_ebpf::policy::CAPS);
}
