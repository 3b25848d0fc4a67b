//! Installed packages: npm, PyPI, cargo, Debian, Homebrew, editor extensions, and programs by name.

use std::collections::BTreeSet;

use super::{FILE_MAX, Job, NAMES_MAX};
use crate::sweep::homes::Home;
use crate::sweep::identify::{self, packages_in};
use crate::sweep::manifest;
use crate::sweep::observe::{About, Harvest, Observation, Place, Source};
use crate::sweep::pack::Ecosystem;

/// Where global npm packages are, below a home.
const HOME_NPM: &[&str] = &[
    ".npm-global/lib/node_modules",
    ".npm-packages/lib/node_modules",
    ".local/lib/node_modules",
    "node_modules",
    ".nvm/versions/node/*/lib/node_modules",
    ".fnm/node-versions/*/installation/lib/node_modules",
    ".local/share/fnm/node-versions/*/installation/lib/node_modules",
    ".volta/tools/image/packages/*/lib/node_modules",
    ".bun/install/global/node_modules",
    ".local/share/pnpm/global/*/node_modules",
    ".config/yarn/global/node_modules",
    ".local/share/mise/installs/node/*/lib/node_modules",
    ".asdf/installs/nodejs/*/lib/node_modules",
    ".npm/_npx/*/node_modules",
    "n/lib/node_modules",
];
/// Where distributions of Python are, below a home.
const HOME_PYPI: &[&str] = &[
    ".local/lib/python3*/site-packages",
    ".local/share/pipx/venvs/*/lib/python3*/site-packages",
    ".local/pipx/venvs/*/lib/python3*/site-packages",
    ".local/share/uv/tools/*/lib/python3*/site-packages",
    ".pyenv/versions/*/lib/python3*/site-packages",
    "miniconda3/lib/python3*/site-packages",
    "miniconda3/envs/*/lib/python3*/site-packages",
    "anaconda3/lib/python3*/site-packages",
    "anaconda3/envs/*/lib/python3*/site-packages",
    "miniforge3/lib/python3*/site-packages",
    "miniforge3/envs/*/lib/python3*/site-packages",
    ".virtualenvs/*/lib/python3*/site-packages",
    ".local/share/mise/installs/python/*/lib/python3*/site-packages",
    ".venv/lib/python3*/site-packages",
];
/// Where editors keep extensions, below a home.
const EXTENSIONS: &[&str] = &[
    ".vscode/extensions",
    ".vscode-server/extensions",
    ".vscode-insiders/extensions",
    ".vscode-oss/extensions",
    ".vscode-remote/extensions",
    ".cursor/extensions",
    ".cursor-server/extensions",
    ".windsurf/extensions",
    ".windsurf-server/extensions",
    ".trae/extensions",
    ".kiro/extensions",
    ".antigravity/extensions",
    ".local/share/code-server/extensions",
    ".positron/extensions",
];
const SYSTEM_NPM: &[&str] = &[
    "/usr/lib/node_modules",
    "/usr/local/lib/node_modules",
    "/opt/*/lib/node_modules",
    "/usr/local/n/versions/node/*/lib/node_modules",
];
const SYSTEM_PYPI: &[&str] = &[
    "/usr/lib/python3*/site-packages",
    "/usr/lib/python3/dist-packages",
    "/usr/local/lib/python3*/dist-packages",
    "/usr/local/lib/python3*/site-packages",
    "/opt/*/lib/python3*/site-packages",
    "/opt/pipx/venvs/*/lib/python3*/site-packages",
    "/opt/uv/tools/*/lib/python3*/site-packages",
];
const CELLARS: &[&str] = &["/home/linuxbrew/.linuxbrew/Cellar", "/opt/homebrew/Cellar"];
const SYSTEM_BINS: &[&str] = &["/usr/local/bin", "/usr/bin", "/opt/bin", "/opt/*/bin"];
const HOME_BINS: &[&str] = &[".local/bin", "bin", ".cargo/bin", "go/bin", ".bun/bin"];

