//! The parser on random, mutated and generated records.

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{FULL, parse};
use crate::registry::{format::to_toml, report, schema};

/// One of the given lines, or none.
fn maybe(lines: &'static [&'static str]) -> impl Strategy<Value = String> {
    option::of(select(lines)).prop_map(|line| line.unwrap_or_default().to_owned())
}

fn agent() -> impl Strategy<Value = String> {
    (
        "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?",
        "[ -!#-\\[\\]-~äß€]{0,20}[a-z]",
        maybe(&["mode = \"enforce\"", "mode = \"observe\""]),
        maybe(&["retire_when_idle = \"30d\"", "retire_when_idle = \"90m\"", "retire_when_idle = \"61s\"", "retire_when_idle = \"4w\""]),
        maybe(&["approvers = [\"alice\", \"group:oncall\"]", "approvers = \"user:bob\""]),
        maybe(&["degrade = \"allow\"", "environment = \"ci\"", "approvals = 1"]),
        maybe(&["on_daemon_loss = \"wait\"", "hold_timeout = \"90s\"", "data_boundary = \"x\\\"y\\\\z\""]),
    )
        .prop_map(|(id, text, a, b, c, d, e)| {
            format!("[agent]\nid = \"{id}\"\nowner = \"{text}\"\npurpose = \"{text}\"\nexpires = 2030-05-06T07:08:09.5+02:00\n{a}\n{b}\n{c}\n{d}\n{e}\n")
        })
}

fn match_table() -> impl Strategy<Value = String> {
    (
        maybe(&["unit = \"a.service\"", "cgroup = \"/b.slice/c\"", "container = \"0123456789abcdef\""]),
        maybe(&[
            "exe = \"/opt/x\"",
            "script = \"/srv/a b.py\"",
            "script = \"/s\"\nsha256 = \"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"",
        ]),
        maybe(&["argv = [\"python3*\", \"/srv/\\\"x\\\".py\"]", "argv = [\"node\"]"]),
        select(&["user = \"bot\"", "user = 1000"][..]),
    )
        .prop_map(|(a, b, c, d)| format!("[[match]]\n{a}\n{b}\n{c}\n{d}\n"))
}

fn effect() -> impl Strategy<Value = String> {
    (
        maybe(&["verdict = \"deny\"", "verdict = \"hold\"", "verdict = \"audit\"", "verdict = \"kill\""]),
        maybe(&["adds = [\"pii\"]", "adds = [\"a\", \"b-c\"]"]),
        maybe(&["unless = [\"pii\"]", "unless = \"a\""]),
    )
        .prop_map(|(a, b, c)| format!("{a}\n{b}\n{c}\n"))
}

/// Rules with a number in the pattern, so that no two name the same place.
fn rule(number: usize) -> impl Strategy<Value = String> {
    let head = select(
        &[
            "[[scope.file]]\npath = \"/srv/N/**\"\naccess = [\"read\", \"write\"]",
            "[[scope.file]]\npath = \"/srv/N\"\naccess = \"delete\"",
            "[[scope.file]]\npath = \"**/*.N\"\naccess = [\"execute-map\"]",
            "[[scope.file]]\npath = \"**/fileN\"\naccess = [\"create\"]",
            "[[scope.exec]]\npath = \"/bin/N\"",
            "[[scope.exec]]\npath = \"/bin/N\"\nargv = [\"x\", \"*y\"]",
            "[[scope.net]]\nto = \"*.hN.example:443/tcp\"",
            "[[scope.net]]\nto = \"10.N.0.0/16:1-N9\"\naction = [\"bind\", \"connect\"]",
            "[[scope.net]]\nto = \"[2001:db8:N::/48]\"",
            "[[scope.net]]\nto = \"unix:/run/N.sock\"",
            "[[scope.net]]\nto = \"unix:@N\"",
            "[[scope.net]]\nto = \"vsock:2:N\"",
        ][..],
    );
    (head, effect())
        .prop_map(move |(head, effect)| format!("{}\n{effect}", head.replace('N', &number.to_string())))
}

