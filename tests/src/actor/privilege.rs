//! Acts that use a right over others or over the kernel: signals, `bpf()`, modules.

use super::{Act, Facts, Failure, Outcome, fact, number, word};
use crate::sys::{self, Arg, Forked, call, cstr, num};
use std::os::fd::AsRawFd;

pub(crate) const ACTS: &[Act] = &[
    Act::new("kill", "PID SIGNAL", kill),
    Act::new("kill-child", "SIGNAL", kill_child),
    Act::new("bpf", "", bpf),
    Act::new("init-module", "", init_module),
    Act::new("finit-module", "PATH", finit_module),
];

fn kill(args: &[String]) -> Outcome {
    sys::kill(number(args, 0)? as i32, number(args, 1)? as i32)?;
    Ok(Facts::new())
}

fn kill_child(args: &[String]) -> Outcome {
    let signal = number(args, 0)? as i32;
    let (read, write) = sys::pipe()?;
    match sys::fork()? {
        Forked::Child => {
            drop(write);
            let mut byte = [0_u8; 1];
            call(libc::SYS_read, &mut [num(read.as_raw_fd()), Arg::Out(&mut byte), num(1)]).ok();
            sys::exit_now(0)
        }
        Forked::Parent { child } => {
            let killed = sys::kill(child, signal);
            drop(write);
            sys::wait_for(child)?;
            killed?;
            fact("target", child)
        }
    }
}

fn bpf(_: &[String]) -> Outcome {
    sys::bpf::create_map()?;
    Ok(Facts::new())
}

/// Loads nothing: the image is no module, which the kernel says after it has asked whether we may.
fn refused_image(result: std::io::Result<usize>) -> Outcome {
    match result {
        Ok(_) => Err(Failure::Usage("a module that is none was loaded".to_owned())),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOSYS) => Err(Failure::Skip("kernel without modules".to_owned())),
            _ => Err(error.into()),
        },
    }
}

fn init_module(_: &[String]) -> Outcome {
    let (image, params) = ([b'm'; 128], cstr(""));
    refused_image(call(libc::SYS_init_module, &mut [Arg::In(&image), num(image.len()), Arg::Str(&params)]))
}

fn finit_module(args: &[String]) -> Outcome {
    let file = super::file::open_raw(word(args, 0)?, "read")?;
    let params = cstr("");
    refused_image(call(libc::SYS_finit_module, &mut [num(file.as_raw_fd()), Arg::Str(&params), num(0)]))
}
