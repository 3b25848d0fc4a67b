//! Registering into a real directory.

use tempfile::TempDir;

use super::*;
use crate::registry::{
    Code,
    fake::{FakeHost, now, record_text},
    report,
};

struct Bench {
    directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn registry(&self) -> PathBuf {
        self.directory.path().join("etc/agents.d")
    }

    fn install(&self, text: &str, replace: bool) -> Result<Installed, InstallError> {
        let file = self.directory.path().join("new.toml");
        fs::write(&file, text).unwrap();
        install(&file, &self.registry(), &FakeHost::new(), now(), replace)
    }

    /// Names and contents, everything.
    fn state(&self) -> Vec<(String, String)> {
        let mut files: Vec<(String, String)> = fs::read_dir(self.registry())
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }
}

fn simple(id: &str, exe: &str) -> String {
    record_text(id, "", &format!("[[match]]\nexe = \"{exe}\""))
}

#[test]
fn a_new_agent_is_created_once() {
    let bench = Bench::new();
    let text = simple("bot", "/opt/bot");
    let installed = bench.install(&text, false).unwrap();
    assert_eq!(installed.outcome, Outcome::Created);
    assert_eq!(installed.path, bench.registry().join("bot.toml"));
    assert_eq!(installed.record.file(), installed.path);
    assert_eq!(bench.state(), [("bot.toml".to_owned(), text.clone())]);
    let mode = fs::metadata(&installed.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    assert_eq!(bench.install(&text, false).unwrap().outcome, Outcome::Unchanged);
    assert!(report::installed_text(&installed).contains("registered agent bot"));
}

#[test]
fn another_text_needs_replace() {
    let bench = Bench::new();
    bench.install(&simple("bot", "/opt/bot"), false).unwrap();
    let before = bench.state();
    let other = simple("bot", "/opt/bot2");
    let error = bench.install(&other, false).unwrap_err();
    assert!(matches!(&error, InstallError::Exists { id, .. } if id.as_str() == "bot"));
    assert!(report::install_error_text(&error).contains("--replace"));
    assert_eq!(bench.state(), before);
    assert_eq!(bench.install(&other, true).unwrap().outcome, Outcome::Replaced);
    assert_eq!(bench.state(), [("bot.toml".to_owned(), other)]);
}

#[test]
fn replace_takes_the_place_of_the_file_that_holds_the_id() {
    let bench = Bench::new();
    bench.install(&simple("bot", "/opt/bot"), false).unwrap();
    fs::rename(bench.registry().join("bot.toml"), bench.registry().join("custom.toml")).unwrap();
    let other = simple("bot", "/opt/bot2");
    bench.install(&other, true).unwrap();
    assert_eq!(bench.state(), [("custom.toml".to_owned(), other)]);
    // The name that a new agent would have is taken by another.
    fs::rename(bench.registry().join("custom.toml"), bench.registry().join("new.toml")).unwrap();
    let error = bench.install(&simple("new", "/opt/new"), true).unwrap_err();
    assert!(matches!(error, InstallError::NameTaken { .. }));
}

#[test]
fn an_expired_record_can_be_renewed() {
    let bench = Bench::new();
    bench.install(&simple("bot", "/opt/bot"), false).unwrap();
    let path = bench.registry().join("bot.toml");
    let old = fs::read_to_string(&path).unwrap().replace("2030", "2028");
    fs::write(&path, old).unwrap();
    let renewed = bench.install(&simple("bot", "/opt/bot"), true).unwrap();
    assert_eq!(renewed.outcome, Outcome::Replaced);
}

#[test]
fn refused_records_change_nothing() {
    let bench = Bench::new();
    let bad = simple("bot", "relative");
    assert!(matches!(bench.install(&bad, true), Err(InstallError::Refused { .. })));
    assert!(!bench.registry().exists());
    bench.install(&simple("bot", "/opt/bot"), false).unwrap();
    let before = bench.state();
    let clash = bench.install(&simple("other", "/opt/bot"), true).unwrap_err();
    let InstallError::Refused { diagnostics } = clash else { panic!("{clash:?}") };
    assert_eq!(
        diagnostics.iter().filter(|d| d.is_error()).map(|d| d.code).collect::<Vec<_>>(),
        [Code::DuplicateMatch]
    );
    assert_eq!(bench.state(), before);
}

#[test]
fn what_an_interrupted_registration_left_is_no_obstacle() {
    let bench = Bench::new();
    bench.install(&simple("a", "/opt/a"), false).unwrap();
    fs::write(bench.registry().join(".bot.toml.new"), "half a rec").unwrap();
    bench.install(&simple("bot", "/opt/bot"), false).unwrap();
    let names: Vec<String> = bench.state().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a.toml", "bot.toml"]);
}

#[test]
fn a_failed_write_leaves_no_file_behind() {
    let bench = Bench::new();
    bench.install(&simple("a", "/opt/a"), false).unwrap();
    // A directory in the place makes the rename fail after the text was written.
    fs::create_dir(bench.registry().join("bot.toml")).unwrap();
    let error = bench.install(&simple("bot", "/opt/bot"), true).unwrap_err();
    assert!(matches!(error, InstallError::Write { action: "replace", .. }), "{error:?}");
    assert!(!bench.registry().join(".bot.toml.new").exists());
    assert!(report::install_error_text(&error).contains("nothing was changed"));
}

#[test]
fn two_registrations_of_one_match_do_not_both_succeed() {
    let bench = Bench::new();
    fs::create_dir_all(bench.registry()).unwrap();
    let registry = bench.registry();
    let results: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let registry = &registry;
                scope.spawn(move || {
                    let text = simple(&format!("bot-{number}"), "/opt/same");
                    install_text(&text, Path::new("x.toml"), registry, &FakeHost::new(), now(), false).is_ok()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|good| **good).count(), 1);
    assert_eq!(bench.state().len(), 1);
}
