//! Every call of the table, all held at the same time: nobody answers, `SIGKILL`, the daemon is killed. Each ends as it
//! must, has no effect that nobody allowed, and the record says the same.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::actor::{Actor, Run};
use agent_monitor_tests::harness::case::Verdict;
use agent_monitor_tests::sys::{self, wait};
use serde_json::Value;

use super::desk::{self, Answer, Desk};
use super::rows::{self, Row};

/// How an act ended.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Passed,
    Refused,
    Killed,
    /// An error that no program may ever see, or nothing at all.
    Odd,
}

/// A row that is held.
struct Held {
    row: &'static Row,
    name: String,
    /// What its directories held before.
    before: String,
    asked: Value,
    /// The process that waits.
    pid: u32,
}

/// Whether this request is of the actor, or of a child of it.
fn of(asked: &Value, actor: &Actor) -> bool {
    [process(asked, "pid"), process(asked, "ppid")].contains(&actor.pid())
}

fn process(asked: &Value, key: &str) -> u32 {
    asked["event"]["process"][key].as_u64().unwrap() as u32
}

/// Starts every row as this agent, and gives them once each has asked. One that the kernel had no memory to judge was
/// refused and counted, as it must be, and is started once more.
fn all(desk: &Desk, agent: &str) -> Vec<(Held, Actor)> {
    let query = format!("all=true&agent={agent}");
    let last = desk.requests(&query).iter().filter_map(|asked| asked["id"].as_i64()).max().unwrap_or(0);
    let before = desk.refused_for_memory(agent);
    let mut started: Vec<_> = rows::HELD
        .iter()
        .map(|row| {
            let name = format!("{agent}-{}", row.name);
            desk.prepare(&name);
            let before = contents(desk, &name);
            (row, desk.start_as(agent, row, &name), name, before)
        })
        .collect();
    let mut asked = Vec::new();
    let mut refused = 0;
    let new = || -> Vec<Value> {
        desk.requests(&query).into_iter().filter(|asked| asked["id"].as_i64() > Some(last)).collect()
    };
    wait::until(PATIENCE, || {
        let seen = asked.len();
        asked = new();
        if asked.len() == seen {
            refused = (desk.refused_for_memory(agent) - before) as usize;
        }
        asked.len() + refused >= rows::HELD.len()
    });
    for (row, actor, name, _) in &mut started {
        if !asked.iter().any(|asked| of(asked, actor)) && refused > 0 && refused <= 2 {
            println!("\n{name} had no memory to be judged with");
            *actor = desk.start_as(agent, row, name);
        }
    }
    let every = wait::until(PATIENCE, || {
        asked = new();
        asked.len() >= rows::HELD.len()
    });
    if !every {
        let missing = started.iter().filter(|(_, actor, ..)| !asked.iter().any(|asked| of(asked, actor)));
        let missing: String = missing
            .map(|(_, actor, name, _)| format!("{name} did not ask:\n{}\n", desk.daemon.told_of(actor.pid())))
            .collect();
        panic!("{missing}{:?}\n{}", desk.events(&["--kind", "gap"]), desk.daemon.output());
    }
    let held = started.into_iter().map(|(row, actor, name, before)| {
        let mine: Vec<&Value> = asked.iter().filter(|asked| of(asked, &actor)).collect();
        let [asked] = mine.as_slice() else { panic!("{name} asked {} times: {mine:?}", mine.len()) };
        assert_eq!(asked["held"], true, "{name}: {asked}");
        let pid = process(asked, "pid");
        (Held { row, name, before, asked: (*asked).clone(), pid }, actor)
    });
    held.collect()
}

/// Everything in a row's directories, with what a change leaves behind. The program is left out: it is one file for all.
fn contents(desk: &Desk, name: &str) -> String {
    let mut lines = Vec::new();
    for side in ["secret", "open"] {
        list(&desk.daemon.setup.scratch.path(&format!("{side}/{name}")), &mut lines);
    }
    lines.sort();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    lines.extend(mounts.lines().filter(|line| line.contains(&format!("/{name}/"))).map(str::to_owned));
    lines.join("\n")
}

fn list(dir: &Path, lines: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten().filter(|entry| entry.file_name() != "prog") {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        let (changed, nanos) = (meta.ctime(), meta.ctime_nsec());
        let (mode, links, uid, size) = (meta.mode(), meta.nlink(), meta.uid(), meta.size());
        let mtime = meta.mtime();
        lines.push(format!("{} {mode:o} {links} {uid} {size} {mtime} {changed}.{nanos}", path.display()));
        if meta.is_dir() {
            list(&path, lines);
        }
    }
}

