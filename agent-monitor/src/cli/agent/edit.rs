//! `agent edit`: as `visudo` does it. A copy is edited, tried out, and takes the record's place only when it is good.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use agent_monitor::control::api::AgentDetail;
use agent_monitor::control::client::ClientError;
use agent_monitor::registry::{AgentId, parse_record, report};
use anyhow::Context as _;
use clap::Args;
use rustix::fs::{FlockOperation, flock};

use super::commit::{Commit, commit, read, try_out};
use crate::cli::exit::{FAILURE, Failure, note};
use crate::cli::output::OutputArgs;
use crate::cli::{Shared, block_on, lifecycle};

#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// The agent
    id: String,
    /// The editor and its arguments
    #[arg(long, env = "VISUAL", value_name = "COMMAND")]
    editor: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// A copy that is removed in the end, whatever the end is.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        // Gone already, or left in a directory for such files.
        let _removed = std::fs::remove_file(&self.0);
    }
}

pub(crate) fn edit(args: &EditArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let id = lifecycle::checked(&args.id)?;
    let path = place(&id, shared)?;
    let file =
        File::open(&path).with_context(|| format!("cannot open the record of {id}, {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let message = format!("{} is being edited by somebody else", path.display());
        return Err(Failure::new(FAILURE, message).into());
    }
    let before = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let copy = copy_of(&id, &before)?;
    loop {
        run_editor(args.editor.as_deref(), &copy.0)?;
        let text = match read(&copy.0)? {
            Ok(text) => text,
            Err(problems) => {
                note(report::diagnostics_text(&problems).trim_end());
                if again()? {
                    continue;
                }
                return Ok(refused());
            }
        };
        if text == before {
            note("unchanged");
            return Ok(ExitCode::SUCCESS);
        }
        let named = parse_record(&text, &path).record.map(|record| record.id.value);
        let other = named.filter(|named| *named != id);
        let reply = try_out(&shared.client()?, &text, &path)?;
        if let Some(other) = &other {
            note(&format!("error: the record names agent {other} now; register that one on its own"));
        }
        if !reply.ok || other.is_some() {
            note(reply.problems.trim_end());
            if again()? {
                continue;
            }
            return Ok(refused());
        }
        if std::fs::read_to_string(&path).ok().as_deref() != Some(before.as_str()) {
            let message =
                format!("{} was changed by somebody else meanwhile; nothing was changed", path.display());
            return Err(Failure::new(FAILURE, message).into());
        }
        let wanted = Commit { text: &text, name: &path, replace: true, format: args.output.format };
        return commit(&wanted, shared);
    }
}

fn refused() -> ExitCode {
    note("error: the record is refused; nothing was changed");
    ExitCode::from(FAILURE)
}

/// The file of an agent's record.
fn place(id: &AgentId, shared: &Shared) -> anyhow::Result<PathBuf> {
    let answer: Result<AgentDetail, ClientError> =
        block_on(shared.client()?.get(&format!("/v1/agents/{id}")))?;
    match answer {
        Ok(AgentDetail { summary, .. }) if summary.file.is_some() => {
            Ok(summary.file.unwrap_or_default().into())
        }
        Ok(_) | Err(ClientError::Unreachable { .. } | ClientError::Refused { status: 404, .. }) => {
            Ok(shared.registry()?.join(format!("{id}.toml")))
        }
        Err(error) => Err(error.into()),
    }
}

/// A copy that nobody else can read or change.
fn copy_of(id: &AgentId, text: &str) -> anyhow::Result<Copy> {
    let directory = std::env::temp_dir();
    let path = directory.join(format!("agent-monitor-{}-{id}.toml", std::process::id()));
    let failed = || format!("cannot write a copy for the editor, {}", path.display());
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&path).with_context(failed)?;
    let copy = Copy(path.clone());
    file.write_all(text.as_bytes()).with_context(failed)?;
    Ok(copy)
}

fn run_editor(editor: Option<&str>, path: &Path) -> anyhow::Result<()> {
    let editor = editor.map(str::to_owned).or_else(|| std::env::var("EDITOR").ok());
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let status = Command::new(program).args(words).arg(path).status();
    let status = status.with_context(|| format!("cannot run the editor `{editor}`; set VISUAL or EDITOR"))?;
    if !status.success() {
        return Err(Failure::new(
            FAILURE,
            format!("the editor `{editor}` failed ({status}); nothing was changed"),
        )
        .into());
    }
    Ok(())
}

/// Asks whether to edit again. Where nobody can answer, no.
fn again() -> anyhow::Result<bool> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Ok(false);
    }
    note("what now? (e)dit again, e(x)it without changing anything");
    let mut line = String::new();
    input.lock().read_line(&mut line).context("cannot read the answer")?;
    Ok(matches!(line.trim(), "e" | "E" | ""))
}
