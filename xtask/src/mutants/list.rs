//! The checked-in list of parts: `xtask/mutants.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::Deserialize;

/// Where the list is, from the root of the work tree.
const PATH: &str = "xtask/mutants.toml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    /// Files that are never looked at: tests and test doubles
    exclude: Vec<String>,
    part: BTreeMap<String, RawPart>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPart {
    required: f64,
    #[serde(default)]
    measured: String,
    files: Vec<String>,
    #[serde(default)]
    plain: Vec<String>,
    #[serde(default)]
    accepted: Vec<Accepted>,
}

/// A survivor that no test could notice.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Accepted {
    pub(crate) file: String,
    /// The key, or the beginning of it that ends with `*`
    pub(crate) mutant: String,
    pub(crate) reason: String,
}

impl Accepted {
    pub(crate) fn is(&self, file: &str, key: &str) -> bool {
        self.file == file
            && self.mutant.strip_suffix('*').map_or(self.mutant == key, |start| key.starts_with(start))
    }
}

/// One part of the source with the score that it must reach.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    /// Percent
    pub(crate) required: f64,
    /// Last score, as `--record` wrote it
    pub(crate) measured: String,
    /// `const fn`s that nothing constant calls
    pub(crate) plain: Vec<String>,
    pub(crate) accepted: Vec<Accepted>,
    files: GlobSet,
    exclude: GlobSet,
}

impl Part {
    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.is_match(path) && !self.exclude.is_match(path)
    }
}

/// Reads the list.
pub(crate) fn read(root: &Path) -> Result<Vec<Part>> {
    let path = root.join(PATH);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("in {PATH}"))
}

fn parse(text: &str) -> Result<Vec<Part>> {
    let raw: Raw = toml::from_str(text)?;
    let mut parts = Vec::new();
    for (name, part) in raw.part {
        if let Some(bare) = part.accepted.iter().find(|accepted| accepted.reason.trim().is_empty()) {
            bail!("part {name}: `{}` is accepted without a reason", bare.mutant);
        }
        parts.push(Part {
            name,
            required: part.required,
            measured: part.measured,
            plain: part.plain,
            accepted: part.accepted,
            files: globs(&part.files)?,
            exclude: globs(&raw.exclude)?,
        });
    }
    Ok(parts)
}

fn globs(patterns: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern).literal_separator(true).build()?);
    }
    Ok(set.build()?)
}

/// Writes measured scores into the list, line by line, so that everything else stays as it is.
pub(crate) fn record(root: &Path, scores: &BTreeMap<String, String>) -> Result<()> {
    let path = root.join(PATH);
    let text = fs::read_to_string(&path)?;
    fs::write(&path, recorded(&text, scores)).with_context(|| format!("cannot write {}", path.display()))
}

fn recorded(text: &str, scores: &BTreeMap<String, String>) -> String {
    let mut part = None;
    let lines = text.lines().map(|line| {
        if let Some(name) = line.strip_prefix("[part.").and_then(|rest| rest.strip_suffix(']')) {
            part = Some(name.to_string());
        }
        let score = part.as_ref().and_then(|name| scores.get(name));
        match score {
            Some(score) if line.starts_with("measured = ") => format!("measured = \"{score}\"\n"),
            _ => format!("{line}\n"),
        }
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "exclude = [\"**/tests.rs\"]\n[part.a]\nrequired = 97\nmeasured = \"old\"\n\
                        files = [\"a/src/x/**\", \"a/src/x.rs\"]\n[part.b]\nrequired = 92\nmeasured = \"old\"\n\
                        files = [\"b/*.rs\"]\n";

    #[test]
    fn files_belong_to_the_part_that_lists_them() {
        let parts = parse(LIST).unwrap();
        let of = |path: &str| -> Vec<&str> {
            parts.iter().filter(|part| part.has(path)).map(|part| part.name.as_str()).collect()
        };
        assert_eq!(of("a/src/x/y/z.rs"), ["a"]);
        assert_eq!(of("a/src/x.rs"), ["a"]);
        assert_eq!(of("b/c.rs"), ["b"]);
        assert!(of("b/c/d.rs").is_empty());
        assert!(of("a/src/x/tests.rs").is_empty());
    }

    #[test]
    fn a_survivor_is_accepted_by_its_key_and_with_a_reason() {
        let text = format!(
            "{LIST}[[part.b.accepted]]\nfile = \"b/c.rs\"\nmutant = \"f: `a` *\"\nreason = \"the same\"\n"
        );
        let accepted = parse(&text).unwrap().remove(1).accepted.remove(0);
        assert!(accepted.is("b/c.rs", "f: `a` deleted"));
        assert!(!accepted.is("b/c.rs", "f: `b` deleted"));
        assert!(!accepted.is("b/d.rs", "f: `a` deleted"));
        assert!(parse(&text.replace("the same", " ")).is_err());
    }

    #[test]
    fn a_score_goes_to_its_own_part() {
        let new = recorded(LIST, &BTreeMap::from([("b".to_string(), "99".to_string())]));
        assert_eq!(new.matches("old").count(), 1);
        assert!(new.find("old").unwrap() < new.find("measured = \"99\"").unwrap());
    }
}
