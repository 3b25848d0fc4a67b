//! Family `process`: forks, execs and exits, exactly once each, with the right names.

use agent_monitor_tests::harness::actor::Run;
use agent_monitor_tests::harness::case::{Case, Verdict};
use agent_monitor_tests::harness::event::Event;
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::world::{self, World};
use sha2::{Digest, Sha256};
use std::path::Path;

pub(crate) const CASES: &[Case] = &[
    Case::both("fork_exec_exit", || started("run")),
    Case::both("vfork_exec", || started("vfork-exec")),
    Case::both("posix_spawn", || started("spawn")),
    Case::both("fork_without_exec", fork_without_exec),
    Case::both("thread_is_no_process", thread_is_no_process),
    Case::both("exec_in_place", || exec_in_place("exec")),
    Case::both("execveat_by_descriptor", || exec_in_place("execveat")),
    Case::both("exec_of_memfd", exec_of_memfd),
    Case::both("exec_that_fails", exec_that_fails),
    Case::both("exit_code", exit_code),
    Case::both("exit_signal", exit_signal),
    Case::both("arguments", arguments),
    Case::both("long_arguments", long_arguments),
    Case::both("script", script),
    Case::both("ancestry", ancestry),
];

/// A program that is registered nowhere, for the agent to start.
fn child_program(world: &World) -> &str {
    &world.stranger
}

fn child_of(run: &Run, act: &str) -> u32 {
    run.mark(act).number("child") as u32
}

fn started(act: &str) -> Verdict {
    let world = world::shared();
    let program = child_program(&world).to_owned();
    let run = world.act(&[act, &program, "noop"]);
    let child = child_of(run.all_ok(), act);
    let of_child = |what: &str| world.expect(format!("{act}: {what}")).pid(child).bound_by("inherited");
    of_child("fork")
        .kind("process.fork")
        .process("process.ppid", run.pid, |p| p.ppid.map(|n| n.to_string()))
        .exactly_once();
    let exec = of_child("exec").kind("process.exec").exe(&program).exactly_once();
    let process = exec.process.unwrap();
    assert_eq!(process.args, [program.as_str(), "noop"]);
    assert!(!process.args_truncated);
    assert_eq!((process.ppid, process.uid), (Some(run.pid), Some(0)));
    let exit = of_child("exit").kind("process.exit").exactly_once();
    assert_eq!(exit.process.unwrap().exit_code, Some(0));
    Ok(())
}

fn fork_without_exec() -> Verdict {
    let world = world::shared();
    let run = world.act(&["fork", "noop"]);
    let child = child_of(&run, "fork");
    let of_child = |kind: &str| world.expect(format!("fork: {kind}")).pid(child).kind(kind);
    of_child("process.fork").exactly_once();
    of_child("process.exec").never();
    of_child("process.exit").exe(&world.agent).exactly_once();
    Ok(())
}

fn thread_is_no_process() -> Verdict {
    let world = world::shared();
    let run = world.act(&["thread", "noop"]);
    let tid = run.mark("noop").tid();
    assert_ne!(tid, run.pid);
    world.expect("no fork of a thread").kind("process.fork").pid(tid).never();
    let by_parent = |e: &Event| e.process.as_ref().and_then(|p| p.ppid).map(|n| n.to_string());
    world
        .expect("no fork by the process")
        .kind("process.fork")
        .that("process.ppid", run.pid, by_parent)
        .never();
    world.expect("one exit").kind("process.exit").pid(run.pid).exactly_once();
    Ok(())
}

fn exec_in_place(act: &str) -> Verdict {
    let world = world::shared();
    let program = child_program(&world).to_owned();
    let run = world.act(&["fork", act, &program, "noop"]);
    let child = child_of(&run, "fork");
    let exec = world.expect(act).kind("process.exec").pid(child).exactly_once();
    let process = exec.process.unwrap();
    assert_eq!(process.exe.as_deref(), Some(&*program));
    assert_eq!(process.args, [program.as_str(), "noop"]);
    Ok(())
}

/// It has no path, and the event does not make one up.
fn exec_of_memfd() -> Verdict {
    let world = world::shared();
    let program = actor_program();
    let run = world.act(&["fork", "memfd-exec", program.to_str().unwrap(), "noop"]);
    let child = child_of(&run, "fork");
    let exec = world.expect("memfd").kind("process.exec").pid(child).exactly_once();
    let exe = exec.process.unwrap().exe.unwrap_or_default();
    assert!(exe.contains("memfd:nameless"), "exe of a memfd: {exe}");
    Ok(())
}

