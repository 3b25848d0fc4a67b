//! Loading directories, good and bad.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::registry::{
    fake::{FakeHost, now, record_text},
    report,
};

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    }
    directory
}

fn simple(id: &str) -> String {
    record_text(id, "", &format!("[[match]]\nexe = \"/opt/{id}\""))
}

fn load(directory: &TempDir) -> Loaded {
    load_dir(directory.path(), &FakeHost::new(), now(), false).unwrap()
}

fn ids(loaded: &Loaded) -> Vec<&str> {
    loaded.records.iter().map(|record| record.id.as_str()).collect()
}

#[test]
fn one_bad_record_is_refused_and_the_others_run() {
    let bad = simple("bad").replace("owner", "ownr");
    let directory =
        directory(&[("b.toml", &simple("beta")), ("bad.toml", &bad), ("c.toml", &simple("alpha"))]);
    let loaded = load(&directory);
    assert_eq!(ids(&loaded), ["alpha", "beta"]);
    assert!(loaded.get("beta").is_some() && loaded.get("bad").is_none());
    assert_eq!(loaded.refused.len(), 1);
    let codes: Vec<Code> = loaded.refused[0].diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(codes, [Code::MissingKey, Code::UnknownKey], "both reasons");
    let strict = load_dir(directory.path(), &FakeHost::new(), now(), true);
    assert!(matches!(strict, Err(LoadError::Strict { refused }) if refused.len() == 1));
}

