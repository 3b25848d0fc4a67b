//! The actor: performs one named act at a time and says so, so that a test can wait for it and count it.
//!
//! `actor [--wait] ACT ARGS… [+ ACT ARGS…]…`. Each act ends with one line on standard output:
//!
//! `ACT <name> pid=… tid=… start=… ok|errno=…|skip=… [key=value…]`
//!
//! With `--wait` the actor prints `READY pid=… start=…` and waits for a line on standard input before each act;
//! end of input ends it. Combinators (`fork`, `setuid`, `unshare` …) change the process and then perform the
//! act that follows them in the same list: `fork setsid open /x read`.

mod attr;
mod device;
mod exec;
mod file;
mod ids;
mod memory;
mod message;
mod namespace;
mod overlay;
mod privilege;
mod provider;
mod reuse;
mod route;
mod runtime;
mod socket;
mod storm;
mod stream;
mod tree;
mod uring;

use crate::sys;
use std::fmt::Write as _;
use std::io;

/// What an act says about itself besides having been done: `key=value` pairs.
pub(crate) type Facts = Vec<(&'static str, String)>;

/// How an act ended.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The kernel said no.
    Errno(io::Error),
    /// It cannot be tried on this kernel or with these rights; the test is to be skipped.
    Skip(String),
    /// The command line makes no sense.
    Usage(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Errno(error)
    }
}

pub(crate) type Outcome = Result<Facts, Failure>;

/// An act by name: what it takes, and what does it.
pub(crate) struct Act {
    name: &'static str,
    takes: &'static str,
    run: fn(&[String]) -> Outcome,
}

impl Act {
    pub(crate) const fn new(name: &'static str, takes: &'static str, run: fn(&[String]) -> Outcome) -> Self {
        Self { name, takes, run }
    }
}

const TABLES: &[&[Act]] = &[
    file::ACTS,
    attr::ACTS,
    device::ACTS,
    stream::ACTS,
    message::ACTS,
    provider::ACTS,
    uring::ACTS,
    exec::ACTS,
    tree::ACTS,
    ids::ACTS,
    namespace::ACTS,
    overlay::ACTS,
    privilege::ACTS,
    memory::ACTS,
    reuse::ACTS,
    runtime::ACTS,
    storm::ACTS,
    route::ACTS,
];

/// Runs the command line; the exit code.
pub fn main(args: &[String]) -> i32 {
    let (wait, args) = match args.split_first() {
        Some((first, rest)) if first == "--wait" => (true, rest),
        _ => (false, args),
    };
    if args.is_empty() {
        print!("{}", usage());
        return 2;
    }
    if wait {
        let pid = sys::host_pid();
        say(&format!("READY pid={pid} start={}", sys::start_ticks(pid)));
    }
    for act in args.split(|arg| arg == "+") {
        if wait && !wait_for_go() {
            return 0;
        }
        if let Err(Failure::Usage(message)) = perform(act) {
            say(&format!("USAGE {message}"));
            return 2;
        }
    }
    0
}

fn usage() -> String {
    let mut text = "actor [--wait] ACT ARGS… [+ ACT ARGS…]…\n".to_owned();
    for act in TABLES.iter().copied().flatten() {
        writeln!(text, "  {} {}", act.name, act.takes).unwrap();
    }
    text
}

/// Performs one act (with the combinators before it) and prints its marker.
pub(crate) fn perform(words: &[String]) -> Outcome {
    let Some((name, args)) = words.split_first() else {
        return Err(Failure::Usage("an act is missing".to_owned()));
    };
    let Some(act) = TABLES.iter().copied().flatten().find(|a| a.name == name) else {
        return Err(Failure::Usage(format!("no act is called {name}")));
    };
    let outcome = (act.run)(args);
    if !matches!(outcome, Err(Failure::Usage(_))) {
        mark(name, &outcome);
    }
    outcome
}

/// Performs what follows a combinator; nothing follows is fine.
pub(crate) fn then(words: &[String]) -> Outcome {
    if words.is_empty() { Ok(Facts::new()) } else { perform(words) }
}

/// Prints the marker of an act.
pub(crate) fn mark(name: &str, outcome: &Outcome) {
    let pid = sys::host_pid();
    let (tid, start) = (sys::host_tid(), sys::start_ticks(pid));
    let mut line = format!("ACT {name} pid={pid} tid={tid} start={start}");
    match outcome {
        Ok(facts) => {
            line.push_str(" ok");
            for (key, value) in facts {
                write!(line, " {key}={value}").unwrap();
            }
        }
        Err(Failure::Errno(error)) => write!(line, " errno={}", sys::errno::name(error)).unwrap(),
        Err(Failure::Skip(why)) => write!(line, " skip={}", why.replace(' ', "_")).unwrap(),
        Err(Failure::Usage(why)) => write!(line, " usage={why}").unwrap(),
    }
    say(&line);
}

/// One line in one write, so that lines of several processes never mix.
pub(crate) fn say(line: &str) {
    sys::write_all(1, format!("{line}\n").as_bytes()).unwrap();
}

/// Waits for a line on standard input; false at its end.
pub(crate) fn wait_for_go() -> bool {
    let mut byte = [0_u8; 1];
    loop {
        match sys::call(libc::SYS_read, &mut [sys::num(0), sys::Arg::Out(&mut byte), sys::num(1)]) {
            Ok(0) => return false,
            Ok(_) if byte[0] == b'\n' => return true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// The argument at `at`.
pub(crate) fn word(args: &[String], at: usize) -> Result<&str, Failure> {
    args.get(at).map(String::as_str).ok_or_else(|| Failure::Usage(format!("argument {} is missing", at + 1)))
}

/// The argument at `at` as a number (`0o644`, `0x10` or decimal).
pub(crate) fn number(args: &[String], at: usize) -> Result<i64, Failure> {
    let text = word(args, at)?;
    let parsed = if let Some(octal) = text.strip_prefix("0o") {
        i64::from_str_radix(octal, 8)
    } else if let Some(hex) = text.strip_prefix("0x") {
        i64::from_str_radix(hex, 16)
    } else {
        text.parse()
    };
    parsed.map_err(|error| Failure::Usage(format!("{text}: {error}")))
}

/// What follows the first `count` arguments.
pub(crate) fn after(args: &[String], count: usize) -> &[String] {
    args.get(count..).unwrap_or_default()
}

pub(crate) fn fact(key: &'static str, value: impl ToString) -> Outcome {
    Ok(vec![(key, value.to_string())])
}
