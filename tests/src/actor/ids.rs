//! Acts on credentials: user, group, capabilities.

use super::{Act, Failure, Outcome, after, number, then, word};
use crate::sys::{Arg, call, num};

pub(crate) const ACTS: &[Act] = &[
    Act::new("setuid", "UID ACT…", setuid),
    Act::new("setgid", "GID ACT…", setgid),
    Act::new("setresuid", "REAL EFFECTIVE SAVED ACT…", setresuid),
    Act::new("cap-drop", "NUMBER[,NUMBER…] ACT…", |args| change_effective(args, false)),
    Act::new("cap-raise", "NUMBER[,NUMBER…] ACT…", |args| change_effective(args, true)),
];

fn setuid(args: &[String]) -> Outcome {
    call(libc::SYS_setuid, &mut [num(number(args, 0)?)])?;
    then(after(args, 1))
}

fn setgid(args: &[String]) -> Outcome {
    call(libc::SYS_setgid, &mut [num(number(args, 0)?)])?;
    then(after(args, 1))
}

fn setresuid(args: &[String]) -> Outcome {
    let (real, effective, saved) = (number(args, 0)?, number(args, 1)?, number(args, 2)?);
    call(libc::SYS_setresuid, &mut [num(real), num(effective), num(saved)])?;
    then(after(args, 3))
}

/// Sets or clears capabilities in the effective set, all in one call; permitted and inheritable stay.
fn change_effective(args: &[String], on: bool) -> Outcome {
    let parse = |text: &str| text.parse().map_err(|error| Failure::Usage(format!("{text}: {error}")));
    let capabilities = word(args, 0)?.split(',').map(parse).collect::<Result<Vec<usize>, _>>()?;
    // struct __user_cap_header_struct (version 3), then two of { effective, permitted, inheritable }.
    let mut header = [0x2008_0522_u32.to_ne_bytes(), [0; 4]].concat();
    let mut data = [0_u8; 24];
    call(libc::SYS_capget, &mut [Arg::Out(&mut header), Arg::Out(&mut data)])?;
    for capability in capabilities {
        let (at, mask) = ((capability / 32) * 12 + (capability % 32) / 8, 1_u8 << (capability % 8));
        if on {
            data[at] |= mask;
        } else {
            data[at] &= !mask;
        }
    }
    call(libc::SYS_capset, &mut [Arg::In(&header), Arg::In(&data)])?;
    then(after(args, 1))
}
