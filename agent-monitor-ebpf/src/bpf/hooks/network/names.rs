//! What names the peers of processes without an agent: whom they reach for, DNS answers that come in, and the first bytes
//! of TLS connections. Nothing is parsed or judged here; every packet that is none of these leaves after a few loads.

use agent_monitor_ebpf::{
    BODY_LEN, HEADER_LEN, Header, Kind, Source,
    config::RUN_NAMES,
    event::{ANSWER_MAX, HELLO_MAX, NetBody},
    loss::LossReason,
};
use aya_ebpf::{
    bindings::{__sk_buff, BPF_RB_AVAIL_DATA, bpf_sock_addr},
    helpers::generated::{bpf_sk_fullsock, bpf_sk_storage_get, bpf_skb_load_bytes},
    macros::{cgroup_skb, cgroup_sock_addr},
    programs::{SkBuffContext, SockAddrContext},
};

use super::{AF_INET, AF_INET6, NO_BODY, put4};
use crate::bpf::{
    emit::{Small, lose, send_small, wake_flags, zero},
    maps::{EVENTS, NAMED, Named, PEERS, PROCS, PeerKey},
    read::{current, ids, leader_start, now, uid_gid},
    scratch::opaque,
    tag::{runtime, telling},
};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
const PORT_DNS: u16 = 53;
/// Where QUIC is spoken.
const PORT_HTTPS: u16 = 443;
/// Packets with data of one connection that are looked at: a tunnel through a proxy begins with a request or two.
const LOOKS: u32 = 8;
/// Bytes of the ring of ordinary records that may wait before names are left out: a quarter, so that names never crowd
/// events out.
const ROOM: u64 = 2 << 20;

/// Head of a record about a process that may not be the running one.
#[inline(always)]
fn head_of(kind: Kind, owner: &Named) -> Header {
    Header {
        kind: kind as u16,
        flags: 0,
        total: 0,
        ktime: now(),
        start: owner.start,
        cgroup: 0,
        session: 0,
        tgid: owner.tgid,
        tid: owner.tgid,
        uid: owner.uid,
        gid: owner.gid,
        agent: 0,
        delegator: 0,
        bound_by: 0,
        source: Source::Cgroup as u8,
        verdict: 0,
        reserved: 0,
        errno: 0,
        euid: owner.uid,
        rule: 0,
        digest: 0,
    }
}

/// Whether there is room for names beside the events; counts what finds none.
#[inline(always)]
fn room(kind: Kind) -> bool {
    let free = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) < ROOM;
    if !free {
        lose(0, kind as u16, LossReason::RingFull);
    }
    free
}

/// Notes whose a connection is, and tells the peer once. Runs in the connecting task.
#[inline(always)]
fn note_connect(ctx: &SockAddrContext, v6: bool) {
    let Some(runtime) = runtime() else { return };
    if runtime.flags & RUN_NAMES == 0 || !telling(runtime) {
        return;
    }
    let a: *mut bpf_sock_addr = ctx.sock_addr;
    // SAFETY: the verifier types the context.
    let (kind, port) = unsafe { ((*a).type_, u16::from_be((*a).user_port as u16)) };
    let stream = kind == SOCK_STREAM;
    if !(stream || kind == SOCK_DGRAM && port == PORT_HTTPS) {
        return;
    }
    let (tgid, _) = ids();
    if tgid == runtime.daemon_tgid || PROCS.get_ptr(&tgid).is_some() {
        return;
    }
    let mut peer = [0u8; 16];
    // SAFETY: the verifier types the context.
    unsafe {
        if v6 {
            let words = [(*a).user_ip6[0], (*a).user_ip6[1], (*a).user_ip6[2], (*a).user_ip6[3]];
            let mut i = 0;
            while i < 4 {
                let w = words[i].to_ne_bytes();
                peer[i * 4] = w[0];
                peer[i * 4 + 1] = w[1];
                peer[i * 4 + 2] = w[2];
                peer[i * 4 + 3] = w[3];
                i += 1;
            }
        } else {
            put4(&mut peer, (*a).user_ip4);
        }
    }
    let family = if v6 { AF_INET6 } else { AF_INET };
    let (uid, gid) = uid_gid();
    let start = leader_start(current());
    let owner = Named { peer, start, tgid, uid, gid, port, family, left: LOOKS, reserved: 0 };
    if stream {
        // SAFETY: the socket of the context, typed by the verifier; the helper checks, and the result is checked for null.
        unsafe {
            let sk = (*a).__bindgen_anon_1.sk;
            let slot: *mut Named = if sk.is_null() {
                core::ptr::null_mut()
            } else {
                bpf_sk_storage_get((&raw const NAMED).cast_mut().cast(), sk.cast(), core::ptr::null_mut(), 1)
                    .cast()
            };
            if slot.is_null() {
                lose(0, Kind::NetHello as u16, LossReason::FlowFull);
            } else {
                *slot = owner;
            }
        }
    }
    let key = PeerKey { addr: peer, start, tgid, port: u32::from(family) << 16 | u32::from(port) };
    if PEERS.get_ptr(&key).is_some() || !room(Kind::NetPeer) {
        return;
    }
    // Another thread may have been faster: the peer is told twice then.
    let _raced = PEERS.insert(&key, &1, 0);
    let mut b = NO_BODY;
    b.remote = peer;
    b.remote_port = port;
    b.family = family;
    b.sock_type = kind as u16;
    send_small(&head_of(Kind::NetPeer, &owner), &b, false);
}

