//! The network family: LSM hooks at level full here, cgroup hooks at level partial in `partial_inet`, and the end of
//! flows at both levels in `flow`; `names` brings what names peers.

mod destination;
mod flow;
mod names;
mod partial_inet;
mod route;
mod unix;

use agent_monitor_ebpf::{
    Header, Kind, Source,
    event::{NET_FASTOPEN, NET_ROUTED, NetBody, Piece, priv_op},
    fields::ABSENT,
    loss::LossReason,
    policy::{NET_BIND, NET_CONNECT, NET_LISTEN, ask, power},
    task::TaskTag,
};
use aya_ebpf::{helpers::generated::bpf_sk_storage_get, macros::lsm, programs::LsmContext};

use self::route::message_route;
use self::unix::{unix_name, unix_text};
use super::file::acting;
use super::privilege::start;
use crate::bpf::{
    emit::{begin, body, lose, send},
    globals as g,
    judge::{self, settle},
    maps::{FLOWS, Flow},
    read::{Ptr, cgroup_id, field, ids, leader_start, now, pointer, uid_gid, value},
    tag::{Actor, actor},
};

const AF_UNSPEC: u16 = 0;
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_NETLINK: u16 = 16;
const AF_PACKET: u16 = 17;
const AF_VSOCK: u16 = 40;
const SOCK_RAW: u32 = 3;
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

/// A socket's own address, for a peer of this family; zero while it has none.
#[inline(always)]
fn own_address(sk: Ptr, family: u16) -> [u8; 16] {
    let mut own = [0; 16];
    if family == AF_INET {
        put4(&mut own, field(sk, &g::O_SK_LADDR4));
    } else if g::O_SK_LADDR6.load() != ABSENT {
        own = field(sk, &g::O_SK_LADDR6);
    }
    own
}

/// Judges an act on an inet peer or own address of a socket, and fills its record.
#[inline(always)]
fn fill_inet(actor: &Actor, kind: Kind, sk: *mut u8, family: u16, peer: Peer, action: u8, how: u16) {
    begin(actor, kind, Source::Lsm);
    let b: *mut NetBody = body(actor.scratch);
    describe(b, sk.cast());
    let remote = action == NET_CONNECT;
    let protocol: u16 = field(sk.cast_const(), &g::O_SK_PROTOCOL);
    let own = if remote { own_address(sk.cast_const(), family) } else { [0; 16] };
    judge::inet(actor, family == AF_INET6, &peer.addr, &own, peer.port, protocol, action);
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
    let actor = acting!(Kind::NetConnect);
    let sk = sock_of(socket);
    if sk.is_null() {
        return 0;
    }
    if family != AF_INET && family != AF_INET6 {
        begin(&actor, Kind::NetConnect, Source::Lsm);
        describe(body(actor.scratch), sk.cast());
        other_peer(&actor, family, address);
        return settle(&actor, 0);
    }
    let peer = inet_peer(address, family);
    fill_inet(&actor, Kind::NetConnect, sk, family, peer, NET_CONNECT, 0);
    let refused = judge::refusal(&actor, 0);
    if refused != 0 {
        return refused;
    }
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
    send(&actor, 0);
    0
}

/// Judges a peer that is neither internet nor UNIX: vsock by its rules, netlink talks to the kernel, anything else is
/// unknown.
#[inline(always)]
fn other_peer(actor: &Actor, family: u16, address: Ptr) {
    if family == AF_NETLINK {
        return;
    }
    if family != AF_VSOCK {
        judge::unknown(actor);
        return;
    }
    // `struct sockaddr_vm`, include/uapi/linux/vm_sockets.h: port at 4, cid at 8.
    judge::vsock(actor, value(address.wrapping_add(8)), value(address.wrapping_add(4)));
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
        if other {
            (*flow).before = (*flow).peer;
        }
        (*flow).peer = [a, b, c];
        (*flow).told |= 1;
        other
    }
}

