//! The actor by itself, without a daemon: what the other families rest on works on this kernel.

use agent_monitor_tests::harness::actor::Actor;
use agent_monitor_tests::harness::case::{Case, Skip, Verdict};
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::scratch::Scratch;

pub(crate) const CASES: &[Case] = &[
    Case::both("files", files),
    Case::both("tree", tree),
    Case::both("ids_and_namespaces", ids_and_namespaces),
    Case::both("sockets", sockets),
    Case::both("waits_for_go", waits_for_go),
    Case::both("pid_reuse", pid_reuse),
    Case::both("storm_counts", storm_counts),
];

/// Runs a list of acts, one string each; all must succeed.
fn perform(acts: &[String]) {
    let words: Vec<&str> = acts.iter().flat_map(|act| act.split(' ').chain(["+"])).collect();
    let words = &words[..words.len() - 1];
    let run = Actor::start(actor_program().to_str().unwrap(), words).finish();
    run.all_ok();
    let asked = acts.iter().filter_map(|act| act.split(' ').next());
    for name in asked {
        assert!(run.marks.iter().any(|m| m.name == name), "no marker of {name}: {:?}", run.marks);
    }
}

fn files() -> Verdict {
    let scratch = Scratch::new();
    scratch.file("f", "content");
    let dir = scratch.text("");
    let dir = dir.trim_end_matches('/');
    let acts = [
        "open D/f read",
        "openat D f read",
        "openat2 D/f read",
        "openat2-beneath D f read",
        "chdir-open D f read",
        "creat D/new",
        "write D/f 5000",
        "read D/f 5000",
        "mkdir D/m",
        "rmdir D/m",
        "mknod D/n",
        "unlink D/n",
        "link D/f D/l",
        "linkat D f l2",
        "symlink f D/s",
        "rename D/l D/l3",
        "renameat2 D l2 l4",
        "unlinkat D l4",
        "truncate D/f 10",
        "ftruncate D/f 3",
        "open D/f trunc",
        "chmod D/f 0o600",
        "fchmod D/f 0o644",
        "fchmodat D f 0o600",
        "chown D/f 1 1",
        "fchownat D f 0 0",
        "utimes D/f",
        "setxattr D/f trusted.x",
        "deep-open D/deep 60",
    ];
    perform(&acts.map(|act| act.replace('D', dir)));
    Ok(())
}

fn tree() -> Verdict {
    let program = actor_program();
    let own = program.to_str().unwrap();
    let acts = [
        "fork noop",
        "thread noop",
        "beside noop -- noop",
        "fork setsid noop",
        "daemonise noop",
        "prctl-name sneaky noop",
        "run OWN noop",
        "vfork-exec OWN noop",
        "spawn OWN noop",
        "fork execveat OWN noop",
        "fork memfd-exec OWN noop",
        "fork exec-self noop",
        "fork exec-long OWN 48000",
        "fork exit 3",
        "fork die 9",
    ];
    perform(&acts.map(|act| act.replace("OWN", own)));
    Ok(())
}

fn ids_and_namespaces() -> Verdict {
    let scratch = Scratch::new();
    let dir = scratch.dir("mnt");
    let acts = [
        "fork setgid 1000 setuid 1000 noop",
        "fork setresuid 0 1000 0 noop",
        "cap-drop 21",
        "cap-raise 21",
        "fork unshare user noop",
        "fork unshare mount mount-tmpfs DIR umount DIR noop",
        "fork unshare pid noop",
        "fork unshare net noop",
        "pidns noop",
        "fork chroot DIR noop",
        "ptrace-child",
        "vm-readv-child",
        "kill-child 15",
        "bpf",
    ];
    perform(&acts.map(|act| act.replace("DIR", dir.to_str().unwrap())));
    Ok(())
}

fn sockets() -> Verdict {
    let acts = [
        "udp-connected 127.0.0.1:9 10",
        "udp-sendto [::1]:9 10",
        "udp-sendmsg 127.0.0.1:9 10",
        "udp-sendmmsg [::1]:9 10",
        "tcp-bind 127.0.0.1:0",
    ];
    perform(&acts.map(str::to_owned));
    Ok(())
}

fn waits_for_go() -> Verdict {
    let program = actor_program();
    let mut actor =
        Actor::start(program.to_str().unwrap(), &["--wait", "noop", "+", "fork", "pause", "noop"]);
    let ready = actor.mark("READY");
    assert_eq!(ready.pid(), actor.pid());
    actor.go();
    actor.mark("noop");
    actor.go();
    let paused = actor.mark("PAUSED");
    assert_ne!(paused.pid(), actor.pid());
    actor.go();
    actor.mark("fork");
    actor.finish().all_ok();
    Ok(())
}

fn pid_reuse() -> Verdict {
    let program = actor_program();
    let program = program.to_str().unwrap();
    let gone = Actor::start(program, &["noop"]).finish();
    let pid = gone.pid.to_string();
    let run = Actor::start(program, &["pid-reuse", &pid, "noop"]).finish();
    if let Some(reason) = run.skipped() {
        return Skip::because(reason);
    }
    run.all_ok();
    assert_eq!(run.mark("noop").pid(), gone.pid);
    Ok(())
}

fn storm_counts() -> Verdict {
    let scratch = Scratch::new();
    let dir = format!("dir={}", scratch.dir("storm").display());
    let program = actor_program();
    let run = Actor::start(program.to_str().unwrap(), &["storm", &dir, "rounds=50", "opens=3"]).finish();
    let mark = run.mark("STORM");
    let counts = ["forks", "execs", "opens", "connects", "failed"].map(|key| mark.number(key));
    assert_eq!(counts, [50, 50, 150, 50, 0]);
    Ok(())
}