fn exec_that_fails() -> Verdict {
    let world = world::shared();
    let run = world.act(&["run", "/nonexistent/program"]);
    let child = child_of(&run, "run");
    let done = |e: &Event| Some(e.errno.is_none().to_string());
    world.expect("no exec").kind("process.exec").pid(child).that("without errno", true, done).never();
    world.expect("exit of the child").kind("process.exit").pid(child).exactly_once();
    Ok(())
}

fn exit_code() -> Verdict {
    let world = world::shared();
    let run = world.act(&["fork", "exit", "3"]);
    let exit = world.expect("exit 3").kind("process.exit").pid(child_of(&run, "fork")).exactly_once();
    let process = exit.process.unwrap();
    assert_eq!((process.exit_code, process.exit_signal), (Some(3), None));
    Ok(())
}

fn exit_signal() -> Verdict {
    let world = world::shared();
    let run = world.act(&["fork", "die", "9"]);
    let exit = world.expect("killed").kind("process.exit").pid(child_of(&run, "fork")).exactly_once();
    let process = exit.process.unwrap();
    assert_eq!((process.exit_code, process.exit_signal.as_deref()), (None, Some("SIGKILL")));
    Ok(())
}

fn arguments() -> Verdict {
    let world = world::shared();
    let program = child_program(&world).to_owned();
    let odd =
        ["run", &program, "noop", "two words", "", "tab\there", "é€", "\"quoted\"", "back\\slash", "-x=1"];
    let run = world.act(&odd);
    let exec = world.expect("odd arguments").kind("process.exec").pid(child_of(&run, "run")).exactly_once();
    assert_eq!(exec.process.unwrap().args, odd[1..]);
    Ok(())
}

/// Tens of KB, as agents have them: head and tail are there, the cut is marked, the hash is of the whole.
fn long_arguments() -> Verdict {
    let world = world::shared();
    let program = child_program(&world).to_owned();
    let run = world.act(&["fork", "exec-long", &program, "48000"]);
    let exec = world.expect("long").kind("process.exec").pid(child_of(&run, "fork")).exactly_once();
    let process = exec.process.unwrap();
    let mut whole = vec![program.clone(), "noop".to_owned()];
    whole.extend((0..480).map(|n| format!("{n:08}-{}", "a".repeat(90))));
    assert_eq!(process.args.first(), Some(&program));
    assert_eq!(process.args.get(..4), whole.get(..4));
    assert_eq!(process.args.last(), whole.last());
    assert_eq!(process.args_truncated, process.args.len() != whole.len(), "{} arguments", process.args.len());
    let block: Vec<u8> = whole.iter().flat_map(|arg| arg.bytes().chain([0])).collect();
    let digest: String = Sha256::digest(&block).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(process.args_sha256, Some(digest));
    Ok(())
}

fn script() -> Verdict {
    let world = world::shared();
    let script = world.daemon.setup.scratch.script("script.sh", "#!/bin/sh\nexit 0\n");
    let run = world.act(&["run", &script, "argument"]);
    let exec = world.expect("script").kind("process.exec").pid(child_of(&run, "run")).exactly_once();
    let process = exec.process.unwrap();
    let shell = std::fs::canonicalize("/bin/sh").unwrap();
    assert_eq!(process.exe.as_deref().map(Path::new), Some(shell.as_path()));
    assert_eq!(process.script.as_deref(), Some(&*script));
    assert_eq!(process.args, ["/bin/sh", script.as_str(), "argument"]);
    Ok(())
}

fn ancestry() -> Verdict {
    let world = world::shared();
    let run = world.act(&["fork", "fork", "noop"]);
    let marks: Vec<u32> =
        run.marks.iter().filter(|m| m.name == "fork").map(|m| m.number("child") as u32).collect();
    let [inner, outer] = marks[..] else { panic!("{:?}", run.marks) };
    let fork = world.expect("grandchild").kind("process.fork").pid(inner).exactly_once();
    let ancestry: Vec<u32> = fork.process.unwrap().ancestry.iter().map(|a| a.pid).collect();
    assert_eq!(ancestry[..3], [outer, run.pid, std::process::id()]);
    Ok(())
}
