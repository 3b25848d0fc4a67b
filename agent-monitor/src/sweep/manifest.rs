//! What package managers and projects write down: parsers. Pure, total on any bytes.

use serde_json::Value;

/// A `package.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NpmManifest {
    /// Name, where there is one.
    pub name: Option<String>,
    /// Version.
    pub version: Option<String>,
    /// Direct dependencies of every kind.
    pub dependencies: Vec<String>,
}

/// Reads a `package.json`; `None` when it is no JSON object.
#[must_use]
pub fn package_json(bytes: &[u8]) -> Option<NpmManifest> {
    let value: Value = serde_json::from_slice(strip_bom(bytes)).ok()?;
    let object = value.as_object()?;
    let text = |key: &str| object.get(key).and_then(Value::as_str).map(|text| clip(text).to_owned());
    let mut dependencies = Vec::new();
    for key in ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"] {
        if let Some(Value::Object(found)) = object.get(key) {
            dependencies.extend(found.keys().take(2000).map(|name| clip(name).to_owned()));
        }
    }
    Some(NpmManifest { name: text("name"), version: text("version"), dependencies })
}

/// Name and version of `aider_chat-0.86.1.dist-info` or `x-1.0-py3.12.egg-info`.
#[must_use]
pub fn dist_info(directory: &str) -> Option<(String, Option<String>)> {
    let (stem, egg) = match directory.strip_suffix(".dist-info") {
        Some(stem) => (stem, false),
        None => (directory.strip_suffix(".egg-info")?, true),
    };
    let mut parts = stem.split('-');
    let name = parts.next().filter(|name| !name.is_empty())?;
    let version = parts.next().filter(|v| v.starts_with(|c: char| c.is_ascii_digit()));
    if version.is_none() && !egg {
        return None;
    }
    Some((name.to_owned(), version.map(str::to_owned)))
}

/// Names and versions in cargo's `.crates.toml`: `"goose-cli 1.0.0 (registry+…)" = ["goose"]`.
#[must_use]
pub fn crates_toml(text: &str) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    for line in text.lines().take(10_000) {
        let Some(key) = line.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()) else {
            continue;
        };
        let mut words = key.split(' ');
        if let Some(name) = words.next().filter(|name| !name.is_empty()) {
            found.push((name.to_owned(), words.next().map(str::to_owned)));
        }
    }
    found
}

/// Installed packages in dpkg's status file: name and version.
#[must_use]
pub fn dpkg_status(text: &str) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    for paragraph in text.split("\n\n") {
        let field = |name: &str| {
            paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        if let Some(name) = field("Package").filter(|name| !name.is_empty())
            && field("Status").is_some_and(|status| status.ends_with(" installed"))
        {
            found.push((name.to_owned(), field("Version").map(str::to_owned)));
        }
    }
    found
}

/// `publisher.name` and version of an extension's directory `publisher.name-1.2.3[-platform]`.
#[must_use]
pub fn extension_dir(name: &str) -> Option<(String, String)> {
    let at = name
        .char_indices()
        .filter(|(_, c)| *c == '-')
        .map(|(at, _)| at)
        .find(|at| name.as_bytes().get(at + 1).is_some_and(u8::is_ascii_digit))?;
    let (id, version) = (name.get(..at)?, name.get(at + 1..)?);
    let number = version.split(['-', '+']).next().unwrap_or(version);
    (id.contains('.') && number.contains('.')).then(|| (id.to_ascii_lowercase(), number.to_owned()))
}

/// Distributions that a `requirements.txt` asks for.
#[must_use]
pub fn requirements(text: &str) -> Vec<String> {
    let named = |line: &str| {
        let line = line.split('#').next().unwrap_or(line).trim();
        (!line.is_empty() && !line.starts_with('-') && !line.contains("://"))
            .then(|| super::identify::unversioned(line.split_whitespace().next().unwrap_or(line)))
    };
    text.lines().take(5000).filter_map(named).filter(|name| !name.is_empty()).collect()
}

/// Distributions that a `pyproject.toml` depends on.
#[must_use]
pub fn pyproject(text: &str) -> Vec<String> {
    let Ok(table) = text.parse::<toml::Table>() else { return Vec::new() };
    let mut found = Vec::new();
    let list = |value: Option<&toml::Value>, found: &mut Vec<String>| {
        for item in value.and_then(toml::Value::as_array).into_iter().flatten().take(2000) {
            found.extend(item.as_str().map(super::identify::unversioned));
        }
    };
    let project = table.get("project");
    list(project.and_then(|project| project.get("dependencies")), &mut found);
    for group in [project.and_then(|p| p.get("optional-dependencies")), table.get("dependency-groups")] {
        for value in group.and_then(toml::Value::as_table).into_iter().flat_map(|t| t.values()).take(200) {
            list(Some(value), &mut found);
        }
    }
    let poetry =
        table.get("tool").and_then(|tool| tool.get("poetry")).and_then(|poetry| poetry.get("dependencies"));
    found.extend(
        poetry.and_then(toml::Value::as_table).into_iter().flat_map(|t| t.keys().cloned()).take(2000),
    );
    found
}

