//! Grants: time-boxed, use-counted additions to a scope, each with the person and the reason.

pub mod scope;

use std::time::Duration;

use rusqlite::{OptionalExtension as _, Row, params};
use serde_json::json;

use super::api::GrantView;
use super::approvals::view::read_caller;
use super::sessions::{Session, deadline, label, read_scope};
use super::store::{Opened, signed, unsigned, wall_nanos, wall_time};
use super::who::{Approvers, Directory, NotAllowed, Person};
use super::{Deadline, Done, Effect, Now, People, StoreError, told};
use crate::model::{Kind, Time};
use crate::registry::AgentId;
use crate::run::port::GrantUse;
use crate::scope::Scope;

/// Longest grant.
pub const TTL_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Most uses.
pub const USES_MAX: u32 = 1_000_000;

/// A grant to be.
#[derive(Debug, Clone)]
pub struct NewGrant<'a> {
    /// The agent.
    pub agent: &'a str,
    /// Only for this session, by its number.
    pub session: Option<u64>,
    /// What it adds, as TOML; checked before.
    pub scope: &'a str,
    /// How long.
    pub ttl: Duration,
    /// How many actions it is for; `None` does not count.
    pub uses: Option<u32>,
    /// Why.
    pub reason: &'a str,
    /// Who gives it.
    pub by: &'a Person,
}

/// A grant as it is kept.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Its number.
    pub id: i64,
    /// The agent.
    pub agent: String,
    /// Only for this session.
    pub session: Option<u64>,
    /// What it adds, as TOML.
    pub scope: String,
    /// Why.
    pub reason: String,
    /// `proposed`, `active`, `revoked`, `expired`, `used`.
    pub state: String,
    /// Who gave it.
    pub by: Option<String>,
    /// When.
    pub added: Time,
    /// How long it is for.
    pub ttl: Duration,
    /// When it ends; `None` while it is only proposed.
    pub deadline: Option<Deadline>,
    /// How many actions it was for, and how many are left; `None` does not count.
    pub uses: (Option<u32>, Option<u32>),
    /// When it ended, by whom, why.
    pub ended: (Option<Time>, Option<String>, Option<String>),
    /// Where the call of the one who gave it came from, as JSON.
    pub caller: Option<String>,
}

/// A grant in force: what must be compiled for the kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct ActiveGrant {
    /// Its number.
    pub id: u64,
    /// The agent.
    pub agent: AgentId,
    /// Only for this session, by its number in the kernel.
    pub session: Option<u64>,
    /// What it adds.
    pub scope: Scope,
    /// When it ends: boot-time nanoseconds.
    pub expires_boot: u64,
    /// Uses left; `u32::MAX` does not count.
    pub uses_left: u32,
}

/// Why there is no grant. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// This person may not.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// There is no such grant.
    #[error("there is no grant {0}")]
    Unknown(i64),
    /// It is over, or in force already.
    #[error("grant {id} is {state}")]
    Over {
        /// The grant.
        id: i64,
        /// What it is.
        state: String,
    },
    /// Four eyes are two people.
    #[error("{0} has agreed already: another person is needed")]
    Twice(String),
    /// It cannot be kept, so it is not so.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const COLUMNS: &str = "id, agent, session, scope, reason, state, by_uid, by_user, added_wall, seconds, \
    deadline_boot, deadline_wall, uses, uses_left, ended_wall, ended_uid, ended_user, why, by_caller";

fn grant(row: &Row<'_>) -> rusqlite::Result<Grant> {
    Ok(Grant {
        id: row.get(0)?,
        agent: row.get(1)?,
        session: row.get::<_, Option<i64>>(2)?.map(unsigned),
        scope: row.get(3)?,
        reason: row.get(4)?,
        state: row.get(5)?,
        by: label(row.get(6)?, row.get(7)?),
        added: wall_time(row.get(8)?),
        ttl: Duration::from_secs(unsigned(row.get(9)?)),
        deadline: deadline(row.get(10)?, row.get(11)?),
        uses: (row.get(12)?, row.get(13)?),
        ended: (
            row.get::<_, Option<i64>>(14)?.map(wall_time),
            label(row.get(15)?, row.get(16)?),
            row.get(17)?,
        ),
        caller: row.get(18)?,
    })
}

impl Grant {
    fn number(&self) -> u64 {
        u64::try_from(self.id).unwrap_or(0)
    }

