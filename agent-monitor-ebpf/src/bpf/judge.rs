//! Judging: what the scope says about the act in progress, and what the hook returns.
//!
//! A hook begins a record, asks about each thing the act concerns (the strictest answer counts), and ends with
//! [`settle`], which tells the record and gives the return value. Telling never changes the verdict.

use agent_monitor_ebpf::{
    Header, Kind, Verdict,
    decide::{LEVEL_EXACT, LEVEL_EXTENSION, LEVEL_NAME, LEVEL_ROOT, LEVEL_SUBTREE, decide, decide_net},
    event::{PIECE_ANON, PIECE_FAILED, PIECE_TRUNCATED},
    header::{FLAG_ENFORCED, FLAG_JUDGED, FLAG_TAMPER, FLAG_UNKNOWN},
    loss::LossReason,
    path::{DEPTH_MAX, HashKey, mix, root_hash},
    policy::{
        AgentPolicy, EXTENSIONS, NET_PREFIX, NetKey, POLICY_ENFORCE, POLICY_EXACT, POLICY_NAME, PathRule,
        PlaceKey, RULE_MISSING, RULE_SELF, SLOTS, SPACE_ABSTRACT, SPACE_BELOW, SPACE_EXACT, SPACE_EXTENSION,
        SPACE_NAME, SPACE_SUBTREE, decision, kills, permits, rule_of, stricter, verdict_of,
    },
};
use aya_ebpf::{
    helpers::generated::{bpf_loop, bpf_probe_read_kernel, bpf_send_signal},
    maps::lpm_trie::Key,
};

use super::{
    emit::{lose, send, send_urgent},
    globals as g,
    maps::{NETS, PLACES},
    read::{Ptr, dentry_id, field, pointer},
    scratch::{Scratch, tail_at},
    tag::{Actor, runtime},
    walk::{Walked, text_hash_of},
};

/// Bytes of the longest ending that a rule can name.
const ENDING: usize = 64;
/// What a refused caller sees.
pub(crate) const EACCES: i32 = 13;
/// Number of the signal that cannot be caught.
pub(crate) const SIGKILL: u32 = 9;
/// `SB_NOUSER`, include/linux/fs.h: file systems that only the kernel mounts (pipes, sockets, memory files).
const SB_NOUSER: u64 = 1 << 31;

/// Adds a decision to the act's: the stricter one stays.
#[inline(always)]
pub(crate) fn note(actor: &Actor, found: u32) {
    // SAFETY: scratch was checked for null when the actor was made.
    unsafe {
        let slot = &raw mut (*actor.scratch).decision;
        slot.write_volatile(stricter(slot.read_volatile(), found));
    }
}

/// The act is aimed at the monitor: refused whatever the scope says.
#[inline(always)]
pub(crate) fn tamper(actor: &Actor) {
    note(actor, decision(Verdict::Deny, RULE_SELF));
}

/// The scope's word about one power.
#[inline(always)]
pub(crate) fn power(actor: &Actor, power: usize) {
    if let Some(policy) = actor.policy {
        note(actor, policy.privilege[power]);
    }
}

/// The scope's word about what cannot be judged.
#[inline(always)]
pub(crate) fn unknown(actor: &Actor) {
    if let Some(policy) = actor.policy {
        note(actor, policy.unknown);
        // SAFETY: scratch was checked for null when the actor was made.
        unsafe { (*actor.scratch).rec.head.flags |= FLAG_UNKNOWN };
    }
}

/// What the look-up steps carry.
#[repr(C)]
struct Gather {
    scratch: *mut Scratch,
    key: HashKey,
    h: u64,
    depths: u64,
    depth: u32,
    agent: u32,
    dev: u32,
    generation: u32,
}

impl Gather {
    #[inline(always)]
    fn find(&self, hash: u64, dev: u32, space: u32) -> Option<*mut PathRule> {
        let key = PlaceKey { hash, agent: self.agent, dev, generation: self.generation, space };
        PLACES.get_ptr_mut(&key)
    }
}

/// Copies a rule's slots into a level.
#[inline(always)]
fn fill(scratch: *mut Scratch, level: usize, rule: *const PathRule) {
    let mut i = 0;
    while i < SLOTS {
        // SAFETY: both are map values; constant bounds.
        unsafe {
            let to = &raw mut (*scratch).evidence.levels[level][i];
            to.write_volatile((*rule).slots[i]);
        }
        i += 1;
    }
}

