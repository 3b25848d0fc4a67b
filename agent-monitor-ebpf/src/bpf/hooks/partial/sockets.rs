//! UNIX sockets, listen and accept at level partial. Internet sockets come from the cgroup hooks.

use agent_monitor_ebpf::{
    Kind, Source,
    event::{NET_ABSTRACT, NET_TEXT, NET_UNNAMED, NetBody, Piece},
};
use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_probe_read_user_str};

use super::file_of;
use crate::bpf::{
    emit::{begin, body, send},
    globals as g,
    hooks::network::tell_local,
    read::{Ptr, dentry_id, field, pointer, user},
    tag::Actor,
    walk::walk,
};

const AF_UNIX: u16 = 1;

/// The `struct sock` behind a descriptor; null when it is not a socket.
#[inline(always)]
fn sock_of(actor: &Actor, fd: u32) -> Ptr {
    let file = file_of(actor, fd);
    if file.is_null() {
        return core::ptr::null();
    }
    pointer(pointer(file, &g::O_FILE_PRIVATE), &g::O_SOCKET_SK)
}

/// An address argument, told when it is a UNIX one.
#[inline(always)]
pub(super) fn unix_address(actor: &Actor, kind: Kind, address: u64, len: u32, fd: u64) {
    if address == 0 || user::<u16>(address) != Some(AF_UNIX) {
        return;
    }
    begin(actor, kind, Source::RawTp);
    let b: *mut NetBody = body(actor.scratch);
    let sk = sock_of(actor, fd as u32);
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).family = AF_UNIX;
        (*b).sock_type = if sk.is_null() { 0 } else { field(sk, &g::O_SK_TYPE) };
    }
    let end = if len <= 2 {
        // SAFETY: as above.
        unsafe { (*b).how = NET_UNNAMED };
        0
    } else if user::<u8>(address + 2) == Some(0) {
        abstract_name(actor, address + 3, len - 3)
    } else {
        path_text(actor, address + 2)
    };
    send(actor, end);
}

#[inline(always)]
fn abstract_name(actor: &Actor, at: u64, len: u32) -> u32 {
    let b: *mut NetBody = body(actor.scratch);
    let len = len & 127;
    // SAFETY: the tail is longer than 128 bytes; the body belongs to the record under construction.
    unsafe {
        let to = (&raw mut (*actor.scratch).rec.tail).cast::<u8>();
        bpf_probe_read_user(to.cast(), len, at as *const _);
        (*b).how = NET_ABSTRACT;
        (*b).a = Piece { len: len as u16, depth: 0, flags: 0 };
    }
    len
}

#[inline(always)]
fn path_text(actor: &Actor, at: u64) -> u32 {
    let b: *mut NetBody = body(actor.scratch);
    // SAFETY: the tail is longer than a UNIX path.
    let n = unsafe {
        let to = (&raw mut (*actor.scratch).rec.tail).cast::<u8>();
        bpf_probe_read_user_str(to.cast(), 109, at as *const _)
    };
    let n = if n < 0 { 0 } else { (n & 127) as u32 };
    let end = (n + 7) & !7;
    let fs = pointer(actor.task.cast_const().cast(), &g::O_TASK_FS);
    let base =
        if user::<u8>(at) == Some(b'/') { pointer(fs, &g::O_FS_ROOT) } else { pointer(fs, &g::O_FS_PWD) };
    let walked = walk(actor.scratch, base, end);
    // SAFETY: the body belongs to the record under construction.
    unsafe {
        (*b).how = NET_TEXT;
        (*b).a = Piece { len: end as u16, depth: 0, flags: 0 };
        (*b).b = walked.piece;
        (*b).dev_b = dentry_id(base).0;
    }
    walked.end
}

/// `listen`.
#[inline(always)]
pub(super) fn listening(actor: &Actor, fd: u32) {
    let sk = sock_of(actor, fd);
    if !sk.is_null() {
        tell_local(actor, Kind::NetListen, sk, Source::RawTp);
    }
}

/// `accept`, `accept4`.
#[inline(always)]
pub(super) fn accepted(actor: &Actor, fd: u32) {
    let sk = sock_of(actor, fd);
    if !sk.is_null() {
        tell_local(actor, Kind::NetAccept, sk, Source::RawTp);
    }
}
