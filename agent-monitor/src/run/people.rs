//! People in the running daemon: what waits comes in from the engine, decisions come in from the control API, and both are
//! carried out here, in the order that [`crate::people`] gives: on disk, told, in the kernel, and then the process.
//!
//! The lock of this side is taken before all others of the daemon (`people`, `book`, `live`, `port`).

pub(super) mod api;
mod inbox;
mod life;
mod life_api;
mod runs;
mod runs_api;
mod scopes;
mod who;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent_monitor_ebpf::task::SHADOW;

use super::core::{Core, lock};
use super::port::{LifeState, PortError, Pulse};
use crate::attribute::TaskKey;
use crate::config::ShadowAct;
use crate::control::Peer;
use crate::model::{Event, Kind, Time};
use crate::people::approvals::Asked;
use crate::people::hands::{Act, Condition, Hands, LinuxHands};
use crate::people::notify::Notifier;
use crate::people::store::Opened;
use crate::people::who::{Directory, LinuxDirectory, Person};
use crate::people::{Db, Done, Effect, Now, People, StoreError, told};
use crate::registry::record::OnDaemonLoss;

pub(super) use inbox::Inbox;
use inbox::Word;
pub(super) use runs::InForce;

/// Between two looks at time-outs and ends, and between two heartbeats.
pub(super) const TICK: Duration = Duration::from_millis(400);
/// Ticks between two notes that the daemon is alive.
const SEEN_EVERY: u64 = 25;
/// Ticks between two looks for held processes that nobody knows of: about five seconds.
const OFFER_EVERY: u64 = 12;

/// Looks after which a held thread of which no request is known is judged again.
const ENOUGH: u32 = 4;

/// Nanoseconds after a decision in which held threads are looked at in every round.
const OFFER_AFTER: u64 = 30_000_000_000;
/// Ticks between two looks for very old requests: once a day.
const PRUNE_EVERY: u64 = 216_000;

/// Nanoseconds without a daemon that count as not watched.
const UNWATCHED: u64 = 60_000_000_000;

/// Name of the database in the state directory.
pub const STATE_FILE: &str = "state.sqlite";

/// What people's decisions need, under one lock.
pub(super) struct Side {
    pub(super) people: People,
    pub(super) hands: Box<dyn Hands>,
    pub(super) directory: Box<dyn Directory + Send>,
    pub(super) notifier: Notifier,
    pub(super) opened: Opened,
    ticks: u64,
    /// When a decision let a process go on last, boot clock.
    woken: u64,
    /// Held threads, with their acts, of which no request was known at the last look, with what earlier looks weigh.
    strays: BTreeMap<(TaskKey, u64), u32>,
    /// Reviews of which it was said that they are due.
    pub(super) reviews_told: BTreeMap<String, Time>,
    /// Why nobody can be asked now; then there is no heartbeat, and the kernel refuses what it would hold.
    broken: Option<String>,
}

impl Side {
    /// The person that calls, and where from.
    pub(super) fn person(&self, peer: &Peer) -> Person {
        self.directory.calling(peer.uid(), &peer.caller())
    }
}

/// Nanoseconds without a step of the thread for people after which nobody is held to be there: it hangs.
const HANGS: u64 = 60_000_000_000;

/// Whether the thread for people can ask, as it says itself. It is not waited for.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// When it did something last, boot clock; 0 when nobody can be asked.
    step: AtomicU64,
}

impl Asking {
    /// It did something now. Only somebody who can write down an answer can approve.
    fn step(&self, able: bool, now: u64) {
        self.step.store(if able { now.max(1) } else { 0 }, Ordering::Relaxed);
    }

    fn can(&self, now: u64) -> bool {
        let step = self.step.load(Ordering::Relaxed);
        step != 0 && now.saturating_sub(step) < HANGS
    }
}

/// What has changed by itself: then scopes are compiled again, or the registry is read again.
#[derive(Debug, Clone, Default)]
struct Changed {
    grants: bool,
    lives: bool,
    /// Who is to be off-boarded.
    retired: Vec<String>,
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Side")
            .field("people", &self.people)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// This moment.
    pub(super) fn moment(&self) -> Now {
        Now { wall: self.clock.now(), boot: self.clock.boot_nanos() }
    }

    /// Takes the database of people's decisions, and acts on this host's processes.
    pub(super) fn open_people(&self, (db, opened): (Db, Opened)) {
        self.admit_people(db, opened, Box::new(LinuxHands), Box::new(LinuxDirectory));
    }

