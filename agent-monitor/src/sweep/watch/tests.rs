//! What the watch makes of execs, peers and names.

use super::*;
use crate::attribute::TaskKey;
use crate::model::Ancestor;
use crate::sweep::names::{By, Contact};

fn exec(pid: u32, line: &str, parents: &[u32]) -> Event {
    let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let start = |pid: u32| Some(Time::from_unix_nanos(i128::from(pid)));
    let process = Process {
        pid,
        start_time: start(pid),
        exe: args.first().cloned(),
        args,
        uid: Some(1000),
        user: Some("alice".to_owned()),
        ancestry: parents.iter().map(|p| Ancestor { pid: *p, exe: None, start_time: start(*p) }).collect(),
        ..Process::default()
    };
    let event = Event::new(Time::from_unix_nanos(7), Kind::ProcessExec, Source::Lsm);
    Event { process: Some(process.into()), ..event }
}

fn watch(act: ShadowAct, except: &[&str]) -> Watch {
    let except = except.iter().map(ToString::to_string).collect();
    Watch::new(crate::sweep::pack::embedded().clone(), Shadow { act, except, approvers: Vec::new() })
}

fn product(finding: &Option<Finding>) -> Option<&str> {
    finding.as_ref()?.event.detail.as_ref()?.get("product")?.as_str()
}

#[test]
fn one_finding_per_tree_and_one_more_for_what_is_new() {
    let mut watch = watch(ShadowAct::Audit, &[]);
    let first = watch.observe(&exec(10, "/opt/claude -p x --token=abc", &[1]));
    let event = &first.as_ref().unwrap().event;
    assert_eq!((event.kind.as_str(), event.verdict), ("finding.shadow_agent", Some(Verdict::Audit)));
    let text = event.to_line().unwrap();
    assert!(text.contains("shadow-") && !text.contains("abc"), "{text}");
    let sweep_id = correlate::find_id("claude-code", None, Some(1000), None);
    assert_eq!(event.detail.as_ref().unwrap()["find"], sweep_id.as_str());
    // The same again, from within and by itself: nothing new.
    assert_eq!(watch.observe(&exec(11, "/opt/claude", &[10, 1])), None);
    assert_eq!(watch.observe(&exec(10, "/opt/claude", &[1])), None);
    assert_eq!(watch.observe(&exec(12, "/bin/ls", &[10, 1])), None);
    let flagged = watch.observe(&exec(13, "/opt/claude --dangerously-skip-permissions", &[10, 1])).unwrap();
    assert_eq!(flagged.event.detail.as_ref().unwrap()["update"], true);
    let server = watch.observe(&exec(14, "/usr/bin/mcp-server-git", &[13, 10, 1]));
    assert_eq!(product(&server), Some("mcp-reference-servers"));
    // Another tree is another finding, and so is a pid that was used before.
    assert_eq!(product(&watch.observe(&exec(20, "/opt/claude", &[1]))), Some("claude-code"));
}

#[test]
fn agents_look_alikes_wrappers_and_failures_are_none() {
    let mut watch = watch(ShadowAct::Audit, &[]);
    for line in
        ["/usr/bin/goose up", "/usr/bin/vim claude", "/usr/bin/timeout 5 claude", "/usr/bin/python3 -m pip"]
    {
        assert_eq!(watch.observe(&exec(10, line, &[])), None, "{line}");
    }
    let bound = crate::model::Agent {
        id: "a".to_owned(),
        session: None,
        bound_by: crate::model::BoundBy::Exe,
        delegator: None,
        bound_delay_ms: None,
    };
    let registered = Event { agent: Some(bound.into()), ..exec(10, "/opt/claude", &[]) };
    assert_eq!(watch.observe(&registered), None);
}

