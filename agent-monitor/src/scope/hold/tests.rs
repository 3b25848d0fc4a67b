//! What each level loses.

use std::path::Path;

use super::*;
use crate::registry::fake::FakeHost;
use crate::registry::parse::parse_scope;

fn rules(text: &str, level: Level) -> Vec<(String, &'static str)> {
    let record = parse_scope(text, Path::new("x.toml")).record.unwrap();
    unheld(&record, level).into_iter().map(|lost| (lost.rule, lost.why)).collect()
}

fn is(rule: &str, why: &'static str) -> (String, &'static str) {
    (rule.to_owned(), why)
}

#[test]
fn some_rules_are_held_nowhere() {
    let text = "[scope]\n[[scope.file]]\npath = \"/a/**\"\naccess = \"read\"\nadds = \"pii\"\n\
                [[scope.file]]\npath = \"/b/**\"\naccess = \"read\"\nverdict = \"hold\"\n\
                [[scope.exec]]\npath = \"/bin/x\"\nargv = [\"x\"]\n\
                [[scope.net]]\nto = \"*.example.com\"\n[[scope.net]]\nto = \"10.0.0.1\"\nunless = \"pii\"\n\
                [scope.limits]\ndeletes = \"3/session\"\n";
    let held = [
        is("scope.file[0]", LABELS),
        is("scope.exec[0]", ARGUMENTS),
        is("scope.net[0]", NAMES),
        is("scope.net[1]", LABELS),
        is("scope.limits.deletes", LIMITS),
    ];
    assert_eq!(rules(text, Level::Full), held);
}

#[test]
fn partial_holds_connections_only() {
    let text = "[scope]\ndefault = \"audit\"\n[[scope.file]]\npath = \"/a/**\"\naccess = \"read\"\nverdict = \"deny\"\n\
                [[scope.file]]\npath = \"/b/**\"\naccess = \"read\"\n\
                [[scope.net]]\nto = \"10.0.0.1\"\nverdict = \"deny\"\n\
                [[scope.net]]\nto = \"unix:/run/x.sock\"\nverdict = \"deny\"\n\
                [[scope.privilege]]\nkind = \"mount\"\nverdict = \"kill\"\n";
    let lost = [is("scope.file[0]", PARTIAL), is("scope.net[1]", PARTIAL), is("scope.privilege[0]", PARTIAL)];
    assert_eq!(rules(text, Level::Partial), lost);
    assert_eq!(rules(text, Level::Full), []);
    assert_eq!(rules(text, Level::None).len(), 4);
    assert_eq!(rules("[scope]\n", Level::Partial), [is("scope.default", PARTIAL)]);
    assert_eq!(rules("", Level::None), [], "no scope asks for nothing");
}

#[test]
fn an_enforced_record_is_refused_unless_less_will_do() {
    let said = |mode: &str, degrade: &str| {
        let text = format!(
            "[agent]\nid = \"a\"\nowner = \"o\"\npurpose = \"p\"\nexpires = 2099-01-01T00:00:00Z\nmode = \"{mode}\"\n\
             degrade = \"{degrade}\"\n[[match]]\nlaunch = true\n[scope]\n[[scope.net]]\nto = \"*.example.com\"\n"
        );
        let record = crate::registry::parse::parse_record(&text, Path::new("x.toml")).record.unwrap();
        diagnostics(&record, Level::Full, &FakeHost::new())
            .into_iter()
            .map(|told| (told.severity, told.at.line))
            .collect::<Vec<_>>()
    };
    assert_eq!(said("enforce", "refuse"), [(Severity::Error, 12)]);
    assert_eq!(said("enforce", "allow"), [(Severity::Warning, 12)]);
    assert_eq!(said("observe", "refuse"), []);
}

fn record(text: &str) -> Record {
    let head = "[agent]\nid = \"a\"\nowner = \"o\"\npurpose = \"p\"\nexpires = 2099-01-01T00:00:00Z\nmode = \"enforce\"\n";
    crate::registry::parse::parse_record(&format!("{head}{text}"), Path::new("x.toml")).record.unwrap()
}

#[test]
fn rules_are_counted_with_their_base_sets_by_where_they_are_enforced() {
    let host = FakeHost::new().with_file("/usr/bin/git", 7);
    let text = "[[match]]\nlaunch = true\n[scope]\ndefault = \"deny\"\nbase = [\"shell\"]\n\
                [[scope.exec]]\npath = \"/usr/bin/git\"\n[[scope.net]]\nto = \"10.0.0.1\"\nverdict = \"deny\"\n\
                [[scope.privilege]]\nkind = \"mount\"\nverdict = \"deny\"\n";
    let record = record(text);
    let full = RuleCounts::of(&super::rules(&record, Level::Full, &host));
    assert_eq!((full.everywhere, full.under_exec, full.no), (full.total, 0, 0));
    assert!(full.total > 10, "base sets count: {full:?}");
    let partial = super::rules(&record, Level::Partial, &host);
    let of = |name: &str| partial.iter().find(|rule| rule.rule == name).unwrap().enforced;
    assert_eq!(of("scope.exec[0]"), Enforced::UnderExec);
    assert_eq!(of("scope.net[0]"), Enforced::Everywhere);
    assert_eq!(of("scope.privilege[0]"), Enforced::No);
    let counts = RuleCounts::of(&partial);
    assert_eq!(counts.total, counts.everywhere + counts.under_exec + counts.no);
    assert_eq!(counts.total, full.total, "no rule is left out at any level");
    assert!(counts.text().contains("only under exec"));
}

#[test]
fn each_widening_is_an_error_without_degrade_and_a_warning_with_it() {
    let text = |degrade: &str| {
        format!(
            "degrade = \"{degrade}\"\n[[match]]\nlaunch = true\n[scope]\n\
             [[scope.file]]\npath = \"/srv/new\"\naccess = [\"create\", \"write\"]\n"
        )
    };
    let said = |degrade: &str, level: Level| {
        let all = diagnostics(&record(&text(degrade)), level, &FakeHost::new());
        let wide = all.into_iter().filter(|problem| problem.message.contains("permits more"));
        wide.map(|problem| (problem.severity, problem.message)).collect::<Vec<_>>()
    };
    let refused = said("refuse", Level::Partial);
    assert!(refused.iter().all(|(severity, _)| *severity == Severity::Error));
    assert!(refused.iter().any(|(_, message)| message.contains("scope.file[0]")), "{refused:?}");
    assert!(said("allow", Level::Partial).iter().all(|(severity, _)| *severity == Severity::Warning));
    assert_eq!(said("refuse", Level::Full), []);
}

#[test]
fn a_script_that_a_link_could_start_unbound_is_named_at_level_partial() {
    let record = record(
        "degrade = \"allow\"\n[[match]]\nscript = \"/opt/codex/cli.js\"\n[scope]\ndefault = \"audit\"\n",
    );
    let said = |level| {
        let all = diagnostics(&record, level, &FakeHost::new());
        all.into_iter().filter(|problem| problem.message.contains("match[0].script")).collect::<Vec<_>>()
    };
    assert_eq!(said(Level::Partial).len(), 1);
    assert!(said(Level::Partial).iter().all(|problem| problem.severity == Severity::Warning));
    assert_eq!(said(Level::Full), []);
}
