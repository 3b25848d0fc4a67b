//! eBPF programs of agent-monitor.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
