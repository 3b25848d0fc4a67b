//! `sweep --root` of the built binary over made-up hosts, without root or daemon: the contract, baselines, proposals,
//! packs, and hosts that do not want to be swept.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

struct Host {
    root: TempDir,
    own: TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { root: TempDir::new().unwrap(), own: TempDir::new().unwrap() };
        host.file("etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n");
        host.file("etc/hostname", "build-7\n");
        host.file("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        host.file("etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 13\"\n");
        fs::create_dir_all(host.root.path().join("home/alice")).unwrap();
        host
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn npm(&self, dir: &str, name: &str, version: &str) {
        self.file(
            &format!("{dir}/{name}/package.json"),
            &format!(r#"{{"name":"{name}","version":"{version}"}}"#),
        );
    }

    /// A host with one of everything.
    fn busy() -> Self {
        let host = Self::new();
        host.npm("usr/lib/node_modules", "@anthropic-ai/claude-code", "2.1.3");
        host.file("home/alice/.claude/settings.json", "{}");
        host.file("home/alice/.claude.json", r#"{"mcpServers":{"files":{"command":"npx","args":["-y","@modelcontextprotocol/server-filesystem","/srv"],"env":{"SOME_TOKEN":"hush-hush"}}}}"#);
        host.file("home/alice/.local/share/uv/tools/aider-chat/lib/python3.12/site-packages/aider_chat-0.86.1.dist-info/METADATA", "");
        host.file("home/alice/.vscode/extensions/saoudrizwan.claude-dev-3.2.1/package.json", "{}");
        host.file("etc/systemd/system/bot.service", "[Service]\nExecStart=/usr/bin/python3 /srv/bot.py\n");
        host.file("srv/bot.py", "from crewai import Agent\n");
        host.file("home/alice/work/requirements.txt", "langgraph==1\n");
        host.file("home/alice/.bash_history", "claude -p x\nclaude\n");
        host
    }

    fn run(&self, args: &[&str]) -> Ran {
        let at = self.own.path();
        fs::write(at.join("c.toml"), "").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_agent-monitor"))
            .args(args)
            .env_clear()
            .env("AGENT_MONITOR_SOCKET", at.join("c.sock"))
            .env("AGENT_MONITOR_REGISTRY", at.join("agents.d"))
            .env("AGENT_MONITOR_CONFIG", at.join("c.toml"))
            .env("AGENT_MONITOR_SIGNATURES", at.join("signatures.d"))
            .current_dir(at)
            .output()
            .unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn sweep(&self, more: &[&str]) -> Ran {
        let root = self.root.path().to_str().unwrap().to_owned();
        self.run(&[&["sweep", "--root", &root], more].concat())
    }

    #[track_caller]
    fn json(&self, more: &[&str]) -> Value {
        let ran = self.sweep(&[&["-o", "json"], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        serde_json::from_str(&ran.out).unwrap()
    }
}

fn find<'a>(report: &'a Value, product: &str) -> &'a Value {
    let all = report["finds"].as_array().unwrap();
    let found: Vec<&Value> = all.iter().filter(|find| find["product"]["id"] == product).collect();
    let [only] = found.as_slice() else { panic!("{product}: {} finds in {report:#}", found.len()) };
    only
}

/// What differs from run to run.
fn steady(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object.iter_mut() {
                match key.as_str() {
                    "when" | "time" if value.is_string() => *value = "TIME".into(),
                    "millis" => *value = 0.into(),
                    "uid" if value.is_number() => *value = 1000.into(),
                    "root" if value.is_string() => *value = "ROOT".into(),
                    "tool_version" | "pack_version" => *value = "VERSION".into(),
                    "id" if value.as_str().is_some_and(|id| id.len() == 36) => *value = "UUID".into(),
                    _ => steady(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(steady),
        _ => {}
    }
}

/// `UPDATE_GOLDEN=1` writes the file anew.
#[test]
fn the_contract_is_the_golden_file() {
    let mut report = Host::busy().json(&["--history"]);
    steady(&mut report);
    let now = serde_json::to_string_pretty(&report).unwrap() + "\n";
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/sweep.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &now).unwrap();
    }
    assert_eq!(fs::read_to_string(&golden).unwrap(), now, "{} differs", golden.display());
}

#[test]
fn everything_of_a_busy_host_is_found_once() {
    let host = Host::busy();
    let report = host.json(&["--history"]);
    for (product, state, version, user) in [
        ("claude-code", "installed", Some("2.1.3"), Some("alice")),
        ("aider", "installed", Some("0.86.1"), Some("alice")),
        ("cline-cli", "installed", Some("3.2.1"), Some("alice")),
        ("mcp-reference-servers", "configured", None, Some("alice")),
        ("home-made", "configured", None, None),
        ("langchain", "traces", None, Some("alice")),
    ] {
        let all = report["finds"].as_array().unwrap();
        let found = all
            .iter()
            .find(|f| f["product"]["id"] == product && f["state"] == state)
            .unwrap_or_else(|| panic!("{product} {state}: {report:#}"));
        assert_eq!(found["product"]["version"].as_str(), version, "{product}");
        assert_eq!(found["owner"]["user"].as_str(), user, "{product}");
        assert_eq!(found["registry"]["state"], "shadow", "{product}");
    }
    let servers = find(&report, "mcp-reference-servers");
    assert_eq!(servers["mcp_servers"][0]["env"], serde_json::json!(["SOME_TOKEN"]));
    let all = serde_json::to_string(&report).unwrap();
    assert!(!all.contains("hush-hush"), "a secret's value is shown");
    let counted = report["finds"].as_array().unwrap().iter().find_map(|f| f["history_count"].as_u64());
    assert_eq!(counted, Some(2));
    assert_eq!(report["host"]["name"], "build-7");
    assert_ne!(report["host"]["id"], "0123456789abcdef0123456789abcdef");
    let lines = host.sweep(&["-o", "jsonl"]);
    for line in lines.out.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(
            line["host"]["name"] == "build-7" && line["schema_version"] == 1 && line["id"].is_string(),
            "{line}"
        );
    }
    assert_eq!(host.sweep(&["--exit-code", "7"]).code, 7);
    assert_eq!(Host::new().sweep(&["--exit-code", "7"]).code, 0);
}

#[test]
fn registered_and_expired_agents_are_no_news() {
    let host = Host::busy();
    let record = |expires: &str| {
        format!(
            "[agent]\nid = \"coder\"\nowner = \"a@example.com\"\npurpose = \"codes\"\nexpires = {expires}\n\
             [[match]]\nscript = \"/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js\"\n"
        )
    };
    let registry = host.own.path().join("agents.d");
    fs::create_dir(&registry).unwrap();
    let state = || {
        let report = host.json(&[]);
        let all = report["finds"].as_array().unwrap().clone();
        let found = all
            .iter()
            .find(|f| f["product"]["id"] == "claude-code" && f["state"] == "installed")
            .unwrap()
            .clone();
        (found["registry"]["state"].as_str().unwrap().to_owned(), found["registry"]["agent"].clone())
    };
    assert_eq!(state().0, "shadow");
    fs::write(registry.join("coder.toml"), record("2027-06-30T00:00:00Z")).unwrap();
    assert_eq!(state(), ("registered".to_owned(), "coder".into()));
    fs::write(registry.join("coder.toml"), record("2020-06-30T00:00:00Z")).unwrap();
    assert_eq!(state(), ("expired".to_owned(), "coder".into()));
}

#[test]
fn baselines_tell_new_seen_changed_and_gone() {
    let host = Host::busy();
    let base = ["--baseline", "base.json", "--update-baseline"];
    let first = host.json(&base);
    assert!(first["finds"].as_array().unwrap().iter().all(|f| f["change"] == "new"));
    assert!(host.json(&base)["finds"].as_array().unwrap().iter().all(|f| f["change"] == "seen"));
    host.npm("usr/lib/node_modules", "@anthropic-ai/claude-code", "2.2.0");
    host.npm("usr/lib/node_modules", "@openai/codex", "0.1.0");
    fs::remove_dir_all(host.root.path().join("home/alice/.vscode")).unwrap();
    let now = host.json(&["--baseline", "base.json"]);
    let change = |product: &str| find(&now, product)["change"].clone();
    assert_eq!((change("codex-cli"), change("aider")), ("new".into(), "seen".into()));
    let claude =
        now["finds"].as_array().unwrap().iter().find(|f| f["product"]["version"] == "2.2.0").unwrap().clone();
    assert_eq!(claude["change"], "changed");
    assert_eq!(
        (&now["gone"][0]["product"]["id"], &now["gone"][0]["change"]),
        (&"cline-cli".into(), &"gone".into())
    );
    let none = host.sweep(&["--baseline", "none.json"]);
    assert!(none.code == 1 && none.err.contains("hint: make one"), "{}", none.err);
}

#[test]
fn what_was_uninstalled_is_traces_only() {
    let host = Host::new();
    host.npm("home/alice/.npm-global/lib/node_modules", "@openai/codex", "0.1.0");
    host.file("home/alice/.codex/config.toml", "");
    assert_eq!(find(&host.json(&[]), "codex-cli")["state"], "installed");
    fs::remove_dir_all(host.root.path().join("home/alice/.npm-global")).unwrap();
    let report = host.json(&[]);
    assert_eq!(find(&report, "codex-cli")["state"], "traces");
    assert_eq!(host.sweep(&["--exit-code", "7"]).code, 0, "traces are no agent that is there");
}

#[test]
fn proposals_are_records_that_somebody_must_answer_for() {
    let host = Host::busy();
    assert_eq!(host.sweep(&["--propose", "new"]).code, 0);
    let dir = host.own.path().join("new");
    let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(names.len() >= 5, "{names:?}");
    for path in &names {
        let checked = host.run(&["agent", "check", path.to_str().unwrap()]);
        assert!(checked.code == 1 && checked.err.is_empty(), "{}", checked.err);
        assert!(checked.out.contains("agent.owner is missing"), "{}", checked.out);
        let text = fs::read_to_string(path).unwrap();
        let filled = text.replacen(
            "mode =",
            "owner = \"a@example.com\"\npurpose = \"x\"\nexpires = 2027-06-30T00:00:00Z\nmode =",
            1,
        );
        fs::write(path, filled).unwrap();
        let checked = host.run(&["agent", "check", path.to_str().unwrap()]);
        // Users and paths of the swept root are not this host's; nothing else may be wrong.
        let wrong = |line: &&str| line.starts_with("error") && !line.contains("unknown-user");
        let errors: Vec<&str> = checked.out.lines().filter(wrong).collect();
        assert!(
            errors.is_empty(),
            "{}: {}\n{}",
            path.display(),
            checked.out,
            fs::read_to_string(path).unwrap()
        );
    }
    let again = host.sweep(&["--propose", "new"]);
    assert!(again.err.contains("stays as it is") && again.err.contains("0 records"), "{}", again.err);
}

#[test]
fn packs_are_checked_with_lines_and_extend_the_sweep() {
    let host = Host::new();
    let own = |name: &str| host.own.path().join(name);
    fs::write(
        own("bad.toml"),
        "schema = 1\n[[product]]\nid = \"x\"\nname = \"X\"\nkind = \"cli_agent\"\nprogramz = [\"x\"]\n",
    )
    .unwrap();
    let bad = host.run(&["sweep", "--pack", "check", "bad.toml"]);
    assert!(
        bad.code == 1 && bad.out.contains("bad.toml:6:1") && bad.out.contains("did you mean `programs`"),
        "{}",
        bad.out
    );
    assert_eq!(host.run(&["sweep", "--pack", "show", "bad.toml"]).code, 2);
    fs::create_dir(own("signatures.d")).unwrap();
    let good = "schema = 1\n[[product]]\nid = \"our-bot\"\nname = \"Our Bot\"\nkind = \"autonomous_agent\"\nstate = [\"~/.ourbot\"]\nprograms = [\"ourbot\"]\n";
    fs::write(own("signatures.d/our.toml"), good).unwrap();
    fs::copy(own("bad.toml"), own("signatures.d/bad.toml")).unwrap();
    host.file("home/alice/.ourbot/x", "");
    let ran = host.sweep(&["-o", "json"]);
    assert!(ran.code == 0 && ran.err.contains("left out"), "{}", ran.err);
    find(&serde_json::from_str(&ran.out).unwrap(), "our-bot");
    assert_eq!(host.run(&["sweep", "--pack", "check", "signatures.d/our.toml"]).code, 0);
}

#[test]
fn a_find_becomes_an_agent() {
    let host = Host::busy();
    let report = host.json(&[]);
    fs::write(host.own.path().join("report.json"), report.to_string()).unwrap();
    let id = find(&report, "aider")["id"].as_str().unwrap().to_owned();
    let adopt = |more: &[&str]| {
        let args = [
            "agent",
            "adopt",
            &id,
            "--owner",
            "a@example.com",
            "--purpose",
            "codes",
            "--expires",
            "2027-06-30T00:00:00Z",
        ];
        host.run(&[&args[..], &["--from", "report.json"], more].concat())
    };
    let dry = adopt(&["--dry-run"]);
    assert!(dry.code == 0 && dry.out.contains("owner = \"a@example.com\""), "{}{}", dry.out, dry.err);
    assert!(!host.own.path().join("agents.d").exists());
    let unknown = host.run(&[
        "agent",
        "adopt",
        "shadow-0",
        "--owner",
        "x",
        "--purpose",
        "x",
        "--expires",
        "2027-06-30T00:00:00Z",
        "--from",
        "report.json",
    ]);
    assert!(unknown.code == 1 && unknown.err.contains("there is no find shadow-0"), "{}", unknown.err);
}

/// Names, kinds, sizes and times of everything below a directory.
fn listing(root: &Path) -> BTreeMap<String, (u64, i64, i64, u32)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            found.insert(
                path.to_string_lossy().into_owned(),
                (meta.size(), meta.mtime(), meta.ctime(), meta.mode()),
            );
            if meta.is_dir() {
                waiting.push(path);
            }
        }
    }
    found
}