/// All packages below a home.
pub(super) fn of_home(job: Job<'_>, home: &Home, place: &Place, names: &BTreeSet<String>, out: &mut Harvest) {
    let below = |rest: &str| {
        let first = rest.split('/').next().unwrap_or(rest);
        names.contains(first).then(|| format!("{}/{rest}", home.path))
    };
    for pattern in HOME_NPM.iter().filter_map(|rest| below(rest)) {
        job.expand(&pattern, out).iter().for_each(|dir| npm(job, place, dir, None, out));
    }
    for pattern in HOME_PYPI.iter().filter_map(|rest| below(rest)) {
        job.expand(&pattern, out).iter().for_each(|dir| pypi(job, place, dir, out));
    }
    EXTENSIONS.iter().filter_map(|rest| below(rest)).for_each(|dir| extensions(job, place, &dir, out));
    if let Some(pattern) = below(".local/share/JetBrains/*") {
        job.expand(&pattern, out).iter().for_each(|dir| jetbrains(job, place, dir, out));
    }
    if let Some(path) = below(".cargo/.crates.toml") {
        cargo(job, place, &path, out);
    }
    for dir in HOME_BINS.iter().filter_map(|rest| below(rest)) {
        binaries(job, place, &dir, out);
    }
}

/// All packages of the system.
pub(super) fn of_system(job: Job<'_>, place: &Place, out: &mut Harvest) {
    for pattern in SYSTEM_NPM {
        job.expand(pattern, out).iter().for_each(|dir| npm(job, place, dir, None, out));
    }
    for pattern in SYSTEM_PYPI {
        job.expand(pattern, out).iter().for_each(|dir| pypi(job, place, dir, out));
    }
    for cellar in CELLARS {
        brew(job, place, cellar, out);
    }
    for pattern in SYSTEM_BINS {
        job.expand(pattern, out).iter().for_each(|dir| binaries(job, place, dir, out));
    }
    match job.root.text("/var/lib/dpkg/status", 64 << 20) {
        Ok(status) => debian(job, place, &status, out),
        Err(trouble) => out.trouble(trouble, job.root.shown("/var/lib/dpkg/status")),
    }
}

/// One `node_modules`. `direct` holds what the project itself asks for; the rest came along.
pub(super) fn npm(
    job: Job<'_>,
    place: &Place,
    dir: &str,
    direct: Option<&BTreeSet<String>>,
    out: &mut Harvest,
) {
    let names = match job.root.list(dir, NAMES_MAX) {
        Ok((entries, _)) => entries,
        Err(trouble) => return out.trouble(trouble, job.root.shown(dir)),
    };
    for entry in names.iter().filter(|entry| entry.is_dir || entry.is_link) {
        out.count += 1;
        if job.late(out, dir) {
            return;
        }
        if !entry.name.starts_with('@') {
            npm_package(job, place, dir, &entry.name, direct, out);
        } else if job.pack.products().iter().any(|p| p.list("npm").iter().any(|n| n.starts_with(&entry.name)))
        {
            let scope = format!("{dir}/{}", entry.name);
            for inner in job.root.list(&scope, NAMES_MAX).map(|(entries, _)| entries).unwrap_or_default() {
                npm_package(job, place, dir, &format!("{}/{}", entry.name, inner.name), direct, out);
            }
        }
    }
}

fn npm_package(
    job: Job<'_>,
    place: &Place,
    dir: &str,
    name: &str,
    direct: Option<&BTreeSet<String>>,
    out: &mut Harvest,
) {
    let Some(product) = job.pack.package(Ecosystem::Npm, name) else { return };
    let path = format!("{dir}/{name}");
    let file = format!("{path}/package.json");
    let manifest = match job.root.read(&file, FILE_MAX) {
        Ok(bytes) => manifest::package_json(&bytes),
        Err(trouble) => {
            out.trouble(trouble, job.root.shown(&file));
            None
        }
    };
    let when = job.root.meta(&path).ok().map(|meta| meta.modified);
    let version = manifest.and_then(|manifest| manifest.version);
    let shown = job.root.shown(&path);
    if direct.is_none_or(|direct| direct.contains(name)) {
        return out.package(job.pack, place, Ecosystem::Npm, name, version.as_deref(), &shown, when);
    }
    let what = format!("npm package {name} came along as a dependency");
    out.seen.push(dependency(About::Product(product), place, what, shown, version));
}

