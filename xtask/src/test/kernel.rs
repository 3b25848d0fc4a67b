//! Lanes `host` and `vm`: the kernel tests on this host's kernel, and on each kernel of the matrix.

use anyhow::Result;

use super::unit::cargo_test;
use crate::tally::{self, Tally};
use crate::{programs, setup, shell, vm};

/// On this host's own kernel, at whatever level it offers.
pub(super) fn host(filter: Option<&str>) -> Result<Tally> {
    let programs = programs::build()?;
    // Its test says that it is missing; everything else runs without.
    let browser = setup::ensure_host().map_err(|error| println!("setup: {error:#}"));
    let mut tests = shell::product(programs.tests()?);
    tests
        .args(filter)
        .env("AGENT_MONITOR_LANE", "host")
        .env("AGENT_MONITOR_BIN", &programs.daemon)
        .env("AGENT_MONITOR_ACTOR", programs.actor()?);
    if browser.is_err() {
        tests.env("AGENT_MONITOR_NO_BROWSER", "1");
    }
    cargo_test("kernel tests", &mut tests)
}

/// On each of these kernels; an empty list means the whole matrix.
pub(super) fn matrix(filter: Option<&str>, kernels: &[String]) -> Result<Tally> {
    let kernels = match vm::prepare(kernels) {
        Ok(kernels) => kernels,
        // No QEMU and no way to install it: the machine cannot run this lane.
        Err(error) => return Ok(Tally::skip("the whole lane", format!("{error:#}"))),
    };
    let mut total = Tally::default();
    for outcome in vm::run(&kernels, &vm::Args::matrix(filter))? {
        println!("{}", outcome.summary());
        let mut tally = counted(&outcome.text, outcome.problem.as_deref());
        tally.passed += outcome.earlier;
        tally.cases = outcome.cases;
        total.add(&format!("{}: ", outcome.kernel.series), tally);
    }
    Ok(total)
}

/// The counts come from the tests' closing line, the verdict from the machine: both must be good.
fn counted(text: &str, problem: Option<&str>) -> Tally {
    let Some(mut tally) = tally::parse(text) else {
        return Tally::fail(problem.unwrap_or("no test result on the console"));
    };
    if let Some(problem) = problem.filter(|_| tally.failed == 0) {
        tally.add("", Tally::fail(problem));
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";

    #[test]
    fn good_tests_on_a_sick_machine_fail() {
        assert_eq!(counted(RESULT, None).line(), "2 passed, 0 failed, 0 skipped");
        assert_eq!(counted(RESULT, Some("Kernel panic")).failures, ["Kernel panic"]);
    }

    #[test]
    fn a_good_verdict_without_tests_fails() {
        assert_eq!(counted("GUEST-VERDICT exit=0", None).failed, 1);
    }
}