    /// Takes an open database and the hands that act on processes.
    pub(super) fn admit_people(
        &self,
        db: Db,
        opened: Opened,
        hands: Box<dyn Hands>,
        directory: Box<dyn Directory + Send>,
    ) {
        let settings = self.config.approval.clone();
        let stop = self.stopper();
        let notifier = Notifier::start(&settings, move |time| stop.wait(time));
        let notifier = notifier.unwrap_or_else(|error| {
            tracing::error!(%error, "nobody is told of approvals by webhook or program");
            Notifier::silent()
        });
        let people = People::new(db, settings);
        let mut side = Side {
            people,
            hands,
            directory,
            notifier,
            opened,
            ticks: 0,
            woken: 0,
            strays: BTreeMap::new(),
            reviews_told: BTreeMap::new(),
            broken: None,
        };
        if let Err(error) = self.remember(&mut side) {
            self.broken(&mut side, &error);
        }
        *lock(&self.people) = Some(side);
    }

    /// Whether people's decisions are kept.
    pub(super) fn has_people(&self) -> bool {
        lock(&self.people).is_some()
    }

    /// What a new daemon does with what the one before left: called once, with the registry loaded.
    pub(super) fn resume_people(&self) {
        let now = self.moment();
        let losses: BTreeMap<String, OnDaemonLoss> = {
            let book = lock(&self.book);
            let loss = |record: &crate::registry::Record| {
                (record.id.value.as_str().to_owned(), record.on_daemon_loss)
            };
            book.loaded.records.iter().map(loss).collect()
        };
        let mut side = lock(&self.people);
        let Some(side) = side.as_mut() else { return };
        let mut done = Done::default();
        let on_loss = |agent: &str| losses.get(agent).copied().unwrap_or_default();
        match side.people.restart(side.opened, &on_loss, now, &mut done) {
            Ok(found) if found.waiting + found.refused + found.undone > 0 => tracing::info!(
                waiting = found.waiting,
                refused = found.refused,
                undone = found.undone,
                "approvals of an earlier daemon"
            ),
            Ok(_) => {}
            Err(error) => self.broken(side, &error),
        }
        if side.opened.down > UNWATCHED
            && let Err(error) = side.people.not_watched(side.opened.down, now)
        {
            self.broken(side, &error);
        }
        if let Err(error) = self.resume_runs(side, now, &mut done) {
            self.broken(side, &error);
        }
        self.perform(side, done, now);
        let taken_over = lock(&self.port).taken_over();
        if taken_over {
            self.offer_again(side, ENOUGH);
        }
    }

    /// One round of the thread for people: what came in, and what time brings.
    pub fn people_round(&self) {
        let mut heard = self.inbox.take();
        for word in &mut heard.words {
            let Word::Asks(request) = word else { continue };
            let book = lock(&self.book);
            let span = book.loaded.get(&request.id).and_then(|record| record.hold_timeout);
            request.timeout = span.map(|span| span.value);
        }
        let now = self.moment();
        let mut side = lock(&self.people);
        let Some(side) = side.as_mut() else { return };
        let mut done = Done::default();
        for word in &heard.words {
            self.asking.step(side.broken.is_none(), self.moment().boot);
            let request = match word {
                Word::Asks(request) => request,
                Word::Replaced(key) => {
                    let why = "the process became another program";
                    if let Err(error) = side.people.bury(&mut |one| one != *key, why, now, &mut done) {
                        self.broken(side, &error);
                    }
                    // The stop was for the thread that is gone, and may have come over the whole process.
                    done.effects.push(Effect::Wake(*key));
                    continue;
                }
            };
            match side.people.ask(request, now, &mut done) {
                Ok(Asked::New(id)) => tracing::info!(approval = id, agent = %request.id, "an action waits"),
                Ok(Asked::Merged(_) | Asked::Flooded) => {}
                Err(error) => self.broken(side, &error),
            }
        }
        let mut begun = Vec::new();
        for root in &heard.roots {
            begun.extend(self.matched_session(side, root, now, &mut done).map(|number| (root.key, number)));
        }
        self.perform(side, done, now);
        // The session is in the kernel before a process carries its number: one that is not there has ended.
        for (key, number) in begun {
            if let Err(error) = self.enter_session(key, number) {
                tracing::error!(%error, pid = key.tgid, "a run goes on without its session");
            }
        }
        if heard.missed {
            self.offer_again(side, ENOUGH);
        }
    }