fn dependency(
    about: About,
    place: &Place,
    what: String,
    path: String,
    version: Option<String>,
) -> Observation {
    Observation {
        ambiguous: true,
        version,
        path: Some(path.clone()),
        ..Observation::new(about, place.clone(), Source::Package, 30, what, path)
    }
}

/// One `site-packages`.
pub(super) fn pypi(job: Job<'_>, place: &Place, dir: &str, out: &mut Harvest) {
    let entries = match job.root.list(dir, NAMES_MAX) {
        Ok((entries, _)) => entries,
        Err(trouble) => return out.trouble(trouble, job.root.shown(dir)),
    };
    for entry in entries {
        let Some((name, version)) = manifest::dist_info(&entry.name) else { continue };
        out.count += 1;
        let Some(product) = job.pack.package(Ecosystem::Pypi, &name) else { continue };
        if job.late(out, dir) {
            return;
        }
        let info = format!("{dir}/{}", entry.name);
        let shown = job.root.shown(&info);
        let when = job.root.meta(&info).ok().map(|meta| meta.modified);
        let name = name.replace('_', "-").to_ascii_lowercase();
        // pip and uv note who was asked for by name.
        let has = |file: &str| job.root.exists(&format!("{info}/{file}"));
        let own_environment = dir.contains("/venvs/") || dir.contains("/uv/tools/");
        if has("INSTALLER") && !has("REQUESTED") && !own_environment {
            let what = format!("PyPI package {name} came along as a dependency");
            out.seen.push(dependency(About::Product(product), place, what, shown, version));
        } else {
            let path = format!("{dir}/{}", name.replace('-', "_"));
            let path = if job.root.exists(&path) { job.root.shown(&path) } else { shown };
            out.package(job.pack, place, Ecosystem::Pypi, &name, version.as_deref(), &path, when);
        }
    }
}

fn cargo(job: Job<'_>, place: &Place, path: &str, out: &mut Harvest) {
    let Ok(text) = job.root.text(path, FILE_MAX) else { return };
    for (name, version) in manifest::crates_toml(&text) {
        out.package(
            job.pack,
            place,
            Ecosystem::Crates,
            &name,
            version.as_deref(),
            &job.root.shown(path),
            None,
        );
    }
}

fn debian(job: Job<'_>, place: &Place, status: &str, out: &mut Harvest) {
    for (name, version) in manifest::dpkg_status(status) {
        out.count += 1;
        let Some(product) = by_package_name(job, &name) else { continue };
        let shown = version.as_deref().unwrap_or_default();
        let what = format!("Debian package {name} {shown} is installed");
        let at = job.root.shown("/var/lib/dpkg/status");
        let seen = Observation::new(About::Product(product), place.clone(), Source::Package, 75, what, at);
        out.seen.push(Observation { version, variant: Some(name), ..seen });
    }
}

fn brew(job: Job<'_>, place: &Place, cellar: &str, out: &mut Harvest) {
    let Ok((entries, _)) = job.root.list(cellar, NAMES_MAX) else { return };
    for entry in entries.iter().filter(|entry| entry.is_dir) {
        out.count += 1;
        let Some(product) = by_package_name(job, &entry.name) else { continue };
        let path = format!("{cellar}/{}", entry.name);
        let versions = job.root.list(&path, 100).map(|(versions, _)| versions).unwrap_or_default();
        let version = versions.into_iter().rev().find(|v| v.is_dir).map(|v| v.name);
        let what = format!("Homebrew formula {} is installed", entry.name);
        let at = job.root.shown(&path);
        let seen =
            Observation::new(About::Product(product), place.clone(), Source::Package, 80, what, at.clone());
        out.seen.push(Observation { version, path: Some(at), ..seen });
    }
}

/// Packages of distributions are called like the program or the product. Names that others use say nothing.
fn by_package_name(job: Job<'_>, name: &str) -> Option<usize> {
    let named = job.pack.named(name).iter().find(|named| !named.ambiguous).map(|named| named.product);
    named.or_else(|| {
        let found = job.pack.find(name)?;
        (!job.pack.named(name).iter().any(|named| named.ambiguous)).then_some(found)
    })
}

