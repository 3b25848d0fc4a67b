//! Loading the object: constants patched, maps pinned or taken over, programs attached and their links pinned.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use agent_monitor_ebpf::{
    ABI_VERSION,
    config::Runtime,
    fields::{ABSENT, FIELDS},
    task::TaskLine,
};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, MapData, RingBuf},
    programs::Iter,
};

use super::{
    KernelError, Options, adopt,
    attach::{self, At, Cost, Hook, Outcome, PROGRAMS},
    bpffs,
    btf::{self, VMLINUX},
    handles::{Detached, Handles},
    pins,
    pod::Plain,
    rings::Rings,
    seed,
};

/// Includes a file as bytes that are aligned as the reader of objects wants them.
#[doc(hidden)]
pub use aya::include_bytes_aligned;

/// The eBPF object of this process; see [`carry`].
static OBJECT: OnceLock<&'static [u8]> = OnceLock::new();

/// Says which eBPF object this process loads programs from. The binary carries it rather than the library, so that neither
/// waits for the other to be compiled. The first call counts.
///
/// `object` is an ELF file for the BPF target, aligned to 8 bytes; an empty one means that there is none, and
/// [`Kernel::load`] then says so.
pub fn carry(object: &'static [u8]) {
    // A second object in one process has no meaning; tests start with none.
    OBJECT.get_or_init(|| object);
}

fn object() -> Result<&'static [u8], KernelError> {
    OBJECT.get().copied().filter(|object| !object.is_empty()).ok_or(KernelError::NoObject)
}

/// Maps that are pinned: those that the programs and a later daemon share.
const PINNED_MAPS: &[&str] = &[
    "EVENTS",
    "PRIORITY",
    "RUNTIME",
    "PATHS",
    "TEXTS",
    "USERS",
    "NAMES",
    "CGROUPS",
    "PROCS",
    "BACKFILL",
    "LOSSES",
    "OVERFLOW",
    "POLICIES",
    "PLACES",
    "NETS",
    "FLOWS",
    "TASKS",
    "SCRATCH",
    "TICKETS",
    "SESSIONS",
    "GRANTED",
    "GRANT_LIVES",
    "GRANT_USES",
    "HEARTBEAT",
    "NAMED",
    "PEERS",
];

/// The loaded kernel side.
pub struct Kernel {
    pub(super) ebpf: Ebpf,
    pub(super) runtime: Runtime,
    options: Options,
    outcomes: BTreeMap<&'static str, Outcome>,
    costs: BTreeMap<&'static str, Cost>,
    lost_fields: Vec<(&'static str, &'static str)>,
    /// Why BPF LSM is not used; `None` at level full.
    without_lsm: Option<String>,
    taken_over: bool,
    /// Links of an earlier daemon whose programs this one goes on with.
    adopted: adopt::Links,
    /// Handles of what is pinned; none before everything is attached.
    handles: Option<Handles>,
    /// How agents stand, for generations to come: `LIFE_*` and the end on the boot clock.
    pub(super) lives: BTreeMap<u32, (u32, u64)>,
}

impl Kernel {
    /// Loads and attaches everything that this kernel allows.
    ///
    /// # Errors
    /// When the daemon cannot do its work at all: no privilege, no BTF, no bpffs, a program refused that nothing can
    /// do without.
    pub fn load(options: Options) -> Result<Kernel, KernelError> {
        if !privileged() {
            return Err(KernelError::Privilege);
        }
        let facts = btf::Btf::read(options.btf.as_deref().unwrap_or(Path::new(VMLINUX)))?;
        let aya_btf = Btf::from_sys_fs().map_err(|e| KernelError::bpf("read the kernel's BTF", &e))?;
        bpffs::prepare(&options.bpffs)?;
        let members = offsets(&facts)?;
        let build = adopt::build(object()?, &members.0, &options);
        let mut earlier = pins::settings(&options.bpffs)?;
        if let Some(old) = &earlier {
            may_take_over(old, &options)?;
        }
        if options.fresh && earlier.as_ref().is_some_and(|old| old.build != build) {
            pins::end(&options.bpffs, || ())?;
            bpffs::prepare(&options.bpffs)?;
            earlier = None;
        }
        let mut kernel = Kernel::over(options, earlier.as_ref(), build, members, (&facts, &aya_btf))?;
        if kernel.options.fresh && earlier.is_some() && !(kernel.adopted.whole && kernel.forget_all()?) {
            // Somebody is bound: everything goes, and comes again.
            let options = kernel.options.clone();
            kernel.detach()?;
            return Kernel::load(options);
        }
        kernel.handles = Some(Handles::open(&kernel.options.bpffs)?);
        Ok(kernel)
    }

