//! Lives of agents in the running daemon: what the kernel has of them, and what is done to their processes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Side;
use crate::attribute::{Agents, TaskKey};
use crate::control::ApiError;
use crate::model::{Kind, Time};
use crate::people::hands::{Act, Condition};
use crate::people::life::halt::{Halted, halt};
use crate::people::life::{LifeError, LifeRow, freezer, offboard};
use crate::people::who::Person;
use crate::people::{Done, Now, StoreError, told};
use crate::registry::Record;
use crate::run::core::{Core, lock};
use crate::run::people::api::unusable;
use crate::run::port::{Life, LifeState, Port, PortError};

/// Pauses between two readings of the bound processes, at most so many: ten seconds.
const ROUNDS_MAX: usize = 5_000;
/// One of them.
const PAUSE: Duration = Duration::from_millis(2);
/// How long before its end an agent is to be reviewed, where no date was set.
const REVIEW_BEFORE: Duration = Duration::from_secs(14 * 86_400);

/// Lives of agents, as far as they are known under no lock but their own.
#[derive(Debug, Default)]
pub(in crate::run) struct Lives {
    /// As people decided.
    pub(in crate::run) states: BTreeMap<String, LifeState>,
    /// As the kernel has them, by number.
    kernel: BTreeMap<u32, Life>,
    /// Ends by number: the date in the record, and when that is in this boot. The same date never moves away.
    ends: BTreeMap<u32, (i128, u64)>,
}

/// What of a record has an end.
struct End {
    id: String,
    over: bool,
    expires: Time,
    idle: Option<Duration>,
}

impl Core {
    /// The life of an agent.
    pub(in crate::run) fn life_of(&self, agent: u32) -> LifeState {
        let known = lock(&self.in_force).lives.kernel.get(&agent).map(|life| life.state);
        known.unwrap_or(LifeState::Active)
    }

    /// Whether an id is retired: it is never used again.
    pub(in crate::run) fn is_retired(&self, id: &str) -> bool {
        lock(&self.in_force).lives.states.get(id) == Some(&LifeState::Retired)
    }

    /// Whether the end date of a record has passed, on the clock that never goes back.
    pub(in crate::run) fn is_over(&self, record: &Record, now: Now) -> bool {
        let effective = lock(&self.in_force).effective(now);
        record.is_expired(effective.timestamp())
    }

