//! Internet sockets at level partial: cgroup hooks of the root cgroup. They run in the acting task and see `io_uring` too.

use agent_monitor_ebpf::{
    Header, Kind, Source, Verdict,
    config::{RUN_POLICY, Runtime, UNATTRIBUTED_ALL},
    event::NetBody,
    loss::LossReason,
    people::LIFE_ACTIVE,
    policy::{
        NET_BIND, NET_CONNECT, POLICY_ENFORCE, RULE_ENDED, RULE_MISSING, RULE_SESSION, decision, holds,
        stricter,
    },
    task::TaskTag,
};
use aya_ebpf::{
    bindings::bpf_sock_addr, helpers::generated::bpf_sk_storage_get, macros::cgroup_sock_addr,
    programs::SockAddrContext,
};

use super::{AF_INET, AF_INET6, NO_BODY, Peer, note_peer, own, put4};
use crate::bpf::{
    emit::{lose, send_small},
    globals as g,
    judge::{ask, halves, hold::asked, mapped, missing, stamp},
    maps::{FLOWS, Flow, PROCS, SESSIONS},
    read::{cgroup_id, current, field, ids, leader_start, now, pointer, uid_gid},
    tag::{policy_of, runtime, telling},
};

/// What a refused caller sees.
const EPERM: i32 = 1;

/// Head of a record of the running task, whose binding comes from the table of bound processes.
#[inline(always)]
fn cgroup_head(kind: Kind, tgid: u32, tid: u32, tag: &TaskTag) -> Header {
    let (uid, gid) = uid_gid();
    let task = current();
    let cred = pointer(task.cast_const().cast(), &g::O_TASK_CRED);
    Header {
        kind: kind as u16,
        flags: 0,
        total: 0,
        ktime: now(),
        start: leader_start(task),
        cgroup: cgroup_id(),
        session: tag.session,
        tgid,
        tid,
        uid,
        gid,
        agent: tag.agent,
        delegator: tag.delegator,
        bound_by: tag.bound_by,
        source: Source::Cgroup as u8,
        verdict: 0,
        reserved: 0,
        errno: 0,
        euid: field(cred, &g::O_CRED_EUID),
        rule: 0,
        digest: 0,
    }
}

/// What the cgroup hooks of level partial share: tell and remember the flow. Runs in the acting task, which has no task
/// storage here.
#[inline(always)]
fn tell_cgroup(ctx: &SockAddrContext, kind: Kind, v6: bool) -> i32 {
    let (tgid, tid) = ids();
    let Some(runtime) = runtime() else { return 1 };
    // SAFETY: a map value.
    let tag = PROCS.get_ptr(&tgid).map_or(TaskTag::NONE, |p| unsafe { (*p).tag });
    let all = g::UNATTRIBUTED.load() == UNATTRIBUTED_ALL;
    if tag.agent == 0 && (!telling(runtime) || !all || tgid == runtime.daemon_tgid) {
        return 1;
    }
    let a: *mut bpf_sock_addr = ctx.sock_addr;
    let mut b = NO_BODY;
    // SAFETY: the verifier types the context.
    unsafe {
        b.family = (*a).user_family as u16;
        b.sock_type = (*a).type_ as u16;
        b.protocol = (*a).protocol as u16;
        let port = u16::from_be((*a).user_port as u16);
        let mut addr = [0u8; 16];
        if v6 {
            let words = [(*a).user_ip6[0], (*a).user_ip6[1], (*a).user_ip6[2], (*a).user_ip6[3]];
            let mut i = 0;
            while i < 4 {
                let w = words[i].to_ne_bytes();
                addr[i * 4] = w[0];
                addr[i * 4 + 1] = w[1];
                addr[i * 4 + 2] = w[2];
                addr[i * 4 + 3] = w[3];
                i += 1;
            }
        } else {
            put4(&mut addr, (*a).user_ip4);
        }
        if kind as u16 == Kind::NetBind as u16 {
            b.local = addr;
            b.local_port = port;
        } else {
            b.remote = addr;
            b.remote_port = port;
        }
    }
    let mut head = cgroup_head(kind, tgid, tid, &tag);
    if refused(runtime, &mut head, &b, v6) {
        if telling(runtime) {
            send_small(&head, &b, true);
        }
        return 0;
    }
    if kind as u16 != Kind::NetBind as u16 {
        // SAFETY: the socket of the context, typed by the verifier; the helper checks.
        let flow: *mut Flow = unsafe {
            let sk = (*a).__bindgen_anon_1.sk;
            if sk.is_null() {
                core::ptr::null_mut()
            } else {
                bpf_sk_storage_get((&raw const FLOWS).cast_mut().cast(), sk.cast(), core::ptr::null_mut(), 1)
                    .cast()
            }
        };
        if flow.is_null() {
            lose(tag.agent, Kind::NetFlow as u16, LossReason::FlowFull);
        } else {
            own(flow, &tag, &head);
            let family = if v6 { AF_INET6 } else { AF_INET };
            let other = note_peer(flow, family, &Peer { addr: b.remote, port: b.remote_port });
            if kind as u16 == Kind::NetSend as u16 && !other {
                return 1;
            }
        }
    }
    if telling(runtime) {
        send_small(&head, &b, false);
    }
    1
}