    /// As the kernel has it.
    #[must_use]
    pub fn entry(&self) -> GrantUse {
        let gone = GrantUse { id: self.number(), expires: 0, uses: 0 };
        match (self.state.as_str(), self.deadline) {
            ("active", Some(end)) => {
                GrantUse { expires: end.boot, uses: self.uses.1.unwrap_or(u32::MAX), ..gone }
            }
            _ => gone,
        }
    }
}

impl People {
    /// Gives a grant; where the record asks for more people, it is only proposed.
    ///
    /// # Errors
    /// See [`GrantError`].
    pub fn add_grant(
        &mut self,
        new: &NewGrant<'_>,
        approvers: &Approvers,
        directory: &dyn Directory,
        now: Now,
        done: &mut Done,
    ) -> Result<Grant, GrantError> {
        self.may_grant(new.agent, None, new.by, approvers, directory, now, done)?;
        let active = approvers.need <= 1;
        let end = active.then(|| Deadline::after(now, new.ttl));
        let id = self.db.write(|tx| {
            let sql = "INSERT INTO grant_(agent, session, scope, reason, state, by_uid, by_user, added_wall, \
                       seconds, deadline_boot, deadline_wall, uses, uses_left, by_caller) \
                       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
            let row = params![
                new.agent,
                new.session.map(signed),
                new.scope,
                new.reason,
                if active { "active" } else { "proposed" },
                new.by.uid,
                new.by.user,
                wall_nanos(now.wall),
                signed(new.ttl.as_secs()),
                end.map(|end| signed(end.boot)),
                end.map(|end| wall_nanos(end.wall)),
                new.uses,
                new.uses,
                new.by.caller_text(),
            ];
            tx.execute(sql, row)?;
            let id = tx.last_insert_rowid();
            let sql = "INSERT INTO grant_vote(grant_id, uid, user, at_wall) VALUES (?, ?, ?, ?)";
            tx.execute(sql, params![id, new.by.uid, new.by.user, wall_nanos(now.wall)])?;
            Ok(id)
        })?;
        let made = self.grant(id)?.ok_or(GrantError::Unknown(id))?;
        self.tell_grant(&made, new.by, now, done);
        Ok(made)
    }

    fn tell_grant(&self, made: &Grant, by: &Person, now: Now, done: &mut Done) {
        let active = made.state == "active";
        if active {
            done.effects.push(Effect::Grant(made.entry()));
        }
        let fields = [
            ("grant", json!(made.id)),
            ("by", json!(by.label())),
            ("uid", json!(by.uid)),
            ("caller", by.caller_json()),
            ("reason", json!(made.reason)),
            ("scope", json!(made.scope)),
            ("session", json!(made.session.map(|number| format!("{number:016x}")))),
            ("expires", json!(made.deadline.map(|end| end.wall.to_string()))),
            ("uses", json!(made.uses.0)),
        ];
        let kind = if active { Kind::GrantAdded } else { Kind::GrantProposed };
        done.events.push(told(now, kind, &made.agent, fields));
    }

    #[expect(clippy::too_many_arguments, reason = "who may what, when, told where")]
    fn may_grant(
        &self,
        agent: &str,
        grant: Option<i64>,
        by: &Person,
        approvers: &Approvers,
        directory: &dyn Directory,
        now: Now,
        done: &mut Done,
    ) -> Result<(), NotAllowed> {
        approvers.may(by.uid, directory).map(drop).inspect_err(|refusal| {
            let fields = [
                ("grant", json!(grant)),
                ("by", json!(by.label())),
                ("uid", json!(by.uid)),
                ("caller", by.caller_json()),
                ("reason", json!(refusal.to_string())),
            ];
            done.events.push(told(now, Kind::GrantRefused, agent, fields));
        })
    }

