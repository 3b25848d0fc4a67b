//! Family `lifecycle`: reload, crash and restart, the registry as a whole, and what agents may not ask.

use std::path::Path;

use agent_monitor_tests::harness::actor::Actor;
use agent_monitor_tests::harness::case::{Case, Verdict};
use agent_monitor_tests::harness::client;
use agent_monitor_tests::harness::lane::{actor_program, monitor_program};
use agent_monitor_tests::harness::monitor::{Daemon, Setup};
use agent_monitor_tests::harness::registry::{Match, Record};
use agent_monitor_tests::harness::world::{self, AGENT, World};
use agent_monitor_tests::harness::{PATIENCE, expectation_limit};
use agent_monitor_tests::sys::wait;

use crate::survive::{Fixture, PORT, is_refused};

pub(crate) const CASES: &[Case] = &[
    Case::both("reload_adds_changes_removes", reload_adds_changes_removes),
    Case::both("reload_refuses_a_bad_record", reload_refuses_a_bad_record),
    Case::both("reload_is_atomic", reload_is_atomic),
    Case::both("the_last_good_record_stays", the_last_good_record_stays),
    Case::both("one_daemon_per_state_directory", one_daemon_per_state_directory),
    Case::both("kill9_restart_finds_agents", kill9_restart_finds_agents),
    Case::both("kill9_leaves_a_gap_record", kill9_leaves_a_gap_record),
    Case::both("kill9_restart_keeps_launched", kill9_restart_keeps_launched),
    Case::both("stop_lets_agents_run", stop_lets_agents_run),
    Case::both("five_hundred_records", five_hundred_records),
    Case::both("strict_refuses_all", strict_refuses_all),
    Case::both("agent_may_not_ask", agent_may_not_ask),
    Case::both("unattributed_none", unattributed_none),
    Case::both("unattributed_all", unattributed_all),
];

fn ids(daemon: &Daemon) -> Vec<String> {
    // Of the daemon itself: `agent list` reads the directory, which changes before the new set is in force.
    let (code, body) = client::get(Path::new(&daemon.socket()), "/v1/agents").unwrap();
    assert_eq!(code, 200, "{body}");
    let list: serde_json::Value = serde_json::from_str(&body).unwrap();
    let agents = list.as_array().or_else(|| list["agents"].as_array()).cloned().unwrap_or_default();
    agents.iter().filter_map(|a| a["id"].as_str().map(str::to_owned)).collect()
}

/// The state of an agent, as `agent list` shows it.
fn state(daemon: &Daemon, id: &str) -> String {
    let list = daemon.cli_json(&["agent", "list", "-o", "json"]);
    let agents = list["agents"].as_array().cloned().unwrap_or_default();
    let found = agents.iter().find(|agent| agent["id"] == id);
    found.and_then(|agent| agent["state"].as_str()).unwrap_or_default().to_owned()
}

#[track_caller]
fn reload_until(daemon: &Daemon, wanted: &[&str]) {
    daemon.signal(libc::SIGHUP);
    let done = wait::until(PATIENCE, || ids(daemon) == wanted);
    assert!(done, "after SIGHUP agents are {:?}, not {wanted:?}\n{}", ids(daemon), daemon.output());
}

fn reload_adds_changes_removes() -> Verdict {
    world::close();
    let world = World::start(Setup::new());
    let scratch = &world.daemon.setup.scratch;
    let (first, second) =
        (scratch.program(&actor_program(), "one"), scratch.program(&actor_program(), "two"));
    let registry = world.daemon.setup.registry();
    let owner = |program: &str| {
        let file = world.fence_file();
        world.act_by(program, &["noop", "+", "open", &file, "read"]);
        world.feed.expect("open").kind("file.open").path(&file).at_least_once().agent.unwrap().id
    };
    Record::new("late").on(Match::exe(&first)).write(&registry);
    reload_until(&world.daemon, &[AGENT, "late"]);
    assert_eq!(owner(&first), "late");
    // The same id, recognised by another program.
    Record::new("late").on(Match::exe(&second)).write(&registry);
    world.daemon.signal(libc::SIGHUP);
    let changed = |e: &agent_monitor_tests::harness::event::Event| e.kind == "agent.changed";
    assert!(world.feed.wait_for(PATIENCE, changed), "no agent.changed in the feed");
    assert_eq!(owner(&second), "late");
    // A file that is gone unbinds nobody; an explicit act does.
    std::fs::remove_file(registry.join("late.toml")).unwrap();
    world.daemon.signal(libc::SIGHUP);
    assert!(wait::until(PATIENCE, || state(&world.daemon, "late") == "stale"), "late is not stale");
    assert_eq!(ids(&world.daemon), [AGENT, "late"]);
    let output = world.daemon.cli(&["agent", "unregister", "late"]);
    assert!(output.status.success(), "{}", client::describe(&output));
    assert_eq!(ids(&world.daemon), [AGENT]);
    let run = Actor::start(&second, &["noop"]).finish();
    world.settle_now();
    world.feed.expect("exec after removal").kind("process.exec").pid(run.pid).unattributed().exactly_once();
    for kind in ["agent.registered", "agent.changed", "agent.removed"] {
        world.feed.expect(kind).kind(kind).at_least_once();
    }
    Ok(())
}

