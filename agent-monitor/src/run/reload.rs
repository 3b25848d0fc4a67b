//! The registry: loaded, compiled, put in force at once, and the processes that run already bound or freed.

use std::collections::BTreeMap;
use std::io;

use agent_monitor_ebpf::config::RUN_NAMES;
use agent_monitor_ebpf::task::BoundBy;

use super::core::{Book, Core, Live, lock};
use super::host::LiveResolve;
use super::port::PortError;
use crate::attribute::backfill::{self, Root, TaskInfo};
use crate::attribute::boot::{self, Seed};
use crate::attribute::image::compile;
use crate::attribute::matcher::{Facts, FileId, Matcher};
use crate::attribute::tree::Binding;
use crate::attribute::{Agents, Compiled, TaskKey, argv};
use crate::config::ShadowAct;
use crate::control::api::{RefusedRecord, Reloaded};
use crate::engine::{Host as _, Output, args, gaps};
use crate::model::{Kind, Mode, Source};
use crate::registry::{
    Code, Diagnostic, LinuxFacts, LoadError, Loaded, Record, Refused, Severity, diff, load_dir,
};
use crate::scope::{self, compile::Protected, hold, image::PolicyImage};

/// Runs of the iterator for one back-fill.
const ROUNDS: usize = 8;

/// Entries of a process in `/proc` that show its memory or environment, themselves or for a thread.
const MEMORY: [&str; 10] =
    ["auxv", "environ", "map_files", "maps", "mem", "numa_maps", "pagemap", "smaps", "smaps_rollup", "task"];

/// Processes that were bound, with their bindings.
type Bound = Vec<(TaskKey, Binding)>;

/// The registry could not be put in force. The old one stays.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel did not take it.
    #[error("cannot put the registry in force: {0}")]
    Kernel(#[from] PortError),
}

impl Core {
    /// Loads the registry, puts it in force and binds what runs already: all of the new set, or the old one stays.
    ///
    /// # Errors
    /// When it cannot be loaded, or the kernel does not take it.
    pub fn load(&self) -> Result<Reloaded, ReloadError> {
        let changes = self.load_records()?;
        // The new set is in force from here on; what ran before is bound now.
        if let Err(error) = self.backfill() {
            tracing::error!(%error, "processes that run already could not be bound");
            let now = self.clock.now();
            self.store.append(gaps::gap(Kind::GapLookup, "backfill_failed", 0, now, now));
        }
        Ok(changes)
    }

    /// Loads the registry and puts it in force, without binding what runs already.
    pub(super) fn load_records(&self) -> Result<Reloaded, ReloadError> {
        let mut book = lock(&self.book);
        let loaded = match self.read_registry() {
            Ok(loaded) => loaded,
            Err(error) => {
                self.health.reload_refused();
                return Err(error.into());
            }
        };
        let loaded = match self.held(loaded) {
            Ok(loaded) => loaded,
            Err(error) => {
                self.health.reload_refused();
                return Err(error.into());
            }
        };
        let (loaded, dead) = self.without_the_dead(loaded);
        let in_force: Vec<Record> = loaded.records.iter().chain(&dead).cloned().collect();
        let mut agents = book.agents.clone();
        agents.register(in_force.iter().map(|record| (record.id.value.as_str(), mode(record))));
        if self.config.shadow.act.stops() {
            agents.register_shadows();
        }
        // Numbers are on disk before any binding carries them.
        if let Err(error) = self.state.keep_agents(&agents.stored()) {
            tracing::warn!(%error, "numbers of agents are not kept; they may change at the next start");
        }
        lock(&self.live).host.forget();
        let (compiled, policy) = self.compile(&in_force, &agents, &mut book);
        // Nobody's program runs a moment under a record that is over.
        let told = {
            let mut port = lock(&self.port);
            let lives = self.put_lives(port.as_mut(), in_force.iter(), &agents);
            lives.and_then(|()| self.put_shadow_life(port.as_mut()))
        };
        if let Err(error) = told {
            self.health.reload_refused();
            return Err(error.into());
        }
        if let Err(error) = self.put_in_force(&book, &agents, &compiled, &policy) {
            self.health.reload_refused();
            return Err(error.into());
        }
        if self.config.shadow.root_decides_alone() {
            tracing::warn!(
                "shadow agents are held and only root may decide: those that run as root wait for nobody, because nobody \
                 decides about a process of their own user; set shadow-approvers"
            );
        }
        let changes = changes(&book.loaded, &loaded);
        let first = book.loaded.records.is_empty() && book.compiled == Compiled::default();
        let before = std::mem::replace(&mut book.loaded, loaded);
        (book.agents, book.compiled, book.policy, book.dead) = (agents, compiled, policy, dead);
        self.health.registry(book.loaded.records.len() as u64, book.loaded.refused.len() as u64);
        self.tell_changes(&book.loaded, &before, &changes, first);
        Ok(changes)
    }

