//! Signature packs: total on any text, and whatever was read can be built into a pack.
#![no_main]

use std::path::Path;

use agent_monitor::sweep::pack::{Pack, check};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (file, _problems) = check(text, Path::new("fuzz.toml"));
    let _pack = Pack::build(&[file]);
});
