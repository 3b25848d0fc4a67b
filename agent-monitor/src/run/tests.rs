//! Tests of the daemon over a fake kernel side.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use agent_monitor_ebpf::event::{ExecBody, FileBody};
use agent_monitor_ebpf::header::Kind as RawKind;
use agent_monitor_ebpf::loss::{LossKey, LossReason, LossValue};
use agent_monitor_ebpf::task::{BoundBy, TaskTag};
use zerocopy::FromZeros as _;

use super::fake::FakeKernel;
use super::*;
use crate::control::Daemon as _;
use crate::decode::encode::{dentry, head, record, text};
use crate::model::{Event, Kind};
use crate::record::Filter;

pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
    pub(super) kernel: FakeKernel,
    pub(super) core: Core,
}

fn config(dir: &std::path::Path) -> Config {
    let layer = crate::config::Layer {
        registry: Some(dir.join("agents.d")),
        state_dir: Some(dir.join("state")),
        socket: Some(dir.join("control.sock")),
        ..crate::config::Layer::default()
    };
    layer.finish().unwrap()
}

fn write_record(dir: &std::path::Path, id: &str, found: &str) {
    let text = format!(
        "[agent]\nid = \"{id}\"\nowner = \"o@example.com\"\npurpose = \"p\"\nexpires = 2099-01-01T00:00:00Z\n\n[[match]]\n{found}\n"
    );
    let path = dir.join("agents.d").join(format!("{id}.toml"));
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
}

pub(super) fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let agents = dir.path().join("agents.d");
    fs::create_dir(&agents).unwrap();
    fs::set_permissions(&agents, fs::Permissions::from_mode(0o755)).unwrap();
    let kernel = FakeKernel::default();
    let state = State::open(&dir.path().join("state")).unwrap();
    let core = Core::new(config(dir.path()), state, Box::new(kernel.clone()));
    Bench { dir, kernel, core }
}

impl Bench {
    pub(super) fn record(&self, id: &str, found: &str) {
        write_record(self.dir.path(), id, found);
    }

    fn unregister(&self, id: &str) {
        let root = crate::people::who::Person { uid: 0, user: Some("root".to_owned()), caller: None };
        self.core.unregister_agent(id, &root, "test").unwrap();
    }

    fn file(&self, id: &str) -> std::path::PathBuf {
        self.dir.path().join(format!("agents.d/{id}.toml"))
    }

    /// Users that the kernel recognises agents by.
    fn users(&self) -> Vec<u32> {
        self.kernel
            .inner()
            .applied
            .last()
            .map(|image| image.users.keys().copied().collect())
            .unwrap_or_default()
    }

    /// State and reason of an agent, as `agent list` shows them.
    fn state(&self, id: &str) -> (String, String) {
        let found = self.core.agents().into_iter().find(|agent| agent.id == id).unwrap();
        (found.state, found.stale.map(|stale| stale.reason).unwrap_or_default())
    }

    /// As after a restart: another daemon over the same directories.
    pub(super) fn again(&self) -> Core {
        let state = State::open(&self.dir.path().join("state")).unwrap();
        Core::new(config(self.dir.path()), state, Box::new(self.kernel.clone()))
    }

    pub(super) fn index(&self, id: &str) -> u32 {
        core::lock(&self.core.book).agents.index(id).unwrap()
    }

    fn events(&self) -> Vec<Event> {
        let page = self.core.store().query(&Filter::default(), None);
        page.events.iter().map(|event| (**event).clone()).collect()
    }

    pub(super) fn kinds(&self) -> Vec<Kind> {
        self.events().iter().map(|event| event.kind).collect()
    }

    pub(super) fn feed(&self, record: Vec<u8>) {
        self.kernel.feed(record);
        let mut reader = self.kernel.clone();
        while self.core.read(&mut reader) > 0 {}
    }
}

fn exec(tgid: u32, args: &[u8]) -> Vec<u8> {
    let (exe, exe_bytes) = dentry("/usr/bin/python3");
    let (args_piece, args_bytes) = text(args);
    let body = ExecBody { exe, args: args_piece, args_total: args.len() as u32, ..ExecBody::new_zeroed() };
    record(head(RawKind::Exec, 5, tgid, 7, 0), &body, &[exe_bytes, args_bytes])
}

