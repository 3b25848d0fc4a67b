//! Bytes as a packed bundle and as its files: unpacking stays inside its directory, reading is total.
#![no_main]

use agent_monitor::export::bundle::{archive, manifest, verify};
use agent_monitor::log::note::{self, Checkpoint, SecretKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let base = std::env::temp_dir().join(format!("fuzz-bundle-{}", std::process::id()));
    let (packed, dir) = (base.with_extension("tar.zst"), base.join("bundle"));
    std::fs::remove_dir_all(&base).ok();
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(&packed, bytes).unwrap();
    if archive::unpack(&packed, &dir).is_ok() {
        let report = verify::verify(&dir, &[SecretKey::new("fuzz", &[1; 32]).public()]);
        assert!(report.map_or(true, |report| !report.ok));
    }
    // Nothing was written beside the directory.
    assert_eq!(std::fs::read_dir(&base).unwrap().count(), 1);
    let _record = verify::record(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let keys = [SecretKey::new("fuzz", &[1; 32]).public()];
        assert!(manifest::check(text, bytes, &keys).is_err());
        assert!(note::open_rotation(text, &keys).is_err());
        let _checkpoint = Checkpoint::parse(text);
    }
});
