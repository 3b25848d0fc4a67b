//! What a case leaves behind: processes, mounts, cgroups and records. Cases share daemons and a machine, so what one leaves
//! is what the next one meets; the one that left it fails, by name.

use super::PATIENCE;
use super::lane::{cgroup_root, monitor_program};
use super::scratch;
use crate::sys::wait;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Processes that belong to a fixture which outlives its case.
static KEPT: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Says that this process is part of a shared fixture.
pub fn keep(pid: u32) {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
}

/// Records of the registries of shared fixtures, by directory.
type Records = BTreeMap<PathBuf, BTreeSet<String>>;

/// What was there before a case.
#[derive(Debug)]
pub struct Before {
    records: Records,
    processes: BTreeSet<u32>,
}

impl Before {
    /// Looks at the machine.
    pub fn look() -> Self {
        Self { records: records(), processes: processes().into_keys().collect() }
    }

    /// What is there now that a case should have taken away, in words; processes get a while to end.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        wait::until(PATIENCE / 6, || {
            left = self.left_now();
            left.is_empty()
        });
        left
    }

    fn left_now(&self) -> Vec<String> {
        let mut left: Vec<String> = mounts();
        left.extend(cgroups());
        let new = processes().into_iter().filter(|(pid, _)| !self.processes.contains(pid));
        left.extend(new.map(|(pid, what)| format!("process {pid}: {what}")));
        let now = records();
        for (registry, before) in &self.records {
            // A fixture that ended with the case took its registry along.
            let Some(now) = now.get(registry) else { continue };
            let changed = before.symmetric_difference(now);
            left.extend(changed.map(|name| format!("record {name} in {}", registry.display())));
        }
        left
    }
}

/// Whether a path lies in the scratch directory of a fixture that is alive.
fn is_live(path: &str) -> bool {
    scratch::live().iter().any(|root| Path::new(path).starts_with(root))
}

fn records() -> Records {
    let registries = scratch::live().into_iter().map(|root| root.join("registry"));
    let names = |dir: &Path| -> Option<BTreeSet<String>> {
        let entries = std::fs::read_dir(dir).ok()?.flatten();
        Some(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    };
    registries.filter_map(|dir| Some((dir.clone(), names(&dir)?))).collect()
}

/// Processes that run a program of a scratch directory, or a daemon whose state directory is gone.
fn processes() -> BTreeMap<u32, String> {
    let ours = scratch::prefix();
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let monitor = monitor_program();
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found = BTreeMap::new();
    for pid in pids.filter(|pid| !kept.contains(pid)) {
        // One that has ended, or is about to, has neither.
        let Ok(exe) = std::fs::read_link(format!("/proc/{pid}/exe")) else { continue };
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let orphan = exe == monitor && words.iter().any(|word| word.starts_with(&ours) && !is_live(word));
        if exe.to_string_lossy().starts_with(&ours) || orphan {
            found.insert(pid, words.join(" "));
        }
    }
    found
}

/// Mounts below scratch directories, but for the BPF file systems of living fixtures.
fn mounts() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    let ours = points.filter(|point| point.starts_with(&scratch::prefix()));
    ours.filter(|point| !(is_live(point) && point.ends_with("/bpf")))
        .map(|point| format!("mount {point}"))
        .collect()
}

/// cgroups that are named after this run of the tests.
fn cgroups() -> Vec<String> {
    let name = format!("amt-{}", std::process::id());
    let root = cgroup_root().map(|root| root.join(name)).filter(|path| path.exists());
    root.into_iter().map(|path| format!("cgroup {}", path.display())).collect()
}
