//! Stable other names for users, hosts and paths, for exports to outsiders.
//!
//! The same name becomes the same pseudonym in every export of this host, because it is hashed with the host's own key;
//! nobody without that key can try names. What could hold a name of any sort (arguments, free text of findings and
//! approvals) is renamed as a whole. Digests over what is renamed are left out: they would confirm a guess. For the same
//! reason the log's seal cannot prove a renamed record.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{Event, Network, Privilege, Process, Time};
use crate::redact::Redactor;

/// What is renamed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct What {
    /// User names and numbers, but root's, and home directories.
    pub users: bool,
    /// Names and addresses of this host and of peers, and container ids.
    pub hosts: bool,
    /// Each part of a path but the first.
    pub paths: bool,
}

impl What {
    /// In words.
    #[must_use]
    pub fn words(self) -> Vec<String> {
        let all = [(self.users, "users"), (self.hosts, "hosts"), (self.paths, "paths")];
        all.into_iter().filter(|(chosen, _)| *chosen).map(|(_, word)| word.to_owned()).collect()
    }
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

    /// What is renamed.
    #[must_use]
    pub fn what(&self) -> What {
        self.what
    }

    fn name(&self, kind: &str, text: &str) -> String {
        format!("{kind}-{}", self.redactor.pseudonym(text))
    }

    /// A host's name.
    #[must_use]
    pub fn host(&self, name: &str) -> String {
        if self.what.hosts && !name.is_empty() { self.name("host", name) } else { name.to_owned() }
    }

    /// The origin of a log, or the name of its key: `agent-monitor/HOST`, and what follows.
    #[must_use]
    pub fn origin(&self, origin: &str) -> String {
        let mut parts: Vec<String> = origin.split('/').map(str::to_owned).collect();
        if let Some(host) = parts.get_mut(1) {
            *host = self.host(host);
        }
        parts.join("/")
    }

    /// A user's name, or how a person is named in the record.
    #[must_use]
    pub fn user(&self, name: &str) -> String {
        let root = name == "root" || name.starts_with("root (") || name == "uid 0" || name.is_empty();
        if self.what.users && !root { self.name("user", name) } else { name.to_owned() }
    }

