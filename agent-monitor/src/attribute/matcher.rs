//! Recognition in user space: by command lines, and of processes that run already. Pure.
//!
//! Holds every rule of every record; the kernel's tables ([`super::image`]) hold those that it can decide by itself.

use std::collections::BTreeSet;

use agent_monitor_ebpf::task::BoundBy;

use super::container;
use crate::registry::argv::{ArgvPattern, glob};
use crate::registry::record::MatchRank;

/// Which file, and unchanged since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    /// Inode number.
    pub ino: u64,
    /// `ctime`: seconds.
    pub ctime_sec: i64,
    /// `ctime`: nanoseconds.
    pub ctime_nsec: u32,
}

/// What is known of a process when it is to be recognised. Paths are host paths.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// Executable.
    pub exe: Option<&'a [u8]>,
    /// Script that it runs.
    pub script: Option<&'a [u8]>,
    /// Arguments.
    pub args: &'a [Vec<u8>],
    /// Real uid.
    pub uid: u32,
    /// Path in the cgroup v2 hierarchy.
    pub cgroup: Option<&'a str>,
    /// The executable's file.
    pub exe_id: Option<FileId>,
    /// The script's file.
    pub script_id: Option<FileId>,
}

/// One `[[match]]` as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Agent index.
    pub agent: u32,
    /// How closely it looks.
    pub rank: MatchRank,
    /// Paths of the executable, the written one and the one it leads to.
    pub exe: Option<BTreeSet<Vec<u8>>>,
    /// Paths of the script.
    pub script: Option<BTreeSet<Vec<u8>>>,
    /// Command line.
    pub argv: Option<ArgvPattern>,
    /// Real uid.
    pub uid: Option<u32>,
    /// cgroup path, descendants included.
    pub cgroup: Option<String>,
    /// systemd unit.
    pub unit: Option<String>,
    /// Container id, or the start of it.
    pub container: Option<String>,
    /// The file must be this one, because its contents were verified.
    pub file: Option<FileId>,
    /// The kernel cannot decide this rule at every exec, so it is compared here.
    pub late: bool,
}

impl Rule {
    /// The word for this kind of rule: its strongest condition.
    #[must_use]
    pub fn by(&self) -> BoundBy {
        if self.script.is_some() {
            BoundBy::Script
        } else if self.exe.is_some() && self.argv.is_none() {
            BoundBy::Exe
        } else if self.argv.is_some() {
            BoundBy::Argv
        } else if self.container.is_some() {
            BoundBy::Container
        } else if self.unit.is_some() {
            BoundBy::Unit
        } else if self.cgroup.is_some() {
            BoundBy::Cgroup
        } else {
            BoundBy::User
        }
    }

    /// Whether it names a program, and so may make a nested agent of another agent's process.
    #[must_use]
    pub fn names_program(&self) -> bool {
        self.exe.is_some() || self.script.is_some() || self.argv.is_some()
    }

    /// Whether the rule, which only user space can compare, might fit a process of a program: by one of its `names`, the
    /// path and the links to it. Rather yes than no.
    fn may_claim(&self, names: &[Vec<u8>]) -> bool {
        let among = |paths: &Option<BTreeSet<Vec<u8>>>| {
            paths.as_ref().is_some_and(|paths| names.iter().any(|name| paths.contains(name)))
        };
        match (&self.exe, &self.script, &self.argv) {
            (None, None, None) => true,
            (None, None, Some(argv)) => may_run(argv, names),
            // A script alone the kernel knows by itself where it is started as a program.
            (None, Some(_), None) => false,
            _ => among(&self.exe) || among(&self.script),
        }
    }

    fn fits(&self, facts: &Facts<'_>) -> bool {
        let among = |paths: &Option<BTreeSet<Vec<u8>>>, path: Option<&[u8]>| {
            paths.as_ref().is_none_or(|paths| path.is_some_and(|path| paths.contains(path)))
        };
        let file = if self.script.is_some() { facts.script_id } else { facts.exe_id };
        among(&self.exe, facts.exe)
            && among(&self.script, facts.script)
            && self.uid.is_none_or(|uid| uid == facts.uid)
            && self.file.is_none_or(|wanted| file == Some(wanted))
            && self.argv.as_ref().is_none_or(|argv| argv.matches(facts.args))
            && self.place_fits(facts.cgroup)
    }

    fn place_fits(&self, cgroup: Option<&str>) -> bool {
        if self.cgroup.is_none() && self.unit.is_none() && self.container.is_none() {
            return true;
        }
        let Some(path) = cgroup else { return false };
        let names = container::names(path);
        // Any user can start a unit of any name in his own manager.
        let unit = names.unit.filter(|_| !path.starts_with("/user.slice/"));
        self.cgroup.as_ref().is_none_or(|wanted| within(path, wanted))
            && self.unit.as_ref().is_none_or(|wanted| {
                unit.as_ref() == Some(wanted) || path.split('/').any(|part| part == wanted && unit.is_some())
            })
            && self
                .container
                .as_ref()
                .is_none_or(|wanted| names.container.is_some_and(|id| id.starts_with(wanted.as_str())))
    }
}

/// Whether a command line that starts a program by one of these names, or by an interpreter, might fit.
fn may_run(argv: &ArgvPattern, names: &[Vec<u8>]) -> bool {
    let Some((program, rest)) = argv.patterns().split_first() else { return false };
    let fits = |pattern: &String, text: &[u8]| glob(pattern.as_bytes(), text);
    let base = |name: &[u8]| name.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
    if names.iter().any(|name| fits(program, name) || fits(program, &base(name))) {
        return true;
    }
    let is_path = |pattern: &&String| pattern.contains('/') || pattern.contains('.');
    INTERPRETERS.iter().any(|name| fits(program, name))
        && rest.iter().filter(is_path).all(|pattern| names.iter().any(|name| fits(pattern, name)))
}

