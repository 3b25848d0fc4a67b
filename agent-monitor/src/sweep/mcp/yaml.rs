//! The block form of YAML that configuration files are written in → JSON. Total; what is not understood is left out.
//!
//! Mappings and sequences by indentation, plain and quoted scalars, `[a, b]` of scalars. No anchors, tags, multi-line
//! texts or flow mappings: this is for finding servers in a file, not for reading YAML.

use serde_json::{Map, Value};

/// Deepest nesting.
const DEPTH: usize = 20;
/// Most lines.
const LINES: usize = 20_000;

struct Line<'a> {
    indent: usize,
    text: &'a str,
}

/// Reads the text.
pub(in crate::sweep) fn parse(text: &str) -> Value {
    let mut lines = Vec::new();
    for line in text.lines().take(LINES) {
        let body = line.trim_start_matches(' ');
        if !body.is_empty() && !body.starts_with('#') && body != "---" {
            lines.push(Line { indent: line.len() - body.len(), text: body.trim_end() });
        }
    }
    let mut at = 0;
    block(&lines, &mut at, 0, DEPTH)
}

fn block(lines: &[Line<'_>], at: &mut usize, indent: usize, depth: usize) -> Value {
    let Some(first) = lines.get(*at) else { return Value::Null };
    if first.indent < indent || depth == 0 {
        return Value::Null;
    }
    let own = first.indent;
    if first.text.starts_with("- ") || first.text == "-" {
        return sequence(lines, at, own, depth);
    }
    let mut object = Map::new();
    while let Some(line) = lines.get(*at).filter(|line| line.indent >= own) {
        *at += 1;
        if line.indent == own {
            entry(lines, at, own, line.text, &mut object, depth);
        }
    }
    Value::Object(object)
}

fn entry(
    lines: &[Line<'_>],
    at: &mut usize,
    indent: usize,
    text: &str,
    object: &mut Map<String, Value>,
    depth: usize,
) {
    let Some((key, value)) = text.split_once(": ").or_else(|| Some((text.strip_suffix(':')?, ""))) else {
        return;
    };
    let key = unquote(key.trim());
    let value = value.trim();
    let nested = match lines.get(*at) {
        // A sequence may stand as deep as its key.
        Some(next) => next.indent > indent || next.indent == indent && next.text.starts_with("- "),
        None => false,
    };
    let value = if !value.is_empty() {
        scalar(value)
    } else if nested {
        let deeper = lines.get(*at).map_or(indent, |next| next.indent);
        block(lines, at, deeper, depth - 1)
    } else {
        Value::Null
    };
    object.insert(key, value);
}

fn sequence(lines: &[Line<'_>], at: &mut usize, indent: usize, depth: usize) -> Value {
    let mut items = Vec::new();
    while let Some(line) = lines.get(*at).filter(|line| line.indent == indent && line.text.starts_with('-')) {
        let item = line.text.trim_start_matches('-').trim_start();
        *at += 1;
        let inner = indent + (line.text.len() - item.len());
        if item.contains(": ") || item.ends_with(':') {
            let mut object = Map::new();
            entry(lines, at, inner, item, &mut object, depth);
            while let Some(next) = lines.get(*at).filter(|next| next.indent >= inner) {
                *at += 1;
                if next.indent == inner {
                    entry(lines, at, inner, next.text, &mut object, depth);
                }
            }
            items.push(Value::Object(object));
        } else {
            items.push(scalar(item));
        }
    }
    Value::Array(items)
}

fn scalar(text: &str) -> Value {
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        let parts = inner.split(',').map(str::trim).filter(|part| !part.is_empty());
        return Value::Array(parts.map(|part| Value::String(unquote(part))).collect());
    }
    let quoted = text.starts_with(['"', '\'']);
    let plain = if quoted { text } else { text.split(" #").next().unwrap_or(text).trim_end() };
    match plain {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "null" | "~" => Value::Null,
        plain => Value::String(unquote(plain)),
    }
}

fn unquote(text: &str) -> String {
    let strip = |mark: char| text.strip_prefix(mark).and_then(|text| text.strip_suffix(mark));
    strip('"').or_else(|| strip('\'')).unwrap_or(text).to_owned()
}
