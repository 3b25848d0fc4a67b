//! `agent …` of the built binary, without root: files in, diagnostics and exit codes out.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::path::Path;
use std::process::Command;

use agent_monitor::control::fake::FakeDaemon;
use agent_monitor::control::{Server, SocketConfig};
use agent_monitor::record::Limits;
use tempfile::TempDir;

const RECORD: &str = r#"[agent]
id = "bot"
owner = "team@example.com"
purpose = "tests"
expires = 2099-01-01T00:00:00Z

[[match]]
exe = "/bin/true"

[scope]
default = "audit"
"#;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn run(directory: &Path, args: &[&str]) -> Ran {
    fs::OpenOptions::new().create(true).append(true).open(directory.join("c.toml")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_agent-monitor"))
        .args(args)
        .env_clear()
        .env("AGENT_MONITOR_SOCKET", directory.join("c.sock"))
        .env("AGENT_MONITOR_REGISTRY", directory.join("agents.d"))
        .env("AGENT_MONITOR_CONFIG", directory.join("c.toml"))
        .current_dir(directory)
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn host(text: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("r.toml"), text).unwrap();
    directory
}

#[test]
fn check_names_the_place_and_the_code_is_one() {
    let good = host(RECORD);
    let ran = run(good.path(), &["agent", "check", "r.toml"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let bad = host(&RECORD.replace("owner", "ownr"));
    let ran = run(bad.path(), &["agent", "check", "r.toml"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.out.contains("r.toml:3:1") && ran.out.contains("ownr") && ran.out.contains("hint"),
        "{}",
        ran.out
    );
    let json: serde_json::Value =
        serde_json::from_str(&run(bad.path(), &["agent", "check", "r.toml", "-o", "json"]).out).unwrap();
    assert_eq!((&json["ok"], &json["schema_version"]), (&false.into(), &1.into()));
    for line in run(bad.path(), &["agent", "check", "r.toml", "-o", "jsonl"]).out.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).unwrap()["message"].is_string());
    }
    assert_eq!(run(bad.path(), &["agent", "check", "missing.toml"]).code, 1);
    assert_eq!(run(bad.path(), &["agent", "check"]).code, 1, "there is no registry");
}