/// Judges an act on an internet address; whether it is refused. The caller sees `EPERM`: these hooks have no other.
#[inline(always)]
fn refused(runtime: &Runtime, head: &mut Header, b: &NetBody, v6: bool) -> bool {
    if head.agent == 0 || runtime.flags & RUN_POLICY == 0 {
        return false;
    }
    let bind = head.kind == Kind::NetBind as u16;
    let Some(policy) = policy_of(head.agent, runtime.generation) else {
        missing(if bind { Kind::NetBind } else { Kind::NetConnect }, head.agent);
        return true;
    };
    let (addr, port, action) =
        if bind { (&b.local, b.local_port, NET_BIND) } else { (&b.remote, b.remote_port, NET_CONNECT) };
    let mut asked_of = ask::Peer {
        written: halves(&mapped(v6, addr)),
        agent: head.agent,
        generation: runtime.generation,
        default: policy.net,
        port,
        protocol: b.protocol,
        action: u32::from(action),
        alternative: 0,
    };
    let mut found = ask::peer(&mut asked_of);
    let expired = head.ktime >= policy.expires && policy.flags & POLICY_ENFORCE != 0;
    let mut over = if policy.life != LIFE_ACTIVE || expired { RULE_ENDED } else { 0 };
    if head.session != 0 {
        let (own, ended) = session_of(head.session, head.ktime);
        if over == 0 && ended && policy.flags & POLICY_ENFORCE != 0 {
            over = RULE_SESSION;
        }
        found = stricter(found, narrower(&mut asked_of, own));
    }
    if over != 0 {
        found = stricter(decision(Verdict::Deny, over), found);
    }
    let refused = stamp(head, policy.flags, runtime.generation, found, EPERM);
    if refused && holds(found) { !asked(head, b) } else { refused }
}

/// Policy index of a session's own scope, 0 for none, and whether the session has ended.
#[inline(always)]
pub(super) fn session_of(session: u64, time: u64) -> (u32, bool) {
    let entry = SESSIONS.get_ptr(&session);
    // SAFETY: a map value.
    entry.map_or((0, true), |e| unsafe { ((*e).policy, (*e).ended != 0 || (*e).expires <= time) })
}

/// What a session's own scope of this policy index says about a peer that its agent was asked about; 0 where it has none.
#[inline(always)]
pub(super) fn narrower(peer: &mut ask::Peer, own: u32) -> u32 {
    if own == 0 {
        return 0;
    }
    let Some(policy) = policy_of(own, peer.generation) else { return decision(Verdict::Deny, RULE_MISSING) };
    peer.agent = own;
    peer.default = policy.net;
    ask::peer(peer)
}

/// `cgroup/connect4`.
#[cgroup_sock_addr(connect4)]
fn partial_connect4(ctx: SockAddrContext) -> i32 {
    tell_cgroup(&ctx, Kind::NetConnect, false)
}

/// `cgroup/connect6`.
#[cgroup_sock_addr(connect6)]
fn partial_connect6(ctx: SockAddrContext) -> i32 {
    tell_cgroup(&ctx, Kind::NetConnect, true)
}

/// `cgroup/sendmsg4`: UDP without connect.
#[cgroup_sock_addr(sendmsg4)]
fn partial_sendmsg4(ctx: SockAddrContext) -> i32 {
    tell_cgroup(&ctx, Kind::NetSend, false)
}

/// `cgroup/sendmsg6`: UDP without connect.
#[cgroup_sock_addr(sendmsg6)]
fn partial_sendmsg6(ctx: SockAddrContext) -> i32 {
    tell_cgroup(&ctx, Kind::NetSend, true)
}

/// `cgroup/bind4`.
#[cgroup_sock_addr(bind4)]
fn partial_bind4(ctx: SockAddrContext) -> i32 {
    tell_cgroup(&ctx, Kind::NetBind, false)
}

/// `cgroup/bind6`.
#[cgroup_sock_addr(bind6)]
fn partial_bind6(ctx: SockAddrContext) -> i32 {
    tell_cgroup(&ctx, Kind::NetBind, true)
}
