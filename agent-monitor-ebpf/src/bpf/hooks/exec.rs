//! exec: the script of a shebang program, recognition before the new image's first instruction, and the exec record.

use agent_monitor_ebpf::{
    HEADER_LEN, Header, Kind, Source, Verdict,
    bind::{AS_EXE, CgroupEntry},
    config::{
        RUN_ARGV_RULES, RUN_CGROUP_RULES, RUN_PATH_RULES, RUN_USER_RULES, Runtime, UNATTRIBUTED_ALL,
        UNATTRIBUTED_EXEC,
    },
    event::{ARGS_CHUNK, ARGS_CHUNKS, ARGS_INLINE, ArgChunkBody, ExecBody, Piece, PrivBody, priv_op},
    header::{FLAG_ARGS_CHUNKED, FLAG_ARGS_FAILED, FLAG_ARGS_LOST, FLAG_ARGS_TRUNCATED},
    loss::LossReason,
    path::HashKey,
    people::LIFE_ACTIVE,
    policy::{POLICY_ENFORCE, RULE_DECIDED, ask, decision, stricter},
    task::{SHADOW, TAG_LAUNCH, binds},
};
use aya_ebpf::{
    bindings::task_struct,
    helpers::generated::{bpf_loop, bpf_probe_read_user, bpf_send_signal},
    macros::{btf_tracepoint, lsm},
    programs::{BtfTracePointContext, LsmContext},
};

use super::{
    argv::attempted,
    file::acting,
    script::{ctime_nsec, note_script, script_found, script_piece},
};
use crate::bpf::{
    emit::{begin, body, lose, send_checked, wake_flags, zero},
    globals as g,
    judge::{SIGKILL, hold, place, refusal},
    maps::{EVENTS, PROCS},
    read::{Ptr, current, dentry_id, field, ids, inode_of, leader_start, now, pointer, uid_gid},
    recognise::{Facts, Place, by_cgroup, by_place, by_user, cgroup_entry, condition_bits},
    scratch::{Scratch, tail_at},
    tag::{
        Actor, clear_tag, copy_tag, give_back, note_ids, policy_of, runtime, scratch_of, set_tag, tag_of,
        telling,
    },
    walk::{fold, kernel_text, walk},
};

/// `bprm_check_security(bprm)`: fs/exec.c, once for the file itself and once more for each interpreter. The first file
/// is the script when a second follows. Each must be allowed.
#[lsm(hook = "bprm_check_security")]
fn bprm_check(ctx: LsmContext) -> i32 {
    let bprm: Ptr = ctx.arg(0);
    note_script(bprm);
    judge_exec(bprm)
}

/// Judges one file of an exec. What is allowed is told by the exec itself; a refusal is told here.
#[inline(always)]
fn judge_exec(bprm: Ptr) -> i32 {
    let actor = acting!(Kind::Exec);
    if actor.policy.is_none() {
        return 0;
    }
    let first = pointer(bprm, &g::O_BPRM_FILENAME) == pointer(bprm, &g::O_BPRM_INTERP);
    begin(&actor, Kind::Exec, Source::Lsm);
    let dentry = pointer(pointer(bprm, &g::O_BPRM_FILE), &g::O_FILE_DENTRY);
    let walked = walk(actor.scratch, dentry, 0);
    place(&actor, dentry, &walked, 0, ask::EXEC, false);
    let (dev, ino) = dentry_id(dentry);
    let b: *mut ExecBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction; the scratch was checked for null.
    unsafe {
        let kept = &raw mut (*actor.scratch).exec_decision;
        let found = (&raw const (*actor.scratch).decision).read_volatile();
        let before = if first { 0 } else { kept.read_volatile() };
        kept.write_volatile(stricter(before, found));
        (&raw mut (*actor.scratch).decision).write_volatile(stricter(before, found));
        (*b).exe = walked.piece;
        (*b).exe_dev = dev;
        (*b).exe_ino = ino;
        (*b).argc = field(bprm, &g::O_BPRM_ARGC);
    }
    let (filename, end) = kernel_text(actor.scratch, walked.end, pointer(bprm, &g::O_BPRM_FILENAME));
    // SAFETY: as above.
    unsafe { (*b).filename = filename };
    if first {
        // SAFETY: as above.
        unsafe {
            (*actor.scratch).exec_tickets = [0; 2];
            (*actor.scratch).args_hash = 0;
            (*actor.scratch).exec_passed = 0;
        }
    }
    let end = attempted(&actor, end);
    let refused = refusal(&actor, end);
    // SAFETY: as above.
    unsafe {
        let s = actor.scratch;
        if (*s).by_people != 0 {
            // What people let pass does not count against the files that follow.
            (*s).exec_decision = decision(Verdict::Allow, RULE_DECIDED);
            (*s).exec_passed = inode_of(dentry);
        }
        (*s).exec_verdict = u32::from((*s).rec.head.verdict);
        (*s).exec_rule = (*s).rec.head.rule;
        (*s).exec_flags = u32::from((*s).rec.head.flags);
    }
    // In mode `observe` the exec goes ahead and its own record says what was decided.
    refused
}

