//! Tests of who may call: callers are made up, since these tests may run as root, who may always.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use super::*;

/// A caller that is this process in truth.
fn caller(uid: u32, gid: u32, groups: &[u32]) -> Peer {
    let pid = Pid::from_raw(std::process::id().cast_signed()).unwrap();
    let pidfd = Arc::new(pidfd_open(pid, PidfdFlags::empty()).unwrap());
    Peer {
        pid: std::process::id(),
        uid,
        gid,
        pidfd,
        start_ticks: 1,
        groups: groups.to_vec(),
        caller: Arc::default(),
    }
}

#[test]
fn root_the_owner_and_the_group_may_call_and_nobody_else() {
    let (owner, group) = (990, 991);
    let rows = [
        (caller(0, 0, &[]), true, "root"),
        (caller(990, 5, &[]), true, "the daemon's own user"),
        (caller(1000, 991, &[1000]), true, "primary group"),
        (caller(1000, 1000, &[7, 991]), true, "supplementary group"),
        (caller(1000, 1000, &[7, 1000]), false, "a stranger"),
        (caller(1000, 1000, &[]), false, "without any group"),
        (caller(991, 990, &[990, 0]), false, "numbers of the wrong kind, and root's group"),
    ];
    for (peer, may, who) in rows {
        assert_eq!(peer.may_call(owner, group), may, "{who}");
    }
}

#[test]
fn a_caller_is_the_process_that_the_kernel_notes() {
    let (near, _far) = UnixStream::pair().unwrap();
    let peer = Peer::of(&near).unwrap();
    let status = procfs::process::Process::myself().unwrap();
    let (stat, status) = (status.stat().unwrap(), status.status().unwrap());
    assert_eq!((peer.pid(), peer.uid(), peer.gid), (std::process::id(), status.euid, status.egid));
    assert_eq!((peer.start_ticks(), &peer.groups), (stat.starttime, &status.groups));
    assert!(peer.is_alive() && peer.start_ticks() > 1);
}

#[test]
fn a_caller_that_has_ended_is_seen() {
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let peer = Peer { pidfd: Arc::new(pidfd_open(pid, PidfdFlags::empty()).unwrap()), ..caller(1, 1, &[]) };
    assert!(peer.is_alive());
    let (ticks, _) = describe(pid.as_raw_nonzero().get()).unwrap();
    assert!(ticks >= describe(1).map_or(0, |(init, _)| init));
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(!peer.is_alive());
    assert!(describe(pid.as_raw_nonzero().get()).is_none());
}

#[test]
fn what_is_no_unix_socket_has_no_caller() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    // TCP has no credentials: the kernel answers with pid 0, which is no process.
    assert!(matches!(Peer::of(&stream), Err(PeerError::ForeignNamespace | PeerError::Credentials(_))));
    let file = std::fs::File::open("/dev/null").unwrap();
    let error = credentials(file.as_fd()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
    assert!(matches!(Peer::of(&file), Err(PeerError::Credentials(_))));
    assert!(peer_pidfd(file.as_fd()).is_none());
}

#[test]
fn a_caller_is_read_once_and_one_that_has_ended_is_not_read_as_another() {
    let mut child = Command::new("cat")
        .env("SUDO_USER", "ann")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It has its environment once it runs: the kernel lets `spawn` go on while the program is still being loaded.
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let pid = Pid::from_child(&child);
    let peer = |of: Pid| {
        let pidfd = Arc::new(pidfd_open(of, PidfdFlags::empty()).unwrap());
        Peer { pid: child.id(), pidfd, caller: Arc::default(), ..caller(1, 1, &[]) }
    };
    let (asked, late) = (peer(pid), peer(pid));
    let found = asked.clone().caller();
    assert_eq!((found.pid, found.environment.sudo_user.as_deref()), (child.id(), Some("ann")));
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(asked.caller(), found, "as it was when it called");
    // The number is another process now, which lives: it is not read for the one that called.
    let late = Peer { pid: std::process::id(), ..late };
    assert_eq!(*late.caller(), Caller::ended(std::process::id()));
    assert_eq!(late.caller().login_uid, None);
}
