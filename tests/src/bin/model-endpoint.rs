//! Runs the scripted model endpoint by hand: `model-endpoint SCRIPT.json`, prints its base URL, then each request.
//!
//! The script is a list of `{"tool": NAME, "arguments": {…}}`, `{"freeform": NAME, "input": "…"}` or `{"say": "…"}`.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

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
    let path = std::env::args().nth(1).unwrap();
    let script: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let endpoint = Endpoint::start(script.iter().map(step).collect()).unwrap();
    println!("{}", endpoint.base_url());
    // Serves until standard input closes.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
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
