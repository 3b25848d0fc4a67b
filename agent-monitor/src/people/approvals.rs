//! Requests: asked, merged, decided, timed out.
//!
//! A request is for one exact action of one agent (a digest); the same action asked by several processes is one request
//! with several waiters. A decision covers some or all of them; the others wait on in a request of their own.

pub mod decide;
pub mod upkeep;
pub mod view;

use std::time::Duration;

use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde_json::json;

use super::store::{signed, unsigned, wall_nanos, wall_time};
use super::{Deadline, Done, Effect, Now, People, StoreError, told};
use crate::attribute::TaskKey;
use crate::model::{Event, Kind, Time};
use crate::run::port::{Ticket, Whom};

pub use self::decide::{Answer, DecideError, Decision, Form};
pub use self::upkeep::Restart;

/// Bytes of an event that are kept with a request.
const EVENT_MAX: usize = 256 << 10;

/// An action that waits, as it comes from the engine.
#[derive(Debug, Clone)]
pub struct Request {
    /// Number of the agent.
    pub agent: u32,
    /// The process that waits.
    pub key: TaskKey,
    /// Its session, 0 for none.
    pub session: u64,
    /// Digest of the action.
    pub digest: u64,
    /// Stopped inside the action.
    pub held: bool,
    /// The event, with the agent's id.
    pub event: Event,
    /// The agent's id.
    pub id: String,
    /// How long it may wait, where the agent's record says so; else as long as the settings say.
    pub timeout: Option<Duration>,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// People are asked now.
    New(i64),
    /// They are asked already.
    Merged(i64),
    /// Too many are waiting: denied at once.
    Flooded,
}

/// An agent that asks more than people can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flood {
    /// The agent.
    pub agent: String,
    /// Since when.
    pub since: Time,
    /// Requests denied at once so far.
    pub denied: u64,
}

/// A process that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// Who.
    pub key: TaskKey,
    /// Its session, 0 for none.
    pub session: u64,
}

/// A request as it is kept.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its number.
    pub id: i64,
    /// The agent.
    pub agent: String,
    /// Its number.
    pub index: u32,
    /// Digest of the action.
    pub digest: u64,
    /// Stopped inside the action.
    pub held: bool,
    /// `pending` …
    pub state: String,
    /// How often it was asked.
    pub count: u64,
    /// The event as JSON.
    pub event: String,
    /// When it was first asked.
    pub asked: Time,
    /// When it is denied by itself.
    pub deadline: Deadline,
    /// What was approved.
    pub form: Option<String>,
    /// When it was decided.
    pub decided: Option<Time>,
    /// By whom.
    pub decided_by: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// Where the one who decided called from, as JSON.
    pub caller: Option<String>,
}

const COLUMNS: &str = "id, agent, agent_index, digest, held, state, count, event, asked_wall, deadline_boot, \
    deadline_wall, form, decided_wall, decided_uid, decided_user, why, decided_caller";

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let (uid, user): (Option<u32>, Option<String>) = (row.get(13)?, row.get(14)?);
    Ok(Stored {
        id: row.get(0)?,
        agent: row.get(1)?,
        index: row.get(2)?,
        digest: unsigned(row.get(3)?),
        held: row.get(4)?,
        state: row.get(5)?,
        count: unsigned(row.get(6)?),
        event: row.get(7)?,
        asked: wall_time(row.get(8)?),
        deadline: Deadline { boot: unsigned(row.get(9)?), wall: wall_time(row.get(10)?) },
        form: row.get(11)?,
        decided: row.get::<_, Option<i64>>(12)?.map(wall_time),
        decided_by: user.or_else(|| uid.map(|uid| format!("uid {uid}"))),
        why: row.get(15)?,
        caller: row.get(16)?,
    })
}

impl People {
    /// Takes in an action that waits.
    ///
    /// # Errors
    /// When it cannot be kept: then it is denied at once, by what is in `done`.
    pub fn ask(&mut self, request: &Request, now: Now, done: &mut Done) -> Result<Asked, StoreError> {
        match self.try_ask(request, now, done) {
            Ok(asked) => Ok(asked),
            Err(error) => {
                // Nobody can be asked about what cannot be kept.
                self.refuse(request.agent, request.digest, &[(request.key, request.held)], now, done);
                Err(error)
            }
        }
    }

