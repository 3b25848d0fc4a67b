//! Every text of an event, not those that someone thought of; and each guard of the rules with its neighbour.

use super::*;
use crate::model::{Kind, Source, Time};

fn redactor() -> Redactor {
    Redactor::new([7; 32], &[]).unwrap()
}

/// An event in which each text that an agent has a say in is `SECRET`.
fn event(secret: &str) -> Event {
    let json = serde_json::json!({
        "process": {
            "pid": 7, "ppid": 6, "start_time": null, "exe": secret, "args": ["x", secret], "args_truncated": false,
            "args_sha256": "00", "cwd": secret, "uid": 1, "user": "bot", "gid": 1, "container": null, "unit": secret,
            "cgroup": secret, "script": secret, "ancestry": [{ "pid": 1, "exe": secret }, { "pid": 2, "exe": secret }],
        },
        "file": { "path": secret, "new_path": secret, "change": secret },
        "network": { "family": "unix", "name": secret, "path": secret, "abstract": secret, "query": secret },
        "privilege": {
            "object": secret, "mount_point": secret,
            "target": { "pid": 5, "start_time": null, "exe": secret, "agent": "cat" },
        },
        "detail": { "a": secret, "b": [secret, { "c": secret }], "d": { "e": [[secret]] }, "f": 5, "g": null },
    });
    let mut event = Event::new(Time::EPOCH, Kind::FileOpen, Source::Lsm);
    event.process = serde_json::from_value(json["process"].clone()).unwrap();
    event.file = serde_json::from_value(json["file"].clone()).unwrap();
    event.network = serde_json::from_value(json["network"].clone()).unwrap();
    event.privilege = serde_json::from_value(json["privilege"].clone()).unwrap();
    event.detail = serde_json::from_value(json["detail"].clone()).unwrap();
    event
}

const SECRET: &str = "/x/token=hunter2hunter2/y";

#[test]
fn no_text_of_an_event_keeps_a_secret() {
    let redactor = redactor();
    let mut event = event(SECRET);
    let places = event.to_line().unwrap().matches(SECRET).count();
    redactor.event(&mut event);
    let line = event.to_line().unwrap();
    assert!(!line.contains("hunter2"), "{line}");
    assert_eq!((line.matches(MARK).count(), places), (places, 22), "{line}");
    assert!(line.contains("\"args_sha256\":null"));
}

#[test]
fn an_event_without_secrets_stays_as_it_is() {
    let (redactor, before) = (redactor(), event("/srv/ordinary/name"));
    let mut after = before.clone();
    redactor.event(&mut after);
    assert_eq!(after, before);
    assert_eq!(after.process.unwrap().args_sha256.as_deref(), Some("00"));
}

#[test]
fn a_secret_in_one_text_alone_is_found_wherever_it_is() {
    // Each place by itself: what is found in another one must not be the reason.
    let redactor = redactor();
    for field in ["exe", "cwd", "script", "cgroup", "unit"] {
        let json = serde_json::json!({ "pid": 9, field: SECRET, "args_sha256": "00" });
        let process: Process = serde_json::from_value(json).unwrap();
        let clean = redactor.process(&process).unwrap();
        assert!(!serde_json::to_string(&*clean).unwrap().contains("hunter2"), "{field}");
        assert_eq!(clean.args_sha256.as_deref(), Some("00"), "its arguments have none");
    }
}

#[test]
fn what_is_remembered_of_a_process_is_of_these_arguments() {
    let redactor = redactor();
    let of = |pid: u32, args: &[&str], exit_code| Process {
        pid,
        args: args.iter().map(ToString::to_string).collect(),
        args_sha256: Some("00".to_owned()),
        exit_code,
        ..Process::default()
    };
    let first = redactor.process(&of(7, &["x", "--token", "hunter2"], None)).unwrap();
    // The same process after an exec, another process, and the first one with what changes from event to event.
    assert_eq!(redactor.process(&of(7, &["x", "--verbose", "hunter2"], None)), None);
    let second = redactor.process(&of(7, &["y", "--token", "hunter3"], None)).unwrap();
    assert_eq!((second.args[0].as_str(), second.args == first.args), ("y", false));
    assert_eq!(redactor.process(&of(8, &["x", "y"], None)), None);
    let last = redactor.process(&of(7, &["x", "--token", "hunter2"], Some(3))).unwrap();
    assert_eq!((&last.args, last.exit_code, last.pid), (&first.args, Some(3), 7));
}

