//! The keyed hash of a path inside a superblock, and the order in which the walk tells components.
//!
//! The kernel walks from the leaf to the root and remembers one hash per component, then folds from the root down, so
//! that every prefix has a hash. The daemon computes the same for the paths of rules. The keys are secret: an agent
//! chooses file names, and must not be able to choose one that collides with a rule.

/// Components that the walk goes up at the most; a deeper path is flagged as truncated.
pub const DEPTH_MAX: usize = 64;
/// Longest name of one component in bytes (`NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// The two secret words of the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKey {
    /// Start value.
    pub k0: u64,
    /// Odd multiplier.
    pub k1: u64,
}

/// Mixes one word in. A multiplication by a secret odd number spreads upward, the shift brings it down again.
#[inline(always)]
pub const fn mix(key: HashKey, h: u64, word: u64) -> u64 {
    let x = (h ^ word).wrapping_mul(key.k1);
    x ^ (x >> 29)
}

/// Start of a component's hash: its length is part of it.
#[inline(always)]
pub const fn component_start(key: HashKey, len: usize) -> u64 {
    mix(key, key.k0, len as u64)
}

/// Hash of one component. Names longer than [`NAME_MAX`] do not exist in a path.
pub fn component_hash(key: HashKey, name: &[u8]) -> u64 {
    let mut h = component_start(key, name.len());
    for chunk in name.chunks(8) {
        let mut word = [0u8; 8];
        for (to, from) in word.iter_mut().zip(chunk) {
            *to = *from;
        }
        h = mix(key, h, u64::from_le_bytes(word));
    }
    h
}

/// Hash of the root of a superblock: where folding starts.
#[inline(always)]
pub const fn root_hash(key: HashKey) -> u64 {
    mix(key, key.k0, 0x2f)
}

/// Hash of a path given as components from the root down. Empty and `.` components must not be among them.
pub fn path_hash<'a>(key: HashKey, components: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    components.into_iter().fold(root_hash(key), |h, name| mix(key, h, component_hash(key, name)))
}

/// Hash of an absolute path text by its components; the daemon's form of [`path_hash`].
pub fn text_path_hash(key: HashKey, path: &[u8]) -> u64 {
    path_hash(key, path.split(|b| *b == b'/').filter(|c| !c.is_empty()))
}

/// Hash of a flat text (cgroup names, exec file names): like one component, of up to [`TEXT_MAX`] bytes.
pub fn text_hash(key: HashKey, text: &[u8]) -> u64 {
    component_hash(key, text.get(..TEXT_MAX).unwrap_or(text))
}

/// Bytes of a flat text that are hashed at the most.
pub const TEXT_MAX: usize = 248;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: HashKey = HashKey { k0: 0x1234_5678_9abc_def1, k1: 0x9e37_79b9_7f4a_7c15 };

    #[test]
    fn prefixes_differ_from_whole() {
        let a = text_path_hash(KEY, b"/srv/data");
        let b = text_path_hash(KEY, b"/srv");
        let c = text_path_hash(KEY, b"/srv/dat");
        assert!(a != b && a != c && b != c);
        assert_eq!(a, text_path_hash(KEY, b"//srv//data/"));
    }

    #[test]
    fn nul_padding_is_not_a_collision() {
        assert_ne!(component_hash(KEY, b"a"), component_hash(KEY, b"a\0"));
        assert_ne!(component_hash(KEY, b""), component_hash(KEY, b"\0\0\0\0\0\0\0\0"));
    }

    proptest! {
        #[test]
        fn fold_is_associative_with_prefixes(parts in proptest::collection::vec("[a-z]{1,20}", 1..20)) {
            let whole = path_hash(KEY, parts.iter().map(|p| p.as_bytes()));
            let (last, head) = parts.split_last().unwrap();
            let prefix = path_hash(KEY, head.iter().map(|p| p.as_bytes()));
            prop_assert_eq!(whole, mix(KEY, prefix, component_hash(KEY, last.as_bytes())));
        }

        #[test]
        fn different_names_differ(a in "[ -~]{1,64}", b in "[ -~]{1,64}") {
            prop_assume!(a != b);
            prop_assert_ne!(component_hash(KEY, a.as_bytes()), component_hash(KEY, b.as_bytes()));
        }
    }
}
