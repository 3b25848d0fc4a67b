//! Starting the actor and reading its markers.

use super::PATIENCE;
use crate::sys::wait;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// One marker: `ACT <name> pid=… … ok|errno=…|skip=… [key=value…]`, or `READY`, `PAUSED`, `STORM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The act's name, or the word itself for the others.
    pub name: String,
    pub ok: bool,
    pub facts: BTreeMap<String, String>,
}

impl Mark {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let name = match words.next()? {
            "ACT" => words.next()?,
            word @ ("READY" | "PAUSED" | "STORM") => word,
            _ => return None,
        };
        let mut mark = Self { name: name.to_owned(), ok: name == "STORM", facts: BTreeMap::new() };
        for word in words {
            match word.split_once('=') {
                Some((key, value)) => drop(mark.facts.insert(key.to_owned(), value.to_owned())),
                None => mark.ok |= word == "ok",
            }
        }
        Some(mark)
    }

    pub fn pid(&self) -> u32 {
        self.number("pid") as u32
    }

    pub fn tid(&self) -> u32 {
        self.number("tid") as u32
    }

    /// A fact that is a number; the test ends if it is not there.
    pub fn number(&self, key: &str) -> u64 {
        let value = self.facts.get(key).unwrap_or_else(|| panic!("{self:?} says no {key}"));
        value.parse().unwrap()
    }
}

/// A running actor.
#[derive(Debug)]
pub struct Actor {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    pending: Vec<u8>,
    marks: Vec<Mark>,
    eof: bool,
}

impl Actor {
    /// Starts `program` (a copy of the actor, or something that becomes it) with these words.
    pub fn start(program: &str, words: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(words);
        Self::spawn(command)
    }

    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, stdin, stdout, pending: Vec::new(), marks: Vec::new(), eof: false }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it go on to the next act.
    pub fn go(&mut self) {
        self.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// The same for one that may have ended meanwhile.
    pub fn go_if_there(&mut self) {
        self.stdin.as_mut().unwrap().write_all(b"go\n").ok();
    }

    /// Waits for the next marker of this name.
    #[track_caller]
    pub fn mark(&mut self, name: &str) -> Mark {
        let mut seen = 0;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(mark) = self.marks.iter().skip(seen).find(|m| m.name == name) {
                return mark.clone();
            }
            seen = self.marks.len();
            assert!(!self.eof, "the actor ended without `{name}`: {:?}", self.marks);
            self.read_some(deadline);
        }
    }

    /// Waits until no process holds its standard output any more: all its descendants are done.
    #[track_caller]
    pub fn finish(self) -> Run {
        self.finish_within(PATIENCE)
    }

    #[track_caller]
    pub fn finish_within(mut self, limit: Duration) -> Run {
        drop(self.stdin.take());
        let deadline = Instant::now() + limit;
        while !self.eof {
            self.read_some(deadline);
        }
        let status = self.child.wait().unwrap();
        Run { pid: self.child.id(), status, marks: std::mem::take(&mut self.marks) }
    }

    #[track_caller]
    fn read_some(&mut self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let ready = wait::readable(&[self.stdout.as_fd()], left).unwrap();
        assert!(ready == [true], "the actor says nothing: {:?}", self.marks);
        let mut chunk = [0_u8; 4096];
        let n = self.stdout.read(&mut chunk).unwrap();
        self.eof = n == 0;
        self.pending.extend_from_slice(&chunk[..n]);
        while let Some(end) = self.pending.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]).into_owned();
            assert!(!line.starts_with("USAGE"), "{line}");
            self.marks.extend(Mark::parse(&line));
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // Ended long since, in a test that went well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What an actor did.
#[derive(Debug, Clone)]
pub struct Run {
    pub pid: u32,
    pub status: ExitStatus,
    pub marks: Vec<Mark>,
}

impl Run {
    /// The last marker of this name.
    #[track_caller]
    pub fn mark(&self, name: &str) -> &Mark {
        let found = self.marks.iter().rev().find(|m| m.name == name);
        found.unwrap_or_else(|| panic!("no marker `{name}` in {:?}", self.marks))
    }

    /// The reason, if some act could not be tried here.
    pub fn skipped(&self) -> Option<String> {
        self.marks.iter().find_map(|m| m.facts.get("skip")).map(|why| why.replace('_', " "))
    }

    /// Every act succeeded.
    #[track_caller]
    pub fn all_ok(&self) -> &Self {
        let bad: Vec<&Mark> = self.marks.iter().filter(|m| !m.ok && m.facts.contains_key("errno")).collect();
        assert!(bad.is_empty(), "acts failed: {bad:?}");
        self
    }
}
