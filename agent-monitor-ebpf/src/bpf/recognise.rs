//! Is this process an agent? Look-ups in the tables of the generation in force; the order is the answer:
//! script, executable, cgroup, user.

use agent_monitor_ebpf::{
    bind::{
        AS_EXE, AS_SCRIPT, CgroupEntry, MATCHES, MatchSet, NAME_EXEC_TEXT, NEED_CGROUP, NEED_INODE, NEED_USER, NumKey,
        PathKey,
    },
    config::{RUN_CGROUP_RULES, RUN_USER_RULES, Runtime},
};

use super::{
    maps::{CGROUPS, PATHS, TEXTS, USERS},
    read::cgroup_id,
};

/// A file as the rules see it.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) hash: u64,
    pub(crate) ino: u64,
    pub(crate) ctime_sec: i64,
    pub(crate) dev: u32,
    pub(crate) ctime_nsec: u32,
}

/// Facts of the process that conditions ask for.
#[derive(Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) uid: u32,
    pub(crate) generation: u32,
    /// Bit per cgroup condition that holds.
    pub(crate) cgroup_rules: u64,
}

/// An agent and by what it was recognised; agent 0 for nobody.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) agent: u32,
    pub(crate) bound_by: u32,
}

pub(crate) const NOBODY: Found = Found { agent: 0, bound_by: 0 };

/// What the task's cgroup means.
#[inline(always)]
pub(crate) fn cgroup_entry(runtime: &Runtime) -> Option<&'static CgroupEntry> {
    if runtime.flags & RUN_CGROUP_RULES == 0 {
        return None;
    }
    let key = NumKey { value: cgroup_id(), generation: runtime.generation, space: 0 };
    // SAFETY: a map value; entries are replaced whole.
    CGROUPS.get_ptr(&key).map(|p| unsafe { &*p })
}

/// The cgroup conditions of an entry as bits.
#[inline(always)]
pub(crate) fn condition_bits(entry: &CgroupEntry) -> u64 {
    let mut bits = 0;
    let mut i = 0;
    while i < MATCHES {
        let id = entry.rules[i];
        if id != 0 {
            bits |= 1 << (id & 63);
        }
        i += 1;
    }
    bits
}

/// First alternative of a set whose conditions hold.
#[inline(always)]
fn choose(set: &MatchSet, wanted: u32, place: &Place, facts: &Facts) -> Found {
    let mut i = 0;
    let mut found = NOBODY;
    while i < MATCHES {
        let e = &set.entries[i];
        i += 1;
        let inode = e.flags & NEED_INODE == 0
            || (e.ino == place.ino && e.ctime_sec == place.ctime_sec && e.ctime_nsec == place.ctime_nsec);
        let user = e.flags & NEED_USER == 0 || e.uid == facts.uid;
        let cgroup = e.flags & NEED_CGROUP == 0 || facts.cgroup_rules & (1 << (e.cgroup_rule & 63)) != 0;
        if found.agent == 0 && e.agent != 0 && e.flags & wanted != 0 && inode && user && cgroup {
            found = Found { agent: e.agent, bound_by: e.bound_by };
        }
    }
    found
}

/// By the place of the image (`AS_EXE`) or of the script (`AS_SCRIPT`).
#[inline(always)]
pub(crate) fn by_place(place: &Place, wanted: u32, facts: &Facts) -> Found {
    let key = PathKey { hash: place.hash, dev: place.dev, generation: facts.generation };
    match PATHS.get_ptr(&key) {
        // SAFETY: a map value.
        Some(set) => choose(unsafe { &*set }, wanted, place, facts),
        None => NOBODY,
    }
}

/// By the text of the exec file name: scripts where no hook shows the script's file.
#[inline(always)]
pub(crate) fn by_text(hash: u64, facts: &Facts) -> Found {
    let key = NumKey { value: hash, generation: facts.generation, space: NAME_EXEC_TEXT };
    let nowhere = Place { hash, ino: 0, ctime_sec: 0, dev: 0, ctime_nsec: 0 };
    match TEXTS.get_ptr(&key) {
        // SAFETY: a map value.
        Some(set) => choose(unsafe { &*set }, AS_SCRIPT | AS_EXE, &nowhere, facts),
        None => NOBODY,
    }
}

/// By the cgroup alone.
#[inline(always)]
pub(crate) fn by_cgroup(entry: Option<&CgroupEntry>, uid: u32) -> Found {
    match entry {
        Some(e) if e.agent != 0 && (e.need_user == 0 || e.uid == uid) => {
            Found { agent: e.agent, bound_by: e.bound_by }
        }
        _ => NOBODY,
    }
}

/// By the real uid alone.
#[inline(always)]
pub(crate) fn by_user(runtime: &Runtime, uid: u32) -> Found {
    if runtime.flags & RUN_USER_RULES == 0 {
        return NOBODY;
    }
    let key = NumKey { value: u64::from(uid), generation: runtime.generation, space: 0 };
    match USERS.get_ptr(&key) {
        // SAFETY: a map value.
        Some(e) => unsafe { Found { agent: (*e).agent, bound_by: (*e).bound_by } },
        None => NOBODY,
    }
}
