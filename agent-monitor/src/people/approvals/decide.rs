//! A person decides.

use std::fmt;
use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};
use serde_json::json;

use super::{Stored, Waiter, add_waiter};
use crate::model::Kind;
use crate::people::store::{signed, unsigned, wall_nanos};
use crate::people::who::{Approvers, Directory, NotAllowed, Person};
use crate::people::{Deadline, Done, Effect, Now, People, StoreError, told};
use crate::run::port::{Ticket, Whom};

/// How long a once-ticket of a held process is good: it is woken at once.
const ONCE: Duration = Duration::from_secs(60);
/// Longest `for`.
pub const FOR_MAX: Duration = Duration::from_secs(86_400);

/// What an approval lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// This one action of this one process.
    Once,
    /// This exact action, by any process of the agent, for so long.
    For(Duration),
    /// This exact action, by any process of the session, while that lasts.
    Session,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once => f.write_str("once"),
            Self::For(span) => write!(f, "for {}s", span.as_secs()),
            Self::Session => f.write_str("session"),
        }
    }
}

/// What a person says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Yes, to this.
    Approve(Form),
    /// No.
    Deny,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// `approved`, `denied`, or `pending` while more people are asked.
    pub state: &'static str,
    /// Who have said yes.
    pub votes: usize,
    /// How many are needed.
    pub need: usize,
    /// Where those wait now that this does not cover.
    pub rest: Option<i64>,
}

/// Why it was not decided. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// There is no such request.
    #[error("there is no approval {0}")]
    Unknown(i64),
    /// It is over.
    #[error("approval {id} is {state}{}", by.as_ref().map_or_else(String::new, |by| format!(", by {by}")))]
    Over {
        /// The request.
        id: i64,
        /// What it is.
        state: String,
        /// By whom.
        by: Option<String>,
    },
    /// This person may not.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// Four eyes are two people.
    #[error("{0} has said yes already: another person is needed")]
    Twice(String),
    /// The people do not mean the same.
    #[error("the first person approved `{first}`, this says `{this}`: say the same, or deny")]
    Differs {
        /// What the first said.
        first: String,
        /// What this one says.
        this: String,
    },
    /// There is none.
    #[error("the process that waits belongs to no session: approve once or for a time")]
    NoSession,
    /// The time makes no sense.
    #[error("`for` takes 1 s to 24 h")]
    Span,
    /// What the person saw is not what waits.
    #[error("approval {id} is for digest {is}, not {seen}: look at it again")]
    Digest {
        /// The request.
        id: i64,
        /// Its digest.
        is: String,
        /// What was sent.
        seen: String,
    },
    /// It cannot be kept, so it is not so.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who says what, why.
#[derive(Debug, Clone, Copy)]
pub struct Say<'a> {
    /// Who.
    pub person: &'a Person,
    /// What.
    pub answer: Answer,
    /// Why, for the record.
    pub why: Option<&'a str>,
    /// The digest that the person saw.
    pub digest: Option<&'a str>,
}

impl People {
    /// A person answers a request. What is to be done comes after it is on disk.
    ///
    /// # Errors
    /// See [`DecideError`]. A refusal of the person is told in `done`.
    pub fn decide(
        &mut self,
        id: i64,
        say: Say<'_>,
        approvers: &Approvers,
        directory: &dyn Directory,
        now: Now,
        done: &mut Done,
    ) -> Result<Decision, DecideError> {
        let found = self.approval(id)?.ok_or(DecideError::Unknown(id))?;
        let over = |state: &str, by| DecideError::Over { id, state: state.to_owned(), by };
        if found.state != "pending" {
            return Err(over(&found.state, found.decided_by));
        }
        if found.deadline.over(now) {
            self.expire(now, done)?;
            return Err(over("expired", None));
        }
        if let Some(seen) = say.digest
            && seen != format!("{:016x}", found.digest)
        {
            let is = format!("{:016x}", found.digest);
            return Err(DecideError::Digest { id, is, seen: seen.to_owned() });
        }
        let role = approvers.may(say.person.uid, directory).inspect_err(|refusal| {
            let fields = [
                ("approval", json!(id)),
                ("uid", json!(say.person.uid)),
                ("by", json!(say.person.label())),
                ("caller", say.person.caller_json()),
                ("reason", json!(refusal.to_string())),
            ];
            done.events.push(told(now, Kind::ApprovalRefused, &found.agent, fields));
        })?;
        match say.answer {
            Answer::Deny => self.deny(&found, say, &role, now, done),
            Answer::Approve(form) => {
                let people = Deciders { approvers, directory, role: &role };
                self.approve(&found, form, say, people, now, done)
            }
        }
    }