#[test]
fn a_hostile_host_is_swept_to_the_end() {
    let host = Host::busy();
    let at = |path: &str| host.root.path().join(path);
    let outside = TempDir::new().unwrap();
    fs::create_dir_all(outside.path().join("node_modules/@openai/codex")).unwrap();
    fs::write(outside.path().join("node_modules/@openai/codex/package.json"), "{\"version\":\"6.6.6\"}")
        .unwrap();
    // Links that lead out, in a circle, and into themselves.
    symlink(outside.path().join("node_modules"), at("home/alice/node_modules")).unwrap();
    symlink("..", at("home/alice/up")).unwrap();
    symlink("self", at("home/alice/self")).unwrap();
    symlink("/proc/self/root", at("home/alice/magic")).unwrap();
    for dir in 0..100 {
        fs::create_dir_all(at(&format!("home/alice/many/{dir}"))).unwrap();
        // Links are made faster than files; what is listed is the same.
        let first = at(&format!("home/alice/many/{dir}/0"));
        fs::write(&first, "").unwrap();
        for file in 1..1000 {
            fs::hard_link(&first, at(&format!("home/alice/many/{dir}/{file}"))).unwrap();
        }
    }
    let deep = (0..300).map(|n| format!("d{n}")).collect::<Vec<_>>().join("/");
    fs::create_dir_all(at("home/alice").join(deep)).unwrap();
    // Files that are not what they seem.
    fs::create_dir_all(at("usr/lib/node_modules/opencode-ai")).unwrap();
    fs::File::create(at("usr/lib/node_modules/opencode-ai/package.json")).unwrap().set_len(2 << 30).unwrap();
    fs::create_dir_all(at("home/alice/.codex")).unwrap();
    let fifo = |path: &str| {
        let made = Command::new("mkfifo").arg(at(path)).status().unwrap();
        assert!(made.success());
    };
    fifo("home/alice/.codex/config.toml");
    fifo("etc/systemd/system/fifo.service");
    fifo("home/alice/work/package.json");
    host.file("home/alice/.gemini/settings.json", &"[".repeat(200_000));
    host.file(
        "home/alice/.cursor/mcp.json",
        "{\"mcpServers\":{\"\u{1b}]0;owned\u{7}\u{202e}\":{\"command\":\"\u{1b}[2J\"}}}",
    );
    host.file("home/alice/\u{1b}[31m\n/.aider.conf.yml", "");
    fs::create_dir_all(at("home/alice/shut/.claude")).unwrap();
    fs::set_permissions(at("home/alice/shut"), fs::Permissions::from_mode(0o000)).unwrap();
    // Programs that would tell that they were run.
    for name in ["claude", "codex", "node", "npx", "python3"] {
        host.file(
            &format!("usr/local/bin/{name}"),
            "#!/bin/sh\ntouch /tmp/agent-monitor-was-run-$$ \"$0.run\"\n",
        );
        fs::set_permissions(at(&format!("usr/local/bin/{name}")), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let before =
        listing(&at("etc")).into_iter().chain(listing(&at("usr"))).chain(listing(&at("home/alice/many/7")));
    let before: BTreeMap<_, _> = before.collect();
    let begin = std::time::Instant::now();
    let ran = host.sweep(&["-o", "json", "--history"]);
    let took = begin.elapsed();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(took.as_secs() < 30, "{took:?}");
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(!ran.out.contains("6.6.6"), "a link led outside");
    assert_eq!(find(&report, "opencode")["product"]["version"], Value::Null);
    assert!(find(&report, "codex-cli")["state"].is_string());
    let coverage = report["coverage"].to_string();
    for said in ["too large: 1", "not a regular file", "in no form that is known"] {
        assert!(coverage.contains(said), "{said}: {coverage}");
    }
    let table = host.sweep(&["--all", "--evidence"]);
    let controls = |text: &str| text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}');
    assert!(!controls(&table.out) && !controls(&table.err), "{:?}", table.out);
    let after: BTreeMap<_, _> = listing(&at("etc"))
        .into_iter()
        .chain(listing(&at("usr")))
        .chain(listing(&at("home/alice/many/7")))
        .collect();
    assert_eq!(before, after, "something was written or run");
    fs::set_permissions(at("home/alice/shut"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_root_that_is_none_is_an_error() {
    let host = Host::new();
    let ran = host.run(&["sweep", "--root", "/no/such/root"]);
    assert!(ran.code == 1 && ran.err.contains("cannot look into /no/such/root"), "{}", ran.err);
}
