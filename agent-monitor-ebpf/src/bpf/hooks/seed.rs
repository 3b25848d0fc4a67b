//! The task iterator: binds the threads of processes that the daemon names, and lists every task.

use agent_monitor_ebpf::task::{BackfillEntry, REPLACE_SESSION, TaskLine, TaskTag};
use aya_ebpf::{bindings::task_struct, helpers::generated::bpf_seq_write};

use crate::bpf::{
    globals as g,
    maps::BACKFILL,
    read::{field, leader_start, pointer},
    tag::{enter_proc, held_of, note_ids, set_tag, tag_of},
};

/// `struct bpf_iter__task`, kernel/bpf/task_iter.c.
#[repr(C)]
struct IterTask {
    meta: *mut IterMeta,
    task: *mut task_struct,
}

/// `struct bpf_iter_meta`, include/linux/bpf.h.
#[repr(C)]
struct IterMeta {
    seq: *mut aya_ebpf::bindings::seq_file,
    session: u64,
    number: u64,
}

/// Called for every task, and once more with a null task at the end.
#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
extern "C" fn seed_tasks(ctx: *mut IterTask) -> i32 {
    // SAFETY: the verifier types the context.
    let (meta, task) = unsafe { ((*ctx).meta, (*ctx).task) };
    if task.is_null() {
        return 0;
    }
    let t = task.cast_const().cast::<u8>();
    let tgid: u32 = field(t, &g::O_TASK_TGID);
    let start = leader_start(task);
    if let Some(entry) = BACKFILL.get_ptr_mut(&tgid) {
        apply(task, entry, tgid, start);
    }
    let parent = pointer(pointer(t, &g::O_TASK_LEADER), &g::O_TASK_PARENT);
    let slot = tag_of(task);
    let line = TaskLine {
        start,
        parent_start: leader_start(parent.cast()),
        held: held_of(task),
        tag: if slot.is_null() {
            TaskTag::NONE
        } else {
            // SAFETY: checked for null.
            unsafe { *slot }
        },
        tgid,
        tid: field(t, &g::O_TASK_PID),
        parent_tgid: field(parent, &g::O_TASK_TGID),
        uid: field(pointer(t, &g::O_TASK_CRED), &g::O_CRED_UID),
    };
    // SAFETY: the verifier types `seq`; the line is on the stack.
    unsafe {
        bpf_seq_write((*meta).seq, (&raw const line).cast(), size_of::<TaskLine>() as u32);
    }
    0
}

/// Gives a task that belongs to the entry's agent its session. The task may become another agent's at its exec in this very
/// moment: then it is not its session.
///
/// # Safety
/// The entry is a map value; the slot may be null.
#[inline(always)]
unsafe fn enter_session(slot: *mut TaskTag, entry: *mut BackfillEntry, tgid: u32, start: u64) {
    // SAFETY: by the caller; the slot is checked.
    unsafe {
        let wanted = (*entry).tag;
        if slot.is_null() || (*slot).agent != wanted.agent {
            return;
        }
        (&raw mut (*slot).session).write_volatile(wanted.session);
        if (&raw const (*slot).agent).read_volatile() != wanted.agent {
            (&raw mut (*slot).session).write_volatile(0);
            return;
        }
        (*entry).tagged += 1;
        enter_proc(tgid, start, &*slot);
    }
}

#[inline(always)]
fn apply(task: *mut task_struct, entry: *mut BackfillEntry, tgid: u32, start: u64) {
    // SAFETY: a map value.
    unsafe {
        if (*entry).start != start {
            return;
        }
        let slot = tag_of(task);
        if (*entry).replace == REPLACE_SESSION {
            enter_session(slot, entry, tgid, start);
            return;
        }
        if !slot.is_null() && (*slot).agent != 0 && (*entry).replace == 0 {
            return;
        }
        let mut tag = (*entry).tag;
        note_ids(task, &mut tag);
        if set_tag(task, &tag) {
            (*entry).tagged += 1;
            if tag.agent == 0 {
                let _absent = crate::bpf::maps::PROCS.remove(&tgid);
            } else {
                enter_proc(tgid, start, &tag);
            }
        }
    }
}
