//! One question, asked of every scope that counts: the agent's own, then the session's, which can only narrow it, then
//! the agent's grants, any of which can widen it.

use agent_monitor_ebpf::{
    Verdict,
    decide::decide_net,
    destination::{ALTERNATIVES, stands_for, unspecified, with_alternative},
    people::{GRANTS, GrantEntry},
    policy::{
        AgentKey, AgentPolicy, CAPS, NET_PREFIX, NetKey, POLICY_NET_LIMITED, POLICY_VSOCK, POWERS, PlaceKey,
        RULE_DEFAULT, RULE_MISSING, RULE_ROUTE, RULE_SELF, SLOTS, SPACE_ABSTRACT, SPACE_VSOCK, decision,
        permits, rule_of, slot, stricter,
    },
};
use aya_ebpf::{helpers::generated::bpf_loop, maps::lpm_trie::Key};

use super::{note, place};
use crate::bpf::{
    maps::{GRANT_LIVES, GRANTED, NETS, PLACES},
    read::now,
    scratch::{Scratch, opaque, unseen_zero},
    tag::{Actor, policy_of},
};

/// Kinds of questions; each has its fields in [`crate::bpf::scratch::Question`].
pub(super) const PLACE: u32 = 1;
/// A peer or own address.
pub(super) const INET: u32 = 2;
/// An abstract UNIX name.
pub(super) const ABSTRACT: u32 = 3;
/// A vsock peer.
pub(super) const VSOCK: u32 = 4;
/// A power.
pub(super) const POWER: u32 = 5;
/// Capabilities that are gained.
pub(super) const GAINED: u32 = 6;
/// Something that cannot be judged. No grant permits it.
pub(super) const UNKNOWN: u32 = 7;
/// A route of the sender's choice: refused where the scope limits the network at all. No grant permits it.
pub(super) const ROUTE: u32 = 8;

/// The word of the scope of one index.
#[inline(always)]
fn answer<const KIND: u32>(scratch: *mut Scratch, policy: *const AgentPolicy, agent: u32) -> u32 {
    // SAFETY: the caller checked it for null; entries are never changed while their generation is in force.
    if KIND == PLACE {
        // SAFETY: as above.
        return unsafe { answer_place(scratch, policy, agent) };
    }
    if KIND == INET {
        // SAFETY: as above.
        return unsafe { answer_inet(scratch, policy, agent) };
    }
    // SAFETY: as above.
    let policy = unsafe { &*policy };
    match KIND {
        ABSTRACT => abstract_name(scratch, policy, agent),
        VSOCK => vsock(scratch, policy, agent),
        POWER => power(scratch, policy),
        GAINED => gained(scratch, agent),
        ROUTE => route(policy.flags),
        _ => policy.unknown,
    }
}

/// The answer about a place, the dearest of all: a global function, which the verifier walks once for a program.
///
/// # Safety
/// `scratch` is null or the running task's; `policy` is null or a value of the table of scopes.
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn answer_place(scratch: *mut Scratch, policy: *const AgentPolicy, agent: u32) -> u32 {
    if scratch.is_null() || policy.is_null() {
        return decision(Verdict::Deny, RULE_MISSING);
    }
    // SAFETY: checked for null.
    place::answer(scratch, unsafe { &*policy }, agent)
}

/// The same about an address.
///
/// # Safety
/// As [`answer_place`].
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn answer_inet(scratch: *mut Scratch, policy: *const AgentPolicy, agent: u32) -> u32 {
    if scratch.is_null() || policy.is_null() {
        return decision(Verdict::Deny, RULE_MISSING);
    }
    // SAFETY: checked for null.
    inet(scratch, unsafe { &*policy }, agent)
}

/// The generation that the act is judged by: one for all of its look-ups, or it would be judged half by the old scopes and
/// half by the new ones.
#[inline(always)]
fn generation(scratch: *mut Scratch) -> u32 {
    // SAFETY: checked for null by the caller; a map value.
    unsafe { (&raw const (*scratch).generation).read_volatile() }
}

/// The decision of the rules about an internet address, IPv4 as `::ffff:a.b.c.d`; 0 where none fits.
#[inline(always)]
fn address(agent: u32, generation: u32, addr: [u8; 16], port: u16, protocol: u16, action: u8) -> u32 {
    let key = Key::new(NET_PREFIX + 128, NetKey { agent, generation, addr });
    // Multipath TCP (262) is TCP to every rule.
    let protocol = if protocol == 262 { 6 } else { protocol as u8 };
    NETS.get(&key).map_or(0, |set| decide_net(set, action, protocol, port))
}