#[test]
fn records_take_force_at_once_and_changes_are_told() {
    let bench = bench();
    bench.record("a", "user = 4242");
    bench.core.load().unwrap();
    assert_eq!(bench.kernel.inner().applied.len(), 1);
    assert_eq!(bench.kinds(), [], "what was there at the start is no news");
    let a = bench.index("a");
    bench.record("b", "user = 4243");
    fs::write(bench.dir.path().join("agents.d/c.toml"), "nonsense").unwrap();
    let changes = bench.core.load().unwrap();
    assert_eq!((changes.added, changes.removed.len(), changes.refused.len()), (vec!["b".to_owned()], 0, 1));
    bench.unregister("a");
    let kinds = [
        Kind::AgentRegistered,
        Kind::AgentRefused,
        Kind::AgentRemoved,
        Kind::AgentRefused,
        Kind::AgentRemoved,
    ];
    assert_eq!(bench.kinds(), kinds);
    let image = bench.kernel.inner().applied.last().cloned().unwrap();
    assert_eq!(image.users.keys().copied().collect::<Vec<_>>(), [4243]);
    bench.record("a", "user = 4242");
    bench.core.load().unwrap();
    assert_eq!(bench.index("a"), a, "an agent that comes back has its old number");
}

#[test]
fn a_kernel_that_refuses_leaves_the_old_set() {
    let bench = bench();
    bench.record("a", "user = 4242");
    bench.core.load().unwrap();
    bench.record("b", "user = 4243");
    bench.kernel.inner().refuse = true;
    assert!(bench.core.load().is_err());
    assert!(bench.core.reload().is_err());
    bench.kernel.inner().refuse = false;
    assert_eq!(bench.core.agents().iter().map(|agent| agent.id.clone()).collect::<Vec<_>>(), ["a"]);
    let live = core::lock(&bench.core.live);
    assert_eq!(live.engine.agents().registered().count(), 1);
}

