//! The embedded pack holds, entry by entry; files over it; mistakes with their lines.

use std::path::Path;

use super::*;
use crate::sweep::identify;

fn file(text: &str) -> (PackFile, Vec<Diagnostic>) {
    check(text, Path::new("p.toml"))
}

#[test]
fn the_embedded_pack_is_without_mistakes() {
    let (pack, problems) = check(DEFAULT, Path::new("default.toml"));
    assert!(problems.is_empty(), "{}", crate::registry::report::diagnostics_text(&problems));
    assert!(pack.products.len() > 140 && !pack.provider_hosts.is_empty() && !pack.key_names.is_empty());
}

/// What an entry says is enough is told as that entry; what it says is not, is not.
#[test]
fn every_entry_is_told_by_each_of_its_facts() {
    let pack = embedded();
    let told = |line: &str| {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        identify::best(pack, &args)
    };
    for (at, product) in pack.products().iter().enumerate() {
        let expect = |line: String| match told(&line) {
            Some(hit) => assert!(hit.weight >= 50, "{}: {line}: {hit:?}", product.id),
            None => panic!("{}: {line} is not told", product.id),
        };
        let own = |line: String| {
            expect(line.clone());
            assert_eq!(told(&line).map(|hit| hit.product), Some(at), "{}: {line}", product.id);
        };
        product.list("programs").iter().for_each(|name| own(format!("/opt/x/{name}")));
        product.list("commands").iter().for_each(|command| own(command.clone()));
        product.list("modules").iter().for_each(|module| own(format!("python3 -m {module}")));
        for name in product.list("npm") {
            expect(format!("node /p/node_modules/{name}/dist/index.js"));
            expect(format!("npx -y {name}"));
        }
        product.list("pypi").iter().for_each(|name| expect(format!("uvx {name}")));
        for name in product.list("ambiguous") {
            let hit = told(&format!("/opt/x/{name}"));
            assert!(hit.is_none_or(|hit| hit.weight < 50), "{}: {name} alone", product.id);
        }
    }
}

#[test]
fn files_replace_extend_and_remove() {
    let text = "schema = 1\nversion = \"1\"\n\
        [[product]]\nid = \"our-bot\"\nname = \"Our Bot\"\nkind = \"cli_agent\"\nprograms = [\"ourbot\"]\n\
        examples = [\"/x/ourbot run\"]\ncounterexamples = [\"cat ourbot\"]\n\
        [[product]]\nid = \"aider\"\nextend = true\nprograms = [\"our-aider\"]\n\
        [[product]]\nid = \"goose\"\ndisabled = true\n\
        [[mcp_server]]\nname = \"our-mcp\"\nreach = \"tickets\"\nwrites = true\n";
    let (over, problems) = file(text);
    assert!(problems.is_empty(), "{problems:?}");
    let pack = Pack::build(&[over]);
    assert!(pack.version.ends_with("+1"));
    let id =
        |name: &str| pack.named(name).first().and_then(|n| pack.product(n.product)).map(|p| p.id.as_str());
    assert_eq!((id("ourbot"), id("our-aider"), id("aider")), (Some("our-bot"), Some("aider"), Some("aider")));
    assert!(pack.find("goose").is_none() && pack.server("our-mcp").is_some_and(|s| s.writes));
    assert!(pack.find("clawdbot").is_some(), "a former name");
}

#[test]
fn mistakes_have_a_line() {
    let head = "schema = 1\n[[product]]\nid = \"x\"\nname = \"X\"\nkind = \"cli_agent\"\n";
    for (text, line, part) in [
        ("schema = 2\n".to_owned(), 1, "schema 2"),
        (format!("{head}programs = [\"a/b\"]\n"), 6, "programs"),
        (format!("{head}program = [\"a\"]\n"), 6, "unknown key `program`"),
        (format!("{head}ports = [0]\n"), 6, "port"),
        (format!("{head}ports = [\"x\"]\n"), 6, "port"),
        (format!("{head}networks = [\"x\"]\n"), 6, "network"),
        (format!("{head}state = [\"x\"]\n"), 6, "state"),
        (format!("{head}examples = [\"nothing\"]\n"), 6, "not told"),
        (format!("{head}programs = [\"a\"]\ncounterexamples = [\"a\"]\n"), 7, "is told"),
        (format!("{head}programs = [\"a\"]\nambiguous = [\"a\"]\n"), 2, "both"),
        (format!("{head}[[product]]\nid = \"x\"\nname = \"X\"\nkind = \"ide\"\n"), 6, "twice"),
        ("schema = 1\n[[product]]\nid = \"x\"\nname = \"X\"\nkind = \"robot\"\n".to_owned(), 5, "robot"),
        ("schema = 1\n[[product]]\nname = \"X\"\nkind = \"ide\"\n".to_owned(), 2, "id"),
        ("schema = 1\nx =\n".to_owned(), 2, ""),
    ] {
        let (_, problems) = file(&text);
        let found = problems.iter().find(|p| p.is_error());
        assert!(
            found.is_some_and(|p| p.at.line == line && p.message.contains(part)),
            "{text}\n{problems:#?}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read(text in "(schema = 1\n)?(\\[\\[product\\]\\]\n(id|name|kind|ports|programs) = [\\[\\]\"a-z0-9]{0,8}\n){0,3}.{0,20}") {
        let _answer = file(&text);
    }
}
