//! Configurations as clients write them, and any others.

use proptest::prelude::*;

use super::*;

fn read(text: &str, path: &str) -> Vec<McpServer> {
    let pack = crate::sweep::pack::embedded();
    servers(text.as_bytes(), path, pack).unwrap_or_default().into_iter().map(|s| s.shown).collect()
}

#[test]
fn every_client_s_form_is_read() {
    for (text, path) in [
        (
            r#"{"mcpServers":{"fs":{"command":"npx","args":["-y","@modelcontextprotocol/server-filesystem","/srv"]}}}"#,
            "/.mcp.json",
        ),
        (
            "{// a comment\n\"servers\":{\"fs\":{\"type\":\"stdio\",\"command\":\"npx\",\"args\":[\"-y\",\"@modelcontextprotocol/server-filesystem\",\"/srv\",],},},}",
            "/.vscode/mcp.json",
        ),
        (
            r#"{"mcp":{"fs":{"type":"local","command":["npx","-y","@modelcontextprotocol/server-filesystem","/srv"]}}}"#,
            "/opencode.json",
        ),
        (
            r#"{"projects":{"/p":{"mcpServers":{"fs":{"command":"npx -y @modelcontextprotocol/server-filesystem /srv"}}}}}"#,
            "/.claude.json",
        ),
        (
            r#"{"context_servers":{"fs":{"command":{"path":"npx","args":["-y","@modelcontextprotocol/server-filesystem","/srv"]}}}}"#,
            "/settings.json",
        ),
        (
            "[mcp_servers.fs]\ncommand = \"npx\"\nargs = [\"-y\", \"@modelcontextprotocol/server-filesystem\", \"/srv\"]\n",
            "/config.toml",
        ),
        (
            "extensions:\n  fs:\n    type: stdio\n    cmd: npx\n    args:\n    - -y\n    - '@modelcontextprotocol/server-filesystem'\n    - /srv\n",
            "/config.yaml",
        ),
        (
            "mcpServers:\n  - name: fs\n    command: npx\n    args: [-y, \"@modelcontextprotocol/server-filesystem\", /srv]\n",
            "/config.yaml",
        ),
    ] {
        let found = read(text, path);
        let [server] = found.as_slice() else { panic!("{path}: {found:?}") };
        assert_eq!(server.name, "fs", "{path}");
        assert_eq!(server.command, "npx -y @modelcontextprotocol/server-filesystem /srv", "{path}");
        assert_eq!((server.reach.as_deref(), server.writes), (Some("files /srv"), Some(true)), "{path}");
    }
}

#[test]
fn remote_servers_and_secrets() {
    let text = r#"{"mcpServers":{"r":{"url":"https://me:pw@mcp.example.com/sse?token=abc","headers":{"Authorization":"Bearer xyz"}},
        "g":{"command":"docker","args":["run","-i","-e","GITHUB_PERSONAL_ACCESS_TOKEN","ghcr.io/github/github-mcp-server"],"env":{"GITHUB_PERSONAL_ACCESS_TOKEN":"ghp_secretsecret"},"disabled":true}}}"#;
    let found = read(text, "/x.json");
    let all = serde_json::to_string(&found).unwrap();
    for secret in ["pw@", "abc", "xyz", "ghp_secret"] {
        assert!(!all.contains(secret), "{all}");
    }
    let [g, r] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((r.transport.as_str(), r.reach.as_deref()), ("sse", Some("mcp.example.com")));
    assert_eq!(r.env, ["header Authorization"]);
    assert!(g.disabled && g.env == ["GITHUB_PERSONAL_ACCESS_TOKEN"] && g.reach.as_deref() == Some("GitHub"));
    assert_eq!(read(r#"{"servers":{"web":{"port":80}},"mcp":true}"#, "/x.json"), []);
    let pack = crate::sweep::pack::embedded();
    assert_eq!(servers(b"{", "/x.json", pack), None);
    let deep = "{\"a\":".repeat(50_000);
    assert_eq!(servers(deep.as_bytes(), "/x.json", pack), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0usize..3) {
        let path = ["/a.json", "/a.toml", "/a.yaml"][kind];
        let pack = &Pack::default();
        let _servers = servers(&bytes, path, pack);
    }

    #[test]
    fn any_lines_of_yaml(text in "( {0,6}(- )?[a-c]{0,2}:? ?[\\[\\]\"'a-d,#-]{0,6}\n){0,20}") {
        let pack = &Pack::default();
        let _servers = servers(text.as_bytes(), "/a.yaml", pack);
    }

    #[test]
    fn json_without_comments_stays(keys in prop::collection::vec("[a-z/*, \\]}]{0,8}", 0..5)) {
        let value = serde_json::json!({ "k": keys });
        let text = serde_json::to_string(&value).unwrap();
        let again: Value = serde_json::from_str(&plain_json(&text)).unwrap();
        prop_assert_eq!(again, value);
    }
}
