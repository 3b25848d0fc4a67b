//! OpenAI chat completions (`POST …/chat/completions`), whole or streamed.

use super::{Step, http::Reply};
use serde_json::{Value, json};

pub(super) fn tool_results(body: &Value) -> usize {
    body["messages"].as_array().map_or(0, |m| m.iter().filter(|m| m["role"] == "tool").count())
}

fn usage() -> Value {
    json!({"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20})
}

fn message(step: &Step, turn: usize) -> (Value, &'static str) {
    let call = |name: &str, arguments: String| {
        json!({"index": 0, "id": format!("call_{turn}"), "type": "function",
               "function": {"name": name, "arguments": arguments}})
    };
    let tool = |name: &str, arguments: String| json!({"role": "assistant", "content": "Next step.", "tool_calls": [call(name, arguments)]});
    match step {
        Step::Tool { name, arguments } => (tool(name, arguments.to_string()), "tool_calls"),
        Step::Freeform { name, input } => (tool(name, json!({"input": input}).to_string()), "tool_calls"),
        Step::Say(text) => (json!({"role": "assistant", "content": text}), "stop"),
    }
}

pub(super) fn reply(step: &Step, turn: usize, stream: bool) -> Reply {
    let (message, finish) = message(step, turn);
    let envelope = |object: &str, choices: Value| {
        json!({"id": format!("chatcmpl-{turn}"), "object": object, "created": 1, "model": "scripted",
               "choices": choices, "usage": usage()})
    };
    if !stream {
        let choice = json!([{"index": 0, "message": message, "finish_reason": finish}]);
        return Reply::json(&envelope("chat.completion", choice));
    }
    let chunk = |delta: Value, finish: Value| {
        let choices = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
        (None, envelope("chat.completion.chunk", choices).to_string())
    };
    Reply::events(&[
        chunk(message, Value::Null),
        chunk(json!({}), json!(finish)),
        (None, "[DONE]".to_owned()),
    ])
}
