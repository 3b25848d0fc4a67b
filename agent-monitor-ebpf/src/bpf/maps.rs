//! Every map: who writes, who reads, what happens when it is full.

use agent_monitor_ebpf::{
    bind::{CgroupEntry, MatchEntry, MatchSet, NumKey, PathKey},
    config::Runtime,
    loss::{LossKey, LossValue, OVERFLOW_SLOTS},
    people::{GrantLife, GrantList, SessionEntry, Ticket, TicketKey, UseKey},
    policy::{AgentKey, AgentPolicy, NetKey, NetSet, PathRule, PlaceKey},
    task::{BackfillEntry, ProcEntry, TaskTag},
};
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, RingBuf},
};

use super::scratch::Scratch;

/// Ordinary records. Full: the record is counted in [`LOSSES`] and dropped.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Bindings made outside exec and fork, violations and holds; ordinary records never fill it.
#[map]
pub(crate) static PRIORITY: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// One element, written by the daemon.
#[map]
pub(crate) static RUNTIME: Array<Runtime> = Array::with_max_entries(1, 0);

/// Places in file systems that make a process an agent. Written by the daemon.
#[map]
pub(crate) static PATHS: HashMap<PathKey, MatchSet> = HashMap::with_max_entries(8192, 0);

/// Exec file-name texts that make a process an agent (level partial). Written by the daemon.
#[map]
pub(crate) static TEXTS: HashMap<NumKey, MatchSet> = HashMap::with_max_entries(8192, 0);

/// Real uids that make a process an agent. Written by the daemon.
#[map]
pub(crate) static USERS: HashMap<NumKey, MatchEntry> = HashMap::with_max_entries(4096, 0);

/// cgroup names that make a cgroup an agent's. Written by the daemon.
#[map]
pub(crate) static NAMES: HashMap<NumKey, CgroupEntry> = HashMap::with_max_entries(8192, 0);

/// cgroup ids in force: from the daemon for those that exist, from the mkdir hook for new ones. Full: counted, the
/// cgroup is not recognised until the daemon's next scan.
#[map]
pub(crate) static CGROUPS: HashMap<NumKey, CgroupEntry> = HashMap::with_max_entries(16384, 0);

/// Bound processes by tgid, for hooks without task storage and for the daemon. Full: counted; task storage still binds. At
/// level partial, where the cgroup programs know processes by it alone, a new process of an enforced agent that finds no
/// room ends.
#[map]
pub(crate) static PROCS: HashMap<u32, ProcEntry> = HashMap::with_max_entries(65536, 0);

/// Processes that the next run of the task iterator binds. Written by the daemon.
#[map]
pub(crate) static BACKFILL: HashMap<u32, BackfillEntry> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

/// What holds for each agent as a whole. Written by the daemon. An agent that is not in it is refused all that is judged.
#[map]
pub(crate) static POLICIES: HashMap<AgentKey, AgentPolicy> =
    HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// Decisions about places. Written by the daemon: a scope that finds no room is not put in force, the old one stays.
#[map]
pub(crate) static PLACES: HashMap<PlaceKey, PathRule> = HashMap::with_max_entries(1 << 18, BPF_F_NO_PREALLOC);

/// Rules about networks. Written by the daemon, as [`PLACES`].
#[map]
pub(crate) static NETS: LpmTrie<NetKey, NetSet> = LpmTrie::with_max_entries(1 << 16, BPF_F_NO_PREALLOC);

/// People's decisions about exactly one act. Written by the daemon. Full: the daemon is told, the act stays undecided.
#[map]
pub(crate) static TICKETS: HashMap<TicketKey, Ticket> = HashMap::with_max_entries(16384, BPF_F_NO_PREALLOC);

/// Sessions by number. Written by the daemon. A session that is not in it has ended.
#[map]
pub(crate) static SESSIONS: HashMap<u64, SessionEntry> = HashMap::with_max_entries(16384, BPF_F_NO_PREALLOC);

