//! What an earlier daemon left in force, seen without loading anything: whose it is, and taking it away.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use agent_monitor_ebpf::{config::Runtime, task::ProcEntry};
use aya::{
    maps::{Array, HashMap, Map, MapData},
    programs::{links::PinnedLink, loaded_programs},
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{KernelError, bpffs, object::is_daemon, pod::Plain};

/// Why the pins were not taken away.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// Nothing is there.
    #[error("nothing is pinned in {0}: no enforcement to end there")]
    Nothing(String),
    /// A daemon is at work.
    #[error("a daemon (pid {pid}) works with the pins in {path}; end it first, or say --force")]
    Running {
        /// Directory of the pins.
        path: String,
        /// Process of the daemon.
        pid: u32,
    },
    /// An agent asks.
    #[error("pid {pid} is bound to a registered agent, and agents do not end their own supervision")]
    Bound {
        /// The caller or one of its ancestors.
        pid: u32,
    },
    /// The pins are gone, and something still keeps programs.
    #[error(
        "the pins are gone, but {programs} of the programs are still in the kernel after {} s: another process \
         holds them, or this kernel is slow to let go",
        GONE.as_secs()
    )]
    Lingering {
        /// How many.
        programs: usize,
    },
    /// The kernel side fails.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// How long the kernel may take to free programs that nothing refers to. It takes a grace period of tasks, milliseconds
/// to a second.
const GONE: Duration = Duration::from_secs(30);

/// Ends enforcement: detaches every program and removes every pin below `dir`; how many pins there were. When it returns,
/// no program of this directory judges any more and what was held goes on.
///
/// # Errors
/// When nothing is there, a daemon runs (unless `force`), the caller or an ancestor of it is bound, a pin cannot be
/// removed, or the kernel still keeps programs after half a minute. Agents are also kept from the pins by the programs themselves.
pub fn detach(dir: &Path, force: bool) -> Result<usize, DetachError> {
    let count =
        |dir: &Path| std::fs::read_dir(dir).map_or(0, |entries| entries.flatten().filter(ours).count());
    let pins = count(dir);
    if pins == 0 {
        return Err(DetachError::Nothing(dir.display().to_string()));
    }
    if let Some(pid) = bound_ancestor(dir)? {
        return Err(DetachError::Bound { pid });
    }
    let daemon = daemon(dir)?;
    if let Some(pid) = daemon.filter(|_| !force) {
        return Err(DetachError::Running { path: dir.display().to_string(), pid });
    }
    if daemon.is_some() {
        give_up(dir)?;
    }
    // A daemon keeps its own descriptors to the programs until it ends: there is nothing to wait for.
    match take_away(dir, daemon.is_none(), || ())? {
        0 => Ok(pins),
        programs => Err(DetachError::Lingering { programs }),
    }
}

/// Says to the daemon that works with the pins that they are to go: it lets go of what it holds and puts nothing back.
fn give_up(dir: &Path) -> Result<(), KernelError> {
    let Some(map) = pinned(dir, "map_RUNTIME")? else { return Ok(()) };
    let what = "write the runtime settings";
    let mut array: Array<MapData, Plain<Runtime>> = map.try_into().map_err(|e| KernelError::bpf(what, &e))?;
    let mut runtime = array.get(&0, 0).map_err(|e| KernelError::bpf(what, &e))?.0;
    runtime.daemon_tgid = 0;
    array.set(0, Plain(runtime), 0).map_err(|e| KernelError::bpf(what, &e))
}

/// The same for the daemon that put the pins there and has its own descriptors to the programs, which `let_go` closes.
///
/// # Errors
/// When a pin cannot be opened or removed.
pub(super) fn end(dir: &Path, let_go: impl FnOnce()) -> Result<(), KernelError> {
    let programs = take_away(dir, true, let_go)?;
    if programs > 0 {
        tracing::warn!("{}", DetachError::Lingering { programs });
    }
    Ok(())
}

/// Removes the pins, waits until the programs are gone if they are to go now, and only then wakes what they held: woken
/// before, it would be held again. How many programs are still there.
fn take_away(dir: &Path, waits: bool, let_go: impl FnOnce()) -> Result<usize, KernelError> {
    let (programs, bound) = (linked(dir)?, bound(dir)?);
    bpffs::remove(dir)?;
    let_go();
    let lingering = if waits { wait_gone(&programs) } else { 0 };
    wake(&bound);
    Ok(lingering)
}

