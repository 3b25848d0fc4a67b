//! Sessions and grants in the running daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_monitor_ebpf::task::ProcEntry;

use crate::attribute::TaskKey;
use crate::control::api::ExecRequest;
use crate::control::{ApiError, Peer};
use crate::model::Time;
use crate::people::grants::ActiveGrant;
use crate::people::hands::{Act, Condition};
use crate::people::sessions::{ActiveSession, NewSession, Session, read_scope};
use crate::people::store::effective;
use crate::people::{Done, Now, StoreError};
use crate::run::core::{Core, lock};
use crate::run::people::api::unusable;
use crate::run::people::inbox::Root;
use crate::run::people::{Side, life};

/// Longest session with an end.
const TTL_MAX: Duration = Duration::from_secs(366 * 86_400);

/// What of people's decisions is in force: read by the compiler of scopes, under no lock but its own.
#[derive(Debug, Default)]
pub(in crate::run) struct InForce {
    /// Grants, for the compiler.
    pub(in crate::run) grants: Vec<ActiveGrant>,
    /// Sessions that have a scope of their own, for the compiler.
    pub(in crate::run) sessions: Vec<ActiveSession>,
    /// The compiler's numbers of their scopes, by session.
    pub(in crate::run) policies: BTreeMap<u64, u32>,
    /// Lives of agents.
    pub(in crate::run) lives: life::Lives,
    /// The base of the clock for end dates.
    high: Option<Now>,
}

impl InForce {
    /// The wall clock for end dates, which never goes back.
    pub(in crate::run) fn effective(&self, now: Now) -> Time {
        self.high.map_or(now.wall, |high| effective(high, now))
    }
}

impl Core {
    /// Grants in force, for the compiler of scopes.
    #[must_use]
    pub fn active_grants(&self) -> Vec<ActiveGrant> {
        lock(&self.in_force).grants.clone()
    }

    /// Sessions in force that have a scope of their own, for the compiler of scopes.
    #[must_use]
    pub fn active_sessions(&self) -> Vec<ActiveSession> {
        lock(&self.in_force).sessions.clone()
    }

    /// The compiler's numbers of the scopes of sessions. A session with a scope of its own runs only when it has one.
    pub fn know_session_policies(&self, policies: BTreeMap<u64, u32>) {
        lock(&self.in_force).policies = policies;
    }

    /// Takes what is in force from the database.
    pub(in crate::run) fn remember(&self, side: &mut Side) -> Result<(), StoreError> {
        let (grants, sessions) = (side.people.active_grants()?, side.people.active_sessions()?);
        let states = side.people.lives()?.into_iter().map(|life| (life.agent, life.state)).collect();
        let mut in_force = lock(&self.in_force);
        (in_force.grants, in_force.sessions) = (grants, sessions);
        in_force.lives.states = states;
        in_force.high = Some(side.people.db().high());
        Ok(())
    }

    /// What a new daemon does with sessions and grants of the one before.
    pub(in crate::run) fn resume_runs(
        &self,
        side: &mut Side,
        now: Now,
        done: &mut Done,
    ) -> Result<(), StoreError> {
        let left = lock(&self.port).grant_uses().unwrap_or_default();
        let opened = side.opened;
        side.people.restart_sessions(opened, now, done)?;
        side.people.restart_grants(opened, &left, now, done)?;
        let mut live = lock(&self.live);
        for session in side.people.sessions(None, false)? {
            live.engine.name_session(session.number, &session.id);
        }
        drop(live);
        self.remember(side)
    }

