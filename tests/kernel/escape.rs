//! The escape suite: every road by which a process reaches a file, a program, an address or another process, one row
//! each. A row is *allowed before, refused during, a neighbour agent and a stranger untouched, the record agrees, allowed
//! after*. A road that cannot be closed is a row too, marked open with the reason.
//!
//! All rows of a group share one daemon; the scope changes by group, not by row.

mod addresses;
mod layers;
mod roads;
pub(crate) mod stage;

use agent_monitor_tests::harness::case::{Case, Verdict};

use self::stage::Stage;

pub(crate) const CASES: &[Case] = &[
    Case::vm("path_aliases", || group(roads::ALIASES, Stage::forbid)),
    Case::vm("links_and_renames", || group(roads::LINKS, Stage::forbid)),
    Case::vm("changes_without_opening", || group(roads::CHANGES, Stage::forbid)),
    Case::vm("namespaces_and_mounts", || group(roads::MOUNTS, Stage::forbid)),
    Case::vm("handles_and_memory", || group(roads::HANDLES, Stage::forbid)),
    Case::vm("programs", || group(roads::PROGRAMS, Stage::forbid)),
    Case::vm("sockets", || group(roads::SOCKETS, Stage::forbid)),
    Case::vm("other_processes", || group(roads::PROCESSES, Stage::forbid_powers)),
    Case::vm("devices", || group(roads::DEVICES, Stage::forbid)),
    Case::vm("layers_of_an_overlay", layers::overlay),
    Case::vm("open_roads", || group(roads::OPEN, Stage::forbid)),
    Case::vm("default_deny", default_deny),
    Case::vm("other_spellings_of_this_host", || group(addresses::SPELLINGS, addresses::forbid_loopback)),
    Case::vm("where_the_packet_goes", || group(addresses::DESTINATIONS, addresses::forbid_one)),
    Case::vm("scope_flips_under_storm", flips),
];

/// One road.
pub(crate) struct Row {
    /// For messages and for the names of its files.
    pub name: &'static str,
    /// Acts of the actor, with `@S` for the row's closed directory, `@O` for its open one.
    pub act: &'static str,
    /// Kinds of event that may tell the refusal.
    pub kinds: &'static [&'static str],
    /// What stands in the event: a part of its JSON with `@S`, `@O`, `@PID`.
    pub told: &'static str,
    /// Why the road stays open, where it does.
    pub open: Option<&'static str>,
}

fn group(rows: &[Row], forbid: fn(&Stage)) -> Verdict {
    let stage = stage::shared();
    stage.permit();
    let mut wrong = Vec::new();
    for row in rows {
        wrong.extend(stage.passes("before", &stage.bot, row));
    }
    forbid(&stage);
    for row in rows {
        match row.open {
            None => wrong.extend(stage.refused(row)),
            Some(_) => wrong.extend(stage.passes("during (an open road)", &stage.bot, row)),
        }
        wrong.extend(stage.passes("neighbour", &stage.neighbour, row));
        wrong.extend(stage.passes("stranger", &stage.stranger, row));
    }
    wrong.extend(stage.record_disagrees(rows));
    stage.permit();
    for row in rows {
        wrong.extend(stage.passes("after", &stage.bot, row));
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    Ok(())
}

/// A default-deny scope with a base set: what is named goes, all else is refused.
fn default_deny() -> Verdict {
    let stage = stage::shared();
    stage.default_deny();
    let dir = stage.work();
    let goes = [
        format!("open {dir}/f read"),
        format!("creat {dir}/new"),
        format!("rename {dir}/new {dir}/newer"),
        format!("unlink {dir}/newer"),
        "open /etc/hosts read".to_owned(),
        format!("run {} noop", stage.bot),
        "udp-sendto 127.0.0.1:5353 4".to_owned(),
        "open /dev/null write".to_owned(),
        "open /proc/self/maps read".to_owned(),
        "open-own-terminal".to_owned(),
        format!("mknod-device {dir}/null c 1 3"),
        format!("unlink {dir}/null"),
    ];
    for act in &goes {
        assert_eq!(stage.attempt(&stage.bot, act), Ok(()), "{act}");
    }
    let refused = [
        "open /bin/busybox read".to_owned(),
        "open /etc/hosts write".to_owned(),
        "creat /tmp/elsewhere".to_owned(),
        format!("link {dir}/f /tmp/elsewhere"),
        "run /bin/busybox true".to_owned(),
        "tcp-connect 127.0.0.1:5353".to_owned(),
        "udp-sendto 127.0.0.1:5354 4".to_owned(),
        "unshare user noop".to_owned(),
        format!("mount-tmpfs {dir} noop"),
        "kill 1 18".to_owned(),
        "open /proc/kcore read".to_owned(),
        "open /proc/kallsyms read".to_owned(),
        "open /dev/kmsg read".to_owned(),
        "open-terminal-of-another-session".to_owned(),
        "tiocsti".to_owned(),
        format!("mknod-device {dir}/disk b 7 0"),
        "uring-open-by-task-work /bin/busybox read".to_owned(),
        "getxattr /bin/busybox security.capability".to_owned(),
        "dump-core-in /tmp".to_owned(),
        "unshare32 0x04000000 noop".to_owned(),
        format!("ioctl {dir}/f read 0x50009417"),
    ];
    for act in &refused {
        let found = stage.attempt(&stage.bot, act);
        assert!(found.as_ref().is_err_and(|e| stage::is_refusal(e)), "{act}: {found:?}");
    }
    Ok(())
}

/// The scope changes all the time between two that both forbid the same thing in different words, while eight processes
/// try it: not one attempt passes.
fn flips() -> Verdict {
    let result = stage::shared().storm_of_flips();
    // The last of the family; the next one counts what is loaded.
    stage::close();
    result
}
