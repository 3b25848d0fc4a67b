//! Tests of the plan for Landlock.

use std::path::Path;

use super::*;
use crate::registry::parse::parse_scope;

fn planned(text: &str) -> Plan {
    let parsed = parse_scope(text, Path::new("x.toml"));
    let scope = parsed.record.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics)).scope;
    plan(&scope, &[], &|path| match path {
        "/srv" | "/srv/a" | "/srv/a/b" | "/" | "/etc" => Found::Directory,
        "/etc/hosts" | "/usr/bin/git" => Found::File,
        _ => Found::Nothing,
    })
}

fn allowed(plan: &Plan) -> Vec<(&str, Vec<Need>)> {
    plan.allow.iter().map(|(path, needs)| (path.as_str(), needs.iter().copied().collect())).collect()
}

fn rules(plan: &Plan) -> Vec<&str> {
    plan.not_held.iter().map(|not| not.rule.as_str()).collect()
}

#[test]
fn an_allow_list_becomes_rules() {
    let plan = planned(
        "[scope]\n[[scope.file]]\npath = \"/srv/a/**\"\naccess = [\"read\", \"create\"]\n\
         [[scope.file]]\npath = \"/etc/hosts\"\naccess = [\"read\", \"delete\"]\n\
         [[scope.exec]]\npath = \"/usr/bin/git\"\n",
    );
    assert!(plan.applies);
    let expected = [
        ("/etc", vec![Need::Delete]),
        ("/etc/hosts", vec![Need::Read]),
        ("/srv/a", vec![Need::Read, Need::Create]),
        ("/usr/bin/git", vec![Need::Read, Need::Run]),
    ];
    assert_eq!(allowed(&plan), expected);
    assert_eq!(rules(&plan), ["scope.default", "scope.file[1]"], "the name belongs to the directory");
}

#[test]
fn stops_inside_what_is_allowed_are_told() {
    let plan = planned(
        "[scope]\n[[scope.file]]\npath = \"/srv/a/**\"\naccess = [\"read\"]\n\
         [[scope.file]]\npath = \"/srv/a/b/**\"\nverdict = \"deny\"\n\
         [[scope.file]]\npath = \"/etc/**\"\nverdict = \"deny\"\n\
         [[scope.file]]\npath = \"**/*.pem\"\naccess = [\"read\"]\nverdict = \"hold\"\n\
         [[scope.file]]\npath = \"/srv/a/**\"\naccess = [\"write\"]\nverdict = \"deny\"\n",
    );
    assert_eq!(allowed(&plan), [("/srv/a", vec![Need::Read])]);
    assert_eq!(rules(&plan), ["scope.default", "scope.file[1]", "scope.file[3]"]);
}

#[test]
fn names_and_absent_places_are_told() {
    let plan = planned(
        "[scope]\n[[scope.file]]\npath = \"**/.env\"\naccess = [\"read\"]\n\
         [[scope.file]]\npath = \"/gone/**\"\naccess = [\"read\"]\n\
         [[scope.file]]\npath = \"/srv/new\"\naccess = [\"create\", \"write\"]\n",
    );
    assert_eq!(allowed(&plan), [("/srv", vec![Need::Write, Need::Create])]);
    assert_eq!(rules(&plan), ["scope.default", "scope.file[0]", "scope.file[1]", "scope.file[2]"]);
}

#[test]
fn a_default_that_permits_holds_nothing() {
    let plan = planned(
        "[scope]\ndefault = \"audit\"\n[[scope.exec]]\npath = \"/usr/bin/git\"\nverdict = \"deny\"\n",
    );
    assert!(!plan.applies && plan.allow.is_empty());
    assert_eq!(rules(&plan), ["scope.exec[0]"]);
}

#[test]
fn the_record_decides_before_a_base_set() {
    let scope = |text: &str| parse_scope(text, Path::new("x.toml")).record.unwrap().scope;
    let base = scope("[scope]\n[[scope.file]]\npath = \"/srv/a/**\"\naccess = [\"read\", \"write\"]\n");
    let own = scope(
        "[scope]\nbase = [\"shell\"]\n[[scope.file]]\npath = \"/srv/a/**\"\naccess = [\"write\"]\nverdict = \"deny\"\n",
    );
    let plan = plan(&own, &[("shell".to_owned(), base)], &|_| Found::Directory);
    assert_eq!(allowed(&plan), [("/srv/a", vec![Need::Read])]);
    assert_eq!(rules(&plan), ["scope.default"]);
}
