//! OpenAI responses (`POST …/responses`), whole or streamed.

use super::{Step, http::Reply};
use serde_json::{Value, json};

pub(super) fn tool_results(body: &Value) -> usize {
    let is_result = |item: &&Value| item["type"].as_str().is_some_and(|t| t.ends_with("_call_output"));
    body["input"].as_array().map_or(0, |items| items.iter().filter(is_result).count())
}

fn item(step: &Step, turn: usize) -> Value {
    let (id, call) = (format!("item_{turn}"), format!("call_{turn}"));
    match step {
        Step::Tool { name, arguments } => {
            json!({"type": "function_call", "id": id, "call_id": call, "name": name,
                   "arguments": arguments.to_string(), "status": "completed"})
        }
        Step::Freeform { name, input } => {
            json!({"type": "custom_tool_call", "id": id, "call_id": call, "name": name,
                   "input": input, "status": "completed"})
        }
        Step::Say(text) => {
            json!({"type": "message", "id": id, "role": "assistant", "status": "completed",
                   "content": [{"type": "output_text", "text": text, "annotations": []}]})
        }
    }
}

pub(super) fn reply(step: &Step, turn: usize, stream: bool) -> Reply {
    let item = item(step, turn);
    let response = |status: &str, output: Value| {
        json!({"id": format!("resp_{turn}"), "object": "response", "created_at": 1, "status": status,
               "model": "scripted", "output": output,
               "usage": {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 10,
                         "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 20}})
    };
    if !stream {
        return Reply::json(&response("completed", json!([item])));
    }
    let event = |name: &'static str, mut data: Value| {
        data["type"] = json!(name);
        (Some(name), data.to_string())
    };
    Reply::events(&[
        event("response.created", json!({"response": response("in_progress", json!([]))})),
        event("response.output_item.added", json!({"output_index": 0, "item": item})),
        event("response.output_item.done", json!({"output_index": 0, "item": item})),
        event("response.completed", json!({"response": response("completed", json!([item]))})),
    ])
}
