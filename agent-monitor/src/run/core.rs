//! The running daemon: engine, kernel side and registry behind their locks, and what moves between them.
//!
//! The order of the locks is that of `locks::Rank`; debug builds check it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use agent_monitor_ebpf::header::Kind as RawKind;
use agent_monitor_ebpf::loss::{LossKey, LossReason, LossValue};
use agent_monitor_ebpf::task::{BackfillEntry, BoundBy, TaskTag};

use super::host::{Hashes, LiveHost};
pub(super) use super::locks::lock;
use super::locks::{Rank, Ranked};
use super::people::{Asking, InForce, Inbox, Side};
use super::port::{Port, PortError, Pulse, RingReader};
use super::state::{LastSeen, State, boot_id, kept};
use crate::attribute::backfill::{self, Plan, Root};
use crate::attribute::identity;
use crate::attribute::tree::Limits;
use crate::attribute::{Agents, Compiled, Matcher, MountTable, TaskKey};
use crate::clock::Clock;
use crate::config::Config;
use crate::engine::{BindOutcome, BindRequest, Engine, Output, gaps};
use crate::health::Health;
use crate::health::doctor::Report;
use crate::kernel::handles::Detached;
use crate::log::recorder::LogStatus;
use crate::model::{Event, Kind, Source, Time};
use crate::record::Store;
use crate::registry::Loaded;
use crate::registry::in_force::Set;
use crate::registry::kept::Restored;
use crate::scope::image::PolicyImage;
use crate::sweep::watch::Watch;

/// Records that are taken from the rings under one lock.
const BATCH: usize = 512;
/// Runs of the iterator for one binding: each mends what was forked during the one before.
const ROUNDS: usize = 8;

/// What the engine needs, under one lock.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) engine: Engine,
    pub(super) host: LiveHost,
}

/// The registry in force.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// What is in force, with what is stale: the last good text of every record.
    pub(super) kept: Set,
    pub(super) loaded: Loaded,
    /// Agents that are over, retired or expired: recognised, and allowed nothing.
    pub(super) dead: Vec<crate::registry::Record>,
    pub(super) agents: Agents,
    pub(super) compiled: Compiled,
    /// Scopes in force.
    pub(super) policy: PolicyImage,
    /// What of them is not in force as written.
    pub(super) notes: Vec<String>,
    pub(super) hashes: Hashes,
    /// What identifies the files of the registry at the last load.
    pub(super) seen: String,
}

/// The daemon.
pub struct Core {
    pub(super) config: Config,
    pub(super) clock: Arc<Clock>,
    pub(super) started: Time,
    pub(super) store: Arc<Store>,
    pub(super) health: Arc<Health>,
    pub(super) state: State,
    pub(super) report: Report,
    pub(super) book: Ranked<Book>,
    pub(super) live: Ranked<Live>,
    pub(super) port: Ranked<Box<dyn Port>>,
    /// Agents without a record.
    pub(super) shadows: Ranked<Watch>,
    /// Programs that the kernel meets at their exec.
    pub(super) known: super::shadow::Known,
    /// Execs whose scripts are to be looked into.
    pub(super) scripts: super::shadow::Scripts,
    /// Why there is no log, where there should be one.
    pub(super) log_failed: Ranked<Option<LogStatus>>,
    /// That the log is not written was said.
    pub(super) log_told: AtomicBool,
    /// What of the kept records could not be used at the start.
    pub(super) kept_damaged: Vec<String>,
    /// Approvals, sessions, grants and lifecycle states.
    pub(super) people: Ranked<Option<Side>>,
    pub(super) inbox: Inbox,
    /// Whether people can be asked.
    pub(super) asking: Asking,
    /// What people's decisions put in force.
    pub(super) in_force: Ranked<InForce>,
    /// Execs of which the kernel said that it could not bind the process.
    unbound: AtomicU64,
    /// Pins that are gone and could not be put back.
    pub(super) missing_pins: AtomicUsize,
    stop: Arc<Stop>,
}

/// Whether the daemon is to end, with a bell.
#[derive(Debug, Default)]
pub(super) struct Stop(Mutex<bool>, Condvar);