#[test]
fn a_tree_that_runs_is_bound_and_freed_again() {
    let bench = bench();
    let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let pid = child.id();
    let ticks = crate::attribute::boot::start_ticks(pid).unwrap();
    let start = ticks * 10_000_000 + 5;
    bench.kernel.task(pid, start, std::process::id(), TaskTag::NONE);
    bench.kernel.task(pid + 4_000_000, start + 9, pid, TaskTag::NONE);
    let exe = fs::canonicalize("/bin/sleep").unwrap();
    bench.record("sleeper", &format!("exe = \"{}\"\nargv = [\"*sleep\", \"60\"]", exe.display()));
    bench.core.load().unwrap();
    let index = bench.index("sleeper");
    let tags = |bench: &Bench| -> Vec<(u32, u8)> {
        bench.kernel.inner().tasks.values().map(|task| (task.tag.agent, task.tag.bound_by)).collect()
    };
    assert_eq!(tags(&bench), [(index, BoundBy::Backfill as u8), (index, BoundBy::Inherited as u8)]);
    let events = bench.events();
    assert_eq!(bench.kinds(), [Kind::AgentBound]);
    assert_eq!(events[0].process.as_ref().map(|process| process.pid), Some(pid));
    let detail = bench.core.agent("sleeper").unwrap();
    assert_eq!(detail.tree.iter().map(|row| (row.pid, row.depth)).collect::<Vec<_>>()[0], (pid, 0));
    assert_eq!(detail.summary.processes, Some(2));
    bench.core.load().unwrap();
    assert_eq!(bench.events().len(), 1, "a second load changes nothing");
    fs::remove_file(bench.dir.path().join("agents.d/sleeper.toml")).unwrap();
    bench.core.load().unwrap();
    assert_eq!(tags(&bench).len(), 2);
    assert!(tags(&bench).iter().all(|(agent, _)| *agent == index), "a file that is gone unbinds nobody");
    bench.unregister("sleeper");
    assert!(bench.again().state.kept().set.is_empty(), "no restart brings it back");
    assert_eq!(tags(&bench), [(0, 0), (0, 0)]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn arguments_bind_a_process_with_what_it_forked_meanwhile() {
    let bench = bench();
    bench.record("bot", "argv = [\"python3\", \"/srv/bot.py\"]");
    bench.core.load().unwrap();
    let index = bench.index("bot");
    bench.kernel.task(4_100_000, 7, 1, TaskTag::NONE);
    bench.kernel.task(4_100_001, 9, 4_100_000, TaskTag::NONE);
    bench.feed(exec(4_100_000, b"python3\0/srv/bot.py\0"));
    let agents: Vec<u32> = bench.kernel.inner().tasks.values().map(|task| task.tag.agent).collect();
    assert_eq!(agents, [index, index]);
    let events = bench.events();
    assert_eq!(bench.kinds(), [Kind::ProcessExec, Kind::AgentBound]);
    let agent = events[0].agent.clone().unwrap();
    assert_eq!((agent.id.as_str(), agent.bound_by), ("bot", crate::model::BoundBy::Argv));
    assert!(agent.bound_delay_ms.is_some());
    // One that has ended before it could be bound is told, and so is what was missed.
    bench.feed(exec(4_200_000, b"python3\0/srv/bot.py\0"));
    assert_eq!(bench.kinds()[2..], [Kind::ProcessExec, Kind::GapLate]);
    assert!(bench.events()[2].agent.is_some());
}

#[test]
fn losses_and_absences_become_gaps() {
    let bench = bench();
    let key = LossKey { agent: 0, kind: RawKind::FileOpen as u16, reason: LossReason::RingFull as u16 };
    bench.kernel.inner().losses = vec![(key, LossValue { count: 3, first: 1, last: 2 })];
    bench.core.poll(false);
    bench.core.poll(false);
    bench.feed(vec![0; 7]);
    bench.core.poll(false);
    assert_eq!(bench.kinds(), [Kind::GapRing, Kind::GapDecode]);
    // A second daemon over the same pins does not tell them again, and says that nobody was there.
    bench.kernel.inner().taken_over = true;
    let state = State::open(&bench.dir.path().join("state")).unwrap();
    let again = Core::new(config(bench.dir.path()), state, Box::new(bench.kernel.clone()));
    again.resume();
    again.poll(true);
    let page = again.store().query(&Filter::default(), None);
    let reasons: Vec<_> = page
        .events
        .iter()
        .map(|event| (event.kind, event.gap.as_ref().map(|gap| gap.reason.clone())))
        .collect();
    let gap = |reason: &str| (Kind::GapDaemon, Some(reason.to_owned()));
    assert_eq!(reasons, [gap("daemon_down"), gap("takeover")]);
}

#[test]
fn what_the_kernel_could_not_bind_is_bound_by_the_daemon() {
    let bench = bench();
    bench.core.poll(false);
    let before = bench.kernel.inner().backfills;
    let key = LossKey { agent: 0, kind: RawKind::Exec as u16, reason: LossReason::Scratch as u16 };
    bench.kernel.inner().losses = vec![(key, LossValue { count: 1, first: 1, last: 1 })];
    bench.core.poll(false);
    let after = bench.kernel.inner().backfills;
    assert!(after > before, "it goes on without a name");
    bench.core.poll(false);
    assert_eq!(bench.kernel.inner().backfills, after, "once is enough");
}

#[test]
fn the_daemon_starts_serves_and_ends() {
    let bench = bench();
    bench.record("a", "user = 4242");
    let kernel = FakeKernel::default();
    let prepared = Prepared::new(config(bench.dir.path())).unwrap();
    assert!(
        matches!(Prepared::new(config(bench.dir.path())), Err(RunError::Socket(_))),
        "one daemon at a time"
    );
    let mut running = prepared.start(Box::new(kernel.clone())).unwrap();
    let body = FileBody { ..FileBody::new_zeroed() };
    let agent = core::lock(&running.core().book).agents.index("a").unwrap();
    kernel.feed(record(head(RawKind::FileOpen, 5, 4_300_000, 7, agent), &body, &[]));
    let ender = running.ender();
    let core = Arc::clone(running.core());
    let waiter = std::thread::spawn(move || {
        for _ in 0..500 {
            if core.store().extent().newest_seq > 0 || core.wait(Duration::from_millis(10)) {
                break;
            }
        }
        // What comes in the last moment is read too.
        kernel.feed(record(head(RawKind::FileDelete, 6, 4_300_000, 7, agent), &body, &[]));
        ender.close();
        kernel
    });
    running.wait();
    let summary = running.shutdown().unwrap();
    let kernel = waiter.join().unwrap();
    assert!(kernel.inner().detached);
    assert_eq!(summary.by_kind.get("file.open"), Some(&1));
    assert_eq!(summary.by_kind.get("file.delete"), Some(&1));
    assert!(!bench.dir.path().join("control.sock").exists());
    assert!(State::open(&bench.dir.path().join("state")).unwrap().last_seen().unwrap().clean);
}

#[test]
fn an_enforced_record_with_rules_that_are_not_held_is_refused() {
    let bench = bench();
    bench.record("plain", "exe = \"/bin/true\"");
    bench.record("bot", "exe = \"/bin/cat\"\n\n[scope]\n[[scope.net]]\nto = \"*.example.com\"");
    let path = bench.dir.path().join("agents.d/bot.toml");
    let observed = fs::read_to_string(&path).unwrap();
    let enforced = observed.replace("purpose", "mode = \"enforce\"\npurpose");
    fs::write(&path, &enforced).unwrap();
    let loaded = bench.core.load().unwrap();
    assert_eq!(loaded.added, ["plain"]);
    let [refused] = loaded.refused.as_slice() else { panic!("{loaded:?}") };
    assert!(refused.reason.contains("scope.net[0] is not in force at level full"), "{refused:?}");
    fs::write(&path, enforced.replace("purpose", "degrade = \"allow\"\npurpose")).unwrap();
    assert_eq!(bench.core.load().unwrap().added, ["bot"]);
}

/// A way to break a registry, by name.
type Spoil<'a> = (&'a str, &'a dyn Fn(&Bench));

const UNENFORCEABLE: &str =
    "user = 4242\n\n[scope]\ndefault = \"audit\"\n[[scope.net]]\nto = \"*.example.com\"\nverdict = \"deny\"";

fn enforce(text: &str) -> String {
    text.replace("purpose", "mode = \"enforce\"\npurpose")
}

#[test]
fn a_refused_replacement_leaves_the_last_good_record_in_force() {
    let bench = bench();
    bench.record("a", "user = 4242");
    bench.core.load().unwrap();
    let before = bench.kernel.inner().applied.len();
    let typo = |bench: &Bench| fs::write(bench.file("a"), "[agent\nid = \"a\"").unwrap();
    let unenforceable = |bench: &Bench| {
        bench.record("a", UNENFORCEABLE);
        let text = enforce(&fs::read_to_string(bench.file("a")).unwrap());
        fs::write(bench.file("a"), text).unwrap();
    };
    let gone = |bench: &Bench| fs::remove_file(bench.file("a")).unwrap();
    let other = |bench: &Bench| {
        let text = fs::read_to_string(bench.file("a")).unwrap();
        fs::write(bench.file("a"), text.replace("id = \"a\"", "id = \"z\"")).unwrap();
    };
    let registry = |bench: &Bench| {
        fs::rename(bench.dir.path().join("agents.d"), bench.dir.path().join("elsewhere")).unwrap();
    };
    let spoil: [Spoil<'_>; 5] = [
        ("typo", &typo),
        ("a rule that cannot be enforced", &unenforceable),
        ("a removed file", &gone),
        ("another id with the same match", &other),
        ("a vanished registry", &registry),
    ];
    for (what, spoil) in spoil {
        spoil(&bench);
        let changes = bench.core.load().unwrap();
        assert!(changes.is_bad() && changes.removed.is_empty(), "{what}: {changes:?}");
        assert_eq!(
            changes.stale.iter().map(|stale| stale.agent.as_str()).collect::<Vec<_>>(),
            ["a"],
            "{what}"
        );
        assert!(!changes.stale[0].reason.is_empty() && changes.stale[0].cure.contains("agent"), "{what}");
        let (state, reason) = bench.state("a");
        assert!(state == "stale" && !reason.is_empty(), "{what}: {state} {reason}");
        assert_eq!(bench.core.status().stale.len(), 1, "{what}");
        assert_eq!(bench.users(), [4242], "{what}");
        assert_eq!(bench.kernel.inner().applied.len(), before, "{what}: nothing changed in the kernel");
        // A restart, with the file as broken as before.
        let again = bench.again();
        again.load().unwrap();
        assert_eq!(again.agents().len(), 1, "{what}");
        assert_eq!(again.agents()[0].state, "stale", "{what}");
        assert_eq!(bench.users(), [4242], "{what} and a restart");
        let since = again.status().stale[0].since;
        assert_eq!(since, bench.core.status().stale[0].since, "{what}: since when is kept");
        bench.kernel.inner().applied.truncate(before);
        if what == "a vanished registry" {
            fs::rename(bench.dir.path().join("elsewhere"), bench.dir.path().join("agents.d")).unwrap();
        }
        bench.record("a", "user = 4242");
        assert!(!bench.core.load().unwrap().is_bad(), "{what}: mended");
        assert_eq!(bench.state("a").0, "observing", "{what}: mended");
    }
}

#[test]
fn registering_another_agent_with_a_typo_about_opens_nothing() {
    let bench = bench();
    bench.record("a", "user = 4242");
    bench.core.load().unwrap();
    fs::write(bench.file("a"), "nonsense").unwrap();
    bench.record("b", "user = 4243");
    let changes = bench.core.load().unwrap();
    assert_eq!((changes.added.as_slice(), changes.stale.len()), (&["b".to_owned()][..], 1));
    assert_eq!(bench.users(), [4242, 4243]);
    let stale = bench.events().into_iter().filter(|event| event.kind == Kind::AgentRefused);
    let details: Vec<_> = stale.filter_map(|event| event.detail).collect();
    assert!(
        details.iter().any(|detail| detail.get("stale").is_some_and(|stale| stale == true)),
        "{details:?}"
    );
}

#[test]
fn what_the_kernel_has_no_room_for_is_stale_and_its_reason_says_so() {
    let bench = bench();
    bench.record("a", "user = 4242");
    bench.core.load().unwrap();
    bench.record("a", "user = 4243");
    bench.kernel.inner().refuse = true;
    assert!(bench.core.load().is_err());
    bench.kernel.inner().refuse = false;
    let (state, reason) = bench.state("a");
    assert!(state == "stale" && reason.contains("refused by the test"), "{state} {reason}");
    assert_eq!(bench.users(), [4242]);
    bench.core.load().unwrap();
    assert_eq!((bench.state("a").0.as_str(), bench.users()), ("observing", vec![4243]));
}

#[test]
fn a_dry_run_answers_as_the_reload_does_and_changes_nothing() {
    let bench = bench();
    bench.record("a", "user = 4242");
    bench.core.load().unwrap();
    bench.record("c", UNENFORCEABLE);
    let bad = enforce(&fs::read_to_string(bench.file("c")).unwrap());
    fs::remove_file(bench.file("c")).unwrap();
    bench.record("b", "user = 4242");
    let clash = fs::read_to_string(bench.file("b")).unwrap();
    bench.record("b", "user = 4243");
    let good = fs::read_to_string(bench.file("b")).unwrap();
    fs::remove_file(bench.file("b")).unwrap();
    for (text, id) in [(bad, "c"), (clash, "b"), (good, "b"), ("nonsense".to_owned(), "x")] {
        let request = crate::control::api::CheckRequest { text: text.clone(), name: "new.toml".to_owned() };
        let (kinds, before) = (bench.kinds(), bench.kernel.inner().applied.len());
        let reply = bench.core.check_record(&request).unwrap();
        assert_eq!((bench.kinds(), bench.kernel.inner().applied.len()), (kinds.clone(), before));
        assert!(reply.ok || !reply.errors.is_empty() && reply.problems.contains("new.toml"), "{reply:?}");
        fs::write(bench.file(id), &text).unwrap();
        let reloaded = bench.again().load().unwrap();
        assert_eq!(reply.ok, !reloaded.is_bad(), "{reply:?} {reloaded:?}");
        fs::remove_file(bench.file(id)).unwrap();
        // What the other daemon kept is not this test's.
        bench.core.state.keep(&core::lock(&bench.core.book).kept).unwrap();
    }
}
