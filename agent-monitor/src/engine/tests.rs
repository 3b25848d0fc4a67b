//! Tests of the engine: golden trace, determinism, gaps.

use agent_monitor_ebpf::event::{
    ACCESS_READ, ArgChunkBody, BoundBody, ExecBody, ExitBody, FILE_TEXT, FileBody, ForkBody, NetBody,
    PrivBody, priv_op,
};
use agent_monitor_ebpf::header::{FLAG_ARGS_CHUNKED, Header, Kind as RawKind, Source as RawSource};
use agent_monitor_ebpf::task::BoundBy;
use zerocopy::FromZeros;

use super::host::NoHost;
use super::*;
use crate::attribute::mounts::kernel_dev;
use crate::attribute::{Matcher, matcher::Rule};
use crate::decode::encode::{NONE, dentry, head, record, text};
use crate::model::Mode;
use crate::registry::record::MatchRank;

const MOUNTS: &[u8] = b"22 1 254:1 / / rw - ext4 /dev/vda1 rw\n30 22 254:2 / /srv rw - xfs /dev/vdb rw\n";
const ROOT: u32 = 254 << 20 | 1;
const SRV: u32 = 254 << 20 | 2;

fn engine(unattributed: Unattributed) -> Engine {
    let clock = Arc::new(Clock::fixed(1_795_300_000_000_000_000));
    let mut engine = Engine::new(clock, unattributed, Limits::default());
    engine.set_mounts(MountTable::parse(MOUNTS));
    let mut agents = Agents::default();
    agents.register([("planner", Mode::Observe), ("release-bot", Mode::Enforce)]);
    let script = |agent, path: &str| Rule {
        agent,
        rank: MatchRank { conditions: 1, strongest: 6 },
        exe: None,
        script: Some([path.as_bytes().to_vec()].into()),
        argv: None,
        uid: None,
        cgroup: None,
        unit: None,
        container: None,
        file: None,
        late: true,
    };
    engine.set_agents(agents, Matcher::new(vec![script(2, "/srv/bot.py")]));
    engine
}

fn exec(head: Header, exe: &str, args: &[u8], parent: (u32, u64)) -> Vec<u8> {
    let (exe, exe_bytes) = dentry(exe);
    let (cwd, cwd_bytes) = dentry("/");
    let (args_piece, args_bytes) = text(args);
    let body = ExecBody {
        exe_dev: ROOT,
        cwd_dev: SRV,
        exe,
        cwd,
        args: args_piece,
        args_total: args.len() as u32,
        parent_tgid: parent.0,
        parent_start: parent.1,
        ..ExecBody::new_zeroed()
    };
    record(head, &body, &[exe_bytes, cwd_bytes, args_bytes])
}

fn by(mut head: Header, by: BoundBy, delegator: u32) -> Header {
    (head.bound_by, head.delegator, head.uid, head.cgroup) = (by as u8, delegator, 1001, 0);
    head
}

