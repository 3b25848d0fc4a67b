//! Counts of tests, read from what the tests print: libtest's lines, from cargo or from a serial console.

use std::collections::{BTreeMap, BTreeSet};

use crate::timing;

/// What ran, and what became of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
    /// Failed tests by name
    pub(crate) failures: Vec<String>,
    /// Skipped tests by name, with the reason
    pub(crate) skips: Vec<(String, String)>,
    /// What each took, where somebody watched
    pub(crate) cases: Vec<timing::Case>,
}

impl Tally {
    /// One thing that passed and is no libtest test.
    pub(crate) fn pass() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    /// One thing that failed and is no libtest test.
    pub(crate) fn fail(what: impl Into<String>) -> Self {
        Self { failed: 1, failures: vec![what.into()], ..Self::default() }
    }

    /// One thing that could not run.
    pub(crate) fn skip(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { skipped: 1, skips: vec![(what.into(), reason.into())], ..Self::default() }
    }

    /// Adds the counts of another run; its names get `prefix`, so that two kernels can be told apart.
    pub(crate) fn add(&mut self, prefix: &str, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures.into_iter().map(|name| format!("{prefix}{name}")));
        let skips = other.skips.into_iter().map(|(name, reason)| (format!("{prefix}{name}"), reason));
        self.skips.extend(skips);
        let cases = other.cases.into_iter();
        self.cases.extend(cases.map(|case| timing::Case { name: format!("{prefix}{}", case.name), ..case }));
    }

    /// The line that closes everything.
    pub(crate) fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Reads a whole output; `None` if no test binary in it came to its closing line.
pub(crate) fn parse(text: &str) -> Option<Tally> {
    let mut reader = Reader::default();
    text.lines().for_each(|line| reader.line(line.trim_end()));
    reader.finish()
}

#[derive(Default)]
struct Reader {
    closed: usize,
    tally: Tally,
    /// `test NAME ... ` without a result yet: a test that prints while it runs breaks its own line
    pending: Option<String>,
    ok: BTreeSet<String>,
    ignored: BTreeMap<String, String>,
    /// `SKIP NAME: REASON`
    said: BTreeMap<String, String>,
}

impl Reader {
    fn line(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.close(counts);
        } else if let Some(skip) = line.strip_prefix("SKIP ") {
            self.say(skip);
        } else if let Some((name, result)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        {
            self.pending = Some(name.trim().to_string());
            self.result(result);
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ...")) {
            self.pending = Some(name.trim().to_string());
        } else {
            self.result(line);
        }
    }

    fn result(&mut self, text: &str) {
        if let Some(skip) = text.strip_prefix("SKIP ") {
            return self.say(skip);
        }
        let (word, rest) = text.split_once([',', ' ']).unwrap_or((text, ""));
        let Some(name) = self.pending.take() else { return };
        match word {
            "ok" => _ = self.ok.insert(name),
            "FAILED" => self.tally.failures.push(name),
            "ignored" => _ = self.ignored.insert(name, rest.trim().to_string()),
            _ => self.pending = Some(name),
        }
    }

    fn say(&mut self, skip: &str) {
        let (name, reason) = skip.split_once(": ").unwrap_or((skip, "no reason given"));
        self.said.insert(name.trim().to_string(), reason.trim().to_string());
    }

    fn close(&mut self, counts: &str) {
        let count = |what: &str| {
            let before = counts.split(what).next().filter(|before| before.len() < counts.len());
            before.and_then(|text| text.split_whitespace().next_back()?.parse::<usize>().ok()).unwrap_or(0)
        };
        self.closed += 1;
        self.tally.passed += count(" passed");
        self.tally.failed += count(" failed");
        self.tally.skipped += count(" ignored");
        // Names are unique only within one test binary.
        let ignored = std::mem::take(&mut self.ignored);
        let (ok, said) = (std::mem::take(&mut self.ok), std::mem::take(&mut self.said));
        for name in said.keys() {
            if !ignored.contains_key(name) {
                self.tally.skipped += 1;
                // libtest knows no skip at run time: such a test returns early and counts as passed.
                if ok.contains(name) {
                    self.tally.passed = self.tally.passed.saturating_sub(1);
                }
            }
        }
        let unsaid = ignored.into_iter().filter(|(name, _)| !said.contains_key(name)).collect::<Vec<_>>();
        self.tally.skips.extend(said.into_iter().chain(unsaid));
        self.pending = None;
    }

    fn finish(mut self) -> Option<Tally> {
        // A test that was running when its binary died has failed, whatever the rest did.
        if let Some(name) = self.pending.take() {
            self.tally.failed += 1;
            self.tally.failures.push(format!("{name} (never ended)"));
            return Some(self.tally);
        }
        (self.closed > 0).then_some(self.tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_several_binaries_add_up() {
        let text = "test a ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out\n\
                    test b ... FAILED\ntest c ... ignored, later\n\
                    test result: FAILED. 0 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out";
        let tally = parse(text).unwrap();
        assert_eq!(tally.line(), "1 passed, 1 failed, 1 skipped");
        assert_eq!(tally.failures, ["b"]);
        assert_eq!(tally.skips, [("c".to_string(), "later".to_string())]);
    }

    #[test]
    fn a_test_that_says_skip_is_not_a_pass() {
        let text = "test a ... SKIP a: registry: no answer\nok\ntest b ... ok\nSKIP c: no BPF LSM\ntest c ... ignored\n\
                    test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        let tally = parse(text).unwrap();
        assert_eq!(tally.line(), "1 passed, 0 failed, 2 skipped");
        assert_eq!(tally.skips.len(), 2);
        assert_eq!(tally.skips[0].1, "registry: no answer");
    }

    #[test]
    fn output_in_the_middle_of_a_test_changes_nothing() {
        let text = "test a ... \n[  1.0] kernel says\nFAILED\n\
                    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(parse(text).unwrap().failures, ["a"]);
    }

    #[test]
    fn death_before_the_closing_line_is_a_failure() {
        assert_eq!(parse("running 3 tests\n"), None);
        let tally = parse("test a ... ok\ntest b ...").unwrap();
        assert_eq!((tally.failed, tally.failures.len()), (1, 1));
    }
}
