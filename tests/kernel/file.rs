//! Family `file`: each way to touch a file is seen exactly once, with the whole path and what was asked.

use agent_monitor_tests::harness::actor::Run;
use agent_monitor_tests::harness::case::{Case, Skip, Verdict};
use agent_monitor_tests::harness::expect::Expect;
use agent_monitor_tests::harness::world::{self, World};
use std::os::unix::fs::MetadataExt;

pub(crate) const CASES: &[Case] = &[
    Case::both("open_read", || opened("open D/f read", &["read"])),
    Case::both("open_write", || opened("open D/f write", &["write"])),
    Case::both("open_rdwr", || opened("open D/f rdwr", &["read", "write"])),
    Case::both("openat_dirfd_relative", || opened("openat D f read", &["read"])),
    Case::both("openat2", || opened("openat2 D/f read", &["read"])),
    Case::both("openat2_beneath", || opened("openat2-beneath D f read", &["read"])),
    Case::both("open_relative_to_cwd", || opened("chdir-open D f read", &["read"])),
    Case::both("open_dot_dot", || opened("chdir-open D sub/../f read", &["read"])),
    Case::both("open_through_symlink", open_through_symlink),
    Case::vm("open_io_uring", || opened("uring-open D/f read", &["read"])),
    Case::both("open_in_thread", || opened("thread open D/f read", &["read"])),
    Case::both("open_in_pid_namespace", || opened("pidns open D/f read", &["read"])),
    Case::vm("open_in_chroot", open_in_chroot),
    Case::vm("open_through_bind_mount", open_through_bind_mount),
    Case::both("open_fields", open_fields),
    Case::both("open_deep", open_deep),
    Case::both("open_that_fails", open_that_fails),
    Case::both("creat", || changed("creat D/new", "file.create", |e, d| e.path(&format!("{d}/new")))),
    Case::both("open_create", || {
        changed("open D/new create", "file.create", |e, d| e.path(&format!("{d}/new")))
    }),
    Case::both("mkdir", || changed("mkdir D/new", "file.create", |e, d| e.path(&format!("{d}/new")))),
    Case::both("mknod", || changed("mknod D/new", "file.create", |e, d| e.path(&format!("{d}/new")))),
    Case::both("symlink", || changed("symlink f D/new", "file.create", |e, d| e.path(&format!("{d}/new")))),
    Case::both("unlink", || changed("unlink D/f", "file.delete", |e, d| e.path(&format!("{d}/f")))),
    Case::both("unlinkat", || changed("unlinkat D f", "file.delete", |e, d| e.path(&format!("{d}/f")))),
    Case::both("rmdir", || changed("rmdir D/sub", "file.delete", |e, d| e.path(&format!("{d}/sub")))),
    Case::both("rename", || moved("rename D/f D/g", "file.rename")),
    Case::both("renameat2", || moved("renameat2 D f g", "file.rename")),
    Case::both("rename_through_proc_self_fd", || moved("rename-proc-fd D f g", "file.rename")),
    // At level partial a path text is told as it was given, made absolute.
    Case::vm("rename_through_linked_dir", rename_through_linked_dir),
    Case::both("unlink_relative_to_cwd", unlink_relative_to_cwd),
    Case::both("link", || moved("link D/f D/g", "file.link")),
    Case::both("linkat", || moved("linkat D f g", "file.link")),
    Case::both("truncate", || changed("truncate D/f 2", "file.truncate", at_f)),
    Case::both("ftruncate", || changed("ftruncate D/f 2", "file.truncate", at_f)),
    Case::both("open_trunc", || changed("open D/f trunc", "file.truncate", at_f)),
    Case::both("chmod", || changed("chmod D/f 0o600", "file.setattr", |e, d| at_f(e, d).change_has("mode"))),
    Case::both("fchmod", || {
        changed("fchmod D/f 0o600", "file.setattr", |e, d| at_f(e, d).change_has("mode"))
    }),
    Case::both("fchmodat", || {
        changed("fchmodat D f 0o600", "file.setattr", |e, d| at_f(e, d).change_has("mode"))
    }),
    Case::both("chown", || changed("chown D/f 1 1", "file.setattr", at_f)),
    Case::both("fchownat", || changed("fchownat D f 1 1", "file.setattr", at_f)),
    Case::both("utimes", || changed("utimes D/f", "file.setattr", at_f)),
    Case::both("setxattr", || {
        changed("setxattr D/f trusted.amt", "file.setattr", |e, d| at_f(e, d).change_has("trusted.amt"))
    }),
    Case::both("mmap_exec", || changed("mmap-exec D/f", "file.mmap_exec", at_f)),
];