/// Does nothing: the daemon loads it to learn whether this kernel takes LSM programs.
#[lsm(hook = "bprm_check_security")]
fn lsm_probe(_ctx: LsmContext) -> i32 {
    0
}

/// `sched_process_exec(task, old_pid, bprm)`: fs/exec.c, after the point of no return, before the image runs.
#[btf_tracepoint(function = "sched_process_exec")]
fn process_exec(ctx: BtfTracePointContext) -> i32 {
    executed(ctx.arg(2))
}

/// The same, attached once more. A program at a tracepoint is left out where it runs already on the same CPU
/// (kernel/trace/bpf_trace.c `__bpf_trace_run`); since tracepoints can be preempted (seen on 7.3) that is so whenever another
/// exec was preempted in the middle of it. Who comes second finds everything done.
#[btf_tracepoint(function = "sched_process_exec")]
fn process_exec_again(ctx: BtfTracePointContext) -> i32 {
    executed(ctx.arg(2))
}

/// Whether the other program has seen this exec, from the address space, which is a new one with each exec.
#[inline(always)]
fn seen(scratch: *mut Scratch, task: *const task_struct) -> bool {
    let mm = pointer(task.cast(), &g::O_TASK_MM) as u64;
    let at = (g::PROGRAM_SET.load() & 1) as usize;
    // SAFETY: checked for null by the caller; masked index.
    unsafe {
        let slot = (&raw mut (*scratch).exec_mm).cast::<u64>().add(at);
        let before = slot.read_volatile();
        slot.write_volatile(mm);
        before == mm
    }
}

#[inline(always)]
fn executed(bprm: Ptr) -> i32 {
    let task = current();
    let slot = tag_of(task);
    // SAFETY: checked for null.
    let agent = if slot.is_null() { 0 } else { unsafe { (*slot).agent } };
    let Some(runtime) = runtime() else { return 0 };
    let wanted = RUN_PATH_RULES | RUN_ARGV_RULES;
    let blind = agent == 0 && g::UNATTRIBUTED.load() < UNATTRIBUTED_EXEC && runtime.flags & wanted == 0;
    let has_rules = runtime.flags & (wanted | RUN_CGROUP_RULES | RUN_USER_RULES) != 0;
    if blind && !has_rules {
        return 0;
    }
    let scratch = scratch_of(task);
    if scratch.is_null() {
        lose(agent, Kind::Exec as u16, LossReason::Scratch);
        return 0;
    }
    if seen(scratch, task) {
        if agent == 0 && g::UNATTRIBUTED.load() < UNATTRIBUTED_ALL {
            give_back(task);
        }
        return 0;
    }
    // SAFETY: checked for null.
    unsafe {
        copy_tag(&raw mut (*scratch).old, slot);
        copy_tag(&raw mut (*scratch).entry.tag, slot);
        (*scratch).found_agent = 0;
        (*scratch).found_by = 0;
    }
    // SAFETY: checked for null.
    unsafe { (*scratch).tells = u32::from(telling(runtime)) };
    if agent != 0 {
        hold::exec_done(scratch, agent, ids().0, leader_start(task));
    }
    // SAFETY: checked for null. Told, not judged.
    unsafe { (*scratch).judged = 0 };
    let actor = Actor { task, scratch, policy: None, generation: 0 };
    if blind {
        plain(&actor, runtime, cgroup_entry(runtime), uid_gid().0);
        bind(&actor);
        return 0;
    }
    recognise_and_tell(&actor, runtime, bprm);
    0
}

