//! Acts that start a program: in this process, in a child, without a path, with a very long command line.
//!
//! Those that replace the image print their marker before they do it; a second one with an errno means that it
//! failed.

use super::file::open_raw;
use super::{Act, Failure, Outcome, fact, mark, number, word};
use crate::sys::{self, Arg, Forked, call, call_fd, cstr, num};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

pub(crate) const ACTS: &[Act] = &[
    Act::new("exec", "PATH ARGS…", exec),
    Act::new("exec-long", "PATH BYTES", exec_long),
    Act::new("execveat", "PATH ARGS…", execveat),
    Act::new("memfd-exec", "PATH ARGS…", memfd_exec),
    Act::new("exec-self", "ACT…", exec_self),
    Act::new("run", "PATH ARGS…", run),
    Act::new("vfork-exec", "PATH ARGS…", vfork_exec),
    Act::new("spawn", "PATH ARGS…", spawn),
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
