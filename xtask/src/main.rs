//! `cargo xtask`: every repeatable action of this repository, one file per command.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "xtask talks to the person at the terminal")]

mod build;
mod run;
mod setup;
mod shell;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set up, build, run and prove agent-monitor.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch and build what is missing on this machine (idempotent)
    Setup(setup::Args),
    /// Build the eBPF object and the daemon around it
    Build(build::Args),
    /// Build, then run the daemon in the foreground
    Run(run::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup(args) => setup::command(&args),
        Command::Build(args) => build::command(&args),
        Command::Run(args) => run::command(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
