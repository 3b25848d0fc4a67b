//! Programs on this host that are agents by where they lie and what they are called: what a policy can meet at their exec.
//!
//! Looked for where programs are put, not everywhere: what lies elsewhere is known once it has run. Nothing is opened.

use std::collections::BTreeSet;
use std::time::Instant;

use super::files::Job;
use super::homes::Users;
use super::identify::{self, Subject};
use super::observe::Harvest;
use super::pack::Pack;
use super::root::Root;

/// What a program's path must say by itself, 0 to 100.
const WEIGHT_MIN: u8 = 50;
/// Most names of one directory.
const NAMES_MAX: usize = 20_000;
/// Most programs.
const PROGRAMS_MAX: usize = 4096;

/// Where programs of everybody are.
const SYSTEM: &[&str] = &[
    "/usr/local/bin",
    "/usr/bin",
    "/bin",
    "/usr/local/sbin",
    "/usr/sbin",
    "/opt/*/bin",
    "/opt/*",
    "/snap/bin",
];
/// Where those of one user are, below the home.
const OWN: &[&str] = &[
    ".local/bin",
    "bin",
    ".npm-global/bin",
    ".npm/bin",
    ".cargo/bin",
    ".bun/bin",
    ".deno/bin",
    ".volta/bin",
    ".nvm/versions/node/*/bin",
    ".local/share/pnpm",
    ".local/share/pipx/venvs/*/bin",
    ".local/share/uv/tools/*/bin",
    ".linuxbrew/bin",
    "go/bin",
];

/// Whether a path alone says that the program at it is an agent: not by a name that others have too.
#[must_use]
pub fn is_known(pack: &Pack, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_owned();
    let subject = Subject { names: vec![name], paths: vec![path.to_owned()], ..Subject::default() };
    let hits = identify::identify(pack, &subject);
    let hit = hits.first().filter(|hit| hit.weight >= WEIGHT_MIN && !hit.ambiguous);
    hit.and_then(|hit| pack.product(hit.product)).is_some_and(|product| product.kind().is_agent())
}

/// The known programs, as canonical paths. Homes on other hosts are left out: their server may not answer.
#[must_use]
pub fn programs(pack: &Pack, root: &Root, users: &Users, until: Instant) -> BTreeSet<String> {
    let job = Job { pack, root, container: None, history: false, until };
    let mut found = BTreeSet::new();
    let mut unseen = Harvest::default();
    let homes: Vec<&str> =
        users.homes.iter().map(|home| home.path.as_str()).filter(|home| !root.is_remote(home)).collect();
    let own = homes.iter().flat_map(|home| OWN.iter().map(move |rest| format!("{home}/{rest}")));
    let patterns = SYSTEM.iter().map(ToString::to_string).chain(own);
    for pattern in patterns {
        for directory in job.expand(&pattern, &mut unseen) {
            take(job, &directory, true, &mut found);
        }
    }
    for (glob, product) in pack.paths() {
        if !pack.product(*product).is_some_and(|product| product.kind().is_agent()) {
            continue;
        }
        for directory in directories(glob, &homes) {
            take(job, &directory, false, &mut found);
        }
    }
    found
}

/// The directories that a glob of the pack names: `/a/b/*`, or `*/a/b/*` in each home. Others are not looked for.
fn directories(glob: &str, homes: &[&str]) -> Vec<String> {
    let Some(directory) = glob.strip_suffix("/*") else { return Vec::new() };
    match directory.strip_prefix("*/") {
        Some(rest) if !rest.contains('*') => homes.iter().map(|home| format!("{home}/{rest}")).collect(),
        None if !directory.contains('*') => vec![directory.to_owned()],
        _ => Vec::new(),
    }
}

/// Takes the programs of a directory; `named` only those that are called like one.
fn take(job: Job<'_>, directory: &str, named: bool, found: &mut BTreeSet<String>) {
    let Ok((entries, _)) = job.root.list(directory, NAMES_MAX) else { return };
    let is_name = |name: &str| job.pack.named(name).iter().any(|named| !named.ambiguous);
    for entry in entries.iter().filter(|entry| entry.is_file || entry.is_link) {
        if found.len() >= PROGRAMS_MAX || Instant::now() >= job.until {
            return;
        }
        if named && !is_name(&entry.name) {
            continue;
        }
        // A link to a program that starts others (a version manager's) is not the agent.
        let real = job.root.canonical(&format!("{directory}/{}", entry.name));
        let runs =
            |path: &String| job.root.meta(path).is_ok_and(|meta| meta.is_file && meta.mode & 0o111 != 0);
        found.extend(real.filter(|path| is_known(job.pack, path) && runs(path)));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::Duration;

    use super::*;
    use crate::sweep::pack::embedded;

    #[test]
    fn paths_that_say_enough() {
        let is = |path| is_known(embedded(), path);
        assert!(is("/usr/local/bin/claude"));
        assert!(is("/home/a/.local/share/claude/versions/2.1.3"));
        assert!(is("/usr/lib/node_modules/@openai/codex/bin/codex.js"));
        for path in
            ["/usr/bin/goose", "/usr/bin/mise", "/usr/bin/node", "/usr/bin/python3.12", "/usr/bin/crush"]
        {
            assert!(!is(path), "{path}");
        }
    }

    #[test]
    fn programs_are_found_where_programs_are_put() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let program = |path: &str, mode: u32| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), "x").unwrap();
            fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir_all(at("etc")).unwrap();
        fs::write(at("etc/passwd"), "ann:x:1000:1000::/home/ann:/bin/sh\n").unwrap();
        program("usr/lib/node_modules/@openai/codex/bin/codex.js", 0o755);
        program("usr/bin/mise", 0o755);
        program("usr/bin/vim", 0o755);
        program("home/ann/.local/share/claude/versions/2.1.3", 0o755);
        program("home/ann/.nvm/versions/node/v22.1.0/bin/opencode", 0o755);
        program("home/ann/bin/gemini", 0o644);
        fs::create_dir_all(at("usr/local/bin")).unwrap();
        symlink("../../lib/node_modules/@openai/codex/bin/codex.js", at("usr/local/bin/codex")).unwrap();
        // A version manager's shim is no agent.
        symlink("../../bin/mise", at("usr/local/bin/claude")).unwrap();
        let root = Root::open(dir.path(), "", false).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        let found = programs(embedded(), &root, &Users::read(&root), until);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(
            found,
            [
                "/home/ann/.local/share/claude/versions/2.1.3",
                "/home/ann/.nvm/versions/node/v22.1.0/bin/opencode",
                "/usr/lib/node_modules/@openai/codex/bin/codex.js",
            ]
        );
    }
}
