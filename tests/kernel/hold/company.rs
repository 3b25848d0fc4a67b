//! Who else has a hand on a process that is held: a debugger, a parent that waits for stops, a freezer, its own threads.
//! None of them lets the act pass, and a decision reaches it all the same.

use std::process::Command;

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::actor::Actor;
use agent_monitor_tests::harness::case::{Skip, Verdict};
use agent_monitor_tests::harness::cgroup::Cgroup;
use agent_monitor_tests::sys::{self, Arg, num, wait};
use serde_json::Value;

use super::desk::{self, Answer, Desk};

/// Times that a held process is made to go on without a decision.
const TIMES: usize = 6;

fn start(desk: &Desk, act: &str, name: &str) -> Actor {
    let act = desk.words(act, name);
    let words: Vec<&str> = act.split(' ').collect();
    Actor::start(&desk.bot, &words)
}

/// What the request has come to.
fn state(desk: &Desk, asked: &Value) -> String {
    let all = desk.requests("all=true");
    let found = all.iter().find(|one| one["id"] == asked["id"]).unwrap();
    found["state"].as_str().unwrap().to_owned()
}

/// One of this process's own children, traced by the calling thread.
struct Traced(u32);

/// What a traced process says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// It is about to get this signal.
    Signal(i32),
    /// It has stopped with its whole group, or as it was seized.
    Stopped,
    Ended,
}

impl Traced {
    fn seize(pid: u32) -> Self {
        let traced = Self(pid);
        traced.request(libc::PTRACE_SEIZE, 0);
        traced
    }

    fn request(&self, what: libc::c_uint, data: i32) {
        sys::call(libc::SYS_ptrace, &mut [num(what), num(self.0), num(0), num(data)]).unwrap();
    }

    /// What it says next. Its end is left for whoever started it.
    #[track_caller]
    fn next(&self) -> Says {
        let mut said = None;
        let spoke = wait::until(PATIENCE, || {
            // siginfo_t: si_code at 8, si_pid at 16, si_status at 24 (include/uapi/asm-generic/siginfo.h).
            let mut info = [0_u8; 128];
            let flags = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT | libc::WNOHANG | libc::__WALL;
            let (whom, pid) = (num(libc::P_PID), num(self.0));
            let mut args = [whom, pid, Arg::Out(&mut info), num(flags), Arg::Null];
            sys::call(libc::SYS_waitid, &mut args).unwrap();
            let word = |at: usize| info[at..at + 4].try_into().map(i32::from_ne_bytes).unwrap();
            said = match (word(16), word(8), word(24)) {
                (0, ..) => None,
                (_, libc::CLD_TRAPPED | libc::CLD_STOPPED, signal) if signal < 0x100 => {
                    Some(Says::Signal(signal))
                }
                (_, libc::CLD_TRAPPED | libc::CLD_STOPPED, _) => Some(Says::Stopped),
                _ => Some(Says::Ended),
            };
            said.is_some()
        });
        assert!(spoke, "the traced process says nothing: {:?}", sys::state(self.0));
        said.unwrap()
    }

    /// Lets it go on from where it stopped, with the signal that it is about to get or without.
    fn go_on(&self, said: Says, deliver: bool) {
        let signal = match said {
            Says::Signal(signal) if deliver || signal != libc::SIGSTOP => signal,
            _ => 0,
        };
        self.request(libc::PTRACE_CONT, signal);
    }
}