/// One bad record is refused with its reason; the others go on, the one it replaces included.
fn reload_refuses_a_bad_record() -> Verdict {
    world::close();
    let world = World::start(Setup::new());
    let registry = world.daemon.setup.registry();
    std::fs::write(registry.join("bad.toml"), "[agent]\nid = \"bad\"\nowner = 5\n").unwrap();
    world.daemon.signal(libc::SIGHUP);
    let refused = || {
        let status = world.daemon.cli_json(&["status", "-o", "json"]);
        status["refused"].as_array().cloned().unwrap_or_default()
    };
    assert!(wait::until(PATIENCE, || !refused().is_empty()), "status names no refused record");
    let refused = refused();
    assert!(refused[0]["file"].as_str().is_some_and(|f| f.ends_with("bad.toml")), "{refused:?}");
    assert!(refused[0]["reason"].as_str().is_some_and(|r| !r.is_empty()), "{refused:?}");
    assert_eq!(ids(&world.daemon), [AGENT]);
    world.settle_now();
    Ok(())
}

/// Two sets take turns while their programs run: each exec is somebody's, at every moment.
fn reload_is_atomic() -> Verdict {
    world::close();
    let world = World::start(Setup::new());
    let scratch = &world.daemon.setup.scratch;
    let programs = [scratch.program(&actor_program(), "one"), scratch.program(&actor_program(), "two")];
    let registry = world.daemon.setup.registry();
    let write = |turn: usize| {
        Record::new("left").on(Match::exe(&programs[turn % 2])).write(&registry);
        Record::new("right").on(Match::exe(&programs[(turn + 1) % 2])).write(&registry);
    };
    write(0);
    reload_until(&world.daemon, &[AGENT, "left", "right"]);
    let mut pids = Vec::new();
    for turn in 1..20 {
        // Two files are not written at once: no reload may look at them in between.
        write(turn);
        let socket = world.daemon.setup.socket();
        let reload = std::thread::spawn(move || client::post(&socket, "/v1/agents/reload", ""));
        for program in &programs {
            pids.extend((0..3).map(|_| Actor::start(program, &["noop"]).finish().pid));
        }
        let (status, body) = reload.join().unwrap().unwrap();
        assert_eq!(status, 200, "{body}");
    }
    world.settle_now();
    for pid in pids {
        let exec = world.feed.expect("exec during reload").kind("process.exec").pid(pid).exactly_once();
        let id = exec.agent_id().map(str::to_owned);
        assert!(matches!(id.as_deref(), Some("left" | "right")), "pid {pid} is {id:?}: neither set");
    }
    Ok(())
}

/// Killed and started again: the running tree is the agent's as before, also the child that was born meanwhile.
fn kill9_restart_finds_agents() -> Verdict {
    world::close();
    let setup = Setup::new();
    let (born, after) = (setup.scratch.file("born", ""), setup.scratch.file("after", ""));
    let World { feed, mut daemon, agent, .. } = World::start(setup);
    let words = ["--wait", "fork", "pause", "open", &born, "read", "+", "open", &after, "read"];
    let mut actor = Actor::start(&agent, &words);
    actor.mark("READY");
    daemon.end_by(libc::SIGKILL);
    drop(feed);
    // Born while nobody looks.
    actor.go();
    let child = actor.mark("PAUSED").pid();
    daemon.restart();
    let feed = daemon.feed();
    let shown = |pid: u32| daemon.tree(AGENT).contains(&pid);
    assert!(
        wait::until(PATIENCE, || shown(actor.pid()) && shown(child)),
        "agent show misses {} or {child}",
        actor.pid()
    );
    actor.go();
    actor.mark("fork");
    actor.go();
    actor.finish().all_ok();
    for (path, what) in
        [(&born, "open by the child that was born meanwhile"), (&after, "open by the agent itself")]
    {
        feed.expect(what).kind("file.open").path(path).agent(AGENT).exactly_once();
    }
    Ok(())
}

