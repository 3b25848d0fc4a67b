//! The end of flows, with byte counts: TCP from the socket's own counters, the rest from packets counted on the way.

use agent_monitor_ebpf::{Header, Kind, Source, fields::ABSENT};
use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_sk_fullsock, bpf_sk_storage_delete, bpf_sk_storage_get, bpf_skb_load_bytes},
    macros::{btf_tracepoint, cgroup_skb, cgroup_sock},
    programs::{BtfTracePointContext, SkBuffContext, SockContext},
};

use super::{IPPROTO_TCP, NO_BODY, SOCK_DONE, TCP_CLOSE, describe};
use crate::bpf::{
    emit::send_small,
    globals as g,
    maps::{FLOWS, Flow},
    read::{field, now},
    tag::{runtime, telling},
};

/// Head of a record about a flow, whoever runs now.
#[inline(always)]
pub(super) fn flow_head(flow: &Flow, source: Source) -> Header {
    Header {
        kind: Kind::NetFlow as u16,
        flags: 0,
        total: 0,
        ktime: now(),
        start: flow.start,
        cgroup: flow.cgroup,
        session: flow.tag.session,
        tgid: flow.tgid,
        tid: flow.tid,
        uid: flow.uid,
        gid: flow.gid,
        agent: flow.tag.agent,
        delegator: flow.tag.delegator,
        bound_by: flow.tag.bound_by,
        source: source as u8,
        verdict: 0,
        reserved: 0,
        errno: 0,
        euid: flow.euid,
        rule: 0,
        digest: 0,
    }
}

/// `inet_sock_set_state(sk, oldstate, newstate)`: net/ipv4/af_inet.c; often in a softirq, so nothing of the running task
/// is used.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn flow_tcp(ctx: BtfTracePointContext) -> i32 {
    let new: u32 = ctx.arg(2);
    let sk: *mut u8 = ctx.arg(0);
    // SAFETY: a typed socket.
    let flow: *mut Flow = unsafe {
        bpf_sk_storage_get((&raw const FLOWS).cast_mut().cast(), sk.cast(), core::ptr::null_mut(), 0).cast()
    };
    if flow.is_null() {
        return 0;
    }
    if new != TCP_CLOSE {
        // At the end the socket has given its port back.
        let port: u16 = field(sk, &g::O_SK_LPORT);
        if port != 0 {
            // SAFETY: checked for null.
            unsafe { (*flow).local_port = u32::from(port) };
        }
        return 0;
    }
    let Some(runtime) = runtime() else { return 0 };
    // SAFETY: checked for null.
    let (tgid, told) = unsafe { ((*flow).tgid, (*flow).told) };
    if tgid == 0 || told == 0 || !telling(runtime) {
        return 0;
    }
    // SAFETY: checked for null.
    let head = flow_head(unsafe { &*flow }, Source::TpBtf);
    let mut b = NO_BODY;
    describe(&raw mut b, sk.cast());
    if g::O_TCP_SENT.load() != ABSENT {
        let again: u64 = if g::O_TCP_AGAIN.load() == ABSENT { 0 } else { field(sk, &g::O_TCP_AGAIN) };
        b.bytes_sent = field::<u64>(sk, &g::O_TCP_SENT).wrapping_sub(again);
        // The peer's FIN takes one number of the sequence and is counted as a byte (net/ipv4/tcp_input.c `tcp_fin`).
        let fin = (field::<u64>(sk, &g::O_SK_FLAGS) >> SOCK_DONE) & 1;
        b.bytes_received = field::<u64>(sk, &g::O_TCP_RECEIVED).wrapping_sub(fin);
    }
    // A refused or dead socket may have forgotten its peer already.
    // SAFETY: checked for null.
    unsafe {
        b.first = (*flow).first;
        if b.remote_port == 0 {
            b.remote_port = (*flow).peer[2] as u16;
        }
        if b.local_port == 0 {
            b.local_port = (*flow).local_port as u16;
        }
        (*flow).tgid = 0;
        // Once: the socket may pass through this state again.
        bpf_sk_storage_delete((&raw const FLOWS).cast_mut().cast(), sk.cast());
    }
    send_small(&head, &b, false);
    0
}

/// `cgroup/sock_release`: net/ipv4/af_inet.c `inet_release`; the end of flows that are not TCP.
#[cgroup_sock(sock_release)]
fn flow_release(ctx: SockContext) -> i32 {
    let sk: *mut bpf_sock = ctx.sock;
    // SAFETY: the verifier types the context.
    let (protocol, family, kind) = unsafe { ((*sk).protocol, (*sk).family, (*sk).type_) };
    if protocol == IPPROTO_TCP {
        return 1;
    }
    // SAFETY: as above.
    let flow: *mut Flow = unsafe {
        bpf_sk_storage_get((&raw const FLOWS).cast_mut().cast(), ctx.as_ptr(), core::ptr::null_mut(), 0)
            .cast()
    };
    if flow.is_null() {
        return 1;
    }
    let Some(runtime) = runtime() else { return 1 };
    // SAFETY: checked for null.
    let f = unsafe { &*flow };
    if f.tgid == 0 || f.told == 0 || !telling(runtime) {
        return 1;
    }
    let mut b = NO_BODY;
    let (a0, a1) = (f.peer[0].to_ne_bytes(), f.peer[1].to_ne_bytes());
    let mut i = 0;
    while i < 8 {
        b.remote[i] = a0[i];
        b.remote[i + 8] = a1[i];
        i += 1;
    }
    b.remote_port = f.peer[2] as u16;
    b.family = family as u16;
    b.sock_type = kind as u16;
    b.protocol = protocol as u16;
    b.bytes_sent = f.sent;
    b.bytes_received = f.received;
    b.first = f.first;
    send_small(&flow_head(f, Source::Cgroup), &b, false);
    1
}

/// Counts the payload of a packet for its socket's flow.
#[inline(always)]
fn count(ctx: &SkBuffContext, egress: bool) {
    let skb: *mut __sk_buff = ctx.skb.skb;
    // SAFETY: the verifier types the context; every step is checked for null.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return;
        }
        let sk = bpf_sk_fullsock(sk);
        if sk.is_null() || (*sk).protocol == IPPROTO_TCP {
            return;
        }
        let flow: *mut Flow =
            bpf_sk_storage_get((&raw const FLOWS).cast_mut().cast(), sk.cast(), core::ptr::null_mut(), 0)
                .cast();
        if flow.is_null() {
            return;
        }
        let mut first = [0u8; 1];
        bpf_skb_load_bytes(skb.cast(), 0, first.as_mut_ptr().cast(), 1);
        let header = if first[0] >> 4 == 4 { u64::from(first[0] & 15) * 4 } else { 40 } + 8;
        let payload = u64::from((*skb).len).saturating_sub(header);
        if egress {
            (*flow).sent += payload;
        } else {
            (*flow).received += payload;
        }
    }
}

/// `cgroup_skb/ingress`.
#[cgroup_skb(ingress)]
fn bytes_ingress(ctx: SkBuffContext) -> i32 {
    count(&ctx, false);
    1
}

/// `cgroup_skb/egress`.
#[cgroup_skb(egress)]
fn bytes_egress(ctx: SkBuffContext) -> i32 {
    count(&ctx, true);
    1
}
