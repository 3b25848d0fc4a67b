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
    scratch::Scratch,
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

/// Notes in the scratch the first alternative of a set whose conditions hold, when nothing is noted yet. In memory, so
/// that the verifier does not follow each outcome by itself.
#[inline(always)]
fn choose(scratch: *mut Scratch, set: &MatchSet, wanted: u32, place: &Place, facts: &Facts) {
    // SAFETY: checked for null by the caller.
    let slot = unsafe { &raw mut (*scratch).found_agent };
    let mut i = 0;
    while i < MATCHES {
        let e = &set.entries[i];
        i += 1;
        // SAFETY: into the scratch.
        if unsafe { slot.read_volatile() } != 0 || e.agent == 0 || e.flags & wanted == 0 {
            continue;
        }
        if e.flags & NEED_INODE != 0
            && (e.ino != place.ino || e.ctime_sec != place.ctime_sec || e.ctime_nsec != place.ctime_nsec)
        {
            continue;
        }
        if e.flags & NEED_USER != 0 && e.uid != facts.uid {
            continue;
        }
        if e.flags & NEED_CGROUP != 0 && facts.cgroup_rules & (1 << (e.cgroup_rule & 63)) == 0 {
            continue;
        }
        // SAFETY: as above.
        unsafe {
            slot.write_volatile(e.agent);
            (*scratch).found_by = e.bound_by;
        }
    }
}

/// By the place of the image (`AS_EXE`) or of the script (`AS_SCRIPT`).
#[inline(always)]
pub(crate) fn by_place(scratch: *mut Scratch, place: &Place, wanted: u32, facts: &Facts) {
    let key = PathKey { hash: place.hash, dev: place.dev, generation: facts.generation };
    if let Some(set) = PATHS.get_ptr(&key) {
        // SAFETY: a map value.
        choose(scratch, unsafe { &*set }, wanted, place, facts);
    }
}

/// By the text of the exec file name: scripts where no hook shows the script's file.
#[inline(always)]
pub(crate) fn by_text(scratch: *mut Scratch, hash: u64, facts: &Facts) {
    let key = NumKey { value: hash, generation: facts.generation, space: NAME_EXEC_TEXT };
    let nowhere = Place { hash, ino: 0, ctime_sec: 0, dev: 0, ctime_nsec: 0 };
    if let Some(set) = TEXTS.get_ptr(&key) {
        // SAFETY: a map value.
        choose(scratch, unsafe { &*set }, AS_SCRIPT | AS_EXE, &nowhere, facts);
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