unsafe extern "C" fn gather_step(i: u64, gather: *mut Gather) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let f = unsafe { &mut *gather };
    let at = i as u32;
    if f.depths >> (at & 63) & 1 != 0
        && let Some(rule) = f.find(f.h, f.dev, SPACE_SUBTREE)
    {
        fill(f.scratch, LEVEL_SUBTREE, rule);
        // SAFETY: map values.
        unsafe { (*f.scratch).evidence.forced = (*rule).forced };
    }
    if at >= f.depth {
        return 1;
    }
    let index = f.depth.wrapping_sub(1).wrapping_sub(at) as usize & (DEPTH_MAX - 1);
    // SAFETY: masked index.
    f.h = mix(f.key, f.h, unsafe { (*f.scratch).hashes[index] });
    0
}

/// What the extension steps carry.
#[repr(C)]
struct Endings {
    gather: Gather,
    lengths: u64,
    off: u32,
    len: u32,
}

unsafe extern "C" fn ending_step(i: u64, endings: *mut Endings) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let e = unsafe { &mut *endings };
    let length = (e.lengths >> ((i & 7) * 8)) as u32 & 0xff;
    if length == 0 {
        return 1;
    }
    if length > e.len {
        return 0;
    }
    let scratch = e.gather.scratch;
    let Some(from) = tail_at(scratch, e.off + (e.len - length), ENDING) else { return 0 };
    // SAFETY: as many bytes are there and in the ending.
    let hash = unsafe {
        let to = (&raw mut (*scratch).ending).cast::<u8>();
        bpf_probe_read_kernel(to.cast(), ENDING as u32, from.cast());
        text_hash_of(to, e.gather.key, length)
    };
    if let Some(rule) = e.gather.find(hash, 0, SPACE_EXTENSION) {
        let mut slot = 0;
        while slot < SLOTS {
            // SAFETY: map values; constant bounds. The longest ending was looked up first.
            unsafe {
                let to = &raw mut (*scratch).evidence.levels[LEVEL_EXTENSION][slot];
                if to.read_volatile() == 0 {
                    to.write_volatile((*rule).slots[slot]);
                }
            }
            slot += 1;
        }
    }
    0
}

/// Looks up everything about the place that was walked last; its name starts at `off` in the tail.
#[inline(always)]
fn gather(actor: &Actor, policy: &AgentPolicy, dentry: Ptr, walked: &Walked, off: u32, moved_dir: bool) {
    let scratch = actor.scratch;
    let Some(runtime) = runtime() else { return };
    let key = HashKey { k0: runtime.k0, k1: runtime.k1 };
    // SAFETY: constant bounds inside the scratch.
    unsafe {
        let words = (&raw mut (*scratch).evidence).cast::<u64>();
        let mut i = 0;
        while i < size_of::<agent_monitor_ebpf::decide::Evidence>() / 8 {
            words.add(i).write_volatile(0);
            i += 1;
        }
        let mut i = 0;
        while i < SLOTS {
            (&raw mut (*scratch).evidence.levels[LEVEL_ROOT][i]).write_volatile(policy.root[i]);
            i += 1;
        }
    }
    let mut f = Gather {
        scratch,
        key,
        h: root_hash(key),
        depths: policy.depths,
        depth: walked.depth,
        agent: actor.agent(),
        dev: dentry_id(dentry).0,
        generation: actor.generation,
    };
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the call.
    unsafe {
        bpf_loop(DEPTH_MAX as u32 + 1, gather_step as *const () as *mut _, (&raw mut f).cast(), 0);
    }
    if policy.flags & POLICY_EXACT != 0
        && let Some(rule) = f.find(f.h, f.dev, SPACE_EXACT)
    {
        fill(scratch, LEVEL_EXACT, rule);
    }
    if moved_dir && let Some(rule) = f.find(f.h, f.dev, SPACE_BELOW) {
        below(scratch, rule);
    }
    if walked.depth == 0 {
        return;
    }
    // SAFETY: the first component's hash.
    let name = unsafe { (&raw const (*scratch).hashes[0]).read_volatile() };
    if policy.flags & POLICY_NAME != 0
        && let Some(rule) = f.find(name, 0, SPACE_NAME)
    {
        fill(scratch, LEVEL_NAME, rule);
    }
    let lengths = u64::from_le_bytes(policy.extensions);
    if lengths != 0 {
        // SAFETY: the first component's length.
        let len = u32::from(unsafe { (&raw const (*scratch).lens[0]).read_volatile() });
        let mut e = Endings { gather: f, lengths, off, len };
        // SAFETY: as above.
        unsafe {
            bpf_loop(EXTENSIONS as u32, ending_step as *const () as *mut _, (&raw mut e).cast(), 0);
        }
    }
}

