//! Acts that people decide about: one row for each system call that can wait, and for those that cannot.

/// One act. `@S` is the row's directory whose use must be decided, `@O` its open one.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub name: &'static str,
    pub act: &'static str,
    /// How many decisions the act needs.
    pub requests: usize,
}

const fn row(name: &'static str, act: &'static str) -> Row {
    Row { name, act, requests: 1 }
}

/// The call waits, and goes on when it is approved.
pub(crate) const HELD: &[Row] = &[
    row("open", "open @S/f read"),
    row("open_for_writing", "open @S/f write"),
    row("open_truncating", "open @S/f trunc"),
    // The directory, then the file in it.
    Row { name: "openat", act: "openat @S f read", requests: 2 },
    row("openat2", "openat2 @S/f read"),
    row("creat", "creat @S/new"),
    row("creat_over", "creat @S/f"),
    row("unlink", "unlink @S/f"),
    row("unlinkat", "unlinkat @S f"),
    row("rmdir", "rmdir @S/empty"),
    row("rename", "rename @S/f @O/x"),
    row("rename_over", "rename @O/f @S/f"),
    row("renameat2", "renameat2 @S f g"),
    row("mkdir", "mkdir @S/new"),
    row("mknod", "mknod @S/new"),
    row("link", "link @S/f @O/l"),
    row("symlink", "symlink /etc/hosts @S/l"),
    row("truncate", "truncate @S/f 1"),
    row("chmod", "chmod @S/f 0o777"),
    row("fchmodat", "fchmodat @S f 0o777"),
    row("chown", "chown @S/f 1 1"),
    row("utimes", "utimes @S/f"),
    row("setxattr", "setxattr @S/f trusted.x"),
    row("in_a_thread", "thread open @S/f read"),
    row("in_a_child", "fork open @S/f read"),
    row("execve", "run @S/prog noop"),
    row("execveat", "fork execveat @S/prog noop"),
    row("vfork", "vfork-exec @S/prog noop"),
    row("posix_spawn", "spawn @S/prog noop"),
    row("exec_in_place", "exec @S/prog noop"),
    row("interpreter", "run @O/script"),
    row("connect", "tcp-connect 127.0.0.1:4001"),
    row("sendto", "udp-sendto 127.0.0.1:4001 4"),
    row("sendmsg", "udp-sendmsg 127.0.0.1:4002 4"),
    row("bind", "tcp-bind 127.0.0.1:4001"),
    row("kill", "kill @BYSTANDER 18"),
    row("ptrace", "ptrace-pid @BYSTANDER"),
    Row { name: "mount", act: "mount-bind @O @O/m umount @O/m noop", requests: 2 },
    row("setuid", "fork setuid 1234 noop"),
];

/// The call is refused, and the next try passes once it is approved.
pub(crate) const ASKED: &[Row] = &[
    row("io_uring", "uring-open @S/f read"),
    row("io_uring_connect", "uring-connect 127.0.0.1:4001"),
    row("sendmmsg", "udp-sendmmsg 127.0.0.1:4001 4"),
];

/// Rows that leave something behind in their directories when they pass.
pub(crate) const CHANGING: &[&str] = &[
    "open_truncating",
    "creat",
    "creat_over",
    "unlink",
    "unlinkat",
    "rmdir",
    "rename",
    "rename_over",
    "renameat2",
    "mkdir",
    "mknod",
    "link",
    "symlink",
    "truncate",
    "chmod",
    "fchmodat",
    "chown",
    "utimes",
    "setxattr",
];
