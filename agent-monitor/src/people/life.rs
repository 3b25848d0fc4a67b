//! The life of an agent: active, suspended, expired, retired; and the steps that retirement leaves to do.

pub mod freezer;
pub mod halt;
pub mod offboard;

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension as _, Row, params};
use serde_json::json;

use super::sessions::label;
use super::store::{wall_nanos, wall_time};
use super::who::Person;
use super::{Done, Now, People, StoreError, told};
use crate::model::{Kind, Time};
use crate::run::port::LifeState;

/// An agent's life as it is kept. An agent of which nothing is kept is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifeRow {
    /// The agent.
    pub agent: String,
    /// State.
    pub state: LifeState,
    /// Since when.
    pub since: Time,
    /// By whom; nobody for what time did.
    pub by: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// The control group that was frozen for it.
    pub frozen: Option<String>,
    /// When it last did anything.
    pub active: Option<Time>,
    /// When a person last reviewed it, and who.
    pub reviewed: Option<(Time, Option<String>)>,
    /// When it is to be reviewed.
    pub review_due: Option<Time>,
}

impl LifeRow {
    fn fresh(agent: &str, now: Now) -> Self {
        Self {
            agent: agent.to_owned(),
            state: LifeState::Active,
            since: now.wall,
            by: None,
            why: None,
            frozen: None,
            active: None,
            reviewed: None,
            review_due: None,
        }
    }
}

/// Why a life did not change. Nothing has.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// It cannot go from here to there.
    #[error("agent {agent} is {is}: it cannot be {to}")]
    Not {
        /// The agent.
        agent: String,
        /// What it is.
        is: &'static str,
        /// What it was to be.
        to: &'static str,
    },
    /// It cannot be kept, so it is not so.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The word for a state.
#[must_use]
pub fn word(state: LifeState) -> &'static str {
    match state {
        LifeState::Active => "active",
        LifeState::Suspended => "suspended",
        LifeState::Retired => "retired",
        LifeState::Expired => "expired",
    }
}

fn state(word: &str) -> LifeState {
    match word {
        "suspended" => LifeState::Suspended,
        "expired" => LifeState::Expired,
        "active" => LifeState::Active,
        // The schema knows no other; what is not understood is not let go on.
        _ => LifeState::Retired,
    }
}

const COLUMNS: &str = "agent, state, since_wall, by_uid, by_user, why, frozen, active_wall, reviewed_wall, \
    reviewed_user, review_due_wall";

fn life(row: &Row<'_>) -> rusqlite::Result<LifeRow> {
    let reviewed: Option<i64> = row.get(8)?;
    let reviewer: Option<String> = row.get(9)?;
    Ok(LifeRow {
        agent: row.get(0)?,
        state: state(&row.get::<_, String>(1)?),
        since: wall_time(row.get(2)?),
        by: label(row.get(3)?, row.get(4)?),
        why: row.get(5)?,
        frozen: row.get(6)?,
        active: row.get::<_, Option<i64>>(7)?.map(wall_time),
        reviewed: reviewed.map(|at| (wall_time(at), reviewer)),
        review_due: row.get::<_, Option<i64>>(10)?.map(wall_time),
    })
}