    /// A path; what is none stays.
    #[must_use]
    pub fn path(&self, path: &str) -> String {
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

    /// One argument or word: a path, a bare option, or something that may name anything.
    fn word(&self, word: &str) -> String {
        let option = |text: &str| {
            text.starts_with('-') && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        match word.split_once('=') {
            _ if word.starts_with('/') => self.path(word),
            _ if word.is_empty() || word.starts_with("[redacted:") => word.to_owned(),
            // `-ucarol` is an option and its value.
            None if option(word) && (word.starts_with("--") || word.len() == 2) => word.to_owned(),
            Some((name, value)) if option(name) => format!("{name}={}", self.word(value)),
            _ => self.name("word", word),
        }
    }

    /// A command line.
    #[must_use]
    pub fn args(&self, args: &[String]) -> Vec<String> {
        // The first is the program's own name, by which it is known anyway.
        let first = args.first().map(|name| if name.contains('/') { self.path(name) } else { name.clone() });
        first.into_iter().chain(args.iter().skip(1).map(|arg| self.word(arg))).collect()
    }

    /// Renames in an event.
    pub fn event(&self, event: &mut Event) {
        if let Some(process) = &mut event.process {
            self.process(Arc::make_mut(process));
        }
        if let Some(file) = &mut event.file {
            [&mut file.path, &mut file.new_path]
                .into_iter()
                .flatten()
                .for_each(|path| *path = self.path(path));
            file.change = file.change.as_ref().map(|change| self.change(change));
        }
        if let Some(network) = &mut event.network {
            self.network(network);
        }
        if let Some(privilege) = &mut event.privilege {
            self.privilege(privilege);
        }
        if let Some(hold) = &mut event.hold {
            hold.digest = String::new();
        }
        if let Some(detail) = &mut event.detail {
            detail.retain(|key, _| !matches!(key.as_str(), "record" | "command_line" | "digest"));
            detail.iter_mut().for_each(|(key, value)| self.detail(key, value));
        }
        event.unattributed_reason = event.unattributed_reason.as_ref().map(|reason| self.text(reason));
    }

    fn process(&self, process: &mut Process) {
        if self.what.users {
            process.user = process.user.as_ref().map(|user| self.user(user));
            process.uid = process.uid.filter(|uid| *uid == 0);
            process.gid = process.gid.filter(|gid| *gid == 0);
            process.cgroup = process.cgroup.as_ref().map(|cgroup| self.name("cgroup", cgroup));
            process.unit = process.unit.as_ref().map(|unit| self.name("unit", unit));
        }
        if self.what.hosts {
            // A container's name in its control group is the same id.
            process.cgroup = process.cgroup.as_ref().map(|cgroup| self.name("cgroup", cgroup));
            process.container = process.container.as_ref().map(|id| self.name("container", id));
        }
        process.args_sha256 = None;
        process.args = self.args(&process.args);
        let ancestors = process.ancestry.iter_mut().map(|parent| &mut parent.exe);
        let own = [&mut process.exe, &mut process.cwd, &mut process.script];
        own.into_iter().chain(ancestors).flatten().for_each(|path| *path = self.path(path));
    }

    /// `mode=0644` says nothing of people; an owner does, and so may the name of an attribute.
    fn change(&self, change: &str) -> String {
        match change.split_once('=') {
            Some(("mode" | "size", _)) => change.to_owned(),
            Some((what, value)) => format!("{what}={}", self.name("value", value)),
            None => self.name("value", change),
        }
    }

    fn network(&self, network: &mut Network) {
        network.path = network.path.as_ref().map(|path| self.path(path));
        network.abstract_name = network.abstract_name.as_ref().map(|name| self.name("socket", name));
        if !self.what.hosts {
            return;
        }
        network.name = network.name.as_ref().map(|name| self.host(name));
        network.query = network.query.as_ref().map(|name| self.host(name));
        // An address has no form for a pseudonym: its name takes its place.
        let remote = network.remote.take().map(|remote| self.name("peer", &remote.ip().to_string()));
        network.name = network.name.take().or(remote);
        network.local = None;
        network.answers.clear();
    }

    fn privilege(&self, privilege: &mut Privilege) {
        if let Some(target) = &mut privilege.target {
            target.exe = target.exe.as_ref().map(|exe| self.path(exe));
        }
        let paths = [&mut privilege.object, &mut privilege.mount_point];
        paths.into_iter().flatten().for_each(|path| {
            // What is mounted may be a share of another host.
            *path = if path.starts_with('/') { self.path(path) } else { self.name("object", path) };
        });
        if self.what.users {
            let ids = [
                &mut privilege.old_uid,
                &mut privilege.new_uid,
                &mut privilege.old_gid,
                &mut privilege.new_gid,
            ];
            ids.into_iter().for_each(|id| *id = id.filter(|id| *id == 0));
        }
    }

    /// Free text: what begins like a path is one, every other word may name anything.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        text.split(' ').map(|word| self.word(word)).collect::<Vec<_>>().join(" ")
    }

    /// What is under `key` in a finding, an approval, or a record of the log about itself.
    pub fn detail(&self, key: &str, value: &mut Value) {
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(_) => {
                if self.what.users && (key.ends_with("uid") || key.ends_with("gid")) {
                    *value = Value::Null;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.detail(key, item)),
            // What the host could see is of the kernel, not of people.
            Value::Object(_) if key == "doctor" => {}
            Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| self.detail(key, value)),
            Value::String(text) => *text = self.detail_text(key, text),
        }
    }

