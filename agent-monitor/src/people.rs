//! People in the action path: held actions, who may decide, sessions, grants, and the life of agents.
//!
//! ```text
//! event with `hold` ─► approvals::ask ─► SQLite ─► effects: tickets, wake-ups        person ─► approvals::decide
//! tick              ─► time-outs, ends, uses ─────────┘  (first durable, then in force)
//! ```
//!
//! Pure over what it is given: the database, the time ([`Now`]), who is who ([`who::Directory`]). What is to be done in
//! the kernel comes back as [`Effect`]s, in order, and is done by `run` after it is on disk; what is to be told comes back
//! as events. No pass ticket leaves this module but by the decision of a person who is allowed to decide.

pub mod api;
pub mod approvals;
pub mod grants;
pub mod hands;
pub mod life;
pub mod notify;
pub mod review;
pub mod sessions;
pub mod settings;
pub mod store;
pub mod when;
pub mod who;

pub use self::settings::Settings;
pub use self::store::{Db, StoreError};
pub use self::when::{Deadline, Now};

use std::collections::BTreeMap;

use crate::attribute::TaskKey;
use crate::model::{Detail, Event, Kind, Source};
use crate::run::port::{GrantUse, Life, SessionEntry, Ticket, Whom};

/// Something to do in the kernel or to a process, in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Put a ticket in.
    Put(Ticket),
    /// Take a ticket away.
    Drop {
        /// Number of the agent.
        agent: u32,
        /// Digest of the action.
        digest: u64,
        /// Whose.
        whom: Whom,
    },
    /// Put a session in.
    Session(SessionEntry),
    /// Say whether an agent may act.
    Life(Life),
    /// Put a grant in.
    Grant(GrantUse),
    /// Let a stopped process go on; the kernel judges its action again.
    Wake(TaskKey),
    /// A decision has been carried out; the last effect of it.
    Carried(i64),
}

/// What one step gave.
#[derive(Debug, Default)]
pub struct Done {
    /// To be done, in order.
    pub effects: Vec<Effect>,
    /// To be told.
    pub events: Vec<Event>,
}

/// The state that people change, with what is only in memory.
#[derive(Debug)]
pub struct People {
    db: Db,
    settings: Settings,
    /// Requests that were merged into a pending one since the last flush.
    merged: BTreeMap<i64, u64>,
    floods: BTreeMap<u32, approvals::Flood>,
}

impl People {
    /// Over an open database.
    #[must_use]
    pub fn new(db: Db, settings: Settings) -> Self {
        Self { db, settings, merged: BTreeMap::new(), floods: BTreeMap::new() }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The database.
    #[must_use]
    pub fn db(&mut self) -> &mut Db {
        &mut self.db
    }
}

/// An event about people's doings: what happened to which agent, with free fields. Fields that are `null` are left out.
pub(crate) fn told<const N: usize>(
    now: Now,
    kind: Kind,
    agent: &str,
    fields: [(&str, serde_json::Value); N],
) -> Event {
    let mut detail = Detail::new();
    detail.insert("agent".to_owned(), agent.into());
    let known = fields.into_iter().filter(|(_, value)| !value.is_null());
    detail.extend(known.map(|(key, value)| (key.to_owned(), value)));
    Event { detail: Some(detail), ..Event::new(now.wall, kind, Source::Daemon) }
}

#[cfg(test)]
mod tests;
