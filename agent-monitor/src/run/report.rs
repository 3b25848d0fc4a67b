//! Outcomes and canaries → the report of `doctor`.

use std::collections::BTreeMap;

use crate::health::doctor::{Ability, AbilityState, Check, FamilyReport, Level, ProgramCost, Report};
use crate::kernel::attach::{Hook, Outcome, PROGRAMS, Program};
use crate::kernel::bpffs;
use crate::kernel::object::Kernel;

/// What to do about BPF not being among the active security modules.
const LSM_FIX: &str = "add `bpf` to the kernel command line's lsm= list (lsm=landlock,lockdown,yama,apparmor,bpf) and \
                       reboot; a kernel that still refuses was built or locked down without BPF LSM";

/// What helps when the kernel itself lacks something.
const OTHER_KERNEL: &str =
    "a distribution kernel of 6.1 or later with BTF; report this one as a bug if it is";

/// Builds the report. `runs` counts how often each program ran during the canary acts.
pub(super) fn of(kernel: &Kernel, runs: &BTreeMap<&'static str, u64>) -> Report {
    let uname = rustix::system::uname();
    let families = ["process", "file", "network", "privilege"];
    Report {
        schema_version: crate::model::SCHEMA_VERSION,
        level: if kernel.is_full() { Level::Full } else { Level::Partial },
        kernel: uname.release().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        families: families.iter().map(|f| family(f, kernel, runs)).collect(),
        checks: checks(kernel, runs),
        programs: kernel
            .costs()
            .iter()
            .map(|(name, cost)| ProgramCost {
                name: (*name).to_owned(),
                verified_instructions: cost.verified,
                translated_bytes: cost.translated,
            })
            .collect(),
    }
}

fn members<'a>(family: &'a str, kernel: &'a Kernel) -> impl Iterator<Item = (&'static Program, &'a Outcome)> {
    PROGRAMS
        .iter()
        .filter(move |p| p.family == family || (family == "privilege" && p.name == "partial_exit"))
        .filter_map(move |p| Some((p, kernel.outcomes().get(p.name)?)))
}

fn family(family: &str, kernel: &Kernel, runs: &BTreeMap<&'static str, u64>) -> FamilyReport {
    let see = see(family, kernel, runs);
    let named = see.state != AbilityState::No;
    FamilyReport {
        family: family.to_owned(),
        name: Ability {
            state: match (named, family) {
                (false, _) => AbilityState::No,
                (true, "network") => AbilityState::Partial,
                (true, _) if kernel.is_full() => AbilityState::Yes,
                (true, _) => AbilityState::Partial,
            },
            confirmed: see.confirmed && named,
            reason: name_reason(family, kernel.is_full()).to_owned(),
            fix: None,
        },
        stop: stop(family, kernel, &see),
        hold: hold(family, kernel.is_full(), &see),
        see,
        budget: not_here("limits are parsed and shown, not counted"),
    }
}

/// What can be refused before it happens. The hooks that see are the hooks that refuse, so what they were seen to do
/// confirms both.
fn stop(family: &str, kernel: &Kernel, see: &Ability) -> Ability {
    let full = kernel.is_full();
    let (state, reason) = match (family, full) {
        ("process", true) => (AbilityState::Yes, "programs and scripts, before the new image"),
        ("file", true) => {
            (AbilityState::Yes, "by place in the file system, on every road to it; not stat or readlink")
        }
        ("network", true) => (
            AbilityState::Yes,
            "addresses, ports, UNIX names, listening; not what a connection open before goes on to send",
        ),
        (_, true) => (AbilityState::Yes, "each power by itself"),
        ("process", false) => (
            AbilityState::Partial,
            "`kill` ends the process before the image runs; programs of launched agents by Landlock",
        ),
        ("file", false) => (
            AbilityState::Partial,
            "files of launched agents by Landlock; `kill` ends the process before it can use what it opened",
        ),
        ("network", false) => (
            AbilityState::Partial,
            "connect, unconnected sends and bind of IPv4 and IPv6 by cgroup programs (EPERM); not UNIX sockets, not listen",
        ),
        (_, false) => (AbilityState::No, "only told, when it succeeds"),
    };
    let fix = (!full).then(|| LSM_FIX.to_owned());
    if !full && family == "network" && kernel.cgroup_mount().is_none() {
        return Ability {
            state: AbilityState::No,
            confirmed: true,
            reason: "no cgroup v2 is mounted".to_owned(),
            fix,
        };
    }
    let state = match see.state {
        AbilityState::Yes => state,
        AbilityState::Partial => state_min(state, AbilityState::Partial),
        AbilityState::No => AbilityState::No,
    };
    Ability { state, confirmed: see.confirmed && state != AbilityState::No, reason: reason.to_owned(), fix }
}