/// `socket_sendmsg(sock, msg, size)`: net/socket.c. Told once per peer: a message with an address of its own (UDP without
/// connect, TCP Fast Open). What follows is counted in the flow.
#[lsm(hook = "socket_sendmsg")]
fn socket_sendmsg(ctx: LsmContext) -> i32 {
    let actor = acting!(Kind::NetSend);
    let msg: Ptr = ctx.arg(1);
    let socket: Ptr = ctx.arg(0);
    let sk = sock_of(socket);
    if sk.is_null() {
        return 0;
    }
    let refused = routed_message(&actor, msg, sk.cast_const());
    if refused != 0 {
        return refused;
    }
    let name = pointer(msg, &g::O_MSG_NAME);
    if name.is_null() {
        return 0;
    }
    let mut family: u16 = value(name);
    if family == AF_UNSPEC {
        // An IPv4 socket takes an address without a family for its own, net/ipv4/udp.c `udp_sendmsg`.
        family = field(sk.cast_const(), &g::O_SK_FAMILY);
    }
    if family != AF_INET && family != AF_INET6 {
        return 0;
    }
    let peer = inet_peer(name, family);
    let fast = field::<u32>(msg, &g::O_MSG_FLAGS) & MSG_FASTOPEN != 0;
    let how = if fast { NET_FASTOPEN } else { 0 };
    fill_inet(&actor, Kind::NetSend, sk, family, peer, NET_CONNECT, how);
    let refused = judge::refusal(&actor, 0);
    if refused != 0 {
        return refused;
    }
    let flow = flow_of(sk, &actor);
    if !flow.is_null() && !note_peer(flow, family, &peer) {
        return 0;
    }
    send(&actor, 0);
    0
}

/// What the hook returns for a message that carries a route of its own and may not; 0 for every other.
#[inline(always)]
fn routed_message(actor: &Actor, msg: Ptr, sk: Ptr) -> i32 {
    let family: u16 = field(sk, &g::O_SK_FAMILY);
    if family != AF_INET && family != AF_INET6 {
        return 0;
    }
    let length: u64 = field(msg, &g::O_MSG_CONTROLLEN);
    // SAFETY: numbers only.
    if length == 0 || unsafe { message_route(pointer(msg, &g::O_MSG_CONTROL) as u64, length) } == 0 {
        return 0;
    }
    begin(actor, Kind::NetSend, Source::Lsm);
    let b: *mut NetBody = body(actor.scratch);
    describe(b, sk);
    let name = pointer(msg, &g::O_MSG_NAME);
    let family: u16 = value(name);
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).how = NET_ROUTED;
        if !name.is_null() && (family == AF_INET || family == AF_INET6) {
            let peer = inet_peer(name, family);
            (*b).family = family;
            (*b).remote = peer.addr;
            (*b).remote_port = peer.port;
        }
    }
    judge::route(actor);
    judge::refusal(actor, 0)
}

/// `socket_bind(sock, address, addrlen)`: net/socket.c.
#[lsm(hook = "socket_bind")]
fn socket_bind(ctx: LsmContext) -> i32 {
    let actor = acting!(Kind::NetBind);
    let socket: Ptr = ctx.arg(0);
    let address: Ptr = ctx.arg(1);
    let len: u32 = ctx.arg(2);
    let sk = sock_of(socket);
    if sk.is_null() {
        return 0;
    }
    let mut family: u16 = value(address);
    if family == AF_UNSPEC {
        // net/ipv4/af_inet.c `__inet_bind` takes the unspecified family with the unspecified address.
        family = field(sk.cast_const(), &g::O_SK_FAMILY);
    }
    if family == AF_INET || family == AF_INET6 {
        fill_inet(&actor, Kind::NetBind, sk, family, inet_peer(address, family), NET_BIND, 0);
        return settle(&actor, 0);
    }
    begin(&actor, Kind::NetBind, Source::Lsm);
    describe(body(actor.scratch), sk.cast());
    let end = if family == AF_UNIX { unix_text(&actor, address, len) } else { 0 };
    settle(&actor, end)
}