#[test]
fn of_two_that_clash_the_later_file_is_refused_and_both_are_named() {
    let directory =
        directory(&[("1.toml", &simple("a")), ("2.toml", &simple("a")), ("3.toml", &simple("b"))]);
    let loaded = load(&directory);
    assert_eq!(ids(&loaded), ["a", "b"]);
    assert_eq!(loaded.records[0].file(), directory.path().join("1.toml"));
    let shown = report::check_text(&loaded);
    assert!(!shown.contains("duplicate-match"), "one problem, not two\n{shown}");
    for part in
        ["1.toml:2:6", "2.toml:2:6", "duplicate-id", "2 records good, 1 record refused: 1 error, 3 warnings"]
    {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
}

#[test]
fn a_refused_record_claims_nothing() {
    let first = record_text("a", "", "[[match]]\nuser = \"nobody-here\"\n[[match]]\nexe = \"/opt/b\"");
    let directory = directory(&[("1.toml", &first), ("2.toml", &simple("b"))]);
    assert_eq!(ids(&load(&directory)), ["b"]);
}

#[test]
fn an_expired_agent_is_refused_and_still_known() {
    let expired = simple("old").replace("2030", "2028");
    let wrong = record_text("x", "", "[[match]]\nuser = \"nobody-here\"").replace("2030", "2028");
    let directory = directory(&[("old.toml", &expired), ("x.toml", &wrong)]);
    let loaded = load(&directory);
    assert!(loaded.refused[0].is_only_expired());
    assert_eq!(loaded.refused[0].record.as_ref().unwrap().id.as_str(), "old");
    assert!(!loaded.refused[1].is_only_expired());
}

#[test]
fn only_record_files_are_read() {
    let text = simple("a");
    let names = [".a.toml", "#a.toml#", "a.toml~", "a.toml.bak", "README", ".a.toml.new", "#b.toml"];
    let files: Vec<(&str, &str)> = names.iter().map(|name| (*name, text.as_str())).collect();
    let directory = directory(&files);
    fs::create_dir(directory.path().join("sub")).unwrap();
    let loaded = load(&directory);
    assert!(loaded.records.is_empty() && loaded.refused.is_empty());
}

#[test]
fn what_others_may_change_is_refused_by_the_daemon_and_warned_of_by_check() {
    let directory = directory(&[("a.toml", &simple("a"))]);
    let file = directory.path().join("a.toml");
    fs::set_permissions(&file, Permissions::from_mode(0o664)).unwrap();
    let loaded = load(&directory);
    assert_eq!(loaded.refused[0].diagnostics[0].code, Code::FilePermissions);
    let checked = check_dir(directory.path(), &FakeHost::new(), now()).unwrap();
    assert_eq!(ids(&checked), ["a"]);
    assert_eq!(checked.warnings[0].code, Code::FilePermissions);
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let refused = load_dir(directory.path(), &FakeHost::new(), now(), false);
    assert!(matches!(refused, Err(LoadError::Insecure { .. })));
}

#[test]
fn trust() {
    assert!(check_trust(0o644, 0, 1000).is_ok());
    assert!(check_trust(0o100_600, 1000, 1000).is_ok());
    assert!(check_trust(0o644, 1001, 1000).is_err());
    assert!(check_trust(0o664, 0, 0).is_err());
    assert!(check_trust(0o646, 0, 0).is_err());
}

#[test]
fn odd_files_are_refused_without_waiting() {
    let directory = directory(&[("big.toml", &"#".repeat(MAX_RECORD_BYTES + 1)), ("empty.toml", "")]);
    fs::write(directory.path().join("latin1.toml"), b"[agent]\nowner = \"J\xfcrgen\"").unwrap();
    fs::create_dir(directory.path().join("dir.toml")).unwrap();
    symlink("nowhere", directory.path().join("link.toml")).unwrap();
    let pipe = directory.path().join("pipe.toml");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let codes: Vec<(String, Code)> = load(&directory)
        .refused
        .iter()
        .map(|r| (r.path.file_name().unwrap().to_string_lossy().into_owned(), r.diagnostics[0].code))
        .collect();
    let expected = [
        ("big.toml", Code::TooLarge),
        ("dir.toml", Code::NotAFile),
        ("empty.toml", Code::MissingKey),
        ("latin1.toml", Code::NotUtf8),
        ("link.toml", Code::Unreadable),
        ("pipe.toml", Code::NotAFile),
    ];
    assert_eq!(codes, expected.map(|(name, code)| (name.to_owned(), code)));
}

#[test]
fn a_link_to_a_good_file_is_good() {
    let elsewhere = directory(&[("real", &simple("a"))]);
    let directory = directory(&[]);
    symlink(elsewhere.path().join("real"), directory.path().join("a.toml")).unwrap();
    assert_eq!(ids(&load(&directory)), ["a"]);
}

#[test]
fn the_examples_are_accepted() {
    let now = "2027-01-01T00:00:00Z".parse().unwrap();
    let read = |name: &str, at_least: usize| {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let loaded = check_dir(&examples, &FakeHost::new(), now).unwrap();
        assert_eq!(loaded.refused.len(), 0, "{}", report::check_text(&loaded));
        assert!(loaded.records.len() >= at_least);
        loaded
    };
    read("scopes", 4);
    let loaded = read("agents.d", 5);
    // What only the host of the reader can know; a checkout may be group-writable.
    let expected = [Code::MissingPath, Code::UnknownUser, Code::FilePermissions];
    for warning in &loaded.warnings {
        assert!(expected.contains(&warning.code), "{}", warning.render());
    }
}

#[test]
fn no_directory() {
    let missing = load_dir(Path::new("/no/such/dir"), &FakeHost::new(), now(), false);
    assert!(matches!(missing, Err(LoadError::Directory { .. })));
}

#[test]
fn five_hundred_records_load_at_once() {
    let directory = directory(&[]);
    for number in 0..500 {
        let rules: String = (0..10)
            .map(|rule| format!("[[scope.file]]\npath = \"/srv/{number}/{rule}/**\"\naccess = [\"read\"]\n"))
            .collect();
        let text = record_text(
            &format!("agent-{number:03}"),
            "",
            &format!("[[match]]\nexe = \"/opt/{number}\"\nuser = \"bot\"\n[scope]\n{rules}"),
        );
        let path = directory.path().join(format!("{number}.toml"));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    }
    fs::write(directory.path().join("499.toml"), "[agent").unwrap();
    let loaded = load(&directory);
    assert_eq!((loaded.records.len(), loaded.refused.len()), (499, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_loaded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let directory = directory(&[]);
        fs::write(directory.path().join("x.toml"), &bytes).unwrap();
        let loaded = check_dir(directory.path(), &FakeHost::new(), now()).unwrap();
        prop_assert_eq!(loaded.records.len() + loaded.refused.len(), 1);
        report::check_text(&loaded);
        report::check_json(&loaded);
    }
}
