//! Sessions: one run of an agent on one task, with an end, and perhaps a scope of its own.

use std::path::Path;
use std::time::Duration;

use rusqlite::{OptionalExtension as _, Row, params};
use serde_json::json;

use super::api::SessionView;
use super::store::{Opened, signed, unsigned, wall_nanos, wall_time};
use super::who::Person;
use super::{Deadline, Done, Effect, Now, People, StoreError, told};
use crate::attribute::TaskKey;
use crate::model::{Kind, Time};
use crate::registry::AgentId;
use crate::registry::parse::parse_scope;
use crate::run::port::SessionEntry;
use crate::scope::Scope;

/// A session to be.
#[derive(Debug, Clone)]
pub struct NewSession<'a> {
    /// The agent.
    pub agent: &'a str,
    /// Its number.
    pub index: u32,
    /// What the run is for.
    pub task: Option<&'a str>,
    /// When it ends by itself.
    pub ttl: Option<Duration>,
    /// Its own scope as TOML; checked before.
    pub scope: Option<&'a str>,
    /// The process it begins with.
    pub root: Option<TaskKey>,
    /// How that was bound.
    pub bound_by: &'a str,
    /// Who starts it; nobody where a rule recognised the process.
    pub by: Option<&'a Person>,
}

/// A session as it is kept.
#[derive(Debug, Clone)]
pub struct Session {
    /// UUIDv7.
    pub id: String,
    /// Its number in the kernel.
    pub number: u64,
    /// The agent.
    pub agent: String,
    /// Its number.
    pub index: u32,
    /// What the run is for.
    pub task: Option<String>,
    /// Its own scope.
    pub scope: Option<String>,
    /// The process it began with.
    pub root: Option<TaskKey>,
    /// How that was bound.
    pub bound_by: String,
    /// Who started it.
    pub by: Option<String>,
    /// When it began.
    pub started: Time,
    /// When it ends by itself.
    pub deadline: Option<Deadline>,
    /// It goes on.
    pub active: bool,
    /// When it ended, by whom, why.
    pub ended: (Option<Time>, Option<String>, Option<String>),
}

/// A session in force that has a scope of its own: what must be compiled for the kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct ActiveSession {
    /// Its number in the kernel.
    pub number: u64,
    /// The agent.
    pub agent: AgentId,
    /// Its number.
    pub index: u32,
    /// What it may do, of what the agent may.
    pub scope: Scope,
    /// When it ends: boot-time nanoseconds, `u64::MAX` for never.
    pub expires_boot: u64,
}

const COLUMNS: &str = "uuid, number, agent, agent_index, task, scope, root_tgid, root_start, bound_by, by_uid, \
    by_user, started_wall, deadline_boot, deadline_wall, state = 'active', ended_wall, ended_uid, ended_user, why";

/// A user as it is kept: name, else number.
pub(super) fn label(uid: Option<u32>, user: Option<String>) -> Option<String> {
    user.or_else(|| uid.map(|uid| format!("uid {uid}")))
}

/// An end as it is kept.
pub(super) fn deadline(boot: Option<i64>, wall: Option<i64>) -> Option<Deadline> {
    Some(Deadline { boot: unsigned(boot?), wall: wall_time(wall?) })
}

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    let root: (Option<u32>, Option<i64>) = (row.get(6)?, row.get(7)?);
    let ended = row.get::<_, Option<i64>>(15)?.map(wall_time);
    Ok(Session {
        id: row.get(0)?,
        number: unsigned(row.get(1)?),
        agent: row.get(2)?,
        index: row.get(3)?,
        task: row.get(4)?,
        scope: row.get(5)?,
        root: root.0.zip(root.1).map(|(tgid, start)| TaskKey { tgid, start: unsigned(start) }),
        bound_by: row.get(8)?,
        by: label(row.get(9)?, row.get(10)?),
        started: wall_time(row.get(11)?),
        deadline: deadline(row.get(12)?, row.get(13)?),
        active: row.get(14)?,
        ended: (ended, label(row.get(16)?, row.get(17)?), row.get(18)?),
    })
}