    /// Compiles the records again, for paths, users, hashes and mounts may have changed, and puts the result in force if
    /// it differs.
    pub fn refresh(&self) {
        let mut book = lock(&self.book);
        let records: Vec<Record> = book.loaded.records.iter().chain(&book.dead).cloned().collect();
        let agents = book.agents.clone();
        let (compiled, policy) = self.compile(&records, &agents, &mut book);
        if compiled == book.compiled && policy == book.policy {
            return;
        }
        match self.put_in_force(&book, &agents, &compiled, &policy) {
            Ok(()) => (book.compiled, book.policy) = (compiled, policy),
            Err(error) => tracing::error!(%error, "a change on the host could not be put in force"),
        }
    }

    fn read_registry(&self) -> Result<Loaded, LoadError> {
        let dir = &self.config.registry;
        match load_dir(dir, &LinuxFacts, self.clock.now().timestamp(), self.config.strict) {
            Err(LoadError::Directory { source, .. })
                if source.kind() == io::ErrorKind::NotFound
                    && dir.as_path() == std::path::Path::new(crate::config::REGISTRY) =>
            {
                tracing::info!(path = %dir.display(), "no registry yet: no agents");
                Ok(Loaded::default())
            }
            result => result,
        }
    }

    /// Refuses the records that ask for more than this host can hold, unless they say that less will do.
    fn held(&self, mut loaded: Loaded) -> Result<Loaded, LoadError> {
        let mut records = Vec::with_capacity(loaded.records.len());
        for record in std::mem::take(&mut loaded.records) {
            let lost = hold::diagnostics(&record, self.report.level);
            for problem in &lost {
                tracing::warn!("{}:{}: {}", problem.file.display(), problem.at, problem.message);
            }
            if lost.iter().any(|problem| problem.is_error()) {
                let path = record.file().to_path_buf();
                loaded.refused.push(Refused { path, record: Some(Box::new(record)), diagnostics: lost });
            } else {
                loaded.warnings.extend(lost);
                records.push(record);
            }
        }
        loaded.records = records;
        if self.config.strict && !loaded.refused.is_empty() {
            return Err(LoadError::Strict { refused: loaded.refused });
        }
        Ok(loaded)
    }

