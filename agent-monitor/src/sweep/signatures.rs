//! Loads the signature pack: the embedded one, and files of a directory over it.

use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::pack::{self, Pack, PackFile};
use crate::registry::diagnostic::{Code, Diagnostic};
use crate::registry::load::check_trust;
use crate::registry::source::Position;

/// The pack, and what was wrong with files over it; such a file is left out.
#[must_use]
pub fn load(directory: &Path) -> (Pack, Vec<Diagnostic>) {
    let mut problems = Vec::new();
    let mut files = Vec::new();
    for path in listed(directory) {
        match read(&path) {
            Ok(text) => {
                let (file, found) = checked(&text, &path);
                if found.iter().any(Diagnostic::is_error) {
                    problems.extend(found);
                } else {
                    files.push(file);
                }
            }
            Err(problem) => problems.push(*problem),
        }
    }
    (Pack::build(&files), problems)
}

/// Checks one file as `sweep --pack check` does. Anybody may own it.
#[must_use]
pub fn check(path: &Path) -> (Option<PackFile>, Vec<Diagnostic>) {
    match read_any(path) {
        Ok((text, _)) => {
            let (file, problems) = checked(&text, path);
            (Some(file), problems)
        }
        Err(problem) => (None, vec![*problem]),
    }
}

/// A file of signatures, TOML or, by its ending, JSON with the same keys.
fn checked(text: &str, path: &Path) -> (PackFile, Vec<Diagnostic>) {
    if path.extension().is_none_or(|end| end != "json") {
        return pack::check(text, path);
    }
    let refused = |line: usize, column: usize, why: String| {
        let mut problem = Diagnostic::of_file(path.to_owned(), Code::Syntax, why);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        problem.at = Position { line: number(line), column: number(column), width: 1 };
        (PackFile::default(), vec![problem])
    };
    let value: serde_json::Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return refused(error.line(), error.column(), format!("it is no JSON: {error}")),
    };
    let toml = match toml::to_string(&value) {
        Ok(toml) => toml,
        Err(error) => return refused(0, 0, format!("it cannot be signatures: {error}")),
    };
    let (file, mut problems) = pack::check(&toml, path);
    // The places are those of the TOML that nobody has seen; keys and ids in the messages say where.
    for problem in &mut problems {
        (problem.at, problem.text) = (Position::FILE, None);
    }
    (file, problems)
}

fn listed(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let named = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "toml" || end == "json")
            && path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."))
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(named).collect();
    paths.sort();
    paths
}

/// Who can write a signature can hide an agent: only files of root or our own.
fn read(path: &Path) -> Result<String, Box<Diagnostic>> {
    let (text, (mode, uid)) = read_any(path)?;
    check_trust(mode, uid, rustix::process::geteuid().as_raw()).map_err(|problem| {
        let hint = format!("chown root and chmod go-w {}", path.display());
        Box::new(Diagnostic::of_file(path.to_owned(), Code::FilePermissions, problem).hint(hint))
    })?;
    Ok(text)
}

fn read_any(path: &Path) -> Result<(String, (u32, u32)), Box<Diagnostic>> {
    let unreadable = |why: String| Box::new(Diagnostic::of_file(path.to_owned(), Code::Unreadable, why));
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| unreadable(error.to_string()))?;
    let meta = file.metadata().map_err(|error| unreadable(error.to_string()))?;
    if !meta.is_file() {
        return Err(Box::new(Diagnostic::of_file(path.to_owned(), Code::NotAFile, "it is no regular file")));
    }
    let mut text = String::new();
    file.take(8 << 20).read_to_string(&mut text).map_err(|error| unreadable(error.to_string()))?;
    Ok((text, (meta.mode(), meta.uid())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_the_same_as_toml() {
        let toml = "schema = 1\nversion = \"1\"\n[[product]]\nid = \"ours\"\nname = \"Ours\"\nkind = \"cli_agent\"\n\
                    programs = [\"ours\"]\nexamples = [\"ours go\"]\n";
        let json = r#"{"schema":1,"version":"1","product":[{"id":"ours","name":"Ours","kind":"cli_agent","programs":["ours"],"examples":["ours go"]}]}"#;
        let (of_toml, of_json) = (checked(toml, Path::new("a.toml")), checked(json, Path::new("a.json")));
        assert_eq!(of_toml, of_json);
        assert!(of_json.1.is_empty() && of_json.0.products.len() == 1, "{:?}", of_json.1);
    }

    #[test]
    fn mistakes_in_json_are_told() {
        let problems = |text: &str| checked(text, Path::new("a.json")).1;
        let syntax = problems("{\"schema\":1,\n nonsense}");
        assert_eq!((syntax.len(), syntax[0].at.line), (1, 2));
        for text in [
            "[1]",
            "null",
            "{\"schema\":1,\"product\":[{\"id\":\"x\",\"name\":null}]}",
            "{\"schema\":1,\"products\":[]}",
        ] {
            assert!(problems(text).iter().any(Diagnostic::is_error), "{text}");
        }
    }
}
