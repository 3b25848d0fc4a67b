//! Anthropic messages (`POST …/messages`), whole or streamed.

use super::{Step, http::Reply};
use serde_json::{Value, json};

pub(super) fn tool_results(body: &Value) -> usize {
    let Some(messages) = body["messages"].as_array() else { return 0 };
    let blocks = messages.iter().filter_map(|m| m["content"].as_array()).flatten();
    blocks.filter(|b| b["type"] == "tool_result").count()
}

pub(super) fn reply(step: &Step, turn: usize, stream: bool) -> Reply {
    let (name, input) = match step {
        Step::Say(text) => return said(text, turn, stream),
        Step::Tool { name, arguments } => (name, arguments.clone()),
        Step::Freeform { name, input } => (name, json!({ "input": input })),
    };
    let block = |input: Value| json!({"type": "tool_use", "id": format!("toolu_{turn}"), "name": name, "input": input});
    if !stream {
        return Reply::json(&message(turn, json!([block(input)]), json!("tool_use")));
    }
    let delta = json!({"type": "input_json_delta", "partial_json": input.to_string()});
    streamed(turn, block(json!({})), delta, "tool_use")
}

fn said(text: &str, turn: usize, stream: bool) -> Reply {
    let block = |text: &str| json!({"type": "text", "text": text});
    if !stream {
        return Reply::json(&message(turn, json!([block(text)]), json!("end_turn")));
    }
    streamed(turn, block(""), json!({"type": "text_delta", "text": text}), "end_turn")
}

fn message(turn: usize, content: Value, stop: Value) -> Value {
    json!({"id": format!("msg_{turn}"), "type": "message", "role": "assistant", "model": "scripted",
           "content": content, "stop_reason": stop, "stop_sequence": null,
           "usage": {"input_tokens": 10, "output_tokens": 10}})
}

fn streamed(turn: usize, block: Value, delta: Value, stop: &str) -> Reply {
    let event = |name: &'static str, mut data: Value| {
        data["type"] = json!(name);
        (Some(name), data.to_string())
    };
    Reply::events(&[
        event("message_start", json!({"message": message(turn, json!([]), Value::Null)})),
        event("content_block_start", json!({"index": 0, "content_block": block})),
        event("content_block_delta", json!({"index": 0, "delta": delta})),
        event("content_block_stop", json!({"index": 0})),
        event(
            "message_delta",
            json!({"delta": {"stop_reason": stop, "stop_sequence": null}, "usage": {"output_tokens": 10}}),
        ),
        event("message_stop", json!({})),
    ])
}
