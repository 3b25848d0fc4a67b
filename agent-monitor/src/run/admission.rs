//! What the registry gives: read, decided by [`in_force::decide`], kept, and tried out before anything is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::core::{Book, Core, lock};
use super::host::LiveResolve;
use super::reload::{ReloadError, mode};
use crate::attribute::backfill::Plan;
use crate::attribute::boot;
use crate::attribute::image::compile;
use crate::control::ApiError;
use crate::control::api::{CheckReply, CheckRequest, RefusedRecord, Reloaded, StaleAgent};
use crate::model::{Kind, SCHEMA_VERSION, Time};
use crate::people::who::Person;
use crate::registry::in_force::{self, Decision, Disk, Kept, Rules, Set};
use crate::registry::load::{Candidate, Trust, read_candidates};
use crate::registry::report::diagnostics_text;
use crate::registry::{
    AgentId, Code, Diagnostic, LinuxFacts, LoadError, Loaded, Record, Refused, Severity, diff, parse_record,
};
use crate::scope::hold::{self, RuleCounts};
use crate::scope::{self};

/// Processes that a dry run names.
const NAMED_MAX: usize = 1000;

/// The agents of a set that are under their last good record.
pub(super) fn stale_agents(set: &Set) -> Vec<StaleAgent> {
    set.iter().filter_map(|(id, kept)| stale_agent(id, kept)).collect()
}

/// What is said of an agent that is under its last good record.
pub(super) fn stale_agent(id: &AgentId, kept: &Kept) -> Option<StaleAgent> {
    let stale = kept.stale.as_ref()?;
    let file = kept.record.file();
    Some(StaleAgent {
        agent: id.as_str().to_owned(),
        file: file.display().to_string(),
        reason: stale.reason.clone(),
        since: Time::from(stale.since),
        cure: stale.cure(id, file),
    })
}

