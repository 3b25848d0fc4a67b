//! Command lines, environments and mapped files of processes: total on any bytes; redaction holds its bounds.
#![no_main]

use std::sync::LazyLock;

use agent_monitor::sweep::pack::Pack;
use agent_monitor::sweep::proc::{Proc, arguments, environment, libraries, sockets};
use agent_monitor::sweep::{identify, redact};
use libfuzzer_sys::fuzz_target;

static PACK: LazyLock<Pack> = LazyLock::new(|| Pack::build(&[]));

fuzz_target!(|bytes: &[u8]| {
    let args = arguments(bytes);
    let exe = args.last().cloned().unwrap_or_default();
    let _hits = identify::identify(&PACK, &identify::subject(&exe, &args, "/srv"));
    assert!(redact::args(&args).len() <= 25);
    let mut proc = Proc::default();
    environment(&PACK, bytes, &mut proc);
    let text = String::from_utf8_lossy(bytes);
    libraries(&PACK, &text, &mut proc);
    let _rows = sockets::rows(&text);
});
