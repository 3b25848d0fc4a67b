//! What lies in a root: packages, programs, extensions, state, MCP configurations, projects, units, cron.
//!
//! One job is one home or the system's own places. Everything has a limit, and what a limit cut off is said.

mod containers;
mod packages;
mod project;
mod services;
mod state;

use std::time::Instant;

use super::homes::Home;
use super::observe::{Harvest, Place};
use super::pack::Pack;
use super::root::{Root, Trouble};

/// Largest manifest or configuration that is read, in bytes.
pub(super) const FILE_MAX: u64 = 8 << 20;
/// Most names of one directory.
pub(super) const NAMES_MAX: usize = 100_000;

/// What a job looks at.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// Signatures.
    pub pack: &'a Pack,
    /// Where.
    pub root: &'a Root,
    /// Container id, where the root is one's.
    pub container: Option<&'a str>,
    /// Shell histories are counted.
    pub history: bool,
    /// When the job must have ended.
    pub until: Instant,
}

impl Job<'_> {
    fn place(&self, uid: Option<u32>) -> Place {
        Place { uid, container: self.container.map(str::to_owned) }
    }

    fn late(&self, out: &mut Harvest, at: &str) -> bool {
        let late = Instant::now() >= self.until;
        if late {
            out.reason("out of time", self.root.shown(at));
        }
        late
    }

    /// Paths that fit a pattern whose `*` stands for one whole name each, or for a name's end (`python3*`).
    pub(super) fn expand(&self, pattern: &str, out: &mut Harvest) -> Vec<String> {
        let mut found = vec![String::new()];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            let Some((before, after)) = part.split_once('*') else {
                found.iter_mut().for_each(|path| *path = format!("{path}/{part}"));
                continue;
            };
            let mut next = Vec::new();
            for path in &found {
                match self.root.list(path, 2000) {
                    Ok((entries, _)) => {
                        let fits = entries.into_iter().filter(|entry| {
                            (entry.is_dir || entry.is_link)
                                && entry.name.starts_with(before)
                                && entry.name.ends_with(after)
                        });
                        next.extend(fits.map(|entry| format!("{path}/{}", entry.name)));
                    }
                    Err(trouble) => out.trouble(trouble, self.root.shown(path)),
                }
            }
            next.truncate(2000);
            found = next;
            if found.is_empty() {
                break;
            }
        }
        found
    }
}

/// Looks at one home.
pub fn home(job: Job<'_>, home: &Home) -> Harvest {
    let mut out = Harvest::default();
    let place = job.place(home.uid);
    match job.root.list(&home.path, NAMES_MAX) {
        Ok((top, more)) => {
            out.count = u64::try_from(top.len()).unwrap_or(u64::MAX);
            if more {
                out.reason("more names than are read", job.root.shown(&home.path));
            }
            let names: std::collections::BTreeSet<String> = top.into_iter().map(|entry| entry.name).collect();
            state::of_home(job, home, &place, &names, &mut out);
            packages::of_home(job, home, &place, &names, &mut out);
            services::of_home(job, home, &place, &mut out);
            containers::of_home(job, home, &place, &mut out);
            if job.history {
                state::histories(job, home, &place, &mut out);
            }
            if home.of_a_person {
                project::walk(job, &home.path, &place, &mut out);
            }
        }
        Err(trouble) => out.trouble(trouble, job.root.shown(&home.path)),
    }
    let denied = out.troubles.contains_key(Trouble::Denied.as_str()) && out.count == 0;
    out.cover(format!("home {}", job.root.shown(&home.path)));
    if denied && let Some(last) = out.coverage.last_mut() {
        last.looked = super::report::Looked::NotPermitted;
    }
    out
}

/// Looks at the system's own places.
pub fn system(job: Job<'_>) -> Harvest {
    let mut out = Harvest::default();
    let place = job.place(None);
    state::of_system(job, &place, &mut out);
    packages::of_system(job, &place, &mut out);
    services::of_system(job, &place, &mut out);
    containers::of_system(job, &place, &mut out);
    for top in ["/opt", "/srv", "/app", "/usr/src/app", "/workspace", "/workspaces", "/data", "/var/www"] {
        if job.root.meta(top).is_ok_and(|meta| meta.is_dir) {
            project::walk(job, top, &place, &mut out);
        }
    }
    for (mount, kind) in job.root.skipped().iter().filter(|(_, kind)| !is_virtual(kind)) {
        out.reason(
            "network or FUSE file system, not looked at without --remote",
            format!("{} ({kind})", job.root.shown(mount)),
        );
    }
    out.cover(match job.container {
        Some(id) => format!("container {}", id.get(..12).unwrap_or(id)),
        None => "system files".to_owned(),
    });
    out
}

fn is_virtual(kind: &str) -> bool {
    matches!(
        kind,
        "proc"
            | "sysfs"
            | "cgroup"
            | "cgroup2"
            | "debugfs"
            | "tracefs"
            | "securityfs"
            | "bpf"
            | "mqueue"
            | "autofs"
    )
}