fn extensions(job: Job<'_>, place: &Place, dir: &str, out: &mut Harvest) {
    let Ok((entries, _)) = job.root.list(dir, NAMES_MAX) else { return };
    for entry in entries.iter().filter(|entry| entry.is_dir) {
        out.count += 1;
        let Some((id, version)) = manifest::extension_dir(&entry.name) else { continue };
        let Some(product) = job.pack.extension(&id) else { continue };
        let path = format!("{dir}/{}", entry.name);
        let what = format!("editor extension {id} {version} is installed");
        extension(job, place, product, what, &path, Some(version), out);
    }
}

fn jetbrains(job: Job<'_>, place: &Place, dir: &str, out: &mut Harvest) {
    let Ok((entries, _)) = job.root.list(dir, NAMES_MAX) else { return };
    for entry in entries.iter().filter(|entry| entry.is_dir) {
        let known = |p: &crate::sweep::pack::Signature| p.list("jetbrains").contains(&entry.name);
        let Some(product) = job.pack.products().iter().position(known) else { continue };
        let path = format!("{dir}/{}", entry.name);
        let what = format!("JetBrains plugin {} is installed", entry.name);
        extension(job, place, product, what, &path, None, out);
    }
}

fn extension(
    job: Job<'_>,
    place: &Place,
    product: usize,
    what: String,
    path: &str,
    version: Option<String>,
    out: &mut Harvest,
) {
    let when = job.root.meta(path).ok().map(|meta| meta.modified);
    let at = job.root.shown(path);
    let seen =
        Observation::new(About::Product(product), place.clone(), Source::Extension, 95, what, at.clone());
    out.seen.push(Observation { when, version, path: Some(at), ..seen });
}

/// Programs in a directory of programs, by name and by where a link leads.
fn binaries(job: Job<'_>, place: &Place, dir: &str, out: &mut Harvest) {
    // `/bin` is `/usr/bin` on most hosts; `/usr/bin` is looked at.
    let Ok((entries, _)) = job.root.list(dir, NAMES_MAX) else { return };
    for entry in entries.iter().filter(|entry| entry.is_file || entry.is_link) {
        out.count += 1;
        let path = format!("{dir}/{}", entry.name);
        let named = job.pack.named(&entry.name);
        if named.is_empty() {
            continue;
        }
        let Ok(meta) = job.root.meta(&path) else { continue };
        if !meta.is_file || meta.mode & 0o111 == 0 {
            continue;
        }
        // A link into a package is that package's, whatever it is called.
        let target = entry.is_link.then(|| job.root.canonical(&path)).flatten();
        let packaged = target.as_deref().map(packages_in).unwrap_or_default();
        if let Some((ecosystem, name)) = packaged.first() {
            if let Some(product) = job.pack.package(*ecosystem, name) {
                let what =
                    format!("program `{}` leads into the {} package {name}", entry.name, ecosystem.as_str());
                binary(job, place, product, 90, false, what, &path, meta.modified, out);
            }
            continue;
        }
        let mut by_path = Vec::new();
        identify::by_path(job.pack, target.as_deref().unwrap_or(&path), &mut by_path);
        for hit in by_path {
            let what = format!("program `{}` {}", entry.name, hit.what);
            binary(job, place, hit.product, hit.weight, false, what, &path, meta.modified, out);
        }
        for named in named {
            let weight = if named.ambiguous { 20 } else { 70 };
            let shared = if named.ambiguous { ", a name that others use too" } else { "" };
            let what = format!("program `{}` is installed{shared}", entry.name);
            binary(job, place, named.product, weight, named.ambiguous, what, &path, meta.modified, out);
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the columns of one line of evidence")]
fn binary(
    job: Job<'_>,
    place: &Place,
    product: usize,
    weight: u8,
    ambiguous: bool,
    what: String,
    path: &str,
    when: crate::model::Time,
    out: &mut Harvest,
) {
    let at = job.root.shown(path);
    let seen =
        Observation::new(About::Product(product), place.clone(), Source::Binary, weight, what, at.clone());
    out.seen.push(Observation { ambiguous, when: Some(when), path: Some(at), ..seen });
}
