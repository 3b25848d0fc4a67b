//! The daemon says at the exec what a sweep would say, once per tree; adoption.

use std::process::Command;
use std::time::Instant;

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::actor::Actor;
use agent_monitor_tests::harness::case::Verdict;
use agent_monitor_tests::harness::client;
use agent_monitor_tests::harness::event::Event;
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::monitor::Setup;
use agent_monitor_tests::harness::scratch::Scratch;
use agent_monitor_tests::harness::world::{self, World};
use serde_json::Value;

use super::{Running, find_of};

const KIND: &str = "finding.shadow_agent";

/// The actor under the name of an agent that no record knows.
fn shadow(scratch: &Scratch) -> String {
    scratch.program(&actor_program(), "claude")
}

pub(super) fn finding(event: &Event, pid: u32) -> bool {
    event.kind == KIND && event.pid() == Some(pid)
}

pub(super) fn detail(world: &World, pid: u32) -> Value {
    world
        .feed
        .with(|events| events.iter().find(|e| finding(e, pid)).and_then(|e| e.detail.clone()))
        .unwrap_or_default()
}

pub(super) fn finding_at_exec() -> Verdict {
    world::close();
    let setup = Setup::new();
    let claude = shadow(&setup.scratch);
    let early = Running::start(Command::new(&claude).args(["--wait", "noop"])).has_become("--wait");
    let world = World::start(setup);
    assert!(world.feed.wait_for(PATIENCE, |e| finding(e, early.pid())), "what ran before is not told");
    assert_eq!(detail(&world, early.pid())["running_before"], true);
    let running = Running::start(Command::new(&claude).args(["--wait", "noop"]));
    let pid = running.pid();
    assert!(world.feed.wait_for(PATIENCE, |e| finding(e, pid)), "no finding of pid {pid}");
    let said = detail(&world, pid);
    assert_eq!((&said["product"], &said["action"]), (&"claude-code".into(), &"audit".into()), "{said:#}");
    // A sweep calls it the same.
    let output = world.daemon.cli(&["sweep", "-o", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let find = find_of(&report, pid).unwrap_or_else(|| panic!("{report:#}"));
    assert_eq!(find["id"], said["find"], "{find:#}");
    // The same tree again: `sh` starts it twice, one finding.
    let shell = Running::start(
        Command::new("/bin/sh")
            .args(["-c", &format!("{claude} noop; {claude} noop; exec {claude} --wait noop")]),
    );
    let shell = shell.has_become("--wait");
    let of_shell = |e: &Event| {
        let process = e.process.as_ref();
        e.kind == KIND
            && process
                .is_some_and(|p| p.pid == shell.pid() || p.ancestry.iter().any(|a| a.pid == shell.pid()))
    };
    assert!(world.feed.wait_for(PATIENCE, of_shell), "no finding below the shell");
    // A registered agent, and a program of another name, are none.
    world.act(&["noop"]);
    Actor::start(&world.stranger, &["noop"]).finish().all_ok();
    world.settle_now();
    let strays = world.feed.with(|events| {
        let names = [world.agent.as_str(), world.stranger.as_str()];
        let exe = |e: &Event| e.process.as_ref().and_then(|p| p.exe.clone()).unwrap_or_default();
        events.iter().filter(|e| e.kind == KIND && names.contains(&exe(e).as_str())).count()
    });
    assert_eq!(strays, 0, "findings of what is none");
    assert_eq!(
        world.feed.with(|events| events.iter().filter(|e| finding(e, pid)).count()),
        1,
        "once per tree"
    );
    Ok(())
}

/// A script that imports a framework is told by its content, under the sweep's id.
pub(super) fn home_made_at_exec() -> Verdict {
    world::close();
    let world = World::start(Setup::new());
    let text =
        "import time\ntry:\n    from crewai import Agent\nexcept ImportError:\n    pass\ntime.sleep(300)\n";
    let script = world.daemon.setup.scratch.file("crew.py", text);
    let running = Running::start(Command::new("python3").arg(&script)).has_become("crew.py");
    let of_script =
        |e: &Event| e.kind == KIND && e.process.as_ref().is_some_and(|p| p.args.contains(&script));
    assert!(world.feed.wait_for(PATIENCE, of_script), "no finding of {script}");
    let said = world.feed.with(|events| events.iter().find(|e| of_script(e)).and_then(|e| e.detail.clone()));
    let output = world.daemon.cli(&["sweep", "-o", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let find = find_of(&report, running.pid()).unwrap_or_default();
    assert_eq!(find["id"], said.unwrap_or_default()["find"], "{find:#}");
    Ok(())
}

pub(super) fn adopt() -> Verdict {
    world::close();
    let world = World::start(Setup::new());
    let claude = shadow(&world.daemon.setup.scratch);
    let running = Running::start(Command::new(&claude).args(["--wait", "noop"]));
    let pid = running.pid();
    assert!(world.feed.wait_for(PATIENCE, |e| finding(e, pid)), "no finding of pid {pid}");
    let find = detail(&world, pid)["find"].as_str().unwrap_or_default().to_owned();
    let answers = ["--owner", "a@example.com", "--purpose", "codes", "--expires", "2027-06-30T00:00:00Z"];
    let adopted = world.daemon.cli(&[&["agent", "adopt", &find, "-o", "json"], &answers[..]].concat());
    assert!(adopted.status.success(), "{}", client::describe(&adopted));
    let bound = |e: &Event| e.kind == "agent.bound" && e.pid() == Some(pid);
    assert!(world.feed.wait_for(PATIENCE, bound), "what ran already is not bound\n{}", world.daemon.output());
    let output = world.daemon.cli(&["sweep", "-o", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = find_of(&report, pid).unwrap_or_default();
    assert_eq!(found["registry"]["state"], "registered", "{found:#}");
    let again = world.daemon.cli(&[&["agent", "adopt", &find], &answers[..]].concat());
    assert!(!again.status.success(), "{}", client::describe(&again));
    Ok(())
}

/// The mark that an agent sets for what it starts tells that agent, where nothing else of it was seen.
pub(super) fn marked() -> Verdict {
    world::close();
    let world = World::start(Setup::new());
    let program = |name: &str| world.daemon.setup.scratch.program(&actor_program(), name);
    let start = |name: &str, variable: &str| {
        Running::start(Command::new(program(name)).env(variable, "1").args(["--wait", "noop"]))
    };
    // The neighbour first: what its parent, this test, starts after the other one is of one tree with that.
    let neighbour = start("unmarked", "CLAUDE");
    let marked = start("marked", "CLAUDECODE");
    assert!(
        world.feed.wait_for(PATIENCE, |e| finding(e, marked.pid())),
        "no finding of pid {}",
        marked.pid()
    );
    let said = detail(&world, marked.pid());
    let evidence = said["evidence"].to_string();
    assert_eq!((&said["product"], &said["action"]), (&"claude-code".into(), &"audit".into()), "{said:#}");
    assert!(evidence.contains("carries the mark"), "{said:#}");
    assert!(
        !world.feed.with(|events| events.iter().any(|e| finding(e, neighbour.pid()))),
        "another variable is no mark"
    );
    // A sweep sees it too.
    let output = world.daemon.cli(&["sweep", "-o", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let find = find_of(&report, marked.pid()).unwrap_or_default();
    assert_eq!(find["product"]["id"], "claude-code", "{find:#}");
    let of_environment = |line: &Value| line["source"] == "environment";
    assert!(find["evidence"].as_array().is_some_and(|lines| lines.iter().any(of_environment)), "{find:#}");
    assert_eq!(find_of(&report, neighbour.pid()), None, "another variable is no mark");
    Ok(())
}

/// A sweep without the daemon knows that the agent of a program that runs was retired.
pub(super) fn retired() -> Verdict {
    world::close();
    let mut world = World::start(Setup::new().arg("--detach-on-exit"));
    let claude = shadow(&world.daemon.setup.scratch);
    let running = Running::start(Command::new(&claude).args(["--wait", "noop"]));
    assert!(world.feed.wait_for(PATIENCE, |e| finding(e, running.pid())), "no finding");
    let find = detail(&world, running.pid())["find"].as_str().unwrap_or_default().to_owned();
    let answers = ["--owner", "a@example.com", "--purpose", "codes", "--expires", "2027-06-30T00:00:00Z"];
    let adopted = world.daemon.cli_json(&[&["agent", "adopt", &find, "-o", "json"], &answers[..]].concat());
    let agent = adopted["id"].as_str().unwrap_or_else(|| panic!("{adopted:#}")).to_owned();
    let retired = world.daemon.cli(&["agent", "retire", &agent, "--why", "the project is over"]);
    assert!(retired.status.success(), "{}", client::describe(&retired));
    drop(running);
    assert!(world.daemon.end_by(libc::SIGTERM).success());
    let again = Running::start(Command::new(&claude).args(["--wait", "noop"])).has_become("--wait");
    let state = world.daemon.setup.scratch.text("state");
    let output = world.daemon.cli(&["sweep", "-o", "json", "--state-dir", &state]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = find_of(&report, again.pid()).unwrap_or_default();
    assert_eq!(
        (&found["registry"]["state"], &found["registry"]["agent"]),
        (&"retired".into(), &agent.as_str().into()),
        "{found:#}"
    );
    assert!(found["fix"].to_string().contains("is retired and it is still there"), "{found:#}");
    Ok(())
}

/// From the exec to the finding at a follower, for `cargo xtask bench`.
pub(super) fn latency() {
    world::close();
    let world = World::start(Setup::new());
    let mut figures: Vec<f64> = (0..20)
        .map(|n| {
            let dir = world.daemon.setup.scratch.dir(&format!("l{n}"));
            let claude = dir.join("claude");
            std::fs::copy(actor_program(), &claude).unwrap();
            let begin = Instant::now();
            let running = Running::start(Command::new(&claude).args(["--wait", "noop"]));
            assert!(world.feed.wait_for(PATIENCE, |e| finding(e, running.pid())), "no finding");
            begin.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    figures.sort_by(f64::total_cmp);
    println!(
        "FIGURES bench: exec to finding at a follower, ms: median {:.1}, most {:.1}",
        figures[10], figures[19]
    );
}