    /// Everything attached over the pins of an earlier daemon, if there was one. Programs that were made from the same `build`
    /// are adopted as they stand: nothing is loaded, and there is no instant with two sets or none.
    fn over(
        options: Options,
        earlier: Option<&Runtime>,
        build: u32,
        (offsets, lost_fields): Members,
        (facts, aya_btf): (&btf::Btf, &Btf),
    ) -> Result<Kernel, KernelError> {
        let same = earlier.filter(|old| old.build == build);
        let adopted = same.map(|_| adopt::Links::open(&options.bpffs)).transpose()?.unwrap_or_default();
        // A program that is missing among adopted ones belongs to their set.
        let set = same.map_or(std::process::id(), |old| old.program_set);
        let mut ebpf = load_object(&options, &offsets, aya_btf, set)?;
        let without_lsm = if options.force_partial {
            Some("level partial was asked for".into())
        } else {
            lsm_loads(&mut ebpf, aya_btf).err()
        };
        let runtime = earlier.copied().map_or_else(new_settings, Ok)?;
        let mut kernel = Kernel {
            ebpf,
            runtime,
            options,
            outcomes: BTreeMap::new(),
            costs: BTreeMap::new(),
            lost_fields,
            without_lsm,
            taken_over: earlier.is_some(),
            adopted,
            handles: None,
            lives: BTreeMap::new(),
        };
        kernel.recall_lives()?;
        // Ended half-way, this is no set that anybody may adopt.
        kernel.runtime.build = 0;
        if earlier.is_some() {
            kernel.write_runtime()?;
        }
        kernel.attach_all(facts, aya_btf)?;
        kernel.runtime.program_set = set;
        kernel.runtime.daemon_tgid = std::process::id();
        kernel.runtime.build = build;
        kernel.write_runtime()?;
        Ok(kernel)
    }

    fn attach_all(&mut self, facts: &btf::Btf, aya_btf: &Btf) -> Result<(), KernelError> {
        for program in PROGRAMS {
            let wanted = match program.at {
                At::Always => true,
                At::Full => self.is_full(),
                At::Partial => !self.is_full(),
            };
            if !wanted || !attach::fits(program, facts) {
                continue;
            }
            let needs_cgroup = matches!(program.hook, Hook::SockAddr | Hook::Sock | Hook::Skb);
            let outcome = if !attach::exists(program, facts) {
                Outcome::Absent("this kernel has no such hook".into())
            } else if needs_cgroup && self.options.cgroup.is_none() {
                Outcome::Absent("no cgroup v2 is mounted".into())
            } else {
                if let Some(cost) = self.adopted.cost(program.name) {
                    self.costs.extend(cost.map(|cost| (program.name, cost)));
                    self.outcomes.insert(program.name, Outcome::Attached);
                    continue;
                }
                tracing::debug!(program = program.name, "loading");
                match attach::attach(&mut self.ebpf, program, aya_btf, self.options.cgroup.as_deref()) {
                    Ok(link) => {
                        if let Some(link) = link {
                            self.adopted.whole = false;
                            self.pin_link(program.name, link)?;
                        }
                        self.costs
                            .extend(attach::cost(&mut self.ebpf, program).map(|cost| (program.name, cost)));
                        Outcome::Attached
                    }
                    Err(e) if program.without.is_empty() => return Err(e),
                    Err(e) => Outcome::Refused(e.to_string()),
                }
            };
            if program.without.is_empty()
                && let Outcome::Absent(why) = &outcome
            {
                return Err(KernelError::Bpf {
                    what: format!("attach {}", program.name),
                    cause: why.clone(),
                });
            }
            self.outcomes.insert(program.name, outcome);
        }
        Ok(())
    }