#[test]
fn policy_and_exceptions() {
    let told = |act, except: &[&str]| watch(act, except).observe(&exec(10, "/opt/claude", &[]));
    assert_eq!(told(ShadowAct::Off, &[]), None);
    for act in [ShadowAct::Hold, ShadowAct::Deny, ShadowAct::Kill] {
        let finding = told(act, &[]).unwrap();
        assert_eq!(finding.late, Some(act));
        assert_eq!(finding.event.detail.unwrap()["before_first_instruction"], false);
    }
    assert_eq!(told(ShadowAct::Audit, &[]).unwrap().late, None);
    for except in ["user:alice", "user:1000", "path:/opt/*"] {
        assert_eq!(told(ShadowAct::Kill, &[except]), None, "{except}");
    }
    assert!(told(ShadowAct::Kill, &["user:bob", "unit:x.service", "path:/srv/*"]).is_some());
    // A policy that kills does so in a tree that is known, too.
    let mut watch = watch(ShadowAct::Kill, &[]);
    assert!(watch.observe(&exec(10, "/opt/claude", &[])).is_some());
    assert!(watch.observe(&exec(11, "/opt/claude", &[10])).is_some());
}

#[test]
fn a_finding_that_nobody_can_decide_about_says_so() {
    let told = |uid: u32, approvers: &[&str]| {
        let approvers = approvers.iter().filter_map(|name| crate::registry::record::Approver::parse(name));
        let shadow = Shadow { act: ShadowAct::Hold, except: Vec::new(), approvers: approvers.collect() };
        let mut watch = Watch::new(crate::sweep::pack::embedded().clone(), shadow);
        let event = exec(10, "/opt/claude", &[]);
        let process = Process { uid: Some(uid), ..event.process.as_deref().unwrap().clone() };
        let found = watch.observe(&Event { process: Some(process.into()), ..event });
        found.unwrap().event.detail.unwrap().contains_key("no_approver")
    };
    assert!(told(0, &[]));
    assert!(!told(1000, &[]), "root decides");
    assert!(!told(0, &["group:oncall"]));
}

#[test]
fn what_the_kernel_met_is_told_and_done_with() {
    let mut watch = watch(ShadowAct::Deny, &["path:/srv/*"]);
    let met = |id: &str| {
        let agent = crate::model::Agent {
            id: id.to_owned(),
            session: None,
            bound_by: crate::model::BoundBy::Exe,
            delegator: None,
            bound_delay_ms: None,
        };
        Event { agent: Some(agent.into()), ..exec(10, "/opt/claude", &[]) }
    };
    assert_eq!(watch.observe(&met("_shadow-allowed")), None, "a person has let it go on");
    let finding = watch.observe(&met(SHADOW_ID)).unwrap();
    assert_eq!((finding.late, finding.event.verdict), (None, Some(Verdict::Deny)));
    assert_eq!(finding.event.detail.unwrap()["before_first_instruction"], true);
    assert_eq!(watch.observe(&met(SHADOW_ID)), None, "once per tree");
    assert!(watch.meets("/usr/bin/claude") && !watch.meets("/srv/claude") && !watch.meets("/usr/bin/vim"));
}

#[test]
fn scripts_that_import_frameworks_are_told_and_never_ended() {
    let mut watch = watch(ShadowAct::Kill, &[]);
    let event = exec(10, "/usr/bin/python3 /srv/bot.py --once", &[]);
    assert_eq!(watch.observe(&event), None);
    assert_eq!(watch.script_of(&event).as_deref(), Some("/srv/bot.py"));
    assert_eq!(watch.script_of(&exec(10, "/usr/bin/ls /srv", &[])), None);
    let modules = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(watch.script(&event, "/srv/bot.py", &modules(&["os", "openai"])), None);
    let told = watch.script(&event, "/srv/bot.py", &modules(&["crewai.flow"])).unwrap();
    assert_eq!(told.late, None);
    let sweep_id = correlate::find_id(correlate::HOME_MADE, Some("/srv/bot.py"), Some(1000), None);
    assert_eq!(told.event.detail.unwrap()["find"], sweep_id.as_str());
    assert_eq!(watch.script(&event, "/srv/bot.py", &modules(&["crewai"])), None, "once per tree");
}

