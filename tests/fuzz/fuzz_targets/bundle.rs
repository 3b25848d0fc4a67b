//! Bytes as a packed bundle: reading is total, nothing of it is left behind, and nothing holds that no key signed.
#![no_main]

use agent_monitor::export::bundle::{manifest, verify};
use agent_monitor::log::note::{self, Checkpoint, SecretKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let base = std::env::temp_dir().join(format!("fuzz-bundle-{}", std::process::id()));
    let packed = base.join("b.tar.zst");
    std::fs::remove_dir_all(&base).ok();
    std::fs::create_dir_all(&base).unwrap();
    std::fs::write(&packed, bytes).unwrap();
    let report = verify::verify(&packed, &[SecretKey::new("fuzz", &[1; 32]).public()]);
    assert!(report.map_or(true, |report| !report.ok));
    assert_eq!(std::fs::read_dir(&base).unwrap().count(), 1);
    let _record = verify::record(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let keys = [SecretKey::new("fuzz", &[1; 32]).public()];
        assert!(manifest::check(text, bytes, &keys).is_err());
        assert!(note::open_rotation(text, &keys).is_err());
        let _checkpoint = Checkpoint::parse(text);
    }
});