    fn detail_text(&self, key: &str, text: &str) -> String {
        // Words of this program and ids that it made: they name nobody.
        let own = matches!(
            key,
            "agent"
                | "session"
                | "approval"
                | "grant"
                | "id"
                | "kind"
                | "mode"
                | "verdict"
                | "state"
                | "level"
                | "before"
                | "product"
                | "family"
                | "sync"
                | "clock"
                | "kernel"
                | "os"
                | "lost"
                | "rule"
                | "sha256"
                | "program_sha256"
        );
        match key {
            _ if own || text.parse::<Time>().is_ok() => text.to_owned(),
            "host" | "machine_id" | "boot_id" => self.host(text),
            "by" | "user" | "owner" | "approvers" | "started_by" | "need" | "votes" => self.user(text),
            _ if text.starts_with('/') && !text.contains(' ') => self.path(text),
            _ => self.text(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::export::ocsf::tests::full;
    use crate::model::{File, Hold, Kind, Source};

    fn names(users: bool, hosts: bool, paths: bool) -> Pseudonyms {
        Pseudonyms::new(What { users, hosts, paths }, Redactor::new([1; 32], &[]).unwrap())
    }

    #[test]
    fn the_same_name_is_the_same_pseudonym_and_nothing_else_is_left() {
        let names = names(true, true, true);
        let mut event = Event::new(Time::EPOCH, Kind::FileOpen, Source::Lsm);
        event.process = Some(Arc::new(Process {
            user: Some("carol".into()),
            uid: Some(1007),
            args: vec!["cat".into(), "--in=/home/carol/a".into(), "-l".into(), "carol".into()],
            ..Process::default()
        }));
        event.file = Some(File { path: Some("/home/carol/a".into()), ..File::default() });
        event.network = Some(Network { remote: "10.1.2.3:443".parse().ok(), ..Network::default() });
        names.event(&mut event);
        let line = event.to_line().unwrap();
        assert!(!line.contains("carol") && !line.contains("10.1.2.3") && !line.contains("1007"), "{line}");
        let process = event.process.unwrap();
        assert_eq!(process.args[1].strip_prefix("--in="), event.file.unwrap().path.as_deref());
        assert_eq!((process.args[0].as_str(), process.args[2].as_str()), ("cat", "-l"));
        assert_eq!(names.host("a"), names.host("a"));
    }

    /// Every field of every kind that can hold what a user, a host or a path is called.
    fn named(kind: Kind) -> Event {
        let (path, word) = ("/srv/xsecretx/f", "xsecretx");
        let mut event = full(kind);
        let process = Arc::make_mut(event.process.as_mut().unwrap());
        process.user = Some(word.into());
        (process.uid, process.gid) = (Some(73_501), Some(73_501));
        process.args =
            ["p", word, "-uxsecretx", "--x=xsecretx", path, "me@xsecretx:/f"].map(str::to_owned).into();
        process.args_sha256 = Some("xsecretx".into());
        let paths = [&mut process.exe, &mut process.cwd, &mut process.script];
        paths.into_iter().for_each(|place| *place = Some(path.into()));
        for text in [&mut process.container, &mut process.unit, &mut process.cgroup] {
            *text = Some(word.into());
        }
        process.ancestry.iter_mut().for_each(|parent| parent.exe = Some(path.into()));
        if let Some(file) = &mut event.file {
            (file.path, file.new_path) = (Some(path.into()), Some(path.into()));
            file.change = Some("owner=73501:xsecretx".into());
        }
        if let Some(network) = &mut event.network {
            (network.name, network.query) = (Some(word.into()), Some(word.into()));
            (network.path, network.abstract_name) = (Some(path.into()), Some(word.into()));
            network.remote = "198.51.100.73:1".parse().ok();
            network.local = network.remote;
            network.answers = vec!["198.51.100.73".parse().unwrap()];
        }
        if let Some(privilege) = &mut event.privilege {
            (privilege.object, privilege.mount_point) = (Some("xsecretx:/share".into()), Some(path.into()));
            (privilege.old_uid, privilege.new_uid) = (Some(73_501), Some(73_501));
            (privilege.old_gid, privilege.new_gid) = (Some(73_501), Some(73_501));
            privilege.target.as_mut().unwrap().exe = Some(path.into());
        }
        event.hold = Some(Hold { digest: "xsecretx".into(), held: true, again: false });
        event.unattributed_reason = Some(word.into());
        let detail = json!({
            "by": "xsecretx (uid 73501)", "uid": 73501, "why": "for xsecretx", "path": path, "host": word,
            "record": word, "votes": [word], "nested": {"any": word, "list": [path]}, "command_line": word
        });
        event.detail = detail.as_object().cloned();
        event
    }

    #[test]
    fn no_name_is_left_in_any_field_of_any_kind() {
        for kind in Kind::ALL {
            let mut event = named(*kind);
            names(true, true, true).event(&mut event);
            let line = event.to_line().unwrap();
            for name in ["xsecretx", "73501", "198.51.100"] {
                assert!(!line.contains(name), "{kind}: {line}");
            }
            assert_eq!(event.agent, full(*kind).agent, "whom it is about stays");
        }
        // What was not asked to be renamed stays.
        let mut event = named(Kind::NetworkConnect);
        names(true, false, false).event(&mut event);
        let line = event.to_line().unwrap();
        assert!(
            line.contains("198.51.100.73") && line.contains("/srv/xsecretx/f") && !line.contains("73501"),
            "{line}"
        );
        assert_eq!(names(true, true, true).origin("agent-monitor/xsecretx/1").split('/').count(), 3);
    }
}
