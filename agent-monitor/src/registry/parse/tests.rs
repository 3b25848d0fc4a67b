//! The parser on whole records, good, bad and hostile.

use super::*;
use crate::registry::{
    Severity,
    fake::record_text,
    record::{Approver, MatchRank, Mode, UserRef},
};

#[path = "random_tests.rs"]
mod random;

fn parse(text: &str) -> Parsed {
    parse_record(text, Path::new("a.toml"))
}

/// Code, line and column of each problem.
fn problems(text: &str) -> Vec<(Code, u32, u32)> {
    let found = parse(text).diagnostics;
    found.iter().map(|d| (d.code, d.at.line, d.at.column)).collect()
}

fn only(agent: &str, rest: &str) -> Diagnostic {
    let mut found = parse(&record_text("a", agent, rest)).diagnostics;
    found.retain(|problem| problem.code != Code::NoMatch);
    assert_eq!(found.len(), 1, "{agent}\n{rest}\n{found:#?}");
    found.remove(0)
}

/// The record of `design.md` §5, with the fields of later issues added.
const FULL: &str = include_str!("../../../examples/agents.d/release-bot.toml");

#[test]
fn a_full_record() {
    let parsed = parse(FULL);
    let record = parsed.record.unwrap_or_else(|| panic!("{:#?}", parsed.diagnostics));
    assert_eq!(record.id.as_str(), "release-bot");
    assert_eq!(record.mode.value, Mode::Observe);
    assert_eq!(record.expires.value.to_string(), "2028-10-31T00:00:00Z");
    assert_eq!(record.approvers[0].value, Approver::Group("platform-oncall".into()));
    assert_eq!(record.scope.file[0].name, "scope.file[0]");
    let line = record.scope.file[0].at.line;
    assert_eq!(record.source.line(line), Some("[[scope.file]]"));
    let line = record.scope.net[0].to.at.line;
    assert!(record.source.line(line).unwrap().starts_with("to = "));
}

#[test]
fn smallest_record_is_launch_only() {
    let parsed = parse(&record_text("a", "", ""));
    let record = parsed.record.unwrap();
    assert!(record.matches.is_empty() && !record.scope.declared);
    assert_eq!(record.approvals, 1);
    assert_eq!(parsed.diagnostics[0].code, Code::NoMatch);
    assert_eq!(parsed.diagnostics[0].severity, Severity::Note);
}

#[test]
fn every_problem_is_reported_with_its_place() {
    let text = "[agent]\nid = \"Bot\"\nownr = \"x\"\npurpose = 3\n\n[[match]]\nexe = \"bin/x\"\n";
    let expected = [
        (Code::MissingKey, 1, 1),
        (Code::MissingKey, 1, 1),
        (Code::InvalidValue, 2, 6),
        (Code::UnknownKey, 3, 1),
        (Code::WrongType, 4, 11),
        (Code::InvalidPath, 7, 7),
    ];
    assert_eq!(problems(text), expected);
    let unknown = parse(text).diagnostics.remove(3);
    assert_eq!(unknown.hint.as_deref(), Some("did you mean `owner`?"));
}

#[test]
fn syntax_errors_name_the_place_and_do_not_breed_missing_keys() {
    let text = record_text("a", "mode = observe", "");
    let found = problems(&text);
    assert_eq!(found.iter().filter(|p| p.0 == Code::Syntax).count(), 1);
    assert!(found.contains(&(Code::Syntax, 6, 8)), "{found:?}");
    let found = problems("[agent]\nid = \n");
    assert!(found.iter().all(|p| p.0 != Code::MissingKey), "{found:?}");
    assert_eq!(problems("")[0].0, Code::MissingKey);
    assert_eq!(parse("\u{feff}[agent]\n").diagnostics[0].at.column, 1);
}

#[test]
fn a_key_in_the_wrong_table_is_told_where_it_belongs() {
    let problem = only("", "[[match]]\nexe = \"/x\"\napprovers = []\n");
    assert_eq!(problem.hint.as_deref(), Some("it belongs in [agent]"));
    let problem = only("sha256 = \"x\"", "");
    assert_eq!(problem.hint.as_deref(), Some("it belongs in [[match]]"));
}