    /// Opens a session for a launch, before anything is bound to it.
    pub(in crate::run) fn launch_session(
        &self,
        peer: &Peer,
        agent: (&str, u32),
        key: TaskKey,
        request: &ExecRequest,
    ) -> Result<Session, ApiError> {
        let ttl = request.ttl_seconds.map(Duration::from_secs);
        if ttl.is_some_and(|ttl| ttl.is_zero() || ttl > TTL_MAX) {
            return Err(ApiError::new(400, "--ttl is not from 1s to 366 days", "--ttl 2h"));
        }
        if let Some(text) = &request.scope {
            let bad =
                |error| ApiError::new(400, format!("--scope: {error}"), "agent-monitor agent check FILE");
            read_scope(text).map_err(bad)?;
        }
        let now = self.moment();
        let mut done = Done::default();
        let session = self.with_people(|side| {
            let by = side.person(peer);
            let new = NewSession {
                agent: agent.0,
                index: agent.1,
                task: request.task.as_deref(),
                ttl,
                scope: request.scope.as_deref(),
                root: Some(key),
                bound_by: "launch",
                by: Some(&by),
            };
            let session = side.people.open_session(&new, now, &mut done).map_err(|error| unusable(&error))?;
            self.remember(side).map_err(|error| unusable(&error))?;
            Ok(session)
        })?;
        if session.scope.is_some() {
            // Its scope is compiled before the session is in the kernel.
            self.refresh();
        }
        let held = session.scope.is_none() || lock(&self.in_force).policies.contains_key(&session.number);
        self.with_people(|side| {
            if !held {
                let why = "its scope cannot be held here";
                let ended = side.people.end_session(&session, None, why, now, &mut done);
                ended.map_err(|error| unusable(&error))?;
            }
            self.perform(side, std::mem::take(&mut done), now);
            Ok(())
        })?;
        if !held {
            let error = "the scope of this session cannot be held on this host; nothing was started";
            return Err(ApiError::new(
                409,
                error,
                "leave --scope out, or put the rules into the agent's record",
            ));
        }
        lock(&self.live).engine.name_session(session.number, &session.id);
        Ok(session)
    }

    /// Ends the session of a launch that came to nothing.
    pub(in crate::run) fn abandon_session(&self, session: &Session) {
        let now = self.moment();
        let ended = self.with_people(|side| {
            let mut done = Done::default();
            let ended = side.people.end_session(session, None, "the launch failed", now, &mut done);
            ended.map_err(|error| unusable(&error))?;
            self.perform(side, done, now);
            Ok(())
        });
        if let Err(error) = ended {
            tracing::error!(%error, "the session of a failed launch goes on");
        }
    }

    /// Opens a session for a process that a rule recognised: one for each run.
    pub(in crate::run) fn matched_session(
        &self,
        side: &mut Side,
        root: &Root,
        now: Now,
        done: &mut Done,
    ) -> Option<u64> {
        let new = NewSession {
            agent: &root.id,
            index: root.agent,
            task: None,
            ttl: None,
            scope: None,
            root: Some(root.key),
            bound_by: root.by,
            by: None,
        };
        match side.people.open_session(&new, now, done) {
            Ok(session) => {
                lock(&self.live).engine.name_session(session.number, &session.id);
                Some(session.number)
            }
            Err(error) => {
                self.broken(side, &error);
                None
            }
        }
    }

    /// Bound processes by session, as the kernel has them.
    pub(in crate::run) fn bound_now(&self) -> Option<Vec<(u32, ProcEntry)>> {
        lock(&self.port).procs().ok()
    }

    /// What time brings to sessions and grants. Whether grants have ended, so that scopes must be compiled again.
    pub(in crate::run) fn tick_runs(
        &self,
        side: &mut Side,
        now: Now,
        done: &mut Done,
    ) -> Result<bool, StoreError> {
        let left = lock(&self.port).grant_uses().unwrap_or_default();
        let ended = side.people.tick_grants(&left, now, done)?;
        if let Some(procs) = self.bound_now() {
            let mut running: std::collections::BTreeSet<u64> =
                procs.iter().map(|(_, entry)| entry.tag.session).collect();
            running.remove(&0);
            let Side { people, hands, .. } = side;
            let mut lives = |session: &Session| {
                let root = session.root.map(|root| hands.condition(root));
                running.contains(&session.number) || root.is_some_and(|root| root != Condition::Gone)
            };
            people.end_sessions(&mut lives, now, done)?;
        }
        self.remember(side)?;
        Ok(ended)
    }

    /// The processes of a session now.
    pub(in crate::run) fn processes_of(&self, session: &Session) -> Vec<TaskKey> {
        let procs = self.bound_now().unwrap_or_default();
        let mine = procs.iter().filter(|(tgid, entry)| {
            let root = session.root == Some(TaskKey { tgid: *tgid, start: entry.start });
            entry.tag.session == session.number || (session.active && root)
        });
        mine.map(|(tgid, entry)| TaskKey { tgid: *tgid, start: entry.start }).collect()
    }

    /// Ends the processes of a session.
    pub(in crate::run) fn kill_session(&self, side: &mut Side, session: &Session) {
        for key in self.processes_of(session) {
            if let Err(error) = side.hands.act(key, Act::Kill) {
                tracing::error!(pid = key.tgid, %error, "a process of an ended session cannot be ended");
            }
        }
    }
}
