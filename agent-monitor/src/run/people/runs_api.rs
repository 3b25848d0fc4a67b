//! Sessions and grants over the control API.

use std::time::Duration;

use crate::control::people::RunsDaemon;
use crate::control::{ApiError, Peer};
use crate::health::doctor::Level;
use crate::model::SCHEMA_VERSION;
use crate::people::Done;
use crate::people::api::{
    EndRequest, GrantList, GrantRequest, GrantView, SessionDetail, SessionList, SessionView, WhyRequest,
};
use crate::people::grants::{GrantError, NewGrant, TTL_MAX, USES_MAX, scope};
use crate::people::sessions::Session;
use crate::record::FilterSpec;
use crate::registry::Mode;
use crate::run::core::{Core, lock};
use crate::run::people::Side;
use crate::run::people::api::unusable;

/// Recent actions that a person is shown.
const RECENT: usize = 20;
/// Longest reason, in characters.
const REASON_MAX: usize = 500;

fn no_session(id: &str) -> ApiError {
    ApiError::new(404, format!("there is no session {id}"), "agent-monitor session list --all")
}

fn refused(error: &GrantError) -> ApiError {
    let (status, hint) = match error {
        GrantError::NotAllowed(_) => {
            (403, "the record's `approvers` give grants; agent-monitor agent show ID")
        }
        GrantError::Unknown(_) => (404, "agent-monitor grant list"),
        GrantError::Over { .. } => (409, "agent-monitor grant list --all"),
        GrantError::Twice(_) => (409, "ask one of the other approvers"),
        GrantError::Store(error) => return unusable(error),
    };
    ApiError::new(status, error.to_string(), hint)
}

/// A text of a person that goes into the record: one line, not too long.
pub(in crate::run) fn plain(what: &str, text: &str) -> Result<(), ApiError> {
    let bad = |problem: &str| Err(ApiError::new(400, format!("{what} {problem}"), "one line of plain text"));
    match text {
        text if text.chars().any(char::is_control) => bad("contains control characters"),
        text if text.chars().count() > REASON_MAX => bad("is longer than 500 characters"),
        _ => Ok(()),
    }
}

impl Core {
    fn session_view(&self, session: Session) -> SessionView {
        let processes = if session.active { self.processes_of(&session).len() as u64 } else { 0 };
        session.view(processes, self.moment())
    }

    fn found(&self, side: &Side, id: &str) -> Result<Session, ApiError> {
        side.people.session(id).map_err(|error| unusable(&error))?.ok_or_else(|| no_session(id))
    }

    fn grant_view(&self, side: &Side, grant: crate::people::grants::Grant) -> GrantView {
        let need = self.approvers_of(&grant.agent).need;
        side.people.grant_view(grant, need, self.moment())
    }

    /// The session as an approval shows it.
    pub(in crate::run) fn session_of(&self, side: &Side, number: u64) -> Option<SessionView> {
        let session = side.people.session_by_number(number).ok().flatten()?;
        Some(self.session_view(session))
    }
}

/// Refuses a grant that could not change anything: what `grant list` shows is what counts. Below level full the hooks on
/// connections ask no grants, and Landlock cannot be widened for a process that runs.
fn can_take_effect(level: Level, mode: Mode, agent: &str) -> Result<(), ApiError> {
    if level == Level::Full || mode == Mode::Observe {
        return Ok(());
    }
    let error =
        format!("a grant has no effect at level {}: nothing was granted to agent {agent}", level.as_str());
    Err(ApiError::new(
        409,
        error,
        "change the record (agent-monitor agent edit), or run a kernel with BPF LSM",
    ))
}

impl RunsDaemon for Core {
    fn sessions(&self, agent: Option<&str>, all: bool) -> Result<SessionList, ApiError> {
        self.with_people(|side| {
            let list = side.people.sessions(agent, all).map_err(|error| unusable(&error))?;
            let sessions = list.into_iter().map(|session| self.session_view(session)).collect();
            Ok(SessionList { schema_version: SCHEMA_VERSION, sessions })
        })
    }

    fn session(&self, id: &str) -> Result<SessionDetail, ApiError> {
        self.with_people(|side| {
            let session = self.found(side, id)?;
            let pids = self.processes_of(&session).iter().map(|key| key.tgid).collect();
            let grants = side.people.grants(Some(&session.agent), true).map_err(|error| unusable(&error))?;
            let grants = grants.into_iter().filter(|grant| grant.session == Some(session.number));
            let grants = grants.map(|grant| self.grant_view(side, grant)).collect();
            let spec = FilterSpec { session: vec![session.id.clone()], ..FilterSpec::default() };
            let filter = spec.compile(self.clock.now());
            let page = filter.map(|filter| self.store.query(&filter, Some(RECENT))).unwrap_or_default();
            let recent = page.events.iter().map(|event| (**event).clone()).collect();
            let session = self.session_view(session);
            Ok(SessionDetail { schema_version: SCHEMA_VERSION, session, pids, grants, recent })
        })
    }

    fn end_session(&self, peer: &Peer, id: &str, request: &EndRequest) -> Result<SessionView, ApiError> {
        let why = request.why.as_deref().unwrap_or("ended by hand");
        plain("why", why)?;
        self.with_people(|side| {
            let session = self.found(side, id)?;
            let by = side.person(peer);
            let (now, mut done) = (self.moment(), Done::default());
            let ended = side.people.end_session(&session, Some(&by), why, now, &mut done);
            let ended = ended.map_err(|error| unusable(&error))?;
            self.perform(side, done, now);
            if request.kill {
                self.kill_session(side, &session);
            }
            if !ended && !request.kill {
                let error = format!("session {id} has ended already");
                return Err(ApiError::new(409, error, "agent-monitor session show ID"));
            }
            self.remember(side).map_err(|error| unusable(&error))?;
            Ok(self.session_view(self.found(side, id)?))
        })
    }

