//! `key`: the key that signs the log.

use std::process::ExitCode;

use agent_monitor::clock;
use agent_monitor::log::key::Keys;
use clap::Subcommand;

use super::output::Out;
use super::{Shared, exit};

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Write the public key, for `verify --key` elsewhere
    Export,
    /// Make a new key, signed by the old one; a running daemon takes it up at its next checkpoint
    Rotate,
}

pub(crate) fn run(command: &KeyCommand, shared: &Shared) -> anyhow::Result<ExitCode> {
    let keys = Keys::in_state(&shared.state_dir()?);
    let mut out = Out::new();
    match command {
        KeyCommand::Export => out.line(&keys.load()?.public().to_string())?,
        KeyCommand::Rotate => {
            let (old, new) = keys.rotate(clock::now())?;
            exit::note(&format!("{} handed over to {}", old.hash_hex(), new.hash_hex()));
            out.line(&new.to_string())?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