    /// What time brings: at least once a second.
    pub fn people_tick(&self) {
        let now = self.moment();
        let mut guard = lock(&self.people);
        let Some(side) = guard.as_mut() else { return };
        let mut done = Done::default();
        side.ticks = side.ticks.wrapping_add(1);
        let mut changed = Changed::default();
        match self.upkeep(side, now, &mut done) {
            Ok(found) => {
                changed = found;
                if let Some(why) = side.broken.take() {
                    tracing::info!(%why, "the state database can be used again");
                }
            }
            Err(error) => self.broken(side, &error),
        }
        self.perform(side, done, now);
        if now.boot.saturating_sub(side.woken) < OFFER_AFTER {
            self.offer_again(side, 1);
        } else if side.ticks.is_multiple_of(OFFER_EVERY) {
            self.offer_again(side, ENOUGH / 2);
        }
        if let Err(error) = lock(&self.port).sweep_tickets(now.boot) {
            tracing::error!(%error, "tickets whose time is over stay in the kernel, where they count no more");
        }
        self.asking.step(side.broken.is_none(), self.moment().boot);
        let first = side.ticks == 1;
        drop(guard);
        for id in &changed.retired {
            if let Err(error) = self.off_board(id, None) {
                tracing::error!(%error, agent = %id, "the off-boarding was not finished");
            }
        }
        if first {
            self.finish_retirements();
        }
        if changed.lives {
            // An agent that is over is in force as one that may do nothing.
            if let Err(error) = self.load() {
                tracing::error!(%error, "the registry was not read again");
            }
        } else if changed.grants {
            self.refresh();
        }
    }

    /// What has changed by itself.
    fn upkeep(&self, side: &mut Side, now: Now, done: &mut Done) -> Result<Changed, StoreError> {
        let Side { people, hands, .. } = side;
        people.expire(now, done)?;
        people.bury(
            &mut |key| hands.condition(key) != Condition::Gone,
            "the process has ended",
            now,
            done,
        )?;
        people.flush(now, done)?;
        if side.ticks.is_multiple_of(PRUNE_EVERY) {
            people.prune()?;
        }
        if side.ticks.is_multiple_of(SEEN_EVERY) || side.broken.is_some() {
            people.db().seen(now, false)?;
        }
        if side.ticks.is_multiple_of(SEEN_EVERY) {
            let active = self.inbox.activity();
            if !active.is_empty() {
                let active = active.iter().map(|(id, at)| (&**id, *at));
                side.people.set_active(active, now)?;
            }
        }
        let grants = self.tick_runs(side, now, done)?;
        let (lives, retired) = self.tick_lives(side, now, done)?;
        Ok(Changed { grants, lives, retired })
    }

    fn broken(&self, side: &mut Side, error: &StoreError) {
        if side.broken.is_none() {
            tracing::error!(%error, "nobody can be asked: what would be held is denied");
            let fields = [("reason", error.to_string().into())];
            self.store.append(told(self.moment(), Kind::ApprovalFailed, "-", fields));
        }
        side.broken = Some(error.to_string());
        self.asking.step(false, self.moment().boot);
    }

    /// The first beat, before anything is held: what comes in waits for the thread for people.
    pub(super) fn first_beat(&self, pulse: &mut dyn Pulse) {
        if lock(&self.people).as_ref().is_some_and(|side| side.broken.is_none()) {
            self.asking.step(true, self.moment().boot);
        }
        self.beat(pulse);
    }

    /// Tells the kernel that somebody can be asked, if that is so.
    pub(super) fn beat(&self, pulse: &mut dyn Pulse) {
        let now = self.moment().boot;
        if self.asking.can(now)
            && let Err(error) = pulse.beat(now)
        {
            tracing::error!(%error, "the kernel cannot be told that somebody can approve");
        }
    }

    /// Does what a step gave, in order: told first, then in the kernel, then the processes.
    pub(super) fn perform(&self, side: &mut Side, done: Done, now: Now) {
        let Done { effects, events } = done;
        for event in events {
            let event = self.store.append(event);
            self.announce(side, &event, now);
        }
        for effect in effects {
            if let Err(error) = self.effect(side, effect) {
                tracing::error!(%error, ?effect, "a decision could not be carried out");
                let fields = [("reason", error.into()), ("what", format!("{effect:?}").into())];
                self.store.append(told(now, Kind::ApprovalFailed, "-", fields));
            }
        }
    }

    fn effect(&self, side: &mut Side, effect: Effect) -> Result<(), String> {
        let words = |error: PortError| error.to_string();
        match effect {
            Effect::Put(ticket) => lock(&self.port).put_ticket(&ticket).map_err(words),
            Effect::Drop { agent, digest, whom } => {
                lock(&self.port).drop_ticket(agent, digest, whom).map_err(words)
            }
            Effect::Session(mut entry) => {
                if let Some(policy) = lock(&self.in_force).policies.get(&entry.id) {
                    entry.policy = *policy;
                }
                lock(&self.port).put_session(&entry).map_err(words)
            }
            Effect::Life(life) => lock(&self.port).put_life(&life).map_err(words),
            Effect::Grant(grant) => lock(&self.port).put_grant(&grant).map_err(words),
            // Even where its ticket did not get in: then it is judged again, and asks again.
            Effect::Wake(key) if self.is_suspended(key) => Ok(()),
            Effect::Wake(key) => {
                side.woken = self.moment().boot;
                side.hands.act(key, Act::Wake).map_err(|error| format!("pid {}: {error}", key.tgid))
            }
            Effect::Carried(id) => side.people.carried(id).map_err(|error| error.to_string()),
        }
    }

