//! Acts that start a program: in this process, in a child, without a path, with a very long command line.
//!
//! Those that replace the image print their marker before they do it; a second one with an errno means that it
//! failed.

use super::file::open_raw;
use super::{Act, Facts, Failure, Outcome, after, fact, mark, number, then, wait_for_go, word};
use crate::sys::{self, Arg, Forked, call, call_fd, cstr, num};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

pub(crate) const ACTS: &[Act] = &[
    Act::new("exec", "PATH ARGS…", exec),
    Act::new("exec-long", "PATH BYTES", exec_long),
    Act::new("execveat", "PATH ARGS…", execveat),
    Act::new("memfd-exec", "PATH ARGS…", memfd_exec),
    Act::new("exec-self", "ACT…", exec_self),
    Act::new("run", "PATH ARGS…", run),
    Act::new("vfork-exec", "PATH ARGS…", vfork_exec),
    Act::new("spawn", "PATH ARGS…", spawn),
    Act::new("run-shared", "PATH FILE COUNT ACT", run_shared),
    Act::new("run-racing", "PATH FILE TRIES ACT", run_racing),
    Act::new("run-bare", "PATH", run_bare),
    Act::new("exec-beside", "leader|worker PATH ARGS… -- ACT…", exec_beside),
    Act::new("tell-arguments", "ARGS…", tell_arguments),
];

/// A NULL-terminated array of C strings, as `execve` takes it.
pub(super) struct Vector {
    /// Keeps the strings alive that the others point to.
    _strings: Vec<CString>,
    pointers: Vec<usize>,
    /// The same pointers, as memory the kernel reads.
    bytes: Vec<u8>,
}

impl Vector {
    pub(super) fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<usize> = strings.iter().map(|s| s.as_ptr() as usize).collect();
        pointers.push(0);
        let bytes = pointers.iter().flat_map(|p| p.to_ne_bytes()).collect();
        Self { _strings: strings, pointers, bytes }
    }

    pub(super) fn of(words: &[String]) -> Self {
        Self::new(words.iter().map(|w| cstr(w)).collect())
    }

    /// The same with one more string at its end, which lies in memory that others change.
    fn and(words: &[String], last: &Shared) -> Self {
        let mut vector = Self::of(words);
        vector.pointers.insert(words.len(), last.at as usize);
        vector.bytes = vector.pointers.iter().flat_map(|p| p.to_ne_bytes()).collect();
        vector
    }

    /// The environment of this process.
    pub(super) fn environment() -> Self {
        let pair = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).unwrap()
        };
        Self::new(std::env::vars_os().map(pair).collect())
    }

    /// The array as an argument.
    pub(super) fn arg(&self) -> Arg<'_> {
        Arg::In(&self.bytes)
    }

    pub(super) fn pointer(&self) -> *const *mut libc::c_char {
        self.pointers.as_ptr().cast()
    }
}

/// `execve` here and now; comes back only on failure.
fn execve(path: &str, argv: &Vector) -> Failure {
    let (path, env) = (cstr(path), Vector::environment());
    match call(libc::SYS_execve, &mut [Arg::Str(&path), argv.arg(), env.arg()]) {
        Ok(_) => Failure::Usage("execve came back without an error".to_owned()),
        Err(error) => error.into(),
    }
}

fn exec(args: &[String]) -> Outcome {
    let path = word(args, 0)?;
    mark("exec", &fact("path", path));
    Err(execve(path, &Vector::of(args)))
}

/// So many bytes of arguments after `noop`, in arguments of 100 bytes that are numbered, so that head and tail
/// differ.
fn exec_long(args: &[String]) -> Outcome {
    let (path, bytes) = (word(args, 0)?, number(args, 1)? as usize);
    let mut words = vec![path.to_owned(), "noop".to_owned()];
    words.extend((0..bytes.div_ceil(100)).map(|n| format!("{n:08}-{}", "a".repeat(90))));
    mark("exec-long", &fact("args", words.len()));
    Err(execve(path, &Vector::of(&words)))
}

