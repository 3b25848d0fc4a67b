//! Requests in the form in which people see them.

use super::decide::Form;
use super::{COLUMNS, Stored, stored};
use crate::attribute::identity::{ALLOWED_ID, SHADOW_ID};
use crate::model::{Event, Kind, Source};
use crate::people::api::{ApprovalView, DecisionCount, FloodView, FormView, VoteView};
use crate::people::sessions::label;
use crate::people::store::{unsigned, wall_time};
use crate::people::who::{Approvers, Caller};
use crate::people::{Now, People, StoreError};

/// Decided requests that a list shows at most.
const LISTED: usize = 500;

impl People {
    /// Who has said yes to a request.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn votes(&self, id: i64) -> Result<Vec<VoteView>, StoreError> {
        self.db.read(|conn| {
            let sql =
                "SELECT uid, user, form, at_wall, why, caller FROM vote WHERE approval = ? ORDER BY rowid";
            let mut select = conn.prepare_cached(sql)?;
            let rows = select.query_map([id], |row| {
                Ok(VoteView {
                    uid: row.get(0)?,
                    user: row.get(1)?,
                    form: row.get(2)?,
                    at: wall_time(row.get(3)?),
                    why: row.get(4)?,
                    caller: read_caller(row.get(5)?),
                })
            })?;
            rows.collect()
        })
    }

    /// What waits, the longest first; with `all` also what was decided, the latest first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn list(&self, agent: Option<&str>, all: bool) -> Result<Vec<Stored>, StoreError> {
        let some = |state: &str, order: &str| {
            let sql = format!(
                "SELECT {COLUMNS} FROM approval WHERE {state} AND (?1 IS NULL OR agent = ?1) ORDER BY {order} \
                 LIMIT {LISTED}"
            );
            self.db.read(|conn| conn.prepare_cached(&sql)?.query_map([agent], stored)?.collect())
        };
        let mut list: Vec<Stored> = some("state = 'pending'", "id")?;
        if all {
            let decided: Vec<Stored> = some("state <> 'pending'", "id DESC")?;
            list.extend(decided);
        }
        Ok(list)
    }

    /// One request as people see it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn view(&self, found: Stored, approvers: &Approvers, now: Now) -> Result<ApprovalView, StoreError> {
        let pending = found.state == "pending";
        let waiting = if pending { self.waiters(found.id)? } else { Vec::new() };
        let event = serde_json::from_str(&found.event)
            .unwrap_or_else(|_| Event::new(found.asked, Kind::ApprovalRequested, Source::Daemon));
        let left = if pending { found.deadline.left(now) } else { std::time::Duration::ZERO };
        Ok(ApprovalView {
            id: found.id,
            agent: found.agent,
            digest: format!("{:016x}", found.digest),
            state: found.state,
            held: found.held,
            count: found.count + self.merged.get(&found.id).copied().unwrap_or(0),
            waiting: waiting.iter().map(|waiter| waiter.key.tgid).collect(),
            asked: found.asked,
            expires: found.deadline.wall,
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            event,
            votes: self.votes(found.id)?,
            need: approvers.need,
            approvers: approvers.words(),
            form: found.form,
            decided: found.decided,
            decided_by: found.decided_by,
            why: found.why,
            caller: read_caller(found.caller),
        })
    }

    /// How often who decided what about an agent.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn decisions(&self, agent: &str) -> Result<Vec<DecisionCount>, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT decided_uid, decided_user, state, count(*), sum(count) FROM approval \
                       WHERE agent = ? AND state <> 'pending' GROUP BY 1, 2, 3 ORDER BY 4 DESC";
            let mut select = conn.prepare_cached(sql)?;
            let rows = select.query_map([agent], |row| {
                Ok(DecisionCount {
                    by: label(row.get(0)?, row.get(1)?),
                    state: row.get(2)?,
                    requests: unsigned(row.get(3)?),
                    asked: unsigned(row.get(4)?),
                })
            })?;
            rows.collect()
        })
    }

    /// Agents that ask too much now.
    #[must_use]
    pub fn floods(&self) -> Vec<FloodView> {
        let view = |flood: &super::Flood| FloodView {
            agent: flood.agent.clone(),
            since: flood.since,
            denied: flood.denied,
        };
        self.floods.values().map(view).collect()
    }
}

/// Where a call came from, as it is kept.
pub(in crate::people) fn read_caller(text: Option<String>) -> Option<Caller> {
    text.and_then(|text| serde_json::from_str(&text).ok())
}

/// What a form of approval lets pass, in words, and whether that is more than the one action.
#[must_use]
pub fn means(view: &ApprovalView, form: Form, session: Option<&str>) -> FormView {
    let agent = &view.agent;
    let kind = view.event.kind.as_str();
    let first = view.waiting.first().copied().unwrap_or_default();
    if agent == SHADOW_ID {
        let means = format!(
            "process {first} and all that it started go on until they end, recorded as {ALLOWED_ID}; nothing of them is \
             held any more"
        );
        return FormView { form: "once".to_owned(), means, widens: true };
    }
    let (form, means, widens) = match form {
        Form::Once if view.held => {
            ("once", format!("this {kind} of process {first} goes ahead, once; nothing else"), false)
        }
        Form::Once => (
            "once",
            format!("the next time {agent} tries exactly this {kind}, it passes, once, within 10 minutes"),
            false,
        ),
        Form::For(span) => (
            "for",
            format!(
                "every process of {agent} may do exactly this {kind}, as often as it likes, for {}",
                span_words(span.as_secs())
            ),
            true,
        ),
        Form::Session => (
            "session",
            format!(
                "every process of session {} may do exactly this {kind}, as often as it likes, until the session ends",
                session.unwrap_or("-")
            ),
            true,
        ),
    };
    FormView { form: form.to_owned(), means, widens }
}

/// What is left of a time: `8 min 12 s`, `42 s`, `2 h 05 min`.
#[must_use]
pub fn left_words(seconds: u64) -> String {
    match seconds {
        s if s >= 3600 => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
        s if s >= 60 => format!("{} min {:02} s", s / 60, s % 60),
        s => format!("{s} s"),
    }
}

/// `10 min`, `90 s`, `2 h`.
#[must_use]
pub fn span_words(seconds: u64) -> String {
    match seconds {
        s if s >= 7200 && s % 3600 == 0 => format!("{} h", s / 3600),
        s if s >= 120 && s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}
