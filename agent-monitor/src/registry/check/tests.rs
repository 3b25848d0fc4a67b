//! Checks against time and host, one finding at a time.

use super::*;
use crate::registry::{
    cross::Taken,
    facts::Group,
    fake::{FakeHost, now, record_text},
    parse_record,
};

fn record(agent: &str, rest: &str) -> Record {
    let text = record_text("a", agent, rest);
    let parsed = parse_record(&text, Path::new("a.toml"));
    parsed.record.unwrap_or_else(|| panic!("{:#?}", parsed.diagnostics))
}

fn found(agent: &str, rest: &str, host: &FakeHost) -> Vec<(Severity, Code, u32)> {
    let problems = check_record(&record(agent, rest), host, now());
    problems.iter().map(|p| (p.severity, p.code, p.at.line)).collect()
}

#[test]
fn expiry() {
    let record = record("", "");
    let at = |time: &str| -> Vec<Code> {
        let problems = check_record(&record, &FakeHost::new(), time.parse().unwrap());
        problems.iter().map(|problem| problem.code).collect()
    };
    assert_eq!(at("2029-12-31T23:59:59Z"), []);
    assert_eq!(at("2030-01-01T00:00:00Z"), [Code::Expired], "the end itself is past");
    assert_eq!(at("2027-06-01T00:00:00Z"), [Code::ExpiryFar]);
}

#[test]
fn users() {
    let host = FakeHost::new();
    assert_eq!(found("", "[[match]]\nuser = \"bot\"", &host), []);
    let unknown = [(Severity::Error, Code::UnknownUser, 8)];
    assert_eq!(found("", "[[match]]\nuser = \"nobody-here\"", &host), unknown);
    assert_eq!(found("", "[[match]]\nuser = 4242", &host), [], "a number needs no name");
}

#[test]
fn units() {
    let mut host = FakeHost::new();
    let rest = "[[match]]\nunit = \"bot.service\"\n[[match]]\nunit = \"run-1.scope\"\n";
    assert_eq!(found("", rest, &host), []);
    let typo = "[[match]]\nunit = \"bto.service\"\n[offboarding]\ndisable_units = [\"x.service\"]";
    let error = |line| (Severity::Error, Code::UnknownUnit, line);
    assert_eq!(found("", typo, &host), [error(8), error(10)]);
    host.units = None;
    let warning = |line| (Severity::Warning, Code::UnknownUnit, line);
    assert_eq!(found("", typo, &host), [warning(8), warning(10)]);
}

#[test]
fn programs() {
    let mut host = FakeHost::new().with_file("/opt/a", 7);
    host.paths.insert("/opt".to_owned(), PathKind::Directory);
    host.paths.insert("/dev/x".to_owned(), PathKind::Special);
    host.paths.insert("/root/x".to_owned(), PathKind::Unreadable);
    assert_eq!(found("", "[[match]]\nexe = \"/opt/a\"\nscript = \"/root/x\"", &host), []);
    let missing = [(Severity::Warning, Code::MissingPath, 8)];
    assert_eq!(found("", "[[match]]\nexe = \"/opt/b\"", &host), missing);
    let wrong = [(Severity::Error, Code::NotAFile, 8)];
    assert_eq!(found("", "[[match]]\nscript = \"/opt\"", &host), wrong);
    assert_eq!(found("", "[[match]]\nexe = \"/dev/x\"", &host), wrong);
    let scope =
        "[scope]\n[[scope.exec]]\npath = \"/opt\"\n[[scope.file]]\npath = \"/opt\"\naccess = [\"read\"]";
    let expected = [(Severity::Error, Code::NotAFile, 9), (Severity::Note, Code::NotAFile, 11)];
    assert_eq!(found("", scope, &host), expected);
    let offboarding = "[offboarding]\nremove_files = [\"/opt\"]";
    assert_eq!(found("", offboarding, &host), wrong);
}

