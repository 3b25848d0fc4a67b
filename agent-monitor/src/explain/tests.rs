//! Which rules fit, and why they lose.

use std::path::Path;

use super::*;
use crate::registry::parse::parse_scope;

fn told(text: &str, question: &Question, decided: &str) -> Vec<(String, String)> {
    let record = parse_scope(text, Path::new("x.toml")).record.unwrap();
    let rules = fitting(&record, question, decided, &mut |path| Some(path.replace("/alias", "/real")));
    rules.into_iter().map(|rule| (rule.rule, rule.lost.unwrap_or_default())).collect()
}

fn is(rule: &str, lost: &str) -> (String, String) {
    (rule.to_owned(), lost.to_owned())
}

#[test]
fn files_that_lose_say_why() {
    let text = "[scope]\n[[scope.file]]\npath = \"/alias/**\"\naccess = \"read\"\n\
                [[scope.file]]\npath = \"/real/a/**\"\naccess = \"read\"\nverdict = \"deny\"\n\
                [[scope.file]]\npath = \"/real/a/**\"\naccess = \"write\"\n\
                [[scope.file]]\npath = \"**/x\"\naccess = \"read\"\nunless = \"pii\"\n\
                [[scope.file]]\npath = \"/other/**\"\naccess = \"read\"\n";
    let question = Question::File(FileAccess::Read, "/real/a/x".to_owned());
    assert_eq!(
        told(text, &question, "scope.file[1]"),
        [
            is("scope.file[1]", ""),
            is("scope.file[0]", "less specific than /real/a/**"),
            is("scope.file[2]", "about write, not read"),
            is(
                "scope.file[3]",
                "not in force: labels are not known to the kernel yet, so it permits nothing"
            ),
        ]
    );
    let own = told(text, &question, "self-protection");
    assert!(own.iter().any(|(_, why)| why.contains("own places")), "{own:?}");
}

#[test]
fn peers_that_lose_say_why() {
    let text = "[scope]\n[[scope.net]]\nto = \"10.0.0.0/8\"\n\
                [[scope.net]]\nto = \"10.0.0.1:1-500/tcp\"\nverdict = \"deny\"\n\
                [[scope.net]]\nto = \"10.0.0.1:1-500/tcp\"\naction = \"bind\"\n\
                [[scope.net]]\nto = \"*.example.com:443\"\n[[scope.net]]\nto = \"10.0.0.1:80\"\n";
    let question = Question::Peer(NetAction::Connect, "10.0.0.1".parse().unwrap(), 443, Protocol::Tcp);
    assert_eq!(
        told(text, &question, "scope.net[1]"),
        [
            is("scope.net[1]", ""),
            is("scope.net[0]", "less specific than 10.0.0.1:1-500/tcp"),
            is("scope.net[2]", "about bind, not connect"),
            is("scope.net[3]", "not in force: host names are not known to the kernel yet"),
        ]
    );
}

#[test]
fn a_base_set_tells_its_line() {
    let text =
        "[scope]\nbase = [\"linux-runtime\"]\n[[scope.file]]\npath = \"/proc/**\"\naccess = \"read\"\n";
    let record = parse_scope(text, Path::new("x.toml")).record.unwrap();
    let question = Question::File(FileAccess::Read, "/proc/1/maps".to_owned());
    let rules = fitting(&record, &question, "scope.file[0]", &mut |path| Some(path.to_owned()));
    let base = rules.iter().find(|rule| rule.file == "base set linux-runtime").unwrap();
    assert_eq!(base.lost.as_deref(), Some("a base set yields to the record's own rule"));
    let line = usize::try_from(base.at.line).unwrap();
    assert!(base::text("linux-runtime").unwrap().lines().nth(line - 1).unwrap().contains("/proc/**"));
}