impl Session {
    /// As the kernel has it. The number of its compiled scope is the compiler's to fill in.
    #[must_use]
    pub fn entry(&self) -> SessionEntry {
        let expires = self.deadline.map_or(u64::MAX, |end| end.boot);
        SessionEntry { id: self.number, agent: self.index, expires, ended: !self.active, policy: 0 }
    }

    /// As people see it, with how many processes it has.
    #[must_use]
    pub fn view(self, processes: u64, now: Now) -> SessionView {
        let (ended, ended_by, why) = self.ended;
        let end = self.deadline;
        let left = end.filter(|_| self.active).map(|end| end.left(now).as_millis());
        SessionView {
            id: self.id,
            number: format!("{:016x}", self.number),
            agent: self.agent,
            task: self.task,
            state: if self.active { "active" } else { "ended" }.to_owned(),
            root_pid: self.root.map(|root| root.tgid),
            bound_by: self.bound_by,
            by: self.by,
            started: self.started,
            expires: end.map(|end| end.wall),
            left_ms: left.map(|left| u64::try_from(left).unwrap_or(u64::MAX)),
            scope: self.scope,
            processes,
            ended,
            ended_by,
            why,
        }
    }
}

/// Reads a session's own scope.
///
/// # Errors
/// Says what is wrong, with the place.
pub fn read_scope(text: &str) -> Result<Scope, String> {
    let parsed = parse_scope(text, Path::new("scope"));
    let first = parsed.diagnostics.iter().find(|problem| problem.is_error());
    match (parsed.record, first) {
        (Some(record), None) if record.scope.declared => Ok(record.scope),
        (_, Some(problem)) => Err(format!("{}: {}", problem.at, problem.message)),
        _ => Err("it declares no [scope]".to_owned()),
    }
}

impl People {
    /// Opens a session.
    ///
    /// # Errors
    /// When it cannot be kept; then there is none.
    pub fn open_session(
        &mut self,
        new: &NewSession<'_>,
        now: Now,
        done: &mut Done,
    ) -> Result<Session, StoreError> {
        if let Some(root) = new.root
            && let Some(known) = self.session_of_root(root)?
        {
            return Ok(known);
        }
        let uuid = uuid::Uuid::now_v7();
        let id = uuid.to_string();
        // The low half: the variant's bits make it never 0.
        let (_, number) = uuid.as_u64_pair();
        let end = new.ttl.map(|ttl| Deadline::after(now, ttl));
        self.db.write(|tx| {
            let sql = "INSERT INTO session(uuid, number, agent, agent_index, task, scope, root_tgid, root_start, \
                       bound_by, by_uid, by_user, started_wall, deadline_boot, deadline_wall, state) \
                       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'active')";
            let row = params![
                id,
                signed(number),
                new.agent,
                new.index,
                new.task,
                new.scope,
                new.root.map(|root| root.tgid),
                new.root.map(|root| signed(root.start)),
                new.bound_by,
                new.by.map(|by| by.uid),
                new.by.and_then(|by| by.user.as_deref()),
                wall_nanos(now.wall),
                end.map(|end| signed(end.boot)),
                end.map(|end| wall_nanos(end.wall)),
            ];
            tx.execute(sql, row).map(drop)
        })?;
        let opened = self.session_by_number(number)?.ok_or_else(|| self.db.missing())?;
        done.effects.push(Effect::Session(opened.entry()));
        let fields = [
            ("session", json!(id)),
            ("task", json!(new.task)),
            ("by", json!(new.by.map(Person::label))),
            ("caller", json!(new.by.map(Person::caller_json))),
            ("bound_by", json!(new.bound_by)),
            ("pid", json!(new.root.map(|root| root.tgid))),
            ("expires", json!(end.map(|end| end.wall.to_string()))),
            ("scope", json!(new.scope.is_some())),
        ];
        done.events.push(told(now, Kind::SessionStarted, new.agent, fields));
        Ok(opened)
    }