/// Modules that a Python or JavaScript text imports at the beginning of a line.
#[must_use]
pub fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines().take(20_000) {
        if line.len() > 2000 {
            continue;
        }
        let line = line.trim_start();
        if let Some(rest) = line.strip_prefix("import ") {
            match quoted(rest) {
                // import x from 'y'; import 'y'
                Some(name) => found.push(name),
                None => {
                    let modules = rest.split(',').filter_map(|part| part.split_whitespace().next());
                    found.extend(modules.map(|name| name.trim_end_matches(';').to_owned()));
                }
            }
        } else if let Some(rest) = line.strip_prefix("from ") {
            found.extend(rest.split_whitespace().next().map(str::to_owned));
        } else if let Some((_, rest)) = line.split_once("require(").or_else(|| line.split_once("import(")) {
            found.extend(quoted(rest));
        } else if line.starts_with('}')
            && let Some((_, rest)) = line.split_once(" from ")
        {
            found.extend(quoted(rest));
        }
        if found.len() > 1000 {
            break;
        }
    }
    found.retain(|name| !name.is_empty() && !name.starts_with('.'));
    found
}

/// The first text in quotes.
fn quoted(text: &str) -> Option<String> {
    let start = text.find(['\'', '"'])?;
    let mark = text.as_bytes().get(start).copied()?;
    let rest = text.get(start + 1..)?;
    Some(rest.get(..rest.find(char::from(mark))?)?.to_owned())
}

fn strip_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

fn clip(text: &str) -> &str {
    text.char_indices().nth(200).and_then(|(at, _)| text.get(..at)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn manifests_are_read() {
        let text = br#"{"name":"@openai/codex","version":"0.1.0","dependencies":{"openai":"1"},"devDependencies":{"x":"2"},"peerDependencies":7}"#;
        let found = package_json(text).unwrap();
        assert_eq!(found.name.as_deref(), Some("@openai/codex"));
        assert_eq!((found.version.as_deref(), found.dependencies.len()), (Some("0.1.0"), 2));
        assert_eq!(package_json(b"[1]"), None);
        let some = |name: &str, version: &str| Some((name.to_owned(), Some(version.to_owned())));
        assert_eq!(dist_info("aider_chat-0.86.1.dist-info"), some("aider_chat", "0.86.1"));
        assert_eq!(dist_info("x-1.0-py3.12.egg-info"), some("x", "1.0"));
        assert_eq!(dist_info("x.dist-info"), None);
        assert_eq!(
            crates_toml("[v1]\n\"goose-cli 1.0.0 (registry+x)\" = [\"goose\"]\n"),
            [("goose-cli".to_owned(), Some("1.0.0".to_owned()))]
        );
        let status = "Package: a\nStatus: install ok installed\nVersion: 1-2\n\nPackage: b\nStatus: deinstall ok config-files\n";
        assert_eq!(dpkg_status(status), [("a".to_owned(), Some("1-2".to_owned()))]);
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(extension_dir("saoudrizwan.claude-dev-3.2.1"), pair("saoudrizwan.claude-dev", "3.2.1"));
        assert_eq!(extension_dir("GitHub.copilot-1.2.3-linux-x64"), pair("github.copilot", "1.2.3"));
        assert_eq!(extension_dir("claude-dev"), None);
        assert_eq!(
            requirements("langchain==1 # x\n-r a\n\ncrewai[tools]>=2\nhttps://x/y\n"),
            ["langchain", "crewai"]
        );
        let project = "[project]\ndependencies = [\"crewai>=1\"]\n[dependency-groups]\ndev = [\"x\"]\n[tool.poetry.dependencies]\nagno = \"*\"\n";
        assert_eq!(pyproject(project), ["crewai", "x", "agno"]);
    }

    #[test]
    fn imports_are_read_and_prose_is_not() {
        let python = "import os, langchain_core.x as y\nfrom crewai import Agent\n    from openai import OpenAI\n# import agno\nprint('from smolagents import')\n";
        assert_eq!(imports(python), ["os", "langchain_core.x", "crewai", "openai"]);
        let script = "import { a } from '@openai/agents';\nconst x = require(\"openai\");\nimport './own.js';\n} from 'ai'\n";
        assert_eq!(imports(script), ["@openai/agents", "openai", "ai"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400), text in "(?s).{0,300}") {
            let _manifest = package_json(&bytes);
            let _dist = dist_info(&text);
            let _crates = crates_toml(&text);
            let _status = dpkg_status(&text);
            let _extension = extension_dir(&text);
            let _requirements = requirements(&text);
            let _project = pyproject(&text);
            let _imports = imports(&text);
        }
    }
}