#[inline(always)]
fn inet(scratch: *mut Scratch, policy: &AgentPolicy, agent: u32) -> u32 {
    // SAFETY: a map value.
    let (addr, port, protocol, action) = unsafe {
        let q = &(*scratch).question;
        (q.addr, q.port, q.protocol, q.action as u8)
    };
    let found = address(agent, generation(scratch), addr, port, protocol, action);
    if found == 0 { policy.net } else { found }
}

#[inline(always)]
fn abstract_name(scratch: *mut Scratch, policy: &AgentPolicy, agent: u32) -> u32 {
    // SAFETY: a map value.
    let (hash, asked) = unsafe { ((*scratch).question.hash, (*scratch).question.asked) };
    let key = PlaceKey { hash, agent, dev: 0, generation: generation(scratch), space: SPACE_ABSTRACT };
    let mut worst = 0;
    let mut slot = slot::UNIX_CONNECT;
    while slot < SLOTS {
        if asked >> slot & 1 != 0 {
            let mut found = 0;
            if let Some(rule) = PLACES.get_ptr(&key) {
                // SAFETY: a map value.
                found = unsafe { (*rule).slots[slot] };
            }
            worst = stricter(worst, if found == 0 { policy.root[slot] } else { found });
        }
        slot += 1;
    }
    worst
}

#[inline(always)]
fn vsock(scratch: *mut Scratch, policy: &AgentPolicy, agent: u32) -> u32 {
    if policy.flags & POLICY_VSOCK == 0 {
        return policy.net;
    }
    // SAFETY: a map value.
    let hash = unsafe { (*scratch).question.hash };
    let one = PlaceKey { hash, agent, dev: 0, generation: generation(scratch), space: SPACE_VSOCK };
    let any = PlaceKey { hash: hash | u64::from(u32::MAX), ..one };
    let mut found = 0;
    if let Some(rule) = PLACES.get_ptr(&one) {
        // SAFETY: a map value.
        found = unsafe { (*rule).slots[slot::UNIX_CONNECT] };
    }
    if found == 0
        && let Some(rule) = PLACES.get_ptr(&any)
    {
        // SAFETY: as above.
        found = unsafe { (*rule).slots[slot::UNIX_CONNECT] };
    }
    if found == 0 { policy.net } else { found }
}

#[inline(always)]
fn power(scratch: *mut Scratch, policy: &AgentPolicy) -> u32 {
    // SAFETY: a map value.
    let at = opaque(u64::from(unsafe { (*scratch).question.power }));
    if at >= POWERS as u64 {
        return policy.unknown;
    }
    // SAFETY: bounded above.
    unsafe { (&raw const policy.privilege).cast::<u32>().add(at as usize).read_volatile() }
}

/// What the steps over capabilities carry.
#[repr(C)]
struct Gained {
    caps: u64,
    worst: u32,
    agent: u32,
    generation: u32,
    reserved: u32,
}

unsafe extern "C" fn gained_step(i: u64, gained: *mut Gained) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let c = unsafe { &mut *gained };
    let at = i as usize;
    if at < CAPS
        && c.caps >> (i & 63) & 1 != 0
        && let Some(policy) = policy_of(c.agent, c.generation)
    {
        c.worst = stricter(c.worst, policy.caps[at]);
    }
    0
}

#[inline(always)]
fn gained(scratch: *mut Scratch, agent: u32) -> u32 {
    // SAFETY: a map value.
    let caps = unsafe { (*scratch).question.caps };
    let worst = unseen_zero(agent);
    let mut c = Gained { caps, worst, agent, generation: generation(scratch), reserved: 0 };
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the call.
    unsafe {
        bpf_loop(CAPS as u32, gained_step as *const () as *mut _, (&raw mut c).cast(), 0);
    }
    c.worst
}

/// What the steps over the scopes that count carry.
#[repr(C)]
struct Asking {
    scratch: *mut Scratch,
    session: u64,
    agent: u32,
    /// Policy index of the session's own scope, 0 for none.
    narrower: u32,
    generation: u32,
    found: u32,
}