#[expect(clippy::too_many_lines, reason = "one record of each kind is a list")]
/// One record of each kind: an agent starts, works, starts a nested agent, and ends.
fn trace() -> Vec<Vec<u8>> {
    let of = |kind, ktime| by(head(kind, ktime, 100, 7_000, 1), BoundBy::Exe, 0);
    let child = |kind, ktime| by(head(kind, ktime, 101, 9_000, 1), BoundBy::Inherited, 0);
    let nested = |kind, ktime| by(head(kind, ktime, 101, 9_000, 2), BoundBy::Script, 1);
    let (a, a_bytes) = dentry("/data/x");
    let (b, b_bytes) = dentry("/data/y");
    let file = FileBody {
        a,
        b: NONE,
        dev: SRV,
        ino: 12,
        access: ACCESS_READ,
        new_uid: u32::MAX,
        new_gid: u32::MAX,
        ..FileBody::new_zeroed()
    };
    let open = |kind, ktime| record(of(kind, ktime), &file, std::slice::from_ref(&a_bytes));
    let two = FileBody { b, dev_b: SRV, access: 0, ..file };
    let moved = |kind, ktime| record(of(kind, ktime), &two, &[a_bytes.clone(), b_bytes.clone()]);
    let (dir, dir_bytes) = dentry("/work");
    let (relative, relative_bytes) = text(b"../etc/shadow");
    let by_text =
        FileBody { a: dir, c: relative, dev: ROOT, how: FILE_TEXT, access: ACCESS_READ, ino: 0, ..file };
    let mut failed = of(RawKind::FileOpen, 26);
    (failed.errno, failed.source, failed.tid) = (-13, RawSource::RawTp as u8, 103);
    let mut remote = [0; 16];
    remote[..4].copy_from_slice(&[192, 0, 2, 1]);
    let net = NetBody {
        family: 2,
        sock_type: 1,
        protocol: 6,
        remote,
        remote_port: 443,
        local: remote,
        local_port: 5000,
        bytes_sent: 10,
        bytes_received: 20,
        first: 1,
        ..NetBody::new_zeroed()
    };
    let socket = |kind, ktime| record(of(kind, ktime), &net, &[]);
    let (sock, sock_bytes) = dentry("/run/x.sock");
    let unix = NetBody { family: 1, sock_type: 1, a: sock, dev: ROOT, ..NetBody::new_zeroed() };
    let right = |kind, ktime, op, args| {
        record(
            of(kind, ktime),
            &PrivBody { op, args, target_tgid: 101, target_start: 9_000, ..PrivBody::new_zeroed() },
            &[],
        )
    };
    let (at, at_bytes) = dentry("/mnt");
    let (fs, fs_bytes) = text(b"tmpfs");
    let mount = PrivBody { op: priv_op::MOUNT, a: at, b: fs, dev: ROOT, ..PrivBody::new_zeroed() };
    vec![
        exec(of(RawKind::Exec, 10), "/usr/bin/agent", b"agent\0--go\0", (1, 1)),
        record(of(RawKind::Bound, 10), &BoundBody { before: 0, reserved: 0 }, &[]),
        record(of(RawKind::Fork, 11), &ForkBody { child_start: 9_000, child_tgid: 101, new_ns: 0 }, &[]),
        open(RawKind::FileOpen, 20),
        open(RawKind::FileCreate, 21),
        open(RawKind::FileDelete, 22),
        moved(RawKind::FileRename, 23),
        moved(RawKind::FileLink, 24),
        open(RawKind::FileTruncate, 25),
        record(failed, &by_text, &[dir_bytes, relative_bytes]),
        open(RawKind::FileSetattr, 27),
        open(RawKind::FileMmapExec, 28),
        socket(RawKind::NetConnect, 30),
        socket(RawKind::NetBind, 31),
        socket(RawKind::NetListen, 32),
        socket(RawKind::NetAccept, 33),
        socket(RawKind::NetSend, 34),
        socket(RawKind::NetFlow, 5_000_001),
        record(of(RawKind::NetConnect, 36), &unix, &[sock_bytes]),
        right(RawKind::PrivSetuid, 40, priv_op::UID, [0, 0, 1001, 1001]),
        right(RawKind::PrivCapability, 41, priv_op::CAPSET, [0, 0, 1 << 21, 1 << 21]),
        right(RawKind::PrivPtrace, 42, priv_op::PTRACE_ATTACH, [0x12, 0, 0, 0]),
        right(RawKind::PrivSignal, 43, priv_op::SIGNAL, [15, 0, 0, 0]),
        record(of(RawKind::PrivMount, 44), &mount, &[at_bytes, fs_bytes]),
        right(RawKind::PrivNamespace, 45, priv_op::UNSHARE, [0x2002_0000, 0, 0, 0]),
        right(RawKind::PrivModule, 46, priv_op::MODULE_LOAD, [0; 4]),
        right(RawKind::PrivBpf, 47, priv_op::BPF, [5, 0, 0, 0]),
        exec(nested(RawKind::Exec, 50), "/usr/bin/node", b"node\0x.js\0", (100, 7_000)),
        record(nested(RawKind::Bound, 50), &BoundBody { before: 1, reserved: 0 }, &[]),
        record(child(RawKind::Canary, 51), &[0u8; 0], &[]),
        record(nested(RawKind::Exit, 60), &ExitBody { status: 3 << 8, reserved: 0 }, &[]),
        record(of(RawKind::Exit, 61), &ExitBody { status: 9, reserved: 0 }, &[]),
    ]
}

