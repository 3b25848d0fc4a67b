//! The network family: LSM hooks at level full, cgroup hooks at level partial, and the end of flows at both.

use agent_monitor_ebpf::{
    Header, Kind, Source,
    event::{NET_ABSTRACT, NET_FASTOPEN, NET_TEXT, NET_UNNAMED, NetBody, Piece},
    fields::ABSENT,
    loss::LossReason,
    task::TaskTag,
};
use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, bpf_sock, bpf_sock_addr},
    helpers::generated::{
        bpf_probe_read_kernel_str, bpf_sk_fullsock, bpf_sk_storage_delete, bpf_sk_storage_get, bpf_skb_load_bytes,
    },
    macros::{btf_tracepoint, cgroup_skb, cgroup_sock, cgroup_sock_addr, lsm},
    programs::{BtfTracePointContext, LsmContext, SkBuffContext, SockAddrContext, SockContext},
};

use super::file::hash_key;
use crate::bpf::{
    emit::{begin, body, lose, send, send_small},
    globals as g,
    maps::{FLOWS, Flow, PROCS},
    read::{Ptr, cgroup_id, current, field, ids, leader_start, now, pointer, uid_gid, value},
    tag::{Actor, actor, runtime, telling},
    walk::walk,
};

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const TCP_CLOSE: u32 = 7;
const IPPROTO_TCP: u32 = 6;
/// Bit of `sk_flags` that `tcp_fin` sets, include/net/sock.h.
const SOCK_DONE: u64 = 1;
const MSG_FASTOPEN: u32 = 0x2000_0000;

/// Bit of [`Flow::told`]: the peer was told as a connection.
const TOLD_CONNECT: u32 = 2;

/// An address as records hold it.
#[derive(Clone, Copy)]
struct Peer {
    addr: [u8; 16],
    port: u16,
}

/// Reads an inet socket address from kernel memory.
#[inline(always)]
fn inet_peer(addr: Ptr, family: u16) -> Peer {
    let mut peer = Peer { addr: [0; 16], port: u16::from_be(value(addr.wrapping_add(2))) };
    if family == AF_INET {
        let a: [u8; 4] = value(addr.wrapping_add(4));
        peer.addr[0] = a[0];
        peer.addr[1] = a[1];
        peer.addr[2] = a[2];
        peer.addr[3] = a[3];
    } else {
        peer.addr = value(addr.wrapping_add(8));
    }
    peer
}

/// Addresses, ports, type and protocol of a socket, from its `sock_common`.
#[inline(always)]
fn describe(b: *mut NetBody, sk: Ptr) {
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        let family: u16 = field(sk, &g::O_SK_FAMILY);
        (*b).family = family;
        (*b).protocol = field(sk, &g::O_SK_PROTOCOL);
        (*b).sock_type = field(sk, &g::O_SK_TYPE);
        if family == AF_INET || family == AF_INET6 {
            (*b).local_port = field(sk, &g::O_SK_LPORT);
            (*b).remote_port = u16::from_be(field(sk, &g::O_SK_RPORT));
        }
        if family == AF_INET {
            put4(&mut (*b).local, field(sk, &g::O_SK_LADDR4));
            put4(&mut (*b).remote, field(sk, &g::O_SK_RADDR4));
        } else if family == AF_INET6 && g::O_SK_RADDR6.load() != ABSENT {
            (*b).local = field(sk, &g::O_SK_LADDR6);
            (*b).remote = field(sk, &g::O_SK_RADDR6);
        }
    }
}

#[inline(always)]
fn put4(to: &mut [u8; 16], addr: u32) {
    let a = addr.to_ne_bytes();
    to[0] = a[0];
    to[1] = a[1];
    to[2] = a[2];
    to[3] = a[3];
}

/// The `struct sock` of a `struct socket`, as a pointer the verifier types.
#[inline(always)]
fn sock_of(socket: Ptr) -> *mut u8 {
    // SAFETY: a direct load keeps the type; the constant offset comes from BTF.
    unsafe { *socket.add(g::O_SOCKET_SK.load() as usize).cast::<*mut u8>() }
}