/// The agent's own scope, the session's, then the grants: one step each, so that the verifier follows the look-ups once.
unsafe extern "C" fn scope_step<const KIND: u32>(i: u64, asking: *mut Asking) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let a = unsafe { &mut *asking };
    let at = opaque(i);
    let index = match at {
        0 => a.agent,
        1 if a.narrower == 0 => return 0,
        1 => a.narrower,
        // A grant opens what the scopes close, never the monitor's own places nor what cannot be judged.
        _ if KIND == UNKNOWN || KIND == ROUTE || permits(a.found) || rule_of(a.found) == RULE_SELF => {
            return 1;
        }
        _ => match granted(a, at - 2) {
            Some(0) => return 0,
            Some(index) => index,
            None => return 1,
        },
    };
    let mut word = decision(Verdict::Deny, RULE_MISSING);
    if let Some(policy) = policy_of(index, a.generation) {
        word = answer::<KIND>(a.scratch, policy, index);
    }
    if at < 2 {
        a.found = stricter(a.found, word);
    } else if permits(word) && word != 0 {
        a.found = word;
        // SAFETY: a map value.
        unsafe { (*a.scratch).used |= 1 << ((at - 2) & 31) };
    }
    0
}

/// Policy index of the grant at a place in the agent's list: 0 when it does not count now, `None` behind the last.
#[inline(always)]
fn granted(a: &Asking, at: u64) -> Option<u32> {
    let at = opaque(at);
    if at >= GRANTS as u64 {
        return None;
    }
    let list = GRANTED.get_ptr(&AgentKey { agent: a.agent, generation: a.generation })?;
    // SAFETY: bounded above.
    let entry = unsafe { (&raw const (*list).entries).cast::<GrantEntry>().add(at as usize) };
    // SAFETY: as above.
    let (id, session, policy) = unsafe { ((*entry).id, (*entry).session, (*entry).policy) };
    if id == 0 {
        return None;
    }
    // SAFETY: a map value.
    let lasts = GRANT_LIVES.get_ptr(&id).is_some_and(|life| unsafe { (*life).expires } > now());
    Some(if lasts && (session == 0 || session == a.session) { policy } else { 0 })
}

/// What all scopes together say.
#[inline(always)]
pub(super) fn find<const KIND: u32>(scratch: *mut Scratch, generation: u32) -> u32 {
    // SAFETY: checked for null by the caller.
    unsafe {
        match KIND {
            PLACE => find_place(scratch, generation),
            INET => find_inet(scratch, generation),
            ABSTRACT => find_abstract(scratch, generation),
            VSOCK => find_vsock(scratch, generation),
            POWER => find_power(scratch, generation),
            GAINED => find_gained(scratch, generation),
            ROUTE => find_route(scratch, generation),
            _ => find_unknown(scratch, generation),
        }
    }
}

/// Global functions, which the verifier walks once for a program and not once for each road to them.
macro_rules! global {
    ($($name:ident: $kind:ident),+) => {$(
        /// # Safety
        /// `scratch` is null or the running task's.
        #[inline(never)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(scratch: *mut Scratch, generation: u32) -> u32 {
            if scratch.is_null() {
                return decision(Verdict::Deny, RULE_MISSING);
            }
            all::<$kind>(scratch, generation)
        }
    )+};
}

global!(
    find_place: PLACE,
    find_inet: INET,
    find_abstract: ABSTRACT,
    find_vsock: VSOCK,
    find_power: POWER,
    find_gained: GAINED,
    find_route: ROUTE,
    find_unknown: UNKNOWN
);

#[inline(always)]
fn all<const KIND: u32>(scratch: *mut Scratch, generation: u32) -> u32 {
    // SAFETY: checked for null by the caller.
    let mut a = unsafe {
        let agent = (*scratch).entry.tag.agent;
        Asking {
            scratch,
            session: (*scratch).entry.tag.session,
            agent,
            narrower: (*scratch).session_policy,
            generation,
            found: unseen_zero(agent),
        }
    };
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the call.
    unsafe {
        bpf_loop(GRANTS as u32 + 2, scope_step::<KIND> as *const () as *mut _, (&raw mut a).cast(), 0);
    }
    a.found
}

/// What the agent's own scope alone says: for level partial, whose programs have no room on the stack for more.
#[inline(never)]
fn own<const KIND: u32>(scratch: *mut Scratch, policy: *const AgentPolicy, agent: u32) -> u32 {
    // SAFETY: the caller checked it for null; entries are never changed while their generation is in force.
    answer::<KIND>(scratch, unsafe { &*policy }, agent)
}

/// Asks the agent's own scope alone.
#[inline(always)]
pub(super) fn ask_own<const KIND: u32>(actor: &Actor) {
    if let Some(policy) = actor.policy {
        note(actor, own::<KIND>(actor.scratch, policy, actor.agent()));
    }
}

/// What a scope with these `POLICY_*` bits says of a route of the sender's choice.
#[inline(always)]
pub(crate) fn route(flags: u32) -> u32 {
    if flags & POLICY_NET_LIMITED != 0 {
        decision(Verdict::Deny, RULE_ROUTE)
    } else {
        decision(Verdict::Allow, RULE_DEFAULT)
    }
}

