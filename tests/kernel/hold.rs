//! People in the action path: the act stops inside its system call, a person decides, and the same call goes on or fails.

mod arguments;
mod company;
pub(crate) mod desk;
mod matrix;
mod rows;
mod runtime;

use agent_monitor_tests::harness::actor::{Actor, Run};
use agent_monitor_tests::harness::case::{Case, Verdict};
use agent_monitor_tests::harness::{PATIENCE, client};
use agent_monitor_tests::sys::{self, wait};

use self::desk::{Answer, Desk};

pub(crate) const CASES: &[Case] = &[
    Case::vm("approved", || every(Answer::Approve)),
    Case::vm("denied", || every(Answer::Deny)),
    Case::vm("timed_out", matrix::timed_out),
    Case::vm("killed", matrix::killed),
    Case::vm("cannot_wait", cannot_wait),
    Case::vm("woken_without_a_decision", woken),
    Case::vm("two_threads_one_ticket", two_threads),
    Case::vm("two_hundred_at_once", matrix::crowd),
    Case::vm("other_arguments", other_arguments),
    Case::vm("arguments_swapped", arguments::swapped),
    Case::vm("arguments_raced", arguments::raced),
    Case::vm("arguments_too_many", arguments::too_many),
    Case::vm("company_of_a_debugger", company::debugger),
    Case::vm("company_of_a_parent", company::parent),
    Case::vm("company_of_a_sibling", company::sibling),
    Case::vm("company_in_a_frozen_cgroup", company::frozen),
    Case::vm("company_of_an_exec", company::replaced),
    Case::vm("threads_and_signals", runtime::go_like),
    Case::vm_with("python", runtime::PYTHON.interpreter, || runtime::script(&runtime::PYTHON)),
    Case::vm_with("node", runtime::NODE.interpreter, || runtime::script(&runtime::NODE)),
    Case::vm("grant_used_up", grant_used_up),
    Case::vm("session_narrows_and_ends", session),
    Case::vm("suspended_in_a_storm", suspended),
    Case::vm("daemon_killed", matrix::daemon_killed),
    Case::vm("nobody_to_ask", nobody),
    Case::vm("let_go_when_the_monitor_leaves", let_go),
    Case::both("asked_at_level_partial", asked_partial),
];

