//! One small scope per finding, and one that has none.

use std::path::Path;

use crate::registry::{Code, Diagnostic, parse_record};

const AGENT: &str = "[agent]\nid = \"a\"\nowner = \"o\"\npurpose = \"p\"\nexpires = 2030-01-01T00:00:00Z\n[[match]]\nexe = \"/opt/a\"\n[scope]\ndefault = \"deny\"\n";

fn lint(rules: &str) -> Vec<Diagnostic> {
    parse_record(&format!("{AGENT}{rules}"), Path::new("a.toml")).diagnostics
}

fn codes(rules: &str) -> Vec<Code> {
    lint(rules).iter().map(|problem| problem.code).collect()
}

fn file(path: &str, access: &str, rest: &str) -> String {
    format!("[[scope.file]]\npath = \"{path}\"\naccess = [{access}]\n{rest}\n")
}

#[test]
fn different_places_do_not_quarrel() {
    let rules = file("/a/**", "\"read\"", "")
        + &file("/a/b/**", "\"read\"", "verdict = \"deny\"")
        + &file("/a/b/c", "\"read\"", "")
        + &file("/a/**", "\"write\"", "verdict = \"hold\"");
    assert_eq!(codes(&rules), [Code::MissingKey], "only: nobody can approve");
}

#[test]
fn the_same_twice_is_reported_once_at_the_later() {
    let found = lint(&(file("/a", "\"read\"", "") + &file("/a", "\"read\"", "")));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].code, Code::ShadowedRule);
    assert_eq!((found[0].at.line, found[0].at.column), (15, 8));
    assert_eq!(found[0].related.as_ref().unwrap().at.line, 11);
}

#[test]
fn the_milder_of_two_verdicts_never_decides() {
    let rules = file("/a", "\"read\"", "verdict = \"deny\"")
        + &file("/a", "\"read\", \"write\"", "verdict = \"kill\"");
    let found = lint(&rules);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].code, found[0].at.line), (Code::ShadowedRule, 11));
    assert!(found[0].message.contains("scope.file[0] (deny) can never decide: scope.file[1] says kill"));
}

#[test]
fn a_partial_quarrel_names_the_accesses() {
    let rules =
        file("/a", "\"read\", \"write\"", "") + &file("/a", "\"write\", \"delete\"", "verdict = \"deny\"");
    let found = lint(&rules);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].code, Code::ContradictoryRule);
    assert!(found[0].message.contains("about write of /a"), "{}", found[0].message);
}

#[test]
fn labels_decide_whether_both_can_apply() {
    let add = file("/pii/**", "\"read\"", "adds = [\"pii\"]");
    // Allowed unless tainted, and denied always: the first never decides.
    let net = "[[scope.net]]\nto = \"a.com\"\nunless = [\"pii\"]\n[[scope.net]]\nto = \"a.com\"\nverdict = \"deny\"\n";
    assert_eq!(codes(&format!("{add}{net}")), [Code::ShadowedRule]);
    // Held unless tainted, else allowed: both have their turn.
    let net = "[[scope.net]]\nto = \"a.com\"\nunless = [\"pii\"]\nverdict = \"deny\"\n[[scope.net]]\nto = \"a.com\"\n";
    assert_eq!(codes(&format!("{add}{net}")), []);
    assert_eq!(codes("[[scope.net]]\nto = \"a.com\"\nunless = [\"pi\"]\n"), [Code::UnknownLabel]);
}

#[test]
fn every_family_is_looked_at() {
    let twice = |rule: &str| codes(&format!("{rule}\n{rule}\n"));
    assert_eq!(twice("[[scope.exec]]\npath = \"/bin/a\""), [Code::ShadowedRule]);
    assert_eq!(twice("[[scope.exec]]\npath = \"/bin/a\"\nargv = [\"a\"]"), [Code::ShadowedRule]);
    assert_eq!(twice("[[scope.net]]\nto = \"10.0.0.0/8:5\""), [Code::ShadowedRule]);
    assert_eq!(twice("[[scope.privilege]]\nkind = \"ptrace\""), [Code::ShadowedRule]);
    let capability = |names: &str| format!("[[scope.privilege]]\nkind = \"capability\"\n{names}\n");
    let one = "capabilities = [\"CAP_CHOWN\"]";
    let other = "capabilities = [\"CAP_KILL\"]";
    assert_eq!(codes(&(capability(one) + &capability(other))), []);
    assert_eq!(codes(&(capability(one) + &capability(""))), [Code::ShadowedRule]);
    let exec = "[[scope.exec]]\npath = \"/bin/a\"\n[[scope.exec]]\npath = \"/bin/a\"\nargv = [\"a\", \"x\"]\nverdict = \"deny\"\n";
    assert_eq!(codes(exec), []);
}

#[test]
fn a_permitting_name_pattern_opens_a_forbidden_subtree() {
    let rules = file("/secret/**", "\"read\"", "verdict = \"deny\"") + &file("**/*.md", "\"read\"", "");
    let found = codes(&rules);
    assert!(found.contains(&Code::OverriddenDeny), "{found:?}");
}

#[test]
fn what_changes_nothing_is_noted() {
    let rules = file("/a/**", "\"read\", \"write\"", "") + &file("/a/b/c", "\"read\"", "");
    assert_eq!(codes(&rules), [Code::RedundantRule]);
    // A denied subtree between them makes the inner one count.
    let rules = rules + &file("/a/b/**", "\"read\"", "verdict = \"deny\"");
    assert_eq!(codes(&rules), []);
    let rules = file("/a/**", "\"read\"", "verdict = \"deny\"");
    assert_eq!(codes(&rules), [Code::RedundantRule], "the default denies");
}

#[test]
fn many_equal_rules_are_quick() {
    let rules = file("/a", "\"read\"", "").repeat(4096);
    assert!(lint(&rules).len() <= 101);
    let rules: String = (0..4096).map(|n| file(&format!("/a/{n}/**"), "\"read\"", "")).collect();
    assert_eq!(lint(&rules), []);
}
