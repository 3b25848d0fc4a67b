//! Routes of the sender's choice: IPv4 source routing and IPv6 routing headers. With them a packet goes to another host
//! first, or last, than the one that was judged. They come with a socket option or with a single message.

use agent_monitor_ebpf::{
    Kind, Source,
    event::{PrivBody, priv_op},
};
use aya_ebpf::{helpers::generated::bpf_loop, macros::lsm, programs::LsmContext};

use crate::bpf::{
    hooks::{file::acting, privilege::start},
    judge::{self, settle_quietly},
    read::value,
    scratch::unseen_zero,
};

const SOL_IP: u32 = 0;
const SOL_IPV6: u32 = 41;
/// `IP_OPTIONS`, include/uapi/linux/in.h.
const IP_OPTIONS: u32 = 4;
/// `IP_RETOPTS`: IPv4 options of one message.
const IP_RETOPTS: u32 = 7;
/// `IPV6_2292RTHDR`, include/uapi/linux/in6.h: a routing header of one message.
const IPV6_2292RTHDR: u32 = 5;
/// `IPV6_2292PKTOPTIONS`: control messages that hold for all packets.
const IPV6_2292PKTOPTIONS: u32 = 6;
/// `IPV6_FLOWLABEL_MGR`: a label can bring control messages along, net/ipv6/ip6_flowlabel.c `fl_create`.
const IPV6_FLOWLABEL_MGR: u32 = 32;
/// `IPV6_RTHDR`.
const IPV6_RTHDR: u32 = 57;
/// Control messages of one call that are looked at; more of them count as a route.
const MESSAGES: u32 = 128;

/// `socket_setsockopt(sock, level, optname)`: net/socket.c. The value is not seen here: also taking a route back wants to be
/// permitted.
#[lsm(hook = "socket_setsockopt")]
fn socket_setsockopt(ctx: LsmContext) -> i32 {
    let (level, option): (u32, u32) = (ctx.arg(1), ctx.arg(2));
    let routes = match level {
        SOL_IP => option == IP_OPTIONS,
        SOL_IPV6 => matches!(option, IPV6_RTHDR | IPV6_2292PKTOPTIONS | IPV6_FLOWLABEL_MGR),
        _ => false,
    };
    if !routes {
        return 0;
    }
    let actor = acting!(Kind::PrivCapability);
    let b: *mut PrivBody = start(&actor, Kind::PrivCapability, priv_op::ROUTE_OPTION, Source::Lsm);
    // SAFETY: the body belongs to the record under construction.
    unsafe { (*b).args = [u64::from(level), u64::from(option), 0, 0] };
    judge::route(&actor);
    settle_quietly(&actor, 0)
}

/// What the steps over control messages carry.
#[repr(C)]
struct Messages {
    at: u64,
    end: u64,
    /// 1: one of them is a route; 2: there are no more.
    found: u32,
    reserved: u32,
}

unsafe extern "C" fn message_step(_i: u64, messages: *mut Messages) -> i64 {
    // SAFETY: the context is on the caller's stack.
    let m = unsafe { &mut *messages };
    // `struct cmsghdr`, include/linux/socket.h: length with the head, level, type.
    let length: u64 = value(m.at as *const u8);
    let level: u32 = value(m.at.wrapping_add(8) as *const u8);
    let kind: u32 = value(m.at.wrapping_add(12) as *const u8);
    if m.at.wrapping_add(16) > m.end || length < 16 || length > m.end.wrapping_sub(m.at) {
        m.found = 2;
        return 1;
    }
    let four = level == SOL_IP && kind == IP_RETOPTS;
    let six = level == SOL_IPV6 && (kind == IPV6_RTHDR || kind == IPV6_2292RTHDR);
    if four || six {
        m.found = 1;
        return 1;
    }
    m.at = m.at.wrapping_add(length.wrapping_add(7) & !7);
    0
}

/// Whether one of the control messages at `at` is a route. The kernel has copied them before the hook.
///
/// # Safety
/// Numbers only.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn message_route(at: u64, length: u64) -> u32 {
    let found = unseen_zero(length as u32);
    let mut m = Messages { at, end: at.wrapping_add(length), found, reserved: 0 };
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the call.
    unsafe {
        bpf_loop(MESSAGES, message_step as *const () as *mut _, (&raw mut m).cast(), 0);
    }
    u32::from(m.found != 2)
}