fn execveat_fd(file: &OwnedFd, args: &[String]) -> Failure {
    let (empty, argv, env) = (cstr(""), Vector::of(args), Vector::environment());
    let mut args = [num(file.as_raw_fd()), Arg::Str(&empty), argv.arg(), env.arg(), num(libc::AT_EMPTY_PATH)];
    match call(libc::SYS_execveat, &mut args) {
        Ok(_) => Failure::Usage("execveat came back without an error".to_owned()),
        Err(error) => error.into(),
    }
}

fn execveat(args: &[String]) -> Outcome {
    let file = open_raw(word(args, 0)?, "path")?;
    mark("execveat", &fact("path", word(args, 0)?));
    Err(execveat_fd(&file, args))
}

/// The program has no name in any file system.
fn memfd_exec(args: &[String]) -> Outcome {
    let image = std::fs::read(word(args, 0)?)?;
    let name = cstr("nameless");
    let file = call_fd(libc::SYS_memfd_create, &mut [Arg::Str(&name), num(libc::MFD_CLOEXEC)])?;
    sys::write_all(file.as_raw_fd(), &image)?;
    mark("memfd-exec", &fact("path", word(args, 0)?));
    Err(execveat_fd(&file, args))
}

/// Starts this program again, in this process, to perform the rest.
fn exec_self(args: &[String]) -> Outcome {
    let path = std::env::current_exe()?.to_string_lossy().into_owned();
    mark("exec-self", &fact("path", &path));
    let words: Vec<String> = [std::slice::from_ref(&path), args].concat();
    Err(execve(&path, &Vector::of(&words)))
}

/// Waits for a child and tells how it ended.
pub(super) fn reap(child: i32) -> Outcome {
    let status = sys::wait_for(child)?;
    Ok(vec![("child", child.to_string()), ("status", status.to_string())])
}

fn run(args: &[String]) -> Outcome {
    let (path, argv) = (word(args, 0)?, Vector::of(args));
    match sys::fork()? {
        Forked::Child => {
            execve(path, &argv);
            sys::exit_now(127)
        }
        Forked::Parent { child } => reap(child),
    }
}

fn vfork_exec(args: &[String]) -> Outcome {
    let (path, argv, env) = (cstr(word(args, 0)?), Vector::of(args), Vector::environment());
    // SAFETY: between vfork and execve/_exit the child only makes these two calls, with memory that was made
    // before; the parent is suspended until then.
    #[expect(deprecated, reason = "vfork itself is what is to be seen")]
    let child = unsafe {
        let child = libc::vfork();
        if child == 0 {
            libc::execve(path.as_ptr(), argv.pointer().cast(), env.pointer().cast());
            libc::_exit(127);
        }
        child
    };
    if child < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    reap(child)
}

fn spawn(args: &[String]) -> Outcome {
    let (path, argv, env) = (cstr(word(args, 0)?), Vector::of(args), Vector::environment());
    let mut child = 0;
    // SAFETY: path and both arrays live until the call returns, and are NULL-terminated.
    let error = unsafe {
        libc::posix_spawn(
            &raw mut child,
            path.as_ptr(),
            std::ptr::null(),
            std::ptr::null(),
            argv.pointer(),
            env.pointer(),
        )
    };
    if error != 0 {
        return Err(std::io::Error::from_raw_os_error(error).into());
    }
    reap(child)
}

/// A file in memory that is the file itself: text without an end of its own, at most a page with the NUL behind it.
struct Shared {
    at: *const AtomicU8,
    len: usize,
}

// SAFETY: the memory is mapped for the life of the process, and is read and written as atomics only.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn map(path: &str) -> Result<Self, Failure> {
        let file = std::fs::File::options().read(true).write(true).open(path)?;
        let len = file.metadata()?.len() as usize;
        if len == 0 || len >= 4096 {
            return Err(Failure::Usage("the file has to have between 1 and 4095 bytes".to_owned()));
        }
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let fd = num(file.as_raw_fd());
        let mut args = [Arg::Null, num(4096), num(prot), num(libc::MAP_SHARED), fd, num(0)];
        let at = call(libc::SYS_mmap, &mut args)? as *const AtomicU8;
        Ok(Self { at, len })
    }

    /// Changes the last byte.
    fn end(&self, byte: u8) {
        // SAFETY: inside the mapping, which stays.
        unsafe { &*self.at.add(self.len - 1) }.store(byte, Ordering::Relaxed);
    }
}

