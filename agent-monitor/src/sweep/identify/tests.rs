//! Command lines that are agents, and such that only look like it.

use proptest::prelude::*;

use super::*;

fn told(line: &str) -> Option<(String, u8)> {
    let pack = crate::sweep::pack::embedded();
    let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let hit = best(pack, &args)?;
    Some((pack.product(hit.product)?.id.clone(), hit.weight))
}

#[test]
fn agents_are_told() {
    for (line, id) in [
        ("claude --dangerously-skip-permissions", "claude-code"),
        ("/home/a/.local/share/claude/versions/2.1.3", "claude-code"),
        ("node /usr/lib/node_modules/@openai/codex/bin/codex.js exec x", "codex-cli"),
        ("/opt/n/lib/node_modules/@openai/codex/vendor/x/codex/codex exec", "codex-cli"),
        (
            "node --no-warnings=DEP0040 /usr/bin/../lib/node_modules/@google/gemini-cli/dist/index.js",
            "gemini-cli",
        ),
        ("python3 -m aider --model x", "aider"),
        ("/home/a/.local/share/uv/tools/aider-chat/bin/python /home/a/.local/bin/aider", "aider"),
        ("goose session", "goose"),
        ("npx -y @modelcontextprotocol/server-filesystem@1 /srv", "mcp-reference-servers"),
        ("npm exec @playwright/mcp@latest", "mcp-popular"),
        ("uvx --from mcp-server-git==1 mcp-server-git", "mcp-reference-servers"),
        ("env A=1 sh -c 'npx'", "-"),
        ("python3 -m vllm.entrypoints.openai.api_server --port 8000", "vllm"),
        ("ollama serve", "ollama"),
        ("timeout 5 sudo -u bob claude -p x", "claude-code"),
        ("VLLM::EngineCore", "vllm"),
    ] {
        let found = told(line);
        if id == "-" {
            continue;
        }
        let (found, weight) = found.unwrap_or_default();
        assert!(found == id && weight >= 50, "{line}: {found} {weight}");
    }
}

#[test]
fn look_alikes_are_not() {
    for line in [
        "goose up",
        "/usr/local/bin/goose postgres status",
        "aide --check",
        "amp",
        "crush image.png",
        "vim claude",
        "cat /usr/lib/node_modules/@openai/codex/package.json",
        "python3 /srv/goose.py",
        "less CLAUDE.md",
        "grep -r claude .",
        "node /srv/app/server.js --port 8000",
        "python3 -m http.server 8000",
        "bash /home/a/ollama-backup.sh",
        "tar cf ollama.tar ollama",
        "grok -f x",
        "copilot svc deploy",
        "tabby",
        "hermes x.js",
        "docker run -v /claude:/x alpine",
    ] {
        let found = told(line);
        assert!(found.as_ref().is_none_or(|(_, weight)| *weight < 50), "{line}: {found:?}");
    }
}

#[test]
fn wrappers_and_runners() {
    let sub = |line: &[&str]| {
        let args: Vec<String> = line.iter().map(ToString::to_string).collect();
        subject("", &args, "/w")
    };
    let npm = |name: &str| Some((Ecosystem::Npm, name.to_owned()));
    assert_eq!(sub(&["npx", "-y", "-p", "@a/b@2", "b"]).package, npm("@a/b"));
    assert_eq!(sub(&["sh", "-c", "cd /x && exec npx -y some-mcp --x"]).package, npm("some-mcp"));
    assert_eq!(sub(&["pnpm", "dlx", "x@latest"]).package, npm("x"));
    let docker =
        sub(&["docker", "run", "-i", "--rm", "-e", "T", "ghcr.io/github/github-mcp-server:v1", "stdio"]);
    assert_eq!(docker.image.as_deref(), Some("github/github-mcp-server"));
    assert_eq!(docker.rest, ["stdio"]);
    assert_eq!(untagged("localhost:5000/a/b:1@sha256:00"), "a/b");
    assert_eq!(sub(&["python3", "bot.py", "--once"]).paths, ["/w/bot.py"]);
    assert_eq!(sub(&["python3", "bot.py", "--once"]).rest, ["--once"]);
    assert_eq!(shell_words("a 'b c' \"d\"e\\ f; g"), ["a", "b c", "de f"]);
}

proptest! {
    #[test]
    fn any_line_is_read(exe in ".{0,20}", args in prop::collection::vec(".{0,24}", 0..8)) {
        let pack = crate::sweep::pack::embedded();
        let _hits = identify(pack, &subject(&exe, &args, "/w"));
    }

    #[test]
    fn arguments_never_make_an_agent(args in prop::collection::vec("(claude|codex|aider|/x/node_modules/@openai/codex/a|-p|--yolo)", 0..6)) {
        let pack = crate::sweep::pack::embedded();
        let mut line = vec!["/usr/bin/cat".to_owned()];
        line.extend(args);
        prop_assert_eq!(best(pack, &line), None);
    }
}