/// The flow of a socket; made for `actor` when there is none.
#[inline(always)]
fn flow_of(sk: *mut u8, actor: &Actor) -> *mut Flow {
    if sk.is_null() {
        return core::ptr::null_mut();
    }
    // SAFETY: a typed, non-null socket; the helper makes a zeroed value.
    let flow: *mut Flow =
        unsafe { bpf_sk_storage_get((&raw const FLOWS).cast_mut().cast(), sk.cast(), core::ptr::null_mut(), 1).cast() };
    if flow.is_null() {
        lose(actor.agent(), Kind::NetFlow as u16, LossReason::FlowFull);
    } else {
        own_flow(flow, actor);
    }
    flow
}

/// Names the actor as the owner of a flow that has none.
#[inline(always)]
fn own_flow(flow: *mut Flow, actor: &Actor) {
    // SAFETY: checked for null by the caller.
    unsafe {
        if (*flow).tgid != 0 {
            return;
        }
        let (tgid, tid) = ids();
        let (uid, gid) = uid_gid();
        (*flow).tag = *actor.tag();
        (*flow).start = leader_start(actor.task);
        (*flow).cgroup = cgroup_id();
        (*flow).first = now();
        (*flow).tgid = tgid;
        (*flow).tid = tid;
        (*flow).uid = uid;
        (*flow).gid = gid;
        (*flow).euid = field(pointer(actor.task.cast_const().cast(), &g::O_TASK_CRED), &g::O_CRED_EUID);
    }
}

/// Names the owner of a flow that has none.
#[inline(always)]
fn own(flow: *mut Flow, tag: &TaskTag, head: &Header) {
    // SAFETY: checked for null by the caller.
    unsafe {
        if (*flow).tgid == 0 {
            (*flow).tag = *tag;
            (*flow).start = head.start;
            (*flow).cgroup = head.cgroup;
            (*flow).first = head.ktime;
            (*flow).tgid = head.tgid;
            (*flow).tid = head.tid;
            (*flow).uid = head.uid;
            (*flow).gid = head.gid;
            (*flow).euid = head.euid;
        }
    }
}

/// Sends a record about an inet peer of a socket.
#[inline(always)]
fn tell_inet(actor: &Actor, kind: Kind, sk: *mut u8, peer: Peer, remote: bool, how: u16) {
    begin(actor, kind, Source::Lsm);
    let b: *mut NetBody = body(actor.scratch);
    describe(b, sk.cast());
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        if remote {
            (*b).remote = peer.addr;
            (*b).remote_port = peer.port;
        } else {
            (*b).local = peer.addr;
            (*b).local_port = peer.port;
        }
        (*b).how = how;
    }
    send(actor, 0);
}

/// `socket_connect(sock, address, addrlen)`: net/socket.c; `io_uring` calls it too. UNIX sockets are told by the hooks
/// that see the peer itself.
#[lsm(hook = "socket_connect")]
fn socket_connect(ctx: LsmContext) -> i32 {
    let socket: Ptr = ctx.arg(0);
    let address: Ptr = ctx.arg(1);
    let family: u16 = value(address);
    if family == AF_UNIX || family == 0 {
        return 0;
    }
    let Some(actor) = actor(Kind::NetConnect) else { return 0 };
    let sk = sock_of(socket);
    if sk.is_null() {
        return 0;
    }
    if family != AF_INET && family != AF_INET6 {
        begin(&actor, Kind::NetConnect, Source::Lsm);
        describe(body(actor.scratch), sk.cast());
        send(&actor, 0);
        return 0;
    }
    let peer = inet_peer(address, family);
    let flow = flow_of(sk, &actor);
    if !flow.is_null() {
        // SAFETY: checked for null.
        let before = unsafe { (*flow).told };
        let same = !note_peer(flow, family, &peer);
        if same && before & TOLD_CONNECT != 0 {
            // `io_uring` and non-blocking callers come here again for the same connection; a failed one has no flow.
            return 0;
        }
        // SAFETY: as above.
        unsafe { (*flow).told = 1 | TOLD_CONNECT };
    }
    tell_inet(&actor, Kind::NetConnect, sk, peer, true, 0);
    0
}

