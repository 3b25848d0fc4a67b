//! Recognition: by each kind of match, and not by less.

use super::{CONTAINER, cgroup_path, program, world};
use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::actor::{Actor, Run};
use agent_monitor_tests::harness::case::{Skip, Verdict};
use agent_monitor_tests::harness::cgroup::Cgroup;
use agent_monitor_tests::harness::client;
use agent_monitor_tests::harness::event::Event;
use agent_monitor_tests::harness::world::{AGENT, World};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Uid and gid of `nobody`, on every Linux that these tests meet.
const NOBODY: u32 = 65_534;

/// Runs a command that ends as the actor; it opens one file, and everything is in the feed afterwards.
fn perform(world: &World, mut command: Command) -> (Run, String) {
    let file = world.fence_file();
    command.args(["open", &file, "read"]);
    let run = Actor::spawn(command).finish();
    run.all_ok();
    world.settle_now();
    (run, file)
}

/// The exec itself is already the agent's, and so is all that follows.
fn bound_from_exec(world: &World, run: &Run, file: &str, id: &str, how: &str) {
    let by_agent = |kind: &str| {
        world.feed.expect(format!("{how}: {kind}")).kind(kind).pid(run.pid).agent(id).bound_by(how)
    };
    by_agent("process.exec").exactly_once();
    by_agent("file.open").path(file).exactly_once();
    by_agent("process.exit").exactly_once();
    world.feed.expect(format!("{how}: not one event unattributed")).pid(run.pid).unattributed().never();
}

/// Nothing of it is anybody's.
fn unbound(world: &World, run: &Run, exe: &str) {
    world
        .feed
        .expect("exec of nobody's")
        .kind("process.exec")
        .pid(run.pid)
        .exe(exe)
        .unattributed()
        .exactly_once();
    world.feed.expect("nothing attributed").pid(run.pid).attributed().never();
}

fn check(name: &str, how: &str) -> Verdict {
    let world = world();
    let (run, file) = perform(&world, Command::new(program(&world, name)));
    bound_from_exec(&world, &run, &file, name, how);
    Ok(())
}

pub(super) fn exe() -> Verdict {
    super::registered()?;
    let world = world();
    let (run, file) = perform(&world, Command::new(&world.agent));
    bound_from_exec(&world, &run, &file, AGENT, "exe");
    Ok(())
}

pub(super) fn exe_with_sha256() -> Verdict {
    check("by-hash", "exe")?;
    // The same path with other contents is somebody else.
    let world = world();
    let path = program(&world, "by-hash");
    let mut contents = std::fs::read(&path).unwrap();
    contents.push(0);
    std::fs::write(&path, contents).unwrap();
    let (run, _) = perform(&world, Command::new(&path));
    unbound(&world, &run, &path);
    Ok(())
}

pub(super) fn exe_with_wrong_sha256() -> Verdict {
    let world = world();
    let path = program(&world, "by-wrong-hash");
    let (run, _) = perform(&world, Command::new(&path));
    unbound(&world, &run, &path);
    Ok(())
}

/// The file counts, not the name it was started by.
pub(super) fn exe_through_symlink() -> Verdict {
    let world = world();
    let link = format!("{}.link", world.fence_file());
    std::os::unix::fs::symlink(&world.agent, &link).unwrap();
    let (run, file) = perform(&world, Command::new(&link));
    bound_from_exec(&world, &run, &file, AGENT, "exe");
    Ok(())
}

/// Both conditions hold, or it is somebody else.
pub(super) fn exe_and_user() -> Verdict {
    let world = world();
    let path = program(&world, "by-exe-and-user");
    let (run, _) = perform(&world, Command::new(&path));
    unbound(&world, &run, &path);
    let mut command = Command::new(&path);
    command.uid(NOBODY).gid(NOBODY);
    let (run, _) = perform(&world, command);
    // Closer than the record that asks for the user alone.
    world
        .feed
        .expect("exe and user")
        .kind("process.exec")
        .pid(run.pid)
        .agent("by-exe-and-user")
        .exactly_once();
    Ok(())
}

pub(super) fn script() -> Verdict {
    let world = world();
    let path = world.daemon.setup.scratch.text("agent.sh");
    let (run, file) = perform(&world, Command::new(&path));
    // The script is an exec of its own, and then it replaces itself by the actor, which stays the agent's.
    let by_agent =
        |kind: &str| world.feed.expect(format!("script: {kind}")).kind(kind).pid(run.pid).agent("by-script");
    let execs = by_agent("process.exec").times(2);
    let bound: Vec<&str> =
        execs.iter().filter_map(|e| e.agent.as_ref()).map(|a| a.bound_by.as_str()).collect();
    assert_eq!(bound.first(), Some(&"script"), "{bound:?}");
    by_agent("file.open").path(&file).exactly_once();
    world.feed.expect("not one event unattributed").pid(run.pid).unattributed().never();
    Ok(())
}

