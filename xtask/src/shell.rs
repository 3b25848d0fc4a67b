//! Other programs: run, captured, bounded in time, and named in the error when they fail.

use std::fs;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
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
    let out =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", line(command)))?;
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

/// How a streamed program came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with success or without
    Exited { success: bool },
    /// Nothing was printed for too long; killed
    Silent,
    /// It took too long as a whole; killed
    Overdue,
}

/// Bounds of a streamed program.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Longest time without a byte of output
    pub(crate) silence: Duration,
    /// Longest time as a whole
    pub(crate) total: Duration,
}

/// A program that outlives its main process must not keep us at its pipe.
const GRACE: Duration = Duration::from_secs(5);

/// Starts a program whose stdout is to be read line by line; stderr goes to the terminal.
pub(crate) fn piped(command: &mut Command) -> Result<Child> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    child.with_context(|| format!("cannot start `{}`", line(command)))
}

/// Starts a program of which the lines of stderr are to be read among those of stdout, each line whole.
pub(crate) fn piped_both(command: &mut Command) -> Result<Child> {
    piped(command.stderr(Stdio::piped()))
}

/// [`piped`], and hands each line to `on_line` as it comes.
#[cfg(test)]
fn stream(command: &mut Command, limits: Limits, on_line: impl FnMut(&str)) -> Result<End> {
    watch(piped(command)?, limits, on_line)
}

/// Hands each line of a started program to `on_line` as it comes, and waits for its end.
pub(crate) fn watch(mut child: Child, limits: Limits, mut on_line: impl FnMut(&str)) -> Result<End> {
    let (sender, chunks) = mpsc::channel();
    let mut buffers = [Vec::new(), Vec::new()];
    child.stdout.take().into_iter().for_each(|pipe| feed(pipe, 0, sender.clone()));
    child.stderr.take().into_iter().for_each(|pipe| feed(pipe, 1, sender.clone()));
    drop(sender);
    let start = Instant::now();
    let (mut heard, mut exited) = (start, None);
    let end = loop {
        match chunks.recv_timeout(Duration::from_millis(500)) {
            Ok((from, chunk)) => {
                heard = Instant::now();
                let buffer: &mut Vec<u8> = &mut buffers[from];
                for byte in chunk {
                    if byte == b'\n' {
                        on_line(String::from_utf8_lossy(buffer).trim_end());
                        buffer.clear();
                    } else {
                        buffer.push(byte);
                    }
                }
            }
            Err(RecvTimeoutError::Disconnected) => break End::Exited { success: child.wait()?.success() },
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(status) = child.try_wait()? {
            let since = *exited.get_or_insert_with(Instant::now);
            if since.elapsed() > GRACE {
                break End::Exited { success: status.success() };
            }
        } else if heard.elapsed() > limits.silence {
            break End::Silent;
        } else if start.elapsed() > limits.total {
            break End::Overdue;
        }
    };
    if matches!(end, End::Silent | End::Overdue) {
        child.kill()?;
        child.wait()?;
    }
    // The last words of a program that hangs are usually half a line.
    for buffer in buffers.iter().filter(|buffer| !buffer.is_empty()) {
        on_line(String::from_utf8_lossy(buffer).trim_end());
    }
    Ok(end)
}

/// Sends what comes out of a pipe, with its number.
fn feed(mut pipe: impl Read + Send + 'static, number: usize, to: Sender<(usize, Vec<u8>)>) {
    thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(length) = pipe.read(&mut chunk)
            && length > 0
            && to.send((number, chunk[..length].to_vec())).is_ok()
        {}
    });
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

/// A program of ours, in the caller's environment as it was before cargo added its own to it.
pub(crate) fn product(path: &Path) -> Command {
    let mut command = Command::new(path);
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        // What such a program starts would inherit them, and an agent would load the toolchain's libraries.
        if name_text.starts_with("CARGO") || name_text == "LD_LIBRARY_PATH" {
            command.env_remove(&name);
        }
    }
    command
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
    // Renamed into place: a program that runs cannot be written to.
    let parent = to.parent().context("a file needs a folder")?;
    let mut fresh = tempfile::NamedTempFile::new_in(parent)
        .with_context(|| format!("cannot write into {}", parent.display()))?;
    fresh.write_all(&new)?;
    fresh.persist(to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streamed(script: &str, silence: u64, total: u64) -> (End, Vec<String>) {
        let limits = Limits { silence: Duration::from_millis(silence), total: Duration::from_millis(total) };
        let mut lines = Vec::new();
        let end =
            stream(Command::new("sh").args(["-c", script]), limits, |line| lines.push(line.to_string()));
        (end.unwrap(), lines)
    }

    #[test]
    fn lines_come_whole_and_the_exit_code_is_kept() {
        let (end, lines) = streamed("echo one; printf two; exit 3", 60_000, 60_000);
        assert_eq!(end, End::Exited { success: false });
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn lines_of_both_streams_come_whole() {
        let script = "printf 'test a ... '; echo '[1.0] BUG' >&2; sleep 0.2; echo ok";
        let (mut lines, limit) = (Vec::new(), Duration::from_secs(60));
        let limits = Limits { silence: limit, total: limit };
        let end = watch(piped_both(Command::new("sh").args(["-c", script])).unwrap(), limits, |line| {
            lines.push(line.to_string());
        });
        assert_eq!(end.unwrap(), End::Exited { success: true });
        lines.sort();
        assert_eq!(lines, ["[1.0] BUG", "test a ... ok"]);
    }

    #[test]
    fn a_silent_program_is_killed_and_its_half_line_is_shown() {
        let (end, lines) = streamed("printf 'test a ... '; exec sleep 60", 600, 60_000);
        assert_eq!(end, End::Silent);
        assert_eq!(lines, ["test a ..."]);
    }

    #[test]
    fn a_program_that_babbles_for_ever_is_killed() {
        let (end, _) = streamed("exec yes", 60_000, 300);
        assert_eq!(end, End::Overdue);
    }

    #[test]
    fn a_child_left_behind_does_not_keep_us() {
        let (end, _) = streamed("sleep 30 & exit 0", 60_000, 60_000);
        assert_eq!(end, End::Exited { success: true });
    }

    #[test]
    fn errors_carry_the_end_of_the_output() {
        let error = output(Command::new("sh").args(["-c", "echo because >&2; exit 1"])).unwrap_err();
        assert!(error.to_string().contains("because"), "{error}");
    }

    #[test]
    fn a_program_without_an_answer_is_named() {
        let error = output_within(Command::new("sleep").arg("60"), Duration::from_millis(200)).unwrap_err();
        assert!(error.to_string().contains("`sleep 60` gave no answer"), "{error}");
    }
}
