//! The look-ups about one place: the same steps as `decide::gather` of the contract, over the tables.

use agent_monitor_ebpf::{
    decide::{Evidence, LEVEL_EXACT, LEVEL_EXTENSION, LEVEL_NAME, LEVEL_ROOT, LEVEL_SUBTREE, decide},
    path::{DEPTH_MAX, HashKey, mix, root_hash},
    policy::{
        AgentPolicy, EXTENSIONS, POLICY_EXACT, POLICY_NAME, PathRule, PlaceKey, SLOTS, SPACE_BELOW,
        SPACE_EXACT, SPACE_EXTENSION, SPACE_NAME, SPACE_SUBTREE,
    },
};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};

use crate::bpf::{
    maps::PLACES,
    scratch::{Scratch, tail_at},
    tag::runtime,
    walk::text_hash_of,
};

/// Bytes of the longest ending that a rule can name.
const ENDING: usize = 64;

/// What the look-up steps carry.
#[repr(C)]
struct Gather {
    scratch: *mut Scratch,
    key: HashKey,
    h: u64,
    /// `AgentPolicy::depths`; then, for the steps over extensions, the lengths of endings. The stack is short.
    bits: u64,
    depth: u32,
    agent: u32,
    dev: u32,
    generation: u32,
    /// Where its name starts in the tail, and how long it is: for the steps over extensions.
    off: u32,
    len: u32,
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
    if f.bits >> (at & 63) & 1 != 0
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

unsafe extern "C" fn ending_step(i: u64, gather: *mut Gather) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let e = unsafe { &mut *gather };
    let length = (e.bits >> ((i & 7) * 8)) as u32 & 0xff;
    if length == 0 {
        return 1;
    }
    if length > e.len {
        return 0;
    }
    let scratch = e.scratch;
    let Some(from) = tail_at(scratch, e.off + (e.len - length), ENDING) else { return 0 };
    // SAFETY: as many bytes are there and in the ending.
    let hash = unsafe {
        let to = (&raw mut (*scratch).ending).cast::<u8>();
        bpf_probe_read_kernel(to.cast(), ENDING as u32, from.cast());
        text_hash_of(to, e.key, length)
    };
    if let Some(rule) = e.find(hash, 0, SPACE_EXTENSION) {
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

/// What the tables say of the place in question ([`crate::bpf::scratch::Question`]) by the scope of one index.
#[inline(always)]
pub(super) fn answer(scratch: *mut Scratch, policy: &AgentPolicy, agent: u32) -> u32 {
    let Some(runtime) = runtime() else { return 0 };
    let key = HashKey { k0: runtime.k0, k1: runtime.k1 };
    // SAFETY: constant bounds inside the scratch.
    unsafe {
        let words = (&raw mut (*scratch).evidence).cast::<u64>();
        let mut i = 0;
        while i < size_of::<Evidence>() / 8 {
            words.add(i).write_volatile(0);
            i += 1;
        }
        let mut i = 0;
        while i < SLOTS {
            (&raw mut (*scratch).evidence.levels[LEVEL_ROOT][i]).write_volatile(policy.root[i]);
            i += 1;
        }
    }
    // SAFETY: map values, each in one register: the stack is short.
    let (depth, dev, asked) = unsafe {
        let q = &raw const (*scratch).question;
        ((&raw const (*q).depth).read_volatile(), (*q).dev, (*q).asked)
    };
    let mut f = Gather {
        scratch,
        key,
        h: root_hash(key),
        bits: policy.depths,
        depth,
        agent,
        dev,
        // SAFETY: a map value.
        generation: unsafe { (*scratch).generation },
        off: 0,
        len: 0,
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
    // SAFETY: as above.
    if unsafe { (*scratch).question.moved_dir } != 0
        && let Some(rule) = f.find(f.h, f.dev, SPACE_BELOW)
    {
        below(scratch, rule);
    }
    // SAFETY: into the scratch.
    unsafe { (&raw mut (*scratch).place_hash).write_volatile(f.h) };
    if depth != 0 {
        // SAFETY: as above.
        by_name(&mut f, policy, unsafe { (*scratch).question.off });
    }
    verdict(scratch, asked)
}

/// The levels that look at the name alone.
#[inline(always)]
fn by_name(f: &mut Gather, policy: &AgentPolicy, off: u32) {
    let scratch = f.scratch;
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
        f.len = u32::from(unsafe { (&raw const (*scratch).lens[0]).read_volatile() });
        (f.bits, f.off) = (lengths, off);
        // SAFETY: the callback has the signature bpf_loop wants and the context outlives the call.
        unsafe {
            let step = ending_step as *const () as *mut _;
            bpf_loop(EXTENSIONS as u32, step, core::ptr::from_mut(f).cast(), 0);
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
