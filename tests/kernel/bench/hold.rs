//! What holding costs: from a person's yes to the return of the call that waited, and what a rule with `hold` costs where
//! nothing is held, against the same rule with `deny`. Level full only (`cargo xtask bench --vm KERNEL`).

use std::fmt::Write as _;

use agent_monitor_tests::harness::actor::Actor;
use agent_monitor_tests::harness::case::Verdict;
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::monitor::Setup;
use agent_monitor_tests::harness::registry::{Match, Record};
use agent_monitor_tests::harness::{PATIENCE, world};
use agent_monitor_tests::sys::{self, wait};

use crate::hold::desk::{self, Answer};

/// Acts that are held and approved, one after the other.
const HELD: usize = 200;
/// Interleaved rounds of the comparison.
const ROUNDS: usize = 11;
/// Rules for files, and as many for networks.
const RULES: usize = 100;
/// What is done in one measurement.
const WORK: &[(&str, u64)] = &[("opens", 4000), ("connects", 2000), ("files", 500), ("forks", 60)];

/// From the moment at which the approver's client begins to say yes to the moment at which the call returns: the socket,
/// the database on disk, the ticket, the wake-up and the second judgement are in it.
pub(super) fn latency() -> Verdict {
    let desk = desk::shared();
    desk.prepare("clocked");
    let act = desk.words(&format!("clocked-opens @S/f {HELD}"), "clocked");
    let words: Vec<&str> = act.split(' ').collect();
    let actor = Actor::start(&desk.bot, &words);
    let mut said = Vec::new();
    for _ in 0..HELD {
        let asked = desk.wait_for_request();
        let stopped = wait::until(PATIENCE, || sys::state(actor.pid()) == Some('T'));
        assert!(stopped, "{:?}", sys::state(actor.pid()));
        said.push(sys::monotonic_nanos().unwrap());
        desk.decide(&asked, Answer::Approve);
    }
    let run = actor.finish();
    let returned = run.marks.iter().filter(|mark| mark.name == "clocked-open" && mark.ok);
    let mut millis: Vec<f64> = returned
        .map(|mark| mark.number("at"))
        .zip(&said)
        .map(|(at, said)| (at - said) as f64 / 1e6)
        .collect();
    assert_eq!(millis.len(), HELD, "{run:?}");
    millis.sort_by(f64::total_cmp);
    println!(
        "\nFIGURES hold: from approval to the call's return, {HELD} opens: p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms",
        millis[HELD / 2],
        millis[HELD * 99 / 100],
        millis[HELD - 1],
    );
    Ok(())
}

/// Microseconds of processor time of one storm.
fn micros(program: &str, dir: &str, what: &str, count: u64) -> f64 {
    let mut words = vec!["storm".to_owned(), format!("dir={dir}"), "rounds=1".to_owned()];
    words.extend(WORK.iter().map(|(name, _)| format!("{name}={}", if *name == what { count } else { 0 })));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let run = Actor::start(program, &words).finish();
    run.all_ok();
    run.mark("storm").number("cpu") as f64 / 1e3
}

/// Two agents with the same rules, of which only the verdict differs, doing what no rule is about.
pub(super) fn not_held() -> Verdict {
    desk::close();
    world::close();
    let mut setup = Setup::new();
    let dir = setup.scratch.dir("work").to_str().unwrap().to_owned();
    let mut programs = Vec::new();
    for verdict in ["deny", "hold"] {
        let mut scope = "[scope]\ndefault = \"allow\"\n".to_owned();
        for n in 0..RULES {
            write!(scope, "[[scope.file]]\npath = \"/srv/bench/{n}/**\"\nverdict = \"{verdict}\"\n").unwrap();
            write!(scope, "[[scope.net]]\nto = \"10.0.{n}.0/24\"\nverdict = \"{verdict}\"\n").unwrap();
        }
        let program = setup.scratch.program(&actor_program(), verdict);
        let record = Record::new(verdict).on(Match::exe(&program)).enforce().scope(&scope);
        setup = setup.record(&record.approver("user:nobody"));
        programs.push(program);
    }
    let _daemon = setup.start();
    let mut text = format!(
        "{RULES}+{RULES} rules with hold to the same with deny, processor time, median (quartiles) of {ROUNDS} rounds:"
    );
    for (what, count) in WORK {
        let mut ratios: Vec<f64> = Vec::new();
        let mut each = [0.0; 2];
        for round in 0..ROUNDS {
            // Whoever is second profits by what the first has warmed up: in turns.
            for at in [round % 2, 1 - round % 2] {
                each[at] = micros(&programs[at], &dir, what, *count);
            }
            ratios.push(each[1] / each[0]);
        }
        let part = |part: f64| super::quantile(&ratios, part);
        write!(text, " {what} {:.3} ({:.3}-{:.3})", part(0.5), part(0.25), part(0.75)).unwrap();
    }
    println!("\nFIGURES hold: {text}");
    Ok(())
}
