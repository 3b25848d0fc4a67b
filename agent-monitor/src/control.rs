//! The control API: HTTP/JSON on a UNIX socket.
//!
//! Owns the socket, who may call, the routes and their JSON. It decides nothing about agents: what it needs
//! from the running daemon is the trait [`Daemon`], which `run` implements. Every call is checked against the
//! caller's credentials, and a process that is bound to an agent is refused whatever its user id.
//!
//! | route | |
//! |---|---|
//! | `GET /v1/status` | [`api::Status`] |
//! | `GET /v1/doctor` | [`crate::health::doctor::Report`] |
//! | `GET /v1/agents` | [`api::AgentList`] |
//! | `GET /v1/agents/{id}` | [`api::AgentDetail`]: record and live process tree |
//! | `POST /v1/agents/reload` | [`api::Reloaded`] |
//! | `POST /v1/agents/check` | [`api::CheckRequest`] → [`api::CheckReply`]: a dry run, changes nothing |
//! | `GET /v1/events` | JSONL of [`crate::model::Event`]; filter fields of [`crate::record::FilterSpec`], `follow`, `limit` |
//! | `POST /v1/exec` | [`api::ExecRequest`] → [`api::ExecReply`]: binds the calling process |
//! | `/v1/approvals` … | see [`people`] |
//! | `GET /metrics` | OpenMetrics text, see [`crate::health::metrics`] |
//! | `GET /healthz` | `ok` |
//!
//! Errors are [`api::ErrorBody`].

pub mod api;
pub mod client;
mod events;
pub mod fake;
mod limits;
mod lives;
pub mod peer;
pub mod people;
mod routes;
mod runs;
pub mod server;
pub mod socket;

use std::sync::Arc;

pub use api::ApiError;
pub use peer::Peer;
pub use server::{ControlError, Handle, Server};
pub use socket::{BindError, SocketConfig};

use crate::health::Health;
use crate::health::doctor::Report;
use crate::record::Store;

/// What the control API asks of the running daemon. Calls come from several threads and may block.
pub trait Daemon: Send + Sync + 'static {
    /// The agent that `peer` is bound to, asked on every call. [`Peer::pidfd`] names the process safely; where
    /// the answer cannot be had, return an error: the call is then refused.
    ///
    /// # Errors
    /// When it cannot be known; the text is for the log.
    fn binding_of(&self, peer: &Peer) -> Result<Option<String>, String>;

    /// State of the daemon.
    fn status(&self) -> api::DaemonStatus;

    /// What this host can do.
    fn doctor(&self) -> Report;

    /// All registered agents, by id.
    fn agents(&self) -> Vec<api::AgentSummary>;

    /// One agent with its record and live tree.
    fn agent(&self, id: &str) -> Option<api::AgentDetail>;

    /// Reads the registry again. A record that is refused never takes the place of the one in force.
    ///
    /// # Errors
    /// When the new set was refused.
    fn reload(&self) -> Result<api::Reloaded, ApiError>;

    /// What would become of a record if it were registered or replaced now. Changes nothing.
    ///
    /// # Errors
    /// When it cannot be known.
    fn check_record(&self, request: &api::CheckRequest) -> Result<api::CheckReply, ApiError>;

    /// Binds the calling process, before it executes the agent's program.
    ///
    /// # Errors
    /// When there is no such agent, or the kernel refused.
    fn bind_caller(&self, peer: &Peer, request: &api::ExecRequest) -> Result<api::ExecReply, ApiError>;

    /// The side of it that asks people, where there is one.
    fn people(&self) -> Option<&dyn people::PeopleDaemon>;

    /// The side of it that keeps sessions and grants, where there is one.
    fn runs(&self) -> Option<&dyn people::RunsDaemon>;

    /// The side of it that keeps lives of agents, where there is one.
    fn lives(&self) -> Option<&dyn people::LivesDaemon>;

    /// The record.
    fn store(&self) -> &Arc<Store>;

    /// The counters.
    fn health(&self) -> &Arc<Health>;
}

#[cfg(test)]
mod tests;
