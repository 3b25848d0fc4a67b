//! Real processes, a fixture of `/proc`, and environments that lie.

use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command, Stdio};

use super::*;

struct Proc(tempfile::TempDir);

impl Proc {
    /// Process 7 with these files.
    fn with(files: &[(&str, &[u8])]) -> Self {
        let proc = Self(tempfile::tempdir().unwrap());
        fs::create_dir(proc.0.path().join("7")).unwrap();
        for (name, bytes) in files {
            fs::write(proc.0.path().join("7").join(name), bytes).unwrap();
        }
        proc
    }

    fn read(&self) -> Caller {
        Caller::read(self.0.path(), 7)
    }
}

/// A process that waits, with this environment.
fn child(environment: &[(&str, &[u8])]) -> Child {
    let mut command = Command::new("/bin/cat");
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::null());
    for (name, value) in environment {
        command.env(name, std::ffi::OsStr::from_bytes(value));
    }
    command.spawn().unwrap()
}

#[test]
fn a_real_process_is_read_as_the_kernel_has_it() {
    let environment: [(&str, &[u8]); 3] =
        [("SSH_CONNECTION", b"198.51.100.9 50022 10.0.0.1 22"), ("SUDO_USER", b"ann"), ("SUDO_USERS", b"no")];
    let mut child = child(&environment);
    let caller = Caller::read(Path::new("/proc"), child.id());
    let own = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).ok()?.trim().parse::<u32>().ok();
    assert_eq!(
        caller.login_uid,
        own("loginuid").filter(|uid| *uid != UNSET),
        "a child has the login of its parent"
    );
    assert_eq!(caller.login_session, own("sessionid").filter(|id| *id != UNSET));
    let me = procfs::process::Process::myself().unwrap().stat().unwrap();
    assert_eq!(caller.tty, tty_name(me.tty_nr.cast_unsigned()));
    assert_eq!(caller.environment.ssh_connection.as_deref(), Some("198.51.100.9 50022 10.0.0.1 22"));
    assert_eq!((caller.environment.sudo_user.as_deref(), caller.environment.problem), (Some("ann"), None));
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn an_environment_that_lies_is_cleaned_bounded_and_marked() {
    let long = vec![b'x'; 100_000];
    let hostile: [(&str, &[u8]); 2] =
        [("SUDO_USER", b"ro\nlogin root (0)\x1b[2J\xff\xe2\x80\xaeot\t"), ("SSH_CONNECTION", &long)];
    let mut child = child(&hostile);
    let caller = Caller::read(Path::new("/proc"), child.id());
    let said = &caller.environment;
    assert_eq!(said.sudo_user.as_deref(), Some("rologin root (0)[2J\u{fffd}ot"));
    assert_eq!(said.ssh_connection.as_ref().map(String::len), Some(VALUE_MAX));
    let text = caller.text();
    let (kernel, environment) = text.split_once("; the environment says: ").unwrap();
    assert!(!kernel.contains("root (0)") && environment.contains("sudo user rologin root (0)"), "{text}");
    assert!(!text.contains(char::is_control));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn no_login_is_none_and_a_file_that_is_missing_is_not_known() {
    let stat = b"7 (a) b 0 1 2 3 34818 9) S 1 7 7 34819 7 0";
    let proc = Proc::with(&[
        ("loginuid", b"4294967295"),
        ("sessionid", b"4294967295\n"),
        ("stat", stat),
        ("environ", b""),
    ]);
    let caller = proc.read();
    assert_eq!((caller.login.as_str(), caller.login_uid, caller.login_session), ("none", None, None));
    assert_eq!((caller.tty.as_str(), caller.environment.clone()), ("pts/3", Environment::default()));
    assert_eq!(caller.text(), "login none, login session none, tty pts/3, pid 7");

    let missing = Proc::with(&[]).read();
    assert_eq!((missing.login.as_str(), missing.tty.as_str()), ("not known", "not known"));
    assert!(missing.environment.problem.unwrap().contains("cannot be read"));
    let odd = Proc::with(&[
        ("loginuid", b"-1"),
        ("stat", b"7 (x"),
        ("sessionid", b"\xff"),
        ("environ", b"SUDO_USER=\0"),
    ]);
    let odd = odd.read();
    assert_eq!((odd.login.as_str(), odd.tty.as_str(), odd.login_session), ("not known", "not known", None));
    assert_eq!(odd.environment, Environment::default());

    let ann = Proc::with(&[("loginuid", b"1000"), ("sessionid", b"12")]).read();
    assert_eq!(
        (ann.login_uid, ann.login_session, ann.clone().named(|_| None).login),
        (Some(1000), Some(12), "uid 1000".into())
    );
    assert_eq!(ann.named(|uid| (uid == 1000).then(|| "ann".to_owned())).login, "ann (1000)");
}

#[test]
fn the_first_of_a_name_counts_and_what_is_not_read_is_said() {
    let proc = Proc::with(&[("environ", b"XSUDO_USER=no\0SUDO_USER=ann\0SUDO_USER=eve\0")]);
    assert_eq!(proc.read().environment.sudo_user.as_deref(), Some("ann"));
    let mut far = vec![b'='; 1 << 20];
    far.extend_from_slice(b"\0SUDO_USER=ann\0");
    let far = Proc::with(&[("environ", &far)]).read().environment;
    assert!(far.sudo_user.is_none() && far.problem.unwrap().contains("in part"));
}

#[test]
fn a_caller_that_does_not_let_itself_be_read_is_left_behind() {
    let proc = Proc::with(&[("loginuid", b"1000")]);
    let fifo = proc.0.path().join("7/environ");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let caller = proc.read();
    assert_eq!(
        (caller.login_uid, caller.environment.problem.as_deref()),
        (Some(1000), Some("the caller did not let it be read in time"))
    );
    // Lets the reader go.
    drop(fs::OpenOptions::new().write(true).open(&fifo).unwrap());
}

#[test]
fn terminals_have_their_names() {
    let device = |major: u32, minor: u32| (minor & 0xff) | (major << 8) | ((minor & 0xf_ff00) << 12);
    for (major, minor, name) in [
        (0, 0, "none"),
        (4, 1, "tty1"),
        (4, 64, "ttyS0"),
        (5, 1, "console"),
        (136, 0, "pts/0"),
        (136, 300, "pts/300"),
        (137, 2, "pts/258"),
        (204, 64, "ttyAMA0"),
        (229, 0, "hvc0"),
        (250, 7, "device 250:7"),
    ] {
        assert_eq!(tty_name(device(major, minor)), name);
    }
}