/// By cgroup and user only: what needs no look at the image. Goes before what only is a known program.
#[inline(always)]
fn plain(actor: &Actor, runtime: &Runtime, entry: Option<&'static CgroupEntry>, uid: u32) {
    let mut found = by_cgroup(entry, uid);
    if found.agent == 0 {
        found = by_user(runtime, uid);
    }
    if found.agent == 0 {
        return;
    }
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe {
        (*actor.scratch).found_agent = found.agent;
        (*actor.scratch).found_by = found.bound_by;
    }
}

/// Gives the task the identity found, if it is another one; the agent it had becomes the delegator.
#[inline(always)]
fn bind(actor: &Actor) {
    let s = actor.scratch;
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe {
        let (found, old) = ((*s).found_agent, (*s).old.agent);
        if !binds(found) || found == old || (found == SHADOW && old != 0) {
            return;
        }
        let by = (*s).found_by as u8;
        let tag = &raw mut (*s).entry.tag;
        clear_tag(tag);
        (*tag).since = now();
        (*tag).agent = found;
        (*tag).delegator = old;
        (*tag).bound_by = by;
        (*tag).root_by = by;
        note_ids(actor.task, &mut *tag);
        let bound = set_tag(actor.task, &*tag);
        refuse(found, bound);
        if !bound {
            lose(found, Kind::Exec as u16, LossReason::TagFailed);
            return;
        }
        (*s).entry.start = leader_start(actor.task);
        let tgid = ids().0;
        if PROCS.insert(&tgid, &(*s).entry, 0).is_err() {
            lose(found, Kind::Exec as u16, LossReason::ProcsFull);
        }
    }
}

/// Nothing new starts under an identity that is suspended, retired or over, nor without the binding that enforcement needs:
/// it ends before its first instruction.
#[inline(always)]
fn refuse(agent: u32, bound: bool) {
    let Some(runtime) = runtime() else { return };
    let Some(policy) = policy_of(agent, runtime.generation) else { return };
    let over = policy.flags & POLICY_ENFORCE != 0 && (!bound || now() >= policy.expires);
    if policy.life != LIFE_ACTIVE || over {
        // SAFETY: no pointers. It cannot fail for the running task.
        unsafe { bpf_send_signal(SIGKILL) };
    }
}

#[inline(always)]
fn recognise_and_tell(actor: &Actor, runtime: &Runtime, bprm: Ptr) {
    let scratch = actor.scratch;
    let key = HashKey { k0: runtime.k0, k1: runtime.k1 };
    let uid = uid_gid().0;
    let entry = cgroup_entry(runtime);
    let facts = Facts { uid, generation: runtime.generation, cgroup_rules: entry.map_or(0, condition_bits) };
    let is_script = pointer(bprm, &g::O_BPRM_FILENAME) != pointer(bprm, &g::O_BPRM_INTERP);
    if is_script {
        script_found(scratch, bprm, &facts);
    }
    let dentry = pointer(pointer(bprm, &g::O_BPRM_FILE), &g::O_FILE_DENTRY);
    let walked = walk(scratch, dentry, 0);
    let place = place_of(scratch, key, dentry, walked.depth);
    by_place(scratch, &place, AS_EXE, &facts);
    // SAFETY: scratch was checked for null when the actor was made.
    let (launched, was, found) =
        unsafe { ((*scratch).old.flags & TAG_LAUNCH != 0, (*scratch).old.agent, (*scratch).found_agent) };
    if launched {
        // SAFETY: as above.
        unsafe { (*scratch).entry.tag.flags &= !TAG_LAUNCH };
        // Cannot fail: the slot exists.
        let _kept = set_tag(actor.task, actor.tag());
    } else {
        if was == 0 && (found == 0 || found == SHADOW) {
            plain(actor, runtime, entry, uid);
        }
        bind(actor);
    }
    if !telling(runtime) || (actor.agent() == 0 && untold(actor, runtime)) {
        return;
    }
    begin(actor, Kind::Exec, Source::TpBtf);
    let b: *mut ExecBody = body(scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).exe = walked.piece;
        (*b).exe_dev = place.dev;
        (*b).exe_ino = place.ino;
        (*b).exe_ctime_sec = place.ctime_sec;
        (*b).exe_ctime_nsec = place.ctime_nsec;
        (*b).before = was;
        (*b).argc = field(bprm, &g::O_BPRM_ARGC);
    }
    stamp_exec(actor);
    tell_exec(actor, bprm, walked.end, is_script);
    note_euid(actor);
}