/// What is asked about an internet address where there is no scratch memory. Without padding: a global function gets it.
#[repr(C)]
pub(crate) struct Peer {
    /// As the caller wrote it, halves in host order, IPv4 as `::ffff:a.b.c.d`.
    pub(crate) written: [u64; 2],
    pub(crate) agent: u32,
    pub(crate) generation: u32,
    /// What holds where no rule fits.
    pub(crate) default: u32,
    pub(crate) port: u16,
    pub(crate) protocol: u16,
    pub(crate) action: u32,
    /// Which of the addresses that the written one stands for: 0 is itself.
    pub(crate) alternative: u32,
}

/// The answer of one scope about one of the addresses that a written one stands for; 0 where there is none. A global
/// function: its frame is short, and the verifier walks the rules once.
///
/// # Safety
/// `peer` is null or on the caller's stack.
#[inline(never)]
#[unsafe(no_mangle)]
unsafe extern "C" fn peer_answer(peer: *mut Peer) -> u32 {
    if peer.is_null() {
        return decision(Verdict::Deny, RULE_MISSING);
    }
    // SAFETY: checked for null.
    let p = unsafe { &*peer };
    let (mut hi, mut lo) = (p.written[0], p.written[1]);
    if p.alternative != 0 {
        (hi, lo) = stands_for(hi, lo, p.alternative, p.action as u8);
        if hi | lo == 0 {
            return 0;
        }
    }
    let addr = whole(hi, lo);
    let found = address(p.agent, p.generation, addr, p.port, p.protocol, p.action as u8);
    if found == 0 { p.default } else { found }
}

/// What one scope says about a peer and all that its address stands for.
#[inline(always)]
pub(crate) fn peer(peer: &mut Peer) -> u32 {
    // SAFETY: on the caller's stack.
    let mut found = unsafe { peer_answer(peer) };
    let mut n = 1;
    while n <= ALTERNATIVES {
        peer.alternative = n;
        // SAFETY: as above.
        let other = unsafe { peer_answer(peer) };
        if other != 0 {
            found = with_alternative(found, other, peer.action as u8);
        }
        n += 1;
    }
    peer.alternative = 0;
    found
}

/// An address from its halves.
#[inline(always)]
fn whole(hi: u64, lo: u64) -> [u8; 16] {
    // SAFETY: two arrays of eight bytes are one of sixteen.
    unsafe { core::mem::transmute::<[[u8; 8]; 2], [u8; 16]>([hi.to_be_bytes(), lo.to_be_bytes()]) }
}

/// Alternatives to the address of a socket: those that the address itself has, then the socket's own address.
pub(super) const ALTERNATIVES_OF_SOCKET: u32 = ALTERNATIVES + 1;

/// Puts the `n`-th address that the written one stands for into the question; 0 where there is none. A global function, so
/// that the verifier does not follow each kind of address through the rest of the hook.
///
/// # Safety
/// `scratch` is null or the running task's.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn alternative(scratch: *mut Scratch, n: u32) -> u32 {
    if scratch.is_null() {
        return 0;
    }
    // SAFETY: checked for null.
    unsafe {
        let q = &raw mut (*scratch).question;
        let kept = (&raw const (*scratch).ending).cast::<u64>();
        let (hi, lo) = (kept.read_volatile(), kept.add(1).read_volatile());
        let (hi, lo) = if n <= ALTERNATIVES {
            stands_for(hi, lo, n, (*q).action as u8)
        } else {
            let (own_hi, own_lo) = (kept.add(2).read_volatile(), kept.add(3).read_volatile());
            let leads = unspecified(hi, lo) && !unspecified(own_hi, own_lo);
            if leads { (own_hi, own_lo) } else { (0, 0) }
        };
        if hi | lo == 0 {
            return 0;
        }
        (*q).addr = whole(hi, lo);
    }
    1
}

/// Asks about an address that the written one stands for, which is in the question.
#[inline(always)]
pub(super) fn ask_alternative(actor: &Actor, action: u8) {
    if actor.policy.is_some() {
        let other = find::<INET>(actor.scratch, actor.generation);
        // SAFETY: scratch was checked for null when the actor was made.
        let found = unsafe { (&raw const (*actor.scratch).decision).read_volatile() };
        note(actor, with_alternative(found, other, action));
    }
}

/// Asks, and adds what was found to the act's decision.
#[inline(always)]
pub(super) fn ask<const KIND: u32>(actor: &Actor) {
    if actor.policy.is_some() {
        note(actor, find::<KIND>(actor.scratch, actor.generation));
    }
}
