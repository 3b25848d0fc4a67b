//! The last look at a packet of an agent, when it is about to leave: its own destination is compared with what was judged for
//! its flow. A packet for another one is judged as if the agent had named it, and one that carries a route of its sender's
//! choice is refused where the scope limits the network. At both levels; it does not run in the agent's context.

use agent_monitor_ebpf::{
    Kind, Source,
    config::RUN_POLICY,
    event::{NET_REDIRECTED, NET_ROUTED},
    policy::{NET_CONNECT, permits, stricter},
};
use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_loop, bpf_sk_fullsock, bpf_sk_storage_get, bpf_skb_load_bytes},
    macros::cgroup_skb,
    programs::SkBuffContext,
};

use super::{
    AF_INET, AF_INET6, IPPROTO_TCP, NO_BODY,
    flow::flow_head,
    partial_inet::{narrower, session_of},
};
use crate::bpf::{
    emit::send_small,
    judge::{ask, stamp},
    maps::{FLOWS, Flow},
    scratch::{opaque, unseen_zero},
    tag::{policy_of, runtime, telling},
};

/// What a sender of a refused packet sees.
const EPERM: i32 = 1;
const IPPROTO_UDP: u32 = 17;
const IPPROTO_UDPLITE: u32 = 136;
/// `IPV4` in the form of the tables.
const MAPPED: u64 = 0xffff << 32;
/// IPv6 extension headers: hop by hop, routing, fragment, destination options.
const HOP: u32 = 0;
const ROUTING: u32 = 43;
const FRAGMENT: u32 = 44;
const OPTIONS: u32 = 60;
/// IPv4 options: loose and strict source routing, include/uapi/linux/ip.h.
const LSRR: u8 = 131;
const SSRR: u8 = 137;
/// Extension headers and options that are looked at. Linux sends each extension header once; an IPv4 header has room for
/// 40 bytes of options.
const HEADERS: u32 = 8;
const BYTES: u32 = 40;
/// High half of the last word of [`Flow::stray`]: that packets to it were permitted, or refused, last.
const STRAY_PASSED: u64 = 1;
const STRAY_REFUSED: u64 = 2;

/// What is in a packet's head.
#[repr(C)]
struct Head {
    skb: *mut __sk_buff,
    /// The destination, halves in host order, IPv4 as `::ffff:a.b.c.d`.
    to: [u64; 2],
    /// Where the next header or option is.
    at: u32,
    /// Where the options end.
    end: u32,
    /// The next header's number.
    next: u32,
    /// 1 when a route is in it.
    routed: u32,
}

/// The byte at an offset of the packet; 0 behind its end.
#[inline(always)]
fn byte(skb: *mut __sk_buff, at: u32) -> u8 {
    let mut one = [0u8; 1];
    // SAFETY: the helper checks the offset.
    unsafe { bpf_skb_load_bytes(skb.cast(), at, one.as_mut_ptr().cast(), 1) };
    one[0]
}

unsafe extern "C" fn option_step(_i: u64, head: *mut Head) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let h = unsafe { &mut *head };
    if h.at >= h.end {
        return 1;
    }
    let kind = byte(h.skb, h.at);
    if kind == LSRR || kind == SSRR {
        h.routed = 1;
    }
    let length = if kind <= 1 { 1 } else { u32::from(byte(h.skb, h.at + 1)) };
    h.at = h.at.wrapping_add(length);
    // End of the list, or nonsense.
    i64::from(kind == 0 || length == 0 || h.routed == 1)
}

unsafe extern "C" fn header_step(_i: u64, head: *mut Head) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let h = unsafe { &mut *head };
    if h.next == ROUTING {
        h.routed = 1;
        return 1;
    }
    if h.next != HOP && h.next != OPTIONS && h.next != FRAGMENT {
        return 1;
    }
    let length = if h.next == FRAGMENT { 8 } else { (u32::from(byte(h.skb, h.at + 1)) + 1) * 8 };
    h.next = u32::from(byte(h.skb, h.at));
    h.at = h.at.wrapping_add(length);
    0
}

