//! What `/proc` shows of every process: read within bounds, values of variables dropped where they stand.
//!
//! A process may end while it is read; then it is left out. What we may not see of others is counted.

mod patience;
pub mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::identify::packages_in;
use super::observe::Harvest;
use super::pack::{Ecosystem, Pack, ProductIndex};
use super::redact;
use crate::model::{Time, text};

/// Longest that one process may take to be read.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most bytes of one `/proc` file.
const FILE_MAX: u64 = 1 << 20;
/// Most descriptors of one process.
const FDS_MAX: usize = 4096;
/// Most processes.
const PROCESSES_MAX: usize = 200_000;
/// Clock ticks in a second (`USER_HZ`).
const TICKS: i128 = 100;

/// A process.
#[derive(Debug, Clone, Default)]
pub struct Proc {
    /// Process id.
    pub pid: u32,
    /// Parent.
    pub ppid: u32,
    /// Start, in ticks since boot.
    pub start_ticks: u64,
    /// Start.
    pub start: Option<Time>,
    /// Name of the main thread.
    pub comm: String,
    /// Executable; `None` where it may not be seen.
    pub exe: Option<String>,
    /// Arguments, not redacted.
    pub args: Vec<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// Real uid.
    pub uid: u32,
    /// Uid of the login.
    pub login_uid: Option<u32>,
    /// Login session.
    pub session: Option<u32>,
    /// cgroup v2 path.
    pub cgroup: Option<String>,
    /// Its root directory is another than ours, as in a container.
    pub elsewhere: bool,
    /// Number of its mount namespace.
    pub mount_ns: Option<u64>,
    /// Products whose markers are in its environment.
    pub markers: BTreeSet<ProductIndex>,
    /// Names of variables for keys and addresses of model providers.
    pub provider_variables: Vec<String>,
    /// Names of other variables that hold something secret.
    pub secret_variables: Vec<String>,
    /// Products whose libraries or modules it has loaded, with the file.
    pub libraries: BTreeMap<ProductIndex, String>,
    /// Addresses it listens on.
    pub listens: Vec<SocketAddr>,
    /// Peers of its connections.
    pub peers: Vec<SocketAddr>,
    /// Standard input and output are pipes or sockets.
    pub piped: bool,
    /// Inodes of its sockets.
    pub sockets: Vec<u64>,
    /// Most of it may not be seen by us.
    pub hidden: bool,
}

/// All processes, by pid.
#[derive(Debug, Default)]
pub struct Processes {
    /// By pid.
    pub all: BTreeMap<u32, Proc>,
    children: BTreeMap<u32, Vec<u32>>,
}

impl Processes {
    /// From a list.
    #[must_use]
    pub fn new(procs: Vec<Proc>) -> Self {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        procs.iter().for_each(|proc| children.entry(proc.ppid).or_default().push(proc.pid));
        Self { all: procs.into_iter().map(|proc| (proc.pid, proc)).collect(), children }
    }

    /// Parents, nearest first, at most 32.
    pub fn ancestors(&self, pid: u32) -> impl Iterator<Item = &Proc> {
        let parent = |pid: u32| self.all.get(&self.all.get(&pid)?.ppid);
        std::iter::successors(parent(pid), move |proc| parent(proc.pid)).take(32)
    }

    /// Children.
    pub fn children(&self, pid: u32) -> impl Iterator<Item = &Proc> {
        self.children.get(&pid).into_iter().flatten().filter_map(|pid| self.all.get(pid))
    }
}

