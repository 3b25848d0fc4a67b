//! A terminal as a person has it: a program in it, its screen as text, and keys.

use crate::sys::{self, Arg, call, call_fd, cstr, num, wait};
use std::fs::File;
use std::io::Read;
use std::num::NonZero;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A program in a terminal of its own; killed when dropped.
pub struct Terminal {
    master: OwnedFd,
    screen: Arc<Mutex<vt100::Parser>>,
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts `command` in a terminal of this size.
    pub fn start(mut command: Command, rows: u16, columns: u16) -> Self {
        let open = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let path = cstr("/dev/ptmx");
        let master =
            call_fd(libc::SYS_openat, &mut [num(libc::AT_FDCWD), Arg::Str(&path), num(open), num(0)])
                .unwrap();
        let fd = master.as_raw_fd();
        let unlocked = 0_i32.to_ne_bytes();
        call(libc::SYS_ioctl, &mut [num(fd), num(libc::TIOCSPTLCK as i64), Arg::In(&unlocked)]).unwrap();
        // struct winsize: rows, columns, and the same in pixels.
        let size: Vec<u8> = [rows, columns, 0, 0].iter().flat_map(|n| n.to_ne_bytes()).collect();
        call(libc::SYS_ioctl, &mut [num(fd), num(libc::TIOCSWINSZ as i64), Arg::In(&size)]).unwrap();
        let own = call_fd(libc::SYS_ioctl, &mut [num(fd), num(libc::TIOCGPTPEER as i64), num(open)]).unwrap();
        let end = || Stdio::from(own.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm-256color");
        // SAFETY: the closure makes two system calls and touches no memory of the parent.
        unsafe { command.pre_exec(controlling) };
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // The parent's copies of its end: with them open the reader would never come to its end.
        drop(command);
        drop(own);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(rows), cells(columns), 0)));
        let (mut from, to) = (File::from(master.try_clone().unwrap()), Arc::clone(&screen));
        let reader = std::thread::spawn(move || {
            let mut chunk = [0_u8; 4096];
            // Once the program has ended, reading fails.
            while let Ok(n @ 1..) = from.read(&mut chunk) {
                to.lock().unwrap_or_else(PoisonError::into_inner).process(&chunk[..n]);
            }
        });
        Self { master, screen, child, reader: Some(reader) }
    }

    /// Presses keys.
    pub fn press(&self, keys: &str) {
        // A program that has ended reads none.
        sys::write_all(self.master.as_raw_fd(), keys.as_bytes()).ok();
    }

    /// What is on the screen, line by line.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen().contents()
    }

    /// The screen with its colours, as escape sequences that draw it again.
    pub fn drawing(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen().contents_formatted()
    }

    /// Waits until the screen shows all of these; the screen then, or the test ends.
    #[track_caller]
    pub fn wait_for(&self, limit: Duration, words: &[&str]) -> String {
        let mut text = String::new();
        let shown = wait::until(limit, || {
            text = self.text();
            words.iter().all(|word| text.contains(word))
        });
        assert!(shown, "the screen does not show {words:?}:\n{text}");
        text
    }

    /// Whether the program has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

/// A session of its own, with the terminal as its controlling one.
fn controlling() -> std::io::Result<()> {
    call(libc::SYS_setsid, &mut [])?;
    call(libc::SYS_ioctl, &mut [num(0), num(libc::TIOCSCTTY as i64), num(0)]).map(drop)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Ended by itself, in a test that went well.
        self.child.kill().ok();
        self.child.wait().ok();
        if let Some(reader) = self.reader.take() {
            reader.join().ok();
        }
    }
}