/// The stretch without a daemon is on record; a clean end and start says none.
fn kill9_leaves_a_gap_record() -> Verdict {
    world::close();
    let World { feed, mut daemon, .. } = World::start(Setup::new());
    drop(feed);
    daemon.end_by(libc::SIGKILL);
    daemon.restart();
    let is_gap = |e: &agent_monitor_tests::harness::event::Event| e.kind == "gap.daemon";
    assert!(daemon.feed().wait_for(expectation_limit(), is_gap), "no gap.daemon after a crash");
    Ok(())
}

/// An agent that nothing but its launch tells apart is still known after a crash.
fn kill9_restart_keeps_launched() -> Verdict {
    world::close();
    let setup = Setup::new().record(&Record::new("launched"));
    let file = setup.scratch.file("after", "");
    let World { feed, mut daemon, stranger, .. } = World::start(setup);
    let socket = daemon.socket();
    let words =
        ["exec", "--socket", &socket, "--agent", "launched", "--", &stranger, "pause", "open", &file, "read"];
    let mut actor = Actor::spawn(client::command(&words));
    actor.mark("PAUSED");
    daemon.end_by(libc::SIGKILL);
    drop(feed);
    daemon.restart();
    let feed = daemon.feed();
    actor.go();
    actor.finish().all_ok();
    feed.expect("open after restart").kind("file.open").path(&file).agent("launched").exactly_once();
    Ok(())
}

fn stop_lets_agents_run() -> Verdict {
    world::close();
    let setup = Setup::new();
    let file = setup.scratch.file("after", "");
    let World { feed, mut daemon, agent, .. } = World::start(setup);
    let mut actor = Actor::start(&agent, &["pause", "open", &file, "read"]);
    actor.mark("PAUSED");
    let status = daemon.end_by(libc::SIGTERM);
    assert!(status.success(), "{status}");
    drop(feed);
    actor.go();
    let run = actor.finish();
    run.all_ok();
    assert!(run.status.success(), "{:?}", run.status);
    Ok(())
}

fn write_records(setup: &Setup, count: usize) {
    for n in 0..count {
        let id = format!("agent-{n:03}");
        Record::new(&id).on(Match::exe(&format!("/opt/agents/{id}"))).write(&setup.registry());
    }
}

