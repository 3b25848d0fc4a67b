//! The recognition tables, bindings and losses: plain values in and out of maps.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use agent_monitor_ebpf::{
    bind::{
        CgroupEntry, MATCHES, MatchEntry, MatchSet, NAME_CGROUP_LEAF, NAME_CGROUP_PATH, NAME_EXEC_TEXT,
        NumKey, PathKey,
    },
    config::RUN_POLICY,
    loss::{LossKey, LossValue, OVERFLOW_SLOTS},
    path::{HashKey, text_hash, text_path_hash},
    task::{BackfillEntry, ProcEntry},
};
use aya::maps::{Array, HashMap, MapData, MapError};

use super::{KernelError, object::Kernel, pod::Plain};
use crate::scope::image::PolicyImage;

/// Longer than any hook runs.
const GRACE: Duration = Duration::from_millis(100);

/// One set of recognition rules, translated to what the kernel compares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// `(device, path inside the file system)` with up to [`MATCHES`] alternatives.
    pub paths: Vec<(u32, Vec<u8>, Vec<MatchEntry>)>,
    /// Exec file-name texts.
    pub texts: Vec<(Vec<u8>, Vec<MatchEntry>)>,
    /// Real uids; one agent each.
    pub users: Vec<(u32, MatchEntry)>,
    /// cgroups by whole path below the v2 root.
    pub cgroup_paths: BTreeMap<String, CgroupEntry>,
    /// cgroups by their last component.
    pub cgroup_leaves: BTreeMap<String, CgroupEntry>,
    /// `RUN_*` bits.
    pub flags: u32,
}

pub(super) type Table<'a, K, V> = HashMap<&'a mut MapData, Plain<K>, Plain<V>>;

/// An alternative that fits nobody.
const EMPTY: MatchEntry = MatchEntry {
    ino: 0,
    ctime_sec: 0,
    ctime_nsec: 0,
    agent: 0,
    uid: 0,
    cgroup_rule: 0,
    flags: 0,
    bound_by: 0,
};

fn set_of(entries: &[MatchEntry]) -> MatchSet {
    let mut set = MatchSet { entries: [EMPTY; MATCHES] };
    for (slot, entry) in set.entries.iter_mut().zip(entries) {
        *slot = *entry;
    }
    set
}