impl People {
    /// The life of an agent.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn life(&self, agent: &str) -> Result<Option<LifeRow>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM life WHERE agent = ?");
            conn.prepare_cached(&sql)?.query_row([agent], life).optional()
        })
    }

    /// All lives of which anything is kept.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn lives(&self) -> Result<Vec<LifeRow>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM life ORDER BY agent");
            conn.prepare_cached(&sql)?.query_map([], life)?.collect()
        })
    }

    /// Agents that are retired: their ids are never used again.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn retired(&self) -> Result<BTreeSet<String>, StoreError> {
        let lives = self.lives()?.into_iter();
        Ok(lives.filter(|life| life.state == LifeState::Retired).map(|life| life.agent).collect())
    }

    /// Changes the state of an agent, durably. What it means for processes is done by the caller, in the order that the
    /// state asks for.
    ///
    /// # Errors
    /// When it cannot go from here to there.
    pub fn set_life(
        &mut self,
        agent: &str,
        to: LifeState,
        by: Option<&Person>,
        why: &str,
        now: Now,
        done: &mut Done,
    ) -> Result<LifeRow, LifeError> {
        let before = self.life(agent)?.map_or(LifeState::Active, |life| life.state);
        let possible = match (before, to) {
            (LifeState::Retired, _) => false,
            (LifeState::Suspended | LifeState::Expired, LifeState::Active) | (_, LifeState::Retired) => true,
            (from, LifeState::Suspended) => from == LifeState::Active,
            (from, LifeState::Expired) => from != LifeState::Expired,
            (LifeState::Active, LifeState::Active) => false,
        };
        if !possible {
            let to = if to == LifeState::Active { "resumed" } else { word(to) };
            return Err(LifeError::Not { agent: agent.to_owned(), is: word(before), to });
        }
        self.upsert(agent, now)?;
        self.db.write(|tx| {
            let sql =
                "UPDATE life SET state = ?, since_wall = ?, by_uid = ?, by_user = ?, why = ? WHERE agent = ?";
            let user = by.and_then(|by| by.user.as_deref());
            let row = params![word(to), wall_nanos(now.wall), by.map(|by| by.uid), user, why, agent];
            tx.execute(sql, row).map(drop)
        })?;
        let kind = match to {
            LifeState::Active => Kind::AgentResumed,
            LifeState::Suspended => Kind::AgentSuspended,
            LifeState::Retired => Kind::AgentRetired,
            LifeState::Expired => Kind::AgentExpired,
        };
        let fields = [
            ("by", json!(by.map(Person::label))),
            ("uid", json!(by.map(|by| by.uid))),
            ("caller", json!(by.map(Person::caller_json))),
            ("why", json!(why)),
            ("before", json!(word(before))),
        ];
        done.events.push(told(now, kind, agent, fields));
        Ok(self.life(agent)?.unwrap_or_else(|| LifeRow::fresh(agent, now)))
    }

    fn upsert(&mut self, agent: &str, now: Now) -> Result<(), StoreError> {
        self.db.write(|tx| {
            let sql = "INSERT OR IGNORE INTO life(agent, state, since_wall) VALUES (?, 'active', ?)";
            tx.execute(sql, params![agent, wall_nanos(now.wall)]).map(drop)
        })
    }

    /// Notes the control group that was frozen for an agent, or that it is not any more.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_frozen(&mut self, agent: &str, group: Option<&str>) -> Result<(), StoreError> {
        self.db.write(|tx| {
            tx.execute("UPDATE life SET frozen = ? WHERE agent = ?", params![group, agent]).map(drop)
        })
    }

    /// Notes when agents last did anything.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_active<'a>(
        &mut self,
        active: impl Iterator<Item = (&'a str, Time)>,
        now: Now,
    ) -> Result<(), StoreError> {
        self.db.write(|tx| {
            for (agent, at) in active {
                let sql = "INSERT INTO life(agent, state, since_wall, active_wall) VALUES (?1, 'active', ?2, ?3) \
                           ON CONFLICT(agent) DO UPDATE SET active_wall = max(coalesce(active_wall, ?3), ?3)";
                let row = params![agent, wall_nanos(now.wall), wall_nanos(at)];
                tx.prepare_cached(sql)?.execute(row)?;
            }
            Ok(())
        })
    }

    /// Ends what is open of an agent that is no more: its sessions, its grants, what it asked for.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn close_agent(&mut self, agent: &str, now: Now, done: &mut Done) -> Result<(), StoreError> {
        for session in self.sessions(Some(agent), false)? {
            self.end_session(&session, None, "the agent was retired", now, done)?;
        }
        for grant in self.grants(Some(agent), false)? {
            self.end_grant(&grant, "expired", None, "the agent was retired", now, done)?;
        }
        for found in self.list(Some(agent), false)? {
            self.give_up(&found, "gone", "the agent was retired", now, done)?;
        }
        Ok(())
    }

    /// Time in which nobody watched is no idleness: moves the last activity of all agents by it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn not_watched(&mut self, nanos: u64, now: Now) -> Result<(), StoreError> {
        let (by, most) = (i64::try_from(nanos).unwrap_or(i64::MAX), wall_nanos(now.wall));
        self.db.write(|tx| {
            let sql = "UPDATE life SET active_wall = min(active_wall + ?1, max(active_wall, ?2)) \
                       WHERE active_wall IS NOT NULL";
            tx.execute(sql, params![by, most]).map(drop)
        })
    }

    /// A person has reviewed an agent; the next review is due then.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_reviewed(
        &mut self,
        agent: &str,
        by: &Person,
        due: Time,
        now: Now,
        done: &mut Done,
    ) -> Result<(), StoreError> {
        self.upsert(agent, now)?;
        self.db.write(|tx| {
            let sql =
                "UPDATE life SET reviewed_wall = ?, reviewed_user = ?, review_due_wall = ? WHERE agent = ?";
            let row = params![wall_nanos(now.wall), by.label(), wall_nanos(due), agent];
            tx.execute(sql, row).map(drop)
        })?;
        let fields = [
            ("by", json!(by.label())),
            ("uid", json!(by.uid)),
            ("caller", by.caller_json()),
            ("due", json!(due.to_string())),
        ];
        done.events.push(told(now, Kind::AgentReviewed, agent, fields));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
