//! Family `privilege`: rights used over other processes, over ids, over the kernel.

use agent_monitor_tests::harness::actor::{Actor, Run};
use agent_monitor_tests::harness::case::{Case, Skip, Verdict};
use agent_monitor_tests::harness::event::Privilege;
use agent_monitor_tests::harness::expect::Expect;
use agent_monitor_tests::harness::world::{self, World};

pub(crate) const CASES: &[Case] = &[
    Case::both("setuid", setuid),
    Case::both("setresuid_effective", setresuid_effective),
    Case::both("setgid", setgid),
    Case::both("capability_gained", capability_gained),
    Case::both("ptrace_attach", || reached_child("ptrace-child")),
    Case::both("process_vm_readv", || reached_child("vm-readv-child")),
    Case::both("ptrace_out_of_tree", ptrace_out_of_tree),
    Case::both("signal_out_of_tree", signal_out_of_tree),
    Case::both("mount", mount),
    Case::both("umount", umount),
    Case::both("unshare_user", || unshared("user", "user")),
    Case::both("unshare_mount", || unshared("mount", "mnt")),
    Case::both("unshare_net", || unshared("net", "net")),
    Case::both("unshare_pid", || unshared("pid", "pid")),
    Case::both("clone_new_pid_namespace", clone_new_pid_namespace),
    Case::both("chroot", chroot),
    Case::vm("init_module", || module("init-module")),
    Case::vm("finit_module", || module("finit-module FILE")),
    Case::both("bpf", bpf),
];

/// Performs acts, one string; the pid that the last of them ran in is the forked child's.
fn in_child(world: &World, words: &str) -> (Run, u32) {
    let words: Vec<&str> = ["fork"].into_iter().chain(words.split(' ')).collect();
    let run = world.act(&words);
    run.all_ok();
    let child = run.mark("fork").number("child") as u32;
    (run, child)
}

fn by<'w>(world: &'w World, kind: &str, pid: u32) -> Expect<'w> {
    world.expect(kind).kind(kind).pid(pid).source(world.object_sources())
}

/// The id after, and at level full the one before.
fn changed_id(words: &str, ids: fn(&Privilege) -> (Option<u32>, Option<u32>)) -> Verdict {
    let world = world::shared();
    let (_, child) = in_child(&world, words);
    let event = by(&world, "privilege.setuid", child).exactly_once();
    let (old, new) = ids(&event.privilege.unwrap());
    assert_eq!(new, Some(1000), "the id after");
    let before = if world.is_full() { old == Some(0) } else { matches!(old, None | Some(0)) };
    assert!(before, "the id before is {old:?}");
    Ok(())
}

fn setuid() -> Verdict {
    changed_id("setuid 1000 noop", |p| (p.old_uid, p.new_uid))
}

fn setresuid_effective() -> Verdict {
    changed_id("setresuid 0 1000 0 noop", |p| (p.old_uid, p.new_uid))
}

fn setgid() -> Verdict {
    changed_id("setgid 1000 noop", |p| (p.old_gid, p.new_gid))
}

/// Dropping one is no gain; taking it back is. Level partial may not know which one it was.
fn capability_gained() -> Verdict {
    let world = world::shared();
    let run = world.act(&["cap-drop", "21", "+", "cap-raise", "21"]);
    run.all_ok();
    if !world.is_full() {
        by(&world, "privilege.capability", run.pid).at_least_once();
        return Ok(());
    }
    let gained =
        |p: &Privilege| p.capabilities.contains(&"CAP_SYS_ADMIN".to_owned()).then(|| "yes".to_owned());
    by(&world, "privilege.capability", run.pid).privilege("has CAP_SYS_ADMIN", "yes", gained).exactly_once();
    Ok(())
}

fn reached_child(act: &str) -> Verdict {
    let world = world::shared();
    let run = world.act(&[act]);
    let child = run.all_ok().mark(act).number("target") as u32;
    let event = by(&world, "privilege.ptrace", run.pid).target(child).exactly_once();
    let target = event.privilege.and_then(|p| p.target).unwrap();
    assert_eq!(target.agent.as_deref(), Some(world::AGENT), "the agent that the target is bound to");
    Ok(())
}

/// A process of nobody's, waiting; it ends when dropped.
fn bystander(world: &World) -> Actor {
    let mut actor = Actor::start(&world.stranger, &["pause", "noop"]);
    actor.mark("PAUSED");
    actor
}

