//! Real packages are found, each once, with product and version; look-alikes are not. Precision and recall of both.

use std::process::{Command, Stdio};

use agent_monitor_tests::agent::host::{From, NPM_PREFIX, PIPX, PROJECT, REAL, Real, install_host};
use agent_monitor_tests::harness::case::{Skip, Verdict};
use agent_monitor_tests::harness::scratch::Scratch;
use agent_monitor_tests::sys;
use serde_json::Value;

use super::{Running, find_of, finds, host, is_shadow, program, sweep};

/// A directory of the cache shown below a test's root, until it is dropped: uninstalled.
struct Shown(String);

impl Shown {
    fn at(from: &std::path::Path, to: &std::path::Path) -> Self {
        std::fs::create_dir_all(to).unwrap();
        sys::mount(from.to_str().unwrap(), to.to_str().unwrap(), "none", libc::MS_BIND).unwrap();
        Self(to.to_str().unwrap().to_owned())
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        sys::unmount(&self.0).ok();
    }
}

fn is_it(find: &Value, real: &Real) -> bool {
    find["product"]["id"] == real.product && find["product"]["variant"].as_str() == real.variant
}

fn name(find: &Value) -> String {
    let variant = find["product"]["variant"].as_str().map_or_else(String::new, |v| format!(" ({v})"));
    format!("{}{variant} {}", find["product"]["id"], find["state"])
}

pub(super) fn packages() -> Verdict {
    let installed = match install_host() {
        Ok(installed) => installed,
        Err(reason) => return Skip::because(reason),
    };
    let scratch = Scratch::new();
    let root = host(&scratch, &["dev", "a"]);
    let look_alikes = fill(&scratch);
    let shown: Vec<Shown> = [NPM_PREFIX, PIPX, PROJECT]
        .iter()
        .map(|place| Shown::at(&installed.root.join(place), &scratch.path(&format!("host/{place}"))))
        .collect();
    let base = scratch.text("base.json");
    let report = sweep(&scratch, &["--root", &root, "--baseline", &base, "--update-baseline"]);
    let found = finds(&report);
    println!("\n{:<44}{:<12}{:<12}{:<8}FINDS", "PACKAGE", "VERSION", "FOUND", "SURE");
    let mut right = 0;
    for real in REAL {
        let its: Vec<&Value> = found.iter().filter(|find| is_it(find, real)).collect();
        let version = its.first().and_then(|find| find["product"]["version"].as_str()).unwrap_or("-");
        let sure = its.first().and_then(|find| find["identity"]["score"].as_u64()).unwrap_or(0);
        println!("{:<44}{:<12}{version:<12}{sure:<8}{}", real.package, real.version, its.len());
        let good =
            its.len() == 1 && version == real.version && its[0]["state"] == "installed" && is_shadow(its[0]);
        right += usize::from(good);
    }
    let extra: Vec<String> =
        found.iter().filter(|f| is_shadow(f) && !REAL.iter().any(|real| is_it(f, real))).map(name).collect();
    table(&format!("real packages among {look_alikes} look-alikes"), REAL.len(), right, extra.len());
    assert_eq!((right, extra), (REAL.len(), Vec::new()), "{report:#}");
    run_some(&scratch, &installed.root);
    // Uninstalled: what ran has left traces, the rest is gone.
    drop(shown);
    let report = sweep(&scratch, &["--root", &root, "--baseline", &base]);
    let qwen =
        finds(&report).into_iter().find(|find| find["product"]["id"] == "qwen-code").unwrap_or_default();
    assert_eq!((&qwen["state"], &qwen["change"]), (&"traces".into(), &"changed".into()), "{report:#}");
    assert!(!finds(&report).iter().any(is_shadow), "{report:#}");
    let gone = report["gone"].as_array().map_or(0, Vec::len);
    assert_eq!(gone, REAL.len() - 1, "{report:#}");
    Ok(())
}

/// What starts without a network: found running, by the link that people start it by, with its version.
fn run_some(scratch: &Scratch, installed: &std::path::Path) {
    let bin = installed.join(NPM_PREFIX).join("bin");
    let work = scratch.dir("work");
    let start = |name: &str, args: &[&str]| {
        let mut command = Command::new(bin.join(name));
        command.args(args).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir(&work);
        command.env("HOME", scratch.path("host/home/dev"));
        Running::start(&mut command).has_become(name)
    };
    let work = work.to_str().unwrap();
    let running = [
        ("qwen-code", start("qwen", &["--acp", "--yolo"])),
        ("mcp-reference-servers", start("mcp-server-filesystem", &[work])),
        ("mcp-reference-servers", start("mcp-server-memory", &[])),
    ];
    // Traces are written when it has come up.
    let made = || scratch.path("host/home/dev/.qwen").exists();
    assert!(sys::wait::until(agent_monitor_tests::harness::PATIENCE, made), "qwen makes no state");
    let report = sweep(scratch, &[]);
    for (product, process) in &running {
        let find = find_of(&report, process.pid())
            .unwrap_or_else(|| panic!("{product} (pid {}): {report:#}", process.pid()));
        assert_eq!(
            (find["product"]["id"].as_str(), find["state"].as_str()),
            (Some(*product), Some("running")),
            "{find:#}"
        );
        let versions: Vec<&str> =
            REAL.iter().filter(|r| r.product == *product && r.from == From::Npm).map(|r| r.version).collect();
        assert!(find["product"]["version"].as_str().is_some_and(|v| versions.contains(&v)), "{find:#}");
        assert!(find["risks"].to_string().contains("runs_as_root"), "{find:#}");
        assert!(find["owner"]["started_by"].as_array().is_some_and(|chain| !chain.is_empty()), "{find:#}");
    }
    let qwen = find_of(&report, running[0].1.pid()).unwrap_or_default();
    assert!(qwen["risks"].to_string().contains("--yolo"), "{qwen:#}");
}

