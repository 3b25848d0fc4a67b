//! Text of an agent record → record and diagnostics: total on any input, and what was read formats and reads again.
#![no_main]

use std::path::Path;

use agent_monitor::registry::{format::to_toml, parse_record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let file = Path::new("fuzz.toml");
    if let Some(record) = parse_record(text, file).record {
        let again = parse_record(&to_toml(&record), file).record;
        assert_eq!(again.as_ref(), Some(&record));
    }
});
