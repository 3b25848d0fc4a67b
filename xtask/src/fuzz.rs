//! `fuzz`: the coverage-guided fuzzers of `tests/fuzz`, one target after another, each for a bounded time.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{shell, workspace};

/// The fuzzer's driver, pinned; it is installed beside the other tools.
const CARGO_FUZZ: &str = "cargo-fuzz@0.13.2";
/// Every target of `tests/fuzz`.
const TARGETS: &[&str] = &[
    "record",
    "registry",
    "argv",
    "path_hash",
    "log",
    "bundle",
    "config",
    "sweep_manifest",
    "sweep_mcp",
    "sweep_argv",
    "sweep_pack",
    "wire_names",
];

/// Options of `fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Targets by name, those of `tests/fuzz/fuzz_targets` [default: all]
    targets: Vec<String>,
    /// Seconds for each
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// The command.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    let tools = workspace::target()?.join("tools");
    let fuzz = tools.join("bin/cargo-fuzz");
    if !fuzz.exists() {
        println!("fuzz: installing {CARGO_FUZZ} into {}", workspace::shown(&tools));
        let mut install = workspace::cargo()?;
        shell::run(install.args(["install", "--locked", "--root"]).arg(&tools).arg(CARGO_FUZZ))?;
    }
    let wanted: Vec<&str> = if args.targets.is_empty() {
        TARGETS.to_vec()
    } else {
        args.targets.iter().map(String::as_str).collect()
    };
    for target in wanted {
        println!("fuzz: {target} for {} s", args.seconds);
        let mut run = Command::new(&fuzz);
        run.args(["fuzz", "run", "--fuzz-dir", "tests/fuzz", target, "--"])
            .arg(format!("-max_total_time={}", args.seconds))
            // Sanitizers are unstable; the pinned compiler is a stable one.
            .env("RUSTC_BOOTSTRAP", "1");
        shell::run(&mut run)?;
    }
    Ok(ExitCode::SUCCESS)
}