/// Every row, with one answer.
fn every(answer: Answer) -> Verdict {
    let desk = desk::shared();
    let mut wrong = Vec::new();
    for row in rows::HELD {
        let (run, asked) = desk.played(row, answer);
        let failed = run.marks.iter().find_map(|mark| mark.facts.get("errno").cloned());
        let status =
            run.marks.iter().filter_map(|mark| mark.facts.get("status")).find(|s| *s != "0").cloned();
        let refused = failed.as_ref().is_some_and(|e| e == "EACCES" || e == "EPERM") || status.is_some();
        let odd = failed.as_ref().is_some_and(|e| e.contains('5') || e == "EINTR");
        let silent = run.marks.is_empty();
        let right = match answer {
            Answer::Approve => !refused && !odd && !silent,
            Answer::Deny => refused && !odd || silent && !run.status.success(),
        };
        // A refusal ends the act at its first question.
        let requests = if answer == Answer::Deny { 1 } else { row.requests };
        if !right || asked.len() != requests {
            wrong.push(format!("{}: {answer:?}: {run:?}\n  asked {}: {asked:?}", row.name, asked.len()));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows::HELD.len(), wrong.join("\n"));
    Ok(())
}

/// Where the call cannot be run again the act is refused and asked about; after a yes the next try passes.
fn cannot_wait() -> Verdict {
    let desk = desk::shared();
    for row in rows::ASKED {
        desk.prepare(row.name);
        let act = desk.words(row.act, row.name);
        let twice = format!("{act} + {act}");
        let words: Vec<&str> = std::iter::once("--wait").chain(twice.split(' ')).collect();
        let mut actor = Actor::start(&desk.bot, &words);
        actor.go();
        let name = row.act.split(' ').next().unwrap();
        let first = actor.mark(name);
        assert!(
            first.facts.get("errno").is_some_and(|e| e == "EACCES" || e == "EPERM"),
            "{}: {first:?}",
            row.name
        );
        let asked = desk.wait_for_request();
        assert_eq!(asked["held"], false, "{}: {asked}", row.name);
        desk.decide(&asked, Answer::Approve);
        actor.go();
        let run = actor.finish();
        let last = run.marks.last().unwrap();
        assert!(
            last.facts.get("errno").is_none_or(|e| e != "EACCES" && e != "EPERM"),
            "{}: {run:?}",
            row.name
        );
    }
    Ok(())
}

/// `SIGCONT` by somebody else is no decision: the act stops again.
fn woken() -> Verdict {
    let desk = desk::shared();
    let row = rows::HELD[0];
    desk.prepare(row.name);
    let actor = desk.start(&row);
    let asked = desk.wait_for_request();
    let pid = asked["waiting"][0].as_u64().unwrap() as u32;
    for _ in 0..5 {
        assert!(wait::until(PATIENCE, || sys::state(pid) == Some('T')), "{:?}", sys::state(pid));
        sys::kill(pid as i32, libc::SIGCONT).unwrap();
    }
    assert!(wait::until(PATIENCE, || sys::state(pid) == Some('T')), "it went on without a decision");
    assert_eq!(desk.pending().len(), 1, "one request for one act: {:?}", desk.pending());
    desk.decide(&asked, Answer::Deny);
    let run = actor.finish();
    assert_eq!(run.marks[0].facts["errno"], "EACCES");
    Ok(())
}

/// A yes for once lets exactly one of two threads pass that try the same act at the same time.
fn two_threads() -> Verdict {
    let desk = desk::shared();
    desk.prepare("race");
    let act = desk.words("threads 2 open @S/f read", "race");
    let words: Vec<&str> = act.split(' ').collect();
    for _ in 0..5 {
        let actor = Actor::start(&desk.bot, &words);
        let asked = desk.wait_for_request();
        desk.decide(&asked, Answer::Approve);
        // The other one asks again, and is refused.
        let again = desk.wait_for_request();
        desk.decide(&again, Answer::Deny);
        let run = actor.finish();
        let opened = run.marks.iter().filter(|mark| mark.name == "open" && mark.ok).count();
        assert_eq!(opened, 1, "{run:?}");
    }
    Ok(())
}

/// A yes for one command line is none for another.
fn other_arguments() -> Verdict {
    let desk = desk::shared();
    desk.prepare("arguments");
    let start = |last: &str| {
        let act = desk.words(&format!("run @S/prog {last}"), "arguments");
        let words: Vec<&str> = act.split(' ').collect();
        Actor::start(&desk.bot, &words)
    };
    let first = start("noop");
    let asked = desk.wait_for_request();
    let shown = asked["event"]["detail"]["args"].as_array().unwrap();
    assert_eq!(shown.last().unwrap(), "noop", "{asked}");
    desk.decide_for(&asked, 3600);
    first.finish().all_ok();
    // The same again passes by the same yes; another argument asks anew.
    start("noop").finish().all_ok();
    let other = start("noop2");
    let again = desk.wait_for_request();
    assert_ne!(again["digest"], asked["digest"]);
    desk.decide(&again, Answer::Deny);
    other.finish();
    Ok(())
}

/// With the daemon dead what would be held is refused.
fn nobody() -> Verdict {
    let mut desk = desk::shared();
    let row = rows::HELD[0];
    desk.prepare(row.name);
    desk.daemon.end_by(libc::SIGKILL);
    let refused = wait::until(PATIENCE, || {
        let run = desk.start(&row);
        let pid = run.pid();
        let stopped = wait::until(std::time::Duration::from_secs(2), || {
            matches!(sys::state(pid), Some('T' | 'Z') | None)
        });
        if stopped && sys::state(pid) == Some('T') {
            // The heartbeat is still fresh: nobody will answer this one.
            sys::kill(pid as i32, libc::SIGKILL).unwrap();
            run.finish();
            return false;
        }
        run.finish().marks[0].facts.get("errno").is_some_and(|e| e == "EACCES")
    });
    assert!(refused, "what nobody can decide was not refused");
    desk.daemon.restart();
    Ok(())
}

/// What is held when the monitor leaves the kernel goes on, by `detach` as at an end that detaches: nothing stays stopped.
fn let_go() -> Verdict {
    let mut desk = desk::shared();
    let row = rows::HELD[0];
    desk.prepare(row.name);
    let held = desk.start(&row);
    desk.wait_for_request();
    assert!(wait::until(PATIENCE, || sys::state(held.pid()) == Some('T')), "it does not stop");
    desk.daemon.end_by(libc::SIGKILL);
    assert_eq!(sys::state(held.pid()), Some('T'), "it goes on before anything was detached");
    let bpffs = desk.daemon.setup.bpffs();
    let output = client::run(&["detach", "--bpffs", bpffs.to_str().unwrap()]);
    assert!(output.status.success(), "{}", client::describe(&output));
    held.finish().all_ok();
    desk.daemon.setup.scratch.file("config.toml", "detach-on-exit = true\n");
    desk.daemon.restart();
    let held = desk.start(&row);
    desk.wait_for_request();
    let status = desk.daemon.end_by(libc::SIGTERM);
    assert!(status.success(), "{}", desk.daemon.output());
    held.finish().all_ok();
    assert!(!bpffs.exists(), "pins are left in {}", bpffs.display());
    Ok(())
}

/// A grant for three acts lets exactly three of many racing ones pass: of four processes, and of eight threads of one.
fn grant_used_up() -> Verdict {
    let desk = desk::shared();
    for (name, racers, act) in [
        ("granted", 4, "open @S/f read + open @S/f read"),
        ("granted-threads", 1, "threads 8 open @S/f read"),
    ] {
        desk.prepare(name);
        let file = desk.words("@S/f", name);
        desk.grant(&format!(
            "{{\"agent\":\"bot\",\"file\":[\"{file}\"],\"seconds\":3600,\"uses\":3,\"reason\":\"a test\"}}"
        ));
        let act = desk.words(act, name);
        let words: Vec<&str> = act.split(' ').collect();
        let actors: Vec<Actor> = (0..racers).map(|_| Actor::start(&desk.bot, &words)).collect();
        let answers = desk.answering(Answer::Deny);
        let runs: Vec<Run> = actors.into_iter().map(Actor::finish).collect();
        let asked = answers.end();
        let opens = || runs.iter().flat_map(|run| &run.marks).filter(|mark| mark.name == "open");
        assert_eq!(opens().count(), 8, "{runs:#?}");
        let opened = opens().filter(|mark| mark.ok).count();
        assert_eq!(opened, 3, "{name}: {runs:#?}\nasked: {asked:#?}\n{}", desk.story());
    }
    Ok(())
}

/// A session may do what the agent and its own scope both permit, until its time is over, by the kernel's clock.
fn session() -> Verdict {
    let desk = desk::shared();
    desk.prepare("session");
    let open = desk.words("@O/f", "session");
    let other = desk.words("@O/prelink", "session");
    let scope = desk.daemon.setup.scratch.file(
        "session.toml",
        &format!("[scope]\ndefault = \"allow\"\n[[scope.file]]\npath = \"{other}\"\nverdict = \"deny\"\n"),
    );
    let run = |ttl: &str, act: &str| {
        let mut words =
            vec!["exec", "--agent", "bot", "--task", "a test", "--ttl", ttl, "--scope", &scope, "--"];
        words.push(&desk.bot);
        words.extend(act.split(' '));
        let mut command = client::command(&[]);
        command.args(["--socket", &desk.daemon.socket()]).args(&words);
        Actor::spawn(command)
    };
    let within = run("1h", &format!("open {open} read + open {other} read")).finish();
    assert!(within.marks[0].ok, "{within:?}");
    assert_eq!(within.marks[1].facts["errno"], "EACCES", "{within:?}");
    let mut ends = run("2s", &format!("--wait open {open} read + open {open} read"));
    ends.mark("READY");
    ends.go();
    assert!(ends.mark("open").ok);
    let over = wait::until(PATIENCE, || {
        let list = desk.cli(&["session", "list", "-o", "json"]);
        let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
        list["sessions"].as_array().unwrap().iter().all(|session| {
            session["left_ms"] == 0
                || session["left_ms"].is_null()
                || session["left_ms"].as_u64().is_some_and(|left| left > 10_000)
        })
    });
    assert!(over, "the session does not end");
    ends.go();
    let run = ends.finish();
    let refused = run.marks.iter().filter(|mark| mark.name == "open" && mark.ok).count();
    assert_eq!(refused, 1, "an ended session went on: {run:?}");
    Ok(())
}

/// When `suspend` returns nothing of the tree runs, however it forks; when it is resumed it goes on.
fn suspended() -> Verdict {
    let desk = desk::shared();
    desk.prepare("storm");
    let act = desk.words("fork-storm 1500", "storm");
    let words: Vec<&str> = act.split(' ').collect();
    let actor = Actor::start(&desk.bot, &words);
    let bound = wait::until(PATIENCE, || desk.processes() > 0);
    assert!(bound);
    let output = desk.cli(&["agent", "suspend", "bot", "--why", "a test"]);
    assert!(output.status.success(), "{}", client::describe(&output));
    let running = desk.running();
    assert!(running.is_empty(), "these run after suspend returned: {running:?}");
    let refused = Actor::start(&desk.bot, &["noop"]).finish();
    assert!(!refused.status.success(), "something new started under a suspended agent: {refused:?}");
    let output = desk.cli(&["agent", "resume", "bot", "--why", "a test"]);
    assert!(output.status.success(), "{}", client::describe(&output));
    let run = actor.finish_within(PATIENCE * 3);
    run.all_ok();
    Ok(())
}

/// At level partial an act that would be held is refused and asked about; after a yes the next try passes.
fn asked_partial() -> Verdict {
    desk::close();
    let desk = Desk::partial();
    let act = "udp-sendto 127.0.0.1:4003 4 + udp-sendto 127.0.0.1:4003 4";
    let words: Vec<&str> = std::iter::once("--wait").chain(act.split(' ')).collect();
    let mut actor = Actor::start(&desk.bot, &words);
    actor.go();
    let first = actor.mark("udp-sendto");
    assert_eq!(first.facts["errno"], "EPERM");
    let asked = desk.wait_for_request();
    assert_eq!(asked["held"], false);
    desk.decide(&asked, Answer::Approve);
    actor.go();
    let run = actor.finish();
    assert!(run.marks.last().unwrap().ok, "{run:?}");
    Ok(())
}