#[inline(always)]
fn below(scratch: *mut Scratch, rule: *const PathRule) {
    let mut i = 0;
    while i < SLOTS {
        // SAFETY: map values; constant bounds.
        unsafe { (&raw mut (*scratch).evidence.below[i]).write_volatile((*rule).slots[i]) };
        i += 1;
    }
    // SAFETY: as above.
    unsafe { (*scratch).evidence.forced |= (*rule).forced };
}

/// The contract's decision over the evidence in the scratch.
#[inline(never)]
fn verdict(scratch: *mut Scratch, asked: u32) -> u32 {
    // SAFETY: a map value.
    decide(unsafe { &(*scratch).evidence }, asked)
}

/// Judges the place that was just walked from `dentry`, its names at `off` in the tail.
#[inline(always)]
pub(crate) fn place(actor: &Actor, dentry: Ptr, walked: &Walked, off: u32, asked: u32, moved_dir: bool) {
    let Some(policy) = actor.policy else { return };
    let flags = walked.piece.flags;
    // SAFETY: scratch was checked for null when the actor was made.
    let adrift = unsafe { (&raw const (*actor.scratch).adrift).read_volatile() } != 0;
    if flags & (PIECE_TRUNCATED | PIECE_FAILED) != 0 || flags & PIECE_ANON != 0 || adrift {
        if flags & (PIECE_TRUNCATED | PIECE_FAILED) == 0 && placeless(dentry) {
            if asked & agent_monitor_ebpf::policy::ask::EXEC != 0 {
                unknown(actor);
            }
            return;
        }
        // SAFETY: as above.
        lose(actor.agent(), unsafe { (*actor.scratch).rec.head.kind }, LossReason::PlaceUnknown);
        unknown(actor);
        return;
    }
    gather(actor, policy, dentry, walked, off, moved_dir);
    note(actor, verdict(actor.scratch, asked));
}

/// Whether the object lives where no path leads: pipes, sockets, memory files.
#[inline(always)]
pub(crate) fn placeless(dentry: Ptr) -> bool {
    field::<u64>(pointer(dentry, &g::O_DENTRY_SB), &g::O_SB_FLAGS) & SB_NOUSER != 0
}

/// Judges an abstract UNIX name of `len` bytes at the start of the tail.
#[inline(always)]
pub(crate) fn abstract_socket(actor: &Actor, hash: u64, asked: u32) {
    let Some(policy) = actor.policy else { return };
    let key =
        PlaceKey { hash, agent: actor.agent(), dev: 0, generation: actor.generation, space: SPACE_ABSTRACT };
    by_key(actor, policy, &key, asked);
}

/// Judges something that has one key and no levels but the root.
#[inline(always)]
pub(crate) fn by_key(actor: &Actor, policy: &AgentPolicy, key: &PlaceKey, asked: u32) {
    let mut slot = agent_monitor_ebpf::policy::slot::UNIX_CONNECT;
    while slot < SLOTS {
        if asked >> slot & 1 != 0 {
            let mut found = 0;
            if let Some(rule) = PLACES.get_ptr(key) {
                // SAFETY: a map value.
                found = unsafe { (*rule).slots[slot] };
            }
            note(actor, if found == 0 { policy.root[slot] } else { found });
        }
        slot += 1;
    }
}

/// Judges an internet peer or own address: `addr` as records hold it (IPv4 in the first four bytes).
#[inline(always)]
pub(crate) fn inet(actor: &Actor, v6: bool, addr: &[u8; 16], port: u16, protocol: u16, action: u8) {
    let Some(policy) = actor.policy else { return };
    note(actor, inet_decision(policy, actor.agent(), actor.generation, v6, addr, port, protocol, action));
}

/// The decision about an internet address.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "inlined; a struct would be one more copy on a 512-byte stack")]
pub(crate) fn inet_decision(
    policy: &AgentPolicy,
    agent: u32,
    generation: u32,
    v6: bool,
    addr: &[u8; 16],
    port: u16,
    protocol: u16,
    action: u8,
) -> u32 {
    let mut key = Key::new(NET_PREFIX + 128, NetKey { agent, generation, addr: *addr });
    if !v6 {
        let mut i = 0;
        while i < 4 {
            key.data.addr[12 + i] = addr[i];
            key.data.addr[i] = 0;
            key.data.addr[4 + i] = 0;
            i += 1;
        }
        key.data.addr[8] = 0;
        key.data.addr[9] = 0;
        key.data.addr[10] = 0xff;
        key.data.addr[11] = 0xff;
    }
    // Multipath TCP (262) is TCP to every rule.
    let protocol = if protocol == 262 { 6 } else { protocol as u8 };
    let mut found = 0;
    if let Some(set) = NETS.get(&key) {
        found = decide_net(set, action, protocol, port);
    }
    if found == 0 { policy.net } else { found }
}

