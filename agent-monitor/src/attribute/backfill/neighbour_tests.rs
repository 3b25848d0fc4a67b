//! Two agents, two trees, two threads: what the plan does beside the process that a rule fits.

use super::*;

fn tag(agent: u32, by: BoundBy) -> TaskTag {
    TaskTag { agent, bound_by: by as u8, root_by: by as u8, ..TaskTag::NONE }
}

fn task(tgid: u32, start: u64, ppid: u32, tag: TaskTag) -> TaskInfo {
    TaskInfo { tgid, start, ppid, tag, mixed: false, held: false }
}

fn root(agent: u32) -> Root {
    Root { agent, bound_by: BoundBy::Backfill, root_by: BoundBy::Argv, nests: true }
}

fn plan(tasks: &[TaskInfo], roots: &[(u32, u64, Root)]) -> BTreeMap<u32, TaskTag> {
    let roots =
        roots.iter().map(|(tgid, start, root)| (TaskKey { tgid: *tgid, start: *start }, *root)).collect();
    let plan = bind(tasks, &roots, 99);
    assert!(plan.values().all(|entry| entry.replace == 1 && entry.tagged == 0));
    plan.into_iter().map(|(tgid, entry)| (tgid, entry.tag)).collect()
}

fn agents(plan: &BTreeMap<u32, TaskTag>) -> Vec<(u32, u32)> {
    plan.iter().map(|(tgid, tag)| (*tgid, tag.agent)).collect()
}

#[test]
fn who_got_the_pid_of_the_parent_later_is_not_the_parent() {
    // 2 got its pid when 3, the child of its predecessor, ran already; 4 was started by it in truth.
    let tasks = [
        task(2, 50, 1, TaskTag::NONE),
        task(3, 40, 2, TaskTag::NONE),
        task(4, 50, 2, TaskTag::NONE),
        task(5, 60, 3, TaskTag::NONE),
    ];
    assert_eq!(agents(&plan(&tasks, &[(2, 50, root(7))])), [(2, 7), (4, 7)]);
    // Whichever way round they stand in the table.
    let tasks = tasks.map(|task| TaskInfo { tgid: 9 - task.tgid, ppid: 9 - task.ppid, ..task });
    assert_eq!(agents(&plan(&tasks, &[(7, 50, root(7))])), [(5, 7), (7, 7)]);
    // Nor does a rule for the process that had the pid before fit this one.
    assert!(plan(&tasks, &[(7, 49, root(7))]).is_empty());
}

#[test]
fn parents_that_go_in_circles_end() {
    let tasks = [task(1, 5, 2, TaskTag::NONE), task(2, 5, 1, TaskTag::NONE), task(3, 5, 3, TaskTag::NONE)];
    assert_eq!(agents(&plan(&tasks, &[(3, 5, root(7))])), [(3, 7)]);
    assert!(plan(&tasks, &[]).is_empty());
}

#[test]
fn children_of_an_agent_take_its_binding_and_keep_their_own_ids() {
    let ids = TaskTag { uid: 1, euid: 2, gid: 3, egid: 4, ..TaskTag::NONE };
    let of = TaskTag {
        session: 5,
        since: 6,
        delegator: 8,
        flags: 1,
        uid: 9,
        euid: 9,
        gid: 9,
        egid: 9,
        ..tag(7, BoundBy::Exe)
    };
    let tasks = [task(2, 2, 1, of), task(3, 3, 2, ids)];
    let planned = plan(&tasks, &[]);
    let inherited =
        TaskTag { bound_by: BoundBy::Inherited as u8, flags: 0, uid: 1, euid: 2, gid: 3, egid: 4, ..of };
    assert_eq!(planned.into_iter().collect::<Vec<_>>(), [(3, inherited)]);
    let planned = plan(&[task(3, 3, 2, ids)], &[(3, 3, root(7))]);
    let own = TaskTag {
        agent: 7,
        since: 99,
        bound_by: BoundBy::Backfill as u8,
        root_by: BoundBy::Argv as u8,
        ..ids
    };
    assert_eq!(planned[&3], own);
}

#[test]
fn a_binding_of_its_own_stays_and_an_inherited_one_follows_the_parent() {
    let of = |agent, by| tag(agent, by);
    let tasks = [
        task(2, 2, 1, of(7, BoundBy::Exe)),
        task(3, 3, 2, of(8, BoundBy::Exe)),
        task(4, 4, 2, of(8, BoundBy::Inherited)),
        task(5, 5, 2, of(7, BoundBy::Inherited)),
        // Its parent is nobody's: what it inherited before is all that is known.
        task(6, 6, 1, of(8, BoundBy::Inherited)),
    ];
    assert_eq!(agents(&plan(&tasks, &[])), [(4, 7)]);
}

#[test]
fn another_delegator_or_session_above_is_another_binding() {
    let above = TaskTag { delegator: 9, session: 4, ..tag(7, BoundBy::Exe) };
    let below = |delegator, session| TaskTag { delegator, session, ..tag(7, BoundBy::Inherited) };
    let tasks = [
        task(2, 2, 1, above),
        task(3, 3, 2, below(9, 4)),
        task(4, 4, 2, below(0, 4)),
        task(5, 5, 2, below(9, 3)),
    ];
    let planned = plan(&tasks, &[]);
    assert_eq!(planned.keys().copied().collect::<Vec<_>>(), [4, 5]);
    assert_eq!((planned[&4].delegator, planned[&5].session), (9, 4));
}

