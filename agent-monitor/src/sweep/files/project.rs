//! Projects: a bounded walk that looks for what agents leave in them, for virtual environments and `node_modules`.

use std::collections::BTreeSet;

use super::{FILE_MAX, Job, NAMES_MAX, containers, packages, state};
use crate::sweep::manifest;
use crate::sweep::observe::{About, Harvest, Observation, Place, Source};
use crate::sweep::pack::Ecosystem;
use crate::sweep::report::ProductKind;
use crate::sweep::root::Entry;

/// Deepest directory, counted from where the walk begins.
const DEPTH: usize = 7;
/// Most names that one walk looks at.
const ENTRIES_MAX: u64 = 400_000;
/// Directories that hold no projects.
const PRUNED: &[&str] = &[
    "node_modules",
    "__pycache__",
    "site-packages",
    "dist-packages",
    "vendor",
    "snap",
    "Cellar",
    "lost+found",
    "pkg",
    "proc",
    "sys",
    "dev",
    "target",
    "build",
    "dist",
    "miniconda3",
    "anaconda3",
    "miniforge3",
    "linuxbrew",
];
/// Project files with MCP servers that belong to no single client.
const SHARED_MCP: &[&str] = &[".mcp.json", "mcp.json", ".vscode/mcp.json", ".mcp/config.json"];

/// Walks below `top`.
pub(super) fn walk(job: Job<'_>, top: &str, place: &Place, out: &mut Harvest) {
    let mut left = ENTRIES_MAX;
    let mut waiting = vec![(top.to_owned(), 0)];
    while let Some((dir, depth)) = waiting.pop() {
        if job.late(out, &dir) {
            return;
        }
        let (entries, more) = match job.root.list(&dir, NAMES_MAX) {
            Ok(listed) => listed,
            Err(trouble) => {
                out.trouble(trouble, job.root.shown(&dir));
                continue;
            }
        };
        if more {
            out.reason("more names than are read", job.root.shown(&dir));
        }
        let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        out.count += count;
        left = left.saturating_sub(count);
        if left == 0 {
            return out.reason("more files than are looked at", job.root.shown(&dir));
        }
        // In a home itself these are state, not a project's.
        if depth > 0 || !top.starts_with("/home/") && top != "/root" {
            look(job, &dir, &entries, place, out);
        }
        if entries.iter().any(|entry| entry.name == "pyvenv.cfg") {
            let found = job.expand(&format!("{dir}/lib/python3*/site-packages"), out);
            found.iter().for_each(|site| packages::pypi(job, place, site, out));
            continue;
        }
        if depth >= DEPTH {
            continue;
        }
        let inner = entries.iter().filter(|entry| entry.is_dir && worth_entering(&entry.name));
        waiting.extend(inner.map(|entry| (format!("{dir}/{}", entry.name), depth + 1)));
    }
}

fn worth_entering(name: &str) -> bool {
    !PRUNED.contains(&name) && (!name.starts_with('.') || matches!(name, ".venv" | ".virtualenv"))
}

/// One directory.
fn look(job: Job<'_>, dir: &str, entries: &[Entry], place: &Place, out: &mut Harvest) {
    let has = |name: &str| entries.binary_search_by(|entry| entry.name.as_str().cmp(name)).is_ok();
    for (index, product) in job.pack.products().iter().enumerate() {
        for path in product.list("project") {
            let first = path.split('/').next().unwrap_or(path);
            if !has(first) {
                continue;
            }
            let full = format!("{dir}/{path}");
            let Ok(meta) = job.root.meta(&full) else { continue };
            let at = job.root.shown(&full);
            let what = format!("a project is set up for {}", product.name);
            let seen =
                Observation::new(About::Product(index), place.clone(), Source::Project, 55, what, at.clone());
            out.seen.push(Observation { when: Some(meta.modified), path: Some(at), ..seen });
        }
        for path in product.list("mcp_configs").iter().filter(|path| !path.starts_with(['~', '/'])) {
            if has(path.split('/').next().unwrap_or(path)) && !SHARED_MCP.contains(&path.as_str()) {
                state::configuration(job, About::Product(index), place, &format!("{dir}/{path}"), out);
            }
        }
    }
    for path in SHARED_MCP.iter().filter(|path| has(path.split('/').next().unwrap_or(path))) {
        let client = job.pack.find("mcp-sdk").map_or(About::McpServer("project".to_owned()), About::Product);
        state::configuration(job, client, place, &format!("{dir}/{path}"), out);
    }
    let declared = declared(job, dir, &has, out);
    if has("node_modules") {
        packages::npm(job, place, &format!("{dir}/node_modules"), Some(&declared.npm), out);
    }
    frameworks(job, dir, place, &declared, out);
    for name in ["docker-compose.yml", "docker-compose.yaml", "compose.yml", "compose.yaml"] {
        if has(name) {
            containers::compose(job, place, &format!("{dir}/{name}"), out);
        }
    }
}

/// What the manifests of a project ask for.
#[derive(Default)]
struct Declared {
    npm: BTreeSet<String>,
    pypi: BTreeSet<String>,
}

fn declared(job: Job<'_>, dir: &str, has: &dyn Fn(&str) -> bool, out: &mut Harvest) -> Declared {
    let mut found = Declared::default();
    let mut text = |name: &str| {
        let path = format!("{dir}/{name}");
        let read = has(name).then(|| job.root.text(&path, FILE_MAX))?;
        read.map_err(|trouble| out.trouble(trouble, job.root.shown(&path))).ok()
    };
    if let Some(manifest) = text("package.json").and_then(|text| manifest::package_json(text.as_bytes())) {
        found.npm.extend(manifest.dependencies);
    }
    for name in ["requirements.txt", "requirements.in"] {
        found.pypi.extend(text(name).iter().flat_map(|text| manifest::requirements(text)));
    }
    found.pypi.extend(text("pyproject.toml").iter().flat_map(|text| manifest::pyproject(text)));
    found
}

/// A project that asks for a framework is where somebody writes an agent.
fn frameworks(job: Job<'_>, dir: &str, place: &Place, declared: &Declared, out: &mut Harvest) {
    let npm = declared.npm.iter().map(|name| (Ecosystem::Npm, name));
    for (ecosystem, name) in npm.chain(declared.pypi.iter().map(|name| (Ecosystem::Pypi, name))) {
        let Some(index) = job.pack.package(ecosystem, name) else { continue };
        let Some(product) = job.pack.product(index).filter(|p| p.kind() == ProductKind::Framework) else {
            continue;
        };
        let at = job.root.shown(dir);
        let what = format!("a project asks for {} ({} {name})", product.name, ecosystem.as_str());
        let seen =
            Observation::new(About::Product(index), place.clone(), Source::Project, 60, what, at.clone());
        out.seen.push(Observation { path: Some(at), variant: Some(name.clone()), ..seen });
    }
}
