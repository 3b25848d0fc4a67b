//! `agent-monitor`: daemon and CLI. Everything is in `cli`; what it calls is the library.

mod cli;

/// The eBPF programs. `cargo xtask build` names the object; a plain `cargo check` or `cargo build` gets an empty file
/// (`.cargo/config.toml`), and the daemon then says that it carries no programs and how to get them.
static PROGRAMS: &[u8] =
    agent_monitor::kernel::object::include_bytes_aligned!(env!("AGENT_MONITOR_BPF_OBJECT"));

fn main() -> std::process::ExitCode {
    agent_monitor::kernel::object::carry(PROGRAMS);
    cli::main()
}