#[test]
fn marks_are_of_this_host_and_pseudonyms_too() {
    let (one, other) = (redactor(), Redactor::new([8; 32], &[]).unwrap());
    assert_eq!(one.tag("secret"), redactor().tag("secret"));
    assert_ne!(one.tag("secret"), other.tag("secret"));
    assert_ne!(one.tag("secret"), one.tag("secret2"));
    assert_ne!(one.pseudonym("bot"), other.pseudonym("bot"));
    assert_ne!(one.pseudonym("bot"), one.pseudonym("bob"));
    assert_eq!((one.tag("secret").len(), one.pseudonym("bot").len()), (8, 12));
    assert!(!one.pseudonym("bot").starts_with(&one.tag("bot")), "a pseudonym does not give a mark away");
}

#[test]
fn several_secrets_of_one_text_each_with_what_stands_between() {
    let redactor = redactor();
    let mark = |secret| redactor.mark("assignment", secret);
    let clean =
        redactor.text("a_token=hunter2; b_token='hunter3' c token_x=$T d_token=\"hunter4\" e").unwrap();
    let expect = format!(
        "a_token={}; b_token='{}' c token_x=$T d_token=\"{}\" e",
        mark("hunter2"),
        mark("hunter3"),
        mark("hunter4")
    );
    assert_eq!(clean, expect);
    assert_eq!(redactor.text(&clean), None, "a second time changes nothing");
    // The shortest text that can hold one.
    assert_eq!(redactor.text("pwd="), None);
    assert!(redactor.text("TOKEN=").is_none());
    assert_eq!(redactor.text("token=x").unwrap(), format!("token={}", mark("x")));
    for reference in ["$T", "${T}", "$(cat f)", "%s", "-", "null", "true", "false", "***", "''", "\"\""] {
        assert_eq!(redactor.text(&format!("a_token={reference}")), None, "{reference}");
    }
}

#[test]
fn arguments_each_with_the_neighbour_that_stays() {
    let redactor = redactor();
    let clean = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        redactor.args(&args).map(|args| args.join(" "))
    };
    let option = |secret| redactor.mark("option", secret);
    let user = |secret| redactor.mark("user-password", secret);
    assert_eq!(clean(&["curl", "-u", "bob:", "x"]), None);
    assert_eq!(clean(&["curl", "-u", "bob", "x"]), None);
    for flag in ["-u", "--user", "-a", "--auth", "-U", "--proxy-user"] {
        assert_eq!(
            clean(&["/usr/bin/curl", flag, "bob:pw"]),
            Some(format!("/usr/bin/curl {flag} bob:{}", user("pw")))
        );
        assert_eq!(clean(&["/usr/bin/rsync", flag, "bob:pw"]), None);
    }
    assert_eq!(clean(&["curl", "-x", "bob:pw"]), None);
    assert_eq!(clean(&["x", "--password", ""]), None);
    assert_eq!(clean(&["x", "password", "hunter2"]), None, "no option");
    assert_eq!(
        clean(&["x", "--password", "hunter2", "hunter2"]),
        Some(format!("x --password {} hunter2", option("hunter2")))
    );
    assert_eq!(clean(&["x", "--password", &option("hunter2")]), None, "a mark stays");
    assert_eq!(clean(&["curl", "-u", &format!("bob:{}", user("pw"))]), None);
    assert_eq!(clean(&["mysql", "-p"]), None);
    assert_eq!(clean(&["mysql", &format!("-p{}", option("x"))]), None);
    assert_eq!(clean(&["tar", "-phunter2"]), None);
    assert_eq!(clean(&["-phunter2", "mysql"]), None, "the program itself");
    assert_eq!(
        clean(&["/opt/x/mysqldump", "a", "-phunter2", "b"]),
        Some(format!("/opt/x/mysqldump a -p{} b", option("hunter2")))
    );
    // Two in one list.
    assert_eq!(
        clean(&["x", "--token", "one1", "--secret", "two2"]),
        Some(format!("x --token {} --secret {}", option("one1"), option("two2")))
    );
    assert_eq!(clean(&[]), None);
}

#[test]
fn own_kinds_and_patterns_are_bounded() {
    let rule = |kind: &str, pattern: &str| {
        let rule = OwnRule { kind: kind.to_owned(), pattern: pattern.to_owned() };
        Redactor::new([7; 32], &[rule]).map(drop).map_err(|error| error.problem)
    };
    assert!(rule(&"a".repeat(32), "xyz").is_ok() && rule("a-1", "xyz").is_ok());
    for kind in [String::new(), "a".repeat(33), "a_b".to_owned(), "aB".to_owned(), "é".to_owned()] {
        assert!(rule(&kind, "xyz").unwrap_err().contains("kind"), "{kind}");
    }
    assert!(rule("a", "x?").unwrap_err().contains("everything"));
    // Without a group the whole match is the secret.
    let own = OwnRule { kind: "whole".to_owned(), pattern: "acme-[0-9]+".to_owned() };
    let own = Redactor::new([7; 32], &[own]).unwrap();
    assert_eq!(own.text("see acme-77 now"), Some(format!("see {} now", own.mark("whole", "acme-77"))));
}
