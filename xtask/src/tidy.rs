//! `tidy`: rules of the house that no compiler or linter checks.

mod pages;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{shell, workspace};

/// Longest Rust file.
const MAX_LINES: usize = 600;

/// Largest tracked file, in bytes.
const MAX_BYTES: u64 = 200 * 1000;

/// What names a package mirror or registry. Written in two halves, so that this file passes.
const MIRRORS: &[(&str, &str)] = &[
    ("deb.", "debian.org"),
    ("security.", "debian.org"),
    ("snapshot.", "debian.org"),
    ("archive.", "ubuntu.com"),
    ("index.", "crates.io"),
    ("static.", "crates.io"),
    ("registry.", "npmjs.org"),
    ("files.", "pythonhosted.org"),
    ("https://pypi", ".org/simple"),
    ("static.rust", "-lang.org"),
];

/// Options of `tidy`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// The command.
pub(crate) fn command(_: &Args) -> Result<ExitCode> {
    let problems = problems()?;
    problems.iter().for_each(|problem| println!("{problem}"));
    println!("tidy: {} problems", problems.len());
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything that breaks a rule, as `path: what`.
pub(crate) fn problems() -> Result<Vec<String>> {
    let root = workspace::root()?;
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(&root);
    let mut found = Vec::new();
    let listed = shell::output(&mut git)?;
    let paths: Vec<&str> = listed.lines().collect();
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    for path in &paths {
        let path = *path;
        // Deleted, but not yet from the index.
        let Ok(metadata) = fs::symlink_metadata(root.join(path)) else { continue };
        if metadata.len() > MAX_BYTES && path != "Cargo.lock" {
            found.push(format!("{path}: {} bytes, at most {MAX_BYTES}", metadata.len()));
        }
        // What is not text holds no rule to break; symbolic links are checked where they lead.
        if metadata.is_file()
            && let Ok(text) = fs::read_to_string(root.join(path))
        {
            found.extend(file(path, &text).into_iter().map(|what| format!("{path}: {what}")));
            if path.ends_with(".md") {
                let missing = pages::dangling(path, &text, &paths, &read);
                found.extend(missing.into_iter().map(|what| format!("{path}: {what}")));
            }
        }
    }
    Ok(found)
}

/// Rules for one file.
fn file(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if path != "Cargo.lock" {
        let named =
            MIRRORS.iter().map(|(a, b)| format!("{a}{b}")).filter(|mirror| text.contains(mirror.as_str()));
        found.extend(named.map(|mirror| format!("names the mirror {mirror}")));
    }
    if Path::new(path).extension().is_some_and(|end| end == "md") && path != "CHANGELOG.md" {
        found.extend(counted(text).into_iter().map(|what| format!("counts by hand: \"{what}\"")));
    }
    if Path::new(path).extension().is_none_or(|end| end != "rs") {
        return found;
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        found.push(format!("{lines} lines, at most {MAX_LINES}"));
    }
    if path.ends_with("/mod.rs") {
        found.push("call it by its module's name, not mod.rs".to_string());
    }
    if !has_module_doc(text) {
        found.push("no `//!` that says what the file is for".to_string());
    }
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let uses = |word: &str| code.iter().any(|line| line.contains(word));
    if path.starts_with("agent-monitor/src/") {
        if !path.starts_with("agent-monitor/src/kernel") && (uses("aya::") || uses("use aya")) {
            found.push("only kernel/ speaks aya".to_string());
        }
        let front = path.starts_with("agent-monitor/src/cli") || path == "agent-monitor/src/main.rs";
        if !front && uses("anyhow") {
            found.push("only cli/ and main.rs use anyhow".to_string());
        }
        if !front && ["println!(", "print!(", "eprintln!(", "eprint!("].iter().any(|word| uses(word)) {
            found.push("only cli/ and main.rs print".to_string());
        }
    }
    if path.starts_with("tests/") && uses("thread::sleep") {
        found.push("tests wait for something, they do not sleep".to_string());
    }
    found
}

/// Counts of things that the repository itself holds: nobody updates them, so they are wrong after the next change.
fn counted(text: &str) -> Vec<String> {
    const THINGS: [&str; 8] =
        ["rows", "escapes", "products", "signatures", "kinds", "tests", "benchmarks", "invariants"];
    let words: Vec<&str> = text.split_whitespace().collect();
    let plain = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    let number = |word: &str| {
        let word = plain(word);
        !word.is_empty() && word.chars().all(|c| c.is_ascii_digit() || c == ',')
    };
    let pairs = words.windows(2).filter(|pair| number(pair[0]) && THINGS.contains(&plain(pair[1]).as_str()));
    pairs.map(|pair| pair.join(" ")).collect()
}

/// Among the first lines that are not blank, an attribute or a plain comment.
fn has_module_doc(text: &str) -> bool {
    let plain = |line: &str| line.starts_with("//") && !line.starts_with("//!");
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with("#![") && !plain(line));
    first.is_some_and(|line| line.starts_with("//!"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = "//! What it is for.\n";

    #[track_caller]
    fn check(path: &str, text: &str, expect: Option<&str>) {
        let found = file(path, text);
        match expect {
            None => assert!(found.is_empty(), "{found:?}"),
            Some(part) => assert!(found.len() == 1 && found[0].contains(part), "{found:?}"),
        }
    }

    #[test]
    fn a_good_file_passes() {
        check("agent-monitor/src/judge.rs", DOC, None);
        check("agent-monitor/src/kernel/load.rs", &format!("{DOC}use aya::Ebpf;\n"), None);
        check("agent-monitor/src/cli/out.rs", &format!("{DOC}println!(\"x\");\n"), None);
        check(
            "agent-monitor/src/judge.rs",
            &format!("{DOC}// aya::Ebpf and anyhow are not used here\n"),
            None,
        );
    }

    #[test]
    fn every_rule_bites() {
        check("agent-monitor/src/judge.rs", &format!("{DOC}use aya::Ebpf;\n"), Some("aya"));
        check("agent-monitor/src/judge.rs", &format!("{DOC}use anyhow::Result;\n"), Some("anyhow"));
        check("agent-monitor/src/judge.rs", &format!("{DOC}println!(\"x\");\n"), Some("print"));
        check("tests/src/lib.rs", &format!("{DOC}std::thread::sleep(second);\n"), Some("sleep"));
        check("xtask/src/a.rs", "fn main() {}\n", Some("//!"));
        check("xtask/src/a/mod.rs", DOC, Some("mod.rs"));
        check("xtask/src/a.rs", &DOC.repeat(601), Some("601 lines"));
        check("ARCHITECTURE.md", "| no way round | `escape.rs`, 113 rows; more |", Some("113 rows"));
        check("docs/sweep.md", "a pack (1,153 products), extended", Some("1,153 products"));
        check("docs/costs.md", "1,000 file rules, 200 times, a table of 65,536.", None);
        check("README.md", &["see deb.", "debian.org"].concat(), Some("mirror"));
    }
}
