//! User-space half of agent-monitor: attributes what happens on a Linux host to registered AI agents, judges it against
//! their scopes in the kernel, and keeps it as evidence.
//!
//! # Flow
//!
//! Records in TOML are read by [`registry`] and their scopes by [`scope`], which compiles them to an image of tables.
//! [`kernel`] loads the eBPF programs, puts the image in force and reads the rings. [`decode`] turns the bytes of a ring
//! record into typed facts, [`attribute`] knows processes, mounts and identities, and [`engine`] composes both into events
//! of [`model`]. [`record`] gives each event its number and offers it to the durable [`log`], after [`redact`] took secrets
//! out. [`export`] and [`mapping`] give events the forms that others read. [`people`] is the state machine of approvals,
//! sessions and grants; [`run`] carries out what it decides; [`control`] is the API on the UNIX socket.
//!
//! Beside the flow: [`explain`] answers what a scope decides about one action and what would happen, [`learn`] proposes a
//! scope from recorded events, [`replay`] judges them by another scope, [`sweep`] finds agents without a record.
//!
//! # Kinds of events
//!
//! What the program knows of a kind stands in one row of [`model::kinds`].
//!
//! # Limits
//!
//! `docs/limits.md` lists what is not seen, not stopped and not promised; [`health::doctor`] reports which of it applies
//! to a host. The interfaces of this library are for this program: they may change with each release.

pub mod action;
pub mod attribute;
pub mod clock;
pub mod config;
pub mod control;
pub mod decode;
pub mod engine;
pub mod explain;
pub mod export;
pub mod health;
pub mod kernel;
pub mod learn;
pub mod log;
pub mod mapping;
pub mod model;
pub mod people;
pub mod record;
pub mod redact;
pub mod registry;
pub mod replay;
pub mod run;
pub mod scope;
pub mod sweep;