#[test]
fn single_bad_values() {
    let cases = [
        ("mode = \"enfroce\"", Code::InvalidValue, "did you mean `enforce`"),
        ("approvals = 0", Code::InvalidValue, "from 1 to 8"),
        ("approvals = \"2\"", Code::WrongType, "without quotes"),
        ("approvers = [\"team:x\"]", Code::InvalidValue, "user:NAME"),
        ("approvers = [\"a b\"]", Code::InvalidValue, "user:NAME"),
        ("approvals = 2\napprovers = [\"user:x\"]", Code::InvalidValue, "add approvers"),
        ("retire_when_idle = \"30 days\"", Code::InvalidValue, "30d"),
        ("retire_when_idle = \"0d\"", Code::InvalidValue, "30d"),
        ("degrade = true", Code::WrongType, "quotes"),
        ("environment = \"\"", Code::InvalidValue, "remove the key"),
        ("environment = \"a\\u001bb\"", Code::InvalidValue, "plain text"),
        ("data_boundary = \"a\\u0000\"", Code::InvalidValue, "remove it"),
        ("hold_timeout = \"25h\"", Code::InvalidValue, "from 1s to 24h"),
        ("on_daemon_loss = \"panic\"", Code::InvalidValue, "deny, wait"),
    ];
    for (agent, code, hint) in cases {
        let problem = only(agent, "");
        assert_eq!(problem.code, code, "{agent}");
        let given = problem.hint.unwrap_or_default();
        assert!(given.contains(hint), "{agent}: {given}");
    }
}

#[test]
fn ends() {
    let end = |value: &str| {
        let text = record_text("a", "", "").replace("2030-01-01T00:00:00Z", value);
        parse(&text).record.map(|record| record.expires.value.to_string())
    };
    let same = Some("2030-01-01T00:00:00Z".to_owned());
    for good in
        ["2030-01-01T00:00:00Z", "2030-01-01 02:00:00+02:00", "\"2030-01-01T00:00:00Z\"", "2030-01-01T00:00Z"]
    {
        assert_eq!(end(good), same, "{good}");
    }
    for bad in [
        "2030-01-01",
        "2030-01-01T00:00:00",
        "00:00:00",
        "\"tomorrow\"",
        "1893456000",
        "\"2030-01-01\"",
        "2030-02-30T00:00:00Z",
    ] {
        assert_eq!(end(bad), None, "{bad}");
    }
}

#[test]
fn ids() {
    let longest = "a".repeat(63);
    for good in ["a", "0", "a-b", &longest] {
        assert!(parse(&record_text(good, "", "")).record.is_some(), "{good}");
    }
    let too_long = "a".repeat(64);
    for bad in ["", "A", "-a", "a-", "a.b", "a_b", "ä", "a b", "../a", &too_long] {
        assert!(parse(&record_text(bad, "", "")).record.is_none(), "{bad}");
    }
}

#[test]
fn all_conditions() {
    let digest = "ab".repeat(32);
    let text = record_text(
        "a",
        "",
        &format!(
            "[[match]]\nunit = \"w@1.service\"\ncgroup = \"/a.slice/x\"\ncontainer = \"0123456789ab\"\nscript = \"/s\"\nsha256 = \"{digest}\"\nargv = [\"node\", \"*.js\"]\nuser = 7\n[[match]]\nlaunch = true\n"
        ),
    );
    let record = parse(&text).record.unwrap();
    assert_eq!(record.matches[0].rank(), MatchRank { conditions: 7, strongest: 7 });
    assert_eq!(record.matches[0].user.as_ref().unwrap().value, UserRef::Uid(7));
    assert!(record.matches[1].launch);
    assert_eq!(record.matches[1].name, "match[1]");
}