/// An error with its causes in one line.
fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl Core {
    /// Decides what is to be in force by what is on disk now. Changes nothing but marks of what is stale, and these only
    /// where the whole is refused.
    pub(super) fn decide(
        &self,
        book: &mut Book,
        without: &BTreeMap<AgentId, String>,
    ) -> Result<Decision, LoadError> {
        let disk = self.read_disk(book)?;
        book.seen = fingerprint(&disk);
        let decision = self.decide_for(&disk, &book.kept, without);
        let bad = decision.refused.iter().filter(|refused| !refused.is_only_expired());
        let bad: Vec<Refused> = bad.cloned().collect();
        if self.config.strict && !bad.is_empty() {
            for (id, kept) in &mut book.kept {
                let now_stale = decision.set.get(id).and_then(|decided| decided.stale.clone());
                kept.stale = now_stale.or(kept.stale.take());
            }
            book.loaded.refused.clone_from(&decision.refused);
            self.health.stale(stale_agents(&book.kept).len() as u64);
            return Err(LoadError::Strict { refused: bad });
        }
        Ok(decision)
    }

    fn decide_for(&self, disk: &Disk, before: &Set, without: &BTreeMap<AgentId, String>) -> Decision {
        let (facts, now, level) = (LinuxFacts, self.clock.now().timestamp(), self.report.level);
        let judge = |record: &Record| {
            let mut problems = in_force::judge(record, &facts, now, Some(level));
            problems.extend(without.get(&record.id.value).map(|reason| {
                let hint = "fewer rules, or fewer agents; agent-monitor doctor shows the tables";
                Diagnostic::new(&record.source, Severity::Error, Code::NoRoom, record.id.at, reason)
                    .hint(hint)
            }));
            problems
        };
        let retired = |id: &AgentId| self.is_retired(id.as_str());
        in_force::decide(disk, before, &Rules { facts: &facts, judge: &judge, retired: &retired, now })
    }

    fn read_disk(&self, book: &Book) -> Result<Disk, LoadError> {
        let dir = &self.config.registry;
        match read_candidates(dir, Trust::Required) {
            Ok(files) => Ok(Disk::Files(files)),
            Err(error) if !book.kept.is_empty() => {
                tracing::error!(error = in_one_line(&error), "the records in force stay");
                Ok(Disk::Unreadable(in_one_line(&error)))
            }
            Err(LoadError::Directory { source, .. })
                if source.kind() == io::ErrorKind::NotFound
                    && dir.as_path() == Path::new(crate::config::REGISTRY) =>
            {
                tracing::info!(path = %dir.display(), "no registry yet: no agents");
                Ok(Disk::Files(Vec::new()))
            }
            Err(error) => Err(error),
        }
    }

    /// Parts a set into what may act and what is over. The programs of agents that are over are still recognised as theirs,
    /// and may do nothing: a record that is only left out would set them free.
    pub(super) fn split(
        &self,
        set: &Set,
        mut refused: Vec<Refused>,
        warnings: Vec<Diagnostic>,
    ) -> (Loaded, Vec<Record>) {
        let now = self.moment();
        let (mut records, mut dead) = (Vec::new(), Vec::new());
        for (id, Kept { record, .. }) in set {
            let retired = self.is_retired(id.as_str());
            if !retired && !self.is_over(record, now) {
                records.push(record.clone());
                continue;
            }
            if retired {
                let hint = "a retired id is never used again: give the agent another id, or remove the file";
                let problem = format!("agent `{id}` is retired");
                let at = record.id.at;
                let problem = Diagnostic::new(&record.source, Severity::Error, Code::Retired, at, problem);
                refused.push(Refused {
                    path: record.file().to_path_buf(),
                    record: Some(Box::new(record.clone())),
                    diagnostics: vec![problem.hint(hint)],
                });
            }
            let mut over = record.clone();
            over.mode.value = crate::registry::Mode::Enforce;
            let nothing = scope::Verdict::Deny;
            over.scope = scope::Scope { declared: true, default: nothing, ..scope::Scope::default() };
            dead.push(over);
        }
        for problem in refused.iter().flat_map(|refused| &refused.diagnostics).chain(&warnings) {
            tracing::warn!("{}:{}: {}", problem.file.display(), problem.at, problem.message);
        }
        (Loaded { records, refused, warnings }, dead)
    }

    /// Keeps the texts of a set for a restart, where it differs from the one that is kept.
    pub(super) fn keep(&self, set: &Set, kept: &Set) {
        if set == kept
            && set.iter().zip(kept).all(|((_, a), (_, b))| a.record.source.text() == b.record.source.text())
        {
            return;
        }
        if let Err(error) = self.state.keep(set) {
            tracing::error!(%error, "a restart may not find the records that are in force now");
        }
    }

    /// Records which agents came under their last good record, and which left it.
    pub(super) fn note_stale(&self, before: &Set, now: &Set, refused: &[RefusedRecord]) {
        let of = |set: &Set, id: &AgentId| set.get(id).and_then(|kept| kept.stale.clone());
        for (id, kept) in now {
            let (was, is) = (of(before, id), &kept.stale);
            let file = kept.record.file().display().to_string();
            let mut event = match (&was, is) {
                (_, Some(stale)) if was.as_ref().is_none_or(|was| was.reason != stale.reason) => {
                    // One event per refused file is enough: that one says so already.
                    let named = refused.iter().any(|refused| refused.file == file);
                    let reason = match named {
                        true => "the last good record stays in force",
                        false => stale.reason.as_str(),
                    };
                    let fields = [("agent", id.as_str()), ("file", file.as_str()), ("reason", reason)];
                    self.about(Kind::AgentRefused, &fields)
                }
                (Some(_), None) => {
                    self.about(Kind::AgentChanged, &[("agent", id.as_str()), ("file", file.as_str())])
                }
                (_, Some(_)) | (None, None) => continue,
            };
            if let Some(detail) = event.detail.as_mut() {
                detail.insert("stale".to_owned(), is.is_some().into());
                let since = is.as_ref().or(was.as_ref()).map(|stale| stale.since.to_string());
                detail.insert("since".to_owned(), since.into());
            }
            self.store.append(event);
        }
    }

    /// What was lost of the records that were in force, once, at the start.
    pub(super) fn note_damaged_records(&self) {
        for problem in &self.kept_damaged {
            self.store.append(self.about(Kind::AgentRefused, &[("reason", problem), ("agent", "_unknown")]));
        }
    }

    /// Reads the registry again on a signal or because it changed, and logs the result.
    pub fn reload_and_log(&self) {
        match self.load() {
            Ok(changes) => {
                tracing::info!(
                    agents = changes.agents,
                    added = changes.added.len(),
                    changed = changes.changed.len(),
                    removed = changes.removed.len(),
                    refused = changes.refused.len(),
                    stale = changes.stale.len(),
                    "registry reloaded"
                );
                for stale in &changes.stale {
                    tracing::error!(agent = %stale.agent, reason = %stale.reason, "its last good record stays in force");
                }
            }
            Err(error) => tracing::error!(%error, "the registry was not reloaded; the old one stays"),
        }
    }

    /// What identifies the files of the registry as they are now; the same as after the last load where nothing changed.
    pub(super) fn registry_changed(&self) -> bool {
        let mut book = lock(&self.book);
        let seen = self.read_disk(&book).map_or_else(|error| error.to_string(), |disk| fingerprint(&disk));
        let changed = book.seen != seen;
        book.seen = seen;
        changed
    }

    /// What would become of a record if it were registered or replaced now. Changes nothing.
    pub(super) fn try_record(&self, request: &CheckRequest) -> CheckReply {
        let name = PathBuf::from(&request.name);
        let parsed = parse_record(&request.text, &name);
        let mut book = lock(&self.book);
        let level = self.report.level;
        let mut reply = CheckReply {
            schema_version: SCHEMA_VERSION,
            ok: false,
            level,
            agent: None,
            problems: String::new(),
            errors: Vec::new(),
            changes: Vec::new(),
            rules: RuleCounts::default(),
            enforced: Vec::new(),
            running: Vec::new(),
            binds: Vec::new(),
        };
        let Some(record) = parsed.record.clone() else {
            say(&mut reply, &parsed.diagnostics);
            return reply;
        };
        let id = record.id.value.clone();
        reply.agent = Some(id.as_str().to_owned());
        reply.enforced = hold::rules(&record, level, &LinuxFacts);
        reply.rules = RuleCounts::of(&reply.enforced);
        if let Some(before) = book.kept.get(&id) {
            reply.changes = diff::words(&before.record, &record);
        }
        let mut files = match self.read_disk(&book) {
            Ok(Disk::Files(files)) => files,
            Ok(Disk::Unreadable(why)) => {
                say(&mut reply, &[Diagnostic::of_file(self.config.registry.clone(), Code::Unreadable, why)]);
                return reply;
            }
            Err(error) => {
                let why = in_one_line(&error);
                say(&mut reply, &[Diagnostic::of_file(self.config.registry.clone(), Code::Unreadable, why)]);
                return reply;
            }
        };
        let path = self.place_of(&id, &book.kept, &files);
        files.retain(|file| file.path != path);
        files.push(Candidate {
            path: path.clone(),
            record: Some(record.clone()),
            diagnostics: parsed.diagnostics,
        });
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let decision = self.decide_for(&Disk::Files(files), &book.kept, &BTreeMap::new());
        let mut problems: Vec<Diagnostic> = decision
            .refused
            .iter()
            .filter(|refused| refused.path == path)
            .flat_map(|r| r.diagnostics.clone())
            .collect();
        problems.extend(decision.warnings.iter().filter(|problem| problem.file == name).cloned());
        if self.is_retired(id.as_str()) {
            let message = format!("agent `{id}` is retired: a retired id is never registered again");
            let problem =
                Diagnostic::new(&record.source, Severity::Error, Code::Retired, record.id.at, message);
            problems.push(problem.hint("give the agent another id"));
        }
        if self.is_over(&record, self.moment()) {
            let message = format!("the agent expired at {}", record.expires.value);
            let problem =
                Diagnostic::new(&record.source, Severity::Error, Code::Expired, record.expires.at, message);
            problems.push(problem.hint("give it a later end date"));
        }
        let in_force =
            decision.set.get(&id).is_some_and(|kept| kept.stale.is_none() && kept.record == record);
        reply.ok = in_force && !problems.iter().any(Diagnostic::is_error);
        say(&mut reply, &problems);
        if in_force {
            self.name_processes(&mut reply, &mut book, &id, &decision.set);
        }
        reply
    }

    /// The file that holds an agent's record, or that would.
    fn place_of(&self, id: &AgentId, kept: &Set, files: &[Candidate]) -> PathBuf {
        let names = |file: &&Candidate| file.record.as_ref().is_some_and(|record| record.id.value == *id);
        let own = kept.get(id).map(|kept| kept.record.file().to_path_buf());
        let own = own.filter(|own| files.iter().any(|file| file.path == *own));
        let found = files.iter().find(names).map(|file| file.path.clone());
        own.or(found).unwrap_or_else(|| self.config.registry.join(format!("{id}.toml")))
    }

    /// The processes that a changed record concerns.
    fn name_processes(&self, reply: &mut CheckReply, book: &mut Book, id: &AgentId, set: &Set) {
        let records: Vec<Record> = set.values().map(|kept| kept.record.clone()).collect();
        let mut agents = book.agents.clone();
        agents.register(records.iter().map(|record| (record.id.value.as_str(), mode(record))));
        let Some(index) = agents.index(id.as_str()) else { return };
        let mounts = lock(&self.live).engine.mounts().clone();
        let compiled = compile(&records, &agents, &mut LiveResolve::new(&mounts, &mut book.hashes));
        let tasks = match lock(&self.port).backfill(&Plan::new()) {
            Ok(tasks) => tasks,
            Err(error) => {
                tracing::warn!(%error, "a dry run cannot list the processes");
                return;
            }
        };
        let mine: BTreeSet<u32> =
            tasks.iter().filter(|task| task.tag.agent == index).map(|task| task.tgid).collect();
        let roots = self.roots(&tasks, &boot::read_all(), &compiled.matcher);
        let binds = roots.iter().filter(|(key, root)| root.agent == index && !mine.contains(&key.tgid));
        reply.binds = binds.map(|(key, _)| key.tgid).take(NAMED_MAX).collect();
        reply.running = mine.into_iter().take(NAMED_MAX).collect();
    }

    /// Unbinds an agent by an explicit act: its file is removed, and its last good record is forgotten.
    pub(super) fn unregister_agent(&self, id: &str, by: &Person, why: &str) -> Result<Reloaded, ApiError> {
        let id: AgentId = id.parse().map_err(|_not_an_id| ApiError::no_agent(id))?;
        let result = {
            let mut book = lock(&self.book);
            let Some(kept) = book.kept.get(&id).cloned() else {
                return Err(ApiError::no_agent(id.as_str()));
            };
            self.remove_file_of(&id, &kept)?;
            let before = book.kept.clone();
            book.kept.remove(&id);
            // Before it is unbound, so that no restart brings it back.
            let kept = self.state.keep(&book.kept).map_err(|error| {
                let hint = "its file is gone and its last good record is in force still";
                ApiError::new(500, format!("agent {id} is not unbound: {error}"), hint)
            });
            if let Err(error) = kept {
                book.kept = before;
                return Err(error);
            }
            let result = self.load_into(&mut book);
            if result.is_err() {
                book.kept = before;
                self.keep(&book.kept, &Set::new());
            }
            result
        };
        let failed = |error: ReloadError| {
            let hint =
                "its file is gone and its last good record is in force still: agent-monitor agent reload";
            ApiError::new(500, format!("agent {id} is not unbound: {error}"), hint)
        };
        let changes = result.map_err(failed)?;
        if let Err(error) = self.backfill() {
            tracing::error!(%error, agent = %id, "processes of an agent that is unregistered are bound still");
        }
        let label = by.label();
        let mut event =
            self.about(Kind::AgentRemoved, &[("agent", id.as_str()), ("by", &label), ("why", why)]);
        if let Some(detail) = event.detail.as_mut() {
            detail.insert("uid".to_owned(), by.uid.into());
            by.caller.iter().for_each(|caller| drop(detail.insert("caller".to_owned(), caller.json())));
            detail.insert("act".to_owned(), "unregister".into());
        }
        self.store.append(event);
        Ok(changes)
    }

    /// Removes the file that speaks for an agent, unless it names another one by now.
    fn remove_file_of(&self, id: &AgentId, kept: &Kept) -> Result<(), ApiError> {
        let files = match read_candidates(&self.config.registry, Trust::Reported) {
            Ok(files) => files,
            Err(error) => {
                let hint = "make the registry readable first; nothing was changed";
                return Err(ApiError::new(409, in_one_line(&error), hint));
            }
        };
        for file in files {
            let mine = match &file.record {
                Some(record) => record.id.value == *id,
                None => file.path == kept.record.file(),
            };
            if mine && let Err(error) = std::fs::remove_file(&file.path) {
                let message = format!("cannot remove {}: {error}", file.path.display());
                return Err(ApiError::new(500, message, "the agent is in force as before"));
            }
        }
        Ok(())
    }
}

fn say(reply: &mut CheckReply, problems: &[Diagnostic]) {
    reply.problems = diagnostics_text(problems);
    let line = |problem: &Diagnostic| match problem.at.line {
        0 => problem.message.clone(),
        _ => format!("{}: {}", problem.at, problem.message),
    };
    reply.errors = problems.iter().filter(|problem| problem.is_error()).map(line).collect();
}

/// Equal for equal files.
fn fingerprint(disk: &Disk) -> String {
    match disk {
        Disk::Unreadable(why) => why.clone(),
        Disk::Files(files) => {
            use sha2::{Digest as _, Sha256};
            let mut hasher = Sha256::new();
            for file in files {
                hasher.update(file.path.as_os_str().as_encoded_bytes());
                hasher.update([0]);
                if let Some(record) = &file.record {
                    hasher.update(record.source.text());
                }
                file.diagnostics.iter().for_each(|problem| {
                    hasher.update(problem.render());
                });
                hasher.update([0]);
            }
            crate::registry::record::Sha256(hasher.finalize().into()).to_string()
        }
    }
}
