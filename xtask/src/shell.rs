//! Other programs: run, captured, bounded in time, and named in the error when they fail.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use std::{env, thread};

use anyhow::{Context as _, Result, bail};
use wait_timeout::ChildExt as _;

/// Lines of a failed program's output that are worth repeating in the error.
const TAIL_LINES: usize = 25;

/// Runs with the terminal's own output; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Runs silently and returns stdout; on failure the error carries the end of what was printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    stdout_of(command, &out)
}

/// [`output`], but the program is killed when `limit` has passed.
pub(crate) fn output_within(command: &mut Command, limit: Duration) -> Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", line(command)))?;
    // Drained on threads: a child that fills a pipe nobody reads would never exit.
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    let Some(status) = child.wait_timeout(limit)? else {
        child.kill()?;
        child.wait()?;
        bail!("`{}` gave no answer within {} s", line(command), limit.as_secs());
    };
    let collect = |pipe: Option<thread::JoinHandle<Vec<u8>>>| {
        pipe.map_or_else(Vec::new, |thread| thread.join().unwrap_or_default())
    };
    let out = Output { status, stdout: collect(stdout), stderr: collect(stderr) };
    stdout_of(command, &out)
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks only ends the output early; it is for a message anyway.
        pipe.read_to_end(&mut bytes).ok();
        bytes
    })
}

fn stdout_of(command: &Command, out: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&out.stdout);
    if !out.status.success() {
        let text = format!("{stdout}{}", String::from_utf8_lossy(&out.stderr));
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        bail!("`{}` failed ({})\n{}", line(command), out.status, tail.join("\n"));
    }
    Ok(stdout.into_owned())
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    [name.to_string_lossy().into_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// Where on `PATH` a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    // Root's tools are often off an ordinary user's PATH.
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(extra).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// True for the superuser, which the kernel lanes and the daemon need.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Writes only what differs, so that cargo does not see a new file where nothing changed.
pub(crate) fn copy_if_changed(from: &Path, to: &Path) -> Result<bool> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    fs::write(to, new).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(true)
}