    fn grants(&self, agent: Option<&str>, all: bool) -> Result<GrantList, ApiError> {
        self.with_people(|side| {
            let list = side.people.grants(agent, all).map_err(|error| unusable(&error))?;
            let grants = list.into_iter().map(|grant| self.grant_view(side, grant)).collect();
            Ok(GrantList { schema_version: SCHEMA_VERSION, grants })
        })
    }

    fn add_grant(&self, peer: &Peer, request: &GrantRequest) -> Result<GrantView, ApiError> {
        let bad = |error: String| ApiError::new(400, error, "agent-monitor grant add --help");
        let ttl = Duration::from_secs(request.seconds);
        if ttl.is_zero() || ttl > TTL_MAX {
            return Err(bad("--ttl is not from 1s to 30d".to_owned()));
        }
        if request.uses.is_some_and(|uses| uses == 0 || uses > USES_MAX) {
            return Err(bad(format!("--uses is not from 1 to {USES_MAX}")));
        }
        if request.reason.trim().is_empty() {
            return Err(bad("a grant needs a reason".to_owned()));
        }
        plain("the reason", &request.reason)?;
        let text = scope::text(&request.file, &request.net, &request.exec).map_err(bad)?;
        let view = self.with_people(|side| {
            let session = request.session.as_deref().map(|id| self.found(side, id)).transpose()?;
            if let Some(session) = session.as_ref().filter(|session| !session.active) {
                let error = format!("session {} has ended", session.id);
                return Err(ApiError::new(409, error, "agent-monitor session list"));
            }
            let agent = match (&request.agent, &session) {
                (Some(agent), Some(session)) if *agent != session.agent => {
                    return Err(bad(format!("session {} is of agent {}", session.id, session.agent)));
                }
                (Some(agent), _) => agent.clone(),
                (None, Some(session)) => session.agent.clone(),
                (None, None) => return Err(bad("name an agent or a session".to_owned())),
            };
            let mode = lock(&self.book).loaded.get(&agent).map(|record| record.mode.value);
            let mode = mode.ok_or_else(|| ApiError::no_agent(&agent))?;
            can_take_effect(self.report.level, mode, &agent)?;
            let approvers = self.approvers_of(&agent);
            let by = side.person(peer);
            let (now, mut done) = (self.moment(), Done::default());
            let new = NewGrant {
                agent: &agent,
                session: session.map(|session| session.number),
                scope: &text,
                ttl,
                uses: request.uses,
                reason: &request.reason,
                by: &by,
            };
            let made = side.people.add_grant(&new, &approvers, side.directory.as_ref(), now, &mut done);
            self.perform(side, done, now);
            let made = made.map_err(|error| refused(&error))?;
            self.remember(side).map_err(|error| unusable(&error))?;
            Ok(self.grant_view(side, made))
        })?;
        self.refresh();
        Ok(view)
    }

    fn confirm_grant(&self, peer: &Peer, id: i64) -> Result<GrantView, ApiError> {
        let view = self.with_people(|side| {
            let found = side.people.grant(id).map_err(|error| unusable(&error))?;
            let found = found.ok_or_else(|| refused(&GrantError::Unknown(id)))?;
            let mode = lock(&self.book).loaded.get(&found.agent).map(|record| record.mode.value);
            can_take_effect(self.report.level, mode.unwrap_or_default(), &found.agent)?;
            let approvers = self.approvers_of(&found.agent);
            let by = side.person(peer);
            let (now, mut done) = (self.moment(), Done::default());
            let made =
                side.people.confirm_grant(id, &by, &approvers, side.directory.as_ref(), now, &mut done);
            self.perform(side, done, now);
            let made = made.map_err(|error| refused(&error))?;
            self.remember(side).map_err(|error| unusable(&error))?;
            Ok(self.grant_view(side, made))
        })?;
        self.refresh();
        Ok(view)
    }

    fn revoke_grant(&self, peer: &Peer, id: i64, request: &WhyRequest) -> Result<GrantView, ApiError> {
        plain("why", request.why.as_deref().unwrap_or_default())?;
        let view = self.with_people(|side| {
            let by = side.person(peer);
            let (now, mut done) = (self.moment(), Done::default());
            let over = side.people.revoke_grant(id, &by, request.why.as_deref(), now, &mut done);
            self.perform(side, done, now);
            let over = over.map_err(|error| refused(&error))?;
            self.remember(side).map_err(|error| unusable(&error))?;
            Ok(self.grant_view(side, over))
        })?;
        self.refresh();
        Ok(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_refused_where_it_could_not_change_anything() {
        for (level, mode, accepted) in [
            (Level::Full, Mode::Enforce, true),
            (Level::Full, Mode::Observe, true),
            (Level::Partial, Mode::Observe, true),
            (Level::Partial, Mode::Enforce, false),
            (Level::None, Mode::Enforce, false),
        ] {
            let answer = can_take_effect(level, mode, "bot");
            assert_eq!(answer.is_ok(), accepted, "{level:?} {mode:?}");
            assert!(answer.is_ok() || answer.is_err_and(|error| error.status == 409));
        }
    }
}