fn five_hundred_records() -> Verdict {
    world::close();
    let setup = Setup::new();
    write_records(&setup, 499);
    std::fs::write(setup.registry().join("bad.toml"), "[agent]\nid = \"bad\"\nunknown = 1\n").unwrap();
    let world = World::start(setup);
    let status = world.daemon.cli_json(&["status", "-o", "json"]);
    // And the one of the world itself.
    assert_eq!(status["agents"], 500);
    let refused = status["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 1, "{refused:?}");
    world.settle_now();
    Ok(())
}

fn strict_refuses_all() -> Verdict {
    let setup = Setup::new();
    write_records(&setup, 3);
    std::fs::write(setup.registry().join("bad.toml"), "[agent]\nid = \"bad\"\n").unwrap();
    let mut command = setup.command();
    let output = command.arg("--strict").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", client::describe(&output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("bad.toml"), "{stderr}");
    Ok(())
}

/// The control socket answers nobody who is bound to an agent, root or not.
fn agent_may_not_ask() -> Verdict {
    let world = world::shared();
    let (monitor, socket) = (monitor_program(), world.daemon.socket());
    let run = world.act(&["run", monitor.to_str().unwrap(), "status", "--socket", &socket]);
    let mark = run.mark("run");
    assert_ne!(mark.number("status"), 0, "an agent was answered");
    Ok(())
}

fn unattributed_none() -> Verdict {
    world::close();
    let world = World::start(Setup::new().unattributed("none"));
    let run = Actor::start(&world.stranger, &["noop"]).finish();
    world.settle_now();
    world.feed.expect("nothing of a stranger").pid(run.pid).never();
    Ok(())
}

fn unattributed_all() -> Verdict {
    world::close();
    let world = World::start(Setup::new().unattributed("all"));
    let file = world.fence_file();
    let run = Actor::start(&world.stranger, &["open", &file, "read"]).finish();
    world.settle_now();
    let of_stranger = |kind: &str| world.feed.expect(kind).kind(kind).pid(run.pid).unattributed();
    of_stranger("process.exec").exactly_once();
    of_stranger("file.open").path(&file).exactly_once();
    of_stranger("process.exit").exactly_once();
    Ok(())
}

/// Runs a command of the daemon's that must fail with the code of a failure.
#[track_caller]
fn fails(daemon: &Daemon, args: &[&str], why: &str) {
    let output = daemon.cli(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {}", client::describe(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(why), "{args:?} does not say {why}: {}", client::describe(&output));
}

/// No ordinary operation opens anything: what the agent is refused stays refused after a refused replacement, a typo with
/// another registration, a deleted file and restarts, until an explicit act unbinds it.
fn the_last_good_record_stays() -> Verdict {
    let mut fixture = Fixture::new(Setup::new());
    fixture.holds("at first");
    let file = fixture.daemon.setup.registry().join("bot.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    // One rule more, which no kernel can enforce, and no leave to do with less.
    let stricter = format!(
        "{}\n[[scope.net]]\nto = \"*.example.com\"\nverdict = \"deny\"\n",
        good.replace("degrade = \"allow\"\n", "")
    );
    let draft = fixture.daemon.setup.scratch.file("stricter.toml", &stricter);
    fails(&fixture.daemon, &["agent", "check", "--here", &draft], "");
    fails(&fixture.daemon, &["agent", "register", "--replace", &draft], "nothing was changed");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), good, "a refused replacement is not on disk");
    fixture.holds("after a refused replacement");
    assert_eq!(state(&fixture.daemon, "bot"), "active");

    std::fs::write(&file, &stricter).unwrap();
    fails(&fixture.daemon, &["agent", "reload"], "last good record stays");
    fixture.holds("after a reload of a record that cannot be enforced");

    std::fs::write(&file, good.replace("[agent]", "[agent")).unwrap();
    let other = Record::new("other").on(Match::exe("/opt/agents/other")).toml();
    let other = fixture.daemon.setup.scratch.file("other.toml", &other);
    fails(&fixture.daemon, &["agent", "register", &other], "bot is stale");
    assert_eq!(state(&fixture.daemon, "other"), "observing");
    assert_eq!(state(&fixture.daemon, "bot"), "stale");
    fixture.holds("after a typo and another registration");
    fixture.daemon.end_by(libc::SIGKILL);
    fixture.daemon.restart();
    assert_eq!(state(&fixture.daemon, "bot"), "stale");
    fixture.holds("after a restart with a broken file");

    std::fs::remove_file(&file).unwrap();
    fails(&fixture.daemon, &["agent", "reload"], "agent unregister bot");
    fixture.holds("after the file was deleted");
    let metrics = client::get(Path::new(&fixture.daemon.socket()), "/metrics").unwrap().1;
    assert!(metrics.contains("state=\"stale\"} 1"), "{metrics}");
    let output = fixture.daemon.cli(&["agent", "unregister", "bot"]);
    assert!(output.status.success(), "{}", client::describe(&output));
    let run = Actor::start(&fixture.bot, &["tcp-connect", PORT]).finish();
    assert!(run.marks.iter().all(|mark| !is_refused(mark)), "it is bound still: {:?}", run.marks);
    Ok(())
}

/// Two daemons on one state are refused whatever else they have of their own.
fn one_daemon_per_state_directory() -> Verdict {
    let world = world::shared();
    let own = Setup::new();
    let state = world.daemon.setup.scratch.text("state");
    let mut words: Vec<std::ffi::OsString> = own.command().get_args().map(ToOwned::to_owned).collect();
    let at = words.iter().position(|word| word == "--state-dir").unwrap();
    words[at + 1] = state.clone().into();
    let output = std::process::Command::new(monitor_program()).args(words).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", client::describe(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("another daemon") && said.contains(&state), "{said}");
    world.settle_now();
    Ok(())
}