    /// Another person agrees to a proposed grant. With the last one needed it is in force, from now on.
    ///
    /// # Errors
    /// See [`GrantError`].
    pub fn confirm_grant(
        &mut self,
        id: i64,
        by: &Person,
        approvers: &Approvers,
        directory: &dyn Directory,
        now: Now,
        done: &mut Done,
    ) -> Result<Grant, GrantError> {
        let found = self.grant(id)?.ok_or(GrantError::Unknown(id))?;
        self.may_grant(&found.agent, Some(id), by, approvers, directory, now, done)?;
        if found.state != "proposed" {
            return Err(GrantError::Over { id, state: found.state });
        }
        let said = self.agreed(id)?;
        if said.contains(&by.uid) {
            return Err(GrantError::Twice(by.label()));
        }
        let still = said.iter().filter(|uid| approvers.may(**uid, directory).is_ok()).count();
        let enough = still + 1 >= approvers.need.max(1);
        let end = Deadline::after(now, found.ttl);
        self.db.write(|tx| {
            let sql = "INSERT INTO grant_vote(grant_id, uid, user, at_wall) VALUES (?, ?, ?, ?)";
            tx.execute(sql, params![id, by.uid, by.user, wall_nanos(now.wall)])?;
            if enough {
                let sql =
                    "UPDATE grant_ SET state = 'active', deadline_boot = ?, deadline_wall = ? WHERE id = ?";
                tx.execute(sql, params![signed(end.boot), wall_nanos(end.wall), id])?;
            }
            Ok(())
        })?;
        let made = self.grant(id)?.ok_or(GrantError::Unknown(id))?;
        self.tell_grant(&made, by, now, done);
        Ok(made)
    }

    /// Users that have agreed to a grant.
    fn agreed(&self, id: i64) -> Result<Vec<u32>, StoreError> {
        self.db.read(|conn| {
            let mut select = conn.prepare_cached("SELECT uid FROM grant_vote WHERE grant_id = ?")?;
            select.query_map([id], |row| row.get(0))?.collect()
        })
    }