    /// Sets aside the agents that are over. Their programs are still recognised as theirs, and may do nothing: a record
    /// that is only left out would set them free.
    fn without_the_dead(&self, mut loaded: Loaded) -> (Loaded, Vec<Record>) {
        let now = self.moment();
        let mut dead: Vec<Record> = Vec::new();
        let expired = loaded.refused.iter().filter(|refused| refused.is_only_expired());
        dead.extend(expired.filter_map(|refused| refused.record.as_deref().cloned()));
        let records = std::mem::take(&mut loaded.records);
        for record in records {
            let id = record.id.as_str();
            let (code, problem, hint) = if self.is_retired(id) {
                let hint = "a retired id is never used again: give the agent another id, or remove the file";
                (Code::Retired, format!("agent `{id}` is retired"), hint)
            } else if self.is_over(&record, now) {
                let hint = "the clock was set back; agent-monitor agent renew moves the end date";
                (Code::Expired, format!("agent `{id}` expired at {}", record.expires.value), hint)
            } else {
                loaded.records.push(record);
                continue;
            };
            let at = record.id.at;
            let problem = Diagnostic::new(&record.source, Severity::Error, code, at, problem).hint(hint);
            let (path, boxed) = (record.file().to_path_buf(), Some(Box::new(record.clone())));
            loaded.refused.push(Refused { path, record: boxed, diagnostics: vec![problem] });
            dead.push(record);
        }
        // A good record with the same id is the agent's now.
        dead.retain(|record| loaded.records.iter().all(|good| good.id.value != record.id.value));
        for record in &mut dead {
            record.mode.value = crate::registry::Mode::Enforce;
            let nothing = scope::Verdict::Deny;
            record.scope = scope::Scope { declared: true, default: nothing, ..scope::Scope::default() };
        }
        (loaded, dead)
    }

    fn compile(&self, records: &[Record], agents: &Agents, book: &mut Book) -> (Compiled, PolicyImage) {
        let mounts = lock(&self.live).engine.mounts().clone();
        let mut resolve = LiveResolve::new(&mounts, &mut book.hashes);
        let mut compiled = compile(records, agents, &mut resolve);
        self.meet_shadows(&mut compiled, &mut resolve);
        if self.config.shadow.act != ShadowAct::Off {
            compiled.image.flags |= RUN_NAMES;
        }
        for note in compiled.notes.iter().filter(|note| !book.compiled.notes.contains(note)) {
            tracing::warn!("{note}");
        }
        let mut scopes = scope::compile::compile(
            records,
            &self.extras(),
            agents,
            &mut LiveResolve::new(&mounts, &mut book.hashes),
            &self.own_places(),
        );
        scopes.add_shadows(
            self.config.shadow.act,
            &mut LiveResolve::new(&mounts, &mut book.hashes),
            &self.own_places(),
        );
        for note in scopes.notes.iter().filter(|note| !book.notes.contains(note)) {
            tracing::warn!("{note}");
        }
        book.notes.clone_from(&scopes.notes);
        (compiled, scopes.image)
    }

    /// What no agent may change: registry, state, socket, pins, the program itself and what `/proc` opens of it.
    fn own_places(&self) -> Protected {
        let bytes = |path: &std::path::Path| path.as_os_str().as_encoded_bytes().to_vec();
        let mut written =
            vec![bytes(&self.config.registry), format!("/proc/{}", std::process::id()).into_bytes()];
        written.push(bytes(&self.config.socket));
        written.extend(std::env::current_exe().ok().as_deref().map(bytes));
        let mut closed = vec![bytes(&self.config.state_dir), bytes(&self.config.bpffs)];
        // What the check for tracing guards, except that since 6.13 CAP_PERFMON is enough (kernel/fork.c `may_access_mm`).
        closed.extend(MEMORY.iter().map(|name| format!("/proc/{}/{name}", std::process::id()).into_bytes()));
        Protected { written, closed }
    }

    /// Engine first, so that every name is known when the first record carries its number.
    fn put_in_force(
        &self,
        book: &Book,
        agents: &Agents,
        compiled: &Compiled,
        policy: &PolicyImage,
    ) -> Result<(), PortError> {
        let mut live = lock(&self.live);
        let mut port = lock(&self.port);
        live.engine.set_agents(agents.clone(), compiled.matcher.clone());
        let same = compiled.image == book.compiled.image && *policy == book.policy;
        if same && book.compiled != Compiled::default() {
            return Ok(());
        }
        let generation = port.next_generation()?;
        let names = policy.agents.iter().map(|(agent, scope)| (*agent, scope.rules.clone()));
        live.engine.rules().learn(generation, names.collect());
        let applied = port.apply(&compiled.image, policy);
        if applied.is_err() {
            live.engine.rules().forget(generation);
            live.engine.set_agents(book.agents.clone(), book.compiled.matcher.clone());
        }
        applied
    }

