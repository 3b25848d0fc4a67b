//! eBPF programs of agent-monitor.
fn main() {}
