//! Approvals over the control API.

use std::time::Duration;

use crate::attribute::identity::SHADOW_ID;
use crate::control::people::PeopleDaemon;
use crate::control::{ApiError, Peer};
use crate::model::{Event, Family, Process, SCHEMA_VERSION, Time};
use crate::people::api::{ApprovalDetail, ApprovalList, ApproveRequest, DecisionReply, DenyRequest};
use crate::people::approvals::decide::Say;
use crate::people::approvals::view::means;
use crate::people::approvals::{Answer, DecideError, Form, Stored};
use crate::people::{Done, StoreError};
use crate::record::FilterSpec;
use crate::run::core::{Core, lock};
use crate::run::people::Side;
use crate::run::people::runs_api::plain;

/// Recent actions that a person is shown.
const RECENT: usize = 12;

/// The state of people's decisions cannot be used now.
pub(in crate::run) fn unusable(error: &StoreError) -> ApiError {
    ApiError::new(
        503,
        error.to_string(),
        "nothing was changed; see the daemon's log and `agent-monitor status`",
    )
}

fn not_open() -> ApiError {
    ApiError::new(503, "this daemon keeps no state of people's decisions", "see the daemon's log")
}

fn refused(error: &DecideError) -> ApiError {
    let (status, hint) = match error {
        DecideError::Unknown(_) => (404, "agent-monitor approval list"),
        DecideError::Over { .. } => (409, "agent-monitor approval list --all shows what became of it"),
        DecideError::NotAllowed(_) => (403, "the record's `approvers` decide; agent-monitor agent show ID"),
        DecideError::Twice(_) => (409, "ask one of the other approvers"),
        DecideError::Differs { .. } => (409, "agent-monitor approval show ID"),
        DecideError::NoSession => (409, "--once, or --for 10m"),
        DecideError::Span => (400, "--for 10m"),
        DecideError::Digest { .. } => (409, "agent-monitor approval show ID"),
        DecideError::Store(error) => return unusable(error),
    };
    ApiError::new(status, error.to_string(), hint)
}

/// The form of a request's body.
fn form(request: &ApproveRequest) -> Result<Form, ApiError> {
    let bad = |error: String| ApiError::new(400, error, r#"{"form":"for","seconds":600}"#);
    match (request.form.as_deref().unwrap_or("once"), request.seconds) {
        ("once", None) => Ok(Form::Once),
        ("session", None) => Ok(Form::Session),
        ("for", Some(seconds)) => Ok(Form::For(Duration::from_secs(seconds))),
        ("for", None) => Err(bad("form `for` needs seconds".to_owned())),
        ("once" | "session", Some(_)) => Err(bad("seconds go with form `for` only".to_owned())),
        (other, _) => Err(bad(format!("form `{other}` is none of once, for, session"))),
    }
}

/// What a person says.
struct Given<'a> {
    answer: Answer,
    why: Option<&'a str>,
    digest: Option<&'a str>,
    suspend: bool,
}

impl Core {
    /// Runs `work` over the people side.
    pub(in crate::run) fn with_people<T>(
        &self,
        work: impl FnOnce(&mut Side) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mut guard = lock(&self.people);
        work(guard.as_mut().ok_or_else(not_open)?)
    }

    fn answer(&self, peer: &Peer, id: i64, given: Given<'_>) -> Result<DecisionReply, ApiError> {
        let Given { answer, why, digest, suspend } = given;
        plain("why", why.unwrap_or_default())?;
        self.with_people(|side| {
            let now = self.moment();
            let found = side.people.approval(id).map_err(|error| unusable(&error))?;
            let found = found.ok_or_else(|| refused(&DecideError::Unknown(id)))?;
            if found.agent == SHADOW_ID && !matches!(answer, Answer::Deny | Answer::Approve(Form::Once)) {
                let problem = "a yes to an agent without a record is for its run, as `once`";
                return Err(ApiError::new(
                    409,
                    problem,
                    "agent-monitor agent adopt FIND registers it for longer",
                ));
            }
            let approvers = self.approvers_of(&found.agent);
            let person = side.person(peer);
            let waiting = side.people.waiters(id).map_err(|error| unusable(&error))?;
            let mut done = Done::default();
            let say = Say { person: &person, answer, why, digest };
            let result = side.people.decide(id, say, &approvers, side.directory.as_ref(), now, &mut done);
            if suspend && result.is_ok() {
                // First the agent, so that nothing of it runs between the two.
                let why = why.unwrap_or("with a denial");
                if let Err(error) = self.suspend_by(side, &found.agent, &person, why) {
                    self.perform(side, done, now);
                    return Err(error);
                }
            }
            let decided = result.as_ref().ok().map(|decision| decision.state);
            let moved = self.decide_shadow(&found, answer, decided, &waiting);
            self.perform(side, done, now);
            self.wake_shadows(side, &moved);
            let decision = result.map_err(|error| refused(&error))?;
            let view = side.people.view(found, &approvers, now).map_err(|error| unusable(&error))?;
            let means = match answer {
                Answer::Deny if view.agent == SHADOW_ID => {
                    "the process and all that it started may do nothing any more".to_owned()
                }
                Answer::Approve(form) => means(&view, form, None).means,
                Answer::Deny => format!("{} is told EACCES", view.agent),
            };
            Ok(DecisionReply {
                id,
                state: decision.state.to_owned(),
                votes: decision.votes,
                need: decision.need,
                rest: decision.rest,
                means,
            })
        })
    }

