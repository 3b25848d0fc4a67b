//! Tests of reviews.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::model::{Agent, BoundBy, File, Kind, Network, Process, Source};
use crate::registry::parse_record;

const RECORD: &str = r#"
[agent]
id = "bot"
owner = "o|wner@example.com"
purpose = "p"
expires = 2099-01-01T00:00:00Z
[scope]
[[scope.file]]
path = "/srv/work/**"
access = ["read"]
[[scope.file]]
path = "/srv/never"
access = ["read"]
[[scope.exec]]
path = "/usr/bin/git"
[[scope.net]]
to = "10.0.0.0/8:443/tcp"
verdict = "hold"
"#;

fn event(kind: Kind, verdict: Verdict, rule: &str) -> Event {
    let agent = Agent {
        id: "bot".to_owned(),
        session: None,
        bound_by: BoundBy::Exe,
        delegator: None,
        bound_delay_ms: None,
    };
    Event {
        verdict: Some(verdict),
        rule: Some(rule.to_owned()),
        agent: Some(Arc::new(agent)),
        ..Event::new(Time::from_unix_nanos(5_000_000_000), kind, Source::Lsm)
    }
}

fn people() -> AgentPeople {
    let decision = |by: Option<&str>, state: &str| DecisionCount {
        by: by.map(str::to_owned),
        state: state.to_owned(),
        requests: 2,
        asked: 3,
    };
    AgentPeople {
        schema_version: 1,
        agent: "bot".to_owned(),
        state: "active".to_owned(),
        since: None,
        by: None,
        why: None,
        active: None,
        reviewed: None,
        reviewed_by: None,
        review_due: Some(Time::from_unix_nanos(7_000_000_000)),
        decisions: vec![decision(Some("ann"), "approved"), decision(None, "expired")],
        grants: Vec::new(),
        sessions: (4, 1),
        steps: Vec::new(),
    }
}

fn review() -> Review {
    let record = parse_record(RECORD, Path::new("bot.toml")).record.unwrap();
    let bases = Vec::new();
    let mut reviewer = Reviewer::new(&record, &bases);
    let file = |path: &str| {
        let access = vec![crate::model::Access::Read];
        Some(File { path: Some(path.to_owned()), access, ..File::default() })
    };
    let opened = event(Kind::FileOpen, Verdict::Allow, "scope.file[0]");
    reviewer.take(&Event { file: file("/srv/work/a"), ..opened.clone() });
    reviewer.take(&Event { file: file("/srv/work/a"), ..opened });
    let denied = event(Kind::FileOpen, Verdict::Deny, "scope.default");
    reviewer.take(&Event { file: file("/etc/shadow"), ..denied });
    let exec = event(Kind::ProcessExec, Verdict::Allow, "scope.exec[0]");
    let process = Process { exe: Some("/usr/bin/git".to_owned()), ..Process::default() };
    reviewer.take(&Event { process: Some(Arc::new(process)), ..exec });
    let flow = event(Kind::NetworkFlow, Verdict::Allow, "scope.net[0]");
    let network =
        Network { remote: "10.0.0.5:443".parse().ok(), bytes_sent: Some(900), ..Network::default() };
    reviewer.take(&Event { network: Some(network), ..flow });
    let mut measure =
        |path: &str| (path != "/srv/never").then_some(Reach { files: 50, bytes: 999, more: false });
    reviewer.finish(&people(), Time::from_unix_nanos(9_000_000_000), &mut measure)
}

#[test]
fn granted_is_compared_with_used() {
    let review = review();
    let used: Vec<u64> = review.rules.iter().map(|rule| rule.used).collect();
    assert_eq!((used, review.unused.as_slice()), (vec![2, 0, 1, 1], &["scope.file[1]".to_owned()][..]));
    assert_eq!((review.verdicts["allow"], review.verdicts["deny"]), (4, 1));
    assert_eq!((review.could.files, review.could.more, review.did.files), (50, true, 1));
    assert_eq!((review.did.bytes, review.did.peers.len(), review.did.programs.len()), (900, 1, 1));
    assert!(review.overdue);
    assert!(
        review.proposed.contains("/srv/work/a") && !review.proposed.contains("/srv/never"),
        "{}",
        review.proposed
    );
}

#[test]
fn markdown_says_it_all_and_is_not_broken_by_names() {
    let text = review().markdown();
    for part in [
        "# Review of bot",
        "o\\|wner",
        "**overdue**",
        "scope.file\\[1\\]",
        "| ann | approved | 2 | 3 |",
        "```toml",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
