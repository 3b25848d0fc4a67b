//! Lane `unit`: everything that needs neither root nor a kernel of its own.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde::Deserialize;

use crate::build::{self, Profile};
use crate::shell::{self, End, Limits};
use crate::tally::{self, Tally};
use crate::timing::Timer;
use crate::workspace;

/// The test target of the lanes `host` and `vm`.
const KERNEL_TESTS: &str = "kernel";

/// A property test may think for a while, but not for ever.
const LIMITS: Limits = Limits { silence: Duration::from_secs(600), total: Duration::from_secs(20 * 60) };

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
    /// Whether it runs without being asked for by name.
    test: bool,
}

/// Runs the tests of all packages, then the examples in their documentation; or those of one module of the library alone.
pub(super) fn run(filter: Option<&str>, part: Option<&str>) -> Result<Tally> {
    if let Some(part) = part {
        return one_part(part);
    }
    // Tests of the command line start the program itself.
    let daemon = build::daemon(Profile::Test)?;
    let cargo = |what: &[&str]| -> Result<Command> {
        let mut cargo = build::host_cargo()?;
        cargo.env("AGENT_MONITOR_BIN", &daemon).args(["test", "--workspace", "--no-fail-fast"]).args(what);
        Ok(cargo)
    };
    // The library is compiled anew for its own tests, and without optimisation that takes half the time.
    let library = cargo(&["--lib"])?;
    let mut rest = cargo(&["--bins"])?;
    rest.args(build::TESTED);
    for name in test_targets()? {
        rest.args(["--test", &name]);
    }
    let mut docs = cargo(&["--doc"])?;
    docs.args(build::TESTED);
    let mut tally = Tally::default();
    for (name, mut command) in [("library", library), ("programs", rest), ("documentation", docs)] {
        command.args(["--", "--format=pretty", "--color=never"]).args(filter);
        tally.add("", cargo_test(name, &mut command)?);
    }
    Ok(tally)
}

/// The inner loop: one compilation of the library, and only what is in the module.
fn one_part(part: &str) -> Result<Tally> {
    let mut tests = build::host_cargo()?;
    tests.args(["test", "-p", "agent-monitor", "--lib", "--", "--format=pretty", "--color=never"]);
    tests.arg(format!("{part}::"));
    cargo_test(part, &mut tests)
}

/// Runs something that prints libtest's lines, shows them, and counts.
pub(super) fn cargo_test(what: &str, command: &mut Command) -> Result<Tally> {
    let child = shell::piped(command)?;
    let (mut text, mut timer) = (String::new(), Timer::new(child.id()));
    let end = shell::watch(child, LIMITS, |line| {
        println!("{line}");
        timer.line(line);
        text.push_str(line);
        text.push('\n');
    })?;
    let mut tally = judge(what, end, &text);
    tally.cases = timer.cases;
    Ok(tally)
}

fn judge(what: &str, end: End, text: &str) -> Tally {
    let good = end == End::Exited { success: true };
    let Some(mut tally) = tally::parse(text) else {
        return Tally::fail(format!("{what}: ended without a test result ({end:?})"));
    };
    // A crash or a failed build beside binaries that did report.
    if !good && tally.failed == 0 {
        tally.add("", Tally::fail(format!("{what}: {end:?}")));
    }
    tally
}

fn test_targets() -> Result<Vec<String>> {
    let text = shell::output(workspace::cargo()?.args(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Metadata = serde_json::from_str(&text)?;
    let targets = metadata.packages.into_iter().flat_map(|package| package.targets);
    let tests = targets.filter(|target| target.test && target.kind.iter().any(|kind| kind == "test"));
    Ok(tests.map(|target| target.name).filter(|name| name != KERNEL_TESTS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";

    #[test]
    fn a_binary_that_dies_beside_good_ones_is_a_failure() {
        assert_eq!(judge("tests", End::Exited { success: true }, RESULT).failed, 0);
        assert_eq!(judge("tests", End::Exited { success: false }, RESULT).failed, 1);
        assert_eq!(judge("tests", End::Silent, RESULT).failed, 1);
    }

    #[test]
    fn no_result_at_all_is_a_failure() {
        assert_eq!(judge("tests", End::Exited { success: true }, "").failed, 1);
    }
}
