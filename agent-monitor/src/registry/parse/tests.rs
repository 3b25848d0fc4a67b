//! The parser on whole records.

use super::*;

#[test]
fn spans() {
    for text in [
        "[agent]\nid = \"a\"\n\n[[match]]\nuser='x'\n[[match]]\nuserx='y'\nexe = \"//x\"\n[scope.limits]\nfoo=1\n[[scope.file]]\npath='/x/../y'\n access=['red']\n",
        "owner = \nid = 3\nx",
        "[agent]\nid = \"x\"\nid = \"y\"\nowner = \"open\n",
        "a = { b = ",
    ] {
        let parsed = parse_record(text, Path::new("x.toml"));
        for d in &parsed.diagnostics {
            eprint!("{}", d.render());
        }
        eprintln!("=====");
    }
}

#[test]
fn deep() {
    let key = ["a"; 79].join(".");
    let mut text = String::new();
    for _ in 0..79 {
        text.push_str(&key);
        text.push_str(" = {");
    }
    text.push_str(&"}".repeat(79));
    parse_record(&text, Path::new("x.toml"));
    parse_record(&"[".repeat(500_000), Path::new("x.toml"));
    parse_record(&"a.".repeat(500_000), Path::new("x.toml"));
    parse_record(&"[a]\n".repeat(200_000), Path::new("x.toml"));
    parse_record(&"a=".repeat(500_000), Path::new("x.toml"));
    parse_record(&"[[a]]\n".repeat(150_000), Path::new("x.toml"));
    parse_record(&"{".repeat(500_000), Path::new("x.toml"));
}