    fn detail(&self, side: &Side, found: Stored) -> Result<ApprovalDetail, ApiError> {
        let now = self.moment();
        let approvers = self.approvers_of(&found.agent);
        let (owner, purpose) = {
            let book = lock(&self.book);
            let record = book.loaded.get(&found.agent);
            (record.map(|r| r.owner.value.clone()), record.map(|r| r.purpose.value.clone()))
        };
        let waiters = side.people.waiters(found.id).map_err(|error| unusable(&error))?;
        let session = waiters.first().and_then(|waiter| self.session_of(side, waiter.session));
        let view = side.people.view(found, &approvers, now).map_err(|error| unusable(&error))?;
        let mut forms = vec![Form::Once, Form::For(Duration::from_secs(600))];
        forms.extend(session.is_some().then_some(Form::Session));
        if view.agent == SHADOW_ID {
            forms.truncate(1);
        }
        let id = session.as_ref().map(|session| session.id.as_str());
        let forms = forms.iter().map(|form| means(&view, *form, id)).collect();
        let recent = self.recent(&view.event);
        Ok(ApprovalDetail {
            schema_version: SCHEMA_VERSION,
            approval: view,
            owner,
            purpose,
            session,
            forms,
            recent,
        })
    }

    /// The latest actions of the process that waits, of those it comes from, and of its session.
    pub(super) fn recent(&self, event: &Event) -> Vec<Event> {
        let (Some(agent), Some(process)) = (&event.agent, &event.process) else { return Vec::new() };
        // A run that a rule recognised acts before its session is open: those acts name none.
        let line: Vec<_> = lineage(process).collect();
        let pids = line.iter().map(|(pid, _)| pid.to_string()).collect();
        let latest = |spec: FilterSpec| {
            let filter = spec.compile(self.clock.now());
            filter.map(|filter| self.store.query(&filter, Some(RECENT + 1)).events).unwrap_or_default()
        };
        let of = |spec| FilterSpec { agent: vec![agent.id.clone()], ..spec };
        let mut found = latest(of(FilterSpec { pid: pids, ..FilterSpec::default() }));
        found.retain(|one| {
            one.process
                .as_ref()
                .and_then(|process| lineage(process).next())
                .is_some_and(|key| line.contains(&key))
        });
        if let Some(session) = &agent.session {
            found.extend(latest(of(FilterSpec { session: vec![session.clone()], ..FilterSpec::default() })));
        }
        found.sort_by_key(|one| one.seq);
        found.dedup_by_key(|one| one.seq);
        // What people were asked about it is no action of it.
        found.retain(|one| one.seq != event.seq && one.kind.family() != Family::Approval);
        let extra = found.len().saturating_sub(RECENT);
        found.drain(..extra).for_each(drop);
        found.iter().map(|one| (**one).clone()).collect()
    }
}

/// A process and those it comes from, with the times that tell them from later ones of their numbers.
fn lineage(process: &Process) -> impl Iterator<Item = (u32, Option<Time>)> {
    let own = (process.pid, process.start_time);
    std::iter::once(own).chain(process.ancestry.iter().map(|one| (one.pid, one.start_time)))
}

impl PeopleDaemon for Core {
    fn approvals(&self, agent: Option<&str>, all: bool) -> Result<ApprovalList, ApiError> {
        self.with_people(|side| {
            let now = self.moment();
            let list = side.people.list(agent, all).map_err(|error| unusable(&error))?;
            let view = |found: Stored| {
                let approvers = self.approvers_of(&found.agent);
                side.people.view(found, &approvers, now).map_err(|error| unusable(&error))
            };
            let approvals = list.into_iter().map(view).collect::<Result<_, _>>()?;
            Ok(ApprovalList { schema_version: SCHEMA_VERSION, approvals, floods: side.people.floods() })
        })
    }

    fn approval(&self, id: i64) -> Result<ApprovalDetail, ApiError> {
        self.with_people(|side| {
            let found = side.people.approval(id).map_err(|error| unusable(&error))?;
            self.detail(side, found.ok_or_else(|| refused(&DecideError::Unknown(id)))?)
        })
    }

    fn approve(&self, peer: &Peer, id: i64, request: &ApproveRequest) -> Result<DecisionReply, ApiError> {
        let answer = Answer::Approve(form(request)?);
        let (why, digest) = (request.why.as_deref(), request.digest.as_deref());
        self.answer(peer, id, Given { answer, why, digest, suspend: false })
    }

    fn deny(&self, peer: &Peer, id: i64, request: &DenyRequest) -> Result<DecisionReply, ApiError> {
        let (answer, why) = (Answer::Deny, request.why.as_deref());
        self.answer(peer, id, Given { answer, why, digest: None, suspend: request.suspend })
    }
}
