//! Tests of the process tree.

use agent_monitor_ebpf::task::BoundBy;
use proptest::prelude::*;

use super::*;

fn key(tgid: u32, start: u64) -> TaskKey {
    TaskKey { tgid, start }
}

fn agent(index: u32) -> Binding {
    Binding { agent: index, delegator: 0, by: BoundBy::Exe, session: 0, delay_ms: Some(3), known_from: 0 }
}

fn running(tree: &mut Tree, key: TaskKey, exe: &str, binding: Option<Binding>) {
    let image = Arc::new(Image { exe: Some(exe.to_owned()), ..Image::default() });
    tree.insert(Proc { image, binding, ..Proc::new(key) });
}

#[test]
fn a_child_takes_over_what_its_parent_is() {
    let mut tree = Tree::default();
    running(&mut tree, key(1, 1), "/bin/a", Some(agent(7)));
    tree.fork(key(1, 1), key(2, 5));
    tree.fork(key(2, 5), key(3, 6));
    let child = tree.get(key(3, 6)).unwrap();
    assert_eq!(child.image.exe.as_deref(), Some("/bin/a"));
    assert_eq!(child.binding, Some(Binding { by: BoundBy::Inherited, delay_ms: None, ..agent(7) }));
    assert_eq!(child.ancestry.iter().map(|a| a.key.tgid).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn a_reused_pid_is_another_process() {
    let mut tree = Tree::default();
    running(&mut tree, key(5, 1), "/bin/agent", Some(agent(7)));
    tree.end(key(5, 1), 10);
    running(&mut tree, key(5, 20), "/bin/other", None);
    assert_eq!(tree.latest(5).unwrap().binding, None);
    assert_eq!(tree.get(key(5, 1)).unwrap().binding, Some(agent(7)), "late events still find it");
    tree.end(key(9, 9), 60_000_000_000);
    assert!(tree.get(key(5, 1)).is_none(), "and then it is gone");
    assert_eq!(tree.latest(5).unwrap().key, key(5, 20));
}

#[test]
fn bound_processes_do_not_make_room() {
    let mut tree = Tree::new(Limits { unbound: 3, ..Limits::default() });
    running(&mut tree, key(1, 1), "/bin/agent", Some(agent(7)));
    for pid in 2..20 {
        running(&mut tree, key(pid, 1), "/bin/x", None);
        tree.touch(key(2, 1));
    }
    assert!(tree.get(key(1, 1)).is_some());
    assert!(tree.get(key(2, 1)).is_some(), "it was seen all the time");
    assert_eq!((tree.len(), tree.evicted()), (4, 15));
}

#[derive(Debug, Clone)]
enum Step {
    Fork(u32, u32),
    Bind(u32, u32),
    Free(u32),
    End(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u32..6, 0u32..6).prop_map(|(a, b)| Step::Fork(a, b)),
        (0u32..6, 1u32..4).prop_map(|(a, b)| Step::Bind(a, b)),
        (0u32..6).prop_map(Step::Free),
        (0u32..6).prop_map(Step::End),
    ]
}

proptest! {
    /// Against the obvious model: a child has its parent's agent, a reused pid starts anew, nothing else changes.
    #[test]
    fn bindings_follow_forks_and_never_pids(steps in proptest::collection::vec(step(), 0..80)) {
        let mut tree = Tree::new(Limits { unbound: 4, all: 12, ended: 3, ..Limits::default() });
        let mut now = 1u64;
        let mut alive: BTreeMap<u32, (u64, u32)> = BTreeMap::from([(0, (0, 0))]);
        tree.insert(Proc::new(key(0, 0)));
        for step in steps {
            now += 1;
            match step {
                Step::Fork(parent, child) => {
                    if let Some((start, of)) = alive.get(&parent).copied() && !alive.contains_key(&child) {
                        let known = tree.get(key(parent, start)).is_some();
                        tree.fork(key(parent, start), key(child, now));
                        alive.insert(child, (now, if known { of } else { 0 }));
                    }
                }
                Step::Bind(pid, of) => {
                    if let Some((start, slot)) = alive.get_mut(&pid) && tree.get(key(pid, *start)).is_some() {
                        tree.bind(key(pid, *start), Some(agent(of)));
                        *slot = of;
                    }
                }
                Step::Free(pid) => {
                    if let Some((start, slot)) = alive.get_mut(&pid) {
                        tree.bind(key(pid, *start), None);
                        *slot = 0;
                    }
                }
                Step::End(pid) => {
                    if let Some((start, _)) = alive.remove(&pid) {
                        tree.end(key(pid, start), now);
                    }
                }
            }
            for (pid, (start, of)) in &alive {
                if let Some(proc) = tree.get(key(*pid, *start)) {
                    prop_assert_eq!(proc.binding.map_or(0, |b| b.agent), *of);
                    prop_assert!(proc.ended.is_none());
                }
            }
            prop_assert!(tree.len() <= 12 && tree.recency.len() <= 4 && tree.ended.len() <= 3);
            prop_assert!(tree.recency.iter().all(|(stamp, key)| tree.procs.get(key).is_some_and(|p| p.stamp == *stamp)));
        }
    }
}
