//! The path hash: the fold over prefixes is the hash of the whole, and names that differ do not collide by padding.
#![no_main]

use agent_monitor_ebpf::path::{HashKey, NAME_MAX, component_hash, mix, path_hash, root_hash, text_path_hash};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let key = HashKey { k0: 0x1234_5678_9abc_def1, k1: 0x9e37_79b9_7f4a_7c15 };
    let parts: Vec<&[u8]> = bytes.split(|b| *b == b'/').filter(|p| !p.is_empty() && p.len() <= NAME_MAX).collect();
    let whole = path_hash(key, parts.iter().copied());
    let folded = parts.iter().fold(root_hash(key), |h, p| mix(key, h, component_hash(key, p)));
    assert_eq!(whole, folded);
    assert_eq!(whole, text_path_hash(key, &parts.join(&b'/')));
    for part in &parts {
        let mut padded = part.to_vec();
        padded.push(0);
        assert_ne!(component_hash(key, part), component_hash(key, &padded));
    }
});
