//! Names of the kernel's numbers: signals, capabilities, namespaces, bpf commands.

use agent_monitor_ebpf::event::{NS_CGROUP, NS_IPC, NS_MNT, NS_NET, NS_PID, NS_TIME, NS_USER, NS_UTS};

use crate::model::privilege::CAPABILITIES;

/// Linux signal names in number order, from 1.
const SIGNALS: &[&str] = &[
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// bpf commands in number order, from 0 (`enum bpf_cmd`).
const BPF_COMMANDS: &[&str] = &[
    "MAP_CREATE",
    "MAP_LOOKUP_ELEM",
    "MAP_UPDATE_ELEM",
    "MAP_DELETE_ELEM",
    "MAP_GET_NEXT_KEY",
    "PROG_LOAD",
    "OBJ_PIN",
    "OBJ_GET",
    "PROG_ATTACH",
    "PROG_DETACH",
    "PROG_TEST_RUN",
    "PROG_GET_NEXT_ID",
    "MAP_GET_NEXT_ID",
    "PROG_GET_FD_BY_ID",
    "MAP_GET_FD_BY_ID",
    "OBJ_GET_INFO_BY_FD",
    "PROG_QUERY",
    "RAW_TRACEPOINT_OPEN",
    "BTF_LOAD",
    "BTF_GET_FD_BY_ID",
    "TASK_FD_QUERY",
    "MAP_LOOKUP_AND_DELETE_ELEM",
    "MAP_FREEZE",
    "BTF_GET_NEXT_ID",
    "MAP_LOOKUP_BATCH",
    "MAP_LOOKUP_AND_DELETE_BATCH",
    "MAP_UPDATE_BATCH",
    "MAP_DELETE_BATCH",
    "LINK_CREATE",
    "LINK_UPDATE",
    "LINK_GET_FD_BY_ID",
    "LINK_GET_NEXT_ID",
    "ENABLE_STATS",
    "ITER_CREATE",
    "LINK_DETACH",
    "PROG_BIND_MAP",
    "TOKEN_CREATE",
];

/// Names of namespaces, with the contract's bit and the kernel's `CLONE_NEW*`.
const NAMESPACES: &[(&str, u32, u64)] = &[
    ("cgroup", NS_CGROUP, 0x0200_0000),
    ("ipc", NS_IPC, 0x0800_0000),
    ("mnt", NS_MNT, 0x0002_0000),
    ("net", NS_NET, 0x4000_0000),
    ("pid", NS_PID, 0x2000_0000),
    ("time", NS_TIME, 0x80),
    ("user", NS_USER, 0x1000_0000),
    ("uts", NS_UTS, 0x0400_0000),
];

/// ptrace requests that reach into another process.
const PTRACE: &[(u64, &str)] = &[
    (0, "traceme"),
    (1, "peektext"),
    (2, "peekdata"),
    (3, "peekuser"),
    (4, "poketext"),
    (5, "pokedata"),
    (6, "pokeuser"),
    (7, "cont"),
    (8, "kill"),
    (9, "singlestep"),
    (12, "getregs"),
    (13, "setregs"),
    (16, "attach"),
    (17, "detach"),
    (24, "syscall"),
    (0x4200, "setoptions"),
    (0x4204, "getregset"),
    (0x4205, "setregset"),
    (0x4206, "seize"),
    (0x4207, "interrupt"),
];

fn nth(list: &[&'static str], index: u64) -> Option<&'static str> {
    list.get(usize::try_from(index).ok()?).copied()
}

/// Name of a signal.
#[must_use]
pub fn signal(number: u64) -> String {
    match number.checked_sub(1).and_then(|index| nth(SIGNALS, index)) {
        Some(name) => name.to_owned(),
        None => number.to_string(),
    }
}

/// Names of the capabilities in a set, in number order.
#[must_use]
pub fn capabilities(set: u64) -> Vec<String> {
    let name = |bit: u64| nth(&CAPABILITIES, bit).map_or_else(|| format!("CAP_{bit}"), str::to_owned);
    (0..64).filter(|bit| set >> bit & 1 == 1).map(name).collect()
}

/// Name of a bpf command.
#[must_use]
pub fn bpf_command(command: u64) -> String {
    nth(BPF_COMMANDS, command).map_or_else(|| format!("command {command}"), str::to_owned)
}

/// Name of a ptrace request; what is none (the mode bits of an access check) is `access`.
#[must_use]
pub fn ptrace(request: u64) -> String {
    // PTRACE_MODE_READ 1, ATTACH 2, with FSCREDS 8 or REALCREDS 16: what LSM hooks are given.
    match request {
        _ if request & 0x18 != 0 && request & 2 != 0 && request < 0x40 => return "attach".to_owned(),
        _ if request & 0x18 != 0 && request & 1 != 0 && request < 0x40 => return "read".to_owned(),
        _ => {}
    }
    let known = PTRACE.iter().find(|(number, _)| *number == request);
    known.map_or_else(|| format!("request {request:#x}"), |(_, name)| (*name).to_owned())
}

/// A system call that changes mounts, x86-64 numbers.
#[must_use]
pub fn mount_call(number: u64) -> String {
    const FIRST: u64 = 428;
    const CALLS: [&str; 6] = ["open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick"];
    let known = number.checked_sub(FIRST).and_then(|index| nth(&CALLS, index));
    match (known, number) {
        (Some(name), _) => name.to_owned(),
        (None, 442) => "mount_setattr".to_owned(),
        (None, _) => format!("system call {number}"),
    }
}

/// Which of the daemon's means of getting on was aimed at.
#[must_use]
pub fn priority(what: u64) -> String {
    const WHAT: [&str; 6] = ["nice", "ioprio", "scheduler", "rlimit", "move_memory", "sigio"];
    let known = what.checked_sub(1).and_then(|index| nth(&WHAT, index));
    known.map_or_else(|| format!("priority {what}"), str::to_owned)
}

/// A socket option by which packets take a route of their sender's choice.
#[must_use]
pub fn route_option(level: u64, option: u64) -> String {
    match (level, option) {
        (0, 4) => "IP_OPTIONS".to_owned(),
        (41, 6) => "IPV6_2292PKTOPTIONS".to_owned(),
        (41, 32) => "IPV6_FLOWLABEL_MGR".to_owned(),
        (41, 57) => "IPV6_RTHDR".to_owned(),
        _ => format!("option {option} of level {level}"),
    }
}

/// A socket by its numbers.
#[must_use]
pub fn socket(family: u64, kind: u64, protocol: u64) -> String {
    const FAMILIES: [(u64, &str); 12] = [
        (2, "AF_INET"),
        (10, "AF_INET6"),
        (15, "AF_KEY"),
        (16, "AF_NETLINK"),
        (17, "AF_PACKET"),
        (21, "AF_RDS"),
        (29, "AF_CAN"),
        (30, "AF_TIPC"),
        (31, "AF_BLUETOOTH"),
        (38, "AF_ALG"),
        (43, "AF_SMC"),
        (44, "AF_XDP"),
    ];
    let known = FAMILIES.iter().find(|(number, _)| *number == family);
    let family = known.map_or_else(|| format!("family {family}"), |(_, name)| (*name).to_owned());
    format!("{family} type {kind} protocol {protocol}")
}

/// Namespaces in `NS_*` bits, by name.
#[must_use]
pub fn namespaces(bits: u32) -> Vec<String> {
    NAMESPACES.iter().filter(|(_, bit, _)| bits & bit != 0).map(|(name, _, _)| (*name).to_owned()).collect()
}

/// Namespaces in `CLONE_NEW*` flags, by name.
#[must_use]
pub fn clone_flags(flags: u64) -> Vec<String> {
    NAMESPACES
        .iter()
        .filter(|(_, _, flag)| flags & flag != 0)
        .map(|(name, _, _)| (*name).to_owned())
        .collect()
}

/// What `mount(2)` does with these flags.
#[must_use]
pub fn mount_operation(flags: u64) -> &'static str {
    const REMOUNT: u64 = 0x20;
    const BIND: u64 = 0x1000;
    const MOVE: u64 = 0x2000;
    const PROPAGATION: u64 = 0x1e_0000;
    match flags {
        _ if flags & REMOUNT != 0 => "remount",
        _ if flags & BIND != 0 => "bind",
        _ if flags & MOVE != 0 => "move",
        _ if flags & PROPAGATION != 0 => "propagation",
        _ => "mount",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_names_of_linux() {
        assert_eq!([signal(9), signal(15), signal(40), signal(0)], ["SIGKILL", "SIGTERM", "40", "0"]);
        assert_eq!(capabilities(1 << 21 | 1 << 39 | 1 << 50), ["CAP_SYS_ADMIN", "CAP_BPF", "CAP_50"]);
        assert_eq!(
            [bpf_command(5), bpf_command(28), bpf_command(99)],
            ["PROG_LOAD", "LINK_CREATE", "command 99"]
        );
        assert_eq!(clone_flags(0x1002_0000), ["mnt", "user"]);
        assert_eq!(namespaces(NS_PID | NS_NET), ["net", "pid"]);
        assert_eq!([ptrace(0x12), ptrace(0x9), ptrace(16)], ["attach", "read", "attach"]);
    }
}