fn table(what: &str, there: usize, right: usize, wrong: usize) {
    let percent =
        |part: usize, whole: usize| if whole == 0 { 100.0 } else { part as f64 * 100.0 / whole as f64 };
    println!(
        "FIGURES sweep {what}: {there} agents there, {right} told rightly, {wrong} told wrongly; \
         precision {:.1} %, recall {:.1} %",
        percent(right, right + wrong),
        percent(right, there)
    );
}

/// Files that look like agents and are none.
fn fill(scratch: &Scratch) -> usize {
    let programs = [
        "goose", "aide", "amp", "crush", "grok", "copilot", "hermes", "forge", "tabby", "llm", "mux", "pi",
        "cn", "droid", "q", "chat", "jan", "warp", "zed", "void", "vim", "code", "node", "python3",
        "continue", "emacs",
    ];
    programs.iter().for_each(|name| program(scratch, &format!("host/usr/local/bin/{name}")));
    let text = [
        ("home/a/notes/README.md", "We use openai and langchain. Run `claude` to start.\n"),
        ("home/a/ollama-backup.sh", "#!/bin/sh\ntar cf ollama.tar ollama\n"),
        ("home/a/ollama/models.txt", "llama\n"),
        (
            "home/a/web/package.json",
            r#"{"name":"web","dependencies":{"express":"4","continue":"1","openai-api-mock":"1"}}"#,
        ),
        ("home/a/web/node_modules/continue/package.json", r#"{"name":"continue","version":"1.0.0"}"#),
        ("home/a/web/node_modules/openai/package.json", r#"{"name":"openai","version":"4.0.0"}"#),
        ("home/a/svc/requirements.txt", "flask\nopenai\nrequests\n"),
        ("home/a/svc/app.py", "import flask, openai\n"),
        ("home/a/.config/goose/dbconf.yml", "driver: postgres\n"),
        ("home/a/.goose/x", ""),
        ("home/a/.forge/x", ""),
        ("home/a/.mux/x", ""),
        ("home/a/.cursorless/x", ""),
        ("home/a/.vscode/extensions/rust-lang.rust-analyzer-0.4.2000/package.json", "{}"),
        ("home/a/.vscode/extensions/ms-python.python-2026.1.0/package.json", "{}"),
        ("home/a/mail/claude-monet.txt", "painter\n"),
        ("home/a/gemini/stars.csv", ""),
        ("home/a/migrations/goose.sql", ""),
        (
            "etc/systemd/system/web.service",
            "[Service]\nUser=www-data\nExecStart=/usr/bin/node /srv/web/server.js\n",
        ),
        ("etc/systemd/system/goose.service", "[Service]\nExecStart=/usr/local/bin/goose up\n"),
        ("etc/systemd/system/aide.service", "[Service]\nExecStart=/usr/local/bin/aide --check\n"),
        ("etc/cron.d/job", "0 3 * * * root /usr/bin/python3 /srv/report.py\n0 4 * * * root aide --update\n"),
        ("srv/report.py", "import csv, smtplib  # openai later\n"),
        ("srv/web/server.js", "const express = require('express')\n"),
        (
            "var/lib/dpkg/status",
            "Package: aide\nStatus: install ok installed\nVersion: 0.18\n\nPackage: grok\nStatus: install ok installed\nVersion: 1\n\nPackage: vim\nStatus: install ok installed\nVersion: 9\n\nPackage: node-continue\nStatus: install ok installed\nVersion: 1\n",
        ),
    ];
    text.iter().for_each(|(path, text)| drop(scratch.file(&format!("host/{path}"), text)));
    programs.len() + text.len()
}

pub(super) fn look_alikes() -> Verdict {
    let scratch = Scratch::new();
    let root = host(&scratch, &["a"]);
    let there = fill(&scratch);
    let report = sweep(&scratch, &["--root", &root]);
    let wrong: Vec<String> = finds(&report).iter().filter(|find| is_shadow(find)).map(name).collect();
    println!("\nlow and components: {:?}", finds(&report).iter().map(name).collect::<Vec<_>>());
    table(&format!("look-alikes in files ({there})"), 0, 0, wrong.len());
    assert_eq!(wrong, Vec::<String>::new(), "{report:#}");
    // The same as processes.
    let bin = |name: &str| scratch.path(&format!("host/usr/local/bin/{name}"));
    let mut running: Vec<Running> = ["goose", "aide", "amp", "crush", "copilot", "continue", "vim", "grok"]
        .iter()
        .map(|name| Running::start(Command::new(bin(name)).arg("300")))
        .collect();
    let work = scratch.dir("web");
    running
        .push(Running::start(Command::new("python3").args(["-m", "http.server", "8000"]).current_dir(&work)));
    let script = scratch.file("web/claude-notes.py", "import time\ntime.sleep(300)  # openai\n");
    running.push(Running::start(Command::new("python3").arg(&script)));
    let server = scratch.file("web/server.js", "setInterval(() => {}, 1000)\n");
    running.push(Running::start(Command::new("node").arg(&server)));
    running.push(Running::start(
        Command::new("tail").args(["-f", "/dev/null", "--pid=1"]).arg(scratch.file("web/claude", "")),
    ));
    let report = sweep(&scratch, &[]);
    let wrong: Vec<Value> =
        running.iter().filter_map(|process| find_of(&report, process.pid())).filter(is_shadow).collect();
    table(&format!("look-alikes that run ({})", running.len()), 0, 0, wrong.len());
    assert_eq!(wrong, Vec::<Value>::new());
    Ok(())
}

/// A script that nobody packaged: it speaks to a model on loopback, starts a shell, and imports no framework; another
/// that does import one.
pub(super) fn home_made() -> Verdict {
    let scratch = Scratch::new();
    // Something that is called like a model server and listens.
    let server = "import socket, time\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()\n\
        open('port', 'w').write(str(s.getsockname()[1]))\nc, _ = s.accept()\ntime.sleep(300)\n";
    let work = scratch.dir("work");
    let ollama = scratch.file("bin/ollama", server);
    let model = Running::start(Command::new("python3").args([&ollama, "serve"]).current_dir(&work));
    let port = || std::fs::read_to_string(work.join("port")).is_ok_and(|port| !port.is_empty());
    assert!(sys::wait::until(agent_monitor_tests::harness::PATIENCE, port), "the model does not listen");
    let bot = scratch.file(
        "bot.py",
        "import socket, subprocess, sys\ns = socket.create_connection(('127.0.0.1', int(open('port').read())))\n\
         subprocess.run(['/bin/sh', '-c', 'touch ready; read x'])\n",
    );
    let talks = Running::start(Command::new("python3").arg(&bot).current_dir(&work));
    let framework = scratch.file(
        "crew.py",
        "try:\n    from crewai import Agent\nexcept ImportError:\n    pass\nimport time\ntime.sleep(300)\n",
    );
    let crew = Running::start(Command::new("python3").arg(&framework)).has_become("crew.py");
    // An agent that starts a tool server of its own over a pipe.
    let tools = scratch.file(
        "tools.py",
        "try:\n    from mcp.server import Server\nexcept ImportError:\n    pass\nopen('serving', 'w').close()\n\
         import sys\nsys.stdin.read()\n",
    );
    let claude = scratch.program(&agent_monitor_tests::harness::lane::actor_program(), "claude");
    let mut piped = Command::new(claude);
    let start = format!("exec python3 {tools}");
    piped
        .args(["run", "/bin/sh", "-c", &start])
        .current_dir(&work)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let agent = Running(piped.spawn().unwrap());
    let serving = || work.join("serving").exists();
    assert!(
        sys::wait::until(agent_monitor_tests::harness::PATIENCE, serving),
        "the tool server does not start"
    );
    let ready = || work.join("ready").exists();
    assert!(sys::wait::until(agent_monitor_tests::harness::PATIENCE, ready), "the bot starts no shell");
    let report = sweep(&scratch, &[]);
    let find = |pid: u32| find_of(&report, pid).unwrap_or_else(|| panic!("pid {pid}: {report:#}"));
    assert_eq!(find(model.pid())["product"]["id"], "ollama", "{report:#}");
    assert_eq!(find(agent.pid())["product"]["id"], "claude-code");
    let server_of =
        |find: &Value| find["product"]["kind"] == "mcp_server" && find.to_string().contains(&tools);
    assert!(finds(&report).iter().any(server_of), "no find of {tools}: {report:#}");
    for (pid, script, said) in
        [(talks.pid(), &bot, "is connected to Ollama"), (crew.pid(), &framework, "imports CrewAI")]
    {
        let find = find(pid);
        assert_eq!(
            (&find["product"]["id"], &find["product"]["variant"]),
            (&"home-made".into(), &script.as_str().into())
        );
        assert!(find["evidence"].to_string().contains(said), "{find:#}");
        assert!(
            find["identity"]["score"].as_u64().is_some_and(|score| (35..75).contains(&score)),
            "{find:#}"
        );
    }
    Ok(())
}
