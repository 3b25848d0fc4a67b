//! The registry as a sweep needs it: which process and which file a record speaks of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::correlate;
use super::proc::Proc;
use crate::attribute::image::compile;
use crate::attribute::matcher::{Facts, Matcher};
use crate::attribute::{Agents, MountTable};
use crate::registry::record::UserRef;
use crate::registry::{Loaded, Mode, Record};
use crate::run::host::{LiveResolve, mountinfo};

/// One rule over files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileRule {
    agent: String,
    path: String,
    user: Option<UserRef>,
    expired: bool,
}

/// Records, compiled as the daemon does.
#[derive(Debug, Default)]
pub struct Register {
    matcher: Matcher,
    expired: Matcher,
    names: BTreeMap<u32, String>,
    files: Vec<FileRule>,
    users: BTreeMap<String, u32>,
    unreadable: Option<String>,
    retired: BTreeSet<String>,
}

impl Register {
    /// A registry that cannot be read, and why: nothing can be said of anything.
    #[must_use]
    pub fn unreadable(why: String) -> Self {
        Self { unreadable: Some(why), ..Self::default() }
    }

    /// Takes the ids that a person has retired; their records may still be there.
    #[must_use]
    pub fn with_retired(self, retired: BTreeSet<String>) -> Self {
        Self { retired, ..self }
    }

    /// Why nothing is known, where that is so.
    #[must_use]
    pub fn why_unreadable(&self) -> Option<&str> {
        self.unreadable.as_deref()
    }

    /// Compiles the good records, and apart from them those whose only mistake is that they have expired.
    #[must_use]
    pub fn new(loaded: &Loaded) -> Self {
        let expired: Vec<Record> = loaded
            .refused
            .iter()
            .filter(|refused| refused.is_only_expired())
            .filter_map(|refused| refused.record.as_deref().cloned())
            .collect();
        let mut agents = Agents::default();
        let all = loaded.records.iter().chain(&expired);
        agents.register(all.map(|record| (record.id.value.as_str(), record.mode.value).into_mode()));
        let mounts = MountTable::parse(&mountinfo().unwrap_or_default());
        let mut hashes = BTreeMap::new();
        let mut compiled = |records: &[Record]| {
            compile(records, &agents, &mut LiveResolve::new(&mounts, &mut hashes)).matcher
        };
        let (matcher, expired_matcher) = (compiled(&loaded.records), compiled(&expired));
        let mut register = Self { matcher, expired: expired_matcher, ..Self::default() };
        register.names = agents.registered().map(|(index, id)| (index, id.to_owned())).collect();
        for (records, expired) in [(&loaded.records, false), (&expired, true)] {
            records.iter().for_each(|record| register.file_rules(record, expired));
        }
        register
    }

    fn file_rules(&mut self, record: &Record, expired: bool) {
        use crate::registry::{HostFacts as _, LinuxFacts};
        for found in &record.matches {
            let Some(path) = found.script.as_ref().or(found.exe.as_ref()) else { continue };
            let user = found.user.as_ref().map(|user| user.value.clone());
            if let Some(UserRef::Name(name)) = &user
                && let Some(known) = LinuxFacts.user_by_name(name).found()
            {
                self.users.insert(name.clone(), known.uid);
            }
            let canonical = std::fs::canonicalize(Path::new(path.as_str()));
            let canonical = canonical.ok().and_then(|path| path.to_str().map(str::to_owned));
            for path in [Some(path.value.clone()), canonical].into_iter().flatten() {
                let agent = record.id.value.as_str().to_owned();
                self.files.push(FileRule { agent, path, user: user.clone(), expired });
            }
        }
    }

    /// The agent that a record makes of a process.
    #[must_use]
    pub fn of_process(&self, proc: &Proc, script: Option<&str>) -> Option<(String, bool)> {
        // In another mount namespace the same path is another file.
        let own = |path: Option<&str>| path.filter(|_| !proc.elsewhere).map(crate::model::text::unescape);
        let (exe, script) = (own(proc.exe.as_deref()), own(script));
        let args: Vec<Vec<u8>> = proc.args.iter().map(|arg| crate::model::text::unescape(arg)).collect();
        let id = |path: &Option<Vec<u8>>| {
            use std::os::unix::ffi::OsStrExt as _;
            use std::os::unix::fs::MetadataExt as _;
            let path = Path::new(std::ffi::OsStr::from_bytes(path.as_deref()?));
            let meta = std::fs::metadata(path).ok()?;
            let ctime_nsec = u32::try_from(meta.ctime_nsec()).unwrap_or(0);
            Some(crate::attribute::matcher::FileId { ino: meta.ino(), ctime_sec: meta.ctime(), ctime_nsec })
        };
        let facts = Facts {
            exe: exe.as_deref(),
            script: script.as_deref(),
            args: &args,
            uid: proc.uid,
            cgroup: proc.cgroup.as_deref(),
            exe_id: if self.matcher.needs_files() { id(&exe) } else { None },
            script_id: if self.matcher.needs_files() { id(&script) } else { None },
        };
        let found = |matcher: &Matcher, expired| {
            let rule = matcher.find(&facts)?;
            Some((self.names.get(&rule.agent)?.clone(), expired))
        };
        found(&self.matcher, false).or_else(|| found(&self.expired, true))
    }
}

impl correlate::Registered for Register {
    fn is_retired(&self, agent: &str) -> bool {
        self.retired.contains(agent)
    }

    fn of_paths(&self, paths: &[String], uid: Option<u32>) -> Option<(String, bool)> {
        let below = |file: &str, dir: &str| {
            file.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let fits_user = |rule: &FileRule| match (&rule.user, uid) {
            (None, _) | (_, None) => true,
            (Some(UserRef::Uid(wanted)), Some(uid)) => *wanted == uid,
            (Some(UserRef::Name(name)), Some(uid)) => self.users.get(name) == Some(&uid),
        };
        let rule = self
            .files
            .iter()
            .filter(|rule| fits_user(rule) && paths.iter().any(|path| below(&rule.path, path)))
            .min_by_key(|rule| rule.expired)?;
        Some((rule.agent.clone(), rule.expired))
    }
}

/// `Agents::register` takes pairs.
trait IntoMode<'a> {
    fn into_mode(self) -> (&'a str, crate::model::Mode);
}

impl<'a> IntoMode<'a> for (&'a str, Mode) {
    fn into_mode(self) -> (&'a str, crate::model::Mode) {
        let mode = match self.1 {
            Mode::Enforce => crate::model::Mode::Enforce,
            Mode::Observe => crate::model::Mode::Observe,
        };
        (self.0, mode)
    }
}
