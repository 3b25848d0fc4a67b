//! Against the vectors of the certificate-transparency reference implementation, and against a naive tree.

use proptest::prelude::*;

use super::*;

fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 6962 §2.1, word for word.
fn naive(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty(),
        [one] => *one,
        more => {
            let mut half = 1;
            while half * 2 < more.len() {
                half *= 2;
            }
            node(&naive(&more[..half]), &naive(&more[half..]))
        }
    }
}

/// Inputs and roots of `merkletree/merkle_tree_test` in google/certificate-transparency.
#[test]
fn known_vectors() {
    let inputs: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    assert_eq!(hex(&empty()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    let mut frontier = Frontier::default();
    for (input, root) in inputs.iter().zip(roots) {
        frontier.push(leaf(input));
        assert_eq!(hex(&frontier.root()), root);
    }
}

fn tree(size: u64) -> (Vec<Hash>, Nodes) {
    let leaves: Vec<Hash> = (0..size).map(|i| leaf(&i.to_le_bytes())).collect();
    let mut nodes = Nodes::default();
    for (index, hash) in (0..).zip(&leaves) {
        nodes.insert(At { level: 0, index }, *hash);
    }
    (leaves, nodes)
}

proptest! {
    #[test]
    fn a_proof_gives_the_root_and_no_other_leaf_does(size in 1u64..200, picks in proptest::collection::btree_set(0u64..200, 0..20)) {
        let (leaves, nodes) = tree(size);
        let wanted: Vec<u64> = picks.into_iter().filter(|leaf| *leaf < size).collect();
        let proof = prove(&nodes, size, &wanted).unwrap();
        let mut shown: Vec<(u64, Hash)> = wanted.iter().map(|i| (*i, leaves[*i as usize])).collect();
        prop_assert_eq!(root_of(size, &shown, &proof), Some(naive(&leaves)));
        if let Some(last) = shown.last_mut() {
            last.1[3] ^= 1;
            prop_assert_ne!(root_of(size, &shown, &proof), Some(naive(&leaves)));
        }
    }

    #[test]
    fn edges_and_runs_agree_with_the_naive_tree(size in 0u64..300, cut in 0u64..300) {
        let (leaves, _) = tree(size);
        let mut frontier = Frontier::default();
        let cut = cut.min(size);
        let mut nodes = Nodes::default();
        let mut run = Run::from(cut);
        for (at, hash) in (0..).zip(&leaves) {
            if at == cut {
                frontier.nodes().for_each(|(at, hash)| nodes.insert(at, hash));
                prop_assert_eq!(Frontier::restore(cut, frontier.peaks().to_vec()), Some(frontier.clone()));
            }
            frontier.push(*hash);
            if at >= cut {
                run.push(*hash);
            }
        }
        prop_assert_eq!(frontier.root(), naive(&leaves));
        if cut == size {
            frontier.nodes().for_each(|(at, hash)| nodes.insert(at, hash));
        }
        run.peaks().iter().for_each(|(at, hash)| nodes.insert(*at, *hash));
        if size > 0 {
            // Without a single leaf: the edge before the cut and the run after it are enough.
            prop_assert_eq!(prove(&nodes, size, &[]).map(|proof| root_of(size, &[], &proof)), Some(Some(naive(&leaves))));
        }
    }

    #[test]
    fn proofs_from_elsewhere_are_taken_without_panic(size in 0u64..1 << 40, leaves in proptest::collection::vec((any::<u64>(), any::<Hash>()), 0..6), proof in proptest::collection::vec(any::<Hash>(), 0..70)) {
        prop_assert!(root_of(size, &leaves, &proof).is_none_or(|root| root.len() == 32));
    }
}