    /// Pins a link, over that of an older program set: both run for an instant, there is none without.
    fn pin_link(&self, name: &str, link: aya::programs::links::FdLink) -> Result<(), KernelError> {
        let path = self.options.bpffs.join(format!("link_{name}"));
        let fresh = self.options.bpffs.join(format!("new_{name}"));
        if fresh.exists() {
            fs::remove_file(&fresh).map_err(|e| KernelError::io("remove", &fresh, e))?;
        }
        let pinned =
            link.pin(&fresh).map_err(|e| KernelError::bpf(format!("pin {}", fresh.display()), &e))?;
        fs::rename(&fresh, &path).map_err(|e| KernelError::io("rename", &fresh, e))?;
        // The pin holds it now; dropping a pinned link does not detach.
        drop(pinned);
        Ok(())
    }

    /// Compares what is pinned with what was attached and puts back what is missing; what is new about it.
    /// Where `detach --force` has said that they are to go, what is held is let go of.
    pub fn check_pins(&mut self) -> Option<Detached> {
        self.handles.as_ref()?;
        let found = runtime_array(&mut self.ebpf).ok()?.get(&0, 0).ok()?.0;
        if found.daemon_tgid == 0 {
            self.handles = None;
        }
        self.handles.as_mut()?.check()
    }

    /// How many pins are missing and could not be put back.
    pub fn missing_pins(&self) -> usize {
        self.handles.as_ref().map_or(0, Handles::missing)
    }

    /// Whether BPF LSM programs are in force.
    pub fn is_full(&self) -> bool {
        self.without_lsm.is_none()
    }

    /// Why the level is partial, `None` at level full.
    pub fn without_lsm(&self) -> Option<&str> {
        self.without_lsm.as_deref()
    }

    /// Whether pins of an earlier daemon were taken over.
    pub fn taken_over(&self) -> bool {
        self.taken_over
    }

    /// What became of each program that this level wants.
    pub fn outcomes(&self) -> &BTreeMap<&'static str, Outcome> {
        &self.outcomes
    }

    /// What each program cost the verifier.
    pub fn costs(&self) -> &BTreeMap<&'static str, Cost> {
        &self.costs
    }

    /// Members that this kernel does not have, with what is lost.
    pub fn lost_fields(&self) -> &[(&'static str, &'static str)] {
        &self.lost_fields
    }

    /// Where cgroup v2 is mounted.
    pub fn cgroup_mount(&self) -> Option<&Path> {
        self.options.cgroup.as_deref()
    }

    /// The settings the programs read.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(super) fn write_runtime(&mut self) -> Result<(), KernelError> {
        let value = Plain(self.runtime);
        runtime_array(&mut self.ebpf)?
            .set(0, value, 0)
            .map_err(|e| KernelError::bpf("write the runtime settings", &e))
    }

    /// An attached program, whoever loaded it.
    pub(super) fn program_fd(&self, program: &str) -> Option<BorrowedFd<'_>> {
        self.adopted.program_fd(program).or_else(|| Some(self.ebpf.program(program)?.fd().ok()?.as_fd()))
    }

    /// Forgets what an earlier daemon left in force, when no process is bound: false, and nothing is changed, when one is.
    fn forget_all(&mut self) -> Result<bool, KernelError> {
        if self.tasks()?.iter().any(|line| line.tag.agent != 0) {
            return Ok(false);
        }
        let fresh = new_settings()?;
        let Runtime { program_set, daemon_tgid, build, .. } = self.runtime;
        self.runtime = Runtime { program_set, daemon_tgid, build, ..fresh };
        // First: with these settings nothing is recognised and nothing judged.
        self.write_runtime()?;
        adopt::clear(&self.options.bpffs, PINNED_MAPS)?;
        self.write_runtime()?;
        self.lives.clear();
        self.taken_over = false;
        Ok(true)
    }

    /// Takes the reader of the rings; once.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn take_rings(&mut self) -> Result<Rings, KernelError> {
        let mut ring = |name: &str| -> Result<RingBuf<MapData>, KernelError> {
            let map = self.ebpf.take_map(name).ok_or_else(|| KernelError::Bpf {
                what: format!("open ring {name}"),
                cause: "it was opened before".into(),
            })?;
            RingBuf::try_from(map).map_err(|e| KernelError::bpf(format!("open ring {name}"), &e))
        };
        Ok(Rings::new(ring("PRIORITY")?, ring("EVENTS")?))
    }

    /// Every thread of the host with its binding.
    ///
    /// # Errors
    /// When the iterator fails.
    pub fn tasks(&mut self) -> Result<Vec<TaskLine>, KernelError> {
        let iter: &mut Iter = self
            .ebpf
            .program_mut("seed_tasks")
            .ok_or(KernelError::NoObject)?
            .try_into()
            .map_err(|e| KernelError::bpf("run the task iterator", &e))?;
        seed::run(iter)
    }

    /// Leaves programs, maps and links pinned and in force, and says that no daemon is there.
    ///
    /// # Errors
    /// When the settings cannot be written.
    pub fn leave(mut self) -> Result<(), KernelError> {
        self.runtime.daemon_tgid = 0;
        self.write_runtime()
    }

    /// Detaches everything, removes the pins and lets go on what was held.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn detach(self) -> Result<(), KernelError> {
        let dir = self.options.bpffs.clone();
        pins::end(&dir, || drop(self))
    }
}

