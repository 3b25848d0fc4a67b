//! Bytes of a ring record → facts: total on any input.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // An error is an answer; a panic or an over-read is not.
    let _answer = agent_monitor::decode::decode(bytes);
});
