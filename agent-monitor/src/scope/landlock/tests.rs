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

/// A host with the loader of x86-64, and directories for everything else.
fn loader_host(path: &str) -> Found {
    match path {
        "/lib64/ld-linux-x86-64.so.2" | "/opt/sdk/ld-2.31.so" | "/usr/bin/node" => Found::File,
        path if path.contains("/ld") => Found::Nothing,
        _ => Found::Directory,
    }
}

fn runs(text: &str) -> Vec<String> {
    let scope = parse_scope(text, Path::new("x.toml")).record.unwrap().scope;
    let plan = plan(&scope, &crate::scope::base::sets(), &loader_host);
    plan.allow.into_iter().filter(|(_, needs)| needs.contains(&Need::Run)).map(|(path, _)| path).collect()
}

#[test]
fn mapping_as_code_is_never_the_right_to_run() {
    let sets = crate::scope::base::sets();
    let sets: Vec<&str> =
        sets.iter().filter(|(_, set)| set.exec.is_empty()).map(|(name, _)| name.as_str()).collect();
    assert!(sets.contains(&"node") && sets.contains(&"linux-runtime"), "{sets:?}");
    for base in sets {
        let found = runs(&format!("[scope]\ndefault = \"deny\"\nbase = [\"{base}\"]\n"));
        let programs: Vec<_> = found.iter().filter(|path| !path.contains("/ld-linux")).collect();
        assert!(programs.is_empty(), "{base} runs {programs:?}");
    }
    let own = runs("[scope]\n[[scope.file]]\npath = \"/usr/**\"\naccess = [\"read\", \"execute-map\"]\n");
    assert!(own.is_empty(), "{own:?}");
    let one = "[scope]\nbase = [\"linux-runtime\"]\n[[scope.exec]]\npath = \"/usr/bin/node\"\n";
    assert_eq!(runs(one), ["/lib64/ld-linux-x86-64.so.2", "/usr/bin/node"]);
}

#[test]
fn a_loader_runs_only_where_it_may_be_mapped_and_that_is_declared() {
    let text = "[scope]\n[[scope.file]]\npath = \"/lib64/**\"\naccess = [\"read\", \"execute-map\"]\n";
    assert_eq!(runs(text), ["/lib64/ld-linux-x86-64.so.2"]);
    let denied = "[[scope.file]]\npath = \"/lib64/ld-linux-x86-64.so.2\"\naccess = [\"execute-map\"]\nverdict = \"deny\"\n";
    assert_eq!(runs(&format!("{text}{denied}")), Vec::<String>::new());
    let own =
        "[scope]\n[[scope.file]]\npath = \"/opt/sdk/ld-2.31.so\"\naccess = [\"read\", \"execute-map\"]\n";
    assert_eq!(runs(own), ["/opt/sdk/ld-2.31.so"]);
    let scope = parse_scope(text, Path::new("x.toml")).record.unwrap().scope;
    let wider = plan(&scope, &[], &loader_host).not_held;
    assert!(wider.iter().any(|not| not.differs == Differs::Wider && not.why.contains("loader")), "{wider:?}");
}

#[test]
fn whatever_a_plan_permits_beyond_a_rule_is_declared_as_wider() {
    let wide = |text: &str| -> Vec<String> {
        let plan = planned(text);
        let wider = plan.not_held.into_iter().filter(|not| not.differs == Differs::Wider);
        wider.map(|not| not.rule).filter(|rule| rule != "scope.default").collect()
    };
    let file = |path: &str, access: &str, verdict: &str| {
        format!("[[scope.file]]\npath = \"{path}\"\naccess = [{access}]\nverdict = \"{verdict}\"\n")
    };
    let one = ["scope.file[0]"];
    assert_eq!(wide(&format!("[scope]\n{}", file("/srv/new", "\"create\", \"write\"", "allow"))), one);
    assert_eq!(wide(&format!("[scope]\n{}", file("/etc/hosts", "\"delete\"", "allow"))), one);
    assert_eq!(wide(&format!("[scope]\n{}", file("/srv/a", "\"read\"", "allow"))), one);
    let inside = format!(
        "[scope]\n{}{}",
        file("/srv/a/**", "\"read\"", "allow"),
        file("/srv/a/b/**", "\"execute-map\"", "deny")
    );
    assert_eq!(wide(&inside), ["scope.file[1]"], "what can be read can be mapped");
    assert_eq!(wide(&format!("[scope]\n{}", file("/gone/**", "\"read\"", "allow"))), Vec::<String>::new());
}
