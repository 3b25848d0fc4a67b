//! `agent-monitor`: daemon and CLI.
fn main() {}
