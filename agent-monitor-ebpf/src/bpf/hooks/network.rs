//! The network family: LSM hooks at level full here, cgroup hooks at level partial in `partial_inet`, and the end of
//! flows at both levels in `flow`.

mod flow;
mod partial_inet;

use agent_monitor_ebpf::{
    Header, Kind, Source,
    event::{NET_ABSTRACT, NET_FASTOPEN, NET_TEXT, NET_UNNAMED, NetBody, Piece},
    fields::ABSENT,
    loss::LossReason,
    task::TaskTag,
};
use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel_str, bpf_sk_storage_get},
    macros::lsm,
    programs::LsmContext,
};

use super::file::hash_key;
use crate::bpf::{
    emit::{begin, body, lose, send},
    globals as g,
    maps::{FLOWS, Flow},
    read::{Ptr, cgroup_id, field, ids, leader_start, now, pointer, uid_gid, value},
    tag::{Actor, actor},
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
    let flow: *mut Flow = unsafe {
        bpf_sk_storage_get((&raw const FLOWS).cast_mut().cast(), sk.cast(), core::ptr::null_mut(), 1).cast()
    };
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
        peer.addr[0],
        peer.addr[1],
        peer.addr[2],
        peer.addr[3],
        peer.addr[4],
        peer.addr[5],
        peer.addr[6],
        peer.addr[7],
    ]);
    let b = u64::from_ne_bytes([
        peer.addr[8],
        peer.addr[9],
        peer.addr[10],
        peer.addr[11],
        peer.addr[12],
        peer.addr[13],
        peer.addr[14],
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

/// A body with nothing in it.
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
