//! The instrumented copy of the library below `target/mutants/src`, and its one build.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::edit::{Edited, apply};
use super::find::{Found, Mutant, find};
use crate::{build, shell, workspace};

/// Packages with product code, as folders.
const PACKAGES: [&str; 2] = ["agent-monitor", "agent-monitor-ebpf"];

/// The module of the switch; in the copy both packages reach it by the same path.
const SWITCH: &str = include_str!("switch.rs");

/// Attempts at a copy that compiles. Each takes out what the compiler refused in the one before.
const ATTEMPTS: usize = 8;

/// A file with its mutations.
struct Source {
    path: String,
    text: String,
    found: Found,
    edited: Option<Edited>,
}

/// The copy.
pub(crate) struct Copy {
    root: PathBuf,
    sources: Vec<Source>,
    /// Keys of groups that do not compile, by file and key of the first mutant
    rejected: BTreeSet<(String, String)>,
}

/// A test binary of the copy.
#[derive(Clone, Debug)]
pub(crate) struct Binary {
    pub(crate) path: PathBuf,
    /// The folder of its package
    pub(crate) dir: PathBuf,
}

impl Copy {
    /// Copies the work tree and finds the mutations of `files`, each with its `const fn`s that may lose the `const`.
    pub(crate) fn new(files: &[(String, Vec<String>)]) -> Result<Self> {
        let (from, root) = (workspace::root()?, workspace::target()?.join("mutants/src"));
        fs::create_dir_all(&root)?;
        links(&from, &root)?;
        let manifest = fs::read_to_string(from.join("Cargo.toml"))?;
        let manifest: String = manifest.lines().map(|line| format!("{}\n", manifest_line(line))).collect();
        write(&root.join("Cargo.toml"), &manifest)?;
        if !root.join("Cargo.lock").exists() {
            fs::copy(from.join("Cargo.lock"), root.join("Cargo.lock"))?;
        }
        let (mut sources, mut next) = (Vec::new(), 1);
        for (path, plain) in files {
            let text = fs::read_to_string(from.join(path)).with_context(|| format!("cannot read {path}"))?;
            let found = find(path, &text, next, plain)?;
            next += u32::try_from(found.mutants.len())?;
            sources.push(Source { path: path.clone(), text, found, edited: None });
        }
        let skip: BTreeSet<PathBuf> = sources.iter().map(|source| PathBuf::from(&source.path)).collect();
        for package in PACKAGES {
            tree(&from, &root, Path::new(package), &skip)?;
        }
        let lib = root.join("agent-monitor-ebpf/src/lib.rs");
        let text =
            fs::read_to_string(from.join("agent-monitor-ebpf/src/lib.rs"))?.replace("#![no_std]\n", "");
        write(
            &lib,
            &format!(
                "{text}\nextern crate self as agent_monitor_ebpf;\n#[allow(missing_docs, reason = \"of the copy\")]\npub mod mutant;\n"
            ),
        )?;
        write(&root.join("agent-monitor-ebpf/src/mutant.rs"), SWITCH)?;
        let rejected =
            fs::read_to_string(rejected_path()?).ok().and_then(|text| serde_json::from_str(&text).ok());
        Ok(Self { root, sources, rejected: rejected.unwrap_or_default() })
    }

    /// The mutants that are in the copy.
    pub(crate) fn mutants(&self) -> Vec<Mutant> {
        let of = |source: &Source| {
            let (groups, all) = (&source.found.groups, &source.found.mutants);
            let kept = groups.iter().enumerate().filter(|(number, _)| self.is_kept(source, *number));
            let ids: BTreeSet<u32> = kept.flat_map(|(_, group)| group.mutants.iter().copied()).collect();
            all.iter().filter(|mutant| ids.contains(&mutant.id)).cloned().collect::<Vec<_>>()
        };
        self.sources.iter().flat_map(of).collect()
    }

    /// How many were taken out because they do not compile.
    pub(crate) fn refused(&self) -> usize {
        self.sources.iter().map(|source| source.found.mutants.len()).sum::<usize>() - self.mutants().len()
    }

    fn key(source: &Source, group: usize) -> Option<(String, String)> {
        let first = source.found.groups[group].mutants.first()?;
        let mutant = source.found.mutants.iter().find(|mutant| mutant.id == *first)?;
        Some((source.path.clone(), mutant.key.clone()))
    }

    fn is_kept(&self, source: &Source, group: usize) -> bool {
        Self::key(source, group).is_none_or(|key| !self.rejected.contains(&key))
    }

    /// Builds until it compiles; returns the test binaries.
    pub(crate) fn build(&mut self) -> Result<Vec<Binary>> {
        for attempt in 1..=ATTEMPTS {
            self.instrument()?;
            println!("mutants: building, attempt {attempt}: {} mutants", self.mutants().len());
            let (binaries, errors) = compile(&self.root)?;
            if errors.is_empty() {
                return Ok(binaries);
            }
            let before = self.rejected.len();
            errors.iter().for_each(|error| self.reject(error, attempt));
            fs::write(rejected_path()?, serde_json::to_string(&self.rejected)?)?;
            println!("mutants: {} errors, {} places taken out", errors.len(), self.rejected.len() - before);
            if self.rejected.len() == before {
                let texts: Vec<&str> = errors.iter().map(|error| error.text.as_str()).collect();
                bail!("the copy does not compile, and not because of a mutant:\n{}", texts.join("\n"));
            }
        }
        bail!("after {ATTEMPTS} attempts the copy still does not compile")
    }