/// A debugger from outside the agent, there before or coming while it is held, that gives it the `SIGSTOP` or keeps it:
/// the act is judged again each time, and only the decision ends that.
pub(super) fn debugger() -> Verdict {
    let desk = desk::shared();
    for (before, deliver, answer) in [
        (true, false, Answer::Approve),
        (true, true, Answer::Deny),
        (false, false, Answer::Deny),
        (false, true, Answer::Approve),
    ] {
        let case = format!("before {before}, deliver {deliver}, {answer:?}");
        desk.prepare("traced");
        let mut actor = start(&desk, "--wait open @S/f read", "traced");
        actor.mark("READY");
        let early = before.then(|| Traced::seize(actor.pid()));
        actor.go();
        let asked = desk.wait_for_request();
        let traced = early.unwrap_or_else(|| {
            assert!(wait::until(PATIENCE, || sys::state(actor.pid()) == Some('T')), "{case}");
            Traced::seize(actor.pid())
        });
        let mut stops = 0;
        while stops < TIMES {
            let said = traced.next();
            assert_ne!(said, Says::Ended, "{case}: it went on without a decision");
            stops += usize::from(said == Says::Signal(libc::SIGSTOP));
            traced.go_on(said, deliver);
        }
        assert_eq!(desk.pending().len(), 1, "{case}: {:?}", desk.pending());
        assert_ne!(traced.next(), Says::Ended, "{case}: it went on without a decision");
        desk.decide(&asked, answer);
        loop {
            match traced.next() {
                Says::Ended => break,
                said => traced.go_on(said, deliver),
            }
        }
        let run = actor.finish();
        let opens: Vec<_> = run.marks.iter().filter(|mark| mark.name == "open").collect();
        let [open] = opens.as_slice() else { panic!("{case}: {run:?}") };
        match answer {
            Answer::Approve => assert!(open.ok, "{case}: {run:?}"),
            Answer::Deny => assert_eq!(open.facts["errno"], "EACCES", "{case}: {run:?}"),
        }
    }
    Ok(())
}

/// A parent that waits with `WUNTRACED` sees its child stop, and lets it go on: it stops again, until somebody decides.
pub(super) fn parent() -> Verdict {
    let desk = desk::shared();
    for answer in [Answer::Approve, Answer::Deny] {
        desk.prepare("impatient");
        let mut actor = start(&desk, &format!("impatient {TIMES} open @S/f read"), "impatient");
        let asked = desk.wait_for_request();
        let child = asked["waiting"][0].as_u64().unwrap() as u32;
        assert_eq!(actor.mark("stopped").number("signal"), libc::SIGSTOP as u64);
        let patient = wait::until(PATIENCE, || {
            let events = desk.events(&["--kind", "file.open", "--verdict", "hold"]);
            let held = events.iter().filter(|event| event["process"]["pid"] == child).count();
            held > TIMES && sys::state(child) == Some('T')
        });
        assert!(patient, "it did not stop again each time");
        assert_eq!(desk.pending().len(), 1, "{:?}", desk.pending());
        desk.decide(&asked, answer);
        let run = actor.finish();
        assert_eq!(run.mark("impatient").number("stops"), TIMES as u64 + 1, "{run:?}");
        let open = run.mark("open");
        match answer {
            Answer::Approve => assert!(open.ok, "{run:?}"),
            Answer::Deny => assert_eq!(open.facts["errno"], "EACCES", "{run:?}"),
        }
    }
    Ok(())
}

/// Decided while its cgroup is frozen, it stays where it is; thawed, it goes on as decided.
pub(super) fn frozen() -> Verdict {
    let desk = desk::shared();
    let path = format!("/agent-monitor-held-{}", std::process::id());
    let Some(cgroup) = Cgroup::make(&path) else { return Skip::because("no unified cgroup hierarchy") };
    for answer in [Answer::Approve, Answer::Deny] {
        desk.prepare("frozen");
        let act = desk.words("open @S/f read", "frozen");
        let mut command = Command::new(&desk.bot);
        cgroup.start_in(command.args(act.split(' ')));
        let actor = Actor::spawn(command);
        let asked = desk.wait_for_request();
        assert!(wait::until(PATIENCE, || sys::state(actor.pid()) == Some('T')));
        cgroup.freeze(true);
        desk.decide(&asked, answer);
        let wanted = if answer == Answer::Approve { "approved" } else { "denied" };
        assert!(wait::until(PATIENCE, || state(&desk, &asked) == wanted));
        assert!(
            cgroup.is_frozen() && !matches!(sys::state(actor.pid()), Some('Z') | None),
            "it went on frozen"
        );
        cgroup.freeze(false);
        let run = actor.finish();
        match answer {
            Answer::Approve => assert!(run.marks[0].ok, "{run:?}"),
            Answer::Deny => assert_eq!(run.marks[0].facts["errno"], "EACCES", "{run:?}"),
        }
    }
    Ok(())
}

