//! What people decide, as the kernel holds it: tickets for exactly one act, grants, sessions, and the life of an agent.
//!
//! A `hold` stops the thread inside the system call (SIGSTOP to the thread, `-ERESTARTNOINTR`); when it is woken the
//! kernel runs the same call again and the hook judges it again. What lets it pass then is a [`Ticket`], keyed by the
//! digest of the act: another act, another path, another peer needs another decision. All times are `CLOCK_BOOTTIME`
//! nanoseconds, which also run while the host is suspended and no clock change moves.

use crate::path::{HashKey, mix};

/// Words of a body that a digest covers.
pub const DIGEST_WORDS: usize = 14;

pod! {
    /// Key of the table of tickets: what was decided about, and for whom.
    pub struct TicketKey {
        /// Digest of the act.
        pub digest: u64,
        /// `start_boottime` of the process when `tgid` is not 0, else a session, else 0.
        pub whom: u64,
        /// Thread group id of the one process that it is for, 0 for a session or the whole agent.
        pub tgid: u32,
        /// Agent index.
        pub agent: u32,
    }
}

pod! {
    /// A decision about exactly one act.
    pub struct Ticket {
        /// When it ends.
        pub expires: u64,
        /// 1 lets the act pass, 0 refuses it.
        pub pass: u32,
        /// 1: gone once it has counted.
        pub once: u32,
    }
}

pod! {
    /// A session, by its number.
    pub struct SessionEntry {
        /// When it ends.
        pub expires: u64,
        /// 1: ended before its time.
        pub ended: u32,
        /// Index under which the session's own scope is in the policy tables, 0 for none.
        pub policy: u32,
    }
}

/// Grants that an agent can have at a time.
pub const GRANTS: usize = 16;

pod! {
    /// A grant in the list of its agent.
    pub struct GrantEntry {
        /// Number of the grant, 0 ends the list.
        pub id: u64,
        /// The one session that it is for, 0 for all.
        pub session: u64,
        /// Index under which what it permits is in the policy tables.
        pub policy: u32,
        /// Always 0.
        pub reserved: u32,
    }
}

pod! {
    /// Grants of an agent, by agent and generation.
    pub struct GrantList {
        /// The first with id 0 ends the list.
        pub entries: [GrantEntry; GRANTS],
    }
}

pod! {
    /// How long a grant lasts, by its number.
    pub struct GrantLife {
        /// When it ends; 0 once it was revoked.
        pub expires: u64,
        /// Uses that it started with; `u32::MAX` for no count. What is left are the entries of the table of uses.
        pub uses: u32,
        /// Always 0.
        pub reserved: u32,
    }
}

/// Uses that a counted grant can have: each is an entry of a table, so that exactly one racer gets it.
pub const USES_MAX: u32 = 256;

pod! {
    /// One use of a grant. Who removes the entry has used it.
    pub struct UseKey {
        /// The grant.
        pub id: u64,
        /// 0 to [`USES_MAX`] - 1.
        pub number: u32,
        /// Always 0.
        pub reserved: u32,
    }
}

/// In force.
pub const LIFE_ACTIVE: u32 = 0;
/// Stopped until somebody resumes it; whatever still runs is refused everything.
pub const LIFE_SUSPENDED: u32 = 1;
/// Ended for ever.
pub const LIFE_RETIRED: u32 = 2;

/// A heartbeat older than this says that nobody can approve, nanoseconds.
pub const HEARTBEAT_MAX: u64 = 5_000_000_000;

/// `ERESTARTNOINTR`, include/linux/errno.h: the system call is run again, whatever handlers there are.
pub const ERESTARTNOINTR: i32 = 513;

/// System calls of x86-64 that the kernel can run again from the start after a hook has refused them, because nothing
/// was done before the hook. `arg0` is the first argument: `kill` of a group has done part of its work by then.
#[inline(always)]
pub const fn restartable(nr: u64, arg0: u64, renameat2_flags: u64) -> bool {
    match nr {
        // open, openat, openat2, creat
        2 | 257 | 437 | 85
        // unlink, unlinkat, rmdir, rename, renameat, mkdir, mkdirat
        | 87 | 263 | 84 | 82 | 264 | 83 | 258
        // link, linkat, symlink, symlinkat, mknod, mknodat
        | 86 | 265 | 88 | 266 | 133 | 259
        // truncate, ftruncate, chmod, fchmod, fchmodat, fchmodat2
        | 76 | 77 | 90 | 91 | 268 | 452
        // chown, fchown, lchown, fchownat, utime, utimes, futimesat, utimensat
        | 92 | 93 | 94 | 260 | 132 | 235 | 261 | 280
        // setxattr, lsetxattr, fsetxattr, removexattr, lremovexattr, fremovexattr
        | 188 | 189 | 190 | 197 | 198 | 199
        // connect, sendto, sendmsg, bind, listen
        | 42 | 44 | 46 | 49 | 50
        // execve, execveat
        | 59 | 322
        // ptrace, tkill, tgkill, pidfd_send_signal
        | 101 | 200 | 234 | 424
        // mount, umount2, pivot_root, chroot, move_mount
        | 165 | 166 | 155 | 161 | 429
        // setuid, setgid, setreuid, setregid, setresuid, setresgid, setfsuid, setfsgid, capset
        | 105 | 106 | 113 | 114 | 117 | 119 | 126 => true,
        // kill of one process
        62 => (arg0 as i32) > 0,
        // renameat2 without RENAME_EXCHANGE, which the hook sees twice
        316 => renameat2_flags & 2 == 0,
        _ => false,
    }
}

/// `open`, `openat`, `openat2`, `creat`: one call that may create, open and truncate, each seen by a hook of its own.
#[inline(always)]
pub const fn opens(nr: u64) -> bool {
    matches!(nr, 2 | 257 | 437 | 85)
}

/// `execve`, `execveat`.
#[inline(always)]
pub const fn executes(nr: u64) -> bool {
    matches!(nr, 59 | 322)
}

/// Adds a number to a digest.
#[inline(always)]
pub fn fold(key: HashKey, digest: u64, word: u64) -> u64 {
    mix(key, digest, word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_signal_and_an_exchange_cannot_wait() {
        assert!(restartable(62, 4121, 0) && !restartable(62, -4121i64 as u64, 0) && !restartable(62, 0, 0));
        assert!(restartable(316, 0, 1) && !restartable(316, 0, 2));
    }

    #[test]
    fn io_uring_and_batches_cannot_wait() {
        // io_uring_enter, sendmmsg, process_vm_readv, clone3, unshare
        assert!([426, 307, 310, 435, 272].iter().all(|nr| !restartable(*nr, 1, 0)));
    }
}