/// `socket_listen(sock, backlog)`: net/socket.c.
#[lsm(hook = "socket_listen")]
fn socket_listen(ctx: LsmContext) -> i32 {
    let actor = acting!(Kind::NetListen);
    let sk = pointer(ctx.arg(0), &g::O_SOCKET_SK);
    let family: u16 = field(sk, &g::O_SK_FAMILY);
    // Two ways to the end: together the verifier would follow each of the one through each of the other.
    if family != AF_INET && family != AF_INET6 {
        let end = fill_local(&actor, Kind::NetListen, sk, Source::Lsm);
        return settle(&actor, end);
    }
    begin(&actor, Kind::NetListen, Source::Lsm);
    describe(body(actor.scratch), sk);
    let addr = own_address(sk, family);
    let (port, protocol): (u16, u16) = (field(sk, &g::O_SK_LPORT), field(sk, &g::O_SK_PROTOCOL));
    judge::inet(&actor, family == AF_INET6, &addr, &[0; 16], port, protocol, NET_LISTEN);
    settle(&actor, 0)
}

/// Fills a record about a socket as it stands; a UNIX socket's name is judged for listening.
#[inline(always)]
fn fill_local(actor: &Actor, kind: Kind, sk: Ptr, source: Source) -> u32 {
    begin(actor, kind, source);
    let b: *mut NetBody = body(actor.scratch);
    describe(b, sk);
    let family: u16 = field(sk, &g::O_SK_FAMILY);
    let asked = if kind as u16 == Kind::NetListen as u16 { ask::UNIX_LISTEN } else { 0 };
    if family == AF_UNIX { unix_name(actor, sk, asked) } else { 0 }
}

/// Sends a record about a socket as it stands.
#[inline(always)]
pub(crate) fn tell_local(actor: &Actor, kind: Kind, sk: Ptr, source: Source) {
    let end = fill_local(actor, kind, sk, source);
    send(actor, end);
}

/// `socket_create(family, type, protocol, kern)`: net/socket.c. Told when refused; what a socket does is told by itself.
#[lsm(hook = "socket_create")]
fn socket_create(ctx: LsmContext) -> i32 {
    let (family, kind, protocol, kern): (u32, u32, u32, u32) =
        (ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3));
    if kern != 0 || family == u32::from(AF_UNIX) || family == u32::from(AF_VSOCK) {
        return 0;
    }
    let inet = family == u32::from(AF_INET) || family == u32::from(AF_INET6);
    let raw = family == u32::from(AF_PACKET) || (inet && kind == SOCK_RAW);
    if inet && !raw && known_protocol(protocol) {
        return 0;
    }
    if family == u32::from(AF_NETLINK) && quiet_netlink(protocol) {
        return 0;
    }
    let actor = acting!(Kind::PrivCapability);
    let op = if raw { priv_op::RAW_SOCKET } else { priv_op::UNKNOWN_SOCKET };
    let b = start(&actor, Kind::PrivCapability, op, Source::Lsm);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).args = [u64::from(family), u64::from(kind), u64::from(protocol), 0] };
    if raw {
        judge::power(&actor, power::RAW_SOCKET);
    } else {
        judge::unknown(&actor);
    }
    judge::settle_quietly(&actor, 0)
}

/// Internet protocols whose every road to a peer passes a judged hook: the default, ICMP, TCP, UDP, ICMPv6, UDP-Lite,
/// MPTCP. SCTP is not among them: `sctp_connectx` passes none.
#[inline(always)]
fn known_protocol(protocol: u32) -> bool {
    matches!(protocol, 0 | 1 | 6 | 17 | 58 | 136 | 262)
}

/// Netlink protocols by which programs ask the kernel: routes and addresses, socket lists, hot-plug, generic. Changes
/// through them want `CAP_NET_ADMIN`.
#[inline(always)]
fn quiet_netlink(protocol: u32) -> bool {
    matches!(protocol, 0 | 4 | 15 | 16)
}

/// `sock_graft(sk, parent)`: include/net/sock.h, called by accept in the accepting task with the new connection.
#[lsm(hook = "sock_graft")]
fn sock_graft(ctx: LsmContext) -> i32 {
    let Ok(actor) = actor(Kind::NetAccept) else { return 0 };
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
