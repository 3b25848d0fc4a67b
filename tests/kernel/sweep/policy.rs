//! What the policy does with agents that no record speaks of: before their first instruction where the program is known,
//! some milliseconds later where it is not yet; never with what a registered agent starts or an exception names.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::actor::{Actor, Run};
use agent_monitor_tests::harness::case::{Skip, Verdict};
use agent_monitor_tests::harness::client;
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::monitor::Setup;
use agent_monitor_tests::harness::scratch::Scratch;
use agent_monitor_tests::harness::world::{self, World};
use agent_monitor_tests::sys::wait;
use serde_json::Value;

use super::live::{detail, finding};

/// `nobody`: who decides, and who is excepted.
const PERSON: u32 = 65_534;
const EXCEPTED: u32 = 64_322;

/// The actor under the name of an agent, in a directory of its own: a place that no look for programs finds.
fn claude(scratch: &Scratch, directory: &str) -> String {
    let path = scratch.dir(directory).join("claude");
    std::fs::copy(actor_program(), &path).unwrap();
    path.to_str().unwrap().to_owned()
}

fn world(policy: &str, setup: Setup) -> World {
    let config = setup.scratch.file("daemon.toml", policy);
    World::start(setup.arg("--config").arg(&config))
}

/// Runs a program until the kernel meets it at its exec: one that lies elsewhere is known once it has run.
#[track_caller]
fn met(world: &World, program: &str, words: &[&str]) -> (u32, ExitStatus) {
    let mut met = None;
    let there = wait::until(PATIENCE, || {
        let mut command = Command::new(program);
        let mut child = command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (pid, status) = (child.id(), child.wait().unwrap());
        assert!(world.feed.wait_for(PATIENCE, |e| finding(e, pid)), "no finding of pid {pid}");
        met = (detail(world, pid)["before_first_instruction"] == true).then_some((pid, status));
        met.is_some()
    });
    assert!(there, "the kernel never meets {program}\n{}", world.daemon.output());
    met.unwrap()
}

#[track_caller]
fn refused(run: &Run, name: &str) {
    let mark = run.mark(name);
    assert!(!mark.ok && mark.facts.get("errno").is_some_and(|errno| errno == "EACCES"), "{mark:?}");
}

pub(super) fn kill() -> Verdict {
    world::close();
    let setup = Setup::new();
    let (victim, spared) = (claude(&setup.scratch, "a"), claude(&setup.scratch, "spared"));
    let trace = setup.scratch.text("trace");
    let world = world(&format!("shadow = \"kill\"\nshadow-except = [\"path:{spared}\"]\n"), setup);
    // Not known yet: ended some milliseconds after its exec.
    let mut late = Command::new(&victim).args(["--wait", "noop"]).stdin(Stdio::piped()).spawn().unwrap();
    // Waiting closes what is still there, and then it would end by itself.
    let stdin = late.stdin.take();
    let status = late.wait().unwrap();
    drop(stdin);
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
    assert!(world.feed.wait_for(PATIENCE, |e| finding(e, late.id())), "no finding");
    let said = detail(&world, late.id());
    assert_eq!((&said["action"], &said["carried_out"]), (&"kill".into(), &true.into()), "{said:#}");
    assert_eq!(said["before_first_instruction"], false, "{said:#}");
    // Known: it never runs.
    let (_, status) = met(&world, &victim, &["creat", &trace]);
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
    std::fs::remove_file(&trace).ok();
    let (_, status) = met(&world, &victim, &["creat", &trace]);
    assert_eq!((status.signal(), Path::new(&trace).exists()), (Some(libc::SIGKILL), false), "{status}");
    Actor::start(&spared, &["noop"]).finish().all_ok();
    // What a registered agent starts is the agent's.
    world.act(&["run", &victim, "creat", &trace]);
    assert!(Path::new(&trace).exists(), "a registered agent's child was ended");
    let status = world.daemon.cli_json(&["status", "-o", "json"]);
    assert_eq!(status["shadow"]["policy"], "kill", "{status:#}");
    Ok(())
}

