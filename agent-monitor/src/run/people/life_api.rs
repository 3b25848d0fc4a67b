//! Lives of agents over the control API.

use crate::control::api::Reloaded;
use crate::control::people::LivesDaemon;
use crate::control::{ApiError, Peer};
use crate::model::{Kind, SCHEMA_VERSION, Time};
use crate::people::api::{
    AgentPeople, ConfirmRequest, LifeReply, RenewRequest, ReviewedRequest, StepView, WhyRequest,
};
use crate::people::life::halt::Halted;
use crate::people::life::word;
use crate::people::who::Person;
use crate::people::{Done, told};
use crate::registry::install::{InstallError, install_text};
use crate::registry::{LinuxFacts, Record, renew};
use crate::run::core::Core;
use crate::run::people::Side;
use crate::run::people::api::unusable;
use crate::run::people::runs_api::plain;
use crate::run::port::LifeState;

impl Core {
    /// The record and number of an agent that there is, dead or alive.
    fn known(&self, id: &str) -> Result<(Record, u32), ApiError> {
        match self.record_of(id) {
            (Some(record), Some(agent)) => Ok((record, agent)),
            _ => Err(ApiError::no_agent(id)),
        }
    }

    /// Root, or one of the approvers: who may widen, or end for ever.
    fn operator(&self, side: &Side, peer: &Peer, id: &str, what: &str) -> Result<Person, ApiError> {
        let person = side.person(peer);
        if peer.uid() == 0 {
            return Ok(person);
        }
        match self.approvers_of(id).may(peer.uid(), side.directory.as_ref()) {
            Ok(_) => Ok(person),
            Err(refusal) => {
                let fields = [
                    ("what", what.into()),
                    ("uid", peer.uid().into()),
                    ("by", person.label().into()),
                    ("caller", person.caller_json()),
                    ("reason", refusal.to_string().into()),
                ];
                self.store.append(told(self.moment(), Kind::ApprovalRefused, id, fields));
                Err(ApiError::new(403, refusal.to_string(), "root or one of the record's approvers may"))
            }
        }
    }

    fn life_reply(&self, side: &Side, id: &str, halted: &Halted) -> Result<LifeReply, ApiError> {
        let row = side.people.life(id).map_err(|error| unusable(&error))?;
        let (record, agent) = self.record_of(id);
        let state = agent.map_or(LifeState::Active, |agent| self.life_of(agent));
        let state =
            row.as_ref().map_or(state, |row| if row.state == LifeState::Active { state } else { row.state });
        Ok(LifeReply {
            schema_version: SCHEMA_VERSION,
            agent: id.to_owned(),
            state: word(state).to_owned(),
            processes: halted.processes.len(),
            complete: halted.complete,
            frozen: row.and_then(|row| row.frozen),
            failed: halted.failed.clone(),
            expires: record.map(|record| Time::from(record.expires.value)),
            steps: side.people.steps(id).map_err(|error| unusable(&error))?,
        })
    }

    /// Suspends an agent, whoever asks for it: that narrows only.
    pub(in crate::run) fn suspend_by(
        &self,
        side: &mut Side,
        id: &str,
        by: &Person,
        why: &str,
    ) -> Result<LifeReply, ApiError> {
        let (_, agent) = self.known(id)?;
        self.change_life(side, id, LifeState::Suspended, Some(by), why)?;
        let halted = self.suspend_tree(side, id, agent);
        self.life_reply(side, id, &halted)
    }

    fn renewed(&self, record: &Record, until: Time) -> Result<(), ApiError> {
        let bad = |error: String| ApiError::new(409, error, "agent-monitor agent check FILE");
        let path = record.file().to_path_buf();
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|error| bad(format!("cannot read {}: {error}", path.display())))?;
        let text = renew::text(&text, until.timestamp()).map_err(bad)?;
        let now = self.clock.now().timestamp();
        match install_text(&text, &path, &self.config.registry, &LinuxFacts, now, true) {
            Ok(_) => Ok(()),
            Err(InstallError::Refused { diagnostics }) => {
                let first = diagnostics.iter().find(|problem| problem.is_error());
                let first = first.map_or_else(String::new, |problem| problem.message.clone());
                Err(bad(format!("the record with the new date is refused: {first}")))
            }
            Err(error) => Err(ApiError::new(500, error.to_string(), "see the daemon's log")),
        }
    }
}

impl LivesDaemon for Core {
    fn suspend(&self, peer: &Peer, id: &str, request: &WhyRequest) -> Result<LifeReply, ApiError> {
        let why = request.why.as_deref().unwrap_or("by hand");
        plain("why", why)?;
        self.with_people(|side| {
            let by = side.person(peer);
            self.suspend_by(side, id, &by, why)
        })
    }

    fn resume(&self, peer: &Peer, id: &str, request: &WhyRequest) -> Result<LifeReply, ApiError> {
        let why = request.why.as_deref().unwrap_or("by hand");
        plain("why", why)?;
        self.with_people(|side| {
            let (record, agent) = self.known(id)?;
            let by = self.operator(side, peer, id, "resume")?;
            if self.is_over(&record, self.moment()) {
                let error = format!("agent {id} expired at {}", record.expires.value);
                return Err(ApiError::new(409, error, "agent-monitor agent renew ID --until DATE"));
            }
            let before = side.people.life(id).map_err(|error| unusable(&error))?;
            self.change_life(side, id, LifeState::Active, Some(&by), why)?;
            let failed = match &before {
                Some(row) => self.resume_tree(side, row, agent),
                None => Vec::new(),
            };
            let halted = Halted { complete: failed.is_empty(), failed, ..Halted::default() };
            self.life_reply(side, id, &halted)
        })
    }