/// Whether a decision about an agent is carried out, and not only told.
#[inline(always)]
pub(crate) fn enforced(policy: &AgentPolicy, found: u32) -> bool {
    policy.flags & POLICY_ENFORCE != 0 || rule_of(found) == RULE_SELF || rule_of(found) == RULE_MISSING
}

/// Writes the decision into a record's head; whether the act is to be refused.
#[inline(always)]
pub(crate) fn stamp(
    head: *mut Header,
    policy: &AgentPolicy,
    generation: u32,
    found: u32,
    errno: i32,
) -> bool {
    let refuse = !permits(found) && enforced(policy, found);
    // SAFETY: the head belongs to the record under construction.
    unsafe {
        (*head).verdict = verdict_of(found);
        (*head).rule = generation << 16 | u32::from(rule_of(found));
        (*head).flags |= FLAG_JUDGED;
        if rule_of(found) == RULE_SELF {
            (*head).flags |= FLAG_TAMPER;
        }
        if policy.flags & POLICY_ENFORCE != 0 || rule_of(found) == RULE_SELF {
            (*head).flags |= FLAG_ENFORCED;
        }
        if refuse {
            (*head).errno = -errno;
        }
    }
    refuse
}

/// Ends the act: tells it with `tail` bytes of tail and says what the hook returns.
#[inline(always)]
pub(crate) fn settle(actor: &Actor, tail: u32) -> i32 {
    if conclude(actor) {
        send_urgent(actor, tail);
        return -EACCES;
    }
    send(actor, tail);
    0
}

/// Ends an act that has happened already (level partial): what the scope says of it is told, and where that is `kill`
/// the process ends before it can use what it got. Told as not carried out otherwise.
#[inline(always)]
pub(crate) fn settle_late(actor: &Actor, tail: u32) {
    // SAFETY: scratch was checked for null when the actor was made.
    let found = unsafe { (&raw const (*actor.scratch).decision).read_volatile() };
    if let Some(policy) = actor.policy
        && found != 0
    {
        // SAFETY: as above.
        let head = unsafe { &mut (*actor.scratch).rec.head };
        head.verdict = verdict_of(found);
        head.rule = actor.generation << 16 | u32::from(rule_of(found));
        head.flags |= FLAG_JUDGED;
        let passed = permits(found) && policy.flags & POLICY_ENFORCE != 0;
        if passed || (kills(found) && enforced(policy, found)) {
            head.flags |= FLAG_ENFORCED;
        }
        if kills(found) && enforced(policy, found) {
            // SAFETY: no pointers. It cannot fail for the running task.
            unsafe { bpf_send_signal(SIGKILL) };
        }
    }
    send(actor, tail);
}

/// Ends an act that is told elsewhere when it happens: only a refusal is told here.
#[inline(always)]
pub(crate) fn settle_quietly(actor: &Actor, tail: u32) -> i32 {
    // SAFETY: scratch was checked for null when the actor was made.
    let found = unsafe { (&raw const (*actor.scratch).decision).read_volatile() };
    if found == 0 || permits(found) {
        return 0;
    }
    settle(actor, tail)
}

/// Writes the decision into the record and carries out a kill; whether the act is to be refused.
#[inline(always)]
pub(crate) fn conclude(actor: &Actor) -> bool {
    let Some(policy) = actor.policy else { return false };
    // SAFETY: scratch was checked for null when the actor was made.
    let found = unsafe { (&raw const (*actor.scratch).decision).read_volatile() };
    if found == 0 {
        return false;
    }
    // SAFETY: as above.
    let head = unsafe { &raw mut (*actor.scratch).rec.head };
    let refuse = stamp(head, policy, actor.generation, found, EACCES);
    if refuse && kills(found) {
        // SAFETY: no pointers. It cannot fail for the running task; the act is refused either way.
        unsafe { bpf_send_signal(SIGKILL) };
    }
    refuse
}

/// The kind of an act that only its refusal makes known.
#[inline(always)]
pub(crate) fn missing(kind: Kind, agent: u32) {
    lose(agent, kind as u16, LossReason::PolicyMissing);
}