fn at_f<'e>(expect: Expect<'e>, dir: &str) -> Expect<'e> {
    expect.path(&format!("{dir}/f"))
}

/// A fresh directory with a file `f` and an empty directory `sub`.
fn place(world: &World) -> String {
    let fence = world.fence_file();
    let dir = format!("{fence}.d");
    std::fs::create_dir_all(format!("{dir}/sub")).unwrap();
    std::fs::write(format!("{dir}/f"), "content").unwrap();
    dir
}

/// Performs one act in the directory that stands for `D` in it.
fn act(world: &World, dir: &str, act: &str) -> Result<Run, Skip> {
    let act = act.replace('D', dir);
    let words: Vec<&str> = act.split(' ').collect();
    let run = world.act(&words);
    if let Some(reason) = run.skipped() {
        return Skip::because(reason);
    }
    run.all_ok();
    Ok(run)
}

fn opened(words: &str, access: &[&str]) -> Verdict {
    let world = world::shared();
    let dir = place(&world);
    act(&world, &dir, words)?;
    let expect = world.expect(words).kind("file.open").path(&format!("{dir}/f"));
    expect.access(access).source(world.object_sources()).exactly_once();
    Ok(())
}

/// The act makes exactly one event of this kind in its directory, and it is as `check` says.
fn changed(words: &str, kind: &str, check: for<'e> fn(Expect<'e>, &str) -> Expect<'e>) -> Verdict {
    let world = world::shared();
    let dir = place(&world);
    act(&world, &dir, words)?;
    check(world.expect(words).kind(kind), &dir).source(world.object_sources()).exactly_once();
    world.expect(format!("{words}: nothing else of this kind")).kind(kind).path_under(&dir).exactly_once();
    Ok(())
}

fn moved(words: &str, kind: &str) -> Verdict {
    changed(words, kind, |e, d| at_f(e, d).new_path(&format!("{d}/g")))
}

/// The object counts, not the name by which it was reached.
fn open_through_symlink() -> Verdict {
    let world = world::shared();
    let dir = place(&world);
    std::os::unix::fs::symlink("f", format!("{dir}/link")).unwrap();
    act(&world, &dir, "open D/link read")?;
    world.expect("the target of the link").kind("file.open").path(&format!("{dir}/f")).exactly_once();
    Ok(())
}

/// The same for what is renamed: the directory is where it is.
fn rename_through_linked_dir() -> Verdict {
    let world = world::shared();
    let dir = place(&world);
    let link = format!("{dir}.link");
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    act(&world, &link, "rename D/f D/g")?;
    at_f(world.expect("the real names").kind("file.rename"), &dir)
        .new_path(&format!("{dir}/g"))
        .exactly_once();
    Ok(())
}

fn unlink_relative_to_cwd() -> Verdict {
    let world = world::shared();
    let dir = place(&world);
    act(&world, &dir, "chdir-unlink D sub/../f")?;
    at_f(world.expect("the whole path").kind("file.delete"), &dir).exactly_once();
    Ok(())
}

