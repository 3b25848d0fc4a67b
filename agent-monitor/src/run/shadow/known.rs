//! The programs that the kernel meets at their exec, and the trees that people decide about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::Builder;
use std::time::{Duration, Instant};

use agent_monitor_ebpf::task::{BackfillEntry, BoundBy, SHADOW, TaskTag};

use crate::attribute::TaskKey;
use crate::attribute::backfill::{Plan, TaskInfo};
use crate::attribute::identity::{ALLOWED, REFUSED};
use crate::attribute::image::shadow::Shadows;
use crate::attribute::image::{Compiled, Resolve};
use crate::attribute::tree::Binding;
use crate::config::ShadowAct;
use crate::control::api::ShadowStatus;
use crate::engine::Output;
use crate::health::doctor::Level;
use crate::model::{Event, Source, text};
use crate::people::approvals::{Answer, Stored, Waiter};
use crate::people::hands::Act;
use crate::registry::record::UserRef;
use crate::run::core::{Core, Live, lock};
use crate::run::locks::{Rank, Ranked};
use crate::run::people::Side;
use crate::run::port::{Life, LifeState, Port, PortError};
use crate::sweep::homes::Users;
use crate::sweep::known;
use crate::sweep::root::Root;
use crate::sweep::watch::Watch;

/// Between two looks for programs.
const LOOK_EVERY: u32 = 60;
/// Longest that the start waits for the first look; a home may not answer.
const FIRST_LOOK: Duration = Duration::from_secs(3);
/// Longest that one look may take.
const LOOK_TIME: Duration = Duration::from_secs(20);
/// Most programs that are known because they ran.
const LEARNT_MAX: usize = 512;
/// Runs of the iterator for one decision: each mends what was forked during the one before.
const ROUNDS: usize = 8;

/// Known programs.
#[derive(Debug)]
pub(in crate::run) struct Known {
    /// Found where programs are put.
    found: Ranked<BTreeSet<String>>,
    /// Lie elsewhere and have run.
    learnt: Ranked<BTreeSet<String>>,
    /// There are some that the kernel has not been told of.
    fresh: AtomicBool,
    /// How many it meets.
    met: AtomicUsize,
}

impl Default for Known {
    fn default() -> Self {
        let none = || Ranked::new(Rank::Known, BTreeSet::new());
        Self { found: none(), learnt: none(), fresh: AtomicBool::default(), met: AtomicUsize::default() }
    }
}

impl Known {
    /// How many programs the kernel meets at their exec.
    pub(in crate::run) fn met(&self) -> usize {
        self.met.load(Ordering::Relaxed)
    }
}

/// Looks for programs now and then, on a thread that nobody waits for but the start, and that not for long.
pub(in crate::run) fn look_for_programs(core: &Arc<Core>) -> std::io::Result<()> {
    if !core.config.shadow.act.stops() {
        return Ok(());
    }
    let (done, first) = sync_channel(1);
    let core = Arc::clone(core);
    let work = move || {
        core.look();
        // The start may have gone on without it.
        done.try_send(()).ok();
        let mut round = 0u32;
        while !core.wait(Duration::from_secs(1)) {
            round = round.wrapping_add(1);
            if round.is_multiple_of(LOOK_EVERY) {
                core.look();
            }
            if core.known.fresh.swap(false, Ordering::Relaxed) {
                core.refresh();
            }
        }
    };
    Builder::new().name("programs".to_owned()).spawn(work)?;
    if first.recv_timeout(FIRST_LOOK).is_err() {
        tracing::warn!(
            "known programs are still being looked for; until then shadow agents are stopped late"
        );
    }
    Ok(())
}

impl Core {
    /// What becomes of agents without a record, and how much of that this host can do.
    pub(in crate::run) fn shadow_status(&self) -> ShadowStatus {
        let act = self.config.shadow.act;
        let mut limits = Vec::new();
        if act.stops() {
            let late = "programs that lie elsewhere, and what only arguments tell, are met some milliseconds after their exec";
            limits.push(late.to_owned());
        }
        if self.report.level != Level::Full && matches!(act, ShadowAct::Hold | ShadowAct::Deny) {
            let lost =
                "without BPF LSM only network acts are refused or asked about; `kill` ends them all the same";
            limits.push(lost.to_owned());
        }
        ShadowStatus { policy: act.as_str().to_owned(), programs: self.known.met() as u64, limits }
    }

