//! Every built-in rule with a secret it must take out, and what must stay.

use proptest::prelude::*;

use super::*;
use crate::model::{File, Kind, Source, Time};

fn redactor() -> Redactor {
    Redactor::new([7; 32], &[]).unwrap()
}

/// A made-up value of a form: nothing here is or was a key.
fn filler(length: usize) -> String {
    "Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4z".chars().cycle().take(length).collect()
}

#[track_caller]
fn hidden(text: &str, kind: &str, secret: &str) {
    let clean = redactor().text(text).unwrap_or_else(|| panic!("nothing redacted in {text}"));
    assert!(clean.contains(&format!("[redacted:{kind}:")), "{clean}");
    assert!(!clean.contains(secret), "{clean}");
}

#[test]
fn forms_of_provider_keys() {
    let body = filler(40);
    for (prefix, kind) in [
        ("sk-ant-api03-", "anthropic-key"),
        ("sk-proj-", "openai-key"),
        ("sk-", "openai-key"),
        ("ghp_", "github-token"),
        ("github_pat_", "github-token"),
        ("glpat-", "gitlab-token"),
        ("xoxb-", "slack-token"),
        ("AIza", "google-key"),
        ("ya29.", "google-token"),
        ("sk_live_", "stripe-key"),
        ("hf_", "huggingface-token"),
        ("gsk_", "groq-key"),
        ("xai-", "xai-key"),
        ("r8_", "replicate-token"),
        ("pplx-", "perplexity-key"),
        ("npm_", "npm-token"),
        ("pypi-", "pypi-token"),
        ("hvs.", "vault-token"),
    ] {
        hidden(&format!("say {prefix}{body} now"), kind, &body);
    }
    hidden(&format!("AKIA{}", "A1B2C3D4E5F6G7H8"), "aws-key-id", "A1B2C3D4E5F6G7H8");
    hidden(&format!("eyJ{body}.{body}.{body}"), "jwt", &body);
    let key = format!("-----BEGIN OPENSSH PRIVATE {}-----\n{body}\n-----END OPENSSH PRIVATE KEY-----", "KEY");
    hidden(&key, "private-key", &body);
}

#[test]
fn names_of_secrets() {
    for (text, kind) in [
        ("Authorization: Bearer hunter2hunter2", "authorization"),
        ("authorization: basic hunter2hunter2", "authorization"),
        ("Cookie: session=hunter2hunter2", "cookie"),
        ("X-Api-Key: hunter2hunter2", "header"),
        ("PRIVATE-TOKEN: hunter2hunter2", "header"),
        ("https://bob:hunter2hunter2@host/x", "url-password"),
        ("postgres://bob:hunter2hunter2@db:5432/x", "url-password"),
        ("https://host/x?a=1&access_token=hunter2hunter2&b=2", "url-parameter"),
        ("--password=hunter2hunter2", "option"),
        ("tool --db-password hunter2hunter2 --x", "option"),
        ("DB_PASSWORD=hunter2hunter2", "assignment"),
        ("export GITHUB_TOKEN='hunter2hunter2'; make", "assignment"),
        (r#"{"client_secret": "hunter2hunter2"}"#, "json"),
        ("/tmp/api_key=hunter2hunter2.txt", "assignment"),
    ] {
        hidden(text, kind, "hunter2hunter2");
    }
    let clean = redactor().text("https://bob:hunter2@host/x?token=abc&b=2").unwrap();
    assert!(clean.starts_with("https://bob:[redacted:url-password:") && clean.ends_with("]&b=2"), "{clean}");
}

#[test]
fn ordinary_text_stays() {
    for text in [
        "git push origin main",
        "https://example.com/a?b=c&page=2",
        "ssh://git@example.com/x.git",
        "/home/bot/.ssh/id_ed25519",
        "/usr/share/doc/password-store/README",
        "cat token.txt",
        "--tokenizer=bert",
        "PASSWORD=$PASSWORD",
        "--token=${TOKEN}",
        "skill-test-of-a-long-name-that-is-no-key",
        "basic task-ant-farm",
        "é\\xff ¼ ünïcödé paths/with:colons@and-ats",
    ] {
        assert_eq!(redactor().text(text), None, "{text}");
    }
}

#[test]
fn values_in_the_next_argument() {
    let clean = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        redactor().args(&args)
    };
    let tag = redactor().tag("hunter2");
    let option = format!("[redacted:option:{tag}]");
    assert_eq!(clean(&["x", "--password", "hunter2", "y"]).unwrap(), ["x", "--password", &option, "y"]);
    assert_eq!(clean(&["mysql", "-phunter2"]).unwrap(), ["mysql", &format!("-p{option}")]);
    assert_eq!(
        clean(&["/usr/bin/curl", "-u", "bob:hunter2", "http://h"]).unwrap()[2],
        format!("bob:[redacted:user-password:{tag}]")
    );
    assert_eq!(clean(&["x", "--password", "--verbose"]), None);
    assert_eq!(clean(&["x", "--token", "$TOKEN"]), None);
    assert_eq!(clean(&["mkdir", "-pv", "a"]), None);
    assert_eq!(clean(&["sudo", "-u", "bob:x", "id"]), None);
}

