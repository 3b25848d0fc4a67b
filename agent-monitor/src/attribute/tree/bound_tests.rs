//! Tests of the bounds of the process tree, and of who is the latest of a pid.

use agent_monitor_ebpf::task::BoundBy;

use super::*;

fn key(tgid: u32, start: u64) -> TaskKey {
    TaskKey { tgid, start }
}

fn bound(index: u32) -> Option<Binding> {
    Some(Binding { agent: index, delegator: 0, by: BoundBy::Exe, session: 0, delay_ms: None, known_from: 0 })
}

fn put(tree: &mut Tree, key: TaskKey, binding: Option<Binding>) {
    tree.insert(Proc { binding, ..Proc::new(key) });
}

fn keys(tree: &Tree) -> Vec<(u32, u64)> {
    tree.living().map(|proc| (proc.key.tgid, proc.key.start)).collect()
}

#[test]
fn an_older_process_is_never_the_latest_of_its_pid() {
    let mut tree = Tree::default();
    assert!(tree.is_empty() && tree.latest(5).is_none());
    put(&mut tree, key(5, 20), bound(7));
    // Read late, from /proc or a record that waited.
    put(&mut tree, key(5, 10), None);
    put(&mut tree, key(6, 30), None);
    assert_eq!(tree.latest(5).map(|proc| proc.key), Some(key(5, 20)));
    assert_eq!((tree.len(), tree.is_empty()), (3, false));
    // Its end is not the end of the other.
    tree.end(key(5, 10), 40);
    assert_eq!(
        (keys(&tree), tree.latest(5).map(|proc| proc.key)),
        (vec![(5, 20), (6, 30)], Some(key(5, 20)))
    );
}

#[test]
fn ended_processes_do_not_live_and_are_kept_for_their_time() {
    let limits = Limits { ended_nanos: 100, ended: 10, ..Limits::default() };
    let mut tree = Tree::new(limits);
    put(&mut tree, key(1, 1), bound(7));
    put(&mut tree, key(2, 2), None);
    put(&mut tree, key(3, 3), None);
    tree.end(key(1, 1), 200);
    tree.end(key(2, 2), 250);
    // A second end of the same process moves nothing.
    tree.end(key(1, 1), 260);
    assert_eq!(tree.get(key(1, 1)).unwrap().ended, Some(200));
    assert_eq!((keys(&tree), tree.len()), (vec![(3, 3)], 3));
    tree.end(key(9, 9), 300);
    assert_eq!(tree.len(), 3, "it is exactly as old as it may be");
    tree.end(key(9, 9), 301);
    assert!(tree.get(key(1, 1)).is_none() && tree.get(key(2, 2)).is_some());
    assert_eq!(tree.evicted(), 0, "this was no eviction");
}

#[test]
fn only_so_many_ended_processes_are_kept_the_oldest_goes_first() {
    let mut tree = Tree::new(Limits { ended: 2, ..Limits::default() });
    for pid in 1..=3 {
        put(&mut tree, key(pid, 1), None);
    }
    tree.end(key(1, 1), 10);
    tree.end(key(2, 1), 11);
    assert_eq!(tree.len(), 3);
    tree.end(key(3, 1), 12);
    assert!(tree.get(key(1, 1)).is_none() && tree.len() == 2);
}

#[test]
fn a_process_that_is_put_in_again_lives_on_past_the_end_that_was_noted() {
    let mut tree = Tree::new(Limits { ended_nanos: 100, ..Limits::default() });
    put(&mut tree, key(1, 1), None);
    tree.end(key(1, 1), 200);
    put(&mut tree, key(1, 1), bound(7));
    tree.end(key(9, 9), 1000);
    assert_eq!(tree.get(key(1, 1)).unwrap().binding, bound(7));
    assert_eq!((keys(&tree), tree.latest(1).map(|proc| proc.key)), (vec![(1, 1)], Some(key(1, 1))));
}