/// Reads the destination and looks for a route; false for what is no IP packet.
#[inline(always)]
fn read(h: &mut Head) -> bool {
    let first = byte(h.skb, 0);
    let mut to = [0u64; 2];
    // SAFETY: the helper fills what it is given; the context outlives the loops.
    unsafe {
        match first >> 4 {
            4 => {
                let mut four = [0u8; 4];
                bpf_skb_load_bytes(h.skb.cast(), 16, four.as_mut_ptr().cast(), 4);
                h.to = [0, MAPPED | u64::from(u32::from_be_bytes(four))];
                h.at = 20;
                h.end = u32::from(first & 15) * 4;
                if h.end > 20 {
                    bpf_loop(BYTES, option_step as *const () as *mut _, (&raw mut *h).cast(), 0);
                }
                h.at = h.end;
            }
            6 => {
                bpf_skb_load_bytes(h.skb.cast(), 24, (&raw mut to).cast(), 16);
                h.to = [u64::from_be(to[0]), u64::from_be(to[1])];
                h.at = 40;
                h.next = u32::from(byte(h.skb, 6));
                bpf_loop(HEADERS, header_step as *const () as *mut _, (&raw mut *h).cast(), 0);
            }
            _ => return false,
        }
    }
    true
}

/// The port that a packet of this protocol goes to; 0 where there are none.
#[inline(always)]
fn port_of(h: &Head, protocol: u32) -> u16 {
    if protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_UDPLITE {
        return 0;
    }
    let mut port = [0u8; 2];
    // SAFETY: the helper checks the offset.
    unsafe { bpf_skb_load_bytes(h.skb.cast(), h.at.wrapping_add(2), port.as_mut_ptr().cast(), 2) };
    u16::from_be_bytes(port)
}

/// Whether a peer that was judged is the destination of a packet.
#[inline(always)]
fn is_peer(peer: &[u64; 3], h: &Head, port: u16) -> bool {
    let to = in_tables(peer);
    to[0] == h.to[0] && to[1] == h.to[1] && (port == 0 || peer[2] as u16 == port)
}

/// The address of a peer as flows hold it, in the form of the tables.
#[inline(always)]
fn in_tables(peer: &[u64; 3]) -> [u64; 2] {
    if peer[2] >> 32 == u64::from(AF_INET) {
        [0, MAPPED | u64::from_be(peer[0]) >> 32]
    } else {
        [u64::from_be(peer[0]), u64::from_be(peer[1])]
    }
}

/// Whether the destination is the one that the socket itself is connected to. What it was connected to was judged, but for
/// an address that stands for another.
#[inline(always)]
fn is_connected(sk: *mut bpf_sock, flow: &Flow, h: &Head, port: u16) -> bool {
    let peer = in_tables(&flow.peer);
    if agent_monitor_ebpf::destination::unspecified(peer[0], peer[1]) {
        return false;
    }
    // SAFETY: the verifier types the socket.
    let (four, six, to_port) = unsafe {
        let s = (*sk).dst_ip6;
        ((*sk).dst_ip4, [(*sk).dst_ip6[0], s[1], s[2], s[3]], u16::from_be((*sk).dst_port))
    };
    let same = if h.to[0] == 0 && h.to[1] >> 32 == 0xffff {
        four != 0 && u64::from(u32::from_be(four)) == h.to[1] & 0xffff_ffff
    } else {
        let word = |w: u32| u64::from(u32::from_be(w));
        h.to[0] == word(six[0]) << 32 | word(six[1]) && h.to[1] == word(six[2]) << 32 | word(six[3])
    };
    same && (port == 0 || to_port == port)
}

