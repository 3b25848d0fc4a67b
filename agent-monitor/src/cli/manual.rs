//! `completions` and `man`: made from the command line itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use super::output::Out;

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell to write for
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write the pages of all commands into this directory, instead of the main one to standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "agent-monitor", &mut text);
    write_out(text)
}

pub(crate) fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let command = Cli::command();
    if let Some(directory) = &args.out {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        write_pages(command, "agent-monitor", directory)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    write_out(text)
}

fn write_pages(command: clap::Command, name: &str, directory: &Path) -> anyhow::Result<()> {
    for child in command.get_subcommands().filter(|child| child.get_name() != "help") {
        write_pages(child.clone(), &format!("{name}-{}", child.get_name()), directory)?;
    }
    let mut text = Vec::new();
    // clap wants names for the life of the program; these are few and the program ends with them.
    let page: &'static str = Box::leak(name.to_owned().into_boxed_str());
    clap_mangen::Man::new(command.name(page)).render(&mut text)?;
    let path = directory.join(format!("{name}.1"));
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn write_out(text: Vec<u8>) -> anyhow::Result<ExitCode> {
    let mut out = Out::new();
    out.text(&String::from_utf8(text)?)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
