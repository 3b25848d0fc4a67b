//! MCP configurations in JSON, TOML and YAML: total on any bytes, and no value of a variable is shown.
#![no_main]

use std::sync::LazyLock;

use agent_monitor::sweep::mcp;
use agent_monitor::sweep::pack::Pack;
use libfuzzer_sys::fuzz_target;

static PACK: LazyLock<Pack> = LazyLock::new(|| Pack::build(&[]));

fuzz_target!(|bytes: &[u8]| {
    for path in ["/a.json", "/a.toml", "/a.yaml"] {
        let _servers = mcp::servers(bytes, path, &PACK);
    }
});
