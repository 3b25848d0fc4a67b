//! End-to-end tests of agent-monitor: what acts (`actor`), what watches (`harness`), what plays the model
//! (`model`), and the raw system calls all three share (`sys`).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "test code: a broken assumption ends the test, and its report goes to the terminal"
)]

pub mod actor;
pub mod agent;
pub mod harness;
pub mod model;
pub mod sys;