#[test]
fn register_list_and_show_work_without_a_daemon() {
    let host = host(RECORD);
    let empty = run(host.path(), &["agent", "list"]);
    assert!(empty.code == 0 && empty.err.contains("no registry"), "{} {}", empty.code, empty.err);
    let ran = run(host.path(), &["agent", "register", "r.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.contains("registered agent bot") && ran.err.contains("no daemon"),
        "{} {}",
        ran.out,
        ran.err
    );
    assert!(host.path().join("agents.d/bot.toml").is_file());
    assert!(run(host.path(), &["agent", "list"]).out.contains("team@example.com"));
    let json: serde_json::Value =
        serde_json::from_str(&run(host.path(), &["agent", "list", "-o", "json"]).out).unwrap();
    assert_eq!(json["agents"][0]["id"], "bot");
    let again = run(host.path(), &["agent", "register", "r.toml"]);
    assert!(again.code == 0 && again.out.contains("unchanged"), "{}", again.out);
    fs::write(host.path().join("r.toml"), RECORD.replace("tests", "other")).unwrap();
    let clash = run(host.path(), &["agent", "register", "r.toml"]);
    assert!(clash.code == 1 && clash.err.contains("--replace"), "{}", clash.err);
    assert_eq!(run(host.path(), &["agent", "register", "--replace", "r.toml"]).code, 0);
    let show = run(host.path(), &["agent", "show", "bot"]);
    assert!(
        show.code == 3 && show.out.contains("other") && show.err.contains("live processes"),
        "{}",
        show.err
    );
    assert_eq!(run(host.path(), &["agent", "show", "No Id"]).code, 2);
    assert_eq!(run(host.path(), &["agent", "show", "nobody"]).code, 3);
}

#[test]
fn a_refused_record_changes_nothing() {
    let host = host(&RECORD.replace("owner", "ownr"));
    let ran = run(host.path(), &["agent", "register", "r.toml"]);
    assert!(ran.code == 1 && ran.err.contains("r.toml:3:1"), "{} {}", ran.code, ran.err);
    assert!(!host.path().join("agents.d/bot.toml").exists());
}

#[test]
fn the_schema_is_json() {
    let host = host(RECORD);
    let schema: serde_json::Value =
        serde_json::from_str(&run(host.path(), &["agent", "schema"]).out).unwrap();
    assert_eq!(schema["type"], "object");
}

#[test]
fn with_a_daemon_the_tree_is_shown_and_a_refused_reload_is_told() {
    let host = host(RECORD);
    let server = Server::bind(&SocketConfig { path: host.path().join("c.sock"), group: None }).unwrap();
    let handle = server.spawn(FakeDaemon::new(Limits::default())).unwrap();
    let show = run(host.path(), &["agent", "show", "bot"]);
    assert_eq!(show.code, 0, "{}", show.err);
    assert!(
        show.out.contains("4121") && show.out.contains("\\u{1b}[2J") && !show.out.contains('\u{1b}'),
        "{}",
        show.out
    );
    let json: serde_json::Value =
        serde_json::from_str(&run(host.path(), &["agent", "show", "bot", "-o", "json"]).out).unwrap();
    assert_eq!(json["tree"][0]["bound_by"], "exe");
    let nobody = run(host.path(), &["agent", "show", "nobody"]);
    assert!(nobody.code == 1 && nobody.err.contains("nobody"), "{}", nobody.err);
    let register = run(host.path(), &["agent", "register", "r.toml"]);
    assert!(
        register.code == 1 && register.err.contains("agents.d/a.toml:3:1"),
        "{} {}",
        register.code,
        register.err
    );
    assert!(!host.path().join("agents.d/bot.toml").exists(), "what is not in force is not on disk");
    assert!(!register.out.contains("registered"), "{}", register.out);
    handle.shutdown().unwrap();
}

const SCOPED: &str = r#"[agent]
id = "bot"
owner = "team@example.com"
purpose = "tests"
expires = 2099-01-01T00:00:00Z
mode = "enforce"

[[match]]
exe = "/bin/true"

[scope]
base = ["linux-runtime"]

[[scope.file]]
path = "/srv/**"
access = ["read", "write"]

[[scope.file]]
path = "/srv/keys/**"
access = ["read"]
verdict = "kill"

[[scope.net]]
to = "10.0.0.0/8:443/tcp"
"#;

#[test]
fn explain_names_the_rule_and_what_lost() {
    let host = host(SCOPED);
    fs::create_dir(host.path().join("agents.d")).unwrap();
    fs::copy(host.path().join("r.toml"), host.path().join("agents.d/bot.toml")).unwrap();
    let explain = |words: &[&str]| run(host.path(), &[&["explain", "--agent", "bot"], words].concat());
    let ran = explain(&["file", "read", "/srv/keys/k", "-o", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((json["verdict"].as_str(), json["rule"].as_str()), (Some("kill"), Some("scope.file[1]")));
    assert_eq!(json["decides"]["at"]["line"], 19);
    assert_eq!(json["lost"][0]["rule"], "scope.file[0]");
    assert_eq!((json["mode"].as_str(), json["level"].as_str()), (Some("enforce"), None));
    let ran = explain(&["file", "read", "/srv/keys/k"]);
    assert!(
        ran.out.contains("bot.toml:19:") && ran.out.contains("less specific than /srv/keys/**"),
        "{}",
        ran.out
    );
    assert!(ran.err.contains("level of this host is not known"), "{}", ran.err);
    for (words, verdict) in [
        (&["net", "connect", "10.0.0.1:443/tcp"][..], "allow"),
        (&["net", "connect", "unix:/run/docker.sock"], "deny"),
        (&["exec", "/usr/bin/curl"], "deny"),
        (&["privilege", "mount"], "deny"),
        (&["privilege", "CAP_NET_ADMIN"], "deny"),
        (&["file", "delete", "/srv/x"], "deny"),
    ] {
        let ran = explain(&[words, &["-o", "jsonl"]].concat());
        assert_eq!(ran.code, 0, "{words:?} {}", ran.err);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&ran.out).unwrap()["verdict"],
            verdict,
            "{words:?}"
        );
    }
    let registry = host.path().join("agents.d/bot.toml").display().to_string();
    assert!(explain(&["file", "write", &registry]).out.contains("the monitor's own places"));
    for words in [
        &["file", "look", "/x"][..],
        &["file", "read", "x"],
        &["net", "connect", "example.com:443"],
        &["privilege", "all"],
    ] {
        assert_eq!(explain(words).code, 2, "{words:?}");
    }
    let unknown = run(host.path(), &["explain", "--agent", "nobody", "exec", "/bin/sh"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains("nobody") && unknown.err.contains("hint"), "{}", unknown.err);
}

/// Without any place named but the socket.
fn by_socket(directory: &Path, args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_agent-monitor"))
        .args(args)
        .args(["--socket", "c.sock"])
        .env_clear()
        .current_dir(directory)
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_socket_that_does_not_answer_is_never_replaced_by_the_places_of_this_host() {
    let host = host(RECORD);
    for args in [
        &["agent", "list"][..],
        &["agent", "show", "bot"],
        &["agent", "check"],
        &["agent", "register", "r.toml"],
        &["agent", "reload"],
        &["agent", "unregister", "bot"],
        &["agent", "edit", "bot"],
        &["explain", "--agent", "bot", "exec", "/bin/sh"],
        &["key", "export"],
    ] {
        let ran = by_socket(host.path(), args);
        assert_eq!(ran.code, 3, "{args:?}: {}{}", ran.out, ran.err);
        assert!(ran.out.is_empty(), "{args:?} answered: {}", ran.out);
    }
}

#[test]
fn the_daemon_behind_a_socket_answers_for_its_own_registry() {
    let host = host(RECORD);
    let server = Server::bind(&SocketConfig { path: host.path().join("c.sock"), group: None }).unwrap();
    let handle = server.spawn(FakeDaemon::new(Limits::default())).unwrap();
    let list = by_socket(host.path(), &["agent", "list"]);
    assert!(
        list.code == 0 && list.out.contains("STATE") && list.out.contains("team@example.com"),
        "{}",
        list.err
    );
    let show = by_socket(host.path(), &["agent", "show", "bot"]);
    assert!(show.code == 0 && show.out.contains("enforced here"), "{}{}", show.out, show.err);
    handle.shutdown().unwrap();
}

#[test]
fn a_record_is_tried_out_before_anything_is_written() {
    let enforced = RECORD.replace("purpose", "mode = \"enforce\"\npurpose").replace("\"audit\"", "\"deny\"");
    let host = host(&enforced);
    let server = Server::bind(&SocketConfig { path: host.path().join("c.sock"), group: None }).unwrap();
    // It is at level partial.
    let handle = server.spawn(FakeDaemon::new(Limits::default())).unwrap();
    let here = run(host.path(), &["agent", "check", "--here", "r.toml"]);
    assert!(here.code == 1 && here.out.contains("is refused here"), "{}{}", here.out, here.err);
    assert!(here.out.contains("scope.default") && here.out.contains("level partial"), "{}", here.out);
    let register = run(host.path(), &["agent", "register", "r.toml"]);
    assert!(register.code == 1 && register.err.contains("nothing was changed"), "{}", register.err);
    assert!(!host.path().join("agents.d").exists(), "a refused record is not on disk");
    fs::write(host.path().join("r.toml"), enforced.replace("purpose =", "degrade = \"allow\"\npurpose ="))
        .unwrap();
    let here = run(host.path(), &["agent", "check", "--here", "r.toml"]);
    assert!(here.code == 0 && here.out.contains("would be in force here"), "{}{}", here.out, here.err);
    assert!(here.out.contains("only under exec") && here.out.contains("4121"), "{}", here.out);
    handle.shutdown().unwrap();
}

/// Edits with `sed`, where no daemon runs.
fn edit(directory: &Path, script: &str) -> Ran {
    let editor = format!("--editor=sed -i {script}");
    run(directory, &["agent", "edit", "bot", &editor])
}

#[test]
fn an_edit_takes_the_place_of_the_record_only_when_it_is_good() {
    let host = host(RECORD);
    assert_eq!(run(host.path(), &["agent", "register", "r.toml"]).code, 0);
    let path = host.path().join("agents.d/bot.toml");
    let same = edit(host.path(), "s/x/x/");
    assert!(same.code == 0 && same.err.contains("unchanged"), "{}", same.err);
    for (script, why) in [
        ("s/owner/ownr/", "ownr"),
        ("s/^id.*/id=\"other\"/", "names agent other"),
        ("s/^.agent.$/[agent/", "nothing was changed"),
    ] {
        let bad = edit(host.path(), script);
        assert!(bad.code == 1 && bad.err.contains(why), "{script}: {} {}", bad.code, bad.err);
        assert_eq!(fs::read_to_string(&path).unwrap(), RECORD, "{script}");
    }
    let good = edit(host.path(), "s/tests/other/");
    assert!(good.code == 0 && good.out.contains("replaced"), "{}{}", good.out, good.err);
    assert!(fs::read_to_string(&path).unwrap().contains("other"));
    let failed = run(host.path(), &["agent", "edit", "bot", "--editor=false"]);
    assert!(failed.code == 1 && failed.err.contains("nothing was changed"), "{}", failed.err);
}

#[test]
fn unregister_without_a_daemon_removes_the_file() {
    let host = host(RECORD);
    assert_eq!(run(host.path(), &["agent", "register", "r.toml"]).code, 0);
    let args = ["agent", "unregister", "bot", "--state-dir", "state"];
    let ran = run(host.path(), &args);
    assert!(ran.code == 0 && ran.out.contains("removed: bot"), "{}{}", ran.out, ran.err);
    assert!(!host.path().join("agents.d/bot.toml").exists());
    let again = run(host.path(), &args);
    assert!(again.code == 1 && again.err.contains("no agent `bot`"), "{}", again.err);
}