/// Known from user space only, and so late: the delay is said, and what comes after it is attributed.
pub(super) fn argv() -> Verdict {
    let world = world();
    let file = world.fence_file();
    let task = world.daemon.setup.scratch.text("task.sh");
    let mut command = Command::new("/bin/sh");
    command.args([&task, "fork", "open", &file, "read"]);
    let mut actor = Actor::spawn(command);
    let pid = actor.pid();
    let bound = |e: &Event| e.pid() == Some(pid) && e.agent_id() == Some("by-argv");
    assert!(world.feed.wait_for(PATIENCE, bound), "no event of {pid} is attributed to by-argv");
    actor.go();
    actor.finish().all_ok();
    world.settle_now();
    world.feed.expect("open by the child").kind("file.open").path(&file).agent("by-argv").exactly_once();
    let events = world.feed.with(|events| events.iter().filter(|e| bound(e)).cloned().collect::<Vec<_>>());
    let agents: Vec<_> = events.iter().filter_map(|e| e.agent.as_ref()).collect();
    assert!(agents.iter().any(|a| a.bound_by == "argv" && a.bound_delay_ms.is_some()), "{agents:?}");
    Ok(())
}

pub(super) fn user() -> Verdict {
    let world = world();
    let mut command = Command::new(program(&world, "plain"));
    command.uid(NOBODY).gid(NOBODY);
    let (run, file) = perform(&world, command);
    bound_from_exec(&world, &run, &file, "by-user", "user");
    Ok(())
}

fn in_cgroup(path: &str, id: &str, how: &str, also: fn(&Event) -> Option<String>, is: &str) -> Verdict {
    let Some(cgroup) = Cgroup::make(path) else { return Skip::because("no unified cgroup hierarchy") };
    let world = world();
    let mut command = Command::new(program(&world, "plain"));
    cgroup.start_in(&mut command);
    let (run, file) = perform(&world, command);
    bound_from_exec(&world, &run, &file, id, how);
    world.feed.expect("its cgroup").kind("process.exec").pid(run.pid).that("place", is, also).exactly_once();
    Ok(())
}

pub(super) fn cgroup() -> Verdict {
    let path = cgroup_path();
    in_cgroup(&path, "by-cgroup", "cgroup", |e| e.process.as_ref()?.cgroup.clone(), &path)
}

pub(super) fn container() -> Verdict {
    let path = format!("/amt-{}/docker-{CONTAINER}.scope", std::process::id());
    in_cgroup(&path, "by-container", "container", |e| e.process.as_ref()?.container.clone(), CONTAINER)
}

pub(super) fn unit() -> Verdict {
    let (path, name) = ("/system.slice/amt-test.service", "amt-test.service");
    in_cgroup(path, "by-unit", "unit", |e| e.process.as_ref()?.unit.clone(), name)
}

pub(super) fn launch() -> Verdict {
    let world = world();
    let (socket, path) = (world.daemon.socket(), program(&world, "plain"));
    let command = client::command(&["exec", "--socket", &socket, "--agent", "by-launch", "--", &path]);
    let (run, file) = perform(&world, command);
    let by_agent =
        |kind: &str| world.feed.expect(format!("launch: {kind}")).kind(kind).pid(run.pid).agent("by-launch");
    by_agent("process.exec").exe(&path).bound_by("launch").exactly_once();
    by_agent("file.open").path(&file).exactly_once();
    Ok(())
}

/// An agent that an agent starts is itself, and the starter is on record.
pub(super) fn nested_delegator() -> Verdict {
    let world = world();
    let (inner, file) = (program(&world, "inner"), world.fence_file());
    let run = world.act(&["run", &inner, "fork", "open", &file, "read"]);
    let child = run.all_ok().mark("run").number("child") as u32;
    let exec = world.feed.expect("exec of the inner agent").kind("process.exec").pid(child);
    exec.agent("inner").bound_by("exe").delegator(AGENT).exactly_once();
    let open = world.feed.expect("open below the inner agent").kind("file.open").path(&file);
    open.agent("inner").bound_by("inherited").delegator(AGENT).exactly_once();
    Ok(())
}

pub(super) fn nested_exec_in_place() -> Verdict {
    let world = world();
    let (inner, file) = (program(&world, "inner"), world.fence_file());
    world.act(&["fork", "exec", &inner, "open", &file, "read"]).all_ok();
    world.feed.expect("open").kind("file.open").path(&file).agent("inner").delegator(AGENT).exactly_once();
    Ok(())
}

pub(super) fn stranger() -> Verdict {
    let world = world();
    let (run, _) = perform(&world, Command::new(&world.stranger));
    unbound(&world, &run, &world.stranger);
    Ok(())
}

/// The pid of an agent that is gone means nothing.
pub(super) fn pid_reuse() -> Verdict {
    let world = world();
    let gone = world.act(&["noop"]);
    let file = world.fence_file();
    let pid = gone.pid.to_string();
    let words = ["pid-reuse", &pid, "exec-self", "open", &file, "read"];
    let run = Actor::start(&world.stranger, &words).finish();
    if let Some(reason) = run.skipped() {
        return Skip::because(reason);
    }
    assert_eq!(run.all_ok().mark("open").pid(), gone.pid);
    world.settle_now();
    let again = world.feed.expect("the pid again").kind("process.exec").pid(gone.pid).exe(&world.stranger);
    again.unattributed().exactly_once();
    world.feed.expect("nothing inherited").pid(gone.pid).exe(&world.stranger).attributed().never();
    world.feed.expect("open by nobody").kind("file.open").path(&file).attributed().never();
    Ok(())
}