    /// Tells the kernel the lives of these agents, before their records are in force.
    pub(in crate::run) fn put_lives<'a>(
        &self,
        port: &mut dyn Port,
        records: impl Iterator<Item = &'a Record>,
        agents: &Agents,
    ) -> Result<(), PortError> {
        let now = self.moment();
        let mut in_force = lock(&self.in_force);
        let effective = in_force.effective(now).unix_nanos();
        let lives = &mut in_force.lives;
        for record in records {
            let id = record.id.as_str();
            let Some(agent) = agents.index(id) else { continue };
            let end = record.expires.value.as_nanosecond();
            let left = u64::try_from((end - effective).max(0)).unwrap_or(u64::MAX);
            let mut boot = now.boot.saturating_add(left);
            if let Some((_, before)) = lives.ends.get(&agent).filter(|(date, _)| *date == end) {
                boot = boot.min(*before);
            }
            lives.ends.insert(agent, (end, boot));
            let state = match lives.states.get(id) {
                Some(LifeState::Retired) => LifeState::Retired,
                _ if now.boot >= boot => LifeState::Expired,
                Some(LifeState::Suspended) => LifeState::Suspended,
                _ => LifeState::Active,
            };
            let life = Life { agent, state, expires: boot };
            let same = |known: &Life| known.state == state && known.expires.abs_diff(boot) < 1_000_000_000;
            if !lives.kernel.get(&agent).is_some_and(same) {
                port.put_life(&life)?;
                lives.kernel.insert(agent, life);
            }
        }
        Ok(())
    }

    /// The same for all records that are in force.
    pub(in crate::run) fn sync_lives(&self) -> Result<(), PortError> {
        let book = lock(&self.book);
        let mut port = lock(&self.port);
        self.put_lives(port.as_mut(), book.loaded.records.iter().chain(&book.dead), &book.agents)
    }

    /// The bound processes of an agent.
    fn keys_of(&self, agent: u32) -> Result<Vec<TaskKey>, String> {
        let procs = lock(&self.port).procs().map_err(|error| error.to_string())?;
        let mine = procs.iter().filter(|(_, entry)| entry.tag.agent == agent);
        Ok(mine.map(|(tgid, entry)| TaskKey { tgid: *tgid, start: entry.start }).collect())
    }

    /// Acts on the whole tree of an agent until all of it is as it should be.
    pub(in crate::run) fn halt_agent(
        &self,
        side: &mut Side,
        agent: u32,
        act: Act,
        frozen: Option<&str>,
    ) -> Halted {
        let stop = self.stopper();
        // What is frozen does not run, whatever its state says.
        let mut list = || {
            let mut keys = self.keys_of(agent)?;
            if let Some(group) = frozen {
                let still = freezer::frozen(group);
                keys.retain(|key| !still.contains(&key.tgid));
            }
            Ok(keys)
        };
        let mut patience = |round: usize| {
            stop.wait(PAUSE);
            round < ROUNDS_MAX
        };
        halt(&mut list, side.hands.as_mut(), act, &mut patience)
    }

    /// Changes a life, durably, and tells the kernel.
    pub(in crate::run) fn change_life(
        &self,
        side: &mut Side,
        id: &str,
        to: LifeState,
        by: Option<&Person>,
        why: &str,
    ) -> Result<LifeRow, ApiError> {
        let (now, mut done) = (self.moment(), Done::default());
        let changed = side.people.set_life(id, to, by, why, now, &mut done);
        let row = changed.map_err(|error| match &error {
            LifeError::Store(error) => unusable(error),
            LifeError::Not { .. } => ApiError::new(409, error.to_string(), "agent-monitor agent list"),
        })?;
        self.remember(side).map_err(|error| unusable(&error))?;
        let put = self.sync_lives();
        self.perform(side, done, now);
        put.map_err(|error| {
            let error = format!(
                "{id} is {} on disk, but the kernel was not told: {error}",
                crate::people::life::word(to)
            );
            ApiError::new(500, error, "agent-monitor doctor; the processes are acted on all the same")
        })?;
        Ok(row)
    }

    /// Stops the whole tree, and nothing new goes ahead.
    pub(in crate::run) fn suspend_tree(&self, side: &mut Side, id: &str, agent: u32) -> Halted {
        let keys = self.keys_of(agent).unwrap_or_default();
        let group = freezer::freeze(&keys);
        if let Some(group) = &group
            && let Err(error) = side.people.set_frozen(id, Some(group))
        {
            tracing::error!(%error, %group, "it is not kept that this control group is frozen");
        }
        let mut halted = self.halt_agent(side, agent, Act::Stop, group.as_deref());
        if group.is_some() {
            halted.processes.extend(keys);
        }
        halted
    }

    /// Lets a suspended tree go on where it stood.
    pub(in crate::run) fn resume_tree(&self, side: &mut Side, row: &LifeRow, agent: u32) -> Vec<String> {
        let mut failed = Vec::new();
        if let Some(group) = &row.frozen {
            failed.extend(freezer::thaw(group).err().map(|error| format!("cgroup {group}: {error}")));
            if let Err(error) = side.people.set_frozen(&row.agent, None) {
                failed.push(error.to_string());
            }
        }
        for key in self.keys_of(agent).unwrap_or_default() {
            // What is held stops again by itself: the kernel judges it anew.
            if side.hands.condition(key) == Condition::Stopped
                && let Err(error) = side.hands.act(key, Act::Wake)
            {
                failed.push(format!("pid {}: {error}", key.tgid));
            }
        }
        failed
    }

    /// Ends everything of an agent for ever. The steps of its off-boarding are [`Core::off_board`]'s.
    pub(in crate::run) fn retire_agent(
        &self,
        side: &mut Side,
        id: &str,
        by: Option<&Person>,
        why: &str,
    ) -> Result<Halted, ApiError> {
        let row = self.change_life(side, id, LifeState::Retired, by, why)?;
        let (_, agent) = self.record_of(id);
        if let Some(group) = &row.frozen
            && let Err(error) = freezer::thaw(group)
        {
            tracing::error!(%error, %group, "cannot thaw; its processes are ended when it is");
        }
        let halted =
            agent.map_or_else(Halted::default, |agent| self.halt_agent(side, agent, Act::Kill, None));
        let (now, mut done) = (self.moment(), Done::default());
        let closed = side.people.close_agent(id, now, &mut done);
        closed.map_err(|error| unusable(&error))?;
        self.perform(side, done, now);
        self.remember(side).map_err(|error| unusable(&error))?;
        Ok(halted)
    }

    /// Takes the steps of a retired agent's off-boarding. They may take their time, so no lock is held meanwhile.
    pub(in crate::run) fn off_board(&self, id: &str, by: Option<&Person>) -> Result<(), ApiError> {
        let (record, _) = self.record_of(id);
        let steps = record.map(|record| offboard::carry_out(&record.offboarding)).unwrap_or_default();
        self.with_people(|side| {
            let (now, mut done) = (self.moment(), Done::default());
            let kept = side.people.keep_steps(id, &steps, by, now, &mut done);
            self.perform(side, done, now);
            kept.map_err(|error| unusable(&error))
        })
    }

    /// Takes the steps that a daemon before this one was kept from taking.
    pub(in crate::run) fn finish_retirements(&self) {
        let open: Vec<String> = {
            let book = lock(&self.book);
            let left = book.dead.iter().filter(|record| !record.offboarding.is_empty());
            left.map(|record| record.id.as_str().to_owned()).filter(|id| self.is_retired(id)).collect()
        };
        for id in open {
            let none = self.with_people(|side| side.people.steps(&id).map_err(|error| unusable(&error)));
            if none.is_ok_and(|steps| steps.is_empty())
                && let Err(error) = self.off_board(&id, None)
            {
                tracing::error!(%error, agent = %id, "the off-boarding was not finished");
            }
        }
    }

    /// The record of an agent, whatever its life, and its number.
    pub(in crate::run) fn record_of(&self, id: &str) -> (Option<Record>, Option<u32>) {
        let book = lock(&self.book);
        let dead = || book.dead.iter().find(|record| record.id.as_str() == id);
        (book.loaded.get(id).or_else(dead).cloned(), book.agents.index(id))
    }

    /// What time brings to agents: end dates, idleness, reviews. Whether the registry must be read again, and who is to be
    /// off-boarded.
    pub(in crate::run) fn tick_lives(
        &self,
        side: &mut Side,
        now: Now,
        done: &mut Done,
    ) -> Result<(bool, Vec<String>), StoreError> {
        let ends = self.ends(now);
        let rows: BTreeMap<String, LifeRow> =
            side.people.lives()?.into_iter().map(|row| (row.agent.clone(), row)).collect();
        let (mut changed, mut idle) = (false, Vec::new());
        for end in &ends {
            let row = rows.get(&end.id);
            let state = row.map_or(LifeState::Active, |row| row.state);
            let to = match (state, end.over) {
                (LifeState::Active, true) => Some((LifeState::Expired, "its end date has come")),
                (LifeState::Expired, false) => Some((LifeState::Active, "its record has a later end date")),
                _ => None,
            };
            if let Some((to, why)) = to {
                match side.people.set_life(&end.id, to, None, why, now, done) {
                    Ok(_) => changed = true,
                    Err(LifeError::Store(error)) => return Err(error),
                    Err(error) => tracing::error!(%error, "a life did not change"),
                }
            }
            if state != LifeState::Active || end.over {
                continue;
            }
            self.tell_review(side, end, row, now, done);
            if let Some(limit) = end.idle {
                match row.and_then(|row| row.active) {
                    None => side.people.set_active([(end.id.as_str(), now.wall)].into_iter(), now)?,
                    Some(last) => {
                        let passed = side.people.db().effective(now).unix_nanos() - last.unix_nanos();
                        if passed > i128::try_from(limit.as_nanos()).unwrap_or(i128::MAX) {
                            idle.push(end.id.clone());
                        }
                    }
                }
            }
        }
        if changed {
            self.remember(side)?;
        }
        idle.retain(|id| {
            let retired = self.retire_agent(side, id, None, "it was idle for too long");
            let error = retired.err().map(|error| tracing::error!(%error, agent = %id, "it was not retired"));
            error.is_none()
        });
        if let Err(error) = self.sync_lives() {
            tracing::error!(%error, "the kernel was not told the lives of agents");
        }
        self.end_the_dead(side, now, done)?;
        Ok((changed || !idle.is_empty(), idle))
    }

    /// The ends of all agents.
    fn ends(&self, now: Now) -> Vec<End> {
        let book = lock(&self.book);
        let end = |record: &Record| End {
            id: record.id.as_str().to_owned(),
            over: self.is_over(record, now),
            expires: Time::from(record.expires.value),
            idle: record.retire_when_idle.map(|idle| idle.value),
        };
        book.loaded.records.iter().chain(&book.dead).map(end).collect()
    }

    /// Says once that a review is due: on its date, or two weeks before the end where none was set.
    fn tell_review(&self, side: &mut Side, end: &End, row: Option<&LifeRow>, now: Now, done: &mut Done) {
        let due = row.and_then(|row| row.review_due).unwrap_or_else(|| end.expires.before(REVIEW_BEFORE));
        if due > now.wall || side.reviews_told.get(&end.id) == Some(&due) {
            return;
        }
        side.reviews_told.insert(end.id.clone(), due);
        let fields = [("due", due.to_string().into()), ("expires", end.expires.to_string().into())];
        done.events.push(told(now, Kind::AgentReviewDue, &end.id, fields));
    }

    /// Ends what runs of agents that are retired or expired, and stops what runs of suspended ones, however it came to
    /// run.
    fn end_the_dead(&self, side: &mut Side, now: Now, done: &mut Done) -> Result<(), StoreError> {
        let states: BTreeMap<u32, LifeState> = {
            let in_force = lock(&self.in_force);
            let lives = in_force.lives.kernel.values().filter(|life| life.state != LifeState::Active);
            lives.map(|life| (life.agent, life.state)).collect()
        };
        if states.is_empty() {
            return Ok(());
        }
        let groups = side.people.lives()?.into_iter().filter_map(|life| life.frozen);
        let frozen: BTreeSet<u32> = groups.flat_map(|group| freezer::frozen(&group)).collect();
        // Not in the head of the loop: its lock would be held over the engine's, which comes before it.
        let procs = lock(&self.port).procs().unwrap_or_default();
        for (tgid, entry) in procs {
            let Some(state) = states.get(&entry.tag.agent) else { continue };
            let key = TaskKey { tgid, start: entry.start };
            let (act, words) = match (state, side.hands.condition(key)) {
                (_, Condition::Gone) | (LifeState::Suspended, Condition::Stopped) => continue,
                (LifeState::Suspended, _) if frozen.contains(&tgid) => continue,
                (LifeState::Suspended, _) => {
                    (Act::Stop, "a process of an agent that is suspended was stopped")
                }
                _ => (Act::Kill, "a process of an agent that is retired or expired was ended"),
            };
            let id = lock(&self.live).engine.agents().name(entry.tag.agent);
            let fields = [("pid", tgid.into()), ("reason", words.into())];
            done.events.push(told(now, Kind::FindingViolation, &id, fields));
            if let Err(error) = side.hands.act(key, act) {
                tracing::error!(pid = tgid, %error, "{words}: it was not");
            }
        }
        Ok(())
    }
}
