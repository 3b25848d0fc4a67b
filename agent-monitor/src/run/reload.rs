//! The registry: loaded, compiled, put in force at once, and the processes that run already bound or freed.

use std::collections::BTreeMap;

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
use crate::registry::in_force::{Decision, Set};
use crate::registry::{AgentId, Code, LoadError, Loaded, Record, Refused, diff};
use crate::scope::{self, compile::Protected, image::PolicyImage};

/// Runs of the iterator for one back-fill.
const ROUNDS: usize = 8;
/// Records that are left out one by one when the kernel does not take a set.
const ALONE: usize = 8;

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

    /// Loads the registry and puts it in force, without binding what runs already. What the kernel has no room for is
    /// refused like any other bad record: what was in force for that agent stays.
    pub(super) fn load_records(&self) -> Result<Reloaded, ReloadError> {
        let mut book = lock(&self.book);
        let result = self.load_into(&mut book);
        if result.is_err() {
            self.health.reload_refused();
        }
        result
    }

    /// As [`Core::load_records`], with the registry locked already.
    pub(super) fn load_into(&self, book: &mut Book) -> Result<Reloaded, ReloadError> {
        let mut without: BTreeMap<AgentId, String> = BTreeMap::new();
        let mut failed: Option<PortError> = None;
        loop {
            let decision = self.decide(book, &without)?;
            let changed = changed(&book.kept, &decision.set);
            match self.enact(book, decision) {
                Ok(changes) => {
                    let none = changes.added.is_empty() && changes.changed.is_empty();
                    return match failed.filter(|_| none) {
                        Some(error) => Err(error.into()),
                        None => Ok(changes),
                    };
                }
                Err(error) if changed.is_empty() => return Err(failed.unwrap_or(error).into()),
                Err(error) => {
                    tracing::error!(%error, "the kernel does not take the new set");
                    let reason = format!("the kernel does not take it: {error}");
                    // The largest is the likeliest to have found no room; then all of them together.
                    let one = without.len() < ALONE;
                    let take = if one { 1 } else { changed.len() };
                    without.extend(changed.into_iter().take(take).map(|id| (id, reason.clone())));
                    failed = Some(error);
                }
            }
        }
    }

    /// Puts a decision in force: all of it, or what was in force stays.
    fn enact(&self, book: &mut Book, decision: Decision) -> Result<Reloaded, PortError> {
        let Decision { set, refused, warnings } = decision;
        let (loaded, dead) = self.split(&set, refused, warnings);
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
        let (compiled, policy) = self.compile(&in_force, &agents, book);
        // Before it is in force, so that no restart goes back to a wider record.
        self.keep(&set, &book.kept);
        let put = self.put_all(book, &in_force, &agents, (&compiled, &policy));
        if let Err(error) = put {
            self.keep(&book.kept, &set);
            return Err(error);
        }
        if self.config.shadow.root_decides_alone() {
            tracing::warn!(
                "shadow agents are held and only root may decide: those that run as root wait for nobody, because nobody \
                 decides about a process of their own user; set shadow-approvers"
            );
        }
        let changes = changes(&book.loaded, &loaded, &set);
        let first = book.loaded.records.is_empty() && book.compiled == Compiled::default();
        let before = std::mem::replace(&mut book.loaded, loaded);
        let kept = std::mem::replace(&mut book.kept, set);
        (book.agents, book.compiled, book.policy, book.dead) = (agents, compiled, policy, dead);
        self.health.registry(book.loaded.records.len() as u64, book.loaded.refused.len() as u64);
        self.health.stale(changes.stale.len() as u64);
        self.tell_changes(&book.loaded, &before, &changes, first);
        self.note_stale(&kept, &book.kept, &changes.refused);
        Ok(changes)
    }

    /// Lives first: nobody's program runs a moment under a record that is over.
    fn put_all(
        &self,
        book: &Book,
        in_force: &[Record],
        agents: &Agents,
        (compiled, policy): (&Compiled, &PolicyImage),
    ) -> Result<(), PortError> {
        {
            let mut port = lock(&self.port);
            self.put_lives(port.as_mut(), in_force.iter(), agents)?;
            self.put_shadow_life(port.as_mut())?;
        }
        self.put_in_force(book, agents, compiled, policy)
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

    pub(super) fn compile(
        &self,
        records: &[Record],
        agents: &Agents,
        book: &mut Book,
    ) -> (Compiled, PolicyImage) {
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
    pub(super) fn roots(
        &self,
        tasks: &[TaskInfo],
        seeds: &[Seed],
        matcher: &Matcher,
    ) -> BTreeMap<TaskKey, Root> {
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

/// The agents whose record in force would change, those with the most rules first.
fn changed(before: &Set, after: &Set) -> Vec<AgentId> {
    let is_new = |id: &AgentId, record: &Record| before.get(id).is_none_or(|kept| kept.record != *record);
    let changed = after.iter().filter(|(id, kept)| is_new(id, &kept.record));
    let mut changed: Vec<(usize, &AgentId)> = changed
        .map(|(id, kept)| {
            let Record { scope, matches, .. } = &kept.record;
            let rules = scope.file.len() + scope.exec.len() + scope.net.len() + scope.privilege.len();
            (rules + matches.len(), id)
        })
        .collect();
    changed.sort_by(|a, b| b.cmp(a));
    changed.into_iter().map(|(_, id)| id.clone()).collect()
}

fn changes(old: &Loaded, new: &Loaded, set: &Set) -> Reloaded {
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
        stale: super::admission::stale_agents(set),
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
    RefusedRecord {
        file: refused.path.display().to_string(),
        reason: reasons.join("; "),
        agent: refused.record.as_ref().map(|record| record.id.as_str().to_owned()),
        ended: refused
            .diagnostics
            .iter()
            .filter(|problem| problem.is_error())
            .all(|p| p.code == Code::Retired),
    }
}
