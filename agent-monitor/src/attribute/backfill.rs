//! The plan by which processes that run already are bound: matched ones with their whole trees. Pure.

use std::collections::BTreeMap;

use agent_monitor_ebpf::task::{BackfillEntry, BoundBy, TaskLine, TaskTag};

use super::TaskKey;
use super::identity::REFUSED;

/// A process as the kernel's task iterator tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskInfo {
    /// Thread group id.
    pub tgid: u32,
    /// `start_boottime` of the leader.
    pub start: u64,
    /// Thread group id of the parent, 0 for none.
    pub ppid: u32,
    /// Its binding; `agent` 0 for none.
    pub tag: TaskTag,
    /// Its threads do not all have the same agent.
    pub mixed: bool,
    /// A thread of it was held at an act that is not decided.
    pub held: bool,
}

impl TaskInfo {
    /// Processes from the threads that the iterator tells. A thread that was made while the iterator ran may lack the
    /// binding; such a process is marked, and the next run mends it.
    #[must_use]
    pub fn of_threads(lines: &[TaskLine]) -> Vec<Self> {
        let mut tasks: BTreeMap<u32, Self> = BTreeMap::new();
        for line in lines {
            let task = tasks.entry(line.tgid).or_insert(Self {
                tgid: line.tgid,
                start: line.start,
                ppid: line.parent_tgid,
                tag: line.tag,
                mixed: false,
                held: false,
            });
            task.held |= line.held != 0;
            task.mixed |= task.tag.agent != line.tag.agent;
            if line.tid == line.tgid && line.tag.agent != 0 || task.tag.agent == 0 {
                task.tag = line.tag;
            }
        }
        tasks.into_values().collect()
    }

    /// Who it is.
    #[must_use]
    pub fn key(&self) -> TaskKey {
        TaskKey { tgid: self.tgid, start: self.start }
    }
}

/// A process that a rule fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// Agent index.
    pub agent: u32,
    /// What is recorded as the binding of the process itself.
    pub bound_by: BoundBy,
    /// By which rule: for the whole tree.
    pub root_by: BoundBy,
    /// Whether the rule is strong enough (executable, script, arguments) to make a nested agent of a process that
    /// belongs to another one already.
    pub nests: bool,
}

/// What the back-fill iterator is to do, by tgid.
pub type Plan = BTreeMap<u32, BackfillEntry>;

/// Binds each process in `roots` and, below it, whatever is not an agent of its own. Processes that are bound as they
/// should be are left out, so a plan over its own result is empty.
#[must_use]
pub fn bind(tasks: &[TaskInfo], roots: &BTreeMap<TaskKey, Root>, now: u64) -> Plan {
    let by_tgid: BTreeMap<u32, &TaskInfo> = tasks.iter().map(|task| (task.tgid, task)).collect();
    let mut wanted: BTreeMap<u32, TaskTag> = BTreeMap::new();
    for task in tasks {
        settle(task, &by_tgid, roots, now, &mut wanted);
    }
    let mut plan = Plan::new();
    for task in tasks {
        let Some(mut tag) = wanted.get(&task.tgid).copied() else { continue };
        if tag.agent == task.tag.agent && tag.session == 0 {
            // A rule that fits again is no reason to leave the run.
            tag.session = task.tag.session;
        }
        if same(&tag, &task.tag) && !task.mixed {
            continue;
        }
        plan.insert(task.tgid, BackfillEntry { start: task.start, tag, replace: 1, tagged: 0 });
    }
    plan
}

/// Frees each process that is bound to an agent that `keeps` does not name.
#[must_use]
pub fn free(tasks: &[TaskInfo], keeps: impl Fn(u32) -> bool) -> Plan {
    let bound = tasks.iter().filter(|task| task.tag.agent != 0 && !keeps(task.tag.agent));
    bound
        .map(|task| {
            (task.tgid, BackfillEntry { start: task.start, tag: TaskTag::NONE, replace: 1, tagged: 0 })
        })
        .collect()
}

/// Same agent with the same delegator in the same session: how and when it was bound may differ.
fn same(a: &TaskTag, b: &TaskTag) -> bool {
    (a.agent, a.delegator, a.session) == (b.agent, b.delegator, b.session)
}

/// Works out the tag of `task` after those of its parents. Iterative: a tree may be as deep as there are processes.
fn settle(
    task: &TaskInfo,
    by_tgid: &BTreeMap<u32, &TaskInfo>,
    roots: &BTreeMap<TaskKey, Root>,
    now: u64,
    wanted: &mut BTreeMap<u32, TaskTag>,
) {
    let mut line = vec![task];
    while let Some(child) = line.last()
        && line.len() <= by_tgid.len()
        && let Some(parent) = by_tgid.get(&child.ppid)
        && parent.start <= child.start
        && parent.tgid != child.tgid
        && !wanted.contains_key(&parent.tgid)
    {
        line.push(parent);
    }
    while let Some(task) = line.pop() {
        let parent = by_tgid.get(&task.ppid).filter(|p| p.start <= task.start && p.tgid != task.tgid);
        let above = parent.and_then(|p| wanted.get(&p.tgid)).copied().unwrap_or(TaskTag::NONE);
        let tag = tag_of(task, roots.get(&task.key()), above, now);
        wanted.insert(task.tgid, tag);
    }
}