/// Names under which scripts are run.
const INTERPRETERS: [&[u8]; 9] =
    [b"node", b"nodejs", b"bun", b"deno", b"python3", b"python", b"bash", b"sh", b"env"];

fn within(path: &str, parent: &str) -> bool {
    let parent = parent.trim_end_matches('/');
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// All rules, the closest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matcher {
    rules: Vec<Rule>,
}

impl Matcher {
    /// Puts rules in order: by rank, between equals as given (that is by agent id).
    #[must_use]
    pub fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.rank));
        Self { rules }
    }

    /// Whether any rule has to be compared in user space at an exec.
    #[must_use]
    pub fn has_late(&self) -> bool {
        self.rules.iter().any(|rule| rule.late)
    }

    /// Whether any rule asks for the identity of a file.
    #[must_use]
    pub fn needs_files(&self) -> bool {
        self.rules.iter().any(|rule| rule.file.is_some())
    }

    /// Whether a rule that only user space can compare might make a process of a program an agent's: by its path and the
    /// links to it. The kernel must leave such a program alone until that was compared.
    #[must_use]
    pub fn may_claim(&self, names: &[Vec<u8>]) -> bool {
        self.rules.iter().any(|rule| rule.late && rule.may_claim(names))
    }

    /// The closest rule that fits.
    #[must_use]
    pub fn find(&self, facts: &Facts<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.fits(facts))
    }

    /// The closest rule that fits and that names a program.
    #[must_use]
    pub fn find_program(&self, facts: &Facts<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.names_program() && rule.fits(facts))
    }
}

#[cfg(test)]
mod neighbour_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(agent: u32, conditions: u8) -> Rule {
        Rule {
            agent,
            rank: MatchRank { conditions, strongest: 1 },
            exe: None,
            script: None,
            argv: None,
            uid: None,
            cgroup: None,
            unit: None,
            container: None,
            file: None,
            late: false,
        }
    }

    fn paths(path: &str) -> Option<BTreeSet<Vec<u8>>> {
        Some([path.as_bytes().to_vec()].into())
    }

    #[test]
    fn all_conditions_must_hold_and_the_closest_rule_wins() {
        let matcher = Matcher::new(vec![
            Rule { exe: paths("/usr/bin/node"), ..rule(1, 1) },
            Rule { exe: paths("/usr/bin/node"), uid: Some(7), ..rule(2, 2) },
            Rule { unit: Some("bot.service".to_owned()), ..rule(3, 1) },
            Rule { container: Some("0123456789ab".to_owned()), ..rule(4, 1) },
            Rule { cgroup: Some("/a/b".to_owned()), ..rule(5, 1) },
        ]);
        let node = Facts { exe: Some(b"/usr/bin/node"), ..Facts::default() };
        let agent = |facts: Facts<'_>| matcher.find(&facts).map(|rule| rule.agent);
        assert_eq!(agent(node), Some(1));
        assert_eq!(agent(Facts { uid: 7, ..node }), Some(2));
        let in_group = |cgroup: &str| agent(Facts { cgroup: Some(cgroup), ..Facts::default() });
        assert_eq!(in_group("/system.slice/bot.service/sub"), Some(3));
        assert_eq!(in_group("/user.slice/user-7.slice/user@7.service/bot.service"), None);
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        assert_eq!(in_group(&format!("/docker/{id}")), Some(4));
        assert_eq!(in_group("/a/b/c"), Some(5));
        assert_eq!(in_group("/a/bc"), None);
    }

    #[test]
    fn programs_that_arguments_may_claim() {
        let argv = |patterns: &[&str]| {
            Some(ArgvPattern::new(patterns.iter().map(ToString::to_string).collect()).unwrap())
        };
        let late = |rule: Rule| Matcher::new(vec![Rule { late: true, ..rule }]);
        let names = [b"/opt/codex/codex.js".to_vec(), b"/usr/bin/codex".to_vec()];
        let claims = |patterns: &[&str]| late(Rule { argv: argv(patterns), ..rule(1, 1) }).may_claim(&names);
        assert!(claims(&["codex"]) && claims(&["/usr/bin/*"]) && claims(&["node", "*/codex.js"]));
        assert!(claims(&["node", "--once"]), "nothing says that it is another script");
        assert!(!claims(&["python3", "/srv/bot.py"]) && !claims(&["claude"]));
        assert!(late(rule(1, 2)).may_claim(&names), "by places alone");
        assert!(
            late(Rule { exe: paths("/usr/bin/codex"), argv: argv(&["x"]), ..rule(1, 2) }).may_claim(&names)
        );
        assert!(!late(Rule { script: paths("/usr/bin/codex"), ..rule(1, 1) }).may_claim(&names));
        assert!(!Matcher::new(vec![Rule { argv: argv(&["codex"]), ..rule(1, 1) }]).may_claim(&names));
    }

    #[test]
    fn verified_files_must_be_the_very_ones() {
        let id = FileId { ino: 4, ctime_sec: 5, ctime_nsec: 6 };
        let matcher = Matcher::new(vec![Rule { exe: paths("/x"), file: Some(id), ..rule(1, 1) }]);
        let facts = Facts { exe: Some(b"/x"), ..Facts::default() };
        assert_eq!(matcher.find(&facts), None);
        assert!(matcher.find(&Facts { exe_id: Some(id), ..facts }).is_some());
        assert_eq!(matcher.find(&Facts { exe_id: Some(FileId { ctime_nsec: 7, ..id }), ..facts }), None);
    }
}