/// Runs a program with an act and so many numbered arguments, and the text of a file that others change as its last.
fn run_shared(args: &[String]) -> Outcome {
    let (path, count) = (word(args, 0)?, number(args, 2)?);
    let last = Shared::map(word(args, 1)?)?;
    let mut words = vec![path.to_owned(), word(args, 3)?.to_owned()];
    words.extend((0..count).map(|n| format!("n{n}")));
    run_vector(path, &Vector::and(&words, &last))
}

fn run_vector(path: &str, argv: &Vector) -> Outcome {
    match sys::fork()? {
        Forked::Child => {
            execve(path, argv);
            sys::exit_now(127)
        }
        Forked::Parent { child } => reap(child),
    }
}

/// Runs the program so many times with the text of a file as its last argument, whose last byte another thread changes
/// all the time between `a` and `b`.
fn run_racing(args: &[String]) -> Outcome {
    let (path, tries) = (word(args, 0)?, number(args, 2)?);
    let last = Arc::new(Shared::map(word(args, 1)?)?);
    let argv = Vector::and(&[path.to_owned(), word(args, 3)?.to_owned()], &last);
    let over = Arc::new(AtomicBool::new(false));
    let racer = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            while !over.load(Ordering::Relaxed) {
                last.end(b'b');
                last.end(b'a');
            }
        }
    });
    let (mut killed, mut refused) = (0, 0);
    for _ in 0..tries {
        let ended = run_vector(path, &argv)?;
        let status = ended.into_iter().find(|(key, _)| *key == "status").map(|(_, status)| status);
        killed += i32::from(status.as_deref() == Some("9"));
        refused += i32::from(status.as_deref() == Some("32512"));
    }
    over.store(true, Ordering::Relaxed);
    racer.join().ok();
    Ok(vec![("killed", killed.to_string()), ("refused", refused.to_string())])
}

/// Runs a program with no arguments at all, not even its name.
fn run_bare(args: &[String]) -> Outcome {
    let (path, env) = (cstr(word(args, 0)?), Vector::environment());
    match sys::fork()? {
        Forked::Child => {
            call(libc::SYS_execve, &mut [Arg::Str(&path), Arg::Null, env.arg()]).ok();
            sys::exit_now(127)
        }
        Forked::Parent { child } => reap(child),
    }
}

/// One thread performs the act; the other waits for a line on standard input and then becomes another program.
fn exec_beside(args: &[String]) -> Outcome {
    let cut = args.iter().position(|word| word == "--").unwrap_or(args.len());
    let program = args.get(1..cut).unwrap_or_default().to_vec();
    let (path, act) = (word(&program, 0)?.to_owned(), after(args, cut + 1).to_vec());
    let replace = move || {
        if wait_for_go() {
            mark("exec", &Err(execve(&path, &Vector::of(&program))));
        }
    };
    let perform = move || drop(then(&act));
    if word(args, 0)? == "leader" {
        let performing = std::thread::spawn(perform);
        replace();
        performing.join().ok();
    } else {
        let replacing = std::thread::spawn(replace);
        perform();
        replacing.join().ok();
    }
    Ok(Facts::new())
}

/// Says what arguments it was given: how many, how long the last one is and how it ends.
fn tell_arguments(args: &[String]) -> Outcome {
    let last = args.last().map(String::as_str).unwrap_or_default();
    let end = last.get(last.len().saturating_sub(4)..).unwrap_or_default();
    Ok(vec![("count", args.len().to_string()), ("bytes", last.len().to_string()), ("end", end.to_owned())])
}
