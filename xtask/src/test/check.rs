//! Lane `check`: formatting, lints of host and BPF code, documentation, dependencies, house rules.

use std::process::Command;

use anyhow::Result;

use super::deny;
use crate::tally::Tally;
use crate::{build, shell, tidy, workspace};

/// Runs all of them, also after one has failed.
pub(super) fn run() -> Result<Tally> {
    let mut tally = Tally::default();
    // Lints need the object: the daemon's build script embeds it.
    let object = build::object();
    tally.add(
        "",
        object.map_or_else(|error| Tally::fail(format!("eBPF object: {error:#}")), |_| Tally::pass()),
    );

    tally.add("", one("fmt", workspace::cargo()?.args(["fmt", "--all", "--check"])));
    let mut clippy = build::host_cargo()?;
    clippy.args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    tally.add("", one("clippy (host)", &mut clippy));
    let mut clippy = build::bpf_cargo("clippy")?;
    clippy.args(["--quiet", "--bin", "agent-monitor-ebpf", "--", "-D", "warnings"]);
    tally.add("", one("clippy (BPF)", &mut clippy));

    tally.add("", doc()?);
    tally.add("", deny::run()?);

    let problems = tidy::problems()?;
    problems.iter().for_each(|problem| println!("tidy: {problem}"));
    let tidy = if problems.is_empty() {
        Tally::pass()
    } else {
        Tally::fail(format!("tidy: {} problems", problems.len()))
    };
    tally.add("", tidy);
    Ok(tally)
}

/// The public documentation: a link that leads nowhere is an error.
fn doc() -> Result<Tally> {
    let mut doc = build::host_cargo()?;
    doc.args(["doc", "--quiet", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    Ok(one("doc", &mut doc))
}

pub(super) fn one(name: &str, command: &mut Command) -> Tally {
    println!("check: {name}");
    shell::run(command).map_or_else(|error| Tally::fail(format!("{name}: {error:#}")), |()| Tally::pass())
}