    fn deny(
        &mut self,
        found: &Stored,
        say: Say<'_>,
        role: &str,
        now: Now,
        done: &mut Done,
    ) -> Result<Decision, DecideError> {
        let waiters = self.waiters(found.id)?;
        self.close(found, "denied", None, Some(say), now, &[])?;
        let whom: Vec<_> = waiters.iter().map(|waiter| (waiter.key, found.held)).collect();
        self.refuse(found.index, found.digest, &whom, now, done);
        done.effects.push(Effect::Carried(found.id));
        done.events.push(self.decided(found, Kind::ApprovalDenied, say, role, None, now));
        Ok(Decision { state: "denied", votes: 0, need: 0, rest: None })
    }

    fn approve(
        &mut self,
        found: &Stored,
        form: Form,
        say: Say<'_>,
        people: Deciders<'_>,
        now: Now,
        done: &mut Done,
    ) -> Result<Decision, DecideError> {
        if let Form::For(span) = form
            && !(Duration::from_secs(1)..=FOR_MAX).contains(&span)
        {
            return Err(DecideError::Span);
        }
        let waiters = self.waiters(found.id)?;
        let session = waiters.first().map_or(0, |waiter| waiter.session);
        if form == Form::Session && session == 0 {
            return Err(DecideError::NoSession);
        }
        let votes = self.vote(found.id, form, say, people, now)?;
        let need = people.approvers.need.max(1);
        if votes < need {
            let mut event = self.decided(found, Kind::ApprovalVoted, say, people.role, Some(form), now);
            let detail = event.detail.get_or_insert_default();
            detail.insert("votes".to_owned(), votes.into());
            detail.insert("need".to_owned(), need.into());
            done.events.push(event);
            return Ok(Decision { state: "pending", votes, need, rest: None });
        }
        // Whom it covers, and who waits on.
        let (covered, rest): (Vec<Waiter>, Vec<Waiter>) = match form {
            Form::Once => {
                let rest = waiters.get(1..).unwrap_or_default().to_vec();
                (waiters.first().copied().into_iter().collect(), if found.held { rest } else { Vec::new() })
            }
            Form::For(_) => (waiters, Vec::new()),
            Form::Session => waiters.into_iter().partition(|waiter| waiter.session == session),
        };
        let rest = self.close(found, "approved", Some(form), Some(say), now, &rest)?;
        let ticket = self.pass(found, form, &covered, session, now)?;
        done.effects.push(Effect::Put(ticket));
        if found.held {
            done.effects.extend(covered.iter().map(|waiter| Effect::Wake(waiter.key)));
        }
        done.effects.push(Effect::Carried(found.id));
        done.events.push(self.decided(found, Kind::ApprovalApproved, say, people.role, Some(form), now));
        Ok(Decision { state: "approved", votes, need, rest })
    }

    /// The one place where a ticket is made that lets something pass.
    fn pass(
        &self,
        found: &Stored,
        form: Form,
        covered: &[Waiter],
        session: u64,
        now: Now,
    ) -> Result<Ticket, StoreError> {
        let Stored { index: agent, digest, held, .. } = *found;
        let after = |span| Deadline::after(now, span).boot;
        let (whom, uses, expires) = match form {
            Form::Once if held => {
                let whom = covered.first().map_or(Whom::Agent, |waiter| Whom::Task(waiter.key));
                (whom, 1, after(ONCE))
            }
            // The next try may be another process.
            Form::Once => {
                let whom = if session == 0 { Whom::Agent } else { Whom::Session(session) };
                (whom, 1, after(self.settings.retry_window))
            }
            Form::For(span) => (Whom::Agent, u32::MAX, after(span)),
            Form::Session => (Whom::Session(session), u32::MAX, self.session_end(session)?),
        };
        Ok(Ticket { agent, digest, whom, pass: true, expires, uses })
    }

    /// When a session ends by itself, in boot-time nanoseconds.
    fn session_end(&self, session: u64) -> Result<u64, StoreError> {
        let end: Option<Option<i64>> = self.db.read(|conn| {
            let sql = "SELECT deadline_boot FROM session WHERE number = ?";
            conn.prepare_cached(sql)?.query_row([signed(session)], |row| row.get(0)).optional()
        })?;
        Ok(end.flatten().map_or(u64::MAX, unsigned))
    }