/// Remembers the peer last told of; true when it is another one.
#[inline(always)]
fn note_peer(flow: *mut Flow, family: u16, peer: &Peer) -> bool {
    let a = u64::from_ne_bytes([
        peer.addr[0], peer.addr[1], peer.addr[2], peer.addr[3], peer.addr[4], peer.addr[5], peer.addr[6], peer.addr[7],
    ]);
    let b = u64::from_ne_bytes([
        peer.addr[8], peer.addr[9], peer.addr[10], peer.addr[11], peer.addr[12], peer.addr[13], peer.addr[14],
        peer.addr[15],
    ]);
    let c = u64::from(family) << 32 | u64::from(peer.port);
    // SAFETY: checked for null by the caller.
    unsafe {
        let other = (*flow).peer[0] != a || (*flow).peer[1] != b || (*flow).peer[2] != c;
        (*flow).peer = [a, b, c];
        (*flow).told |= 1;
        other
    }
}

/// `socket_sendmsg(sock, msg, size)`: net/socket.c. Told once per peer: a message with an address of its own (UDP without
/// connect, TCP Fast Open). What follows is counted in the flow.
#[lsm(hook = "socket_sendmsg")]
fn socket_sendmsg(ctx: LsmContext) -> i32 {
    let Some(actor) = actor(Kind::NetSend) else { return 0 };
    let msg: Ptr = ctx.arg(1);
    let name = pointer(msg, &g::O_MSG_NAME);
    if name.is_null() {
        return 0;
    }
    let family: u16 = value(name);
    if family != AF_INET && family != AF_INET6 {
        return 0;
    }
    let socket: Ptr = ctx.arg(0);
    let sk = sock_of(socket);
    if sk.is_null() {
        return 0;
    }
    let flow = flow_of(sk, &actor);
    let peer = inet_peer(name, family);
    if !flow.is_null() && !note_peer(flow, family, &peer) {
        return 0;
    }
    let fast = field::<u32>(msg, &g::O_MSG_FLAGS) & MSG_FASTOPEN != 0;
    tell_inet(&actor, Kind::NetSend, sk, peer, true, if fast { NET_FASTOPEN } else { 0 });
    0
}

/// `socket_bind(sock, address, addrlen)`: net/socket.c.
#[lsm(hook = "socket_bind")]
fn socket_bind(ctx: LsmContext) -> i32 {
    let Some(actor) = actor(Kind::NetBind) else { return 0 };
    let socket: Ptr = ctx.arg(0);
    let address: Ptr = ctx.arg(1);
    let len: u32 = ctx.arg(2);
    let family: u16 = value(address);
    let sk = sock_of(socket);
    if sk.is_null() {
        return 0;
    }
    if family == AF_INET || family == AF_INET6 {
        tell_inet(&actor, Kind::NetBind, sk, inet_peer(address, family), false, 0);
        return 0;
    }
    begin(&actor, Kind::NetBind, Source::Lsm);
    describe(body(actor.scratch), sk.cast());
    let end = if family == AF_UNIX { unix_text(&actor, address, len) } else { 0 };
    send(&actor, end);
    0
}

/// The text of a UNIX address in kernel memory and, for a path, the directory it starts from.
#[inline(always)]
fn unix_text(actor: &Actor, address: Ptr, len: u32) -> u32 {
    let b: *mut NetBody = body(actor.scratch);
    let first: u8 = value(address.wrapping_add(2));
    if len <= 2 {
        // SAFETY: the body belongs to the record under construction.
        unsafe { (*b).how |= NET_UNNAMED };
        return 0;
    }
    if first == 0 {
        return abstract_name(actor, address.wrapping_add(3), len - 3);
    }
    // SAFETY: the tail is longer than a UNIX path.
    let n = unsafe {
        let to = (&raw mut (*actor.scratch).rec.tail).cast::<u8>();
        bpf_probe_read_kernel_str(to.cast(), 109, address.wrapping_add(2).cast())
    };
    let n = if n < 0 { 0 } else { (n & 127) as u32 };
    // The walk wants a multiple of 8.
    let end = (n + 7) & !7;
    let pwd = pointer(pointer(actor.task.cast_const().cast(), &g::O_TASK_FS), &g::O_FS_PWD);
    let walked = walk(actor.scratch, hash_key(), pwd, end);
    // SAFETY: as above.
    unsafe {
        (*b).how |= NET_TEXT;
        (*b).a = Piece { len: end as u16, depth: 0, flags: 0 };
        (*b).b = walked.piece;
        (*b).dev_b = field(pointer(pwd, &g::O_DENTRY_SB), &g::O_SB_DEV);
    }
    walked.end
}