#[test]
fn bad_matches() {
    let cases = [
        ("", Code::TooWide),
        ("unit = \"x\"", Code::InvalidValue),
        ("unit = \"x@.service\"", Code::InvalidValue),
        ("unit = \".service\"", Code::InvalidValue),
        ("unit = \"a/b.service\"", Code::InvalidValue),
        ("unit = \"x.timer\"", Code::InvalidValue),
        ("cgroup = \"/\"", Code::TooWide),
        ("cgroup = \"/sys/fs/cgroup/x\"", Code::InvalidPath),
        ("cgroup = \"x\"", Code::InvalidPath),
        ("container = \"web\"", Code::InvalidValue),
        ("container = \"0123456789A\"", Code::InvalidValue),
        ("exe = \"/a/../b\"", Code::InvalidPath),
        ("exe = \"/\"", Code::InvalidPath),
        ("exe = \"/opt/*\"", Code::InvalidPath),
        ("script = \"~/x.py\"", Code::InvalidPath),
        ("sha256 = \"00\"\nexe = \"/x\"", Code::InvalidValue),
        ("argv = []", Code::InvalidValue),
        ("argv = [\"*\"]", Code::InvalidValue),
        ("argv = \"python x.py\"", Code::WrongType),
        ("user = -1", Code::InvalidValue),
        ("user = 4294967295", Code::InvalidValue),
        ("user = \"1000\"", Code::WrongType),
        ("user = \"a:b\"", Code::InvalidValue),
        ("user = 1.5", Code::WrongType),
        ("launch = false", Code::InvalidValue),
        ("launch = true\nexe = \"/x\"", Code::InvalidValue),
        ("user = \"root\"", Code::TooWide),
        ("user = 0", Code::TooWide),
        ("exe = \"/usr/bin/python3.12\"", Code::TooWide),
    ];
    for (conditions, code) in cases {
        assert_eq!(only("", &format!("[[match]]\n{conditions}")).code, code, "{conditions}");
    }
    let digest = "ab".repeat(32);
    for conditions in [
        format!("user = 5\nsha256 = \"{digest}\""),
        format!("exe = \"/x\"\nscript = \"/y\"\nsha256 = \"{digest}\""),
    ] {
        assert_eq!(only("", &format!("[[match]]\n{conditions}")).code, Code::InvalidValue);
    }
    let single = only("", "[match]\nexe = \"/x\"");
    assert_eq!(single.hint.as_deref(), Some("write it as [[match]]"));
}

#[test]
fn bad_scopes() {
    let cases = [
        ("default = \"block\"", Code::InvalidValue),
        ("base = [\"linux-runtme\"]", Code::InvalidValue),
        ("[[scope.file]]\naccess = [\"read\"]", Code::MissingKey),
        ("[[scope.file]]\npath = \"/a\"", Code::MissingKey),
        ("[[scope.file]]\npath = \"/a\"\naccess = []", Code::InvalidValue),
        ("[[scope.file]]\npath = \"/a\"\naccess = [\"reed\"]", Code::InvalidValue),
        ("[[scope.file]]\npath = \"srv\"\naccess = [\"read\"]", Code::InvalidPath),
        ("[[scope.exec]]\npath = \"git\"", Code::InvalidPath),
        ("[[scope.net]]\nport = 3\nto = \"a.com\"", Code::UnknownKey),
        ("[[scope.net]]\nto = \"10.0.0.1/8\"", Code::InvalidValue),
        ("[[scope.net]]\nto = \"a.com\"\naction = \"listen\"", Code::InvalidValue),
        ("[[scope.privilege]]\nkind = \"trace\"", Code::InvalidValue),
        ("[[scope.privilege]]\nverdict = \"deny\"", Code::MissingKey),
        ("[[scope.privilege]]\nkind = \"ptrace\"\ncapabilities = [\"CAP_KILL\"]", Code::InvalidValue),
        ("[[scope.privilege]]\nkind = \"capability\"\ncapabilities = [\"KILL\"]", Code::InvalidValue),
        ("[[scope.net]]\nto = \"a.com\"\nadds = [\"Pii\"]", Code::InvalidValue),
        ("[scope.limits]\ndeletes = 100", Code::WrongType),
        ("[scope.limits]\ndeletes = \"100\"", Code::InvalidValue),
        ("[scope.limits]\ndeletes = \"0/session\"", Code::InvalidValue),
        ("[scope.limits]\ndeletes = \"1/hour\"", Code::InvalidValue),
        ("[scope.limits]\nbytes_out = \"50/session\"", Code::InvalidValue),
        ("[scope.limits]\nbytes_out = \"50MB/session\"", Code::InvalidValue),
        ("[scope.limits]\nspawns = \"5KiB/min\"", Code::InvalidValue),
        ("[scope.limits]\nbytes_out = \"99999999999TiB/min\"", Code::InvalidValue),
        ("[scope.limits]\npeers = { verdict = \"kill\" }", Code::MissingKey),
        ("[scope.limits]\npeers = { max = \"1/min\", verdict = \"allow\" }", Code::InvalidValue),
        ("[[scope.net]]\nto = \"a.com\"\nverdict = \"hold\"", Code::MissingKey),
    ];
    for (rules, code) in cases {
        let text = format!("[scope]\n{rules}");
        assert_eq!(only("", &text).code, code, "{rules}");
    }
    assert_eq!(only("mode = \"enforce\"", "").code, Code::InvalidValue);
}