/// `cgroup/connect4`.
#[cgroup_sock_addr(connect4)]
fn name_connect4(ctx: SockAddrContext) -> i32 {
    note_connect(&ctx, false);
    1
}

/// `cgroup/connect6`.
#[cgroup_sock_addr(connect6)]
fn name_connect6(ctx: SockAddrContext) -> i32 {
    note_connect(&ctx, true);
    1
}

/// Bytes of a packet; zeros where it is shorter.
#[inline(always)]
fn load<const N: usize>(skb: *mut __sk_buff, at: u32) -> [u8; N] {
    let mut bytes = [0u8; N];
    // SAFETY: the helper checks the packet's length and fills the whole array, with zeros when it fails.
    unsafe { bpf_skb_load_bytes(skb.cast(), at, bytes.as_mut_ptr().cast(), N as u32) };
    bytes
}

/// Where the transport's header starts, if the packet is of this protocol, no later fragment, and without extension headers.
#[inline(always)]
fn transport(skb: *mut __sk_buff, protocol: u8) -> Option<u32> {
    let ip: [u8; 12] = load(skb, 0);
    match ip[0] >> 4 {
        4 if ip[9] == protocol && ip[6] & 0x1f == 0 && ip[7] == 0 => Some(u32::from(ip[0] & 15) * 4),
        6 if ip[6] == protocol => Some(40),
        _ => None,
    }
}

/// A record with the packet's bytes behind it, built in the ring: a softirq has no working memory of its own.
#[repr(C)]
struct WithBytes<const N: usize> {
    small: Small<[u64; 14]>,
    bytes: [u8; N],
}

/// Sends the bytes of a packet from `at` on, `N` at the most. `N` is a power of two.
#[inline(always)]
fn send_bytes<const N: usize>(skb: *mut __sk_buff, at: u32, have: u32, head: &Header, body: &NetBody) {
    let Some(mut entry) = EVENTS.reserve::<WithBytes<N>>(0) else {
        lose(0, head.kind, LossReason::RingFull);
        return;
    };
    let slot = entry.as_mut_ptr();
    let len = if have > N as u32 { N as u32 } else { have };
    // Between 1 and N in the register that the helper gets, whatever came before.
    let len = (opaque(u64::from(len)).wrapping_sub(1) & (N as u64 - 1)) as u32 + 1;
    // SAFETY: the reservation is as large as the type; the body is no larger than its place, by the contract. What the
    // helper does not fill is behind the record's end.
    let failed = unsafe {
        (*slot).small.head = *head;
        (*slot).small.head.total = (HEADER_LEN + BODY_LEN) as u32 + len;
        zero(&raw mut (*slot).small.body);
        let b: *mut NetBody = (&raw mut (*slot).small.body).cast();
        *b = *body;
        (*b).a.len = len as u16;
        bpf_skb_load_bytes(skb.cast(), at, (&raw mut (*slot).bytes).cast(), len)
    };
    if failed == 0 {
        entry.submit(wake_flags());
    } else {
        entry.discard(0);
        lose(0, head.kind, LossReason::ReadFailed);
    }
}

