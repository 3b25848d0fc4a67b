//! Bindings in task storage and in the table of bound processes, and who the actor of a hook is.

use agent_monitor_ebpf::{
    Kind,
    config::{RUN_POLICY, Runtime, UNATTRIBUTED_ALL},
    fields::ABSENT,
    loss::LossReason,
    path::HashKey,
    policy::{AgentKey, AgentPolicy, POLICY_ENFORCE},
    task::{ProcEntry, TaskTag},
};
use aya_ebpf::{
    bindings::task_struct,
    helpers::generated::{bpf_loop, bpf_task_storage_delete, bpf_task_storage_get},
};

use super::{
    emit::lose,
    globals as g,
    maps::{POLICIES, PROCS, RUNTIME, SCRATCH, SESSIONS, TASKS},
    read::{current, field, ids, now, pointer},
    scratch::Scratch,
};

const CREATE: u64 = 1;

/// Whether a task may have anything in its storage (include/linux/sched.h `bpf_storage`, since 5.11). Read without a helper:
/// most acts are of tasks that have nothing, and cost no more than this.
#[inline(always)]
fn may_have_storage(task: *mut task_struct) -> bool {
    let offset = g::O_TASK_STORAGE.load();
    if offset == ABSENT {
        return true;
    }
    let field = task.cast::<u8>().wrapping_add(offset as usize).cast::<u64>();
    // SAFETY: the verifier knows the task and the constant offset, and checks that a field lies there.
    unsafe { field.read_volatile() != 0 }
}

/// The binding of a task, null for none.
#[inline(always)]
pub(crate) fn tag_of(task: *mut task_struct) -> *mut TaskTag {
    if !may_have_storage(task) {
        return core::ptr::null_mut();
    }
    // SAFETY: the map is task storage and the task comes from the verifier's hand.
    unsafe {
        bpf_task_storage_get((&raw const TASKS).cast_mut().cast(), task, core::ptr::null_mut(), 0).cast()
    }
}

/// Notes a task's present ids in its binding.
#[inline(always)]
pub(crate) fn note_ids(task: *const task_struct, tag: &mut TaskTag) {
    let cred = pointer(task.cast(), &g::O_TASK_CRED);
    tag.uid = field(cred, &g::O_CRED_UID);
    tag.euid = field(cred, &g::O_CRED_EUID);
    tag.gid = field(cred, &g::O_CRED_GID);
    tag.egid = field(cred, &g::O_CRED_EGID);
}

/// How often memory of a task is asked for. The kernel gives it from a reserve of few pieces per CPU that it fills again as
/// soon as one was taken (kernel/bpf/memalloc.c, since 6.4), or under a lock that it only tries (`kmalloc_nolock`, since
/// 6.19): who asks again gets it, in microseconds unless the host has no memory at all, and then this ends after about a
/// millisecond.
const TRIES: u32 = 4096;

/// What the steps of asking for a binding's memory carry.
#[repr(C)]
struct Tagging {
    task: *mut task_struct,
    tag: *const TaskTag,
    done: u32,
    reserved: u32,
}

/// Makes a binding, or finds it; null when there was no memory. A fresh one equals `tag`.
#[inline(always)]
fn try_tag(task: *mut task_struct, tag: *const TaskTag) -> *mut TaskTag {
    // SAFETY: as above; the initial value is copied by the helper.
    unsafe {
        bpf_task_storage_get((&raw const TASKS).cast_mut().cast(), task, tag.cast_mut().cast(), CREATE).cast()
    }
}

unsafe extern "C" fn tag_step(_i: u64, tagging: *mut Tagging) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let t = unsafe { &mut *tagging };
    let slot = try_tag(t.task, t.tag);
    if slot.is_null() {
        return 0;
    }
    // SAFETY: checked for null.
    unsafe { *slot = *t.tag };
    t.done = 1;
    1
}

/// Gives a task its binding, replacing an older one. False when there was no memory.
#[inline(always)]
pub(crate) fn set_tag(task: *mut task_struct, tag: &TaskTag) -> bool {
    let slot = try_tag(task, tag);
    if slot.is_null() {
        return tag_again(task, tag);
    }
    // SAFETY: checked for null. An existing value is overwritten; a fresh one already equals it.
    unsafe { *slot = *tag };
    true
}