#[test]
fn a_rule_that_fits_again_does_not_end_the_session() {
    let mixed = TaskTag { session: 4, ..tag(7, BoundBy::Launch) };
    let mut tasks = [task(2, 2, 1, mixed), task(3, 3, 1, TaskTag { session: 5, ..tag(8, BoundBy::Exe) })];
    assert!(plan(&tasks, &[(2, 2, root(7))]).is_empty());
    // Threads that differ are mended, in the session that it has.
    tasks[0].mixed = true;
    let planned = plan(&tasks, &[(2, 2, root(7))]);
    assert_eq!(planned.into_iter().collect::<Vec<_>>(), [(2, mixed)]);
    // In a tree of a session, a process that lost it is put back into it.
    let above = TaskTag { session: 4, ..tag(7, BoundBy::Exe) };
    let tasks = [task(2, 2, 1, above), task(3, 3, 2, TaskTag { session: 0, ..tag(7, BoundBy::Inherited) })];
    assert_eq!(plan(&tasks, &[])[&3].session, 4);
    // Another agent begins outside of it.
    let tasks = [task(2, 2, 1, above)];
    let nested = plan(&tasks, &[(2, 2, root(8))])[&2];
    assert_eq!((nested.agent, nested.delegator, nested.session), (8, 7, 0));
    // Bound by inheritance without a known parent, and named again by a rule for the same agent: it stays.
    let orphan = TaskTag { session: 4, ..tag(7, BoundBy::Inherited) };
    assert!(plan(&[task(2, 2, 1, orphan)], &[(2, 2, root(7))]).is_empty());
}

#[test]
fn a_weak_rule_makes_no_nested_agent_and_a_program_without_record_hands_nothing_on() {
    let weak = Root { nests: false, ..root(8) };
    let tasks = [task(2, 2, 1, tag(7, BoundBy::Exe)), task(3, 3, 1, TaskTag::NONE)];
    assert_eq!(agents(&plan(&tasks, &[(2, 2, weak), (3, 3, weak)])), [(3, 8)]);
    for (before, delegator) in [(REFUSED - 1, REFUSED - 1), (REFUSED, 0), (REFUSED + 1, 0)] {
        let tasks = [task(2, 2, 1, tag(before, BoundBy::Exe))];
        assert_eq!(plan(&tasks, &[(2, 2, root(8))])[&2].delegator, delegator);
    }
    // Launched as one agent: it keeps that name. What it started does not.
    let tasks = [task(2, 2, 1, tag(7, BoundBy::Launch)), task(3, 3, 2, tag(7, BoundBy::Inherited))];
    assert_eq!(agents(&plan(&tasks, &[(2, 2, root(8)), (3, 3, root(8))])), [(3, 8)]);
}

#[test]
fn only_bound_processes_of_agents_that_are_gone_are_freed() {
    let tasks = [
        task(2, 20, 1, tag(7, BoundBy::Exe)),
        task(3, 30, 1, tag(8, BoundBy::Exe)),
        task(4, 40, 1, TaskTag::NONE),
    ];
    let planned = free(&tasks, |agent| agent == 8);
    let entry = BackfillEntry { start: 20, tag: TaskTag::NONE, replace: 1, tagged: 0 };
    assert_eq!(planned.into_iter().collect::<Vec<_>>(), [(2, entry)]);
}

#[test]
fn threads_are_one_process_that_is_held_mixed_and_bound_by_its_leader() {
    let line = |tgid, tid, agent, held| {
        let tag = if agent == 0 {
            TaskTag::NONE
        } else {
            TaskTag { since: u64::from(tid), ..tag(agent, BoundBy::Exe) }
        };
        TaskLine { start: 10, parent_start: 1, held, tag, tgid, tid, parent_tgid: 1, uid: 0 }
    };
    let of = |lines: &[TaskLine]| {
        let tasks = TaskInfo::of_threads(lines);
        tasks.iter().map(|task| (task.tgid, task.tag.agent, task.mixed, task.held)).collect::<Vec<_>>()
    };
    // Two processes: what a thread of one says is not said of the other.
    assert_eq!(
        of(&[line(2, 2, 7, 0), line(2, 3, 7, 0), line(4, 4, 8, 0), line(4, 5, 8, 6)]),
        [(2, 7, false, false), (4, 8, false, true)]
    );
    assert_eq!(of(&[line(2, 2, 7, 5), line(2, 3, 7, 0)]), [(2, 7, false, true)]);
    assert_eq!(of(&[line(2, 2, 7, 0), line(2, 3, 0, 0)]), [(2, 7, true, false)], "a thread without");
    assert_eq!(of(&[line(2, 3, 0, 0), line(2, 2, 7, 0)]), [(2, 7, true, false)]);
    assert_eq!(
        of(&[line(2, 2, 0, 0), line(2, 3, 7, 0), line(2, 4, 8, 0)]),
        [(2, 7, true, false)],
        "leader without"
    );
    assert_eq!(of(&[line(2, 3, 8, 0), line(2, 2, 7, 0)]), [(2, 7, true, false)], "the leader says it");
    assert_eq!(of(&[line(2, 2, 7, 0), line(2, 3, 8, 0)]), [(2, 7, true, false)]);
    assert_eq!(of(&[line(2, 2, 0, 0), line(2, 3, 0, 0)]), [(2, 0, false, false)]);
    let task = TaskInfo::of_threads(&[line(2, 3, 7, 0)])[0];
    assert_eq!((task.key(), task.ppid, task.tag.since), (TaskKey { tgid: 2, start: 10 }, 1, 3));
}
