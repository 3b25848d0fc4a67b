//! The demo as a new user runs it: its agent tries to leave its scope and is stopped.

use agent_monitor_tests::harness::case::{Case, Verdict};
use agent_monitor_tests::harness::scratch::Scratch;
use agent_monitor_tests::harness::{client, world};

pub(crate) const CASES: &[Case] = &[Case::vm("leaves_its_scope_and_is_stopped", stopped)];

fn stopped() -> Verdict {
    world::close();
    let output = client::run(&["run", "--demo", "-o", "jsonl"]);
    assert!(output.status.success(), "{}", client::describe(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refused = |kind: &str, rule: &str| {
        let found = events.iter().filter(|event| {
            event["kind"] == kind
                && event["verdict"] == "deny"
                && event["errno"] == "EACCES"
                && event["rule"] == rule
                && event["agent"]["id"] == "demo-agent"
        });
        assert!(found.count() > 0, "no refused {kind} by {rule}\n{text}");
    };
    refused("file.open", "scope.file[1]");
    refused("file.link", "scope.file[1]");
    refused("file.rename", "scope.file[1]");
    refused("process.exec", "scope.exec[0]");
    let inside = events.iter().any(|event| {
        let path = event["file"]["path"].as_str().unwrap_or_default();
        event["kind"] == "file.rename" && event["verdict"] == "allow" && path.ends_with("/work/plan.txt")
    });
    assert!(inside, "what is in scope was not done\n{text}");
    transcript(&text);
    Ok(())
}

/// Shows the lines that README quotes, as `events` renders the same record.
fn transcript(text: &str) {
    let scratch = Scratch::new();
    let file = scratch.file("demo.jsonl", text);
    let shown = client::run(&["events", "--log", &file]);
    assert!(shown.status.success(), "{}", client::describe(&shown));
    for line in String::from_utf8_lossy(&shown.stdout).lines() {
        if line.contains(" deny ") || line.contains("plan.txt") {
            println!("\nFIGURES demo: {line}");
        }
    }
}