impl Kernel {
    pub(super) fn table<K, V>(&mut self, name: &'static str) -> Result<Table<'_, K, V>, KernelError>
    where
        Plain<K>: aya::Pod,
        Plain<V>: aya::Pod,
    {
        let map = self.ebpf.map_mut(name).ok_or(KernelError::NoObject)?;
        HashMap::try_from(map).map_err(|e| KernelError::bpf(format!("open table {name}"), &e))
    }

    pub(super) fn insert<K, V>(&mut self, name: &'static str, entries: Vec<(K, V)>) -> Result<(), KernelError>
    where
        Plain<K>: aya::Pod,
        Plain<V>: aya::Pod,
    {
        let mut table = self.table::<K, V>(name)?;
        for (key, value) in entries {
            table
                .insert(Plain(key), Plain(value), 0)
                .map_err(|e| KernelError::bpf(format!("write table {name} (is it full?)"), &e))?;
        }
        Ok(())
    }

    /// Puts a whole new set in force: written beside the old one, then made valid by one store, then the old one is
    /// removed. On error the old set stays as it was.
    ///
    /// # Errors
    /// When a table is full or the kernel refuses.
    pub fn apply(&mut self, tables: &Tables, policy: &PolicyImage) -> Result<(), KernelError> {
        let old = self.runtime.generation;
        let fresh = self.next_generation();
        let written = self.write_generation(tables, fresh).and_then(|()| self.write_policy(policy, fresh));
        if let Err(e) = written {
            self.forget(|generation| generation == fresh)?;
            return Err(e);
        }
        self.runtime.generation = fresh;
        self.runtime.flags = tables.flags | if policy.agents.is_empty() { 0 } else { RUN_POLICY };
        if let Err(e) = self.write_runtime() {
            self.runtime.generation = old;
            self.forget(|generation| generation == fresh)?;
            return Err(e);
        }
        // A cgroup made while the tables were written is known only in the old generation.
        self.write_cgroups(tables, fresh)?;
        // The generation just left stays until the next change: a hook that read its number is still looking things up. On a
        // preemptible kernel it may be at that for longer than a change takes, and what it does not find it takes for not
        // there.
        wait_for_hooks();
        self.forget(|generation| generation != fresh && generation != old)
    }

    /// The generation that the next [`Kernel::apply`] puts in force.
    pub fn next_generation(&self) -> u32 {
        self.runtime.generation.wrapping_add(1).max(1)
    }

    pub(super) fn hash_key(&self) -> HashKey {
        HashKey { k0: self.runtime.k0, k1: self.runtime.k1 }
    }

    fn write_generation(&mut self, tables: &Tables, generation: u32) -> Result<(), KernelError> {
        let key = self.hash_key();
        let num = |value, space| NumKey { value, generation, space };
        let paths = tables.paths.iter().map(|(dev, inner, entries)| {
            (PathKey { hash: text_path_hash(key, inner), dev: *dev, generation }, set_of(entries))
        });
        self.insert("PATHS", paths.collect())?;
        let texts = tables
            .texts
            .iter()
            .map(|(text, entries)| (num(text_hash(key, text), NAME_EXEC_TEXT), set_of(entries)));
        self.insert("TEXTS", texts.collect())?;
        self.insert("USERS", tables.users.iter().map(|(uid, e)| (num(u64::from(*uid), 0), *e)).collect())?;
        let names = |entries: &BTreeMap<String, CgroupEntry>, space| -> Vec<(NumKey, CgroupEntry)> {
            entries.iter().map(|(n, e)| (num(text_hash(key, n.as_bytes()), space), *e)).collect()
        };
        self.insert("NAMES", names(&tables.cgroup_paths, NAME_CGROUP_PATH))?;
        self.insert("NAMES", names(&tables.cgroup_leaves, NAME_CGROUP_LEAF))?;
        self.write_cgroups(tables, generation)
    }

    /// Enters the cgroups that exist.
    fn write_cgroups(&mut self, tables: &Tables, generation: u32) -> Result<(), KernelError> {
        if tables.cgroup_paths.is_empty() && tables.cgroup_leaves.is_empty() {
            return Ok(());
        }
        let Some(mount) = self.cgroup_mount().map(Path::to_path_buf) else { return Ok(()) };
        let mut found = Vec::new();
        collect_cgroups(&mount, &mount, None, tables, &mut found);
        let entries = found.into_iter().map(|(id, e)| (NumKey { value: id, generation, space: 0 }, e));
        self.insert("CGROUPS", entries.collect())
    }

    /// Removes what belongs to generations that `stale` picks.
    fn forget(&mut self, stale: impl Fn(u32) -> bool) -> Result<(), KernelError> {
        remove(&mut self.table::<PathKey, MatchSet>("PATHS")?, |k| stale(k.generation))?;
        remove(&mut self.table::<NumKey, MatchSet>("TEXTS")?, |k| stale(k.generation))?;
        remove(&mut self.table::<NumKey, MatchEntry>("USERS")?, |k| stale(k.generation))?;
        remove(&mut self.table::<NumKey, CgroupEntry>("NAMES")?, |k| stale(k.generation))?;
        remove(&mut self.table::<NumKey, CgroupEntry>("CGROUPS")?, |k| stale(k.generation))?;
        self.forget_policy(stale)
    }

    /// Hands a plan to the task iterator, runs it, and clears the plan.
    ///
    /// # Errors
    /// When the plan does not fit or the iterator fails.
    pub fn backfill(
        &mut self,
        plan: &BTreeMap<u32, BackfillEntry>,
    ) -> Result<Vec<agent_monitor_ebpf::task::TaskLine>, KernelError> {
        for (tgid, entry) in plan {
            let mut table = self.by_tgid::<BackfillEntry>("BACKFILL")?;
            table
                .insert(tgid, Plain(*entry), 0)
                .map_err(|e| KernelError::bpf("write the back-fill plan", &e))?;
        }
        let lines = self.tasks();
        let mut table = self.by_tgid::<BackfillEntry>("BACKFILL")?;
        for tgid in plan.keys() {
            ignore_absent(table.remove(tgid))
                .map_err(|e| KernelError::bpf("clear the back-fill plan", &e))?;
        }
        lines
    }

    fn by_tgid<V>(&mut self, name: &'static str) -> Result<HashMap<&mut MapData, u32, Plain<V>>, KernelError>
    where
        Plain<V>: aya::Pod,
    {
        let map = self.ebpf.map_mut(name).ok_or(KernelError::NoObject)?;
        HashMap::try_from(map).map_err(|e| KernelError::bpf(format!("open table {name}"), &e))
    }

    /// The bound processes.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn procs(&mut self) -> Result<Vec<(u32, ProcEntry)>, KernelError> {
        let table = self.by_tgid::<ProcEntry>("PROCS")?;
        // An entry that goes away while the table is read is no error.
        Ok(table.iter().filter_map(Result::ok).map(|(k, v)| (k, v.0)).collect())
    }

    /// One bound process.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn proc(&mut self, tgid: u32) -> Result<Option<ProcEntry>, KernelError> {
        match self.by_tgid::<ProcEntry>("PROCS")?.get(&tgid, 0) {
            Ok(entry) => Ok(Some(entry.0)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(e) => Err(KernelError::bpf("read table PROCS", &e)),
        }
    }

    /// The loss table.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn losses(&mut self) -> Result<Vec<(LossKey, LossValue)>, KernelError> {
        let table = self.table::<LossKey, LossValue>("LOSSES")?;
        Ok(table.iter().filter_map(Result::ok).map(|(k, v)| (k.0, v.0)).collect())
    }

    /// Losses that found no room in the loss table.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn overflow(&mut self) -> Result<u64, KernelError> {
        let map = self.ebpf.map_mut("OVERFLOW").ok_or(KernelError::NoObject)?;
        let slots: Array<_, u64> =
            Array::try_from(map).map_err(|e| KernelError::bpf("open the overflow counter", &e))?;
        let mut total = 0;
        for slot in 0..OVERFLOW_SLOTS {
            total += slots.get(&slot, 0).map_err(|e| KernelError::bpf("read the overflow counter", &e))?;
        }
        Ok(total)
    }
}