/// `cgroup_skb/egress`.
#[cgroup_skb(egress)]
fn destination_egress(ctx: SkBuffContext) -> i32 {
    let skb: *mut __sk_buff = ctx.skb.skb;
    // SAFETY: the verifier types the context; every step is checked for null.
    let (sk, flow) = unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return 1;
        }
        let sk = bpf_sk_fullsock(sk);
        if sk.is_null() {
            return 1;
        }
        let flow: *mut Flow =
            bpf_sk_storage_get((&raw const FLOWS).cast_mut().cast(), sk.cast(), core::ptr::null_mut(), 0)
                .cast();
        if flow.is_null() {
            return 1;
        }
        (sk, &mut *flow)
    };
    // A connection that was accepted has no peer of the agent's choice.
    if flow.tag.agent == 0 || flow.peer[2] == 0 {
        return 1;
    }
    let zero = unseen_zero(flow.tag.agent);
    let mut h = Head { skb, to: [0; 2], at: 0, end: 0, next: 0, routed: zero };
    if !read(&mut h) {
        return 1;
    }
    // SAFETY: the verifier types the socket.
    let protocol = unsafe { (*sk).protocol };
    let port = if h.routed != 0 { 0 } else { port_of(&h, protocol) };
    let known = is_peer(&flow.peer, &h, port)
        || is_peer(&flow.before, &h, port)
        || is_connected(sk, flow, &h, port)
        || is_stray(flow, &h, port, STRAY_PASSED);
    if opaque(u64::from(h.routed)) == 0 && known {
        return 1;
    }
    i32::from(!refused(flow, &h, port, protocol as u16))
}

/// Whether this destination was judged last, with this result.
#[inline(always)]
fn is_stray(flow: &Flow, h: &Head, port: u16, state: u64) -> bool {
    flow.stray[0] == h.to[0] && flow.stray[1] == h.to[1] && flow.stray[2] == state << 32 | u64::from(port)
}

/// Judges the packet by the scopes of its owner; whether it is refused. Grants of single acts do not reach so far: what they
/// permit is the peer that was named.
#[inline(always)]
fn refused(flow: &mut Flow, h: &Head, port: u16, protocol: u16) -> bool {
    let Some(runtime) = runtime() else { return false };
    if runtime.flags & RUN_POLICY == 0 {
        return false;
    }
    // Without a scope in force nothing new is begun; what was begun ends by itself.
    let Some(policy) = policy_of(flow.tag.agent, runtime.generation) else { return false };
    let routed = h.routed != 0;
    let mut head = flow_head(flow, Source::Cgroup);
    head.kind = Kind::NetSend as u16;
    let own = if flow.tag.session == 0 { 0 } else { session_of(flow.tag.session, head.ktime).0 };
    let found = if routed {
        let session = if own == 0 { None } else { policy_of(own, runtime.generation) };
        let narrow = session.map_or(0, |session| ask::route(session.flags));
        stricter(ask::route(policy.flags), narrow)
    } else {
        let mut peer = ask::Peer {
            written: h.to,
            agent: flow.tag.agent,
            generation: runtime.generation,
            default: policy.net,
            port,
            protocol,
            action: u32::from(NET_CONNECT),
            alternative: 0,
        };
        let found = ask::peer(&mut peer);
        stricter(found, narrower(&mut peer, own))
    };
    let refused = stamp(&mut head, policy.flags, runtime.generation, found, EPERM);
    let state = if refused { STRAY_REFUSED } else { STRAY_PASSED };
    let news = !permits(found) && !is_stray(flow, h, port, state);
    flow.stray = [h.to[0], h.to[1], state << 32 | u64::from(port)];
    if news && telling(runtime) {
        let mut b = NO_BODY;
        let four = h.to[0] == 0 && h.to[1] >> 32 == 0xffff;
        b.family = if four { AF_INET } else { AF_INET6 };
        let (high, low) = (h.to[0].to_be_bytes(), h.to[1].to_be_bytes());
        let mut i = 0;
        while i < 8 {
            b.remote[i] = if four { low[(i + 4) & 7] } else { high[i] };
            b.remote[i + 8] = if four { 0 } else { low[i] };
            i += 1;
        }
        if four {
            b.remote[4] = 0;
            b.remote[5] = 0;
            b.remote[6] = 0;
            b.remote[7] = 0;
        }
        b.remote_port = port;
        b.protocol = protocol;
        b.how = if routed { NET_ROUTED } else { NET_REDIRECTED };
        send_small(&head, &b, true);
    }
    refused
}