/// Root with what loading and attaching needs; a container's root may lack it.
fn privileged() -> bool {
    use rustix::thread::CapabilitySet as Caps;
    let split = Caps::BPF | Caps::PERFMON | Caps::NET_ADMIN;
    let held = rustix::thread::capabilities(None).map_or(Caps::empty(), |sets| sets.effective);
    rustix::process::geteuid().is_root() && (held.contains(Caps::SYS_ADMIN) || held.contains(split))
}

/// `bpf` in the list of active LSMs.
pub(super) fn lsm_active() -> bool {
    fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|l| l.trim().split(',').any(|m| m == "bpf"))
}

/// Whether the kernel takes an LSM program at all; the list of active modules alone does not say so. `Err` says why not.
fn lsm_loads(ebpf: &mut Ebpf, btf: &Btf) -> Result<(), String> {
    if !lsm_active() {
        return Err("`bpf` is not in the list of active security modules (/sys/kernel/security/lsm)".into());
    }
    let why = |e: &dyn std::error::Error| KernelError::bpf("load an LSM program", e).to_string();
    let program = ebpf.program_mut("lsm_probe").ok_or("the object has no program lsm_probe")?;
    let lsm: &mut aya::programs::Lsm = program.try_into().map_err(|e| why(&e))?;
    lsm.load("bprm_check_security", btf).map_err(|e| why(&e))
}