#[test]
fn scope_defaults_fail_closed() {
    let scope = parse(&record_text("a", "", "[scope]\n[[scope.file]]\npath = \"/a\"\nverdict = \"kill\""))
        .record
        .unwrap()
        .scope;
    use crate::scope::Verdict;
    assert_eq!((scope.default, scope.unknown), (Verdict::Deny, Verdict::Deny));
    assert_eq!(scope.file[0].access.len(), 5, "forbidding without access forbids all");
    let absent = parse(&record_text("a", "", "")).record.unwrap().scope;
    assert_eq!((absent.default, absent.declared), (Verdict::Audit, false));
}

#[test]
fn hostile_nesting_is_refused_and_does_not_exhaust_the_stack() {
    // 80 levels of brackets with 80 parts each: accepted by the TOML parser, fatal to drop.
    let key = ["a"; 79].join(".");
    let mut nested = format!("{key} = {{").repeat(79);
    nested.push_str(&"}".repeat(79));
    assert_eq!(problems(&nested)[0].0, Code::Syntax);
    for piece in
        ["[", "a.", "[a]\n", "a=", "[[a]]\n", "{", "\"", "a.b.c.d.e.f.g={", "'''", "#", "\\", "]", "a=[{"]
    {
        let text = piece.repeat(MAX_RECORD_BYTES / piece.len());
        let found = parse(&text).diagnostics;
        assert!((1..=101).contains(&found.len()), "{piece}: {}", found.len());
    }
    assert_eq!(parse(&"a".repeat(MAX_RECORD_BYTES + 1)).diagnostics[0].code, Code::TooLarge);
}

#[test]
fn many_problems_are_cut_short_and_counted() {
    let keys: String = (0..500).map(|n| format!("zz{n} = 1\n")).collect();
    let found = parse(&keys).diagnostics;
    assert_eq!(found.len(), 101);
    assert_eq!(found[100].code, Code::TooMany);
    assert!(found[100].message.starts_with("401 more"), "{}", found[100].message);
}

#[test]
fn an_error_behind_a_hundred_warnings_still_refuses() {
    let rules: String =
        (0..150).map(|n| format!("[[scope.exec]]\npath = \"/bin/{n}\"\nunless = [\"nowhere\"]\n")).collect();
    let agent = "approvals = 2\napprovers = [\"user:x\"]";
    let text = record_text("a", agent, &format!("[scope]\n{rules}"));
    let parsed = parse(&text);
    assert!(parsed.record.is_none());
    assert!(parsed.diagnostics.iter().any(Diagnostic::is_error));
}
