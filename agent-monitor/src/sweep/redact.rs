//! Command lines and URLs without what may be a secret. Pure, total on any text.
//!
//! Rather too much than too little: a value after a flag or name that speaks of keys, a value that looks like a token,
//! user and query of a URL. What was there is marked.

/// What stands for a secret.
pub const REDACTED: &str = "[redacted]";
/// Longest argument that is shown, in characters.
const ARG_CHARS: usize = 200;
/// Most arguments that are shown.
const ARGS_MAX: usize = 24;

/// Arguments as they may be shown and kept.
#[must_use]
pub fn args(args: &[String]) -> Vec<String> {
    let mut out = Vec::with_capacity(args.len().min(ARGS_MAX + 1));
    let mut hide_next = false;
    for arg in args.iter().take(ARGS_MAX) {
        let shown = if hide_next { REDACTED.to_owned() } else { one(arg) };
        let flag = arg.starts_with('-') && !arg.contains('=');
        hide_next = flag && speaks_of_secrets(arg) || matches!(arg.as_str(), "-H" | "--header" | "-u");
        out.push(shown);
    }
    if args.len() > ARGS_MAX {
        out.push(format!("… {} more", args.len() - ARGS_MAX));
    }
    out
}

/// One argument by itself.
#[must_use]
pub fn one(arg: &str) -> String {
    // `a b c` in one argument: a title, or a command for a shell.
    if arg.contains(char::is_whitespace) && arg.len() < 4096 {
        let words: Vec<String> = arg.split_whitespace().map(str::to_owned).collect();
        if words.len() > 1 {
            return cut(&args(&words).join(" "));
        }
    }
    if let Some((name, value)) = arg.split_once('=')
        && (speaks_of_secrets(name) || looks_like_token(value))
        && !value.is_empty()
    {
        return format!("{}={REDACTED}", cut(name));
    }
    if arg.contains("://") {
        return cut(&url(arg));
    }
    if looks_like_token(arg) {
        return REDACTED.to_owned();
    }
    cut(arg)
}

/// A URL without user, query and fragment.
#[must_use]
pub fn url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return one(text) };
    let (rest, tail) = match rest.find(['?', '#']) {
        Some(at) => (rest.get(..at).unwrap_or(rest), "?…"),
        None => (rest, ""),
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let user = if host.len() < authority.len() { "…@" } else { "" };
    let path: Vec<&str> =
        path.split('/').map(|part| if looks_like_token(part) { "…" } else { part }).collect();
    format!("{scheme}://{user}{host}{}{tail}", path.join("/"))
}

/// Whether a flag or variable is named after something secret.
#[must_use]
pub fn speaks_of_secrets(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["key", "token", "secret", "passw", "credential", "bearer", "authorization", "cookie", "pat="]
        .iter()
        .any(|word| name.contains(word))
        || name.ends_with("-auth")
        || name.ends_with("_auth")
}

/// Well-known beginnings of keys, and long texts without structure.
fn looks_like_token(text: &str) -> bool {
    const STARTS: &[&str] = &[
        "sk-",
        "sk_",
        "pk_",
        "rk_",
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "github_pat_",
        "glpat-",
        "xoxb-",
        "xoxp-",
        "xapp-",
        "AKIA",
        "ASIA",
        "AIza",
        "eyJ",
        "hf_",
        "gsk_",
        "npm_",
        "pypi-",
        "ya29.",
        "tvly-",
        "dop_v1_",
        "r8_",
        "nvapi-",
        "Bearer",
    ];
    if text.len() >= 12 && STARTS.iter().any(|start| text.starts_with(start)) {
        return true;
    }
    let token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '=' | '.');
    if text.len() < 28 || !text.chars().all(token) {
        return false;
    }
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let upper = text.bytes().filter(u8::is_ascii_uppercase).count();
    let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
    // Package names and paths are words with few digits.
    digits >= 4 && (upper >= 3 || hex || digits * 4 > text.len())
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(ARG_CHARS) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(line: &str) -> String {
        args(&line.split(' ').map(str::to_owned).collect::<Vec<_>>()).join(" ")
    }

    #[test]
    fn secrets_are_hidden_and_the_rest_stays() {
        for (line, expect) in [
            (
                "npx -y @modelcontextprotocol/server-filesystem /srv",
                "npx -y @modelcontextprotocol/server-filesystem /srv",
            ),
            ("x --api-key abc --model m", "x --api-key [redacted] --model m"),
            ("x --token=abc", "x --token=[redacted]"),
            ("env GITHUB_TOKEN=abc y", "env GITHUB_TOKEN=[redacted] y"),
            ("x ghp_abcdefghijklmnop", "x [redacted]"),
            ("x sk-ant-REDACTED", "x [redacted]"),
            ("curl -H X:y https://u:p@h.example/p?k=v", "curl -H [redacted] https://…@h.example/p?…"),
            ("docker run ghcr.io/github/github-mcp-server", "docker run ghcr.io/github/github-mcp-server"),
            ("x 0123456789abcdef0123456789abcdef", "x [redacted]"),
            ("node dist/index.js --port=8080", "node dist/index.js --port=8080"),
        ] {
            assert_eq!(shown(line), expect);
        }
        assert_eq!(one("sh -c x --password hunter2"), "sh -c x --password [redacted]");
    }

    proptest! {
        #[test]
        fn a_key_after_its_flag_is_never_shown(key in "[a-zA-Z0-9_]{6,40}", before in "[a-z]{1,5}") {
            let line = [before, "--api-key".to_owned(), format!("Q{key}Q"), format!("OPENAI_API_KEY=Q{key}Q")];
            let shown = args(&line).join(" ");
            let secret = format!("Q{key}Q");
            prop_assert!(!shown.contains(&secret));
        }

        #[test]
        fn total(text in ".{0,300}") {
            prop_assert!(one(&text).chars().count() <= 4 * ARG_CHARS);
            let _url = url(&text);
        }
    }
}

#[cfg(test)]
mod neighbour_tests;
