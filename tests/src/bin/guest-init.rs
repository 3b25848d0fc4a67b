//! PID 1 of the test VM: mounts what the monitor needs, runs the kernel tests, says the verdict, powers off.
//!
//! Kernel command line: `am.args=A,B,C` are arguments of the tests, `am.shell` gives a shell instead, `am.script` runs the
//! script `/script` instead. The tests have the
//! second serial line for themselves; the kernel has the first. The host takes the verdict from `GUEST-VERDICT exit=N` on
//! the second and from nothing else.
#![expect(clippy::print_stdout, reason = "the console is what the host reads")]

use agent_monitor_tests::sys::{self, Arg, call, num};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

/// Exit code of the verdict when the tests could not even be started.
const NOT_STARTED: i32 = 125;

/// What is mounted: type, where, and whether the run is hopeless without it.
const MOUNTS: &[(&str, &str, bool)] = &[
    ("proc", "/proc", true),
    ("sysfs", "/sys", true),
    ("devtmpfs", "/dev", true),
    ("devpts", "/dev/pts", false),
    ("tmpfs", "/dev/shm", false),
    ("tmpfs", "/tmp", true),
    ("tmpfs", "/run", true),
    ("securityfs", "/sys/kernel/security", false),
    ("tracefs", "/sys/kernel/tracing", true),
    ("bpf", "/sys/fs/bpf", true),
    ("cgroup2", "/sys/fs/cgroup", true),
];

/// The line that is the tests' own.
const LINE: &str = "/dev/ttyS1";

fn main() {
    let code = match prepare() {
        Ok(()) => {
            own_line();
            work()
        }
        Err(error) => {
            println!("guest-init: {error}");
            NOT_STARTED
        }
    };
    println!("GUEST-VERDICT exit={code}");
    power_off();
}

/// From here on the output goes to the line that the kernel does not write to. A machine with one line (`vm --shell`) has
/// the console for all.
fn own_line() {
    // The device node is there for lines that the machine does not have: those cannot be written to.
    let line = std::fs::OpenOptions::new().write(true).open(LINE);
    let Ok(line) = line else { return };
    for fd in [1, 2] {
        if let Err(error) = call(libc::SYS_dup2, &mut [num(line.as_raw_fd()), num(fd)]) {
            println!("guest-init: {LINE}: {error}");
        }
    }
}

fn prepare() -> io::Result<()> {
    for (kind, target, needed) in MOUNTS {
        // The last two levels of some of these exist only in the file system above, which may refuse mkdir.
        let made = std::fs::create_dir_all(target).and_then(|()| sys::mount(kind, target, kind, 0));
        if let Err(error) = made {
            // The kernel mounts devtmpfs itself when it is built to.
            if *needed && error.raw_os_error() != Some(libc::EBUSY) {
                return Err(io::Error::new(error.kind(), format!("mount {kind} on {target}: {error}")));
            }
            println!("guest-init: {kind} on {target}: {error}");
        }
    }
    lo_up().map_err(|error| io::Error::new(error.kind(), format!("lo up: {error}")))
}

/// Brings the loopback interface up (`SIOCSIFFLAGS`, `IFF_UP`).
fn lo_up() -> io::Result<()> {
    let socket = call(libc::SYS_socket, &mut [num(libc::AF_INET), num(libc::SOCK_DGRAM), num(0)])?;
    // struct ifreq: name[16], then the flags.
    let mut request = [0_u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&(libc::IFF_UP as u16).to_ne_bytes());
    call(libc::SYS_ioctl, &mut [num(socket), num(libc::SIOCSIFFLAGS), Arg::In(&request)])?;
    call(libc::SYS_close, &mut [num(socket)]).map(drop)
}

fn work() -> i32 {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let asked = |wanted: &str| line.split_whitespace().any(|word| word == wanted);
    let mut command = if asked("am.shell") {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-i");
        shell
    } else if asked("am.script") {
        let mut script = Command::new("/bin/sh");
        script.arg("/script");
        script
    } else {
        let mut tests = Command::new("/bin/kernel-tests");
        let args = line.split_whitespace().find_map(|word| word.strip_prefix("am.args="));
        tests.args(args.unwrap_or_default().split(',').filter(|arg| !arg.is_empty()));
        // A boot that goes on where an earlier one ended.
        tests.envs(
            line.split_whitespace()
                .find_map(|word| Some(("AGENT_MONITOR_FROM", word.strip_prefix("am.from=")?))),
        );
        tests
    };
    command
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
        .env("HOME", "/root")
        .env("TERM", "dumb")
        .env("AGENT_MONITOR_LANE", "vm")
        .env("AGENT_MONITOR_BIN", "/bin/agent-monitor")
        .env("AGENT_MONITOR_ACTOR", "/bin/actor");
    // SAFETY: the closure makes two system calls and touches no memory of the parent.
    unsafe { command.pre_exec(own_terminal) };
    match command.spawn() {
        Ok(child) => reap_until(child.id() as i32),
        Err(error) => {
            println!("guest-init: {}: {error}", command.get_program().to_string_lossy());
            NOT_STARTED
        }
    }
}

/// A session of its own with the console as its terminal, so that the shell has job control.
fn own_terminal() -> io::Result<()> {
    call(libc::SYS_setsid, &mut [])?;
    // Without a terminal (a log file) the tests run all the same.
    call(libc::SYS_ioctl, &mut [num(0), num(libc::TIOCSCTTY), num(0)]).map(drop).or(Ok(()))
}

/// Reaps whatever ends, as PID 1 must, until `main_child` does; its exit code.
fn reap_until(main_child: i32) -> i32 {
    let mut status = [0_u8; 4];
    loop {
        let reaped = call(libc::SYS_wait4, &mut [num(-1), Arg::Out(&mut status), num(0), Arg::Null]);
        match reaped {
            Ok(pid) if pid as i32 == main_child => {
                let status = std::process::ExitStatus::from_raw(i32::from_ne_bytes(status));
                return status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                println!("guest-init: wait: {error}");
                return NOT_STARTED;
            }
        }
    }
}

fn power_off() {
    // The console is a serial line: what is written is out when the write returns.
    call(libc::SYS_sync, &mut []).ok();
    let off = call(
        libc::SYS_reboot,
        &mut [
            num(libc::LINUX_REBOOT_MAGIC1),
            num(libc::LINUX_REBOOT_MAGIC2),
            num(libc::LINUX_REBOOT_CMD_POWER_OFF),
            Arg::Null,
        ],
    );
    if let Err(error) = off {
        println!("guest-init: power off: {error} (is this PID 1 of a virtual machine?)");
    }
}