#[test]
fn a_script_that_speaks_to_models_is_told_when_it_acts() {
    let mut watch = watch(ShadowAct::Deny, &[]);
    let event = exec(10, "/usr/bin/python3 /srv/bot.py", &[1]);
    assert_eq!(watch.script(&event, "/srv/bot.py", &["openai".to_owned()]), None);
    assert_eq!(watch.observe(&exec(11, "/usr/bin/uname", &[10, 1])), None);
    assert_eq!(watch.observe(&exec(12, "/usr/bin/bash -c ls", &[1])), None, "somebody else's");
    let told = watch.observe(&exec(13, "/usr/bin/bash -c ls", &[10, 1])).unwrap();
    let detail = told.event.detail.as_ref().unwrap();
    assert_eq!((&detail["level"], &detail["action"], told.late), (&"low".into(), &"audit".into(), None));
    assert_eq!(told.event.process.as_ref().unwrap().pid, 10, "the script, not the shell");
    assert_eq!(watch.observe(&exec(14, "/usr/bin/bash -c ls", &[10, 1])), None, "once");
}

#[test]
fn marks_of_children_tell_who_nobody_told() {
    let mut watch = watch(ShadowAct::Kill, &[]);
    let marks = BTreeSet::from([watch.pack.find("claude-code").unwrap()]);
    let child = exec(11, "/usr/bin/make", &[10, 1]);
    assert_eq!(watch.marked(&child, &BTreeSet::new()), None);
    let told = watch.marked(&child, &marks).unwrap();
    let detail = told.event.detail.as_ref().unwrap();
    assert_eq!(
        (&detail["product"], &detail["level"], told.late),
        (&"claude-code".into(), &"medium".into(), None)
    );
    assert_eq!(watch.marked(&exec(12, "/usr/bin/ls", &[10, 1]), &marks), None, "the same parent's");
    assert!(watch.observe(&exec(20, "/opt/claude", &[1])).is_some());
    assert!(!watch.wants_marks(&exec(21, "/usr/bin/ls", &[20, 1])), "its agent is told");
}

#[test]
fn memory_is_bounded() {
    let mut watch = watch(ShadowAct::Audit, &[]);
    for pid in 1..5000 {
        assert!(watch.observe(&exec(pid, "/opt/claude", &[])).is_some());
    }
    assert_eq!(watch.trees.len(), TREES_MAX);
}

fn contact(pid: u32, by: By) -> Contact {
    let peer = "192.0.2.7:443".parse().unwrap();
    Contact { key: TaskKey { tgid: pid, start: 1 }, peer, who: "api.anthropic.com".to_owned(), by }
}

fn score(finding: &Option<Finding>) -> (u64, String) {
    let detail = finding.as_ref().unwrap().event.detail.as_ref().unwrap();
    (detail["identity"].as_u64().unwrap(), detail["evidence"].to_string())
}

