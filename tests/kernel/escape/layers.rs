//! Stacked file systems: what overlayfs does in its layers for a permitted act passes, and nothing else does.

use std::process::Command;

use agent_monitor_tests::harness::case::Verdict;
use agent_monitor_tests::sys;

use super::stage;

/// Permits the overlay and not its layers.
const SCOPE: &str = r#"[scope]
default = "deny"
base = ["linux-runtime"]
[[scope.file]]
path = "@M/**"
access = ["read", "write", "create", "delete"]
[[scope.exec]]
path = "@BOT"
"#;

/// A mounted overlay.
struct Overlay(String);

impl Drop for Overlay {
    fn drop(&mut self) {
        drop(sys::unmount(&self.0));
    }
}

/// What only passes when the acts below it do: copies up, whiteouts, merged directories, files opened again.
const PASSES: &[&str] = &[
    "open @M/a read",
    "list @M",
    "list @M/dir",
    "getxattr @M/a trusted.x",
    "open @M/b write",
    "truncate @M/c 1",
    "chmod @M/d 0o600",
    "chown @M/e 1 1",
    "utimes @M/f",
    "setxattr @M/g trusted.x",
    "creat @M/new",
    "creat @M/dir/new",
    "mkdir @M/folder",
    "symlink a @M/symlink",
    "link @M/h @M/h2",
    "rename @M/i @M/i2",
    "rename @M/new @M/newer",
    "unlink @M/newer",
    "unlink @M/j",
    "creat @M/j",
    "rmdir @M/folder",
    "mknod @M/fifo",
    "read-after-change @M/k",
    "uring-open @M/l read",
    "uring-open-by-task-work @M/m read",
    "uring-open-by-task-work @M/n write",
    "uring-open-by-worker @M/o read",
];

/// The layers themselves, also by somebody who has just been in the overlay.
const REFUSED: &[&str] = &[
    "open @L/lower/a read",
    "open @L/upper/b read",
    "list @L/lower",
    "creat @L/upper/x",
    "getxattr @L/lower/a trusted.x",
    "uring-open-as @L/lower/a read",
    "uring-open-by-task-work @L/lower/a read",
    "uring-open-by-worker @L/lower/a read",
    "open @M/a read + uring-open-by-task-work @L/lower/a read",
    "open @M/p write + uring-open-by-task-work @L/upper/p write",
    "creat @M/q + uring-open-by-task-work @L/upper/r create",
    "list @M/dir + uring-open-as @L/lower/dir read",
];

pub(super) fn overlay() -> Verdict {
    let stage = stage::shared();
    let (layers, merged) = (stage.dir("layers"), stage.dir("merged"));
    for dir in ["lower/dir", "upper/dir", "work"] {
        std::fs::create_dir_all(format!("{layers}/{dir}")).unwrap();
    }
    std::fs::create_dir_all(&merged).unwrap();
    for name in 'a'..='p' {
        std::fs::write(format!("{layers}/lower/{name}"), "content").unwrap();
    }
    std::fs::write(format!("{layers}/lower/dir/x"), "content").unwrap();
    std::fs::write(format!("{layers}/upper/dir/y"), "content").unwrap();
    let options = format!("lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work");
    let mount = Command::new("/bin/busybox")
        .args(["mount", "-t", "overlay", "overlay", "-o", &options, &merged])
        .output()
        .unwrap();
    assert!(mount.status.success(), "{}", String::from_utf8_lossy(&mount.stderr));
    let _mounted = Overlay(merged.clone());
    stage.scope(&SCOPE.replace("@M", &merged).replace("@BOT", &stage.bot));
    let words = |act: &str| act.replace("@M", &merged).replace("@L", &layers);
    let mut wrong = Vec::new();
    for act in PASSES {
        let found = stage.attempt(&stage.bot, &words(act));
        if found.as_ref().is_err_and(|e| stage::is_refusal(e) || e.contains("skipped")) {
            wrong.push(format!("{act}: {found:?}"));
        }
    }
    for act in REFUSED {
        let found = stage.attempt(&stage.bot, &words(act));
        if !found.as_ref().is_err_and(|e| stage::is_refusal(e)) {
            wrong.push(format!("{act}: not refused: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