    fn tell_changes(&self, loaded: &Loaded, before: &Loaded, changes: &Reloaded, first: bool) {
        let file = |id: &str| {
            loaded
                .get(id)
                .or_else(|| before.get(id))
                .map(|record| record.file().display().to_string())
                .unwrap_or_default()
        };
        let kinds = [
            (Kind::AgentRegistered, &changes.added),
            (Kind::AgentChanged, &changes.changed),
            (Kind::AgentRemoved, &changes.removed),
        ];
        for (kind, ids) in kinds {
            // At the start the records are what they were; only changes are news.
            for id in ids.iter().filter(|_| !first) {
                let mut event = self.about(kind, &[("agent", id), ("file", &file(id))]);
                if let (Some(old), Some(new), Some(detail)) =
                    (before.get(id), loaded.get(id), event.detail.as_mut())
                {
                    detail.insert("changes".to_owned(), diff::words(old, new).into());
                }
                self.store.append(event);
            }
        }
        if first {
            self.note_records(loaded, loaded.records.iter().map(|record| record.id.value.as_str()));
        } else {
            let ids = changes.added.iter().chain(&changes.changed);
            self.note_records(loaded, ids.map(String::as_str));
        }
        for refused in &changes.refused {
            let fields = [("file", refused.file.as_str()), ("reason", refused.reason.as_str())];
            self.store.append(self.about(Kind::AgentRefused, &fields));
        }
    }

    /// Frees the processes of agents that are gone, and binds those of agents that are there, with their trees.
    ///
    /// # Errors
    /// When the kernel side fails.
    pub fn backfill(&self) -> Result<(), PortError> {
        let (agents, matcher) = {
            let live = lock(&self.live);
            (live.engine.agents().clone(), live.engine.matcher().clone())
        };
        let now = self.clock.boot_nanos();
        let tasks = lock(&self.port).backfill(&BTreeMap::new())?;
        let gone = backfill::free(&tasks, |agent| agents.is_registered(agent));
        let tasks = if gone.is_empty() { tasks } else { lock(&self.port).backfill(&gone)? };
        let seeds = boot::read_all();
        let roots = self.roots(&tasks, &seeds, &matcher);
        let (tasks, bound) = self.carry_out(tasks, &roots, now)?;
        let mut out = Output::default();
        let mut live = lock(&self.live);
        let Live { engine, host } = &mut *live;
        engine.freed(gone.iter().map(|(tgid, entry)| TaskKey { tgid: *tgid, start: entry.start }));
        engine.seed(&seeds, &tasks);
        engine.backfilled(&bound, Source::Backfill, self.clock.boot_nanos(), host, &mut out);
        out.events.iter().for_each(|event| self.inbox.hear(&live.engine, event));
        self.append(&mut out);
        Ok(())
    }

    /// Runs the plan until nothing is left to do: what was forked during one run is bound by the next.
    fn carry_out(
        &self,
        mut tasks: Vec<TaskInfo>,
        roots: &BTreeMap<TaskKey, Root>,
        now: u64,
    ) -> Result<(Vec<TaskInfo>, Bound), PortError> {
        let mut bound = Bound::new();
        for _ in 0..ROUNDS {
            let plan = backfill::bind(&tasks, roots, now);
            if plan.is_empty() {
                break;
            }
            tasks = lock(&self.port).backfill(&plan)?;
            let done =
                tasks.iter().filter(|task| plan.get(&task.tgid).is_some_and(|e| e.start == task.start));
            bound.extend(done.filter(|task| task.tag.agent != 0).map(|task| (task.key(), binding(task))));
        }
        Ok((tasks, bound))
    }