/// The same until there is memory. Apart, as [`ask_again`].
#[inline(never)]
fn tag_again(task: *mut task_struct, tag: *const TaskTag) -> bool {
    let mut tagging = Tagging { task, tag, done: 0, reserved: 0 };
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the call.
    unsafe {
        bpf_loop(TRIES, tag_step as *const () as *mut _, (&raw mut tagging).cast(), 0);
    }
    tagging.done != 0
}

/// The running task's working memory, made on first use; null when there was no memory.
#[inline(always)]
pub(crate) fn scratch_of(task: *mut task_struct) -> *mut Scratch {
    let scratch = try_scratch(task);
    if !scratch.is_null() {
        return scratch;
    }
    ask_again();
    try_scratch(task)
}

/// Asks for the running task's working memory until there is some. Apart, for the stack of some programs is full.
#[inline(never)]
fn ask_again() {
    // SAFETY: the callback has the signature bpf_loop wants; it needs no context.
    unsafe {
        bpf_loop(TRIES, scratch_step as *const () as *mut _, core::ptr::null_mut(), 0);
    }
}

unsafe extern "C" fn scratch_step(_i: u64, _none: *mut u64) -> i64 {
    i64::from(!try_scratch(current()).is_null())
}

#[inline(always)]
fn try_scratch(task: *mut task_struct) -> *mut Scratch {
    // SAFETY: as in `tag_of`.
    unsafe {
        bpf_task_storage_get((&raw const SCRATCH).cast_mut().cast(), task, core::ptr::null_mut(), CREATE)
            .cast()
    }
}

/// Digest of the act that a task is held at, 0 for none.
#[inline(always)]
pub(crate) fn held_of(task: *mut task_struct) -> u64 {
    let scratch = scratch_if_any(task);
    // SAFETY: checked for null.
    if scratch.is_null() { 0 } else { unsafe { (*scratch).held } }
}

/// Gives back the working memory of a task without an agent, which is asked for it at its next exec at the earliest. Then its
/// storage is empty, and [`may_have_storage`] says so.
#[inline(always)]
pub(crate) fn give_back(task: *mut task_struct) {
    // SAFETY: as in `tag_of`. It may fail, and then the task has it longer.
    unsafe { bpf_task_storage_delete((&raw const SCRATCH).cast_mut().cast(), task) };
}

/// A task's working memory, null where it has none yet.
#[inline(always)]
pub(crate) fn scratch_if_any(task: *mut task_struct) -> *mut Scratch {
    // SAFETY: as in `tag_of`.
    unsafe {
        bpf_task_storage_get((&raw const SCRATCH).cast_mut().cast(), task, core::ptr::null_mut(), 0).cast()
    }
}

/// Enters a process into the table of bound processes; whether there was room. At level partial the process ends before its
/// first instruction when there was none and its agent is enforced; at level full the hooks do not need the table.
#[inline(always)]
pub(crate) fn enter_proc(tgid: u32, start: u64, tag: &TaskTag) -> bool {
    let entry = ProcEntry { start, tag: *tag };
    let entered = PROCS.insert(&tgid, &entry, 0).is_ok();
    if !entered {
        lose(tag.agent, Kind::Fork as u16, LossReason::ProcsFull);
    }
    entered
}

/// The daemon's settings.
#[inline(always)]
pub(crate) fn runtime() -> Option<&'static Runtime> {
    RUNTIME.get(0)
}

/// The secret words of the path hash.
#[inline(always)]
pub(crate) fn hash_key() -> HashKey {
    runtime().map_or(HashKey { k0: 0, k1: 1 }, |r| HashKey { k0: r.k0, k1: r.k1 })
}

/// Whether this program set is the one that tells.
#[inline(always)]
pub(crate) fn telling(runtime: &Runtime) -> bool {
    runtime.program_set == g::PROGRAM_SET.load()
}

/// Who acts, when that is to be judged or told. The binding is in the scratch.
pub(crate) struct Actor {
    pub(crate) task: *mut task_struct,
    pub(crate) scratch: *mut Scratch,
    /// What holds for the agent; `None` for an unbound actor and while no scopes are in force.
    pub(crate) policy: Option<&'static AgentPolicy>,
    /// Generation of the scope.
    pub(crate) generation: u32,
}

impl Actor {
    /// The actor's binding.
    #[inline(always)]
    pub(crate) fn tag(&self) -> &'static TaskTag {
        // SAFETY: the scratch was checked for null when the actor was made, and outlives the program.
        unsafe { &(*self.scratch).entry.tag }
    }

    /// The actor's agent, 0 for none.
    #[inline(always)]
    pub(crate) fn agent(&self) -> u32 {
        self.tag().agent
    }
}

