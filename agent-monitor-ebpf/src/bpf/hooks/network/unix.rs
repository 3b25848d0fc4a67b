//! UNIX sockets: names as texts and as places, and the hooks that see the peer itself.

use agent_monitor_ebpf::{
    Kind, Source,
    event::{NET_ABSTRACT, NET_TEXT, NET_UNNAMED, NetBody, Piece},
    fields::ABSENT,
    loss::LossReason,
    policy::ask,
};
use aya_ebpf::{helpers::generated::bpf_probe_read_kernel_str, macros::lsm, programs::LsmContext};

use super::{super::file::acting, describe, flow_of, sock_of};
use crate::bpf::{
    emit::{begin, body, lose, send},
    globals as g,
    judge::{self, settle},
    read::{Ptr, field, pointer, value},
    tag::Actor,
    walk::{text_hash_at, walk},
};

/// The text of a UNIX address in kernel memory and, for a path, the directory it starts from.
#[inline(always)]
pub(super) fn unix_text(actor: &Actor, address: Ptr, len: u32) -> u32 {
    let b: *mut NetBody = body(actor.scratch);
    let first: u8 = value(address.wrapping_add(2));
    if len <= 2 {
        // SAFETY: the body belongs to the record under construction.
        unsafe { (*b).how |= NET_UNNAMED };
        return 0;
    }
    if first == 0 {
        // A path is judged where its node is made, `inode_mknod`.
        return abstract_name(actor, address.wrapping_add(3), len - 3, ask::UNIX_BIND);
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
    let walked = walk(actor.scratch, pwd, end);
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
fn abstract_name(actor: &Actor, at: Ptr, len: u32, asked: u32) -> u32 {
    let b: *mut NetBody = body(actor.scratch);
    let len = len & 127;
    // SAFETY: the tail is longer than 128 bytes; the body belongs to the record under construction.
    unsafe {
        let to = (&raw mut (*actor.scratch).rec.tail).cast::<u8>();
        aya_ebpf::helpers::generated::bpf_probe_read_kernel(to.cast(), len, at.cast());
        (*b).how |= NET_ABSTRACT;
        (*b).a = Piece { len: len as u16, depth: 0, flags: 0 };
    }
    if actor.policy.is_some() {
        judge::abstract_socket(actor, text_hash_at(actor.scratch, len), asked);
    }
    len
}

/// Writes the name a UNIX socket was bound to and judges it: its dentry, its abstract name, or none. Where this kernel does
/// not show the name, it is judged as what cannot be known.
#[inline(always)]
pub(super) fn unix_name(actor: &Actor, sk: Ptr, asked: u32) -> u32 {
    let b: *mut NetBody = body(actor.scratch);
    let shown = [&g::O_UNIX_DENTRY, &g::O_UNIX_ADDR, &g::O_UNIX_ADDR_LEN, &g::O_UNIX_ADDR_NAME];
    if shown.iter().any(|offset| offset.load() == ABSENT) {
        // SAFETY: scratch was checked for null when the actor was made.
        let kind = unsafe { (*actor.scratch).rec.head.kind };
        lose(actor.agent(), kind, LossReason::ReadFailed);
        judge::unknown(actor);
        return 0;
    }
    let dentry = pointer(sk, &g::O_UNIX_DENTRY);
    if !dentry.is_null() {
        let walked = walk(actor.scratch, dentry, 0);
        // SAFETY: the body belongs to the record under construction.
        unsafe {
            (*b).a = walked.piece;
            (*b).dev = field(pointer(dentry, &g::O_DENTRY_SB), &g::O_SB_DEV);
        }
        judge::place(actor, dentry, &walked, 0, asked, false);
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
    abstract_name(
        actor,
        addr.wrapping_add(g::O_UNIX_ADDR_NAME.load() as usize + 3),
        len.wrapping_sub(3),
        asked,
    )
}

/// An act on a UNIX peer.
#[inline(always)]
fn act_unix(actor: &Actor, kind: Kind, named: Ptr) -> u32 {
    begin(actor, kind, Source::Lsm);
    let b: *mut NetBody = body(actor.scratch);
    describe(b, named);
    unix_name(actor, named, ask::UNIX_CONNECT)
}

/// `unix_stream_connect(sock, other, newsk)`: net/unix/af_unix.c, with the peer itself.
#[lsm(hook = "unix_stream_connect")]
fn unix_stream_connect(ctx: LsmContext) -> i32 {
    let actor = acting!(Kind::NetConnect);
    let end = act_unix(&actor, Kind::NetConnect, ctx.arg(1));
    settle(&actor, end)
}

/// `unix_may_send(sock, other)`: net/unix/af_unix.c, at datagram connect and at each datagram; told once per peer.
#[lsm(hook = "unix_may_send")]
fn unix_may_send(ctx: LsmContext) -> i32 {
    let actor = acting!(Kind::NetSend);
    let socket: Ptr = ctx.arg(0);
    let other: Ptr = ctx.arg(1);
    let sk = sock_of(socket);
    let peer_sk = pointer(other, &g::O_SOCKET_SK);
    let end = act_unix(&actor, Kind::NetSend, peer_sk);
    let refused = judge::refusal(&actor, end);
    if refused != 0 {
        return refused;
    }
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
    send(&actor, end);
    0
}