    /// One grant.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn grant(&self, id: i64) -> Result<Option<Grant>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM grant_ WHERE id = ?");
            conn.prepare_cached(&sql)?.query_row([id], grant).optional()
        })
    }

    /// Grants in force or proposed; with `all` those that are over too, the latest 500.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn grants(&self, agent: Option<&str>, all: bool) -> Result<Vec<Grant>, StoreError> {
        let open = "state IN ('proposed', 'active')";
        let state = if all { "1" } else { open };
        self.db.read(|conn| {
            let sql = format!(
                "SELECT {COLUMNS} FROM grant_ WHERE {state} AND (?1 IS NULL OR agent = ?1) \
                 ORDER BY {open} DESC, id DESC LIMIT 500"
            );
            conn.prepare_cached(&sql)?.query_map([agent], grant)?.collect()
        })
    }

    /// Grants in force, for the compiler of scopes.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn active_grants(&self) -> Result<Vec<ActiveGrant>, StoreError> {
        let active = |grant: Grant| {
            let GrantUse { id, expires: expires_boot, uses: uses_left } = grant.entry();
            let scope = read_scope(&grant.scope).ok()?;
            let (agent, session) = (grant.agent.parse().ok()?, grant.session);
            let active = ActiveGrant { id, agent, session, scope, expires_boot, uses_left };
            (expires_boot != 0).then_some(active)
        };
        Ok(self.grants(None, false)?.into_iter().filter_map(active).collect())
    }

    /// Takes a grant back, at once. Narrowing is everybody's who may call.
    ///
    /// # Errors
    /// See [`GrantError`].
    pub fn revoke_grant(
        &mut self,
        id: i64,
        by: &Person,
        why: Option<&str>,
        now: Now,
        done: &mut Done,
    ) -> Result<Grant, GrantError> {
        let found = self.grant(id)?.ok_or(GrantError::Unknown(id))?;
        if !matches!(found.state.as_str(), "proposed" | "active") {
            return Err(GrantError::Over { id, state: found.state });
        }
        self.end_grant(&found, "revoked", Some(by), why.unwrap_or("taken back"), now, done)?;
        Ok(self.grant(id)?.unwrap_or(found))
    }

    pub(super) fn end_grant(
        &mut self,
        found: &Grant,
        state: &str,
        by: Option<&Person>,
        why: &str,
        now: Now,
        done: &mut Done,
    ) -> Result<(), StoreError> {
        self.db.write(|tx| {
            let sql = "UPDATE grant_ SET state = ?, ended_wall = ?, ended_uid = ?, ended_user = ?, why = ? \
                       WHERE id = ?";
            let user = by.and_then(|by| by.user.as_deref());
            tx.execute(sql, params![state, wall_nanos(now.wall), by.map(|by| by.uid), user, why, found.id])
                .map(drop)
        })?;
        done.effects.push(Effect::Grant(GrantUse { id: found.number(), expires: 0, uses: 0 }));
        let kind = if state == "revoked" { Kind::GrantRevoked } else { Kind::GrantExpired };
        let fields = [
            ("grant", json!(found.id)),
            ("by", json!(by.map(Person::label))),
            ("caller", json!(by.map(Person::caller_json))),
            ("why", json!(why)),
        ];
        done.events.push(told(now, kind, &found.agent, fields));
        Ok(())
    }

    pub(super) fn end_session_grants(
        &mut self,
        session: &Session,
        now: Now,
        done: &mut Done,
    ) -> Result<(), StoreError> {
        let of = |grant: &Grant| grant.session == Some(session.number);
        for found in self.grants(Some(&session.agent), false)?.into_iter().filter(of) {
            self.end_grant(&found, "expired", None, "its session has ended", now, done)?;
        }
        Ok(())
    }

    /// Ends grants whose time is over, and takes in the uses that the kernel has counted. Whether any has ended.
    ///
    /// # Errors
    /// When it cannot be kept; the kernel ends grants by its own clock and count all the same.
    pub fn tick_grants(
        &mut self,
        left: &[(u64, u32)],
        now: Now,
        done: &mut Done,
    ) -> Result<bool, StoreError> {
        let mut ended = false;
        for found in self.grants(None, false)?.into_iter().filter(|grant| grant.state == "active") {
            let counted = left.iter().find(|(id, _)| *id == found.number()).map(|(_, left)| *left);
            if let (Some(before), Some(after)) = (found.uses.1, counted)
                && after < before
            {
                self.db.write(|tx| {
                    let sql = "UPDATE grant_ SET uses_left = ? WHERE id = ?";
                    tx.execute(sql, params![after, found.id]).map(drop)
                })?;
                let fields =
                    [("grant", json!(found.id)), ("uses", json!(before - after)), ("left", json!(after))];
                done.events.push(told(now, Kind::GrantUsed, &found.agent, fields));
                if after == 0 {
                    self.end_grant(&found, "used", None, "it is used up", now, done)?;
                    ended = true;
                    continue;
                }
            }
            if found.deadline.is_some_and(|end| end.over(now)) {
                self.end_grant(&found, "expired", None, "its time is over", now, done)?;
                ended = true;
            }
        }
        Ok(ended)
    }

    /// What a new daemon does with grants of the one before. Uses that nobody can have counted are not given again: after
    /// a reboot without a clean end, grants with a count are over.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn restart_grants(
        &mut self,
        opened: Opened,
        left: &[(u64, u32)],
        now: Now,
        done: &mut Done,
    ) -> Result<(), StoreError> {
        if opened.rebooted && !opened.clean {
            for found in self.grants(None, false)?.into_iter().filter(|grant| grant.uses.0.is_some()) {
                let why = "the host ended without notice: how often it was used is not known";
                self.end_grant(&found, "expired", None, why, now, done)?;
            }
        }
        let left = if opened.rebooted { &[] } else { left };
        self.tick_grants(left, now, done)?;
        let active = self.grants(None, false)?.into_iter().filter(|grant| grant.state == "active");
        done.effects.extend(active.map(|grant| Effect::Grant(grant.entry())));
        Ok(())
    }

    /// A grant as people see it.
    #[must_use]
    pub fn grant_view(&self, grant: Grant, need: usize, now: Now) -> GrantView {
        let session = grant.session.map(|number| {
            let known = self.session_by_number(number).ok().flatten();
            known.map_or_else(|| format!("{number:016x}"), |session| session.id)
        });
        let agreed = self.agreed(grant.id).map_or(0, |who| who.len());
        let active = grant.state == "active";
        let left = grant.deadline.filter(|_| active).map(|end| end.left(now).as_millis());
        let (ended, ended_by, why) = grant.ended;
        GrantView {
            id: grant.id,
            agent: grant.agent,
            session,
            scope: grant.scope,
            reason: grant.reason,
            state: grant.state,
            by: grant.by,
            added: grant.added,
            expires: grant.deadline.map(|end| end.wall),
            left_ms: left.map(|left| u64::try_from(left).unwrap_or(u64::MAX)),
            uses: grant.uses.0,
            uses_left: grant.uses.1,
            agreed,
            need,
            ended,
            ended_by,
            why,
            caller: read_caller(grant.caller),
        }
    }
}

#[cfg(test)]
mod tests;