fn tag_of(task: &TaskInfo, root: Option<&Root>, above: TaskTag, now: u64) -> TaskTag {
    let current = task.tag;
    // A process that is bound on its own account (not by inheritance) keeps that, unless a rule says otherwise.
    let own = current.agent != 0 && current.bound_by != BoundBy::Inherited as u8;
    let current = if own || above.agent == 0 { current } else { with_ids(current, inherited(above)) };
    match root {
        Some(root) if root.agent == current.agent => current,
        Some(_) if own && task.tag.bound_by == BoundBy::Launch as u8 => current,
        Some(root) if current.agent == 0 || root.nests => with_ids(
            task.tag,
            TaskTag {
                since: now,
                agent: root.agent,
                // Who was only known as a program without a record has handed nothing on.
                delegator: if current.agent < REFUSED { current.agent } else { 0 },
                bound_by: root.bound_by as u8,
                root_by: root.root_by as u8,
                ..TaskTag::NONE
            },
        ),
        _ => current,
    }
}

/// The user and group ids stay those of the task itself; the iterator notes them.
fn with_ids(of: TaskTag, tag: TaskTag) -> TaskTag {
    TaskTag { uid: of.uid, euid: of.euid, gid: of.gid, egid: of.egid, ..tag }
}

fn inherited(above: TaskTag) -> TaskTag {
    TaskTag { bound_by: BoundBy::Inherited as u8, flags: 0, ..above }
}

#[cfg(test)]
mod neighbour_tests;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn task(tgid: u32, ppid: u32, agent: u32, by: BoundBy) -> TaskInfo {
        let tag = TaskTag { agent, bound_by: if agent == 0 { 0 } else { by as u8 }, ..TaskTag::NONE };
        TaskInfo { tgid, start: u64::from(tgid), ppid, tag, mixed: false, held: false }
    }

    fn root(agent: u32, nests: bool) -> Root {
        Root { agent, bound_by: BoundBy::Backfill, root_by: BoundBy::Exe, nests }
    }

    fn roots(list: &[(u32, Root)]) -> BTreeMap<TaskKey, Root> {
        list.iter().map(|(tgid, root)| (TaskKey { tgid: *tgid, start: u64::from(*tgid) }, *root)).collect()
    }

    fn agents(plan: &Plan) -> Vec<(u32, u32, u32)> {
        plan.iter().map(|(tgid, entry)| (*tgid, entry.tag.agent, entry.tag.delegator)).collect()
    }

    #[test]
    fn a_tree_is_bound_and_nested_agents_keep_their_own() {
        let none = BoundBy::Exe;
        let tasks = [
            task(1, 0, 0, none),
            task(2, 1, 0, none),
            task(3, 2, 0, none),
            task(4, 3, 0, none),
            task(5, 4, 0, none),
            task(6, 1, 0, none),
        ];
        let plan = bind(&tasks, &roots(&[(2, root(7, true)), (4, root(8, true))]), 99);
        assert_eq!(agents(&plan), [(2, 7, 0), (3, 7, 0), (4, 8, 7), (5, 8, 7)]);
        assert_eq!(plan[&2].tag.bound_by, BoundBy::Backfill as u8);
        assert_eq!(plan[&3].tag.bound_by, BoundBy::Inherited as u8);
        assert_eq!(plan[&5].tag.root_by, BoundBy::Exe as u8);
    }

    #[test]
    fn weak_rules_and_launched_agents() {
        let tasks = [task(2, 1, 7, BoundBy::Launch), task(3, 2, 7, BoundBy::Inherited)];
        assert!(bind(&tasks, &roots(&[(2, root(8, true)), (3, root(8, false))]), 9).is_empty());
        assert_eq!(agents(&bind(&tasks, &roots(&[(3, root(8, true))]), 9)), [(3, 8, 7)]);
    }

    #[test]
    fn what_is_gone_is_freed() {
        let tasks = [task(2, 1, 7, BoundBy::Exe), task(3, 2, 8, BoundBy::Exe), task(4, 2, 0, BoundBy::Exe)];
        let plan = free(&tasks, |agent| agent == 8);
        assert_eq!(agents(&plan), [(2, 0, 0)]);
    }

    proptest! {
        #[test]
        fn a_plan_over_its_result_is_empty(
            parents in proptest::collection::vec(0u32..12, 12),
            marks in proptest::collection::btree_map(1u32..13, 1u32..4, 0..5),
        ) {
            let mut tasks: Vec<_> = parents.iter().zip(1u32..).map(|(p, tgid)| task(tgid, *p, 0, BoundBy::Exe)).collect();
            let roots: BTreeMap<_, _> =
                marks.iter().map(|(tgid, agent)| (TaskKey { tgid: *tgid, start: u64::from(*tgid) }, root(*agent, true))).collect();
            let plan = bind(&tasks, &roots, 5);
            for task in &mut tasks {
                if let Some(entry) = plan.get(&task.tgid) {
                    task.tag = entry.tag;
                }
            }
            prop_assert_eq!(agents(&bind(&tasks, &roots, 6)), vec![]);
            for task in &tasks {
                if let Some(parent) = tasks.iter().find(|p| p.tgid == task.ppid && p.start <= task.start && p.tgid != task.tgid) {
                    prop_assert!(parent.tag.agent == 0 || task.tag.agent != 0, "no child of a bound process is unbound");
                }
            }
        }
    }
}