/// An abstract name: bytes of known length, NULs included.
#[inline(always)]
fn abstract_name(actor: &Actor, at: Ptr, len: u32) -> u32 {
    let b: *mut NetBody = body(actor.scratch);
    let len = len & 127;
    // SAFETY: the tail is longer than 128 bytes; the body belongs to the record under construction.
    unsafe {
        let to = (&raw mut (*actor.scratch).rec.tail).cast::<u8>();
        aya_ebpf::helpers::generated::bpf_probe_read_kernel(to.cast(), len, at.cast());
        (*b).how |= NET_ABSTRACT;
        (*b).a = Piece { len: len as u16, depth: 0, flags: 0 };
    }
    len
}

/// The name a UNIX socket was bound to: its dentry, its abstract name, or none.
#[inline(always)]
fn unix_name(actor: &Actor, sk: Ptr) -> u32 {
    let b: *mut NetBody = body(actor.scratch);
    if g::O_UNIX_DENTRY.load() == ABSENT || g::O_UNIX_ADDR.load() == ABSENT {
        return 0;
    }
    let dentry = pointer(sk, &g::O_UNIX_DENTRY);
    if !dentry.is_null() {
        let walked = walk(actor.scratch, hash_key(), dentry, 0);
        // SAFETY: the body belongs to the record under construction.
        unsafe {
            (*b).a = walked.piece;
            (*b).dev = field(pointer(dentry, &g::O_DENTRY_SB), &g::O_SB_DEV);
        }
        return walked.end;
    }
    let addr = pointer(sk, &g::O_UNIX_ADDR);
    if addr.is_null() {
        // SAFETY: as above.
        unsafe { (*b).how |= NET_UNNAMED };
        return 0;
    }
    let len: u32 = field(addr, &g::O_UNIX_ADDR_LEN);
    // `name` holds a `sockaddr_un`: two bytes of family, then the leading NUL.
    abstract_name(actor, addr.wrapping_add(g::O_UNIX_ADDR_NAME.load() as usize + 3), len.wrapping_sub(3))
}

/// Sends a record about a UNIX socket's name.
#[inline(always)]
fn tell_unix(actor: &Actor, kind: Kind, named: Ptr) {
    begin(actor, kind, Source::Lsm);
    let b: *mut NetBody = body(actor.scratch);
    describe(b, named);
    let end = unix_name(actor, named);
    send(actor, end);
}

/// `unix_stream_connect(sock, other, newsk)`: net/unix/af_unix.c, with the peer itself.
#[lsm(hook = "unix_stream_connect")]
fn unix_stream_connect(ctx: LsmContext) -> i32 {
    if let Some(actor) = actor(Kind::NetConnect) {
        tell_unix(&actor, Kind::NetConnect, ctx.arg(1));
    }
    0
}

/// `unix_may_send(sock, other)`: net/unix/af_unix.c, at datagram connect and at each datagram; told once per peer.
#[lsm(hook = "unix_may_send")]
fn unix_may_send(ctx: LsmContext) -> i32 {
    let Some(actor) = actor(Kind::NetSend) else { return 0 };
    let socket: Ptr = ctx.arg(0);
    let other: Ptr = ctx.arg(1);
    let sk = sock_of(socket);
    let peer_sk = pointer(other, &g::O_SOCKET_SK);
    let flow = flow_of(sk, &actor);
    if !flow.is_null() {
        // SAFETY: checked for null.
        unsafe {
            if (*flow).peer[0] == peer_sk as u64 {
                return 0;
            }
            (*flow).peer[0] = peer_sk as u64;
        }
    }
    tell_unix(&actor, Kind::NetSend, peer_sk);
    0
}

/// `socket_listen(sock, backlog)`: net/socket.c.
#[lsm(hook = "socket_listen")]
fn socket_listen(ctx: LsmContext) -> i32 {
    let Some(actor) = actor(Kind::NetListen) else { return 0 };
    let sk = pointer(ctx.arg(0), &g::O_SOCKET_SK);
    tell_local(&actor, Kind::NetListen, sk, Source::Lsm);
    0
}

/// Sends a record about a socket as it stands.
#[inline(always)]
pub(crate) fn tell_local(actor: &Actor, kind: Kind, sk: Ptr, source: Source) {
    begin(actor, kind, source);
    let b: *mut NetBody = body(actor.scratch);
    describe(b, sk);
    let family: u16 = field(sk, &g::O_SK_FAMILY);
    let end = if family == AF_UNIX { unix_name(actor, sk) } else { 0 };
    send(actor, end);
}