impl Stop {
    /// Waits for the given time, or until the daemon is to end. Whether it is.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.1.wait_timeout_while(guard, time, |stop| !*stop);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Core {
    /// A daemon over a loaded kernel side. Nothing is in force yet.
    #[must_use]
    pub fn new(config: Config, state: State, mut port: Box<dyn Port>) -> Self {
        let clock = Arc::new(Clock::start());
        let started = clock.now();
        let health = Arc::new(Health::new(started));
        let mut engine = Engine::new(Arc::clone(&clock), config.unattributed, Limits::default());
        engine.set_mounts(MountTable::parse(&super::host::mountinfo().unwrap_or_default()));
        let Restored { set: kept, damaged: kept_damaged } = state.kept();
        for problem in &kept_damaged {
            tracing::error!(%problem, "the last good record is lost");
        }
        let book = Book { agents: Agents::restore(&state.agents()), kept, ..Book::default() };
        // What an earlier daemon's programs put into the rings carries its numbers.
        engine.set_agents(book.agents.clone(), Matcher::default());
        Self {
            clock,
            started,
            store: Arc::new(Store::new(config.limits, Arc::clone(&health))),
            health,
            state,
            report: port.support(),
            book: Ranked::new(Rank::Book, book),
            live: Ranked::new(Rank::Live, Live { engine, host: LiveHost::default() }),
            port: Ranked::new(Rank::Port, port),
            shadows: Ranked::new(Rank::Shadows, super::shadow::watch(&config)),
            known: super::shadow::Known::default(),
            scripts: super::shadow::Scripts::default(),
            people: Ranked::new(Rank::People, None),
            inbox: Inbox::default(),
            asking: Asking::default(),
            in_force: Ranked::new(Rank::InForce, InForce::default()),
            unbound: AtomicU64::new(0),
            missing_pins: AtomicUsize::new(0),
            stop: Arc::default(),
            log_failed: Ranked::new(Rank::LogFailed, None),
            log_told: AtomicBool::new(false),
            kept_damaged,
            config,
        }
    }

    /// The record.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The counters.
    #[must_use]
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// What this host can do.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Asks all threads to end.
    pub fn stop(&self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
    }

    /// Waits for the given time, or until the daemon is to end. Whether it is.
    pub fn wait(&self, time: Duration) -> bool {
        self.stop.wait(time)
    }

    pub(super) fn stopper(&self) -> Arc<Stop> {
        Arc::clone(&self.stop)
    }

