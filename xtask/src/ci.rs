//! `ci`: all lanes, with nothing skipped that this project could help.

use std::process::ExitCode;

use anyhow::Result;

use crate::test;

/// Options of `ci`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// The command.
pub(crate) fn command(_: &Args) -> Result<ExitCode> {
    test::run(&test::Args::default(), true)
}
