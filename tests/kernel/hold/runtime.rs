//! Agents in real runtimes, held in the main thread and in a worker; and one whose threads are interrupted by signals.

use std::time::Duration;

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::actor::Actor;
use agent_monitor_tests::harness::case::Verdict;
use agent_monitor_tests::sys::{self, num, wait};

use super::desk::{self, Answer};

/// A program in a language: opens the file in the thread that its first argument names, and says how that went.
pub(super) struct Program {
    /// Name of the script, one of [`desk::SCRIPTS`].
    script: &'static str,
    pub(super) interpreter: &'static str,
    text: &'static str,
    threads: &'static [&'static str],
}

pub(super) const PYTHON: Program = Program {
    script: desk::SCRIPTS[0],
    interpreter: "/usr/bin/python3",
    text: r#"#!/usr/bin/python3 -I
import errno, sys, threading, time
over = False
def act():
    try:
        with open(sys.argv[2]) as file:
            print("ACT open ok bytes=%d" % len(file.read()), flush=True)
    except OSError as error:
        print("ACT open errno=" + errno.errorcode[error.errno], flush=True)
def tick():
    while not over:
        time.sleep(0.002)
ticking = threading.Thread(target=tick)
ticking.start()
if sys.argv[1] == "main":
    act()
else:
    worker = threading.Thread(target=act)
    worker.start()
    worker.join()
over = True
ticking.join()
print("ACT after ok", flush=True)
"#,
    threads: &["main", "worker"],
};

pub(super) const NODE: Program = Program {
    script: desk::SCRIPTS[1],
    interpreter: "/usr/bin/node",
    text: r#"#!/usr/bin/node
const fs = require('fs'), { Worker, isMainThread, workerData } = require('worker_threads');
const say = (line) => fs.writeSync(1, line + '\n');
const good = (text) => say('ACT open ok bytes=' + text.length), bad = (error) => say('ACT open errno=' + error.code);
const act = (path) => { try { good(fs.readFileSync(path)); } catch (error) { bad(error); } };
const [how, path] = process.argv.slice(2);
const ticking = setInterval(() => {}, 2), after = () => { clearInterval(ticking); say('ACT after ok'); };
if (!isMainThread) { clearInterval(ticking); act(workerData); }
else if (how === 'main') { act(path); after(); }
else if (how === 'pool') { fs.promises.readFile(path).then(good, bad).then(after); }
else { new Worker(__filename, { workerData: path }).on('exit', after); }
"#,
    threads: &["main", "pool", "worker"],
};

/// Held in each kind of thread: approved it reads the file, denied it sees the language's own error, and goes on.
pub(super) fn script(program: &Program) -> Verdict {
    let desk = desk::shared();
    desk.prepare(program.script);
    let file = desk.words("@S/f", program.script);
    let script = desk.daemon.setup.scratch.script(&format!("bin/{}", program.script), program.text);
    for thread in program.threads {
        for answer in [Answer::Approve, Answer::Deny] {
            let actor = Actor::start(&script, &[thread, &file]);
            let asked = desk.wait_for_request();
            assert_eq!(asked["held"], true, "{thread}: {asked}");
            let process = &asked["event"]["process"];
            let (pid, tid) = (process["pid"].as_u64().unwrap(), process["tid"].as_u64());
            assert_eq!(pid, u64::from(actor.pid()), "{thread}");
            assert_eq!(tid.is_none_or(|tid| tid == pid), *thread == "main", "{thread}: {process}");
            assert!(wait::until(PATIENCE, || sys::state(pid as u32) == Some('T')), "{thread}");
            desk.decide(&asked, answer);
            let run = actor.finish();
            let open = run.mark("open");
            match answer {
                Answer::Approve => {
                    assert_eq!(open.facts.get("bytes").map(String::as_str), Some("7"), "{run:?}")
                }
                Answer::Deny => {
                    assert_eq!(open.facts.get("errno").map(String::as_str), Some("EACCES"), "{run:?}")
                }
            }
            assert!(run.mark("after").ok && run.status.success(), "{thread}: {run:?}");
        }
    }
    Ok(())
}

/// A held thread that a scheduler of its own process and somebody from outside interrupt by signals every 10 ms: the
/// handler runs, and the act is decided once.
pub(super) fn go_like() -> Verdict {
    let desk = desk::shared();
    desk.prepare("urged");
    let act = desk.words("urged 10 open @S/f read", "urged");
    let words: Vec<&str> = act.split(' ').collect();
    for answer in [Answer::Approve, Answer::Deny] {
        let mut actor = Actor::start(&desk.bot, &words);
        let worker = actor.mark("worker");
        let asked = desk.wait_for_request();
        let urge = || {
            let (pid, tid) = (num(worker.pid()), num(worker.tid()));
            sys::call(libc::SYS_tgkill, &mut [pid, tid, num(libc::SIGURG)]).ok();
            wait::pause(Duration::from_millis(10));
        };
        let stopped = wait::until(PATIENCE, || {
            urge();
            sys::state(worker.pid()) == Some('T')
        });
        assert!(stopped);
        // Signals that wait while it is stopped, and more while it goes on.
        (0..20).for_each(|_| urge());
        assert_eq!((sys::state(worker.pid()), desk.pending().len()), (Some('T'), 1), "a signal woke it");
        desk.decide(&asked, answer);
        (0..20).for_each(|_| urge());
        let run = actor.finish();
        let open = run.mark("open");
        match answer {
            Answer::Approve => assert!(open.ok, "{run:?}"),
            Answer::Deny => assert_eq!(open.facts["errno"], "EACCES", "{run:?}"),
        }
        assert!(run.mark("urged").number("signals") > 0, "{run:?}");
    }
    Ok(())
}
