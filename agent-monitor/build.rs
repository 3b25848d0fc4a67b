//! Finds the eBPF object that `cargo xtask build` made and hands its path to the library.
//!
//! Without one (plain `cargo check`, an editor) the library still builds: the daemon then says that it carries no
//! programs and how to get them.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn main() {
    println!("cargo:rerun-if-env-changed=AGENT_MONITOR_BPF_OBJECT");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("agent-monitor.bpf.o");
    let named = env::var_os("AGENT_MONITOR_BPF_OBJECT").map(PathBuf::from);
    // Where `cargo xtask build` puts it: a plain `cargo build` after that carries the same programs.
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/agent-monitor.bpf.o");
    let object = named.clone().unwrap_or(usual);
    println!("cargo:rerun-if-changed={}", object.display());
    let bytes = fs::read(&object).unwrap_or_else(|e| {
        if named.is_some() {
            println!("cargo:warning=cannot read the eBPF object {}: {e}", object.display());
        }
        Vec::new()
    });
    if let Err(e) = fs::write(&out, bytes) {
        println!("cargo:error=cannot write {}: {e}", out.display());
    }
}
