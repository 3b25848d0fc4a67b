//! `agent-monitor`: daemon and CLI. Everything is in `cli`; what it calls is the library.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