    /// Counts a yes; how many there are of people who may still say it.
    fn vote(
        &mut self,
        id: i64,
        form: Form,
        say: Say<'_>,
        people: Deciders<'_>,
        now: Now,
    ) -> Result<usize, DecideError> {
        let said = self.votes(id)?;
        if said.iter().any(|vote| vote.uid == say.person.uid) {
            return Err(DecideError::Twice(say.person.label()));
        }
        let this = form.to_string();
        let still = |uid| people.approvers.may(uid, people.directory).is_ok();
        let standing: Vec<_> = said.iter().filter(|vote| still(vote.uid)).collect();
        if let Some(first) = standing.first()
            && first.form != this
        {
            return Err(DecideError::Differs { first: first.form.clone(), this });
        }
        let count = standing.len() + 1;
        self.db.write(|tx| {
            let sql = "INSERT INTO vote(approval, uid, user, form, why, at_wall, caller) \
                       VALUES (?, ?, ?, ?, ?, ?, ?)";
            let Person { uid, user, .. } = say.person;
            let caller = say.person.caller_text();
            tx.execute(sql, params![id, uid, user, this, say.why, wall_nanos(now.wall), caller]).map(drop)
        })?;
        Ok(count)
    }

    /// Ends a request durably, with a new one for those who wait on; its number.
    pub(super) fn close(
        &mut self,
        found: &Stored,
        state: &str,
        form: Option<Form>,
        say: Option<Say<'_>>,
        now: Now,
        rest: &[Waiter],
    ) -> Result<Option<i64>, StoreError> {
        let person = say.map(|say| say.person);
        let why = say.and_then(|say| say.why);
        let more = self.merged.get(&found.id).copied().unwrap_or(0);
        let made = self.db.write(|tx| {
            let sql = "UPDATE approval SET state = ?, form = ?, decided_wall = ?, decided_uid = ?, \
                       decided_user = ?, decided_caller = ?, why = ?, count = count + ? WHERE id = ? AND state = 'pending'";
            let changed = tx.execute(
                sql,
                params![
                    state,
                    form.map(|form| form.to_string()),
                    wall_nanos(now.wall),
                    person.map(|person| person.uid),
                    person.and_then(|person| person.user.as_deref()),
                    person.and_then(Person::caller_text),
                    why,
                    signed(more),
                    found.id
                ],
            )?;
            if changed != 1 {
                return Err(rusqlite::Error::StatementChangedRows(changed));
            }
            if rest.is_empty() {
                return Ok(None);
            }
            let sql = "INSERT INTO approval(agent, agent_index, digest, held, state, count, event, asked_wall, \
                       deadline_boot, deadline_wall) SELECT agent, agent_index, digest, held, 'pending', ?, event, \
                       asked_wall, deadline_boot, deadline_wall FROM approval WHERE id = ?";
            tx.execute(sql, params![i64::try_from(rest.len()).unwrap_or(i64::MAX), found.id])?;
            let fresh = tx.last_insert_rowid();
            for waiter in rest {
                let sql = "DELETE FROM waiter WHERE approval = ? AND tgid = ? AND start = ?";
                tx.execute(sql, params![found.id, waiter.key.tgid, signed(waiter.key.start)])?;
                add_waiter(tx, fresh, *waiter)?;
            }
            Ok(Some(fresh))
        })?;
        self.merged.remove(&found.id);
        Ok(made)
    }

    fn decided(
        &self,
        found: &Stored,
        kind: Kind,
        say: Say<'_>,
        role: &str,
        form: Option<Form>,
        now: Now,
    ) -> crate::model::Event {
        let fields = [
            ("approval", json!(found.id)),
            ("digest", json!(format!("{:016x}", found.digest))),
            ("uid", json!(say.person.uid)),
            ("by", json!(say.person.label())),
            ("caller", say.person.caller_json()),
            ("as", json!(role)),
            ("form", json!(form.map(|form| form.to_string()))),
            ("why", json!(say.why)),
        ];
        told(now, kind, &found.agent, fields)
    }
}

/// By whose word it counts.
#[derive(Clone, Copy)]
struct Deciders<'a> {
    approvers: &'a Approvers,
    directory: &'a dyn Directory,
    role: &'a str,
}