pub(super) fn deny() -> Verdict {
    world::close();
    let setup = Setup::new();
    let (known, unknown) = (claude(&setup.scratch, "a"), claude(&setup.scratch, "b"));
    let open = setup.scratch.dir("open");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let at = |name: &str| open.join(name).to_str().unwrap().to_owned();
    let world = world(&format!("shadow = \"deny\"\nshadow-except = [\"user:{EXCEPTED}\"]\n"), setup);
    let status = world.daemon.cli_json(&["status", "-o", "json"]);
    let limits = status["shadow"]["limits"].to_string();
    assert_eq!(limits.contains("without BPF LSM"), !world.is_full(), "{status:#}");
    Actor::start(&known, &["creat", &at("before")]).finish();
    let (pid, _) = met(&world, &known, &["creat", &at("met")]);
    let said = detail(&world, pid);
    assert_eq!((&said["action"], &said["product"]), (&"deny".into(), &"claude-code".into()), "{said:#}");
    let by_shadow = |e: &agent_monitor_tests::harness::event::Event| {
        e.pid() == Some(pid) && e.agent_id() == Some("_shadow")
    };
    assert!(world.feed.wait_for(PATIENCE, by_shadow), "its acts are not told as its own");
    // An excepted user's, and what a registered agent starts, go on.
    let mut excepted = Command::new(&known);
    excepted.args(["creat", &at("excepted")]).uid(EXCEPTED).gid(EXCEPTED);
    Actor::spawn(excepted).finish().all_ok();
    world.act(&["run", &known, "creat", &at("child")]);
    assert!(Path::new(&at("child")).exists(), "a registered agent's child was refused");
    if !world.is_full() {
        return Ok(());
    }
    std::fs::remove_file(at("met")).ok();
    // A program that needs a loader does not even get that far.
    let run = Actor::start(&known, &["creat", &at("met")]).finish();
    let did = run.marks.iter().any(|mark| mark.ok);
    assert!(!did && !Path::new(&at("met")).exists(), "{run:?}");
    // Met late, with what it has started; the moment before is not undone.
    let mut late =
        Actor::start(&unknown, &["--wait", "creat", &at("late"), "+", "fork", "creat", &at("forked")]);
    let pid = late.pid();
    assert!(world.feed.wait_for(PATIENCE, |e| finding(e, pid)), "no finding of pid {pid}");
    let said = detail(&world, pid);
    assert_eq!(
        (&said["before_first_instruction"], &said["carried_out"]),
        (&false.into(), &true.into()),
        "{said:#}"
    );
    assert!(said["late_ms"].is_u64(), "{said:#}");
    // Bound while its loader is still at work, it has ended by now.
    late.go_if_there();
    late.go_if_there();
    let run = late.finish();
    assert!(run.marks.iter().all(|mark| mark.name != "creat" || !mark.ok), "{run:?}");
    let made = ["late", "forked"].map(|name| Path::new(&at(name)).exists());
    assert_eq!(made, [false; 2], "{run:?}");
    Actor::start(&world.stranger, &["creat", &at("stranger")]).finish().all_ok();
    Ok(())
}

fn pending(world: &World) -> Vec<Value> {
    let (status, body) = client::get(&world.daemon.setup.socket(), "/v1/approvals").unwrap();
    assert_eq!(status, 200, "{body}");
    let list: Value = serde_json::from_str(&body).unwrap();
    list["approvals"].as_array().unwrap().iter().filter(|one| one["state"] == "pending").cloned().collect()
}

/// The one request of a process.
#[track_caller]
fn asked(world: &World, pid: u32) -> Value {
    let mut found = None;
    let there = wait::until(PATIENCE, || {
        found = pending(world).into_iter().find(|one| one["waiting"] == serde_json::json!([pid]));
        found.is_some()
    });
    assert!(there, "nobody asks for pid {pid}\n{}", world.daemon.output());
    found.unwrap()
}

fn answer(world: &World, asked: &Value, word: &str, body: &str) -> u16 {
    let path = format!("/v1/approvals/{}/{word}", asked["id"]);
    client::post_as(PERSON, &world.daemon.setup.socket(), &path, body).unwrap().0
}

pub(super) fn hold() -> Verdict {
    world::close();
    let setup = Setup::new();
    let program = claude(&setup.scratch, "a");
    let at = |name: &str| setup.scratch.text(name);
    let (first, second, third) = ((at("1a"), at("1b")), (at("2a"), at("2b")), at("3a"));
    let setup = setup.arg("--socket-group").arg(&PERSON.to_string());
    let world = world("shadow = \"hold\"\nshadow-approvers = [\"user:nobody\"]\n", setup);
    if !world.is_full() {
        return Skip::because("needs BPF LSM");
    }
    let run_dir = world.daemon.setup.scratch.path("run");
    chown(&run_dir, None, Some(PERSON)).unwrap();
    std::fs::set_permissions(run_dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    met(&world, &program, &["noop"]);
    // A yes is for the whole run, a child that is the same program included.
    let words = ["creat", &first.0, "+", "run", &program, "creat", &first.1];
    let actor = Actor::start(&program, &words);
    let request = asked(&world, actor.pid());
    assert_eq!((&request["agent"], &request["held"]), (&"_shadow".into(), &true.into()), "{request:#}");
    assert!(!Path::new(&first.0).exists());
    assert_eq!(answer(&world, &request, "approve", r#"{"form":"for","seconds":60}"#), 409);
    assert_eq!(answer(&world, &request, "approve", "{}"), 200);
    actor.finish().all_ok();
    assert!(Path::new(&first.0).exists() && Path::new(&first.1).exists());
    // A no as well.
    let actor = Actor::start(&program, &["creat", &second.0, "+", "creat", &second.1]);
    let request = asked(&world, actor.pid());
    assert_eq!(answer(&world, &request, "deny", r#"{"why":"a test"}"#), 200);
    let run = actor.finish();
    refused(&run, "creat");
    assert!(!Path::new(&second.0).exists() && !Path::new(&second.1).exists());
    // Registered while it waits: it goes on within the new scope.
    let actor = Actor::start(&program, &["creat", &third]);
    let pid = actor.pid();
    asked(&world, pid);
    assert!(world.feed.wait_for(PATIENCE, |e| finding(e, pid)), "no finding of pid {pid}");
    let find = detail(&world, pid)["find"].as_str().unwrap_or_default().to_owned();
    let answers = ["--owner", "a@example.com", "--purpose", "codes", "--expires", "2027-06-30T00:00:00Z"];
    let adopted = world.daemon.cli(&[&["agent", "adopt", &find], &answers[..]].concat());
    assert!(adopted.status.success(), "{}", client::describe(&adopted));
    actor.finish().all_ok();
    assert!(Path::new(&third).exists());
    Ok(())
}