    /// Whether a process is of an agent that is suspended: then it goes on when that is resumed.
    fn is_suspended(&self, key: TaskKey) -> bool {
        let entry = lock(&self.port).proc(key.tgid).ok().flatten();
        let entry = entry.filter(|entry| entry.start == key.start);
        entry.is_some_and(|entry| self.life_of(entry.tag.agent) == LifeState::Suspended)
    }

    /// Lets stopped processes of agents that can be held go on, where a thread is held at an act of which no request waits:
    /// the kernel judges it again, and what must wait is asked again. For requests that were lost with a daemon or a full
    /// queue, for processes that belong to another agent by now than the one that was asked for, and for acts that were
    /// decided while another thread's act waits: that one stops the process again, maybe before the decided one got through.
    ///
    /// What is not known at few looks is let be: its request may be on its way. This one weighs `weight`.
    fn offer_again(&self, side: &mut Side, weight: u32) {
        let known: BTreeMap<(TaskKey, u64), u32> = match side.people.held() {
            Ok(held) => held.iter().map(|(agent, waiter, digest)| ((waiter.key, *digest), *agent)).collect(),
            Err(error) => return self.broken(side, &error),
        };
        let can_hold: BTreeSet<u32> = {
            let book = lock(&self.book);
            let records = book.loaded.records.iter().filter(|record| record.scope.can_hold());
            let shadows = self.config.shadow.act == ShadowAct::Hold;
            let agents = records.filter_map(|record| book.agents.index(record.id.as_str()));
            agents.chain(shadows.then_some(SHADOW)).collect()
        };
        // A process that its own job control stopped is not ours to wake: only what was held at an act.
        let threads = lock(&self.port).held().unwrap_or_default();
        let found: BTreeSet<(TaskKey, u64)> = threads
            .iter()
            .filter(|thread| match known.get(&(thread.key, thread.digest)) {
                Some(asked) => *asked != thread.agent,
                None => can_hold.contains(&thread.agent),
            })
            .filter(|thread| self.life_of(thread.agent) == LifeState::Active)
            .map(|thread| (thread.key, thread.digest))
            .collect();
        let weigh = |stray| (stray, side.strays.get(&stray).copied().unwrap_or_default() + weight);
        side.strays = found.into_iter().map(weigh).collect();
        let again: BTreeSet<TaskKey> =
            side.strays.iter().filter(|(_, seen)| **seen >= ENOUGH).map(|((key, _), _)| *key).collect();
        side.strays.retain(|_, seen| *seen < ENOUGH);
        for key in again {
            let stopped = side.hands.condition(key) == Condition::Stopped;
            if stopped && let Err(error) = side.hands.act(key, Act::Wake) {
                tracing::error!(pid = key.tgid, %error, "a stopped process cannot be offered again");
            }
        }
    }

    /// Tells people outside, by webhook and program.
    fn announce(&self, side: &Side, event: &Event, now: Now) {
        let wanted = matches!(
            event.kind,
            Kind::ApprovalRequested
                | Kind::ApprovalVoted
                | Kind::ApprovalApproved
                | Kind::ApprovalDenied
                | Kind::ApprovalExpired
                | Kind::ApprovalFlood
        );
        if !wanted || !side.notifier.is_on() {
            return;
        }
        let id = event.detail.as_ref().and_then(|detail| detail.get("approval")?.as_i64());
        let found = id.and_then(|id| side.people.approval(id).ok().flatten());
        let view = found.and_then(|found| {
            let approvers = self.approvers_of(&found.agent);
            side.people.view(found, &approvers, now).ok()
        });
        let notice = serde_json::json!({
            "schema_version": crate::model::SCHEMA_VERSION,
            "type": event.kind,
            "event": event,
            "approval": view,
        });
        side.notifier.tell(notice.to_string());
    }

    /// Notes a clean end and lets the notifier go.
    pub(super) fn close_people(&self) {
        let now = self.moment();
        let mut guard = lock(&self.people);
        let Some(side) = guard.as_mut() else { return };
        let mut done = Done::default();
        let ended = side.people.flush(now, &mut done).and_then(|()| side.people.db().seen(now, true));
        if let Err(error) = ended {
            tracing::error!(%error, "the state database was not closed cleanly");
        }
        self.perform(side, done, now);
        side.notifier.end();
    }
}

#[cfg(test)]
mod tests;