fn scope() -> impl Strategy<Value = String> {
    let rules = (0..6usize).map(rule).collect::<Vec<_>>();
    (
        maybe(&[
            "default = \"allow\"",
            "default = \"audit\"",
            "unknown = \"kill\"",
            "base = [\"linux-runtime\", \"node\"]",
        ]),
        rules,
        maybe(&[
            "[[scope.privilege]]\nkind = \"ptrace\"",
            "[[scope.privilege]]\nkind = \"capability\"\ncapabilities = [\"CAP_KILL\"]\nverdict = \"deny\"",
        ]),
        maybe(&[
            "[scope.limits]\ndeletes = \"100/session\"\nbytes_out = \"1536KiB/min\"",
            "[scope.limits]\nspawns = { max = \"3/min\", verdict = \"kill\" }\npeers = \"4/session\"",
        ]),
    )
        .prop_map(|(head, rules, privilege, limits)| {
            format!("[scope]\n{head}\n{}\n{privilege}\n{limits}\n", rules.concat())
        })
}

fn record() -> impl Strategy<Value = String> {
    (
        agent(),
        vec(match_table(), 0..3),
        option::of(scope()),
        maybe(&["[offboarding]\nremove_files = [\"/home/bot/.netrc\"]\ndisable_units = \"a.service\"\nmanual = [\"revoke the token\"]"]),
    )
        .prop_map(|(agent, matches, scope, offboarding)| {
            format!("{agent}{}{}\n{offboarding}\n", matches.concat(), scope.unwrap_or_default())
        })
}

fn check_total(text: &str) -> Result<(), TestCaseError> {
    let parsed = parse(text);
    let errors = parsed.diagnostics.iter().any(|problem| problem.is_error());
    prop_assert_eq!(parsed.record.is_none(), errors, "no record exactly when there is an error");
    let lines = u32::try_from(text.split('\n').count()).unwrap();
    for problem in &parsed.diagnostics {
        prop_assert!(problem.at.line <= lines, "{:?}", problem);
        let shown = problem.render();
        prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{:?}", shown);
    }
    report::diagnostics_text(&parsed.diagnostics);
    Ok(())
}

/// A change somewhere in a text: a piece cut out, doubled, or replaced.
fn mutate(text: &str, at: usize, length: usize, insert: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = at % (chars.len() + 1);
    let end = (at + length).min(chars.len());
    chars[..at].iter().copied().chain(insert.chars()).chain(chars[end..].iter().copied()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn total_on_any_text(text in "\\PC{0,200}|[\\[\\]{}=.,\"'#a-z0-9\n -]{0,200}") {
        check_total(&text)?;
    }

    #[test]
    fn total_on_any_bytes(bytes in vec(any::<u8>(), 0..300)) {
        check_total(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn total_on_damaged_records(
        changes in vec((any::<usize>(), 0usize..30, "[\\[\\]{}=.,\"'#a-z0-9\n\\x00-\\x1fä-]{0,6}"), 1..8),
    ) {
        let mut text = FULL.to_owned();
        for (at, length, insert) in changes {
            text = mutate(&text, at, length, &insert);
        }
        check_total(&text)?;
    }

    #[test]
    fn what_is_written_reads_back_the_same(text in record()) {
        check_total(&text)?;
        let parsed = parse(&text);
        prop_assert!(parsed.record.is_some(), "{}\n{:#?}", text, parsed.diagnostics);
        let record = parsed.record.unwrap();
        let written = to_toml(&record);
        let again = parse(&written);
        prop_assert!(again.record.is_some(), "{}\n{:#?}", written, again.diagnostics);
        let again = again.record.unwrap();
        prop_assert_eq!(&again, &record, "{}", written);
        prop_assert_eq!(to_toml(&again), written);
    }

    #[test]
    fn what_parses_fits_the_schema(text in record()) {
        let errors = schema::tests::schema_errors(&text);
        prop_assert!(errors.is_empty(), "{}\n{:?}", text, errors);
    }
}
