//! DNS answers and TLS ClientHellos off the wire: total on any bytes, and what they give are names of hosts.
#![no_main]

use agent_monitor::decode::{dns, hello};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let answered = dns::answer(bytes).ok().flatten().map(|answer| answer.name);
    let names = [answered, dns::asked(bytes), hello::server_name(bytes)];
    for name in names.into_iter().flatten() {
        assert_eq!(hello::plain(name.as_bytes()).as_deref(), Some(name.as_str()));
    }
});