    /// The processes that a rule fits.
    fn roots(&self, tasks: &[TaskInfo], seeds: &[Seed], matcher: &Matcher) -> BTreeMap<TaskKey, Root> {
        let keys: BTreeMap<u32, TaskKey> = tasks.iter().map(|task| (task.tgid, task.key())).collect();
        let mut roots = BTreeMap::new();
        let own = std::process::id();
        for seed in seeds.iter().filter(|seed| seed.tgid != own && seed.exe.is_some()) {
            let Some(key) = keys.get(&seed.tgid).copied().filter(|key| seed.is(*key)) else { continue };
            if let Some(root) = self.recognise(seed, matcher) {
                roots.insert(key, root);
            }
        }
        roots
    }

    fn recognise(&self, seed: &Seed, matcher: &Matcher) -> Option<Root> {
        let arguments = args::split(&seed.args);
        let exe = seed.exe.as_deref();
        let cwd = seed.cwd.as_deref().unwrap_or_default();
        let script = match argv::program(exe.unwrap_or_default(), &arguments, cwd) {
            Some(argv::Program::Script(script)) => {
                let canonical = lock(&self.live).host.canonical(&script);
                Some(canonical.unwrap_or(script))
            }
            _ => None,
        };
        let file = |path: Option<&[u8]>| -> Option<FileId> {
            path.filter(|_| matcher.needs_files()).and_then(|path| lock(&self.live).host.file(path))
        };
        let image = format!("/proc/{}/exe", seed.tgid);
        let facts = Facts {
            exe,
            script: script.as_deref(),
            args: &arguments,
            uid: seed.uid,
            cgroup: seed.cgroup.as_deref(),
            exe_id: file(Some(image.as_bytes())),
            script_id: file(script.as_deref()),
        };
        let rule = matcher.find(&facts)?;
        Some(Root {
            agent: rule.agent,
            bound_by: BoundBy::Backfill,
            root_by: rule.by(),
            nests: rule.names_program(),
        })
    }
}

fn binding(task: &TaskInfo) -> Binding {
    Binding {
        agent: task.tag.agent,
        delegator: task.tag.delegator,
        by: BoundBy::from_u8(task.tag.bound_by).unwrap_or(BoundBy::Backfill),
        session: task.tag.session,
        delay_ms: None,
        known_from: 0,
    }
}

/// The mode of a record in the words of the contract.
pub(super) fn mode(record: &Record) -> Mode {
    match record.mode.value {
        crate::registry::Mode::Enforce => Mode::Enforce,
        crate::registry::Mode::Observe => Mode::Observe,
    }
}

fn changes(old: &Loaded, new: &Loaded) -> Reloaded {
    let id = |record: &Record| record.id.value.as_str().to_owned();
    let added = new.records.iter().filter(|record| old.get(record.id.value.as_str()).is_none());
    let changed = new
        .records
        .iter()
        .filter(|record| old.get(record.id.value.as_str()).is_some_and(|before| before != *record));
    let removed = old.records.iter().filter(|record| new.get(record.id.value.as_str()).is_none());
    Reloaded {
        agents: new.records.len() as u64,
        added: added.map(id).collect(),
        changed: changed.map(id).collect(),
        removed: removed.map(id).collect(),
        refused: new.refused.iter().map(refused).collect(),
    }
}

/// A refused record in one line.
pub(super) fn refused(refused: &Refused) -> RefusedRecord {
    let reasons = refused.diagnostics.iter().filter(|problem| problem.is_error());
    let reasons: Vec<String> = reasons
        .map(|problem| match problem.at.line {
            0 => problem.message.clone(),
            _ => format!("{}: {}", problem.at, problem.message),
        })
        .collect();
    RefusedRecord { file: refused.path.display().to_string(), reason: reasons.join("; ") }
}
