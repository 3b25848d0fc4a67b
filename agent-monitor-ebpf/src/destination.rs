//! Where packets to a written address go. An address can stand for others: the unspecified address reaches the host
//! itself, and some IPv6 addresses carry an IPv4 address to which a translator or tunnel delivers. A scope is asked about
//! all of them, and the strictest answer counts.

use crate::policy::{NET_CONNECT, RULE_DEFAULT, rule_of, stricter};

/// Addresses that a written address can stand for besides itself, as [`stands_for`] counts them from 1.
pub const ALTERNATIVES: u32 = 2;

/// `::ffff:0.0.0.0`, the lower half: IPv4 in the form of the tables.
const MAPPED: u64 = 0xffff << 32;
const LOOPBACK4: u64 = MAPPED | 0x7f00_0001;

/// Whether an address (upper and lower half, IPv4 as `::ffff:a.b.c.d`) is the unspecified one of its family.
#[inline(always)]
pub const fn unspecified(hi: u64, lo: u64) -> bool {
    hi == 0 && (lo == 0 || lo == MAPPED)
}

/// The `n`-th address that an address stands for besides itself, in the same form; `(0, 0)` where there is none.
///
/// `::` stands for both loopback addresses: a socket for both families takes IPv4 too. Only a peer can be reached through
/// a translator or tunnel, so for other actions no IPv4 address is looked for inside.
#[inline(always)]
pub const fn stands_for(hi: u64, lo: u64, n: u32, action: u8) -> (u64, u64) {
    if hi == 0 && lo == 0 {
        return if n == 1 { (0, 1) } else { (0, LOOPBACK4) };
    }
    if hi == 0 && lo == MAPPED {
        return if n == 1 { (0, LOOPBACK4) } else { (0, 0) };
    }
    if action != NET_CONNECT {
        return (0, 0);
    }
    match embedded(hi, lo) {
        Some(v4) if n == 1 => (0, MAPPED | v4 as u64),
        Some(0) => (0, LOOPBACK4),
        _ => (0, 0),
    }
}

/// The IPv4 address to which a translator or tunnel delivers what is sent to this IPv6 address.
#[inline(always)]
const fn embedded(hi: u64, lo: u64) -> Option<u32> {
    let (low, third) = (lo as u32, (lo >> 32) as u32);
    // `::a.b.c.d` (RFC 4291, automatic tunnels) and `::ffff:0:a.b.c.d` (RFC 2765); `::` and `::1` are not of them.
    if hi == 0 && ((third == 0 && low > 1) || third == 0xffff_0000) {
        return Some(low);
    }
    // NAT64: `64:ff9b::/96` (RFC 6052) and the local `64:ff9b:1::/48` (RFC 8215).
    if (hi == 0x0064_ff9b_0000_0000 && third == 0) || hi >> 16 == 0x0064_ff9b_0001 {
        return Some(low);
    }
    // 6to4, `2002:a.b.c.d::/48` (RFC 3056).
    if hi >> 48 == 0x2002 {
        return Some((hi >> 16) as u32);
    }
    // Teredo, `2001::/32`: the client's address with its bits turned (RFC 4380).
    if hi >> 32 == 0x2001_0000 {
        return Some(!low);
    }
    // ISATAP: an interface identifier of `0:5efe` or `200:5efe` (RFC 5214).
    if third & !0x0300_0000 == 0x5efe {
        return Some(low);
    }
    None
}

/// Adds what a scope says of an address that the written one stands for. An own address in general terms also serves the
/// loopback address; what only the default refuses there is no rule about it.
#[inline(always)]
pub const fn with_alternative(found: u32, other: u32, action: u8) -> u32 {
    if action != NET_CONNECT && rule_of(other) == RULE_DEFAULT { found } else { stricter(found, other) }
}
