//! The people side of the fake daemon: the real state machine over a database in memory. What is to be done in the kernel
//! is only noted.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::FakeDaemon;
use crate::attribute::TaskKey;
use crate::clock::Clock;
use crate::control::people::PeopleDaemon;
use crate::control::{ApiError, Peer};
use crate::model::{Event, SCHEMA_VERSION, Time};
use crate::people::api::{ApprovalDetail, ApprovalList, ApproveRequest, DecisionReply, DenyRequest};
use crate::people::approvals::decide::Say;
use crate::people::approvals::view::means;
use crate::people::approvals::{Answer, DecideError, Form, Request};
use crate::people::who::{Approvers, Directory as _, LinuxDirectory};
use crate::people::{Db, Done, Effect, Now, People, Settings, StoreError};

/// See the module.
#[derive(Debug)]
pub struct FakePeople(Mutex<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    people: People,
    approvers: Approvers,
    effects: Vec<Effect>,
    /// When the next review is due, where somebody has reviewed the agent.
    pub(super) reviewed: Option<Time>,
}

fn now() -> Now {
    let clock = Clock::start();
    Now { wall: clock.now(), boot: clock.boot_nanos() }
}

fn failed(error: &StoreError) -> ApiError {
    ApiError::new(503, error.to_string(), "nothing was changed")
}

impl FakePeople {
    /// Nobody waits. Root decides, alone.
    ///
    /// # Errors
    /// When SQLite cannot be had.
    pub fn new() -> Result<Self, StoreError> {
        let (db, _) = Db::open(Path::new(":memory:"), "boot", now())?;
        let approvers = Approvers { need: 1, ..Approvers::default() };
        let people = People::new(db, Settings::default());
        Ok(Self(Mutex::new(Inner { people, approvers, effects: Vec::new(), reviewed: None })))
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these decide.
    pub fn set_approvers(&self, approvers: Approvers) {
        self.inner().approvers = approvers;
    }

    /// An action waits, held, of a process with this pid.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn hold(&self, pid: u32, digest: u64, event: Event) -> Result<(), StoreError> {
        let key = TaskKey { tgid: pid, start: 1 };
        let id = FakeDaemon::AGENT.to_owned();
        let request = Request { agent: 1, key, session: 0, digest, held: true, event, id, timeout: None };
        let Inner { people, effects, .. } = &mut *self.inner();
        let mut done = Done::default();
        people.ask(&request, now(), &mut done)?;
        effects.extend(done.effects);
        Ok(())
    }

    /// What was to be done so far.
    #[must_use]
    pub fn effects(&self) -> Vec<Effect> {
        self.inner().effects.clone()
    }

    fn say(
        &self,
        peer: &Peer,
        id: i64,
        answer: Answer,
        digest: Option<&str>,
    ) -> Result<DecisionReply, ApiError> {
        let Inner { people, approvers, effects, .. } = &mut *self.inner();
        let person = LinuxDirectory.calling(peer.uid(), &peer.caller());
        let mut done = Done::default();
        let say = Say { person: &person, answer, why: None, digest };
        let result = people.decide(id, say, approvers, &LinuxDirectory, now(), &mut done);
        effects.extend(done.effects);
        let decision = result.map_err(|error| match &error {
            DecideError::Unknown(_) => ApiError::new(404, error.to_string(), "agent-monitor approval list"),
            DecideError::NotAllowed(_) => ApiError::new(403, error.to_string(), "ask an approver"),
            _ => ApiError::new(409, error.to_string(), "agent-monitor approval list --all"),
        })?;
        Ok(DecisionReply {
            id,
            state: decision.state.to_owned(),
            votes: decision.votes,
            need: decision.need,
            rest: decision.rest,
            means: "as asked".to_owned(),
        })
    }
}

impl PeopleDaemon for FakePeople {
    fn approvals(&self, agent: Option<&str>, all: bool) -> Result<ApprovalList, ApiError> {
        let Inner { people, approvers, .. } = &mut *self.inner();
        let list = people.list(agent, all).map_err(|error| failed(&error))?;
        let approvals = list.into_iter().map(|found| people.view(found, approvers, now()));
        let approvals = approvals.collect::<Result<_, _>>().map_err(|error| failed(&error))?;
        Ok(ApprovalList { schema_version: SCHEMA_VERSION, approvals, floods: people.floods() })
    }

    fn approval(&self, id: i64) -> Result<ApprovalDetail, ApiError> {
        let Inner { people, approvers, .. } = &mut *self.inner();
        let found = people.approval(id).map_err(|error| failed(&error))?;
        let unknown =
            || ApiError::new(404, format!("there is no approval {id}"), "agent-monitor approval list");
        let approval = people.view(found.ok_or_else(unknown)?, approvers, now());
        let approval = approval.map_err(|error| failed(&error))?;
        let forms =
            [Form::Once, Form::For(Duration::from_secs(600))].map(|form| means(&approval, form, None));
        Ok(ApprovalDetail {
            schema_version: SCHEMA_VERSION,
            approval,
            owner: Some("team@example.com".to_owned()),
            purpose: Some("tests".to_owned()),
            session: None,
            forms: forms.to_vec(),
            recent: Vec::new(),
        })
    }

    fn approve(&self, peer: &Peer, id: i64, request: &ApproveRequest) -> Result<DecisionReply, ApiError> {
        let form = match (request.form.as_deref(), request.seconds) {
            (Some("for"), Some(seconds)) => Form::For(Duration::from_secs(seconds)),
            (Some("session"), _) => Form::Session,
            _ => Form::Once,
        };
        self.say(peer, id, Answer::Approve(form), request.digest.as_deref())
    }

    fn deny(&self, peer: &Peer, id: i64, _request: &DenyRequest) -> Result<DecisionReply, ApiError> {
        self.say(peer, id, Answer::Deny, None)
    }
}