#[test]
fn who_reaches_for_a_provider_and_starts_a_shell_is_told_in_any_order() {
    let mut watch = watch(ShadowAct::Kill, &[]);
    let time = Time::from_unix_nanos(9);
    let process = |pid: u32, line: &str| exec(pid, line, &[1]).process.unwrap();
    let mut reach = |pid: u32, line: &str, by| watch.contact(time, &process(pid, line), &contact(pid, by));
    assert_eq!(reach(10, "/srv/bot", By::Dns), None, "it has not acted");
    assert_eq!(reach(20, "/srv/bot", By::Tls), None);
    assert_eq!(reach(20, "/srv/bot", By::Dns), None);
    assert_eq!(reach(40, "/usr/bin/curl", By::Tls), None);
    let by_dns = watch.observe(&exec(11, "/bin/sh -c ls", &[10, 1]));
    let by_tls = watch.observe(&exec(22, "/bin/sh -c ls", &[21, 20, 1]));
    let ((low, dns), (high, tls)) = (score(&by_dns), score(&by_tls));
    assert!(low < 50 && (50..80).contains(&high), "{low} {high}");
    assert!(dns.contains("by a DNS answer") && tls.contains("by TLS SNI"), "{dns} {tls}");
    let finding = by_tls.unwrap();
    assert_eq!((finding.late, finding.event.process.unwrap().pid), (None, 20), "never stopped");
    let sweep_id = correlate::find_id(correlate::HOME_MADE, Some("/srv/bot"), Some(1000), None);
    assert_eq!(finding.event.detail.unwrap()["find"], sweep_id.as_str());
    // The shell first, the provider after it.
    assert_eq!(watch.observe(&exec(31, "/bin/sh -c ls", &[30, 1])), None);
    assert!(watch.contact(time, &process(30, "/srv/late"), &contact(30, By::Tls)).is_some());
    // Who means another server at a shared address.
    assert_eq!(watch.contact(time, &process(50, "/srv/web"), &contact(50, By::Dns)), None);
    assert_eq!(watch.contact(time, &process(50, "/srv/web"), &contact(50, By::OtherName)), None);
    assert_eq!(watch.observe(&exec(51, "/bin/sh -c ls", &[50, 1])), None);
    // Shells of others, and of what talks for a person.
    assert_eq!(watch.observe(&exec(41, "/bin/sh -c ls", &[40, 1])), None);
    assert_eq!(watch.observe(&exec(12, "/bin/sh -c ls", &[1])), None);
}

#[test]
fn who_speaks_to_models_is_looked_at_and_told_when_it_edits() {
    let mut watch = watch(ShadowAct::Kill, &[]);
    let at = |seconds: i128| Time::from_unix_nanos(seconds * 1_000_000_000);
    let bot = exec(10, "/srv/bot", &[1]).process.unwrap();
    assert!(watch.to_be_looked_at(at(1)).is_empty());
    assert_eq!(watch.contact(at(1), &bot, &contact(10, By::Tls)), None);
    let looks: Vec<i128> =
        (1..10_000).filter(|second| !watch.to_be_looked_at(at(*second)).is_empty()).collect();
    assert!(looks.starts_with(&[1, 3, 7, 15, 31, 63, 127, 255, 511, 767]), "{looks:?}");
    let told = watch.edited(at(9), &bot, "/w/plan.md").unwrap();
    let detail = told.event.detail.as_ref().unwrap();
    assert!(detail["evidence"].to_string().contains("/w/plan.md in its working directory changed"));
    assert_eq!((told.late, &detail["action"]), (None, &"audit".into()), "never stopped");
    assert_eq!(watch.edited(at(10), &bot, "/w/plan.md"), None, "once");
    assert!(watch.to_be_looked_at(at(100_000)).is_empty());
    let other = exec(20, "/usr/bin/vim", &[1]).process.unwrap();
    assert_eq!(watch.edited(at(10), &other, "/w/plan.md"), None, "it does not speak to models");
}

#[test]
fn what_was_told_by_its_name_is_not_told_again_by_its_peers() {
    let mut all = watch(ShadowAct::Audit, &[]);
    let time = Time::from_unix_nanos(9);
    let claude = exec(10, "/opt/claude", &[1]);
    // Its connection may come first in a batch.
    assert_eq!(all.contact(time, claude.process.as_ref().unwrap(), &contact(10, By::Tls)), None);
    assert!(all.observe(&claude).is_some());
    assert_eq!(all.contact(time, claude.process.as_ref().unwrap(), &contact(10, By::Tls)), None);
    assert_eq!(all.observe(&exec(11, "/bin/sh -c ls", &[10, 1])), None);
    let mut off = watch(ShadowAct::Off, &[]);
    let process = exec(20, "/srv/bot", &[1]).process.unwrap();
    off.contact(time, &process, &contact(20, By::Tls));
    assert_eq!(off.observe(&exec(21, "/bin/sh", &[20, 1])), None);
    let mut spared = watch(ShadowAct::Audit, &["path:/srv/*"]);
    spared.contact(time, &process, &contact(20, By::Tls));
    assert_eq!(spared.observe(&exec(21, "/bin/sh", &[20, 1])), None);
}