#[test]
fn own_rules_win_and_are_checked() {
    let rule = |kind: &str, pattern: &str| OwnRule { kind: kind.to_owned(), pattern: pattern.to_owned() };
    let own = Redactor::new([7; 32], &[rule("acme", r"\bacme:([0-9]{4})")]).unwrap();
    assert_eq!(own.text("id acme:1234.").unwrap(), format!("id acme:{}.", own.mark("acme", "1234")));
    for (kind, pattern, problem) in
        [("Acme", "x", "kind"), ("a", "(", "unclosed"), ("a", "x*", "everything"), ("", "x", "kind")]
    {
        let error = Redactor::new([7; 32], &[rule(kind, pattern)]).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn equal_secrets_match_and_keys_differ() {
    let (one, other) = (redactor(), Redactor::new([8; 32], &[]).unwrap());
    let tag = |text: &str, r: &Redactor| r.text(text).unwrap().rsplit(':').next().unwrap().to_owned();
    assert_eq!(tag("--password=hunter22", &one), tag("DB_PASSWORD=hunter22", &one));
    assert_ne!(tag("--password=hunter22", &one), tag("--password=hunter22", &other));
}

#[test]
fn an_event_loses_its_secrets_and_their_hash() {
    let process = Process {
        pid: 7,
        args: vec!["x".into(), "--token".into(), "hunter2".into()],
        args_sha256: Some("00".into()),
        ..Process::default()
    };
    let mut event = Event::new(Time::EPOCH, Kind::FileOpen, Source::Lsm);
    event.process = Some(Arc::new(process));
    event.file = Some(File { path: Some("/tmp/secret=hunter2hunter2".into()), ..File::default() });
    event.detail =
        Some(serde_json::Map::from_iter([("a".to_owned(), serde_json::json!(["token=hunter2x"]))]));
    let redactor = redactor();
    redactor.event(&mut event);
    let line = event.to_line().unwrap();
    assert!(!line.contains("hunter2") && line.contains("\"args_sha256\":null"), "{line}");
    let once = event.clone();
    redactor.event(&mut event);
    assert_eq!(event, once, "marks are not redacted again");
}

proptest! {
    #[test]
    fn a_secret_is_gone_wherever_it_stands(before in "[ -~é]{0,30}", after in "[ -~é]{0,30}") {
        let secret = format!("ghp_{}", filler(36));
        let text = format!("{before} {secret} {after}");
        prop_assert!(!redactor().text(&text).unwrap_or(text).contains(&secret));
    }

    #[test]
    fn any_text_is_taken_and_a_second_time_changes_nothing(text in "\\PC{0,200}") {
        let redactor = redactor();
        if let Some(clean) = redactor.text(&text) {
            prop_assert!(redactor.text(&clean).is_none_or(|again| again.contains(MARK)));
        }
    }
}
