//! Manifests of package managers and projects: total on any bytes.
#![no_main]

use agent_monitor::sweep::manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _manifest = manifest::package_json(bytes);
    let text = String::from_utf8_lossy(bytes);
    let _dist = manifest::dist_info(&text);
    let _crates = manifest::crates_toml(&text);
    let _status = manifest::dpkg_status(&text);
    let _extension = manifest::extension_dir(&text);
    let _requirements = manifest::requirements(&text);
    let _project = manifest::pyproject(&text);
    let _imports = manifest::imports(&text);
    let _users = agent_monitor::sweep::homes::parse(&text);
});