    fn instrument(&mut self) -> Result<()> {
        let mut made = Vec::new();
        for source in &self.sources {
            let edited = apply(&source.text, &source.found.groups, |group| self.is_kept(source, group));
            write(&self.root.join(&source.path), &edited.text)?;
            made.push(edited);
        }
        for (source, edited) in self.sources.iter_mut().zip(made) {
            source.edited = Some(edited);
        }
        Ok(())
    }

    /// Takes out the mutations around an error: first the innermost, later more of them.
    fn reject(&mut self, error: &CompileError, attempt: usize) {
        let before = self.rejected.len();
        self.reject_around(&error.spans, attempt);
        // A name without a value is an error where it is used; the cause is where it would get one.
        if self.rejected.len() == before {
            self.reject_around(&error.others, attempt);
        }
    }

    fn reject_around(&mut self, spans: &[(String, Range<usize>)], attempt: usize) {
        let mut keys = Vec::new();
        for (path, bytes) in spans {
            let named =
                |source: &&Source| Path::new(path).ends_with(&source.path) || source.path.ends_with(path);
            let Some(source) = self.sources.iter().find(named) else { continue };
            let Some(edited) = &source.edited else { continue };
            let around = edited.around(bytes).into_iter().filter_map(|group| Self::key(source, group));
            keys.extend(around.take(attempt));
        }
        self.rejected.extend(keys);
    }
}

/// A line of the workspace's manifest in the copy. Another version makes other packages of them: what is built of the
/// copy lies beside what is built of the work tree in the same target directory, where both share their dependencies.
fn manifest_line(line: &str) -> String {
    if line.starts_with("members = ") {
        format!("members = {PACKAGES:?}")
    } else if let Some(version) = line.strip_prefix("version = \"").and_then(|rest| rest.strip_suffix('"')) {
        format!("version = \"{version}+mutants\"")
    } else {
        line.to_string()
    }
}

fn rejected_path() -> Result<PathBuf> {
    Ok(workspace::target()?.join("mutants/rejected.json"))
}

/// Everything that the tests read beside the packages, as links.
fn links(from: &Path, root: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        let own =
            PACKAGES.contains(&&*text) || ["Cargo.toml", "Cargo.lock", "target", ".git"].contains(&&*text);
        let link = root.join(&name);
        if !own && fs::symlink_metadata(&link).is_err() {
            symlink(from.join(&name), &link)?;
        }
    }
    Ok(())
}

fn tree(from: &Path, to: &Path, path: &Path, skip: &BTreeSet<PathBuf>) -> Result<()> {
    fs::create_dir_all(to.join(path))?;
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(from.join(path))? {
        let entry = entry?;
        let path = path.join(entry.file_name());
        names.insert(entry.file_name());
        if entry.file_type()?.is_dir() {
            tree(from, to, &path, skip)?;
        } else if !skip.contains(&path) && !path.ends_with("agent-monitor-ebpf/src/lib.rs") {
            shell::copy_if_changed(&from.join(&path), &to.join(&path))?;
        }
    }
    for entry in fs::read_dir(to.join(path))? {
        let entry = entry?;
        let kept = names.contains(&entry.file_name()) || entry.file_name() == "mutant.rs";
        if !kept && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

struct CompileError {
    text: String,
    spans: Vec<(String, Range<usize>)>,
    /// What the message points at besides
    others: Vec<(String, Range<usize>)>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    message: Option<Message>,
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    manifest_path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Message {
    level: String,
    #[serde(default)]
    rendered: Option<String>,
    spans: Vec<Span>,
    #[serde(default)]
    children: Vec<Message>,
}

#[derive(Deserialize)]
struct Span {
    file_name: String,
    byte_start: usize,
    byte_end: usize,
    is_primary: bool,
}

fn compile(root: &Path) -> Result<(Vec<Binary>, Vec<CompileError>)> {
    let mut cargo = build::host_cargo()?;
    cargo.current_dir(root).env("CARGO_TARGET_DIR", workspace::target()?);
    cargo.args(["test", "--offline", "--lib", "--no-run", "--message-format=json"]);
    PACKAGES.iter().for_each(|package| _ = cargo.args(["-p", package]));
    let out = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    let (mut binaries, mut errors) = (BTreeMap::new(), Vec::new());
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        let Ok(line) = serde_json::from_str::<Line>(line) else { continue };
        if let (Some(path), Some(dir)) =
            (line.executable, line.manifest_path.as_deref().and_then(Path::parent))
        {
            binaries.insert(dir.to_path_buf(), Binary { path, dir: dir.to_path_buf() });
        }
        let Some(message) = line.message.filter(|message| message.level == "error") else { continue };
        // The closing "could not compile due to" has no place.
        if !message.spans.is_empty() {
            let place = |span: Span| (span.file_name, span.byte_start..span.byte_end);
            let (spans, others): (Vec<Span>, Vec<Span>) =
                message.spans.into_iter().partition(|span| span.is_primary);
            let spans = spans.into_iter().map(place).collect();
            let beside = message.children.into_iter().flat_map(|child| child.spans);
            let others = others.into_iter().chain(beside).map(place).collect();
            errors.push(CompileError { text: message.rendered.unwrap_or_default(), spans, others });
        }
    }
    if errors.is_empty() && !out.status.success() {
        bail!(
            "cargo failed on the copy in {}, without an error of the compiler ({})",
            root.display(),
            out.status
        );
    }
    Ok((binaries.into_values().collect(), errors))
}