/// Grants of each agent. Written by the daemon, with the scopes.
#[map]
pub(crate) static GRANTED: HashMap<AgentKey, GrantList> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// How long grants last, by number. Written by the daemon.
#[map]
pub(crate) static GRANT_LIVES: HashMap<u64, GrantLife> = HashMap::with_max_entries(16384, BPF_F_NO_PREALLOC);

/// Uses of counted grants that are left, one entry each: who removes it has it.
#[map]
pub(crate) static GRANT_USES: HashMap<UseKey, u32> = HashMap::with_max_entries(1 << 18, BPF_F_NO_PREALLOC);

/// When the daemon last said that somebody can be asked, boot-time nanoseconds.
#[map]
pub(crate) static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

/// Losses by agent, kind and reason. Full: counted in [`OVERFLOW`].
#[map]
pub(crate) static LOSSES: HashMap<LossKey, LossValue> = HashMap::with_max_entries(8192, 0);

/// Losses that found no room in [`LOSSES`].
#[map]
pub(crate) static OVERFLOW: Array<u64> = Array::with_max_entries(OVERFLOW_SLOTS, 0);

/// A flow of a bound process, kept with its socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) tag: TaskTag,
    pub(crate) start: u64,
    pub(crate) cgroup: u64,
    pub(crate) first: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Peer last told of: address and, in the last word, `family << 32 | port`.
    pub(crate) peer: [u64; 3],
    pub(crate) tgid: u32,
    pub(crate) tid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) euid: u32,
    /// 1 when the peer in `peer` was told as a connection, so that the flow's end is told.
    pub(crate) told: u32,
    /// Local port, seen while the connection was alive.
    pub(crate) local_port: u32,
    pub(crate) reserved: u32,
    /// The peer before the one in `peer`: a packet to it may still be on its way.
    pub(crate) before: [u64; 3],
    /// The destination of a packet that was judged last because it was neither: halves of its address and, in the last
    /// word, port and a `STRAY_*` value in the high half.
    pub(crate) stray: [u64; 3],
}

/// Flows; freed with the socket.
#[btf_map]
pub(crate) static FLOWS: SkStorage<Flow> = SkStorage::new();

/// Whose a connection of a process without an agent is, kept with its socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Named {
    pub(crate) peer: [u8; 16],
    pub(crate) start: u64,
    pub(crate) tgid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) port: u16,
    pub(crate) family: u16,
    /// Packets with data that are still looked at.
    pub(crate) left: u32,
    pub(crate) reserved: u32,
}

/// Owners of connections whose names are wanted; freed with the socket. No memory: counted, the name stays unknown.
#[btf_map]
pub(crate) static NAMED: SkStorage<Named> = SkStorage::new();

/// A peer of a process without an agent.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PeerKey {
    pub(crate) addr: [u8; 16],
    pub(crate) start: u64,
    pub(crate) tgid: u32,
    /// Family in the high half.
    pub(crate) port: u32,
}

/// Peers that were told lately, so that each is told once. Full: the oldest is forgotten, and told again.
#[map]
pub(crate) static PEERS: LruHashMap<PeerKey, u32> = LruHashMap::with_max_entries(16384, 0);

/// `BPF_MAP_TYPE_TASK_STORAGE`, declared by hand: aya-ebpf 0.2 has no type for it.
#[repr(C)]
pub(crate) struct TaskStorage<T> {
    r#type: *const [i32; 29],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: the static is only a declaration for the loader; its pointers are null and never read.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    const fn new() -> Self {
        TaskStorage {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }
}

/// The binding of every bound thread. No memory: counted; a fork is refused (level full), a program that would start as an
/// enforced agent ends.
#[unsafe(link_section = ".maps")]
#[unsafe(no_mangle)]
pub(crate) static TASKS: TaskStorage<TaskTag> = TaskStorage::new();

/// Working memory of the programs that run in a task. Per-CPU memory would be overwritten on preemptible kernels.
#[unsafe(link_section = ".maps")]
#[unsafe(no_mangle)]
pub(crate) static SCRATCH: TaskStorage<Scratch> = TaskStorage::new();
