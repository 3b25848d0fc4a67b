//! A thousand hosts' sweeps joined by the example: which shadow agents, on how many hosts, whose.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use agent_monitor_tests::agent::host::install_duckdb;
use agent_monitor_tests::harness::case::{Skip, Verdict};
use agent_monitor_tests::harness::client;
use agent_monitor_tests::harness::scratch::Scratch;
use serde_json::Value;

use super::host;

const HOSTS: usize = 1000;

pub(super) fn fleet() -> Verdict {
    let python = match install_duckdb() {
        Ok(installed) => installed,
        Err(reason) => return Skip::because(reason),
    };
    let scratch = Scratch::new();
    let lines = real_lines(&scratch);
    let mut expect: BTreeMap<(String, String), usize> = BTreeMap::new();
    for number in 0..HOSTS {
        let mut text = String::new();
        for (at, line) in lines.iter().enumerate().filter(|(at, _)| number % (at + 2) == 0) {
            let mut line = line.clone();
            line["host"]["name"] = format!("host-{number:04}").into();
            line["host"]["id"] = format!("{number:032x}").into();
            writeln!(text, "{line}").unwrap();
            let name = |key: &str| line["product"][key].as_str().unwrap_or_default().to_owned();
            let user = line["owner"]["user"].as_str().unwrap_or("system").to_owned();
            *expect.entry((name("id"), user)).or_default() += 1;
            assert!(at < 100);
        }
        scratch.file(&format!("collected/host-{number:04}.jsonl"), &text);
    }
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent-monitor/examples/fleet/fleet.py");
    let site =
        std::fs::read_dir(python.root.join("lib")).unwrap().flatten().map(|e| e.path().join("site-packages"));
    let site = site
        .filter(|path| path.is_dir())
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(":");
    let output = Command::new("python3")
        .env("PYTHONPATH", site)
        .args([example, "--json", scratch.path("collected").to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", client::describe(&output));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    println!("\n{rows:#?}");
    let found: BTreeMap<(String, String), usize> = rows
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            ((text("product"), text("owner")), usize::try_from(row["hosts"].as_u64().unwrap_or(0)).unwrap())
        })
        .collect();
    assert_eq!(found, expect);
    Ok(())
}

/// Lines of a real sweep, one per product.
fn real_lines(scratch: &Scratch) -> Vec<Value> {
    let root = host(scratch, &["dev", "ops"]);
    for (place, name) in
        [("home/dev", "@openai/codex"), ("home/ops", "@qwen-code/qwen-code"), ("home/dev", "opencode-ai")]
    {
        let path = format!("host/{place}/.npm-global/lib/node_modules/{name}/package.json");
        scratch.file(&path, r#"{"version":"1.0.0"}"#);
    }
    // One that only left traces: no shadow agent, must not be counted.
    scratch.file("host/home/ops/.codex/config.toml", "");
    let output =
        client::run(&["sweep", "--root", &root, "-o", "jsonl", "--registry", &scratch.text("registry")]);
    assert!(output.status.success(), "{}", client::describe(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["state"] == "installed").collect()
}