/// `sock_graft(sk, parent)`: include/net/sock.h, called by accept in the accepting task with the new connection.
#[lsm(hook = "sock_graft")]
fn sock_graft(ctx: LsmContext) -> i32 {
    let Some(actor) = actor(Kind::NetAccept) else { return 0 };
    let sk: *mut u8 = ctx.arg(0);
    let family: u16 = field(sk, &g::O_SK_FAMILY);
    if family != AF_INET && family != AF_INET6 && family != AF_UNIX {
        return 0;
    }
    if family != AF_UNIX {
        let flow = flow_of(sk, &actor);
        if !flow.is_null() {
            // SAFETY: checked for null.
            unsafe { (*flow).told = 1 };
        }
    }
    tell_local(&actor, Kind::NetAccept, sk, Source::Lsm);
    0
}

/// Head of a record about a flow, whoever runs now.
#[inline(always)]
fn flow_head(flow: &Flow, source: Source) -> Header {
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
        reserved2: 0,
    }
}

const NO_BODY: NetBody = NetBody {
    remote: [0; 16],
    local: [0; 16],
    bytes_sent: 0,
    bytes_received: 0,
    first: 0,
    cookie: 0,
    remote_port: 0,
    local_port: 0,
    family: 0,
    sock_type: 0,
    protocol: 0,
    how: 0,
    dev: 0,
    dev_b: 0,
    a: Piece { len: 0, depth: 0, flags: 0 },
    b: Piece { len: 0, depth: 0, flags: 0 },
    reserved: 0,
};

/// `inet_sock_set_state(sk, oldstate, newstate)`: net/ipv4/af_inet.c; often in a softirq, so nothing of the running task
/// is used.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn flow_tcp(ctx: BtfTracePointContext) -> i32 {
    let new: u32 = ctx.arg(2);
    let sk: *mut u8 = ctx.arg(0);
    // SAFETY: a typed socket.
    let flow: *mut Flow =
        unsafe { bpf_sk_storage_get((&raw const FLOWS).cast_mut().cast(), sk.cast(), core::ptr::null_mut(), 0).cast() };
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
        bpf_sk_storage_get((&raw const FLOWS).cast_mut().cast(), ctx.as_ptr(), core::ptr::null_mut(), 0).cast()
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
            bpf_sk_storage_get((&raw const FLOWS).cast_mut().cast(), sk.cast(), core::ptr::null_mut(), 0).cast();
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

/// What the cgroup hooks of level partial share: tell and remember the flow. Runs in the acting task, which has no task
/// storage here.
#[inline(always)]
fn tell_cgroup(ctx: &SockAddrContext, kind: Kind, v6: bool) -> i32 {
    let (tgid, tid) = ids();
    let Some(runtime) = runtime() else { return 1 };
    // SAFETY: a map value.
    let tag = PROCS.get_ptr(&tgid).map_or(TaskTag::NONE, |p| unsafe { (*p).tag });
    let all = g::UNATTRIBUTED.load() == agent_monitor_ebpf::config::UNATTRIBUTED_ALL;
    if !telling(runtime) || (tag.agent == 0 && (!all || tgid == runtime.daemon_tgid)) {
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
    let (uid, gid) = uid_gid();
    let task = current();
    let cred = pointer(task.cast_const().cast(), &g::O_TASK_CRED);
    let head = Header {
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
        reserved2: 0,
    };
    if kind as u16 != Kind::NetBind as u16 {
        // SAFETY: the socket of the context, typed by the verifier; the helper checks.
        let flow: *mut Flow = unsafe {
            let sk = (*a).__bindgen_anon_1.sk;
            if sk.is_null() {
                core::ptr::null_mut()
            } else {
                bpf_sk_storage_get((&raw const FLOWS).cast_mut().cast(), sk.cast(), core::ptr::null_mut(), 1).cast()
            }
        };
        if flow.is_null() {
            lose(tag.agent, Kind::NetFlow as u16, LossReason::FlowFull);
        } else {
            own(flow, &tag, &head);
            let other = note_peer(flow, b.family, &Peer { addr: b.remote, port: b.remote_port });
            if kind as u16 == Kind::NetSend as u16 && !other {
                return 1;
            }
        }
    }
    send_small(&head, &b, false);
    1
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