fn ending(run: &Run) -> Ending {
    let errnos: Vec<&str> =
        run.marks.iter().filter_map(|mark| mark.facts.get("errno")).map(String::as_str).collect();
    let status = run.marks.iter().filter_map(|mark| mark.facts.get("status")).find(|status| *status != "0");
    let killed = run.status.signal() == Some(libc::SIGKILL) || status.is_some_and(|status| status == "9");
    let refused = errnos.iter().any(|errno| matches!(*errno, "EACCES" | "EPERM"));
    let leaked = errnos.iter().any(|errno| errno.contains('5') || *errno == "EINTR");
    match () {
        () if leaked => Ending::Odd,
        () if killed => Ending::Killed,
        () if refused || status.is_some() => Ending::Refused,
        () if run.marks.is_empty() => Ending::Odd,
        () => Ending::Passed,
    }
}

/// Ends all of them and says which did not end as `expected` says, in the process, on the disk or in the record.
fn check(desk: &Desk, held: Vec<(Held, Actor)>, expected: impl Fn(&Held) -> (Ending, &'static str)) {
    let ended: Vec<(Held, Run)> = held.into_iter().map(|(one, actor)| (one, actor.finish())).collect();
    let mut wrong = Vec::new();
    let requests = states(desk);
    let told = decisions(desk);
    let verdicts = verdicts(desk);
    for (one, run) in &ended {
        let (ending_wanted, state) = expected(one);
        let (ending, passed) = (ending(run), ending_wanted == Ending::Passed);
        let id = one.asked["id"].as_i64().unwrap();
        let changed = contents(desk, &one.name) != one.before;
        let effect = changed || (!passed && run.marks.iter().any(|mark| mark.name == "noop"));
        let effect_wanted = passed && rows::CHANGING.contains(&one.row.name);
        let last = verdicts.get(&(one.pid, one.asked["event"]["kind"].to_string()));
        let verdict_wanted = match ending_wanted {
            Ending::Passed => "allow",
            Ending::Refused => "deny",
            Ending::Killed | Ending::Odd => "hold",
        };
        let kinds = told.get(&id).cloned().unwrap_or_default();
        if ending != ending_wanted
            || effect != effect_wanted
            || requests.get(&id).map(String::as_str) != Some(state)
            || kinds != [format!("approval.{state}")]
            || last.map(String::as_str) != Some(verdict_wanted)
        {
            wrong.push(format!(
                "{}: {ending:?}, not {ending_wanted:?}; effect {effect}; request {:?} {kinds:?}, not {state}; \
                 last verdict {last:?}, not {verdict_wanted}: {run:?}",
                one.name,
                requests.get(&id)
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), ended.len(), wrong.join("\n"));
}

/// What each request has come to.
fn states(desk: &Desk) -> BTreeMap<i64, String> {
    let all = desk.requests("all=true");
    all.iter().map(|one| (one["id"].as_i64().unwrap(), one["state"].as_str().unwrap().to_owned())).collect()
}

/// The events that decided each request.
fn decisions(desk: &Desk) -> BTreeMap<i64, Vec<String>> {
    let mut told: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for event in desk.events(&["--kind", "approval"]) {
        let kind = event["kind"].as_str().unwrap();
        if kind != "approval.requested"
            && let Some(id) = event["detail"]["approval"].as_i64()
        {
            told.entry(id).or_default().push(kind.to_owned());
        }
    }
    told
}

/// The last verdict on each kind of act of each process, of those that were ever held.
fn verdicts(desk: &Desk) -> BTreeMap<(u32, String), String> {
    let mut last = BTreeMap::new();
    for event in desk.events(&[]) {
        if let (Some(pid), Some(verdict)) = (event["process"]["pid"].as_u64(), event["verdict"].as_str()) {
            let place = event["file"]["path"].as_str().unwrap_or("/secret/");
            if place.contains("/secret/") || place.contains("/open/") {
                last.insert((pid as u32, event["kind"].to_string()), verdict.to_owned());
            }
        }
    }
    last
}

/// Nobody answers: each act fails when its time is over.
pub(super) fn timed_out() -> Verdict {
    let desk = desk::shared();
    let held = all(&desk, "brief");
    check(&desk, held, |_| (Ending::Refused, "expired"));
    Ok(())
}

/// Each process that waits is killed: it is gone at once, and so is its request.
pub(super) fn killed() -> Verdict {
    let desk = desk::shared();
    let held = all(&desk, "bot");
    for (one, _) in &held {
        let stopped = wait::until(PATIENCE, || sys::state(one.pid) == Some('T'));
        assert!(stopped, "{}: {:?}", one.name, sys::state(one.pid));
        sys::kill(one.pid as i32, libc::SIGKILL).unwrap();
    }
    assert!(wait::until(PATIENCE, || desk.pending().is_empty()), "{:?}", desk.pending());
    check(&desk, held, |_| (Ending::Killed, "gone"));
    Ok(())
}

/// Whether a row is approved, where half of them are.
fn even(one: &Held) -> bool {
    rows::HELD.iter().position(|row| row.name == one.row.name).unwrap() % 2 == 0
}

/// The daemon is killed with everything held: the next one denies it or asks again, as the record says.
pub(super) fn daemon_killed() -> Verdict {
    let mut desk = desk::shared();
    let (lost, patient) = (all(&desk, "bot"), all(&desk, "patient"));
    desk.daemon.end_by(libc::SIGKILL);
    for (one, _) in lost.iter().chain(&patient) {
        let stopped = wait::until(PATIENCE, || sys::state(one.pid) == Some('T'));
        assert!(stopped, "{} does not wait while no daemon runs: {:?}", one.name, sys::state(one.pid));
    }
    desk.daemon.restart();
    let again = desk.requests("agent=patient");
    for (one, _) in &patient {
        let same = again.iter().find(|asked| asked["id"] == one.asked["id"]);
        assert_eq!(same.map(|asked| &asked["digest"]), Some(&one.asked["digest"]), "{}", one.name);
        assert_eq!(sys::state(one.pid), Some('T'), "{} went on by itself", one.name);
        desk.decide(&one.asked, if even(one) { Answer::Approve } else { Answer::Deny });
    }
    // What a row asks after its first question.
    let rest = desk.answering(Answer::Approve);
    check(&desk, patient, |one| match even(one) {
        true => (Ending::Passed, "approved"),
        false => (Ending::Refused, "denied"),
    });
    rest.end();
    check(&desk, lost, |_| (Ending::Refused, "denied"));
    Ok(())
}

/// Processes that are held at once.
const CROWD: usize = 200;

/// A small generator, so that a failure can be played again (Marsaglia's xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Two hundred processes wait, and are decided in random order, half of them with yes: each gets its own answer.
pub(super) fn crowd() -> Verdict {
    let desk = desk::shared();
    let scratch = &desk.daemon.setup.scratch;
    for n in 0..CROWD {
        scratch.file(&format!("secret/crowd/{n}"), "content");
    }
    let act = desk.words(&format!("crowd {CROWD} open @S/@N read"), "crowd");
    let words: Vec<&str> = act.split(' ').collect();
    let before = desk.refused_for_memory("bot");
    let actor = Actor::start(&desk.bot, &words);
    let (mut pending, mut refused) = (Vec::new(), 0);
    let every = wait::until(PATIENCE * 2, || {
        pending = desk.pending();
        refused = (desk.refused_for_memory("bot") - before) as usize;
        pending.len() + refused >= CROWD
    });
    if !every {
        let gaps = desk.events(&["--kind", "gap"]);
        drop(desk.answering(Answer::Deny));
        panic!("{} of {CROWD} wait; {gaps:?}: {:?}", pending.len(), actor.finish());
    }
    // Since 6.19 the kernel may refuse a hook its memory in a moment in which many ask: then the act is refused.
    assert!(refused <= CROWD / 20, "{refused} had no memory");
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64 | 1);
    println!("\nseed {seed}");
    let mut random = Random(seed);
    for at in (1..pending.len()).rev() {
        pending.swap(at, random.below(at + 1));
    }
    // By the process that asked and by the file that was shown: both must agree with what the process itself says.
    let mut answers = BTreeMap::new();
    for (at, asked) in pending.iter().enumerate() {
        let path = asked["event"]["file"]["path"].as_str().unwrap();
        let number: u64 = path.rsplit('/').next().unwrap().parse().unwrap();
        let pid = asked["event"]["process"]["pid"].as_u64().unwrap();
        let answer = if at < pending.len() / 2 { Answer::Approve } else { Answer::Deny };
        answers.insert(number, (pid, answer));
        desk.decide(asked, answer);
    }
    let run = actor.finish_within(PATIENCE * 2);
    let members: Vec<_> = run.marks.iter().filter(|mark| mark.name == "member").collect();
    assert_eq!(members.len(), CROWD);
    for member in members {
        let errno = member.facts.get("errno").map(String::as_str);
        let Some((pid, answer)) = answers.get(&member.number("number")).copied() else {
            assert_eq!(errno, Some("EACCES"), "{member:?} was not asked about");
            continue;
        };
        let right = match answer {
            Answer::Approve => member.ok,
            Answer::Deny => errno == Some("EACCES"),
        };
        assert!(right && member.number("pid") == pid, "seed {seed}: {answer:?} of pid {pid}: {member:?}");
    }
    assert!(desk.pending().is_empty(), "{:?}", desk.pending());
    Ok(())
}
