//! What a process edits: texts and sources below its working directory that changed after it started. Others can have changed
//! them, so that this says little by itself.

use std::time::{Duration, Instant};

use super::root::Root;
use crate::model::Time;

/// Weight of a changed file beside other signs of behaviour, 0 to 100.
pub(super) const EDITS: u8 = 10;
/// Most names that are looked at.
const NAMES_MAX: usize = 4096;
/// How far below the working directory.
const DEPTH_MAX: usize = 4;
/// Longest that one look may take, where every answer comes.
const TIME_MAX: Duration = Duration::from_millis(200);
/// Endings of what people and agents write; not of what services write by themselves, such as logs and databases.
const WRITTEN: &[&str] = &[
    "c", "cc", "cfg", "cpp", "cs", "css", "go", "h", "hpp", "html", "ini", "ipynb", "java", "js", "jsx",
    "kt", "lua", "md", "mjs", "php", "pl", "py", "rb", "rs", "rst", "scala", "scss", "sh", "sql", "svelte",
    "swift", "tex", "toml", "ts", "tsx", "txt", "vue", "xml", "yaml", "yml", "zig",
];
/// Directories of what tools make.
const MADE: &[&str] = &["__pycache__", "build", "dist", "node_modules", "target", "venv"];
/// Working directories that are nobody's project.
const COMMON: &[&str] =
    &["", "/", "/etc", "/home", "/opt", "/run", "/srv", "/tmp", "/usr", "/var", "/var/tmp"];

/// A file below `cwd` that belongs to `uid` and changed after `since`, as `root` has it.
#[must_use]
pub fn edited(root: &Root, cwd: &str, uid: u32, since: Time) -> Option<String> {
    if !cwd.starts_with('/') || COMMON.contains(&cwd) {
        return None;
    }
    let until = Instant::now() + TIME_MAX;
    let mut left = NAMES_MAX;
    let mut waiting = vec![(cwd.to_owned(), 0)];
    while let Some((directory, depth)) = waiting.pop() {
        let Ok((entries, _)) = root.list(&directory, left) else { continue };
        left = left.saturating_sub(entries.len());
        for entry in entries {
            let path = format!("{directory}/{}", entry.name);
            let known = MADE.contains(&entry.name.as_str()) || entry.name.starts_with('.');
            if entry.is_dir && depth < DEPTH_MAX && !known {
                waiting.push((path, depth + 1));
            } else if entry.is_file && is_written(&entry.name) && changed(root, &path, uid, since) {
                return Some(path);
            }
        }
        if left == 0 || Instant::now() >= until {
            return None;
        }
    }
    None
}

/// As a line of evidence.
pub(super) fn evidence(path: &str) -> String {
    format!("{path} in its working directory changed after it started")
}

fn is_written(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, ending)| !stem.is_empty() && WRITTEN.contains(&ending))
}

fn changed(root: &Root, path: &str, uid: u32, since: Time) -> bool {
    root.meta(path).is_ok_and(|meta| meta.is_file && meta.uid == uid && meta.modified > since)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    fn at(time: SystemTime) -> Time {
        Time::from_unix_nanos(i128::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap())
    }

    #[test]
    fn what_is_written_after_the_start_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::of_process(std::process::id(), "", false).unwrap();
        let cwd = dir.path().canonicalize().unwrap();
        let place = cwd.to_str().unwrap();
        let uid = rustix::process::getuid().as_raw();
        let started = SystemTime::now() - Duration::from_secs(60);
        let old = |path: &Path| {
            fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(started - Duration::from_secs(9))
                .unwrap();
        };
        let look = |uid, since| edited(&root, place, uid, at(since));
        for made in ["x/node_modules/a", ".git", "src/deep"] {
            fs::create_dir_all(cwd.join(made)).unwrap();
        }
        for not_written in
            ["x/node_modules/a/index.js", ".git/config.txt", "service.log", "state.sqlite", ".md"]
        {
            fs::write(cwd.join(not_written), "x").unwrap();
        }
        fs::write(cwd.join("src/deep/main.py"), "x").unwrap();
        old(&cwd.join("src/deep/main.py"));
        fs::write(cwd.join("other.py"), "x").unwrap();
        old(&cwd.join("other.py"));
        std::os::unix::fs::symlink("/etc", cwd.join("link")).unwrap();
        assert_eq!(look(uid, started), None);
        fs::write(cwd.join("src/deep/main.py"), "y").unwrap();
        assert_eq!(look(uid, started), Some(format!("{place}/src/deep/main.py")));
        assert_eq!(look(uid + 1, started), None, "somebody else's");
        assert_eq!(look(uid, SystemTime::now() + Duration::from_secs(60)), None, "before it started");
        assert_eq!(edited(&root, "/tmp", uid, at(started)), None, "nobody's project");
    }
}