/// What is approved happens while another thread's act waits, which stops the whole process again and again.
pub(super) fn sibling() -> Verdict {
    let desk = desk::shared();
    for round in 0..TIMES {
        desk.prepare("siblings");
        let actor = start(&desk, "beside unlink @S/f -- mkdir @S/new", "siblings");
        let first = desk.wait_for_request();
        desk.decide(&first, Answer::Approve);
        let (file, dir) = (desk.words("@S/f", "siblings"), desk.words("@S/new", "siblings"));
        let is = |path: &str| std::path::Path::new(path).exists();
        let unlinks = first["event"]["kind"] == "file.delete";
        let happened = wait::until(PATIENCE, || if unlinks { !is(&file) } else { is(&dir) });
        assert!(happened, "round {round}: it was approved and does not happen\n{}", desk.story());
        let second = desk.wait_for_request();
        assert_ne!(second["event"]["kind"], first["event"]["kind"], "{second}");
        desk.decide(&second, Answer::Deny);
        let run = actor.finish();
        let refused = run.mark(if unlinks { "mkdir" } else { "unlink" });
        assert_eq!(refused.facts["errno"], "EACCES", "{run:?}");
    }
    Ok(())
}

/// Lets the process go on, again and again, until that has come to something.
#[track_caller]
fn urge(actor: &Actor, done: impl Fn() -> bool) {
    let over = wait::until(PATIENCE, || {
        sys::kill(actor.pid() as i32, libc::SIGCONT).unwrap();
        done()
    });
    assert!(over, "the other thread does not become another program: {:?}", sys::state(actor.pid()));
}

/// While one thread is held another one becomes another program: the held one is gone with its request, the act has not
/// happened, and the exec is judged by itself.
pub(super) fn replaced() -> Verdict {
    let desk = desk::shared();
    for who in ["leader", "worker"] {
        desk.prepare("replaced");
        let bot = desk.bot.clone();
        let mut actor = start(&desk, &format!("exec-beside {who} {bot} noop -- unlink @S/f"), "replaced");
        let asked = desk.wait_for_request();
        actor.go();
        urge(&actor, || state(&desk, &asked) != "pending");
        assert_eq!(state(&desk, &asked), "gone", "{who}");
        let run = actor.finish();
        assert!(run.mark("noop").ok && run.marks.iter().all(|mark| mark.name != "unlink"), "{who}: {run:?}");
        assert!(std::path::Path::new(&desk.words("@S/f", "replaced")).exists(), "{who}: it happened");

        // The same where the exec itself must be asked about.
        let mut actor = start(&desk, &format!("exec-beside {who} @S/prog noop -- unlink @S/f"), "replaced");
        let asked = desk.wait_for_request();
        actor.go();
        urge(&actor, || desk.pending().len() == 2);
        let exec = desk.pending().into_iter().find(|one| one["id"] != asked["id"]).unwrap();
        assert_eq!(exec["event"]["kind"], "process.exec", "{who}: {exec}");
        desk.decide(&exec, Answer::Approve);
        // The thread that is still held stops the process again, the approved thread with it, maybe before that one has got
        // through: it does as soon as the process is let go on.
        urge(&actor, || state(&desk, &asked) == "gone");
        let run = actor.finish();
        assert!(run.mark("noop").ok && run.marks.iter().all(|mark| mark.name != "unlink"), "{who}: {run:?}");
        assert!(std::path::Path::new(&desk.words("@S/f", "replaced")).exists(), "{who}: it happened");
    }
    Ok(())
}
