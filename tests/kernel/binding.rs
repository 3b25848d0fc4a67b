//! Family `binding`: who is recognised as which agent, by what, and that nothing shakes it off.

mod backfill;
mod inherit;
mod recognise;

use agent_monitor_tests::harness::case::{Case, Verdict};
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::monitor::Setup;
use agent_monitor_tests::harness::registry::{Match, Record};
use agent_monitor_tests::harness::world::{self, Held, World};
use sha2::{Digest, Sha256};

pub(crate) const CASES: &[Case] = &[
    Case::both("exe", recognise::exe),
    Case::both("exe_with_sha256", recognise::exe_with_sha256),
    Case::both("exe_with_wrong_sha256", recognise::exe_with_wrong_sha256),
    Case::both("exe_through_symlink", recognise::exe_through_symlink),
    Case::both("exe_and_user", recognise::exe_and_user),
    Case::both("script", recognise::script),
    Case::both("argv", recognise::argv),
    Case::both("user", recognise::user),
    Case::both("cgroup", recognise::cgroup),
    Case::both("container", recognise::container),
    Case::both("unit", recognise::unit),
    Case::both("launch", recognise::launch),
    Case::both("nested_delegator", recognise::nested_delegator),
    Case::both("nested_exec_in_place", recognise::nested_exec_in_place),
    Case::both("stranger", recognise::stranger),
    Case::both("pid_reuse", recognise::pid_reuse),
    Case::both("inherit_fork", || inherit::kept("fork open F read")),
    Case::both("inherit_vfork", || inherit::kept("vfork-exec OTHER open F read")),
    Case::both("inherit_posix_spawn", || inherit::kept("spawn OTHER open F read")),
    Case::both("inherit_thread", || inherit::kept("thread open F read")),
    Case::both("inherit_fork_exec", || inherit::kept("run OTHER open F read")),
    Case::both("inherit_exec", || inherit::kept("fork exec OTHER open F read")),
    Case::both("inherit_exec_from_thread", || inherit::kept("fork thread exec OTHER open F read")),
    Case::both("inherit_exec_of_memfd", || inherit::kept("fork memfd-exec OTHER open F read")),
    Case::both("inherit_five_generations", || inherit::kept("fork fork fork fork fork open F read")),
    Case::both("inherit_setsid", || inherit::kept("fork setsid open F read")),
    Case::both("inherit_double_fork", || inherit::kept("daemonise open F read")),
    Case::both("inherit_double_fork_exec", || inherit::kept("daemonise exec OTHER open F read")),
    Case::both("inherit_prctl_name", || inherit::kept("fork prctl-name kworker/0:1 open F read")),
    Case::both("inherit_setuid", || inherit::kept("fork setuid 1000 open F read")),
    Case::both("inherit_setuid_exec", || inherit::kept("fork setuid 1000 exec OTHER open F read")),
    Case::both("inherit_unshare_user", || inherit::kept("fork unshare user open F read")),
    Case::both("inherit_unshare_mount", || inherit::kept("fork unshare mount open F read")),
    Case::both("inherit_unshare_net", || inherit::kept("fork unshare net open F read")),
    Case::both("inherit_unshare_pid_fork", || inherit::kept("fork unshare pid fork open F read")),
    Case::both("inherit_pid_namespace", || inherit::kept("pidns open F read")),
    Case::both("inherit_pid_namespace_exec", || inherit::kept("pidns fork exec OTHER open F read")),
    Case::both("backfill_at_start", backfill::at_start),
    Case::both("backfill_threads_at_start", backfill::threads_at_start),
    Case::both("backfill_at_registration", backfill::at_registration),
    Case::both("backfill_leaves_others_alone", backfill::leaves_others_alone),
];

/// 64 digits, as a container runtime names a container.
const CONTAINER: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

fn cgroup_path() -> String {
    format!("/amt-{}/agent", std::process::id())
}

/// One daemon that knows an agent by each kind of match.
fn world() -> Held {
    world::named("binding", || {
        let setup = Setup::new();
        let scratch = &setup.scratch;
        let program = |name: &str| scratch.program(&actor_program(), name);
        let digest = |path: &str| -> String {
            let digest = Sha256::digest(std::fs::read(path).unwrap());
            digest.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let hashed = program("by-hash");
        let script = scratch.script("agent.sh", &format!("#!/bin/sh\nexec {} \"$@\"\n", program("plain")));
        let task = scratch.file("task.sh", &format!("read go\nexec {} \"$@\"\n", scratch.text("bin/plain")));
        let records = [
            Record::new("by-hash").on(Match::exe(&hashed).sha256(&digest(&hashed))),
            Record::new("by-wrong-hash").on(Match::exe(&program("by-wrong-hash")).sha256(&"ab".repeat(32))),
            Record::new("by-exe-and-user").on(Match::exe(&program("by-exe-and-user")).and_user("nobody")),
            Record::new("by-script").on(Match::script(&script)),
            Record::new("by-argv").on(Match::argv(&["sh", &task])),
            Record::new("by-user").on(Match::user("nobody")),
            Record::new("by-cgroup").on(Match::cgroup(&cgroup_path())),
            Record::new("by-container").on(Match::container(CONTAINER)),
            Record::new("by-unit").on(Match::unit("amt-test.service")),
            Record::new("by-launch"),
            Record::new("inner").on(Match::exe(&program("inner"))),
        ];
        let setup = records.iter().fold(setup, |setup, record| setup.record(record));
        World::start(setup)
    })
}

fn program(world: &World, name: &str) -> String {
    world.daemon.setup.scratch.text(&format!("bin/{name}"))
}

/// Every record was taken: otherwise the cases would fail for a reason that none of them shows.
pub(crate) fn registered() -> Verdict {
    let world = world();
    let status = world.daemon.cli_json(&["status", "-o", "json"]);
    assert_eq!(status["refused"], serde_json::json!([]), "records were refused");
    Ok(())
}
