//! A host made of lists, for tests.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::facts::{Group, HostFacts, Lookup, PathKind, User};

/// Two users, one group, one unit, no files unless listed.
#[derive(Debug, Default)]
pub(crate) struct FakeHost {
    pub(crate) users: Vec<User>,
    pub(crate) groups: BTreeMap<String, Group>,
    pub(crate) units: Option<Vec<String>>,
    pub(crate) paths: BTreeMap<String, PathKind>,
    /// Symbolic links and where they lead.
    pub(crate) links: BTreeMap<String, String>,
    pub(crate) callers: Vec<u32>,
}

impl FakeHost {
    pub(crate) fn new() -> Self {
        let user = |name: &str, uid| User { name: name.to_owned(), uid, gid: uid };
        let oncall = Group { gid: 500, members: vec!["alice".to_owned()] };
        Self {
            users: vec![user("bot", 1001), user("alice", 1002)],
            groups: BTreeMap::from([("oncall".to_owned(), oncall)]),
            units: Some(vec!["bot.service".to_owned()]),
            paths: BTreeMap::new(),
            links: BTreeMap::new(),
            callers: vec![0],
        }
    }

    pub(crate) fn with_file(mut self, path: &str, ino: u64) -> Self {
        self.paths.insert(path.to_owned(), PathKind::File { dev: 1, ino });
        self
    }
}

fn lookup<T: Clone>(found: Option<&T>) -> Lookup<T> {
    found.cloned().map_or(Lookup::Absent, Lookup::Found)
}

impl HostFacts for FakeHost {
    fn user_by_name(&self, name: &str) -> Lookup<User> {
        lookup(self.users.iter().find(|user| user.name == name))
    }

    fn user_by_uid(&self, uid: u32) -> Lookup<User> {
        lookup(self.users.iter().find(|user| user.uid == uid))
    }

    fn group_by_name(&self, name: &str) -> Lookup<Group> {
        lookup(self.groups.get(name))
    }

    fn unit(&self, name: &str) -> Lookup<()> {
        match &self.units {
            None => Lookup::Unavailable("systemd does not run here".to_owned()),
            Some(units) if units.iter().any(|unit| unit == name) => Lookup::Found(()),
            Some(_) => Lookup::Absent,
        }
    }

    fn path(&self, path: &Path) -> PathKind {
        let path = path.to_string_lossy();
        self.paths.get(path.as_ref()).copied().unwrap_or(PathKind::Missing)
    }

    fn real_path(&self, path: &Path) -> Option<PathBuf> {
        self.links.get(path.to_string_lossy().as_ref()).map(PathBuf::from)
    }

    fn callers(&self) -> Vec<u32> {
        self.callers.clone()
    }
}

/// A record with these lines after the required part; `id` is its id and its executable.
pub(crate) fn record_text(id: &str, agent: &str, rest: &str) -> String {
    format!(
        "[agent]\nid = \"{id}\"\nowner = \"team@example.com\"\npurpose = \"test\"\nexpires = 2030-01-01T00:00:00Z\n{agent}\n{rest}\n"
    )
}

/// The time in tests: 2029-01-01.
pub(crate) fn now() -> jiff::Timestamp {
    "2029-01-01T00:00:00Z".parse().unwrap()
}