    fn retire(&self, peer: &Peer, id: &str, request: &WhyRequest) -> Result<LifeReply, ApiError> {
        let why = request.why.as_deref().unwrap_or("by hand");
        plain("why", why)?;
        let (by, halted) = self.with_people(|side| {
            self.known(id)?;
            let by = self.operator(side, peer, id, "retire")?;
            let halted = self.retire_agent(side, id, Some(&by), why)?;
            Ok((by, halted))
        })?;
        self.off_board(id, Some(&by))?;
        let reply = self.with_people(|side| self.life_reply(side, id, &halted))?;
        if let Err(error) = self.load() {
            tracing::error!(%error, "the registry was not read again after a retirement");
        }
        Ok(reply)
    }

    fn renew(&self, peer: &Peer, id: &str, request: &RenewRequest) -> Result<LifeReply, ApiError> {
        plain("why", request.why.as_deref().unwrap_or_default())?;
        let (by, before) = self.with_people(|side| {
            let (record, _) = self.known(id)?;
            let by = self.operator(side, peer, id, "renew")?;
            if self.is_retired(id) {
                let error = format!("agent {id} is retired: it is never renewed");
                return Err(ApiError::new(409, error, "register a new agent with another id"));
            }
            if request.until <= self.clock.now() {
                return Err(ApiError::new(400, "the new end date has passed", "--until 2027-01-01"));
            }
            self.renewed(&record, request.until)?;
            Ok((by, record.expires.value))
        })?;
        self.load().map_err(|error| {
            ApiError::new(
                500,
                format!("the record is renewed on disk, but not in force: {error}"),
                "agent-monitor agent check",
            )
        })?;
        let now = self.moment();
        let fields = [
            ("by", by.label().into()),
            ("caller", by.caller_json()),
            ("uid", by.uid.into()),
            ("before", before.to_string().into()),
            ("until", request.until.to_string().into()),
            ("why", request.why.clone().into()),
        ];
        self.store.append(told(now, Kind::AgentRenewed, id, fields));
        let reply = self.with_people(|side| {
            let mut done = Done::default();
            self.tick_lives(side, now, &mut done).map_err(|error| unusable(&error))?;
            self.perform(side, done, now);
            self.life_reply(side, id, &Halted { complete: true, ..Halted::default() })
        })?;
        // With its life active again, the record is in force with its own scope.
        self.load().map_err(|error| ApiError::new(500, error.to_string(), "agent-monitor agent check"))?;
        Ok(reply)
    }

    fn unregister(&self, peer: &Peer, id: &str, request: &WhyRequest) -> Result<Reloaded, ApiError> {
        let why = request.why.as_deref().unwrap_or("by hand");
        plain("why", why)?;
        let by = self.with_people(|side| {
            self.known(id)?;
            self.operator(side, peer, id, "unregister")
        })?;
        self.unregister_agent(id, &by, why)
    }

    fn confirm(&self, peer: &Peer, id: &str, request: &ConfirmRequest) -> Result<StepView, ApiError> {
        plain("the note", request.note.as_deref().unwrap_or_default())?;
        self.with_people(|side| {
            let by = self.operator(side, peer, id, "confirm a step")?;
            let (now, mut done) = (self.moment(), Done::default());
            let note = request.note.as_deref();
            let step = side.people.confirm_step(id, request.step, &by, note, now, &mut done);
            self.perform(side, done, now);
            step.map_err(|error| unusable(&error))?.ok_or_else(|| {
                let error = format!("agent {id} has no open step {} for people", request.step);
                ApiError::new(404, error, "agent-monitor agent review ID lists the steps")
            })
        })
    }

    fn reviewed(&self, peer: &Peer, id: &str, request: &ReviewedRequest) -> Result<AgentPeople, ApiError> {
        if request.due <= self.clock.now() {
            return Err(ApiError::new(400, "the next review is not in the future", "--next 90d"));
        }
        self.with_people(|side| {
            self.known(id)?;
            let by = self.operator(side, peer, id, "review")?;
            let (now, mut done) = (self.moment(), Done::default());
            let kept = side.people.set_reviewed(id, &by, request.due, now, &mut done);
            self.perform(side, done, now);
            kept.map_err(|error| unusable(&error))
        })?;
        self.about_people(id)
    }

    fn about_people(&self, id: &str) -> Result<AgentPeople, ApiError> {
        self.with_people(|side| {
            let fail = |error: crate::people::StoreError| unusable(&error);
            let row = side.people.life(id).map_err(fail)?;
            let (record, agent) = self.record_of(id);
            if row.is_none() && record.is_none() {
                return Err(ApiError::no_agent(id));
            }
            let now = self.moment();
            let grants = side.people.grants(Some(id), true).map_err(fail)?;
            let need = self.approvers_of(id).need;
            let grants = grants.into_iter().map(|grant| side.people.grant_view(grant, need, now)).collect();
            let state = agent.map_or(LifeState::Active, |agent| self.life_of(agent));
            let reviewed = row.as_ref().and_then(|row| row.reviewed.clone());
            Ok(AgentPeople {
                schema_version: SCHEMA_VERSION,
                agent: id.to_owned(),
                state: word(state).to_owned(),
                since: row.as_ref().map(|row| row.since),
                by: row.as_ref().and_then(|row| row.by.clone()),
                why: row.as_ref().and_then(|row| row.why.clone()),
                active: row.as_ref().and_then(|row| row.active),
                reviewed: reviewed.as_ref().map(|(at, _)| *at),
                reviewed_by: reviewed.and_then(|(_, by)| by),
                review_due: row.and_then(|row| row.review_due),
                decisions: side.people.decisions(id).map_err(fail)?,
                grants,
                sessions: side.people.session_counts(id).map_err(fail)?,
                steps: side.people.steps(id).map_err(fail)?,
            })
        })
    }
}