fn ptrace_out_of_tree() -> Verdict {
    let world = world::shared();
    let other = bystander(&world);
    let run = world.act(&["ptrace-pid", &other.pid().to_string()]);
    run.all_ok();
    by(&world, "privilege.ptrace", run.pid).target(other.pid()).exactly_once();
    Ok(())
}

fn signal_out_of_tree() -> Verdict {
    let world = world::shared();
    let other = bystander(&world);
    // SIGURG is ignored by default: the bystander lives on.
    let run = world.act(&["kill", &other.pid().to_string(), "23"]);
    run.all_ok();
    by(&world, "privilege.signal", run.pid)
        .target(other.pid())
        .privilege("privilege.signal", "SIGURG", |p| p.signal.clone())
        .exactly_once();
    Ok(())
}

fn mount() -> Verdict {
    let world = world::shared();
    let dir = format!("{}.mnt", world.fence_file());
    std::fs::create_dir(&dir).unwrap();
    let (_, child) = in_child(&world, &format!("unshare mount mount-tmpfs {dir}"));
    by(&world, "privilege.mount", child)
        .privilege("privilege.mount_point", &dir, |p| p.mount_point.clone())
        .privilege("privilege.operation", "mount", |p| p.operation.clone())
        .privilege("privilege.fs_type", "tmpfs", |p| p.fs_type.clone())
        .exactly_once();
    Ok(())
}

fn umount() -> Verdict {
    let world = world::shared();
    let dir = format!("{}.mnt", world.fence_file());
    std::fs::create_dir(&dir).unwrap();
    let (_, child) = in_child(&world, &format!("unshare mount mount-tmpfs {dir} umount {dir}"));
    by(&world, "privilege.mount", child)
        .privilege("privilege.operation", "umount", |p| p.operation.clone())
        .exactly_once();
    Ok(())
}

fn namespaces(p: &Privilege) -> Option<String> {
    Some(p.namespaces.join("+"))
}

fn unshared(what: &str, namespace: &str) -> Verdict {
    let world = world::shared();
    let (_, child) = in_child(&world, &format!("unshare {what} noop"));
    // No LSM hook sees these: at either level a tracepoint tells them.
    world
        .expect("privilege.namespace")
        .kind("privilege.namespace")
        .pid(child)
        .privilege("privilege.namespaces", namespace, namespaces)
        .exactly_once();
    Ok(())
}

fn clone_new_pid_namespace() -> Verdict {
    let world = world::shared();
    let run = world.act(&["pidns", "noop"]);
    run.all_ok();
    // Whether it is the parent's act or the child's is not said by the contract.
    world
        .expect("clone with CLONE_NEWPID")
        .kind("privilege.namespace")
        .privilege("privilege.namespaces", "pid", namespaces)
        .that("process.pid or parent", true, move |e| {
            let process = e.process.as_ref()?;
            Some((process.pid == run.pid || process.ppid == Some(run.pid)).to_string())
        })
        .exactly_once();
    Ok(())
}

fn chroot() -> Verdict {
    let world = world::shared();
    let dir = format!("{}.root", world.fence_file());
    std::fs::create_dir(&dir).unwrap();
    let (_, child) = in_child(&world, &format!("chroot {dir}"));
    let at = move |e: &_| {
        let event: &agent_monitor_tests::harness::event::Event = e;
        let privilege = event.privilege.as_ref()?;
        privilege.mount_point.clone().or_else(|| privilege.object.clone())
    };
    world.expect("chroot").family("privilege").pid(child).that("new root", dir, at).exactly_once();
    Ok(())
}

/// The image is refused after the right to load one was asked for.
fn module(act: &str) -> Verdict {
    let world = world::shared();
    let file = world.fence_file();
    // An empty file is refused before anybody is asked.
    std::fs::write(&file, "no module").unwrap();
    let act = act.replace("FILE", &file);
    let words: Vec<&str> = act.split(' ').collect();
    let run = world.act(&words);
    if let Some(reason) = run.skipped() {
        return Skip::because(reason);
    }
    by(&world, "privilege.module", run.pid).exactly_once();
    Ok(())
}

fn bpf() -> Verdict {
    let world = world::shared();
    let run = world.act(&["bpf"]);
    run.all_ok();
    let event = by(&world, "privilege.bpf", run.pid).exactly_once();
    let operation = event.privilege.unwrap().operation.unwrap_or_default();
    assert!(operation.to_lowercase().contains("map_create"), "operation of bpf(): {operation}");
    Ok(())
}