/// Where the members of kernel structures are, by the symbols that the programs read; and those that this kernel lacks, with
/// what is lost.
type Members = (Vec<(&'static str, u32)>, Vec<(&'static str, &'static str)>);

fn offsets(facts: &btf::Btf) -> Result<Members, KernelError> {
    let (mut offsets, mut lost) = (Vec::new(), Vec::new());
    for field in FIELDS {
        let offset = field.paths.iter().find_map(|p| facts.offset(field.owner, p));
        if offset.is_none() {
            if field.without.is_empty() {
                let path = field.paths.first().copied().unwrap_or("");
                return Err(KernelError::MissingField { owner: field.owner, path });
            }
            lost.push((field.symbol, field.without));
        }
        offsets.push((field.symbol, offset.unwrap_or(ABSENT)));
    }
    Ok((offsets, lost))
}

fn load_object(
    options: &Options,
    offsets: &[(&'static str, u32)],
    aya_btf: &Btf,
    set: u32,
) -> Result<Ebpf, KernelError> {
    let wake = (options.ring_bytes / 8).max(4096);
    let pins: Vec<(&str, PathBuf)> =
        PINNED_MAPS.iter().map(|m| (*m, options.bpffs.join(format!("map_{m}")))).collect();
    let mut loader = EbpfLoader::new();
    loader.btf(Some(aya_btf)).allow_unsupported_maps().map_max_entries("EVENTS", options.ring_bytes);
    for (symbol, offset) in offsets {
        // Not every constant survives in the object: those that no program reads are dropped by the linker.
        loader.override_global(symbol, offset, false);
    }
    loader
        .override_global("UNATTRIBUTED", &options.unattributed, true)
        .override_global("PROGRAM_SET", &set, true)
        .override_global("WAKE_BYTES", &wake, true);
    for (map, path) in &pins {
        loader.map_pin_path(map, path.as_path());
    }
    loader.load(object()?).map_err(|e| KernelError::bpf("load the eBPF object", &e))
}

fn runtime_array(ebpf: &mut Ebpf) -> Result<Array<&mut MapData, Plain<Runtime>>, KernelError> {
    let map = ebpf.map_mut("RUNTIME").ok_or(KernelError::NoObject)?;
    Array::try_from(map).map_err(|e| KernelError::bpf("open the runtime settings", &e))
}

/// Whether this daemon may go on with the pins of an earlier one.
fn may_take_over(old: &Runtime, options: &Options) -> Result<(), KernelError> {
    let path = options.bpffs.display().to_string();
    if old.abi != ABI_VERSION {
        return Err(KernelError::Version { path, found: format!("contract {}", old.abi) });
    }
    if old.daemon_tgid != std::process::id() && is_daemon(old.daemon_tgid) {
        return Err(KernelError::Busy { path, pid: old.daemon_tgid });
    }
    Ok(())
}

/// Settings of the first daemon. Later ones take them from the pins, so that hashes stay what they are.
pub(super) fn new_settings() -> Result<Runtime, KernelError> {
    let mut seed = [0u8; 16];
    getrandom(&mut seed)?;
    let (a, b) = seed.split_at(8);
    let k = |s: &[u8]| s.iter().fold(0u64, |v, x| (v << 8) | u64::from(*x));
    Ok(Runtime {
        k0: k(a),
        k1: k(b) | 1,
        generation: 0,
        program_set: 0,
        flags: 0,
        daemon_tgid: 0,
        abi: ABI_VERSION,
        build: 0,
    })
}

fn getrandom(buffer: &mut [u8; 16]) -> Result<(), KernelError> {
    use std::io::Read as _;
    fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(buffer))
        .map_err(|e| KernelError::io("read", "/dev/urandom", e))
}

/// Whether a pid is a live agent-monitor.
pub(super) fn is_daemon(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.starts_with("agent-monitor"))
}

#[cfg(test)]
mod stack_tests;

#[cfg(test)]
mod tests {
    use agent_monitor_ebpf::{
        Header, bind, event, loss,
        task::{BackfillEntry, ProcEntry, TaskLine, TaskTag},
    };
    use object::{Object as _, ObjectSection as _};

    use super::*;

    /// The object that `cargo xtask build` made, where it and plain `cargo test` after it find it.
    pub(super) fn built() -> Vec<u8> {
        let usual = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/agent-monitor.bpf.o");
        let named = std::env::var_os("AGENT_MONITOR_BPF_OBJECT").map(PathBuf::from);
        let named = named.filter(|path| path.metadata().is_ok_and(|meta| meta.len() > 0));
        let path = named.unwrap_or_else(|| PathBuf::from(usual));
        fs::read(&path).unwrap_or_else(|e| {
            panic!("no eBPF object at {}: {e}; run `cargo xtask build` first", path.display())
        })
    }

    /// The BPF target lays types out by rules of its own; both sides must agree on every field.
    #[test]
    fn the_object_agrees_with_the_contract() {
        let object = built();
        let file = object::File::parse(object.as_slice()).unwrap();
        let section = file.section_by_name(".BTF").unwrap();
        let btf = btf::Btf::parse(section.data().unwrap().to_vec()).unwrap();
        let layouts = [
            Header::LAYOUT,
            TaskTag::LAYOUT,
            ProcEntry::LAYOUT,
            BackfillEntry::LAYOUT,
            TaskLine::LAYOUT,
            bind::PathKey::LAYOUT,
            bind::NumKey::LAYOUT,
            bind::MatchSet::LAYOUT,
            bind::MatchEntry::LAYOUT,
            bind::CgroupEntry::LAYOUT,
            Runtime::LAYOUT,
            loss::LossKey::LAYOUT,
            loss::LossValue::LAYOUT,
            event::ExecBody::LAYOUT,
            event::FileBody::LAYOUT,
            event::NetBody::LAYOUT,
            event::PrivBody::LAYOUT,
        ];
        let mut compared = 0;
        for layout in layouts {
            // BTF describes what BTF maps and function signatures mention; the other types leave no trace.
            let Some(size) = btf.size(layout.name) else { continue };
            compared += 1;
            assert_eq!(size as usize, layout.size, "{}", layout.name);
            for (field, offset, _) in layout.fields {
                let found = btf.offset(layout.name, field).map(|o| o as usize);
                assert_eq!(found, Some(*offset), "{}.{field}", layout.name);
            }
        }
        assert!(compared >= 3, "only {compared} types of the contract are in the object's BTF");
    }
}
