//! Patterns over command lines, for programs that are run by an interpreter (`python3 bot.py`).
//!
//! `argv = ["python3", "/srv/bot.py"]` fits a command line when
//!
//! 1. the first pattern fits the base name of `argv[0]` (all of `argv[0]` when the pattern
//!    contains `/`), and
//! 2. the other patterns fit later arguments *in this order*, with anything in between:
//!    `python3 -u /srv/bot.py --once` fits, `python3 x.py /srv/bot.py` does too, so put what tells
//!    the agent apart, usually the full path of the script.
//!
//! `*` stands for any characters, `?` for any one byte, everything else for itself; a pattern must
//! fit a whole argument. A process chooses its own argv: this recognises agents, it does not hold
//! them back. Total on any bytes, no I/O, linear memory.

use std::fmt;

use serde::{Serialize, Serializer};

/// Most patterns in one list.
pub const MAX_PATTERNS: usize = 32;
/// Longest pattern in bytes.
pub const MAX_PATTERN_BYTES: usize = 1024;

/// A list of patterns; see the module for what fits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArgvPattern {
    patterns: Vec<String>,
}

/// Why a list of patterns is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgvError {
    /// No pattern at all.
    #[error("argv is empty")]
    Empty,
    /// Too many or too long patterns.
    #[error("argv has more than {MAX_PATTERNS} patterns, or one over {MAX_PATTERN_BYTES} bytes")]
    TooLong,
    /// Nothing but wildcards.
    #[error("argv fits every command line")]
    FitsAll,
}

impl ArgvPattern {
    /// Takes patterns in the order of the command line.
    ///
    /// # Errors
    /// Refuses an empty list, lists and patterns over the limits, and lists of wildcards only.
    pub fn new(patterns: Vec<String>) -> Result<Self, ArgvError> {
        if patterns.is_empty() {
            return Err(ArgvError::Empty);
        }
        if patterns.len() > MAX_PATTERNS || patterns.iter().any(|p| p.len() > MAX_PATTERN_BYTES) {
            return Err(ArgvError::TooLong);
        }
        let is_wild = |pattern: &String| pattern.bytes().all(|byte| byte == b'*');
        if patterns.iter().all(is_wild) {
            return Err(ArgvError::FitsAll);
        }
        Ok(Self { patterns })
    }

    /// The patterns as written.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether a command line fits; each argument without its closing NUL.
    pub fn matches<A: AsRef<[u8]>>(&self, argv: &[A]) -> bool {
        let Some((program, rest)) = self.patterns.split_first() else {
            return false;
        };
        let Some((name, mut arguments)) = argv.split_first() else {
            return false;
        };
        let mut name = name.as_ref();
        if !program.contains('/') {
            name = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
        }
        if !glob(program.as_bytes(), name) {
            return false;
        }
        // Taking the earliest argument that fits leaves the most for the patterns that follow.
        for pattern in rest {
            let fits = |argument: &A| glob(pattern.as_bytes(), argument.as_ref());
            match arguments.iter().position(fits) {
                Some(found) => arguments = arguments.get(found + 1..).unwrap_or_default(),
                None => return false,
            }
        }
        true
    }
}

/// Whether the whole text fits the pattern. At most `pattern × text` steps, no recursion.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                p += 1;
                t += 1;
            }
            _ => match &mut retry {
                // Let the last star take one byte more.
                Some((after_star, taken)) => {
                    *taken += 1;
                    (p, t) = (*after_star, *taken);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

impl fmt::Display for ArgvPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.patterns.join(" "))
    }
}

impl Serialize for ArgvPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.patterns.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fits(patterns: &[&str], argv: &[&str]) -> bool {
        ArgvPattern::new(patterns.iter().map(ToString::to_string).collect()).unwrap().matches(argv)
    }

    #[test]
    fn program_by_base_name_and_arguments_in_order() {
        let bot = ["python3*", "/srv/bot.py"];
        assert!(fits(&bot, &["/usr/bin/python3.12", "-u", "/srv/bot.py", "--once"]));
        assert!(!fits(&bot, &["/usr/bin/node", "/srv/bot.py"]));
        assert!(!fits(&bot, &["python3"]));
        assert!(!fits(&bot, &[]));
        assert!(fits(&["node", "a", "b"], &["node", "x", "a", "x", "b"]));
        assert!(!fits(&["node", "a", "b"], &["node", "b", "a"]));
        assert!(!fits(&["node", "a", "a"], &["node", "a"]));
    }

    #[test]
    fn a_slash_means_the_whole_of_argv0() {
        assert!(fits(&["/opt/*/node", "x"], &["/opt/20/node", "x"]));
        assert!(!fits(&["/opt/*/node", "x"], &["node", "x"]));
    }

    #[test]
    fn refused_lists() {
        assert_eq!(ArgvPattern::new(vec![]), Err(ArgvError::Empty));
        assert_eq!(ArgvPattern::new(vec!["*".into(), "**".into()]), Err(ArgvError::FitsAll));
        assert_eq!(ArgvPattern::new(vec!["a".into(); 33]), Err(ArgvError::TooLong));
    }

    /// The obvious definition, exponential in the worst case.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), None) => naive(rest, text),
            (Some((b'*', rest)), Some((_, tail))) => naive(rest, text) || naive(pattern, tail),
            (Some((p, rest)), Some((t, tail))) => (*p == b'?' || p == t) && naive(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn glob_agrees_with_the_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), naive(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn matching_is_total(patterns in prop::collection::vec(".{0,12}", 1..5), argv in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6)) {
            if let Ok(pattern) = ArgvPattern::new(patterns) {
                pattern.matches(&argv);
            }
        }
    }
}
