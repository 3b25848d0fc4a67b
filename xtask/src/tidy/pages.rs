//! Pages name files and tests of this repository, and link to each other: all of it must be there.

use std::path::{Component, Path, PathBuf};

/// What a page names that is not in the repository. `paths` are the tracked files, `read` gives the text of one.
pub(super) fn dangling(
    page: &str,
    text: &str,
    paths: &[&str],
    read: &dyn Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut found = Vec::new();
    let quoted: Vec<&str> = text.split('`').collect();
    // Between two backticks at odd places; what follows a file after one space is a test in it.
    for at in (1..quoted.len()).step_by(2) {
        let name = quoted[at];
        if !name.ends_with(".rs") || name.contains(['*', ' ', '<', '{']) {
            continue;
        }
        let files: Vec<&&str> =
            paths.iter().filter(|path| **path == name || path.ends_with(&format!("/{name}"))).collect();
        if files.is_empty() && name.contains('/') {
            found.push(format!("names `{name}`, which is no file"));
        }
        let test = quoted.get(at + 2).filter(|_| quoted.get(at + 1) == Some(&" "));
        let Some(test) = test.filter(|test| test.chars().all(|c| c.is_alphanumeric() || c == '_')) else {
            continue;
        };
        if !files.is_empty() && !files.iter().any(|file| read(file).is_some_and(|text| text.contains(*test)))
        {
            found.push(format!("names `{test}`, which is not in `{name}`"));
        }
    }
    for part in text.split("](").skip(1) {
        let link = part.split([')', '#', ' ']).next().unwrap_or_default();
        if link.is_empty() || link.contains("://") {
            continue;
        }
        let target = joined(Path::new(page).parent().unwrap_or(Path::new("")), Path::new(link));
        if !paths.iter().any(|path| Path::new(path) == target) {
            found.push(format!("links to {link}, which is no file"));
        }
    }
    found
}

/// A relative path from a folder, without `..`.
fn joined(folder: &Path, link: &Path) -> PathBuf {
    let mut out = folder.to_path_buf();
    for part in link.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::Normal(part) => out.push(part),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        let paths = ["docs/limits.md", "README.md", "tests/kernel/escape.rs"];
        let read = |path: &str| path.ends_with("escape.rs").then(|| "fn default_deny() {}".to_owned());
        let check = |page: &str, text: &str| dangling(page, text, &paths, &read);
        let fine =
            "`kernel/escape.rs` `default_deny`, [limits](docs/limits.md#a), `cargo x`, [x](https://a.b)";
        assert_eq!(check("README.md", fine), Vec::<String>::new());
        assert_eq!(check("docs/a.md", "[r](../README.md) [l](limits.md)"), Vec::<String>::new());
        for (text, part) in [
            ("`tests/kernel/gone.rs`", "gone.rs"),
            ("| `tests/kernel/escape.rs` `no_such_case` |", "no_such_case"),
            ("[limits](limits.md)", "links to limits.md"),
        ] {
            let found = check("README.md", text);
            assert!(found.len() == 1 && found[0].contains(part), "{text}: {found:?}");
        }
    }
}