fn play(engine: &mut Engine, trace: &[Vec<u8>]) -> Vec<String> {
    let mut out = Output::default();
    for bytes in trace {
        engine.record(bytes, &mut NoHost, &mut out);
    }
    out.events.iter().map(|event| event.to_line().unwrap()).collect()
}

#[test]
fn a_recorded_trace_gives_these_events() {
    let lines = play(&mut engine(Unattributed::Exec), &trace());
    assert_eq!(lines.len(), trace().len() - 1, "all but the canary");
    insta::assert_snapshot!("trace", lines.join("\n"));
}

#[test]
fn the_same_bytes_give_the_same_events() {
    let once = play(&mut engine(Unattributed::All), &trace());
    assert_eq!(once, play(&mut engine(Unattributed::All), &trace()));
}

#[test]
fn unattributed_processes_tell_what_was_asked_for() {
    let stranger = |kind| head(kind, 10, 500, 5, 0);
    let trace = [
        exec(stranger(RawKind::Exec), "/bin/ls", b"ls\0", (1, 1)),
        record(stranger(RawKind::Exit), &ExitBody { status: 0, reserved: 0 }, &[]),
    ];
    let count = |unattributed| play(&mut engine(unattributed), &trace).len();
    assert_eq!([Unattributed::None, Unattributed::Exec, Unattributed::All].map(count), [0, 1, 2]);
}

#[test]
fn long_arguments_come_in_chunks() {
    let mut engine = engine(Unattributed::Exec);
    let whole: Vec<u8> = b"abcdefg\0".repeat(1000);
    let chunks = whole.chunks(4096).enumerate().map(|(n, bytes)| {
        let body =
            ArgChunkBody { offset: n as u32 * 4096, len: bytes.len() as u32, args_total: 8000, failed: 0 };
        record(head(RawKind::ArgChunk, 9, 100, 7, 1), &body, &[bytes.to_vec()])
    });
    let mut trace: Vec<_> = chunks.collect();
    let mut with = head(RawKind::Exec, 10, 100, 7, 1);
    with.flags = FLAG_ARGS_CHUNKED;
    let body = ExecBody { args_total: 8000, ..ExecBody::new_zeroed() };
    trace.push(record(with, &body, &[]));
    let event: Event = serde_json::from_str(play(&mut engine, &trace).first().unwrap()).unwrap();
    let process = event.process.unwrap();
    assert_eq!((process.args.len(), process.args_truncated), (1000, false));
    assert!(process.args_sha256.is_some());
}

#[test]
fn arguments_bind_from_user_space() {
    let mut engine = engine(Unattributed::Exec);
    let mut out = Output::default();
    let started = head(RawKind::Exec, 1_000_000, 200, 50, 0);
    engine.record(
        &exec(started, "/usr/bin/python3", b"python3\0-u\0bot.py\0", (1, 1)),
        &mut NoHost,
        &mut out,
    );
    assert!(out.events.is_empty(), "the exec waits for its binding");
    let request = out.binds.pop().unwrap();
    assert_eq!((request.agent, request.by, request.before), (2, BoundBy::Argv, 0));
    // What happens meanwhile is already the agent's.
    let meanwhile = FileBody { dev: ROOT, ..FileBody::new_zeroed() };
    engine.record(
        &record(head(RawKind::FileOpen, 3_000_000, 200, 50, 0), &meanwhile, &[]),
        &mut NoHost,
        &mut out,
    );
    let key = request.key;
    let child = TaskKey { tgid: 201, start: 60 };
    let outcome =
        BindOutcome { at: 13_500_000, bound: vec![(key, BoundBy::Argv), (child, BoundBy::Inherited)] };
    engine.bind_done(request, Some(outcome), &mut NoHost, &mut out);
    let told: Vec<_> = out
        .events
        .iter()
        .map(|event| {
            let agent = event.agent.as_ref().unwrap();
            (event.kind, agent.id.as_str(), agent.bound_delay_ms, event.process.as_ref().unwrap().pid)
        })
        .collect();
    assert_eq!(
        told,
        [
            (Kind::FileOpen, "release-bot", None, 200),
            (Kind::ProcessExec, "release-bot", Some(12), 200),
            (Kind::AgentBound, "release-bot", Some(12), 200)
        ]
    );
    // Once the kernel has the binding, a record without it means that there is none any more.
    engine.record(
        &record(head(RawKind::FileOpen, 20_000_000, 200, 50, 0), &meanwhile, &[]),
        &mut NoHost,
        &mut out,
    );
    assert_eq!(out.events.len(), 3);
}