    /// How long a record may wait in a ring: recognition in user space should not.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let late = self.config.shadow.act.stops() || lock(&self.live).engine.matcher().has_late();
        Duration::from_millis(if late { 10 } else { 100 })
    }

    /// Takes a batch of records from the rings; how many.
    pub fn read(&self, reader: &mut dyn RingReader) -> usize {
        let mut out = Output::default();
        let mut live = lock(&self.live);
        let count = reader.drain(BATCH, &mut |bytes| {
            let Live { engine, host } = &mut *live;
            engine.record(bytes, host, &mut out);
            while let Some(request) = out.binds.pop() {
                self.bind(&mut live, request, &mut out);
            }
        });
        // Before the execs of the same batch: what a process starts comes after what it reaches for.
        self.hear(&mut live, std::mem::take(&mut out.heard));
        // Under the lock, so that the order of the record is the order of the engine.
        for event in out.events.drain(..) {
            let finding = self.shadow(&event);
            let event = self.store.append(event);
            self.inbox.hear(&live.engine, &event);
            finding.into_iter().for_each(|finding| self.act_on(&mut live, finding));
        }
        count
    }

    pub(super) fn append(&self, out: &mut Output) {
        out.events.drain(..).for_each(|event| drop(self.store.append(event)));
    }

    /// Binds a process that was recognised in user space, with what it has forked meanwhile.
    fn bind(&self, live: &mut Live, request: BindRequest, out: &mut Output) {
        let BindRequest { key, agent, before, by, .. } = request;
        let outcome = self.bind_tree(key, agent, before, by);
        let outcome =
            outcome.map_err(|error| tracing::warn!(pid = request.key.tgid, %error, "cannot bind")).ok();
        live.engine.bind_done(request, outcome, &mut live.host, out);
    }

    /// Binds a process and what it has forked meanwhile.
    pub(super) fn bind_tree(
        &self,
        key: TaskKey,
        agent: u32,
        before: u32,
        by: BoundBy,
    ) -> Result<BindOutcome, PortError> {
        let now = self.clock.boot_nanos();
        let root = Root { agent, bound_by: by, root_by: by, nests: true };
        let tag = TaskTag {
            agent,
            delegator: if before < identity::REFUSED { before } else { 0 },
            since: now,
            bound_by: by as u8,
            root_by: by as u8,
            ..TaskTag::NONE
        };
        // The process itself first: from then on its children are bound at fork.
        let mut plan =
            Plan::from([(key.tgid, BackfillEntry { start: key.start, tag, replace: 1, tagged: 0 })]);
        let roots = BTreeMap::from([(key, root)]);
        let mut outcome = BindOutcome { at: now, bound: Vec::new() };
        let mut port = lock(&self.port);
        for round in 0..ROUNDS {
            let tasks = port.backfill(&plan)?;
            if round == 0 {
                outcome.at = self.clock.boot_nanos();
            }
            let done = tasks.iter().filter(|task| plan.contains_key(&task.tgid) && task.tag.agent == agent);
            outcome.bound.extend(
                done.map(|task| {
                    (task.key(), BoundBy::from_u8(task.tag.bound_by).unwrap_or(BoundBy::Inherited))
                }),
            );
            plan = backfill::bind(&tasks, &roots, now);
            if plan.is_empty() {
                break;
            }
        }
        Ok(outcome)
    }

    /// Writes what was lost since the last time as gap records, and notes that the daemon is alive.
    pub fn poll(&self, clean: bool) {
        let (losses, overflow, procs, (detached, missing)) = {
            let mut port = lock(&self.port);
            (port.losses(), port.overflow(), port.procs(), port.check_pins())
        };
        self.missing_pins.store(missing, Ordering::Relaxed);
        detached.iter().for_each(|detached| self.pins_detached(detached));
        self.watch_log();
        let now = self.clock.boot_nanos();
        let (losses, overflow) = match (losses, overflow) {
            (Ok(losses), Ok(overflow)) => (losses, overflow),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "cannot read the losses");
                let time = self.clock.now();
                self.store.append(gaps::gap(Kind::GapLookup, "losses_unreadable", 0, time, time));
                return;
            }
        };
        let mut out = Output::default();
        {
            let mut live = lock(&self.live);
            let agents = live.engine.agents().clone();
            out.events = live.engine.gaps().poll(&losses, overflow, now, &agents, &self.clock);
            if let Ok(procs) = &procs {
                let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
                for (_, entry) in procs {
                    *counts.entry(agents.id(entry.tag.agent).unwrap_or("_unknown")).or_default() += 1;
                }
                self.health.bound_processes(counts);
            }
            for (kind, reason, count) in lock(&self.shadows).lost_names() {
                let time = self.clock.wall(now);
                out.events.push(gaps::gap(kind, reason, count, time, time));
            }
            self.append(&mut out);
        }
        self.bind_missed(&losses);
        let last = LastSeen {
            boot_id: boot_id(),
            time: self.clock.now(),
            boot_nanos: now,
            clean,
            losses: kept(&losses),
            overflow,
        };
        if let Err(error) = self.state.keep_last_seen(&last) {
            tracing::warn!(%error, "cannot note that the daemon is alive");
        }
    }

    /// Records that pins were not where they should be. What they pinned is in force all the same while this daemon lives.
    fn pins_detached(&self, detached: &Detached) {
        let pins = detached.pins.len();
        match &detached.problem {
            None => tracing::error!(pins, "pins of the monitor were gone; they are there again"),
            Some(problem) => tracing::error!(pins, %problem, "pins of the monitor are gone"),
        }
        let mut detail = crate::model::Detail::new();
        detail.insert("pins".to_owned(), detached.pins.clone().into());
        detail.insert("repaired".to_owned(), detached.problem.is_none().into());
        detached.problem.iter().for_each(|why| drop(detail.insert("reason".to_owned(), why.clone().into())));
        let event = Event::new(self.clock.now(), Kind::TamperDetached, Source::Daemon);
        self.store.append(Event { detail: Some(detail), ..event });
    }

    /// Binds what the kernel had no memory, or no turn, to recognise or to bind: it runs without a name until then, and is counted.
    fn bind_missed(&self, losses: &[(LossKey, LossValue)]) {
        let kinds = [RawKind::Exec, RawKind::Fork, RawKind::Bound].map(|kind| kind as u16);
        let reasons =
            [LossReason::Scratch, LossReason::TagFailed, LossReason::NotRun].map(|reason| reason as u16);
        let mine =
            losses.iter().filter(|(key, _)| kinds.contains(&key.kind) && reasons.contains(&key.reason));
        let count = mine.map(|(_, value)| value.count).sum();
        if self.unbound.swap(count, Ordering::Relaxed) != count
            && let Err(error) = self.backfill()
        {
            tracing::error!(%error, "processes that the kernel could not bind are not bound");
        }
    }

    /// Ends in the table what has ended in the kernel without a record: its exit was lost.
    pub fn reconcile(&self) {
        let Ok(procs) = lock(&self.port).procs() else { return };
        let alive: std::collections::BTreeSet<TaskKey> =
            procs.iter().map(|(tgid, entry)| TaskKey { tgid: *tgid, start: entry.start }).collect();
        // What was bound in this very moment is not in the list yet.
        let now = self.clock.boot_nanos();
        lock(&self.live).engine.reconcile(&alive, now.saturating_sub(5_000_000_000), now);
    }

    /// Says what was missed while no daemon ran, and goes on from what the last one told.
    pub(super) fn resume(&self) {
        let taken_over = lock(&self.port).taken_over();
        let Some(last) = self.state.last_seen() else { return };
        let now = self.clock.now();
        let reason = if last.clean { "daemon_stopped" } else { "daemon_down" };
        self.store.append(gaps::gap(Kind::GapDaemon, reason, 0, last.time, now));
        if taken_over && last.boot_id == boot_id() {
            lock(&self.live).engine.gaps().resume(&last.losses(), last.overflow);
            self.store.append(gaps::gap(Kind::GapDaemon, "takeover", 0, last.time, now));
        }
    }

    /// Measures anew how far kernel time and wall clock are apart.
    pub fn clock_moved(&self) {
        let moved = self.clock.resample();
        if moved.unsigned_abs() > 1_000_000_000 {
            tracing::warn!(nanoseconds = moved, "the wall clock was set");
        }
    }

    pub(super) fn take_reader(&self) -> Result<Box<dyn RingReader>, PortError> {
        lock(&self.port).take_reader()
    }

    /// What says to the kernel that somebody can be asked; once.
    pub(super) fn take_pulse(&self) -> Result<Box<dyn Pulse>, PortError> {
        lock(&self.port).take_pulse()
    }

    /// Takes a new mount table.
    pub fn mounts_changed(&self) {
        if let Some(mountinfo) = super::host::mountinfo() {
            lock(&self.live).engine.set_mounts(MountTable::parse(&mountinfo));
        }
    }

    /// An event about an agent, of the daemon itself.
    pub(super) fn about(&self, kind: Kind, fields: &[(&str, &str)]) -> Event {
        let detail = fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let event = Event::new(self.clock.now(), kind, Source::Daemon);
        Event { detail: Some(detail), ..event }
    }

    /// Detaches everything.
    ///
    /// # Errors
    /// When something is left.
    pub fn detach(&self) -> Result<(), PortError> {
        lock(&self.port).detach()
    }

    /// Whether ending the daemon leaves something to enforce: then it stays in force.
    #[must_use]
    pub fn stays(&self) -> bool {
        let enforced = |record: &crate::registry::Record| record.mode.value == crate::registry::Mode::Enforce;
        !self.config.detach_on_exit && lock(&self.book).loaded.records.iter().any(enforced)
    }

    /// Lets go of the kernel side at the end: left in force where agents are enforced, detached otherwise.
    ///
    /// # Errors
    /// When something is left that should not be.
    pub fn let_go(&self) -> Result<(), PortError> {
        if self.stays() { lock(&self.port).leave() } else { self.detach() }
    }
}