#[test]
fn who_is_freed_makes_room_again_and_who_is_bound_does_not() {
    let mut tree = Tree::new(Limits { unbound: 2, ..Limits::default() });
    put(&mut tree, key(1, 1), bound(7));
    put(&mut tree, key(2, 1), None);
    put(&mut tree, key(3, 1), None);
    assert_eq!((tree.len(), tree.evicted()), (3, 0), "two unbound ones are as many as may be");
    tree.bind(key(2, 1), bound(8));
    put(&mut tree, key(4, 1), None);
    assert_eq!((tree.len(), tree.evicted()), (4, 0));
    // 1 has been seen before all others, and goes when it is nobody's.
    tree.bind(key(1, 1), None);
    assert_eq!((keys(&tree), tree.evicted()), (vec![(2, 1), (3, 1), (4, 1)], 1));
    // Ended ones are not unbound ones, whoever unbinds them.
    tree.end(key(2, 1), 50);
    tree.bind(key(2, 1), None);
    assert_eq!((tree.len(), tree.evicted()), (3, 1));
    // Bound over and over to the same agent it stays as it is.
    tree.bind(key(3, 1), None);
    put(&mut tree, key(5, 1), None);
    assert!(tree.get(key(3, 1)).is_none() && tree.get(key(5, 1)).is_some());
}

#[test]
fn where_all_are_bound_the_first_makes_room() {
    let mut tree = Tree::new(Limits { all: 2, ..Limits::default() });
    for pid in [3, 1, 2] {
        put(&mut tree, key(pid, 1), bound(7));
    }
    assert_eq!((tree.len(), tree.evicted()), (2, 1));
    let mut tree = Tree::new(Limits { all: 2, ..Limits::default() });
    put(&mut tree, key(1, 1), bound(7));
    put(&mut tree, key(2, 1), None);
    put(&mut tree, key(3, 1), bound(7));
    assert_eq!(keys(&tree), [(1, 1), (3, 1)], "one without an agent goes first");
}

#[test]
fn a_process_that_is_seen_makes_room_later() {
    let mut tree = Tree::new(Limits { unbound: 2, ..Limits::default() });
    put(&mut tree, key(1, 1), None);
    put(&mut tree, key(2, 1), None);
    assert!(tree.touch(key(1, 1)).is_some() && tree.touch(key(9, 1)).is_none());
    put(&mut tree, key(3, 1), None);
    assert_eq!(keys(&tree), [(1, 1), (3, 1)]);
    // To touch a bound one does not make it an unbound one.
    put(&mut tree, key(4, 1), bound(7));
    tree.touch(key(4, 1));
    put(&mut tree, key(5, 1), None);
    assert_eq!(keys(&tree), [(3, 1), (4, 1), (5, 1)]);
}

#[test]
fn a_child_has_all_of_its_parent_and_at_most_so_many_ancestors() {
    let mut tree = Tree::default();
    let image = Arc::new(Image { exe: Some("/bin/a".to_owned()), ..Image::default() });
    let root = Proc {
        image,
        uid: Some(1),
        gid: Some(2),
        cgroup: 3,
        cwd: Some("/w".to_owned()),
        ..Proc::new(key(1, 1))
    };
    tree.insert(root);
    for pid in 2..40 {
        tree.fork(key(pid - 1, u64::from(pid - 1)), key(pid, u64::from(pid)));
    }
    let child = tree.get(key(39, 39)).unwrap();
    assert_eq!((child.uid, child.gid, child.cgroup, child.cwd.as_deref()), (Some(1), Some(2), 3, Some("/w")));
    assert_eq!((child.parent, child.ppid, child.binding), (Some(key(38, 38)), Some(38), None));
    assert_eq!(
        (child.ancestry.len(), child.ancestry[0].key, child.ancestry[0].exe.as_deref()),
        (ANCESTRY_MAX, key(38, 38), Some("/bin/a"))
    );
    // Of a parent that is not known nothing is taken over.
    tree.fork(key(77, 1), key(78, 1));
    let orphan = tree.get(key(78, 1)).unwrap();
    assert_eq!((orphan.uid, orphan.ppid, orphan.ancestry.len()), (None, Some(77), 0));
}