/// Waits until every hook that runs now has ended: programs run inside RCU's read sections, and this command waits for a grace
/// period (kernel/sched/membarrier.c, `synchronize_rcu`).
fn wait_for_hooks() {
    use rustix::thread::{MembarrierCommand, membarrier};
    if let Err(error) = membarrier(MembarrierCommand::Global) {
        // With nohz_full the kernel refuses: a grace period takes a few ticks.
        tracing::debug!(%error, "waiting for running hooks by the clock");
        std::thread::sleep(GRACE);
    }
}

pub(super) fn ignore_absent(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(e)) if e.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(super) fn remove<K, V>(table: &mut Table<'_, K, V>, stale: impl Fn(&K) -> bool) -> Result<(), KernelError>
where
    Plain<K>: aya::Pod,
    Plain<V>: aya::Pod,
{
    let keys: Vec<Plain<K>> = table.keys().filter_map(Result::ok).filter(|k| stale(&k.0)).collect();
    for key in keys {
        ignore_absent(table.remove(&key)).map_err(|e| KernelError::bpf("remove an old rule", &e))?;
    }
    Ok(())
}

/// Walks the cgroup tree; what a cgroup means holds for everything below it. The id of a cgroup is its directory's inode
/// number.
fn collect_cgroups(
    mount: &Path,
    dir: &Path,
    above: Option<CgroupEntry>,
    tables: &Tables,
    out: &mut Vec<(u64, CgroupEntry)>,
) {
    let relative = dir.strip_prefix(mount).map(|p| format!("/{}", p.display())).unwrap_or_default();
    let leaf = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let own = tables.cgroup_paths.get(&relative).or_else(|| {
        let any_user = relative == "/user.slice" || relative.starts_with("/user.slice/");
        if any_user || dir == mount { None } else { tables.cgroup_leaves.get(&leaf) }
    });
    let here = own.copied().or(above);
    if let (Some(entry), Ok(meta)) = (here, fs::metadata(dir)) {
        out.push((meta.ino(), entry));
    }
    let children: Vec<PathBuf> = fs::read_dir(dir)
        .map(|d| d.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect())
        .unwrap_or_default();
    for child in children {
        collect_cgroups(mount, &child, here, tables, out);
    }
}