#[test]
fn an_agent_does_not_approve_itself() {
    let mut host = FakeHost::new();
    let own = "[[match]]\nuser = \"bot\"";
    let itself = [(Severity::Error, Code::SelfApproval, 6)];
    assert_eq!(found("approvers = [\"alice\", \"group:oncall\"]", own, &host), []);
    assert_eq!(found("approvers = [\"user:bot\"]", own, &host), itself);
    assert_eq!(found("approvers = [\"bot\"]", "[[match]]\nuser = 1001", &host), itself);
    // Another name with the same number.
    host.users.push(User { name: "bot2".to_owned(), uid: 1001, gid: 9 });
    assert_eq!(found("approvers = [\"bot2\"]", own, &host), itself);
    // Member, and by primary group.
    host.groups.insert("bots".to_owned(), Group { gid: 77, members: vec!["bot".to_owned()] });
    assert_eq!(found("approvers = [\"group:bots\"]", own, &host), itself);
    host.groups.insert("prim".to_owned(), Group { gid: 1001, members: vec![] });
    assert_eq!(found("approvers = [\"prim\"]", own, &host), itself);
    // The agent's user is unknown: told as such, and named as itself all the same.
    let codes: Vec<Code> =
        check_record(&record("approvers = [\"ghost\"]", "[[match]]\nuser = \"ghost\""), &host, now())
            .iter()
            .map(|problem| problem.code)
            .collect();
    assert!(codes.contains(&Code::SelfApproval), "{codes:?}");
}

#[test]
fn unknown_approvers_are_a_warning() {
    let warning = [(Severity::Warning, Code::UnknownUser, 6)];
    for approver in ["group:alice", "user:oncall", "whoever"] {
        let agent = format!("approvers = [\"{approver}\"]");
        assert_eq!(found(&agent, "", &FakeHost::new()), warning, "{approver}");
    }
}

fn clash(first: &str, second: &str, host: &FakeHost) -> Vec<Code> {
    let read = |id: &str, rest: &str| {
        let text = record_text(id, "", rest);
        parse_record(&text, Path::new("x.toml")).record.unwrap()
    };
    let mut taken = Taken::default();
    taken.claim(&read("first", first), host);
    let problems = taken.check(&read("second", second), host);
    assert!(problems.iter().all(|p| p.is_error() && p.related.is_some()));
    problems.iter().map(|problem| problem.code).collect()
}

#[test]
fn the_same_match_twice_is_ambiguous_and_a_closer_one_is_not() {
    let host = FakeHost::new().with_file("/usr/bin/python3", 5).with_file("/usr/bin/python3.12", 5);
    let same = [Code::DuplicateMatch];
    let user = "[[match]]\nuser = \"bot\"";
    assert_eq!(clash(user, "[[match]]\nuser = \"bot\"\nscript = \"/s\"", &host), []);
    assert_eq!(clash(user, user, &host), same);
    assert_eq!(clash(user, "[[match]]\nuser = 1001", &host), same, "name and number");
    let link = (
        "[[match]]\nexe = \"/usr/bin/python3\"\nuser = 5",
        "[[match]]\nuser = 5\nexe = \"/usr/bin/python3.12\"",
    );
    assert_eq!(clash(link.0, link.1, &host), same, "two paths of one file");
    assert_eq!(
        clash(
            "[[match]]\nunit = \"bot.service\"",
            "[[match]]\ncgroup = \"/system.slice/bot.service\"",
            &host
        ),
        same
    );
    let container = format!("[[match]]\ncontainer = \"{}\"", "ab".repeat(32));
    assert_eq!(clash(&container, "[[match]]\ncontainer = \"abababababab\"", &host), same);
    assert_eq!(clash("[[match]]\nargv = [\"a\", \"b\"]", "[[match]]\nargv = [\"a b\"]", &host), []);
    assert_eq!(clash("[[match]]\nexe = \"/x\"", "[[match]]\nscript = \"/x\"", &host), []);
    assert_eq!(
        clash("[[match]]\nlaunch = true", "[[match]]\nlaunch = true", &host),
        [],
        "launch claims nothing"
    );
    assert_eq!(
        clash("", "[[match]]\nexe = \"/x\"\n[[match]]\nexe = \"/x\"", &host),
        same,
        "within one record"
    );
}

