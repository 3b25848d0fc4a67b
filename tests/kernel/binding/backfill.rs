//! Back-fill: agents that run already when the daemon starts, or when their record is registered.

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::actor::Actor;
use agent_monitor_tests::harness::case::Verdict;
use agent_monitor_tests::harness::client;
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::monitor::{Daemon, Setup};
use agent_monitor_tests::harness::registry::{Match, Record};
use agent_monitor_tests::harness::world::{self, World};
use agent_monitor_tests::sys::wait;

#[track_caller]
fn wait_bound(daemon: &Daemon, id: &str, pids: &[u32]) {
    let all = || {
        let tree = daemon.tree(id);
        pids.iter().all(|pid| tree.contains(pid))
    };
    assert!(wait::until(PATIENCE, all), "agent show {id} lists {:?}, not {pids:?}", daemon.tree(id));
}

fn setup() -> (Setup, String) {
    world::close();
    let setup = Setup::new();
    let program = setup.scratch.program(&actor_program(), "running");
    (setup, program)
}

/// A parent and a child that run before there is a daemon.
pub(super) fn at_start() -> Verdict {
    let (setup, program) = setup();
    let (own, below) = (setup.scratch.file("own", ""), setup.scratch.file("below", ""));
    let words = ["fork", "pause", "open", &own, "read", "+", "fork", "open", &below, "read"];
    let mut actor = Actor::start(&program, &words);
    let child = actor.mark("PAUSED").pid();
    let world = World::start(setup.record(&Record::new("running").on(Match::exe(&program))));
    let root = actor.pid();
    wait_bound(&world.daemon, "running", &[root, child]);
    actor.go();
    actor.finish().all_ok();
    world.settle_now();
    let open = |path: &str| world.feed.expect("open").kind("file.open").path(path).agent("running");
    // Whether a child that ran before counts as found or as its parent's is not said by the contract.
    open(&own).pid(child).exactly_once();
    open(&below).bound_by("inherited").exactly_once();
    let root = world.feed.expect("exit of the root").kind("process.exit").pid(root).agent("running");
    root.bound_by("backfill").exactly_once();
    world.feed.expect("exit of the child").kind("process.exit").pid(child).agent("running").exactly_once();
    Ok(())
}

/// Every thread of a running process is bound, not only its leader.
pub(super) fn threads_at_start() -> Verdict {
    let (setup, program) = setup();
    let file = setup.scratch.file("by-thread", "");
    let mut actor = Actor::start(&program, &["thread", "pause", "open", &file, "read"]);
    actor.mark("PAUSED");
    let world = World::start(setup.record(&Record::new("running").on(Match::exe(&program))));
    wait_bound(&world.daemon, "running", &[actor.pid()]);
    actor.go();
    let run = actor.finish();
    assert_ne!(run.all_ok().mark("open").tid(), run.pid);
    world.settle_now();
    world
        .feed
        .expect("open")
        .kind("file.open")
        .path(&file)
        .agent("running")
        .bound_by("backfill")
        .exactly_once();
    Ok(())
}

/// The daemon runs, the tree runs, then the record comes.
pub(super) fn at_registration() -> Verdict {
    let (setup, program) = setup();
    let file = setup.scratch.file("own", "");
    let world = World::start(setup);
    let mut actor = Actor::start(&program, &["fork", "pause", "open", &file, "read"]);
    let child = actor.mark("PAUSED").pid();
    let record = Record::new("running").on(Match::exe(&program));
    let path = world.daemon.setup.scratch.file("new/running.toml", &record.toml());
    let registered = world.daemon.cli(&["agent", "register", &path]);
    assert!(registered.status.success(), "{}", client::describe(&registered));
    let root = actor.pid();
    wait_bound(&world.daemon, "running", &[root, child]);
    actor.go();
    actor.finish().all_ok();
    world.settle_now();
    let open = world.feed.expect("open after registration").kind("file.open").path(&file);
    open.agent("running").exactly_once();
    let root = world.feed.expect("exit of the root").kind("process.exit").pid(root).agent("running");
    root.bound_by("backfill").exactly_once();
    Ok(())
}

/// A parent that is no agent, and its other children, stay nobody's.
pub(super) fn leaves_others_alone() -> Verdict {
    let (setup, program) = setup();
    let other = setup.scratch.program(&actor_program(), "other");
    let file = setup.scratch.file("by-other", "");
    let mut actor = Actor::start(&other, &["fork", "pause", "open", &file, "read"]);
    let child = actor.mark("PAUSED").pid();
    let mut agent = Actor::start(&program, &["pause", "noop"]);
    agent.mark("PAUSED");
    let world =
        World::start(setup.unattributed("all").record(&Record::new("running").on(Match::exe(&program))));
    wait_bound(&world.daemon, "running", &[agent.pid()]);
    assert!(!world.daemon.tree("running").contains(&child));
    actor.go();
    actor.finish().all_ok();
    world.settle_now();
    world.feed.expect("open by nobody").kind("file.open").path(&file).unattributed().exactly_once();
    world.feed.expect("nothing of it attributed").pid(child).attributed().never();
    Ok(())
}
