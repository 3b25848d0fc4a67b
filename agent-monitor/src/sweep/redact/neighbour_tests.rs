//! Each reason to hide something by itself, with the neighbour that is shown.

use super::*;

#[test]
fn urls_keep_host_and_ordinary_path_only() {
    for (text, expect) in [
        ("https://h.example/a/b", "https://h.example/a/b"),
        ("https://h.example", "https://h.example"),
        ("https://h.example/?q=1", "https://h.example/?…"),
        ("https://h.example#part", "https://h.example?…"),
        ("https://u:p@h.example:8/a", "https://…@h.example:8/a"),
        ("https://h.example/hooks/sk-abcdefghijkl/x", "https://h.example/hooks/…/x"),
        ("https://h.example/bot0123456789abcdef0123456789abcdef/x", "https://h.example/…/x"),
        ("https://h.example/a@b/c", "https://h.example/a@b/c"),
    ] {
        assert_eq!((url(text), one(text)), (expect.to_owned(), expect.to_owned()));
    }
    assert_eq!(url("plain"), "plain");
    assert_eq!(url("sk-abcdefghijkl"), REDACTED, "what is no URL is an argument");
}

#[test]
fn names_that_speak_of_secrets() {
    for name in [
        "--api-key",
        "GITHUB_TOKEN",
        "client-secret",
        "--passwd",
        "PASSWORD",
        "credentials",
        "bearer",
        "Authorization",
        "cookie",
        "x-auth",
        "X_AUTH",
        "pat=",
    ] {
        assert!(speaks_of_secrets(name), "{name}");
    }
    for name in ["--model", "author", "auth-url", "path", "--port", "authority"] {
        assert!(!speaks_of_secrets(name), "{name}");
    }
}

#[test]
fn tokens_by_their_beginning_or_their_look() {
    let long = |text: &str| text.chars().cycle().take(28).collect::<String>();
    for token in [
        "sk-123456789".to_owned(),
        long("aB3dE6gH1"),
        long("0123456789abcdef"),
        long("abcdefg12"),
        "BearerXXXXXX".to_owned(),
    ] {
        let shown =
            token.len() >= 28 && !token.bytes().any(|byte| byte.is_ascii_uppercase()) && !token.contains('0');
        assert_eq!(one(&token) == REDACTED, !shown, "{token}");
        assert_eq!(one(token.get(1..).unwrap()), token.get(1..).unwrap(), "one character less: {token}");
    }
    for word in [
        "sk-12345678".to_owned(),
        "xsk-123456789".to_owned(),
        "server-everything-with-a-long-name".to_owned(),
        "Model-Context-Protocol-Server-Name".to_owned(),
        "/srv/0123456789abcdef0123456789abcdef".to_owned(),
        "a-package-of-the-year-2024-and-more".to_owned(),
        format!("{}ABC123", "x".repeat(25)),
    ] {
        assert_eq!(one(&word), word);
    }
    // Four digits and three capitals are enough, more digits than a quarter as well.
    for (text, hidden) in [
        (format!("{}ABC1234", "x".repeat(21)), true),
        (format!("{}AB1234", "x".repeat(22)), false),
        (format!("{}12345678", "x".repeat(20)), true),
        (format!("{}1234567", "x".repeat(21)), false),
    ] {
        assert_eq!(one(&text) == REDACTED, hidden, "{text}");
    }
}

#[test]
fn values_of_assignments_and_what_comes_after_a_flag() {
    assert_eq!(one("MODE=fast"), "MODE=fast");
    assert_eq!(one("MODE=sk-123456789"), "MODE=[redacted]");
    assert_eq!(one("API_KEY="), "API_KEY=");
    assert_eq!(one("API_KEY=x"), "API_KEY=[redacted]");
    let shown = |line: &[&str]| args(&line.iter().map(ToString::to_string).collect::<Vec<_>>()).join(" ");
    assert_eq!(shown(&["x", "--api-key", "a", "b"]), "x --api-key [redacted] b");
    assert_eq!(shown(&["x", "--api-key=", "a"]), "x --api-key= a");
    assert_eq!(shown(&["x", "api-key", "a"]), "x api-key a", "no flag");
    for flag in ["-H", "--header", "-u"] {
        assert_eq!(shown(&["x", flag, "a", "b"]), format!("x {flag} [redacted] b"));
    }
    assert_eq!(one("run --token x now"), "run --token [redacted] now");
    assert_eq!(one("word "), "word ");
}

#[test]
fn long_lists_and_texts_are_cut_and_say_so() {
    let list = |count| args(&vec!["x".to_owned(); count]);
    assert_eq!(list(ARGS_MAX), vec!["x"; ARGS_MAX]);
    let cut_list = list(ARGS_MAX + 2);
    assert_eq!((cut_list.len(), cut_list.last().map(String::as_str)), (ARGS_MAX + 1, Some("… 2 more")));
    let word = "/é".repeat(ARG_CHARS / 2);
    assert_eq!(one(&word), word);
    assert_eq!(one(&format!("{word}/")), format!("{word}…"));
    // A text too long to be looked at word by word is cut, and not shown whole.
    assert_eq!(one(&"/a ".repeat(2000)).chars().count(), ARG_CHARS + 1);
}