#[test]
fn closer_matches_rank_higher() {
    let rank = |rest: &str| record("", &format!("[[match]]\n{rest}")).matches[0].rank();
    let order = [
        "user = \"bot\"",
        "unit = \"bot.service\"",
        "container = \"abababababab\"",
        "argv = [\"x\"]",
        "exe = \"/x\"",
        "script = \"/x\"",
        "unit = \"bot.service\"\nuser = \"bot\"",
        "script = \"/x\"\nuser = \"bot\"",
        "unit = \"bot.service\"\ncgroup = \"/x\"\nuser = \"bot\"",
    ];
    for pair in order.windows(2) {
        assert!(rank(pair[0]) < rank(pair[1]), "{pair:?}");
    }
}

#[test]
fn a_shared_program_alone_is_no_agent() {
    let mut host = FakeHost::new();
    for (link, real) in
        [("/opt/agent", "/usr/bin/dash"), ("/opt/bot", "/usr/bin/python3.11"), ("/opt/own", "/srv/own")]
    {
        host.links.insert(link.to_owned(), real.to_owned());
    }
    let too_wide = |rest: &str, host: &FakeHost| -> Option<Severity> {
        let text = record_text("a", "", &format!("[[match]]\n{rest}"));
        let parsed = parse_record(&text, Path::new("a.toml"));
        let checked = parsed.record.iter().flat_map(|record| check_record(record, host, now()));
        let problems = parsed.diagnostics.iter().cloned().chain(checked);
        problems.filter(|p| p.code == Code::TooWide).map(|p| p.severity).max()
    };
    let digest = "ab".repeat(32);
    let digest = format!("exe = \"/usr/bin/bash\"\nsha256 = \"{digest}\"");
    let rows = [
        ("exe = \"/usr/bin/bash\"", Some(Severity::Error)),
        ("exe = \"/usr/bin/bash\"\nuser = \"root\"", Some(Severity::Error)),
        ("exe = \"/usr/bin/sudo\"\nuser = 0", Some(Severity::Error)),
        ("exe = \"/usr/sbin/sshd\"", Some(Severity::Error)),
        ("exe = \"/usr/bin/tmux\"", Some(Severity::Error)),
        ("exe = \"/usr/lib/systemd/systemd\"", Some(Severity::Error)),
        ("exe = \"/usr/bin/busybox\"", Some(Severity::Error)),
        (digest.as_str(), Some(Severity::Error)),
        ("exe = \"/opt/agent\"", Some(Severity::Error)),
        ("exe = \"/usr/bin/bash\"\nuser = \"bot\"", Some(Severity::Warning)),
        ("exe = \"/usr/bin/node\"", Some(Severity::Warning)),
        ("exe = \"/usr/bin/perl\"\nuser = \"root\"", Some(Severity::Warning)),
        ("exe = \"/usr/bin/npx\"", Some(Severity::Warning)),
        ("exe = \"/opt/bot\"", Some(Severity::Warning)),
        ("exe = \"/opt/bot\"\nuser = \"bot\"", None),
        ("exe = \"/opt/own\"", None),
        ("exe = \"/usr/bin/bash\"\nscript = \"/srv/a.sh\"", None),
        ("exe = \"/usr/bin/bash\"\nargv = [\"bash\", \"/srv/a.sh\"]", None),
        ("exe = \"/usr/bin/bash\"\nunit = \"bot.service\"", None),
        ("exe = \"/usr/bin/bash\"\ncgroup = \"/a/b\"", None),
        ("exe = \"/usr/bin/git\"", None),
    ];
    for (rest, wanted) in rows {
        assert_eq!(too_wide(rest, &host), wanted, "{rest}");
    }
    host.callers = vec![1001];
    assert_eq!(too_wide("exe = \"/usr/bin/bash\"\nuser = \"bot\"", &host), Some(Severity::Error), "who asks");
    assert_eq!(too_wide("exe = \"/usr/bin/bash\"\nuser = \"alice\"", &host), Some(Severity::Warning));
}