/// Reads all processes. Who does not answer, and what there was no time for, is said.
#[must_use]
pub fn read_all(pack: &Arc<Pack>, until: Instant, out: &mut Harvest) -> Processes {
    let own_root = root_of("/proc/self/root/");
    let boot = boot_time();
    let Ok(entries) = fs::read_dir("/proc") else {
        out.reason("/proc cannot be read", "/proc");
        return Processes::default();
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pack = Arc::clone(pack);
    let one = move |pid: u32| {
        let mut proc = stat(pid, boot)?;
        details(&pack, &mut proc);
        // Kernel threads have no program and no arguments.
        if proc.exe.is_none() && proc.args.is_empty() {
            return None;
        }
        proc.mount_ns = namespace(pid, "mnt");
        // Services have mount namespaces of their own and the same root; containers have another.
        let root = root_of(&format!("/proc/{pid}/root/"));
        proc.elsewhere = root.is_some() && root != own_root;
        descriptors(&mut proc);
        Some(proc)
    };
    let read = patience::each(pids.take(PROCESSES_MAX), Arc::new(one), PATIENCE, until);
    let mut procs = read.answers;
    out.count += u64::try_from(procs.len()).unwrap_or(u64::MAX);
    read.hung.iter().for_each(|pid| out.reason("processes that do not answer", format!("pid {pid}")));
    if read.left > 0 {
        out.reason("out of time", format!("{} processes not looked at", read.left));
    }
    for proc in procs.iter().filter(|proc| proc.hidden) {
        let at = format!("pid {}", proc.pid);
        out.reason("program, environment and sockets of other users' processes not visible", at);
    }
    sockets::attach(&mut procs, out);
    Processes::new(procs)
}

/// The fields of `stat`.
fn stat(pid: u32, boot: i128) -> Option<Proc> {
    let line = read(&format!("/proc/{pid}/stat"))?;
    let line = String::from_utf8_lossy(&line);
    // The name may hold anything, also parentheses.
    let (before, after) = line.rsplit_once(')')?;
    let comm = before.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = after.split_whitespace().collect();
    let start_ticks: u64 = fields.get(19)?.parse().ok()?;
    let start = boot + i128::from(start_ticks) * 1_000_000_000 / TICKS;
    Some(Proc {
        pid,
        ppid: fields.get(1)?.parse().ok()?,
        start_ticks,
        start: Some(Time::from_unix_nanos(start)),
        comm,
        ..Proc::default()
    })
}

fn details(pack: &Pack, proc: &mut Proc) {
    let pid = proc.pid;
    let number = |name: &str| {
        let text = read(&format!("/proc/{pid}/{name}"))?;
        let number: u32 = std::str::from_utf8(&text).ok()?.trim().parse().ok()?;
        (number != u32::MAX).then_some(number)
    };
    (proc.login_uid, proc.session) = (number("loginuid"), number("sessionid"));
    if let Some(status) = read(&format!("/proc/{pid}/status")) {
        let status = String::from_utf8_lossy(&status);
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next());
        proc.uid = uid.and_then(|uid| uid.parse().ok()).unwrap_or_default();
    }
    let cgroup = read(&format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let cgroup = String::from_utf8_lossy(&cgroup);
    proc.cgroup = cgroup.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned);
    let args = read(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
    proc.args = arguments(&args);
    match fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(exe) => {
            let exe = text::escape(&exe.into_os_string().into_vec());
            proc.exe = Some(exe.trim_end_matches(" (deleted)").to_owned());
        }
        Err(error) => {
            proc.hidden = error.kind() == std::io::ErrorKind::PermissionDenied && !proc.args.is_empty();
        }
    }
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).ok();
    proc.cwd = cwd.map(|cwd| text::escape(&cwd.into_os_string().into_vec()));
    if let Some(block) = read(&format!("/proc/{pid}/environ")) {
        environment(pack, &block, proc);
    }
    if let Some(maps) = read(&format!("/proc/{pid}/maps")) {
        libraries(pack, &String::from_utf8_lossy(&maps), proc);
    }
}

/// Arguments of a block, escaped. Pure.
#[must_use]
pub fn arguments(block: &[u8]) -> Vec<String> {
    let block = match block.iter().rposition(|byte| *byte != 0) {
        Some(last) => block.get(..=last).unwrap_or_default(),
        None => return Vec::new(),
    };
    block.split(|byte| *byte == 0).take(4096).map(text::escape).collect()
}

/// Names, and for markers whether the value is the wanted one; values go no further. Pure.
pub fn environment(pack: &Pack, block: &[u8], proc: &mut Proc) {
    for entry in block.split(|byte| *byte == 0).take(10_000) {
        let Some(at) = entry.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = (entry.get(..at).unwrap_or_default(), entry.get(at + 1..).unwrap_or_default());
        let name = text::escape(name);
        proc.markers.extend(pack.marked(&name, value));
        if value.is_empty() {
            continue;
        }
        if pack.is_provider_variable(&name) {
            proc.provider_variables.push(name);
        } else if redact::speaks_of_secrets(&name) {
            proc.secret_variables.push(name);
        }
    }
    proc.secret_variables.truncate(50);
}

