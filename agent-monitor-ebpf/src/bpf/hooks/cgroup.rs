//! cgroups that are made, removed and joined: a rule that names a cgroup binds the first process that enters it.

use agent_monitor_ebpf::{
    Kind,
    bind::{CgroupEntry, NAME_CGROUP_LEAF, NAME_CGROUP_PATH, NumKey, USER_SLICE},
    config::{RUN_CGROUP_RULES, Runtime},
    event::BoundBody,
    fields::ABSENT,
    loss::LossReason,
    path::TEXT_MAX,
    task::{TaskTag, binds},
};
use aya_ebpf::{
    bindings::task_struct, helpers::generated::bpf_probe_read_kernel_str, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};

use super::process::foreign_head;
use crate::bpf::{
    emit::{lose, send_small},
    globals as g,
    maps::{CGROUPS, NAMES},
    read::{Ptr, current, field, leader_start, now, pointer},
    recognise::by_cgroup,
    scratch::Scratch,
    tag::{enter_proc, note_ids, runtime, scratch_of, set_tag, tag_of, telling},
    walk::text_hash_at,
};

/// The cgroup's id (`kn->id`), 0 when it is not on the v2 hierarchy.
#[inline(always)]
fn v2_id(cgroup: Ptr) -> u64 {
    if g::O_CGROUP_ROOT.load() == ABSENT || g::O_CGROUP_ID.load() == ABSENT {
        return 0;
    }
    let hierarchy: u32 = field(pointer(cgroup, &g::O_CGROUP_ROOT), &g::O_CGROOT_HID);
    if hierarchy != 0 {
        return 0;
    }
    field(pointer(cgroup, &g::O_CGROUP_ID), &g::O_KN_ID)
}

/// Copies a kernel string to the start of the tail; its length.
#[inline(always)]
fn read_text(scratch: *mut Scratch, at: Ptr) -> u32 {
    // SAFETY: the tail is longer than TEXT_MAX + 1.
    let n = unsafe {
        let to = (&raw mut (*scratch).rec.tail).cast::<u8>();
        bpf_probe_read_kernel_str(to.cast(), TEXT_MAX as u32 + 1, at.cast())
    };
    if n <= 0 { 0 } else { ((n - 1) & 0xff) as u32 }
}

/// Whether the text at the start of the tail lies under `/user.slice`, where any user makes units of any name.
#[inline(always)]
fn in_user_slice(scratch: *mut Scratch) -> bool {
    let mut i = 0;
    let mut same = true;
    while i < USER_SLICE.len() {
        // SAFETY: constant bound, inside the tail.
        same &= unsafe { (*scratch).rec.tail[i] } == USER_SLICE[i];
        i += 1;
    }
    same
}

#[inline(always)]
fn named(hash: u64, space: u32, runtime: &Runtime) -> Option<&'static CgroupEntry> {
    let key = NumKey { value: hash, generation: runtime.generation, space };
    // SAFETY: a map value.
    NAMES.get_ptr(&key).map(|p| unsafe { &*p })
}

/// `cgroup_mkdir(cgrp, path)`: kernel/cgroup/cgroup.c.
#[btf_tracepoint(function = "cgroup_mkdir")]
fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup: Ptr = ctx.arg(0);
    let path: Ptr = ctx.arg(1);
    let Some(runtime) = runtime() else { return 0 };
    if runtime.flags & RUN_CGROUP_RULES == 0 {
        return 0;
    }
    let id = v2_id(cgroup);
    let scratch = scratch_of(current());
    if id == 0 || scratch.is_null() {
        return 0;
    }
    let len = read_text(scratch, path);
    let hash = text_hash_at(scratch, len);
    let system = !in_user_slice(scratch);
    let mut found = named(hash, NAME_CGROUP_PATH, runtime);
    if found.is_none() && system && g::O_KN_NAME.load() != ABSENT {
        let len = read_text(scratch, pointer(pointer(cgroup, &g::O_CGROUP_ID), &g::O_KN_NAME));
        found = named(text_hash_at(scratch, len), NAME_CGROUP_LEAF, runtime);
    }
    if found.is_none() && g::O_CGROUP_PARENT.load() != ABSENT {
        // Inside a cgroup that means something: `self` is the first member of `struct cgroup`, so the parent's css is
        // the parent.
        let parent = v2_id(pointer(cgroup, &g::O_CGROUP_PARENT));
        let key = NumKey { value: parent, generation: runtime.generation, space: 0 };
        // SAFETY: a map value.
        found = CGROUPS.get_ptr(&key).map(|p| unsafe { &*p });
    }
    if let Some(entry) = found {
        let key = NumKey { value: id, generation: runtime.generation, space: 0 };
        let copy = *entry;
        if CGROUPS.insert(&key, &copy, 0).is_err() {
            lose(copy.agent, Kind::Bound as u16, LossReason::CgroupsFull);
        }
    }
    0
}

/// `cgroup_rmdir(cgrp, path)`: kernel/cgroup/cgroup.c.
#[btf_tracepoint(function = "cgroup_rmdir")]
fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    let Some(runtime) = runtime() else { return 0 };
    if runtime.flags & RUN_CGROUP_RULES != 0 {
        let key = NumKey { value: v2_id(ctx.arg(0)), generation: runtime.generation, space: 0 };
        let _absent = CGROUPS.remove(&key);
    }
    0
}

/// `cgroup_attach_task(dst, path, task, threadgroup)`: kernel/cgroup/cgroup.c; fires once, for the leader.
#[btf_tracepoint(function = "cgroup_attach_task")]
fn cgroup_attach(ctx: BtfTracePointContext) -> i32 {
    let task: *mut task_struct = ctx.arg(2);
    let Some(runtime) = runtime() else { return 0 };
    if runtime.flags & RUN_CGROUP_RULES == 0 {
        return 0;
    }
    let slot = tag_of(task);
    // SAFETY: checked for null before the read.
    if !slot.is_null() && unsafe { (*slot).agent } != 0 {
        return 0;
    }
    let id = v2_id(ctx.arg(0));
    let key = NumKey { value: id, generation: runtime.generation, space: 0 };
    // SAFETY: a map value.
    let entry = CGROUPS.get_ptr(&key).map(|p| unsafe { &*p });
    let t = task.cast_const().cast::<u8>();
    let uid = field(pointer(t, &g::O_TASK_CRED), &g::O_CRED_UID);
    let found = by_cgroup(entry, uid);
    if !binds(found.agent) {
        return 0;
    }
    let by = found.bound_by as u8;
    let mut tag = TaskTag { agent: found.agent, bound_by: by, root_by: by, since: now(), ..TaskTag::NONE };
    note_ids(task, &mut tag);
    if !set_tag(task, &tag) {
        lose(tag.agent, Kind::Bound as u16, LossReason::TagFailed);
        return 0;
    }
    enter_proc(field(t, &g::O_TASK_TGID), leader_start(task), &tag);
    if telling(runtime) {
        send_small(&foreign_head(task, &tag, Kind::Bound, id), &BoundBody { before: 0, reserved: 0 }, true);
    }
    0
}
