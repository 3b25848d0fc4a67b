//! What is answered for each LSM hook that the running kernel has: attached, or a written reason why not. A hook that a
//! newer kernel adds fails this until somebody has answered for it.

use std::collections::{BTreeMap, BTreeSet};

use agent_monitor_tests::harness::case::{Case, Verdict};
use agent_monitor_tests::harness::world;
use agent_monitor_tests::sys::{Arg, call, call_fd, num};

pub(crate) const CASES: &[Case] =
    &[Case::vm("answered", answered), Case::vm("io_uring_answered", io_uring_answered)];

/// `IORING_REGISTER_PROBE` and `IO_URING_OP_SUPPORTED`, include/uapi/linux/io_uring.h.
const REGISTER_PROBE: u32 = 8;
const SUPPORTED: u16 = 1;

const GOLDEN: &[(&str, &str)] = &[
    ("6.1.", include_str!("../golden/hooks/6.1.txt")),
    ("6.12.", include_str!("../golden/hooks/6.12.txt")),
    ("6.18.", include_str!("../golden/hooks/6.18.txt")),
    ("7.3.", include_str!("../golden/hooks/7.3.txt")),
];

/// Names of `bpf_lsm_*` functions: the string section of the kernel's type information, which has each name once.
fn offered() -> BTreeSet<String> {
    let btf = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
    // struct btf_header: magic, version, flags, hdr_len, type_off, type_len, str_off, str_len.
    let word = |at: usize| u32::from_le_bytes(btf[at..at + 4].try_into().unwrap()) as usize;
    let from = word(4) + word(16);
    btf[from..from + word(20)]
        .split(|byte| *byte == 0)
        .filter_map(|name| std::str::from_utf8(name).ok()?.strip_prefix("bpf_lsm_"))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn answers(golden: &str) -> BTreeMap<&str, &str> {
    golden.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' ')).collect()
}

fn answered() -> Verdict {
    let world = world::shared();
    let report = world.daemon.cli_json(&["doctor", "-o", "json"]);
    let kernel = report["kernel"].as_str().unwrap();
    let running: BTreeSet<&str> =
        report["programs"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    // A kernel that is newer than every file is compared with the newest: what it adds has no answer yet.
    let newest = GOLDEN.last().unwrap();
    let (series, golden) = GOLDEN.iter().find(|(series, _)| kernel.starts_with(series)).unwrap_or(newest);
    let answers = answers(golden);
    let offered = offered();
    assert!(offered.len() > 200, "only {} hooks in the kernel's type information", offered.len());
    let mut wrong: Vec<String> = offered
        .iter()
        .filter(|hook| !answers.contains_key(hook.as_str()))
        .map(|hook| format!("{hook}: nobody has answered for it"))
        .collect();
    wrong.extend(
        answers.keys().filter(|hook| !offered.contains(**hook)).map(|hook| format!("{hook}: is gone")),
    );
    for (hook, answer) in &answers {
        match (answer.strip_prefix("attached: "), answer.strip_prefix("not attached: ")) {
            (Some(programs), None) if programs.split(' ').any(|program| running.contains(program)) => {}
            (Some(programs), None) => wrong.push(format!("{hook}: none of {programs} runs")),
            (None, Some(reason)) if !reason.trim().is_empty() => {}
            (None, _) | (Some(_), Some(_)) => wrong.push(format!("{hook}: neither attached nor a reason")),
        }
    }
    assert!(wrong.is_empty(), "{kernel} against tests/golden/hooks/{series}txt:\n{}", wrong.join("\n"));
    Ok(())
}

/// Every operation that the kernel's io_uring offers has an answer.
fn io_uring_answered() -> Verdict {
    use std::os::fd::AsRawFd as _;
    let known: BTreeSet<u8> = include_str!("../golden/hooks/io_uring.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' ')?.0.parse().ok())
        .collect();
    let mut params = [0_u8; 120];
    let ring = call_fd(libc::SYS_io_uring_setup, &mut [num(4), Arg::Out(&mut params)]).unwrap();
    // struct io_uring_probe: last_op, ops_len, 14 more bytes; then struct io_uring_probe_op: op, resv, flags u16, resv2 u32.
    let mut probe = [0_u8; 16 + 256 * 8];
    let mut args = [num(ring.as_raw_fd()), num(REGISTER_PROBE), Arg::Out(&mut probe), num(256)];
    call(libc::SYS_io_uring_register, &mut args).unwrap();
    let offered: BTreeSet<u8> = probe[16..]
        .chunks_exact(8)
        .take(usize::from(probe[1]))
        .filter(|op| u16::from_ne_bytes([op[2], op[3]]) & SUPPORTED != 0)
        .map(|op| op[0])
        .collect();
    assert!(offered.len() > 40, "only {} operations", offered.len());
    let missing: Vec<u8> = offered.difference(&known).copied().collect();
    assert!(missing.is_empty(), "nobody has answered for these operations: {missing:?}");
    Ok(())
}
