//! Command lines: which script an interpreter runs, and argument patterns. Total on any bytes.
#![no_main]

use agent_monitor::attribute::argv::program;
use agent_monitor::registry::argv::{ArgvPattern, glob};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let args: Vec<&[u8]> = bytes.split(|b| *b == 0).collect();
    let (exe, rest) = args.split_first().map_or((&b""[..], &[][..]), |(exe, rest)| (*exe, rest));
    let _script = program(exe, rest, b"/srv");
    let words: Vec<String> = rest.iter().take(4).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
    if let Ok(pattern) = ArgvPattern::new(words) {
        let _fits = pattern.matches(&args);
    }
    let _glob = glob(exe, bytes);
});
