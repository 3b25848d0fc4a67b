//! Family `landlock`: files of launched agents at level partial, held by Landlock.

use std::fs;

use agent_monitor_tests::harness::actor::{Actor, Run};
use agent_monitor_tests::harness::case::{Case, Skip, Verdict};
use agent_monitor_tests::harness::client;
use agent_monitor_tests::harness::monitor::Setup;
use agent_monitor_tests::harness::registry::Record;
use agent_monitor_tests::harness::world::{self, World};

pub(crate) const CASES: &[Case] = &[Case::host("launched_files", launched_files)];

/// Runs the actor as an agent, by launch.
fn launch(world: &World, id: &str, words: &[&str]) -> Run {
    let socket = world.daemon.socket();
    let before = ["exec", "--socket", &socket, "--agent", id, "--", &world.stranger];
    Actor::spawn(client::command(&[&before[..], words].concat())).finish()
}

/// How each act ended: `ok`, or the error's name.
fn results(run: &Run) -> Vec<String> {
    run.marks.iter().map(|mark| mark.facts.get("errno").cloned().unwrap_or_else(|| "ok".to_owned())).collect()
}

fn scope(world: &World) -> String {
    let text = |name: &str| world.daemon.setup.scratch.text(name);
    format!(
        "degrade = \"allow\"\n[[match]]\nlaunch = true\n[scope]\ndefault = \"deny\"\nbase = [\"linux-runtime\"]\n\
         [[scope.exec]]\npath = \"{}\"\n\
         [[scope.file]]\npath = \"{}/**\"\naccess = [\"read\", \"write\", \"create\"]\n\
         [[scope.file]]\npath = \"{}/**\"\nverdict = \"deny\"\n",
        world.stranger,
        text("inside"),
        text("inside/private"),
    )
}

fn launched_files() -> Verdict {
    world::close();
    let setup = Setup::new().record(&Record::new("boxed")).record(&Record::new("neighbour"));
    let (inside, outside) = (setup.scratch.file("inside/file", ""), setup.scratch.file("outside/file", ""));
    let private = setup.scratch.file("inside/private/file", "");
    let (new, other) = (setup.scratch.text("inside/new"), setup.scratch.text("outside/new"));
    let world = World::start(setup);
    if world.is_full() {
        return Skip::because("level full judges by itself");
    }
    let registered = world.daemon.setup.registry().join("boxed.toml");
    let free = fs::read_to_string(&registered).unwrap();
    let words: Vec<&str> = [
        &["open", &inside, "read"][..],
        &["+", "open", &inside, "trunc"],
        &["+", "creat", &new],
        &["+", "open", &outside, "read"],
        &["+", "open", &outside, "write"],
        &["+", "creat", &other],
        &["+", "unlink", &new],
        &["+", "open", &private, "read"],
        &["+", "exec", &world.agent, "noop"],
    ]
    .concat();
    let done = |id: &str| {
        fs::remove_file(&other).ok();
        let run = launch(&world, id, &words);
        (run.pid, results(&run))
    };
    let replace = |text: &str| {
        let path = world.daemon.setup.scratch.file("boxed.toml", text);
        let output = world.daemon.cli(&["agent", "register", &path, "--replace"]);
        assert!(output.status.success(), "{}", client::describe(&output));
    };
    let all_ok = |(_, results): (u32, Vec<String>)| {
        assert!(results.iter().all(|result| result == "ok"), "{results:?}")
    };

    all_ok(done("boxed"));
    replace(&format!("{}{}", free.replace("\"observe\"", "\"enforce\""), scope(&world)));
    let (pid, boxed) = done("boxed");
    let inside = ["ok", "ok", "ok"];
    let refused = ["EACCES", "EACCES", "EACCES", "EACCES"];
    // A stop inside what is allowed cannot be held, and that is told.
    let expected: Vec<&str> = [&inside[..], &refused[..], &["ok"]].concat();
    assert_eq!(
        boxed.get(..8),
        Some(&expected.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>()[..]),
        "{boxed:?}"
    );
    assert!(boxed.iter().skip(8).any(|result| result == "EACCES"), "another program runs: {boxed:?}");
    let bound = world.feed.expect("the launch").kind("agent.bound").pid(pid).agent("boxed");
    let detail = bound.exactly_once().detail.unwrap_or_default();
    assert!(detail["not_held"].to_string().contains("scope.file[1]"), "{detail}");
    all_ok(done("neighbour"));
    fs::remove_file(&new).ok();
    replace(&free);
    all_ok(done("boxed"));
    Ok(())
}
