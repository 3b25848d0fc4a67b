//! `cargo xtask`: every repeatable action of this repository, one file per command.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "xtask talks to the person at the terminal")]

mod bench;
mod build;
mod ci;
mod fuzz;
mod mutants;
mod programs;
mod run;
mod setup;
mod shell;
mod tally;
mod test;
mod tidy;
mod timing;
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
    /// Run every lane that this machine can run, and count
    Test(test::Args),
    /// Run the kernel tests in virtual machines
    Vm(vm::Args),
    /// Measure what an act costs with and without the monitor, and what the log costs
    Bench(bench::Args),
    /// Fuzz the decoders and parsers for a while
    Fuzz(fuzz::Args),
    /// Put bugs in on purpose, and see which of them no test notices
    Mutants(mutants::Args),
    /// Check the rules of the house
    Tidy(tidy::Args),
    /// `test`, and a skipped test is a failure
    Ci(ci::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup(args) => setup::command(&args),
        Command::Build(args) => build::command(&args),
        Command::Run(args) => run::command(&args),
        Command::Test(args) => test::command(&args),
        Command::Vm(args) => vm::command(&args),
        Command::Bench(args) => bench::command(&args),
        Command::Fuzz(args) => fuzz::command(&args),
        Command::Mutants(args) => mutants::command(&args),
        Command::Tidy(args) => tidy::command(&args),
        Command::Ci(args) => ci::command(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