/// What can wait inside its system call for a person. No canary is held: the first agent's own act would be the proof.
fn hold(family: &str, full: bool, see: &Ability) -> Ability {
    let (state, reason) = match (family, full) {
        ("process", true) => {
            (AbilityState::Yes, "exec waits, with its arguments; what it ran before goes on")
        }
        ("file", true) => {
            (AbilityState::Yes, "the call waits; through io_uring it is refused and asked about")
        }
        ("network", true) => {
            (AbilityState::Yes, "the call waits; io_uring and sendmmsg are refused and asked about")
        }
        (_, true) => (
            AbilityState::Partial,
            "ids, tracing, signals to one process and mounts wait; the rest is refused and asked about",
        ),
        ("network", false) => {
            (AbilityState::Partial, "refused and asked about: after a yes the next try passes")
        }
        (_, false) => (
            AbilityState::No,
            "what cannot be refused here is not asked about; scopes of sessions do not narrow it, grants do not widen it",
        ),
    };
    let state = if see.state == AbilityState::No { AbilityState::No } else { state };
    let fix = (!full).then(|| LSM_FIX.to_owned());
    Ability { state, confirmed: state == AbilityState::No, reason: reason.to_owned(), fix }
}

fn name_reason(family: &str, full: bool) -> &'static str {
    match (family, full) {
        ("network", _) => "addresses, ports and UNIX names; no host names",
        ("file", true) => "whole paths from the dentry, whatever the process sees",
        ("file", false) => {
            "opens by dentry; other acts by the text the process gave and where it started from"
        }
        ("process", _) => "image, script, arguments and working directory",
        _ => "processes and places acted on",
    }
}

fn not_here(reason: &str) -> Ability {
    Ability { state: AbilityState::No, confirmed: true, reason: reason.to_owned(), fix: None }
}

fn see(family: &str, kernel: &Kernel, runs: &BTreeMap<&'static str, u64>) -> Ability {
    let mut missing = Vec::new();
    let mut silent = Vec::new();
    let mut fired = 0;
    let mut attached = 0;
    for (program, outcome) in members(family, kernel) {
        match outcome {
            Outcome::Attached => {
                attached += 1;
                if runs.get(program.name).copied().unwrap_or(0) > 0 {
                    fired += 1;
                } else if !matches!(program.hook, Hook::TaskIter) {
                    silent.push(program.name);
                }
            }
            Outcome::Absent(_) | Outcome::Refused(_) if !program.without.is_empty() => {
                missing.push(program.without)
            }
            Outcome::Absent(_) | Outcome::Refused(_) => {}
        }
    }
    let mut reason = format!("{fired} of {attached} hooks were seen to run");
    if !silent.is_empty() {
        reason = format!("{reason}; not exercised: {}", silent.join(", "));
    }
    let mut state = if attached == 0 { AbilityState::No } else { AbilityState::Yes };
    let mut fix = None;
    if !kernel.is_full() && family != "process" {
        state = state_min(state, AbilityState::Partial);
        reason = format!("{reason}; without BPF LSM: io_uring and 32-bit system calls are not seen");
        fix = Some(LSM_FIX.to_owned());
    }
    if !missing.is_empty() {
        state = state_min(state, AbilityState::Partial);
        reason = format!("{reason}; {}", missing.join("; "));
    }
    Ability { state, confirmed: fired > 0, reason, fix }
}

fn state_min(a: AbilityState, b: AbilityState) -> AbilityState {
    if a == AbilityState::No { a } else { b }
}

fn checks(kernel: &Kernel, runs: &BTreeMap<&'static str, u64>) -> Vec<Check> {
    let ok = |name: &str, found: String| Check { name: name.to_owned(), ok: true, found, fix: None };
    let mut checks = vec![ok("btf", "the kernel's types are readable".to_owned())];
    checks.push(match kernel.without_lsm() {
        None => ok("lsm", "BPF LSM programs load and run".to_owned()),
        Some(why) => {
            Check { name: "lsm".to_owned(), ok: false, found: why.to_owned(), fix: Some(LSM_FIX.to_owned()) }
        }
    });
    checks.push(match kernel.cgroup_mount() {
        Some(path) => ok("cgroup2", format!("mounted on {}", path.display())),
        None => Check {
            name: "cgroup2".to_owned(),
            ok: false,
            found: "not mounted: no rules by cgroup, unit or container, no UDP byte counts".to_owned(),
            fix: Some("mount -t cgroup2 none /sys/fs/cgroup".to_owned()),
        },
    });
    checks.push(ok("bpffs", format!("pins are under {}", bpffs::DEFAULT_MOUNT)));
    for (symbol, lost) in kernel.lost_fields() {
        let found = format!("this kernel lacks {symbol}: {lost}");
        checks.push(Check { name: "field".to_owned(), ok: false, found, fix: Some(OTHER_KERNEL.to_owned()) });
    }
    for (name, outcome) in kernel.outcomes() {
        let n = runs.get(name).copied().unwrap_or(0);
        let (fine, found) = match outcome {
            Outcome::Attached => {
                let cost = kernel.costs().get(name);
                let cost =
                    cost.map_or_else(String::new, |c| format!(", {} instructions verified", c.verified));
                (true, format!("attached, ran {n} times during the canary acts{cost}"))
            }
            Outcome::Absent(why) => (false, why.clone()),
            Outcome::Refused(why) => (false, why.clone()),
        };
        let fix = (!fine).then(|| OTHER_KERNEL.to_owned());
        checks.push(Check { name: format!("hook {name}"), ok: fine, found, fix });
    }
    checks
}