    fn look(&self) {
        let Ok(root) = Root::open(Path::new("/"), "", false) else { return };
        let pack = lock(&self.shadows).pack();
        let found = known::programs(&pack, &root, &Users::read(&root), Instant::now() + LOOK_TIME);
        let watch = lock(&self.shadows);
        let found: BTreeSet<String> = found.into_iter().filter(|path| watch.meets(path)).collect();
        drop(watch);
        let mut before = lock(&self.known.found);
        if *before != found {
            *before = found;
            self.known.fresh.store(true, Ordering::Relaxed);
        }
    }

    /// Remembers the program of a process that the kernel did not meet, for the next time.
    pub(in crate::run) fn learn_programs(&self, watch: &Watch, event: &Event) {
        let Some(process) = event.process.as_deref() else { return };
        let mut learnt = lock(&self.known.learnt);
        for path in [&process.exe, &process.script].into_iter().flatten() {
            if learnt.len() < LEARNT_MAX && watch.meets(path) && learnt.insert(path.clone()) {
                self.known.fresh.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Puts the known programs into the tables by which the kernel recognises, where the policy stops them.
    pub(in crate::run) fn meet_shadows(&self, compiled: &mut Compiled, host: &mut dyn Resolve) {
        let policy = &self.config.shadow;
        if !policy.act.stops() {
            return;
        }
        let mut programs = lock(&self.known.found).clone();
        programs.extend(lock(&self.known.learnt).iter().cloned());
        let user = |name: &str| {
            let user = name.parse().map_or_else(|_| UserRef::Name(name.to_owned()), UserRef::Uid);
            host.uid(&user)
        };
        let shadows = Shadows {
            programs: programs.iter().map(|path| text::unescape(path)).collect(),
            users: policy.excepted("user").filter_map(user).collect(),
            units: policy.excepted("unit").map(str::to_owned).collect(),
        };
        let Compiled { image, matcher, .. } = compiled;
        self.known.met.store(image.add_shadows(&shadows, matcher, host), Ordering::Relaxed);
    }

    /// Tells the kernel whether known programs may run at all: an earlier daemon may have had another policy.
    pub(in crate::run) fn put_shadow_life(&self, port: &mut dyn Port) -> Result<(), PortError> {
        let state = match self.config.shadow.act {
            ShadowAct::Off | ShadowAct::Audit => return Ok(()),
            ShadowAct::Hold | ShadowAct::Deny => LifeState::Active,
            ShadowAct::Kill => LifeState::Retired,
        };
        port.put_life(&Life { agent: SHADOW, state, expires: u64::MAX })
    }

    /// Carries out what a person said of an agent without a record, over the whole tree, before the held act is judged
    /// again. Who was moved and waits inside an act.
    pub(in crate::run) fn decide_shadow(
        &self,
        found: &Stored,
        answer: Answer,
        decided: Option<&str>,
        waiting: &[Waiter],
    ) -> Vec<TaskKey> {
        let (to, whom) = match (answer, decided) {
            _ if found.index != SHADOW => return Vec::new(),
            // The others who wait are other runs.
            (Answer::Approve(_), Some("approved")) => (ALLOWED, waiting.get(..1).unwrap_or_default()),
            (Answer::Deny, Some("denied")) => (REFUSED, waiting),
            _ => return Vec::new(),
        };
        let roots: Vec<TaskKey> = whom.iter().map(|waiter| waiter.key).collect();
        self.move_shadows(&roots, to).unwrap_or_else(|error| {
            tracing::error!(%error, "a decision about an agent without a record holds for one act only");
            Vec::new()
        })
    }

    /// Lets go on what waits in a tree that was decided about.
    pub(in crate::run) fn wake_shadows(&self, side: &mut Side, moved: &[TaskKey]) {
        for key in moved {
            if let Err(error) = side.hands.act(*key, Act::Wake) {
                tracing::error!(pid = key.tgid, %error, "a process cannot be woken");
            }
        }
    }

    fn move_shadows(&self, roots: &[TaskKey], to: u32) -> Result<Vec<TaskKey>, PortError> {
        let now = self.clock.boot_nanos();
        let mut moved: BTreeMap<TaskKey, Binding> = BTreeMap::new();
        let mut tasks = lock(&self.port).backfill(&Plan::new())?;
        for _ in 0..ROUNDS {
            let tree = trees(&tasks, roots, to);
            let plan: Plan = tasks
                .iter()
                .filter(|task| tree.contains(&task.tgid) && (task.tag.agent == SHADOW || task.mixed))
                .map(|task| {
                    let tag = TaskTag { agent: to, session: 0, ..task.tag };
                    (task.tgid, BackfillEntry { start: task.start, tag, replace: 1, tagged: 0 })
                })
                .collect();
            if plan.is_empty() {
                break;
            }
            tasks = lock(&self.port).backfill(&plan)?;
            let done = tasks.iter().filter(|task| task.tag.agent == to && plan.contains_key(&task.tgid));
            moved.extend(done.map(|task| (task.key(), binding(task, now))));
        }
        let mut out = Output::default();
        let mut live = lock(&self.live);
        let Live { engine, host } = &mut *live;
        let bound: Vec<(TaskKey, Binding)> = moved.iter().map(|(key, binding)| (*key, *binding)).collect();
        engine.backfilled(&bound, Source::Daemon, self.clock.boot_nanos(), host, &mut out);
        self.append(&mut out);
        let held = tasks.iter().filter(|task| task.held && moved.contains_key(&task.key()));
        Ok(held.map(TaskInfo::key).collect())
    }
}

fn binding(task: &TaskInfo, known_from: u64) -> Binding {
    let by = BoundBy::from_u8(task.tag.bound_by).unwrap_or(BoundBy::Inherited);
    Binding { agent: task.tag.agent, delegator: 0, by, session: 0, delay_ms: None, known_from }
}

/// The processes of the trees in which `roots` are: up as long as it is the same kind of agent, and all below. Pure.
fn trees(tasks: &[TaskInfo], roots: &[TaskKey], to: u32) -> BTreeSet<u32> {
    let by_tgid: BTreeMap<u32, &TaskInfo> = tasks.iter().map(|task| (task.tgid, task)).collect();
    let same = |task: &TaskInfo| task.tag.agent == SHADOW || task.tag.agent == to;
    let mut tree = BTreeSet::new();
    for root in roots {
        let mut at = by_tgid.get(&root.tgid).filter(|task| task.start == root.start && same(task));
        // Bounded: a parent is older than its child.
        while let Some(task) = at {
            tree.insert(task.tgid);
            at = by_tgid.get(&task.ppid).filter(|parent| parent.start < task.start && same(parent));
        }
    }
    let mut grown = 0;
    while grown != tree.len() {
        grown = tree.len();
        let below = tasks.iter().filter(|task| same(task) && tree.contains(&task.ppid));
        let below: Vec<u32> = below.map(|task| task.tgid).collect();
        tree.extend(below);
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_about_one_tree() {
        let task = |tgid: u32, ppid: u32, agent: u32| {
            let tag = TaskTag { agent, ..TaskTag::NONE };
            TaskInfo { tgid, start: u64::from(tgid), ppid, tag, mixed: false, held: false }
        };
        let tasks = [
            task(1, 0, 0),
            task(2, 1, SHADOW),
            task(3, 2, SHADOW),
            task(4, 3, SHADOW),
            task(5, 1, SHADOW),
            task(6, 3, 7),
            task(7, 6, SHADOW),
        ];
        let key = |tgid: u32| TaskKey { tgid, start: u64::from(tgid) };
        let of = |root| trees(&tasks, &[root], ALLOWED).into_iter().collect::<Vec<_>>();
        assert_eq!(of(key(3)), [2, 3, 4], "neither another tree nor what belongs to an agent");
        assert_eq!(of(key(5)), [5]);
        assert_eq!(of(TaskKey { tgid: 3, start: 9 }), [0; 0], "another process with this pid");
        assert_eq!(of(key(6)), [0; 0]);
    }
}