/// Products whose files are mapped. Pure.
pub fn libraries(pack: &Pack, maps: &str, proc: &mut Proc) {
    let mut last = "";
    for line in maps.lines() {
        let Some(path) = line.find('/').and_then(|at| line.get(at..)) else { continue };
        if path == last {
            continue;
        }
        last = path;
        for (ecosystem, name) in packages_in(path) {
            let product = match ecosystem {
                Ecosystem::Pypi => pack.import(&name).or_else(|| pack.package(ecosystem, &name)),
                Ecosystem::Npm | Ecosystem::Crates => pack.package(ecosystem, &name),
            };
            if let Some(product) = product {
                proc.libraries.entry(product).or_insert_with(|| path.to_owned());
            }
        }
        let base = path.rsplit('/').next().unwrap_or(path);
        if (base.starts_with("libllama.so") || base.starts_with("libggml"))
            && let Some(product) = pack.find("llama-cpp")
        {
            proc.libraries.entry(product).or_insert_with(|| path.to_owned());
        }
    }
}

/// Sockets of a process, by inode, and whether it is piped.
fn descriptors(proc: &mut Proc) {
    let Ok(entries) = fs::read_dir(format!("/proc/{}/fd", proc.pid)) else { return };
    let mut piped = 0;
    for entry in entries.flatten().take(FDS_MAX) {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.as_os_str().as_encoded_bytes();
        let socket = target.strip_prefix(b"socket:[").and_then(|rest| rest.strip_suffix(b"]"));
        if let Some(inode) = socket.and_then(|inode| std::str::from_utf8(inode).ok()?.parse().ok()) {
            proc.sockets.push(inode);
        }
        let stdio = matches!(entry.file_name().as_encoded_bytes(), b"0" | b"1");
        piped += u32::from(stdio && (socket.is_some() || target.starts_with(b"pipe:[")));
    }
    proc.piped = piped == 2;
}

fn root_of(path: &str) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

fn namespace(pid: u32, kind: &str) -> Option<u64> {
    let target = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
    let text = target.to_str()?;
    text.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

fn read(path: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(FILE_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Nanoseconds since 1970 at boot.
fn boot_time() -> i128 {
    let stat = read("/proc/stat").unwrap_or_default();
    let stat = String::from_utf8_lossy(&stat);
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|line| line.trim().parse::<i128>().ok()).unwrap_or(0) * 1_000_000_000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_of_variables_are_not_kept() {
        let pack = crate::sweep::pack::embedded();
        let mut proc = Proc::default();
        let block = b"OPENAI_API_KEY=sk-verysecret\0AGENT=goose\0MY_TOKEN=hush\0EMPTY_KEY=\0PATH=/bin\0CLAUDECODE=1\0x";
        environment(pack, block, &mut proc);
        assert_eq!(proc.provider_variables, ["OPENAI_API_KEY"]);
        assert_eq!(proc.secret_variables, ["MY_TOKEN"]);
        let marked: Vec<&str> =
            proc.markers.iter().filter_map(|m| Some(pack.product(*m)?.id.as_str())).collect();
        assert_eq!(marked, ["claude-code", "goose"]);
        let all = format!("{proc:?}");
        assert!(!all.contains("verysecret") && !all.contains("hush"), "{all}");
    }

    #[test]
    fn mapped_modules_are_of_products() {
        let pack = crate::sweep::pack::embedded();
        let mut proc = Proc::default();
        let maps = "7f0-7f1 r-xp 0 08:01 5 /v/lib/python3.12/site-packages/vllm/_C.abi3.so\n\
            7f0-7f1 r-xp 0 08:01 5 /usr/lib/libc.so.6\n7f0 r-xp 0 0 0 /opt/x/libggml-base.so.1\n";
        libraries(pack, maps, &mut proc);
        let ids: Vec<&str> =
            proc.libraries.keys().filter_map(|p| Some(pack.product(*p)?.id.as_str())).collect();
        assert_eq!(ids, ["llama-cpp", "vllm"]);
    }

    #[test]
    fn this_process_is_read() {
        let mut out = Harvest::default();
        let until = Instant::now() + Duration::from_secs(60);
        let found = read_all(&Arc::new(crate::sweep::pack::embedded().clone()), until, &mut out);
        let me = found.all.get(&std::process::id()).unwrap();
        assert!(me.exe.is_some() && !me.args.is_empty() && !me.elsewhere);
        assert!(found.ancestors(me.pid).any(|parent| parent.pid == me.ppid));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(block in prop::collection::vec(any::<u8>(), 0..300), maps in "(?s).{0,200}") {
            let pack = &Pack::default();
            let mut proc = Proc::default();
            environment(pack, &block, &mut proc);
            libraries(pack, &maps, &mut proc);
            let _args = arguments(&block);
        }
    }
}
