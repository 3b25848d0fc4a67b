//! Stable other names for users, hosts and paths, for exports to outsiders.
//!
//! The same name becomes the same pseudonym in every export of this host, because it is hashed with the host's own key;
//! nobody without that key can try names. What is proven by the log's seal cannot be renamed: a bundle is not.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::Event;
use crate::redact::Redactor;

/// What is renamed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct What {
    /// User names and numbers, and home directories.
    pub users: bool,
    /// Peers' names and addresses.
    pub hosts: bool,
    /// Each part of a path but the first.
    pub paths: bool,
}

/// Renames.
#[derive(Debug)]
pub struct Pseudonyms {
    what: What,
    redactor: Redactor,
}

impl Pseudonyms {
    /// With the host's key.
    #[must_use]
    pub fn new(what: What, redactor: Redactor) -> Self {
        Self { what, redactor }
    }

    fn name(&self, kind: &str, text: &str) -> String {
        format!("{kind}-{}", self.redactor.tag(text))
    }

    /// A host's name.
    #[must_use]
    pub fn host(&self, name: &str) -> String {
        if self.what.hosts { self.name("host", name) } else { name.to_owned() }
    }

    fn path(&self, path: &str) -> String {
        let mut parts: Vec<String> = path.split('/').map(str::to_owned).collect();
        let home = parts.get(1).is_some_and(|part| part == "home");
        for (at, part) in parts.iter_mut().enumerate().filter(|(_, part)| !part.is_empty()) {
            if self.what.paths && at > 1 {
                *part = self.name("p", part);
            } else if self.what.users && home && at == 2 {
                *part = self.name("user", part);
            }
        }
        parts.join("/")
    }

    fn text(&self, text: &str) -> String {
        let words = text.split(' ').map(|word| match word.find('/') {
            Some(at) if self.what.paths || self.what.users => {
                format!(
                    "{}{}",
                    word.get(..at).unwrap_or_default(),
                    self.path(word.get(at..).unwrap_or_default())
                )
            }
            _ => word.to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Renames in an event.
    pub fn event(&self, event: &mut Event) {
        if let Some(process) = &mut event.process {
            let process = Arc::make_mut(process);
            if self.what.users {
                process.user = process.user.as_ref().map(|user| self.name("user", user));
                process.uid = None;
                process.gid = None;
                process.args_sha256 = None;
            }
            if self.what.users || self.what.paths {
                process.args.iter_mut().for_each(|arg| *arg = self.text(arg));
                for path in [&mut process.exe, &mut process.cwd, &mut process.script].into_iter().flatten() {
                    *path = self.path(path);
                }
                process
                    .ancestry
                    .iter_mut()
                    .filter_map(|parent| parent.exe.as_mut())
                    .for_each(|exe| *exe = self.path(exe));
            }
        }
        if let Some(file) = &mut event.file {
            [&mut file.path, &mut file.new_path]
                .into_iter()
                .flatten()
                .for_each(|path| *path = self.path(path));
        }
        if let Some(network) = &mut event.network {
            network.path = network.path.as_ref().map(|path| self.path(path));
            if self.what.hosts {
                network.name = network.name.as_ref().map(|name| self.name("host", name));
                network.query = network.query.as_ref().map(|name| self.name("host", name));
                // An address has no form for a pseudonym: its name takes its place.
                let remote = network.remote.take().map(|remote| self.name("peer", &remote.ip().to_string()));
                network.name = network.name.take().or(remote);
                network.local = None;
                network.answers.clear();
            }
        }
        if let Some(privilege) = &mut event.privilege {
            let paths = [&mut privilege.object, &mut privilege.mount_point];
            paths.into_iter().flatten().for_each(|path| *path = self.path(path));
        }
        if let Some(detail) = &mut event.detail {
            // Free text may hold anything.
            detail.retain(|key, _| {
                !matches!(key.as_str(), "record" | "command_line" | "doctor" | "host" | "machine_id")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{File, Kind, Network, Process, Source, Time};

    #[test]
    fn the_same_name_is_the_same_pseudonym_and_nothing_else_is_left() {
        let what = What { users: true, hosts: true, paths: true };
        let names = Pseudonyms::new(what, Redactor::new([1; 32], &[]).unwrap());
        let mut event = Event::new(Time::EPOCH, Kind::FileOpen, Source::Lsm);
        event.process = Some(Arc::new(Process {
            user: Some("carol".into()),
            uid: Some(1007),
            args: vec!["cat".into(), "--in=/home/carol/a".into()],
            ..Process::default()
        }));
        event.file = Some(File { path: Some("/home/carol/a".into()), ..File::default() });
        event.network = Some(Network { remote: "10.1.2.3:443".parse().ok(), ..Network::default() });
        names.event(&mut event);
        let line = event.to_line().unwrap();
        assert!(!line.contains("carol") && !line.contains("10.1.2.3") && !line.contains("1007"), "{line}");
        let process = event.process.unwrap();
        assert_eq!(process.args[1].strip_prefix("--in="), event.file.unwrap().path.as_deref());
        assert_eq!(names.host("a"), names.host("a"));
    }
}