/// Writes what `bprm_check_security` decided for this exec into its record. Copies without a branch: this is the longest
/// program, and each branch would double what the verifier walks.
#[inline(always)]
fn stamp_exec(actor: &Actor) {
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe {
        let s = actor.scratch;
        (*s).rec.head.verdict = (*s).exec_verdict as u8;
        (*s).rec.head.rule = (*s).exec_rule;
        (*s).rec.head.flags |= (*s).exec_flags as u16;
    }
}

/// Whether the exec of an unbound process is nobody's business.
#[inline(always)]
fn untold(actor: &Actor, runtime: &Runtime) -> bool {
    ids().0 == runtime.daemon_tgid
        || parent_tgid(actor.task) == runtime.daemon_tgid
        || (g::UNATTRIBUTED.load() < UNATTRIBUTED_EXEC && runtime.flags & RUN_ARGV_RULES == 0)
}

/// The daemon's own children (its canaries) are not told while they belong to nobody.
#[inline(always)]
fn parent_tgid(task: *const task_struct) -> u32 {
    field(pointer(task.cast(), &g::O_TASK_PARENT), &g::O_TASK_TGID)
}

/// A set-user-ID image changes the euid at its exec.
#[inline(always)]
fn note_euid(actor: &Actor) {
    let euid: u32 = field(pointer(actor.task.cast_const().cast(), &g::O_TASK_CRED), &g::O_CRED_EUID);
    // SAFETY: scratch was checked for null when the actor was made.
    let (was, old) = unsafe { ((*actor.scratch).old.agent, (*actor.scratch).old.euid) };
    if was == 0 || euid == old {
        return;
    }
    begin(actor, Kind::PrivSetuid, Source::TpBtf);
    let b: *mut PrivBody = body(actor.scratch);
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).op = priv_op::SUID_EXEC;
        (*b).args[0] = u64::from(old);
        (*b).args[1] = u64::from(euid);
    }
    send_checked(actor.scratch, 0);
    // SAFETY: as above.
    unsafe { note_ids(actor.task, &mut (*actor.scratch).entry.tag) };
    // Cannot fail: the slot exists.
    let _kept = set_tag(actor.task, actor.tag());
}

#[inline(always)]
fn place_of(scratch: *mut Scratch, key: HashKey, dentry: Ptr, depth: u32) -> Place {
    let hash = fold(scratch, key, depth);
    let (dev, ino) = dentry_id(dentry);
    let inode = pointer(dentry, &g::O_DENTRY_INODE);
    Place { hash, ino, dev, ctime_sec: field(inode, &g::O_INODE_CTIME_SEC), ctime_nsec: ctime_nsec(inode) }
}

/// Adds working directory, file name, script and arguments to the record and sends it.
#[inline(always)]
fn tell_exec(actor: &Actor, bprm: Ptr, end: u32, is_script: bool) {
    let scratch = actor.scratch;
    let b: *mut ExecBody = body(scratch);
    let pwd = pointer(pointer(actor.task.cast_const().cast(), &g::O_TASK_FS), &g::O_FS_PWD);
    let cwd = walk(scratch, pwd, end);
    let parent = pointer(actor.task.cast_const().cast(), &g::O_TASK_PARENT);
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).cwd = cwd.piece;
        (*b).cwd_dev = dentry_id(pwd).0;
        (*b).parent_tgid = field(parent, &g::O_TASK_TGID);
        (*b).parent_start = leader_start(parent.cast());
        (*b).euid_before = (*scratch).old.euid;
    }
    let (filename, end) = kernel_text(scratch, cwd.end, pointer(bprm, &g::O_BPRM_FILENAME));
    // SAFETY: as above.
    unsafe { (*b).filename = filename };
    // SAFETY: as above.
    let shown = unsafe { (*scratch).script_seen } == 1;
    let end = if is_script && shown { script_piece(scratch, end) } else { end };
    // SAFETY: as above.
    unsafe { (*scratch).script_seen = 0 };
    let end = args(actor, end);
    send_checked(actor.scratch, end);
}