    fn try_ask(&mut self, request: &Request, now: Now, done: &mut Done) -> Result<Asked, StoreError> {
        if let Some(id) = self.same(request)? {
            let Request { key, session, .. } = request;
            let known = self.waiters(id)?.iter().any(|waiter| waiter.key == *key);
            if !known {
                self.db.write(|tx| add_waiter(tx, id, Waiter { key: *key, session: *session }))?;
            }
            *self.merged.entry(id).or_default() += 1;
            return Ok(Asked::Merged(id));
        }
        if self.waiting(request.agent)? >= self.settings.pending_max {
            self.flood(request, now, done);
            return Ok(Asked::Flooded);
        }
        if let Some(flood) = self.floods.remove(&request.agent) {
            done.events.push(flood_told(now, &flood, "over"));
        }
        let deadline = Deadline::after(now, request.timeout.unwrap_or(self.settings.hold_timeout));
        let event = line(&request.event);
        let id = self.db.write(|tx| {
            let sql = "INSERT INTO approval(agent, agent_index, digest, held, state, count, event, asked_wall, \
                       deadline_boot, deadline_wall) VALUES (?, ?, ?, ?, 'pending', 1, ?, ?, ?, ?)";
            tx.execute(
                sql,
                params![
                    request.id,
                    request.agent,
                    signed(request.digest),
                    request.held,
                    event,
                    wall_nanos(now.wall),
                    signed(deadline.boot),
                    wall_nanos(deadline.wall)
                ],
            )?;
            let id = tx.last_insert_rowid();
            add_waiter(tx, id, Waiter { key: request.key, session: request.session })?;
            Ok(id)
        })?;
        let mut asked = told(
            now,
            Kind::ApprovalRequested,
            &request.id,
            [
                ("approval", id.into()),
                ("digest", format!("{:016x}", request.digest).into()),
                ("held", request.held.into()),
                ("of", request.event.seq.into()),
                ("expires", deadline.wall.to_string().into()),
            ],
        );
        asked.agent.clone_from(&request.event.agent);
        asked.process.clone_from(&request.event.process);
        asked.rule.clone_from(&request.event.rule);
        done.events.push(asked);
        Ok(Asked::New(id))
    }

    /// The pending request for the same action.
    fn same(&self, request: &Request) -> Result<Option<i64>, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT id FROM approval WHERE state = 'pending' AND agent_index = ? AND digest = ? \
                       AND held = ?";
            let row = params![request.agent, signed(request.digest), request.held];
            conn.prepare_cached(sql)?.query_row(row, |row| row.get(0)).optional()
        })
    }

    fn waiting(&self, agent: u32) -> Result<usize, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT count(*) FROM approval WHERE state = 'pending' AND agent_index = ?";
            let count: i64 = conn.prepare_cached(sql)?.query_row([agent], |row| row.get(0))?;
            Ok(usize::try_from(count).unwrap_or(usize::MAX))
        })
    }

    fn flood(&mut self, request: &Request, now: Now, done: &mut Done) {
        self.refuse(request.agent, request.digest, &[(request.key, request.held)], now, done);
        let fresh = Flood { agent: request.id.clone(), since: now.wall, denied: 0 };
        let first = !self.floods.contains_key(&request.agent);
        let flood = self.floods.entry(request.agent).or_insert(fresh);
        flood.denied += 1;
        if first {
            done.events.push(flood_told(now, flood, "begins"));
        }
    }

    /// Denies these processes this action, and lets them go on with the error.
    pub(super) fn refuse(
        &self,
        agent: u32,
        digest: u64,
        whom: &[(TaskKey, bool)],
        now: Now,
        done: &mut Done,
    ) {
        let expires = Deadline::after(now, self.settings.deny_memory).boot;
        for (key, _) in whom {
            let whom = Whom::Task(*key);
            let ticket = Ticket { agent, digest, whom, pass: false, expires, uses: u32::MAX };
            done.effects.push(Effect::Put(ticket));
        }
        let stopped = whom.iter().filter(|(_, held)| *held);
        done.effects.extend(stopped.map(|(key, _)| Effect::Wake(*key)));
    }

    /// Reads a request.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn approval(&self, id: i64) -> Result<Option<Stored>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM approval WHERE id = ?");
            conn.prepare_cached(&sql)?.query_row([id], stored).optional()
        })
    }

    /// The processes that wait in a request, the first first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn waiters(&self, id: i64) -> Result<Vec<Waiter>, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT tgid, start, session FROM waiter WHERE approval = ? ORDER BY rowid";
            let mut select = conn.prepare_cached(sql)?;
            select.query_map([id], waiter)?.collect()
        })
    }
}

fn waiter(row: &Row<'_>) -> rusqlite::Result<Waiter> {
    let key = TaskKey { tgid: row.get(0)?, start: unsigned(row.get(1)?) };
    Ok(Waiter { key, session: unsigned(row.get(2)?) })
}

fn add_waiter(tx: &Transaction<'_>, id: i64, waiter: Waiter) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO waiter(approval, tgid, start, session) VALUES (?, ?, ?, ?)";
    let Waiter { key: TaskKey { tgid, start }, session } = waiter;
    tx.prepare_cached(sql)?.execute(params![id, tgid, signed(start), signed(session)]).map(drop)
}

fn flood_told(now: Now, flood: &Flood, phase: &str) -> Event {
    told(
        now,
        Kind::ApprovalFlood,
        &flood.agent,
        [
            ("phase", phase.into()),
            ("since", flood.since.to_string().into()),
            ("denied", json!(flood.denied)),
            ("reason", "too many different requests wait: further ones are denied at once".into()),
        ],
    )
}

/// The event as it is kept. One that is too long loses the middle of its arguments, and says so.
fn line(event: &Event) -> String {
    let text = event.to_line().unwrap_or_default();
    if text.len() <= EVENT_MAX {
        return text;
    }
    let mut event = event.clone();
    if let Some(process) = &mut event.process {
        let process = std::sync::Arc::make_mut(process);
        process.args = process.args.iter().take(16).map(|arg| arg.chars().take(1024).collect()).collect();
        process.args_truncated = true;
    }
    event.to_line().unwrap_or_default()
}
