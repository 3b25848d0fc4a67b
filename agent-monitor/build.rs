//! Finds the eBPF object that `cargo xtask build` made and hands its path to the library.
//!
//! Without one (plain `cargo check`, an editor) the library still builds: the daemon then says that it carries no
//! programs and how to get them.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=AGENT_MONITOR_BPF_OBJECT");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("agent-monitor.bpf.o");
    let object = env::var_os("AGENT_MONITOR_BPF_OBJECT").map(PathBuf::from);
    let bytes = object
        .as_ref()
        .map(|path| {
            println!("cargo:rerun-if-changed={}", path.display());
            fs::read(path).unwrap_or_else(|e| {
                println!("cargo:warning=cannot read the eBPF object {}: {e}", path.display());
                Vec::new()
            })
        })
        .unwrap_or_default();
    if let Err(e) = fs::write(&out, bytes) {
        println!("cargo:error=cannot write {}: {e}", out.display());
    }
}
