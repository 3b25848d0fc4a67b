//! What a change can reach, by the places of the files it touches.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::Result;

use super::Lane;
use crate::{shell, workspace};

/// Lanes by the beginning of a path; the first row that fits counts. A file that no row names reaches everything.
const REACH: &[(&str, &[Lane])] = &[
    ("xtask/src/vm", &[Lane::Check, Lane::Unit, Lane::Vm]),
    ("xtask/", &[Lane::Check, Lane::Unit]),
    ("tests/fuzz/", &[Lane::Check]),
    ("tests/golden/sweep", &[Lane::Unit, Lane::Host]),
    ("tests/", &[Lane::Check, Lane::Host, Lane::Vm]),
    // What sees neither a kernel nor a running daemon.
    ("agent-monitor/src/export", &[Lane::Check, Lane::Unit, Lane::Host]),
    ("agent-monitor/src/learn", &[Lane::Check, Lane::Unit, Lane::Host]),
    ("agent-monitor/src/mapping", &[Lane::Check, Lane::Unit]),
    ("agent-monitor/src/redact", &[Lane::Check, Lane::Unit, Lane::Host]),
    ("agent-monitor/src/replay", &[Lane::Check, Lane::Unit]),
    ("agent-monitor/src/sweep", &[Lane::Check, Lane::Unit, Lane::Host]),
    ("agent-monitor/tests/", &[Lane::Check, Lane::Unit]),
    (".github/", &[Lane::Check]),
    ("docs/", &[Lane::Check]),
];

/// Prose at the root of the repository.
const PROSE: &[&str] = &[".md"];

/// Where the parts of the library are.
const LIBRARY: &str = "agent-monitor/src/";

/// What is to run, and why.
pub(super) struct Reach {
    pub(super) lanes: BTreeSet<Lane>,
    /// The one part of the library that all changes lie in
    pub(super) part: Option<String>,
    files: Vec<String>,
    base: String,
}

/// What the files that differ from `base`, committed or not, can reach.
pub(super) fn since(base: &str) -> Result<Reach> {
    let git = |args: &[&str]| -> Result<Vec<String>> {
        let text = shell::output(Command::new("git").args(args).current_dir(workspace::root()?))?;
        Ok(text.lines().map(ToString::to_string).collect())
    };
    let mut files = git(&["diff", "--name-only", base])?;
    files.extend(git(&["ls-files", "--others", "--exclude-standard"])?);
    Ok(reach(files, base))
}

fn reach(files: Vec<String>, base: &str) -> Reach {
    let lanes = files.iter().flat_map(|file| lanes_of(file)).copied().collect();
    let first = files.first().and_then(|file| part_of(file));
    let part =
        first.filter(|part| files.iter().all(|file| part_of(file) == Some(part))).map(ToString::to_string);
    Reach { lanes, part, files, base: base.to_string() }
}

fn lanes_of(file: &str) -> &'static [Lane] {
    const ALL: &[Lane] = &[Lane::Check, Lane::Unit, Lane::Host, Lane::Vm];
    if !file.contains('/') && PROSE.iter().any(|end| file.ends_with(end)) {
        return &[Lane::Check, Lane::Unit];
    }
    REACH.iter().find(|(start, _)| file.starts_with(start)).map_or(ALL, |(_, lanes)| lanes)
}

fn part_of(file: &str) -> Option<&str> {
    let rest = file.strip_prefix(LIBRARY)?;
    let part = rest.split(['/', '.']).next()?;
    // The roots of the two crates are no part.
    (!matches!(part, "lib" | "main")).then_some(part)
}

impl Reach {
    /// What runs, and what does not, of the lanes that were asked for.
    pub(super) fn explain(&self, asked: &[Lane]) -> String {
        let list = |wanted: bool| {
            let names: Vec<String> = asked
                .iter()
                .filter(|lane| self.lanes.contains(lane) == wanted)
                .map(|lane| lane.name())
                .collect();
            if names.is_empty() { "nothing".to_string() } else { names.join(", ") }
        };
        let unit = match &self.part {
            Some(part) if self.lanes.contains(&Lane::Unit) => {
                format!("\nleft out: unit tests outside `{part}`, and the command line's")
            }
            _ => String::new(),
        };
        let (count, base) = (self.files.len(), &self.base);
        format!(
            "{count} files differ from {base}: they reach {}\nleft out: {}{unit}",
            list(true),
            list(false)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[&str]) -> Reach {
        reach(files.iter().map(ToString::to_string).collect(), "HEAD")
    }

    fn lanes(files: &[&str]) -> Vec<Lane> {
        of(files).lanes.into_iter().collect()
    }

    #[test]
    fn what_no_row_names_reaches_everything() {
        let all = vec![Lane::Check, Lane::Unit, Lane::Host, Lane::Vm];
        assert_eq!(lanes(&["agent-monitor-ebpf/src/decide.rs"]), all);
        assert_eq!(lanes(&["agent-monitor/src/kernel/object.rs"]), all);
        assert_eq!(lanes(&["Cargo.lock"]), all);
        assert_eq!(lanes(&["docs/costs.md", "agent-monitor/src/run/core.rs"]), all);
    }

    #[test]
    fn prose_needs_no_kernel() {
        assert_eq!(lanes(&["README.md"]), [Lane::Check, Lane::Unit]);
        assert_eq!(lanes(&["docs/limits.md"]), [Lane::Check]);
        assert!(lanes(&[]).is_empty());
    }

    #[test]
    fn changes_in_one_part_are_tested_there() {
        assert_eq!(
            of(&["agent-monitor/src/sweep/judge.rs", "agent-monitor/src/sweep.rs"]).part.unwrap(),
            "sweep"
        );
        assert_eq!(of(&["agent-monitor/src/sweep/judge.rs", "agent-monitor/src/log.rs"]).part, None);
        assert_eq!(of(&["agent-monitor/src/sweep/judge.rs", "README.md"]).part, None);
        assert_eq!(of(&["agent-monitor/src/lib.rs"]).part, None);
    }

    #[test]
    fn what_is_left_out_is_named() {
        let said =
            of(&["agent-monitor/src/mapping.rs"]).explain(&[Lane::Check, Lane::Unit, Lane::Host, Lane::Vm]);
        assert!(said.contains("they reach check, unit\nleft out: host, vm"), "{said}");
        assert!(said.contains("outside `mapping`"), "{said}");
    }
}
