//! Known programs that no record speaks of, in the tables by which the kernel recognises: behind every rule of a record.
//! Only at an exec: the matcher of user space, which also binds what runs already, does not hold them.

use std::collections::BTreeSet;

use agent_monitor_ebpf::bind::{AS_EXE, AS_SCRIPT, MATCHES, MatchEntry};
use agent_monitor_ebpf::config::{RUN_CGROUP_RULES, RUN_PATH_RULES, RUN_USER_RULES};
use agent_monitor_ebpf::task::{BoundBy, SHADOW, SPARED};

use super::{CgroupName, EMPTY, MatchImage, Resolve};
use crate::attribute::matcher::Matcher;

/// Most programs: the kernel's table holds two generations of rules, those of records among them.
pub const PROGRAMS_MAX: usize = 2048;

/// What is met at an exec, and where it is let alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shadows {
    /// Programs and scripts, as canonical paths.
    pub programs: BTreeSet<Vec<u8>>,
    /// Users that are let alone.
    pub users: BTreeSet<u32>,
    /// Units that are let alone.
    pub units: BTreeSet<String>,
}

impl MatchImage {
    /// Adds them. How many programs the kernel meets at their exec; the rest is recognised later, among them what `matcher`
    /// has yet to compare with the rules of records.
    pub fn add_shadows(&mut self, shadows: &Shadows, matcher: &Matcher, host: &mut dyn Resolve) -> usize {
        let found = MatchEntry { bound_by: BoundBy::Exe as u32, ..entry(SHADOW) };
        let mut count = 0;
        for program in shadows.programs.iter().take(PROGRAMS_MAX) {
            let mut names = host.aliases(program);
            names.push(program.clone());
            let Some(location) = host.locate(program).filter(|_| !matcher.may_claim(&names)) else {
                continue;
            };
            let entries = self.paths.entry(location).or_default();
            if entries.len() >= MATCHES {
                continue;
            }
            entries.push(found);
            count += 1;
            // Where the kernel does not show a script, the text that it was started by does.
            for text in names {
                let entries = self.exec_texts.entry(text).or_default();
                if entries.len() < MATCHES {
                    entries.push(found);
                }
            }
        }
        if count == 0 {
            return 0;
        }
        self.flags |= RUN_PATH_RULES;
        for uid in &shadows.users {
            self.users.entry(*uid).or_insert_with(|| vec![entry(SPARED)]);
            self.flags |= RUN_USER_RULES;
        }
        for unit in &shadows.units {
            let group = self.cgroups.entry(CgroupName::Leaf(unit.clone())).or_insert(EMPTY);
            if group.agent == 0 {
                group.agent = SPARED;
            }
            self.flags |= RUN_CGROUP_RULES;
        }
        count
    }
}

/// An entry without a condition.
const fn entry(agent: u32) -> MatchEntry {
    let flags = AS_EXE | AS_SCRIPT;
    MatchEntry { ino: 0, ctime_sec: 0, ctime_nsec: 0, agent, uid: 0, cgroup_rule: 0, flags, bound_by: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::mounts::Location;
    use crate::registry::record::{Sha256, UserRef};

    struct Host;

    impl Resolve for Host {
        fn canonical(&mut self, path: &[u8]) -> Vec<u8> {
            path.to_vec()
        }
        fn locate(&mut self, canonical: &[u8]) -> Option<Location> {
            (!canonical.starts_with(b"/gone")).then(|| Location { dev: 1, inner: canonical.to_vec() })
        }
        fn aliases(&mut self, canonical: &[u8]) -> Vec<Vec<u8>> {
            if canonical == b"/opt/codex.js" { vec![b"/usr/bin/codex".to_vec()] } else { Vec::new() }
        }
        fn verify(&mut self, _: &[u8], _: &Sha256) -> Option<crate::attribute::matcher::FileId> {
            None
        }
        fn uid(&mut self, _: &UserRef) -> Option<u32> {
            None
        }
        fn containers(&mut self, _: &str) -> Vec<String> {
            Vec::new()
        }
    }

    fn shadows(programs: &[&str]) -> Shadows {
        Shadows {
            programs: programs.iter().map(|path| path.as_bytes().to_vec()).collect(),
            users: [7, 8].into(),
            units: ["ci.service".to_owned()].into(),
        }
    }

    #[test]
    fn rules_of_records_go_first_and_exceptions_yield_to_them() {
        let mut image = MatchImage::default();
        let at = Location { dev: 1, inner: b"/opt/codex.js".to_vec() };
        let own = entry(3);
        image.paths.insert(at.clone(), vec![own]);
        image.users.insert(7, vec![own]);
        let count =
            image.add_shadows(&shadows(&["/opt/codex.js", "/gone/x"]), &Matcher::default(), &mut Host);
        assert_eq!(count, 1);
        let agents: Vec<u32> = image.paths[&at].iter().map(|entry| entry.agent).collect();
        assert_eq!(agents, [3, SHADOW]);
        assert_eq!((image.users[&7][0].agent, image.users[&8][0].agent), (3, SPARED));
        assert_eq!(image.cgroups[&CgroupName::Leaf("ci.service".to_owned())].agent, SPARED);
        let texts: Vec<&[u8]> = image.exec_texts.keys().map(Vec::as_slice).collect();
        assert_eq!(texts, [&b"/opt/codex.js"[..], b"/usr/bin/codex"]);
        assert_eq!(image.flags, RUN_PATH_RULES | RUN_USER_RULES | RUN_CGROUP_RULES);
    }

    #[test]
    fn a_full_place_and_no_program_change_nothing() {
        let mut image = MatchImage::default();
        let at = Location { dev: 1, inner: b"/opt/x".to_vec() };
        image.paths.insert(at.clone(), vec![entry(5); MATCHES]);
        let before = image.clone();
        assert_eq!(image.add_shadows(&shadows(&["/opt/x"]), &Matcher::default(), &mut Host), 0);
        assert_eq!(image, before);
    }
}