/// Arguments: inline when short, else ahead in chunks.
#[inline(always)]
fn args(actor: &Actor, off: u32) -> u32 {
    let b: *mut ExecBody = body(actor.scratch);
    let mm = pointer(actor.task.cast_const().cast(), &g::O_TASK_MM);
    let (start, end): (u64, u64) = (field(mm, &g::O_MM_ARG_START), field(mm, &g::O_MM_ARG_END));
    // Through memory: the verifier then knows the upper half of the register to be zero.
    // SAFETY: the body belongs to the record under construction.
    let total = unsafe {
        (*b).args_total = end.saturating_sub(start) as u32;
        (&raw const (*b).args_total).read_volatile()
    };
    let mut flags = 0;
    let mut piece = Piece { len: 0, depth: 0, flags: 0 };
    let mut off = off;
    let room = tail_at(actor.scratch, off, ARGS_INLINE);
    if total <= ARGS_INLINE as u32
        && let Some(to) = room
    {
        // SAFETY: bounded above.
        let failed = unsafe { bpf_probe_read_user(to.cast(), total, start as *const _) };
        if failed == 0 {
            piece.len = total as u16;
            off += total;
        } else {
            flags = FLAG_ARGS_FAILED;
        }
    } else {
        flags = chunked(actor, start, total);
    }
    // SAFETY: the body and head belong to the record under construction.
    unsafe {
        (*b).args = piece;
        (*actor.scratch).rec.head.flags |= flags;
    }
    off
}

/// What the chunk callback carries.
#[repr(C)]
struct Chunks {
    scratch: *mut Scratch,
    start: u64,
    total: u32,
    flags: u32,
}

/// One chunk as it lies in the ring.
#[repr(C)]
struct ChunkRecord {
    head: Header,
    body: [u64; 14],
    data: [u8; ARGS_CHUNK],
}

unsafe extern "C" fn send_chunk(i: u64, chunks: *mut Chunks) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let c = unsafe { &mut *chunks };
    let offset = (i as u32) * ARGS_CHUNK as u32;
    if offset >= c.total {
        return 1;
    }
    let left = c.total - offset;
    let len = if left < ARGS_CHUNK as u32 { left } else { ARGS_CHUNK as u32 };
    let Some(mut entry) = EVENTS.reserve::<ChunkRecord>(0) else {
        c.flags |= u32::from(FLAG_ARGS_LOST);
        // SAFETY: the scratch was checked for null when the actor was made.
        lose(unsafe { (*c.scratch).entry.tag.agent }, Kind::ArgChunk as u16, LossReason::RingFull);
        return 1;
    };
    let slot = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as the type.
    unsafe {
        // The head of the exec record that follows.
        let from = (&raw const (*c.scratch).rec.head).cast::<u64>();
        let to = (&raw mut (*slot).head).cast::<u64>();
        let mut i = 0;
        while i < HEADER_LEN / 8 {
            to.add(i).write_volatile(from.add(i).read_volatile());
            i += 1;
        }
        (*slot).head.kind = Kind::ArgChunk as u16;
        (*slot).head.total = size_of::<ChunkRecord>() as u32;
        zero(&raw mut (*slot).body);
        let to = (&raw mut (*slot).data).cast::<u8>();
        // Whole chunks, so that the size is a constant; what lies behind the end does not count. The last page may end
        // before the chunk does, then exactly what is left is read.
        let from = c.start + u64::from(offset);
        let mut failed = bpf_probe_read_user(to.cast(), ARGS_CHUNK as u32, from as *const _);
        if failed != 0 && len <= ARGS_CHUNK as u32 {
            failed = bpf_probe_read_user(to.cast(), len, from as *const _);
        }
        let b = ArgChunkBody { offset, len, args_total: c.total, failed: u32::from(failed != 0) };
        *(&raw mut (*slot).body).cast::<ArgChunkBody>() = b;
        if failed != 0 {
            c.flags |= u32::from(FLAG_ARGS_FAILED);
        }
    }
    entry.submit(wake_flags());
    0
}

#[inline(always)]
fn chunked(actor: &Actor, start: u64, total: u32) -> u16 {
    let mut chunks = Chunks { scratch: actor.scratch, start, total, flags: 0 };
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the call.
    unsafe {
        bpf_loop(ARGS_CHUNKS, send_chunk as *const () as *mut _, (&raw mut chunks).cast(), 0);
    }
    let cut = if total > ARGS_CHUNKS * ARGS_CHUNK as u32 { FLAG_ARGS_TRUNCATED } else { 0 };
    FLAG_ARGS_CHUNKED | chunks.flags as u16 | cut
}