#[test]
fn a_binding_that_fails_is_said() {
    let mut engine = engine(Unattributed::Exec);
    let mut out = Output::default();
    let started = head(RawKind::Exec, 1_000_000, 200, 50, 0);
    engine.record(
        &exec(started, "/usr/bin/python3", b"python3\0/srv/bot.py\0", (1, 1)),
        &mut NoHost,
        &mut out,
    );
    let request = out.binds.pop().unwrap();
    engine.bind_done(request, None, &mut NoHost, &mut out);
    let event = out.events.pop().unwrap();
    assert!(event.agent.is_none() && event.unattributed_reason.is_some());
}

#[test]
fn removed_agents_lose_their_processes_and_reused_pids_have_none() {
    let mut engine = engine(Unattributed::All);
    play(&mut engine, &trace()[..3]);
    let mut agents = Agents::default();
    agents.register([("planner", Mode::Observe), ("release-bot", Mode::Enforce)]);
    agents.register([("release-bot", Mode::Enforce)]);
    engine.set_agents(agents, Matcher::default());
    assert!(engine.tree().living().all(|proc| proc.binding.is_none()));
    let again = exec(head(RawKind::Exec, 90, 100, 8_000, 0), "/bin/ls", b"ls\0", (1, 1));
    let event: Event = serde_json::from_str(play(&mut engine, &[again]).first().unwrap()).unwrap();
    assert_eq!(event.agent, None);
}

#[test]
fn what_cannot_be_read_becomes_a_gap() {
    let mut engine = engine(Unattributed::All);
    let mut bytes = trace().swap_remove(0);
    bytes.truncate(200);
    assert!(play(&mut engine, &[bytes, vec![1, 2, 3]]).is_empty());
    let (agents, clock) = (engine.agents().clone(), Arc::clone(&engine.clock));
    let gaps = engine.gaps().poll(&[], 0, 99, &agents, &clock);
    assert_eq!(gaps.iter().map(|gap| gap.kind).collect::<Vec<_>>(), [Kind::GapDecode, Kind::GapDecode]);
}

#[test]
fn device_numbers_are_as_the_kernel_writes_them() {
    assert_eq!(kernel_dev(254, 1), ROOT);
}

/// Whatever its body, each record of the contract becomes an event of its own kind, or none where it is no event.
#[test]
fn a_record_that_is_no_event_never_becomes_one() {
    use crate::model::kinds::{Record, of_record};
    for raw in RawKind::ALL {
        let mut engine = engine(Unattributed::All);
        let mut out = Output::default();
        let head = Header { flags: FLAG_ARGS_CHUNKED, ..head(*raw, 900, 700, 70, 2) };
        engine.record(&record(head, &[0_u8; 112], &[vec![0; 64]]), &mut NoHost, &mut out);
        let kinds: Vec<Kind> = out.events.iter().map(|event| event.kind).collect();
        match of_record(*raw) {
            Record::Material(name) => assert_eq!(kinds, [], "{raw:?} ({name})"),
            // An exec of an agent that was not announced before also says that it is bound.
            Record::Event(kind) => {
                let own: Vec<&Kind> = kinds.iter().filter(|kind| **kind != Kind::AgentBound).collect();
                assert!(own.iter().all(|found| **found == kind), "{raw:?}: {kinds:?}");
                assert!(!kinds.is_empty(), "{raw:?} gave nothing");
            }
        }
    }
}
