//! What a secret looks like, as data: a kind and a pattern. The first group of a pattern is the secret, the
//! whole match where it has none.
//!
//! Forms of keys are those that the providers publish for secret scanning; words are those of common tools.

/// Patterns in the order in which they win at the same place.
pub(super) const PATTERNS: &[(&str, &str)] = &[
    ("private-key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?"),
    ("anthropic-key", r"\bsk-ant-[A-Za-z0-9_-]{16,}"),
    ("openrouter-key", r"\bsk-or-[A-Za-z0-9_-]{16,}"),
    ("openai-key", r"\bsk-(?:proj-|svcacct-|admin-|None-)?[A-Za-z0-9_-]{20,}"),
    ("aws-key-id", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"),
    ("github-token", r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{22,})"),
    ("gitlab-token", r"\bgl(?:pat|ptt|dt|rt|cbt|ft|soat)-[A-Za-z0-9_-]{16,}"),
    ("slack-token", r"\b(?:xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,})"),
    ("slack-webhook", r"hooks\.slack\.com/(?:services|workflows)/([A-Za-z0-9/_-]{16,})"),
    ("discord-webhook", r"discord(?:app)?\.com/api/webhooks/[0-9]+/([A-Za-z0-9_-]{16,})"),
    ("telegram-token", r"\b[0-9]{8,10}:[A-Za-z0-9_-]{35}\b"),
    ("google-key", r"\bAIza[A-Za-z0-9_-]{30,}"),
    ("google-token", r"\bya29\.[A-Za-z0-9_-]{16,}"),
    ("stripe-key", r"\b(?:sk|rk|whsec)_(?:live_|test_)?[A-Za-z0-9]{16,}"),
    ("huggingface-token", r"\bhf_[A-Za-z0-9]{20,}"),
    ("groq-key", r"\bgsk_[A-Za-z0-9]{20,}"),
    ("xai-key", r"\bxai-[A-Za-z0-9]{20,}"),
    ("replicate-token", r"\br8_[A-Za-z0-9]{20,}"),
    ("perplexity-key", r"\bpplx-[A-Za-z0-9]{20,}"),
    ("npm-token", r"\bnpm_[A-Za-z0-9]{30,}"),
    ("pypi-token", r"\bpypi-[A-Za-z0-9_-]{40,}"),
    ("digitalocean-token", r"\bdo[opr]_v1_[a-f0-9]{40,}"),
    ("sendgrid-key", r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    ("vault-token", r"\bhv[sbr]\.[A-Za-z0-9_-]{20,}"),
    ("jwt", r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    (
        "authorization",
        r#"(?i)\bauthorization["']?\s*[:=]\s*["']?(?:(?:bearer|basic|token|digest|negotiate|apikey)\s+)?([^\s"']+)"#,
    ),
    ("authorization", r"(?i)\bbearer\s+([A-Za-z0-9._~+/=-]{8,})"),
    ("cookie", r"(?i)\b(?:set-)?cookie:\s*([^\r\n]+)"),
    (
        "header",
        r#"(?i)\b(?:x-)?(?:[a-z]+-)*(?:api-?key|auth-token|access-token|private-token|job-token|secret|subscription-key)\s*:\s*([^\s"',}]+)"#,
    ),
    ("url-password", r"\b[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@]*:([^/\s@]+)@"),
    ("url-token", r"\b[A-Za-z][A-Za-z0-9+.-]*://([A-Za-z0-9_-]{20,})@"),
    (
        "url-parameter",
        r#"(?i)[?&;](?:x-amz-signature|x-amz-security-token|x-amz-credential|x-goog-signature|[a-z_-]*token|[a-z_-]*api[_-]?key|key|secret|client_secret|password|passwd|pwd|sig|signature|sv?code)=([^&\s#"';]+)"#,
    ),
    (
        "option",
        r#"(?i)(?:^|\s)--?(?:[a-z0-9]+[-_])*(?:password|passwd|passphrase|pwd|secret|token|api[-_]?key|access[-_]?key|secret[-_]?key|bearer)(?:=|\s+)("[^"]*"|'[^']*'|[^\s"'-][^\s"']*)"#,
    ),
    (
        "assignment",
        r#"(?i)\b[a-z0-9_]*(?:password|passwd|passphrase|secret|token|api_?key|access_?key|private_?key|credentials?)(?:_[a-z0-9_]*|[0-9]*)=("[^"]*"|'[^']*'|[^\s;&|"']+)"#,
    ),
    (
        "json",
        r#"(?i)"[a-z0-9_-]*(?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key)[a-z0-9_-]*"\s*:\s*"([^"]+)""#,
    ),
];

/// An option whose value is the next argument.
pub(super) const OPTION: &str = r"(?i)^--?(?:[a-z0-9]+[-_])*(?:password|passwd|passphrase|pass|pwd|secret|token|api[-_]?key|access[-_]?key|secret[-_]?key|client[-_]secret|bearer)$";

/// Programs for which `-pSECRET` is a password.
pub(super) const SHORT_PASSWORD: &[&str] =
    &["mysql", "mysqldump", "mysqladmin", "mariadb", "mariadb-dump", "mariadb-admin", "sshpass"];

/// Programs for which `-u NAME:SECRET` are credentials.
pub(super) const USER_PASSWORD: &[&str] = &["curl", "http", "https", "xh", "ab", "siege"];
