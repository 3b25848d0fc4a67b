//! One forged input for each refusal of the proofs.

use super::*;

fn tree(size: u64) -> (Vec<Hash>, Nodes) {
    let leaves: Vec<Hash> = (0..size).map(|at| leaf(&at.to_le_bytes())).collect();
    let mut nodes = Nodes::default();
    for (index, hash) in (0..).zip(&leaves) {
        nodes.insert(At { level: 0, index }, *hash);
    }
    (leaves, nodes)
}

fn shown(leaves: &[Hash], wanted: &[u64]) -> Vec<(u64, Hash)> {
    wanted.iter().map(|at| (*at, leaves[usize::try_from(*at).unwrap()])).collect()
}

#[test]
fn a_proof_has_exactly_the_hashes_that_are_needed() {
    let (leaves, nodes) = tree(7);
    let mut frontier = Frontier::default();
    leaves.iter().for_each(|hash| frontier.push(*hash));
    let (wanted, root) = ([2, 5], frontier.root());
    let proof = prove(&nodes, 7, &wanted).unwrap();
    // The subtrees without them: 0-1, 3, 4 and 6.
    assert_eq!(proof, [node(&leaves[0], &leaves[1]), leaves[3], leaves[4], leaves[6]]);
    let leaves = shown(&leaves, &wanted);
    assert_eq!(root_of(7, &leaves, &proof), Some(root));
    let longer = [proof.clone(), vec![[0; 32]]].concat();
    assert_eq!(root_of(7, &leaves, &longer), None, "one hash too many");
    assert_eq!(root_of(7, &leaves, &proof[..3]), None, "one hash too few");
    assert_eq!(root_of(7, &leaves[..1], &proof), None, "a leaf is missing");
    let swapped = [leaves[1], leaves[0]];
    assert_eq!(root_of(7, &swapped, &proof), None, "not ascending");
    assert_eq!(root_of(7, &[leaves[0], leaves[0]], &proof), None, "twice the same");
    // Of a tree of 8 the last hash would be that of leaves 6 and 7: size and root belong together, and a checkpoint signs both.
    assert_ne!(root_of(9, &leaves, &proof), Some(root), "another size");
    assert_ne!(root_of(6, &leaves, &proof), Some(root), "another size");
    for at in 0..proof.len() {
        let mut forged = proof.clone();
        forged[at][0] ^= 1;
        assert_ne!(root_of(7, &leaves, &forged), Some(root), "hash {at}");
    }
}

#[test]
fn leaves_beyond_the_tree_are_in_none() {
    let (leaves, nodes) = tree(4);
    let root = root_of(4, &[], &prove(&nodes, 4, &[]).unwrap()).unwrap();
    let all: Vec<(u64, Hash)> = shown(&leaves, &[0, 1, 2, 3]);
    assert_eq!(root_of(4, &all, &[]), Some(root));
    assert_eq!(prove(&nodes, 4, &[0, 1, 2, 3]), Some(Vec::new()));
    let mut beyond = all.clone();
    beyond[3].0 = 4;
    assert_eq!(root_of(4, &beyond, &[]), None);
    assert_eq!(root_of(1, &[(1, leaves[1])], &[]), None);
    assert_eq!(root_of(1, &[(0, leaves[0])], &[]), Some(leaves[0]));
    // The empty tree has one root, and neither leaves nor proofs.
    assert_eq!(root_of(0, &[], &[]), Some(empty()));
    assert_eq!(root_of(0, &[], &[[1; 32]]), None);
    assert_eq!(root_of(0, &[(0, leaves[0])], &[]), None);
    assert_eq!(prove(&nodes, 0, &[]), Some(Vec::new()));
}

#[test]
fn what_is_not_known_is_not_proved() {
    let (_, nodes) = tree(4);
    assert_eq!(prove(&nodes, 5, &[0]), None);
    assert_eq!(nodes.get(At { level: 0, index: 4 }), None);
    assert_eq!(nodes.get(At { level: 3, index: 0 }), None);
    let (left, right) =
        (nodes.get(At { level: 1, index: 0 }).unwrap(), nodes.get(At { level: 1, index: 1 }).unwrap());
    assert_eq!(nodes.get(At { level: 2, index: 0 }), Some(node(&left, &right)));
    assert_ne!(left, right);
}

#[test]
fn an_edge_has_as_many_peaks_as_its_size_says() {
    let (leaves, _) = tree(6);
    let mut frontier = Frontier::default();
    leaves.iter().for_each(|hash| frontier.push(*hash));
    let peaks = frontier.peaks().to_vec();
    assert_eq!((frontier.size(), peaks.len()), (6, 2));
    assert_eq!(Frontier::restore(6, peaks.clone()), Some(frontier.clone()));
    for (size, count) in [(6, 1), (6, 0), (7, 2), (4, 2), (0, 1)] {
        let some: Vec<Hash> = peaks.iter().copied().take(count).collect();
        assert_eq!(Frontier::restore(size, some), None, "{size} with {count}");
    }
    assert_eq!(Frontier::restore(0, Vec::new()).unwrap().root(), empty());
    let nodes: Vec<At> = frontier.nodes().map(|(at, _)| at).collect();
    assert_eq!(nodes, [At { level: 2, index: 0 }, At { level: 1, index: 2 }]);
}

#[test]
fn a_run_joins_only_what_stands_side_by_side() {
    let (leaves, _) = tree(8);
    let mut run = Run::from(1);
    leaves.iter().skip(1).for_each(|hash| run.push(*hash));
    let at = |level, index| At { level, index };
    assert_eq!(run.peaks().iter().map(|(at, _)| *at).collect::<Vec<_>>(), [at(0, 1), at(1, 1), at(2, 1)]);
    assert_eq!(run.peaks()[1].1, node(&leaves[2], &leaves[3]));
    let mut run = Run::from(0);
    leaves.iter().take(3).for_each(|hash| run.push(*hash));
    assert_eq!(run.peaks().iter().map(|(at, _)| *at).collect::<Vec<_>>(), [at(1, 0), at(0, 2)]);
}