/// A DNS answer over UDP, whoever asked: the process may have a resolver ask for it.
#[inline(always)]
fn answer(ctx: &SkBuffContext) {
    let skb: *mut __sk_buff = ctx.skb.skb;
    let Some(at) = transport(skb, UDP) else { return };
    let udp: [u8; 2] = load(skb, at);
    if u16::from_be_bytes(udp) != PORT_DNS {
        return;
    }
    let Some(runtime) = runtime() else { return };
    if runtime.flags & RUN_NAMES == 0 || !telling(runtime) {
        return;
    }
    let at = at + 8;
    // SAFETY: the verifier types the context.
    let len = unsafe { (*skb).len };
    if len <= at + 12 {
        return;
    }
    let dns: [u8; 12] = load(skb, at);
    // An answer, without an error, with something in it: RFC 1035 4.1.1.
    let answers = dns[2] & 0x80 != 0 && dns[3] & 0x0f == 0 && (dns[6] | dns[7]) != 0;
    if !answers || !room(Kind::NetAnswer) {
        return;
    }
    let nobody =
        Named { peer: [0; 16], start: 0, tgid: 0, uid: 0, gid: 0, port: 0, family: 0, left: 0, reserved: 0 };
    let mut b = NO_BODY;
    b.bytes_received = u64::from(len - at);
    send_bytes::<ANSWER_MAX>(skb, at, len - at, &head_of(Kind::NetAnswer, &nobody), &b);
}

/// The first bytes of a TLS connection whose owner is known: RFC 8446 5.1 and 4.1.2.
#[inline(always)]
fn hello(ctx: &SkBuffContext) {
    let skb: *mut __sk_buff = ctx.skb.skb;
    // SAFETY: the verifier types the context; every step is checked for null.
    let owner: *mut Named = unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return;
        }
        let sk = bpf_sk_fullsock(sk);
        if sk.is_null() {
            return;
        }
        bpf_sk_storage_get((&raw const NAMED).cast_mut().cast(), sk.cast(), core::ptr::null_mut(), 0).cast()
    };
    // SAFETY: checked for null before the read.
    if owner.is_null() || unsafe { (*owner).left } == 0 {
        return;
    }
    let Some(at) = transport(skb, TCP) else { return };
    let tcp: [u8; 1] = load(skb, at + 12);
    let at = at + u32::from(tcp[0] >> 4) * 4;
    // SAFETY: the verifier types the context.
    let len = unsafe { (*skb).len };
    if len <= at + 6 {
        return;
    }
    // SAFETY: checked for null. Two CPUs may count the same packet twice: it is a limit, no tally.
    unsafe { (*owner).left -= 1 };
    let first: [u8; 6] = load(skb, at);
    if first[0] != 0x16 || first[1] != 3 || first[5] != 1 {
        return;
    }
    // SAFETY: as above.
    let owner = unsafe {
        (*owner).left = 0;
        &*owner
    };
    let Some(runtime) = runtime() else { return };
    if runtime.flags & RUN_NAMES == 0 || !telling(runtime) || !room(Kind::NetHello) {
        return;
    }
    let mut b = NO_BODY;
    b.remote = owner.peer;
    b.remote_port = owner.port;
    b.family = owner.family;
    b.sock_type = SOCK_STREAM as u16;
    b.bytes_sent = u64::from(len - at);
    send_bytes::<HELLO_MAX>(skb, at, len - at, &head_of(Kind::NetHello, owner), &b);
}

/// `cgroup_skb/ingress`.
#[cgroup_skb(ingress)]
fn name_ingress(ctx: SkBuffContext) -> i32 {
    answer(&ctx);
    1
}

/// `cgroup_skb/egress`.
#[cgroup_skb(egress)]
fn name_egress(ctx: SkBuffContext) -> i32 {
    hello(&ctx);
    1
}