fn open_in_chroot() -> Verdict {
    let world = world::shared();
    let dir = place(&world);
    act(&world, &dir, "fork chroot D open /f read")?;
    world.expect("the path outside").kind("file.open").path(&format!("{dir}/f")).exactly_once();
    Ok(())
}

/// Seen through another mount of the same directory, it is still the file it is.
fn open_through_bind_mount() -> Verdict {
    let world = world::shared();
    let dir = place(&world);
    act(&world, &dir, "fork unshare mount mount-bind D D/sub open D/sub/f read")?;
    world.expect("the place in the file system").kind("file.open").path(&format!("{dir}/f")).exactly_once();
    Ok(())
}

fn open_fields() -> Verdict {
    let world = world::shared();
    let dir = place(&world);
    let run = act(&world, &dir, "open D/f read")?;
    let path = format!("{dir}/f");
    let event = world.expect("fields").kind("file.open").path(&path).exactly_once();
    let (file, process) = (event.file.unwrap(), event.process.unwrap());
    assert_eq!(event.schema_version, 1);
    assert!(event.seq > 0, "{}", event.seq);
    assert!(event.time.ends_with('Z'), "{}", event.time);
    // Nothing is declared: everything is marked.
    assert_eq!(event.verdict.as_deref(), Some("audit"));
    assert_eq!(event.rule.as_deref(), Some("scope.default"));
    assert_eq!(event.mode.as_deref(), Some("observe"));
    assert_eq!(file.inode, Some(std::fs::metadata(&path).unwrap().ino()));
    assert!(!file.truncated);
    assert_eq!(process.pid, run.pid);
    assert_eq!(process.ppid, Some(std::process::id()));
    assert_eq!(process.exe.as_deref(), Some(&*world.agent));
    assert_eq!(process.args[..3], [world.agent.clone(), "open".to_owned(), path]);
    assert_eq!((process.uid, process.user.as_deref()), (Some(0), Some("root")));
    assert_eq!(process.cwd.as_deref(), std::env::current_dir().unwrap().to_str());
    assert!(process.start_time.is_some());
    assert_eq!(process.ancestry.first().map(|a| a.pid), Some(std::process::id()));
    let agent = event.agent.unwrap();
    assert_eq!((agent.id.as_str(), agent.bound_by.as_str()), (world::AGENT, "exe"));
    Ok(())
}

/// Deeper than the kernel side walks: either the whole path, or marked as cut.
fn open_deep() -> Verdict {
    let world = world::shared();
    let dir = place(&world);
    let run = act(&world, &dir, "deep-open D/deep 60")?;
    let path = run.mark("deep-open").facts["path"].clone();
    let events = world.feed.with(|events| events.to_vec());
    let inode = std::fs::metadata(&path).unwrap().ino();
    let hit = |e: &&_| {
        let event: &agent_monitor_tests::harness::event::Event = e;
        let file = event.file.as_ref();
        event.kind == "file.open"
            && event.pid() == Some(run.pid)
            && file.is_some_and(|f| f.access == ["read"])
            && file.is_some_and(|f| f.path.as_ref() == Some(&path) || (f.truncated && f.inode == Some(inode)))
    };
    let found = events.iter().filter(hit).count();
    assert_eq!(found, 1, "opens of the deep file, by whole path or marked truncated, of inode {inode}");
    Ok(())
}

/// What does not exist is not opened; where the level sees the attempt, the errno is said.
fn open_that_fails() -> Verdict {
    let world = world::shared();
    let dir = place(&world);
    let run = world.act(&["open", &format!("{dir}/absent"), "read"]);
    assert!(!run.marks[0].ok, "{:?}", run.marks[0]);
    let path = format!("{dir}/absent");
    let without_error = move |events: &[agent_monitor_tests::harness::event::Event]| {
        events.iter().filter(|e| e.path() == Some(&*path) && e.errno.is_none()).count()
    };
    assert_eq!(world.feed.with(without_error), 0, "a failed open is shown as if it had succeeded");
    Ok(())
}
