//! Lives of agents in the fake daemon: one agent, of which nothing is known, and that was reviewed or not.

use super::{FakeDaemon, FakePeople};
use crate::control::api::Reloaded;
use crate::control::people::LivesDaemon;
use crate::control::{ApiError, Peer};
use crate::model::{SCHEMA_VERSION, Time};
use crate::people::api::{
    AgentPeople, ConfirmRequest, LifeReply, RenewRequest, ReviewedRequest, StepView, WhyRequest,
};

fn not_here<T>() -> Result<T, ApiError> {
    Err(ApiError::new(503, "this daemon keeps no lives of agents", "see the daemon's log"))
}

impl LivesDaemon for FakePeople {
    fn suspend(&self, _: &Peer, _: &str, _: &WhyRequest) -> Result<LifeReply, ApiError> {
        not_here()
    }

    fn resume(&self, _: &Peer, _: &str, _: &WhyRequest) -> Result<LifeReply, ApiError> {
        not_here()
    }

    fn retire(&self, _: &Peer, _: &str, _: &WhyRequest) -> Result<LifeReply, ApiError> {
        not_here()
    }

    fn renew(&self, _: &Peer, _: &str, _: &RenewRequest) -> Result<LifeReply, ApiError> {
        not_here()
    }

    fn unregister(&self, _: &Peer, _: &str, _: &WhyRequest) -> Result<Reloaded, ApiError> {
        not_here()
    }

    fn confirm(&self, _: &Peer, _: &str, _: &ConfirmRequest) -> Result<StepView, ApiError> {
        not_here()
    }

    fn reviewed(&self, _: &Peer, id: &str, request: &ReviewedRequest) -> Result<AgentPeople, ApiError> {
        self.inner().reviewed = Some(request.due);
        self.about_people(id)
    }

    fn about_people(&self, id: &str) -> Result<AgentPeople, ApiError> {
        if id != FakeDaemon::AGENT {
            return Err(ApiError::no_agent(id));
        }
        let review_due = self.inner().reviewed;
        Ok(AgentPeople {
            schema_version: SCHEMA_VERSION,
            agent: id.to_owned(),
            state: "active".to_owned(),
            since: None,
            by: None,
            why: None,
            active: None,
            reviewed: review_due.map(|_| Time::EPOCH),
            reviewed_by: None,
            review_due,
            decisions: Vec::new(),
            grants: Vec::new(),
            sessions: (0, 0),
            steps: Vec::new(),
        })
    }
}