/// The programs that the pinned links attach.
fn linked(dir: &Path) -> Result<BTreeSet<u32>, KernelError> {
    if !dir.exists() {
        return Ok(BTreeSet::new());
    }
    let entries = std::fs::read_dir(dir).map_err(|e| KernelError::io("read", dir, e))?;
    let links = entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with("map_"));
    links
        .filter(ours)
        .map(|entry| {
            let info = PinnedLink::from_pin(entry.path()).and_then(|link| {
                let link: aya::programs::links::FdLink = link.into();
                link.info()
            });
            let what = format!("open the pin {}", entry.path().display());
            info.map(|info| info.program_id()).map_err(|e| KernelError::bpf(what, &e))
        })
        .collect()
}

/// Waits until the kernel has freed programs; how many it still has. Removing the last pin of a link only asks for its
/// end: the kernel takes it off its hook from a work queue, after a grace period (`bpf_link_put`, kernel/bpf/syscall.c),
/// so a program may judge for a moment longer. It is freed only after that.
fn wait_gone(programs: &BTreeSet<u32>) -> usize {
    let end = Instant::now() + GONE;
    loop {
        let left = loaded_programs().flatten().filter(|program| programs.contains(&program.id())).count();
        if left == 0 || Instant::now() > end {
            return left;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The bound processes: `(pid, start)`.
fn bound(dir: &Path) -> Result<Vec<(u32, u64)>, KernelError> {
    let Some(map) = pinned(dir, "map_PROCS")? else { return Ok(Vec::new()) };
    let what = "read the table of bound processes";
    let table: HashMap<MapData, u32, Plain<ProcEntry>> =
        map.try_into().map_err(|e| KernelError::bpf(what, &e))?;
    Ok(table.iter().filter_map(Result::ok).map(|(pid, entry)| (pid, entry.0.start)).collect())
}

/// Lets the stopped processes of agents go on, now that nothing holds them: what was held is done as if it had never been
/// asked about. One that its own shell had stopped goes on too.
fn wake(bound: &[(u32, u64)]) {
    for (pid, start) in bound {
        let Some(process) = i32::try_from(*pid).ok().and_then(Pid::from_raw) else { continue };
        // Opened first: what is checked afterwards is the process that gets the signal.
        let Ok(handle) = pidfd_open(process, PidfdFlags::empty()) else { continue };
        let Some((state, ticks)) = state(*pid) else { continue };
        // Ticks of `/proc` are hundredths of a second.
        if state == "T" && ticks == start / 10_000_000 {
            // It may have ended meanwhile.
            pidfd_send_signal(&handle, Signal::CONT).ok();
        }
    }
}

/// State and start, in clock ticks since boot, of a process.
fn state(pid: u32) -> Option<(String, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command may hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.to_owned();
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn ours(entry: &std::fs::DirEntry) -> bool {
    let name = entry.file_name();
    let name = name.to_string_lossy();
    ["link_", "new_", "map_"].iter().any(|start| name.starts_with(start))
}

fn pinned(dir: &Path, name: &str) -> Result<Option<Map>, KernelError> {
    let path = dir.join(name);
    if !path.exists() {
        return Ok(None);
    }
    let opened = MapData::from_pin(&path).and_then(Map::from_map_data);
    Ok(Some(opened.map_err(|e| KernelError::bpf(format!("open the pin {}", path.display()), &e))?))
}

/// The settings that an earlier daemon left; `None` when nothing is pinned.
pub(super) fn settings(dir: &Path) -> Result<Option<Runtime>, KernelError> {
    let Some(map) = pinned(dir, "map_RUNTIME")? else { return Ok(None) };
    let what = "read the runtime settings";
    let array: Array<MapData, Plain<Runtime>> = map.try_into().map_err(|e| KernelError::bpf(what, &e))?;
    Ok(Some(array.get(&0, 0).map_err(|e| KernelError::bpf(what, &e))?.0))
}

/// The daemon that the pins belong to, if it lives.
fn daemon(dir: &Path) -> Result<Option<u32>, KernelError> {
    Ok(settings(dir)?.map(|runtime| runtime.daemon_tgid).filter(|pid| is_daemon(*pid)))
}

/// The caller, or the nearest ancestor of it, that is bound to an agent.
fn bound_ancestor(dir: &Path) -> Result<Option<u32>, KernelError> {
    let Some(map) = pinned(dir, "map_PROCS")? else { return Ok(None) };
    let what = "read the table of bound processes";
    let table: HashMap<MapData, u32, Plain<ProcEntry>> =
        map.try_into().map_err(|e| KernelError::bpf(what, &e))?;
    let mut pid = std::process::id();
    while pid > 1 {
        if table.get(&pid, 0).is_ok_and(|entry| entry.0.tag.agent != 0) {
            return Ok(Some(pid));
        }
        pid = parent(pid).unwrap_or(0);
    }
    Ok(None)
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}