    fn one_session(&self, wh: &str, by: impl rusqlite::Params) -> Result<Option<Session>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM session WHERE {wh}");
            conn.prepare_cached(&sql)?.query_row(by, session).optional()
        })
    }

    /// The active session that began with this process.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn session_of_root(&self, root: TaskKey) -> Result<Option<Session>, StoreError> {
        let by = params![root.tgid, signed(root.start)];
        self.one_session("root_tgid = ? AND root_start = ? AND state = 'active'", by)
    }

    /// A session by its number in the kernel.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn session_by_number(&self, number: u64) -> Result<Option<Session>, StoreError> {
        self.one_session("number = ?", [signed(number)])
    }

    /// A session by its id.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn session(&self, id: &str) -> Result<Option<Session>, StoreError> {
        self.one_session("uuid = ?", [id])
    }

    /// Active sessions, the oldest first; with `all` the ended ones too, the latest 500.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn sessions(&self, agent: Option<&str>, all: bool) -> Result<Vec<Session>, StoreError> {
        let list = |state: &str, order: &str| {
            let sql = format!(
                "SELECT {COLUMNS} FROM session WHERE state = '{state}' AND (?1 IS NULL OR agent = ?1) \
                 ORDER BY {order} LIMIT 10000"
            );
            self.db.read(|conn| conn.prepare_cached(&sql)?.query_map([agent], session)?.collect())
        };
        let mut found: Vec<Session> = list("active", "id")?;
        if all {
            let ended: Vec<Session> = list("ended", "id DESC")?;
            found.extend(ended.into_iter().take(500));
        }
        Ok(found)
    }

    /// How many sessions an agent has had, and has.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn session_counts(&self, agent: &str) -> Result<(u64, u64), StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT count(*), coalesce(sum(state = 'active'), 0) FROM session WHERE agent = ?";
            conn.query_row(sql, [agent], |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))))
        })
    }

    /// Sessions in force that have a scope of their own.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn active_sessions(&self) -> Result<Vec<ActiveSession>, StoreError> {
        let scoped = |session: Session| {
            let scope = read_scope(session.scope.as_deref()?).ok()?;
            let expires_boot = session.entry().expires;
            let Session { number, agent, index, .. } = session;
            Some(ActiveSession { number, agent: agent.parse().ok()?, index, scope, expires_boot })
        };
        Ok(self.sessions(None, false)?.into_iter().filter_map(scoped).collect())
    }

    /// Ends a session. One that has ended already stays as it is.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn end_session(
        &mut self,
        session: &Session,
        by: Option<&Person>,
        why: &str,
        now: Now,
        done: &mut Done,
    ) -> Result<bool, StoreError> {
        let changed = self.db.write(|tx| {
            let sql = "UPDATE session SET state = 'ended', ended_wall = ?, ended_uid = ?, ended_user = ?, why = ? \
                       WHERE number = ? AND state = 'active'";
            let user = by.and_then(|by| by.user.as_deref());
            tx.execute(
                sql,
                params![wall_nanos(now.wall), by.map(|by| by.uid), user, why, signed(session.number)],
            )
        })?;
        if changed == 0 {
            return Ok(false);
        }
        done.effects.push(Effect::Session(SessionEntry { ended: true, ..session.entry() }));
        let fields = [
            ("session", json!(session.id)),
            ("by", json!(by.map(Person::label))),
            ("caller", json!(by.map(Person::caller_json))),
            ("why", json!(why)),
        ];
        done.events.push(told(now, Kind::SessionEnded, &session.agent, fields));
        self.end_session_grants(session, now, done)?;
        Ok(true)
    }

    /// Ends what is over: sessions whose time has come, and those of which `lives` says that nothing runs any more.
    ///
    /// # Errors
    /// When it cannot be kept; the kernel ends sessions by its own clock all the same.
    pub fn end_sessions(
        &mut self,
        lives: &mut dyn FnMut(&Session) -> bool,
        now: Now,
        done: &mut Done,
    ) -> Result<(), StoreError> {
        for session in self.sessions(None, false)? {
            if session.deadline.is_some_and(|end| end.over(now)) {
                self.end_session(&session, None, "its time is over", now, done)?;
            } else if !lives(&session) {
                self.end_session(&session, None, "its processes have ended", now, done)?;
            }
        }
        Ok(())
    }

    /// What a new daemon does with the sessions of the one before: in another boot none goes on.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn restart_sessions(&mut self, opened: Opened, now: Now, done: &mut Done) -> Result<(), StoreError> {
        for session in self.sessions(None, false)? {
            if opened.rebooted {
                self.end_session(&session, None, "the host was started anew", now, done)?;
            } else {
                done.effects.push(Effect::Session(session.entry()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
