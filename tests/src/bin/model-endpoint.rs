//! Runs the scripted model endpoint by hand.
//!
//! `model-endpoint SCRIPT.json` prints its base URL and, when standard input ends, each request.
//! `model-endpoint --agent ID` installs that agent CLI, drives it through its script without any monitor, and says
//! whether it did its work: to tell a broken agent from a broken monitor.
//!
//! The script is a list of `{"tool": NAME, "arguments": {…}}`, `{"freeform": NAME, "input": "…"}` or `{"say": "…"}`.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

use agent_monitor_tests::agent::{AGENTS, Place, install};
use agent_monitor_tests::harness::scratch::Scratch;
use agent_monitor_tests::model::{Endpoint, Step};
use serde_json::Value;
use std::io::Read;

fn step(value: &Value) -> Step {
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    match (text("tool"), text("freeform"), text("say")) {
        (Some(name), _, _) => Step::Tool { name, arguments: value["arguments"].clone() },
        (_, Some(name), _) => Step::Freeform { name, input: text("input").unwrap() },
        (_, _, Some(said)) => Step::Say(said),
        _ => panic!("not a step: {value}"),
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some("--agent"), Some(id)) => drive(&id),
        (Some(path), None) => serve(path),
        _ => panic!("model-endpoint SCRIPT.json | --agent ID"),
    }
}

fn drive(id: &str) {
    let agent = AGENTS.iter().find(|agent| agent.id == id).unwrap();
    let installed = install(&agent.source).unwrap_or_else(|reason| panic!("{reason}"));
    let scratch = Scratch::new();
    let mut place = Place { home: scratch.dir("home"), work: scratch.dir("work"), url: String::new() };
    let endpoint = Endpoint::start((agent.script)(&place)).unwrap();
    place.url = endpoint.base_url();
    let mut command = agent.command(&installed, &place);
    println!("{command:?}");
    let status = command.stdin(std::process::Stdio::null()).status().unwrap();
    report(&endpoint);
    println!("{id}: {status}, effects {:?}", agent.check_effects(&place));
}

fn serve(path: &str) {
    let script: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let endpoint = Endpoint::start(script.iter().map(step).collect()).unwrap();
    println!("{}", endpoint.base_url());
    // Serves until standard input closes.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    report(&endpoint);
}

fn report(endpoint: &Endpoint) {
    println!("{} connections", endpoint.accepted());
    for exchange in endpoint.exchanges() {
        let tools: Vec<&str> = exchange.body["tools"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|t| t["name"].as_str().or_else(|| t["function"]["name"].as_str()))
            .collect();
        println!("{} {} step={:?} tools={tools:?}", exchange.method, exchange.path, exchange.step);
        if std::env::var_os("MODEL_ENDPOINT_BODIES").is_some() {
            println!("{}", exchange.body);
        }
    }
}