/// Copies a binding, or none, into a scratch.
#[inline(always)]
pub(crate) fn copy_tag(to: *mut TaskTag, slot: *const TaskTag) {
    // SAFETY: both are map values checked for null by the caller or here.
    unsafe {
        if slot.is_null() {
            clear_tag(to);
        } else {
            *to = *slot;
        }
    }
}

/// No binding, word by word: `memset` of this target goes byte by byte.
#[inline(always)]
pub(crate) fn clear_tag(to: *mut TaskTag) {
    let words = to.cast::<u64>();
    let mut i = 0;
    while i < size_of::<TaskTag>() / 8 {
        // SAFETY: inside the tag.
        unsafe { words.add(i).write_volatile(0) };
        i += 1;
    }
}

/// The scope of an agent, in the generation in force.
#[inline(always)]
pub(crate) fn policy_of(agent: u32, generation: u32) -> Option<&'static AgentPolicy> {
    let key = AgentKey { agent, generation };
    // SAFETY: a map value; entries are never changed while their generation is in force.
    POLICIES.get_ptr(&key).map(|p| unsafe { &*p })
}

/// Notes what holds for the session of the actor. One that is not in the table has ended.
#[inline(always)]
fn enter_session(scratch: *mut Scratch) {
    // SAFETY: checked for null by the caller.
    let session = unsafe { (&raw const (*scratch).entry.tag.session).read_volatile() };
    let (mut policy, mut ended) = (0, 0);
    if session != 0 {
        ended = 1;
        // Looked up without a lock while the daemon changes the table: what is not found is looked up once more.
        let mut found = SESSIONS.get_ptr(&session);
        if found.is_none() {
            found = SESSIONS.get_ptr(&session);
        }
        if let Some(entry) = found {
            // SAFETY: a map value.
            unsafe {
                policy = (*entry).policy;
                ended = u32::from((*entry).ended != 0 || (*entry).expires <= now());
            }
        }
    }
    // SAFETY: as above.
    unsafe {
        (&raw mut (*scratch).session_policy).write_volatile(policy);
        (&raw mut (*scratch).session_ended).write_volatile(ended);
    }
}

/// The actor of a hook that runs in the acting task. `Err` is what the hook returns when there is nothing to judge or
/// tell, at the cost of one look-up; it refuses when a bound actor cannot be judged.
#[inline(always)]
pub(crate) fn actor(kind: Kind) -> Result<Actor, i32> {
    let task = current();
    let slot = tag_of(task);
    let all = g::UNATTRIBUTED.load() >= UNATTRIBUTED_ALL;
    if slot.is_null() && !all {
        return Err(0);
    }
    // SAFETY: checked for null.
    let agent = if slot.is_null() { 0 } else { unsafe { (*slot).agent } };
    if agent == 0 && !all {
        return Err(0);
    }
    let Some(runtime) = runtime() else { return Err(0) };
    let tells = telling(runtime);
    if agent == 0 && (!tells || ids().0 == runtime.daemon_tgid) {
        return Err(0);
    }
    let generation = runtime.generation;
    let judged = agent != 0 && runtime.flags & RUN_POLICY != 0;
    let policy = if judged { policy_of(agent, generation) } else { None };
    let scratch = scratch_of(task);
    if scratch.is_null() {
        lose(agent, kind as u16, LossReason::Scratch);
        let refuse = match policy {
            Some(policy) => policy.flags & POLICY_ENFORCE != 0,
            None => judged,
        };
        return Err(if refuse { -super::judge::EACCES } else { 0 });
    }
    if judged && policy.is_none() {
        super::judge::missing(kind, agent);
        return Err(-super::judge::EACCES);
    }
    // SAFETY: checked for null.
    unsafe {
        copy_tag(&raw mut (*scratch).entry.tag, slot);
        (*scratch).tells = u32::from(tells);
        (*scratch).decision = 0;
        (*scratch).digest = 0;
        (*scratch).used = 0;
        (*scratch).by_people = 0;
        (*scratch).covered = 0;
        (*scratch).mute = 0;
        (*scratch).generation = generation;
        (*scratch).judged = 0;
    }
    if let Some(policy) = policy {
        // SAFETY: as above.
        unsafe {
            (*scratch).judged = 1;
            (*scratch).expires = policy.expires;
            (*scratch).life = policy.life;
            (*scratch).policy_flags = policy.flags;
        }
    }
    enter_session(scratch);
    Ok(Actor { task, scratch, policy, generation })
}
