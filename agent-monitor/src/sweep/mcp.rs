//! MCP configurations of all kinds of clients → servers. Pure, total on any bytes.
//!
//! JSON with comments and trailing commas (`mcpServers`, `servers`, `mcp`, `context_servers`, also inside settings and
//! per project), TOML (`mcp_servers`), and the plain block form of YAML (`mcpServers`, `extensions`).

pub(super) mod yaml;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::identify;
use super::pack::Pack;
use super::redact;
use super::report::McpServer;

/// Keys under which clients keep servers.
const KEYS: &[&str] = &[
    "mcpServers",
    "mcp_servers",
    "servers",
    "mcp",
    "context_servers",
    "amp.mcpServers",
    "extensions",
    "mcp.servers",
];
/// How deep a settings file is looked into.
const DEPTH: usize = 5;
/// Most servers of one file.
const SERVERS_MAX: usize = 200;

/// A server with what is needed to tell which product it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configured {
    /// As reported.
    pub shown: McpServer,
    /// Its command line; empty for a remote one. Not redacted: never print it.
    pub args: Vec<String>,
}

/// The servers in a configuration; `None` when it is in no form that is known.
#[must_use]
pub fn servers(bytes: &[u8], path: &str, pack: &Pack) -> Option<Vec<Configured>> {
    let text = String::from_utf8_lossy(bytes);
    let value = document(&text, path)?;
    let mut found = BTreeMap::new();
    search(&value, DEPTH, &mut found);
    let read = |(name, value): (String, Value)| server(&name, &value, path, pack);
    Some(found.into_iter().take(SERVERS_MAX).filter_map(read).collect())
}

fn document(text: &str, path: &str) -> Option<Value> {
    if path.ends_with(".toml") {
        return serde_json::to_value(text.parse::<toml::Table>().ok()?).ok();
    }
    if path.ends_with(".yaml") || path.ends_with(".yml") {
        return Some(yaml::parse(text));
    }
    serde_json::from_str(&plain_json(text)).ok()
}

/// JSON without comments and trailing commas.
#[must_use]
pub fn plain_json(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => {
                out.push(c);
                out.extend(chars.next());
            }
            '"' => {
                quoted = !quoted;
                out.push(c);
            }
            '/' if !quoted && chars.peek() == Some(&'/') => while chars.next_if(|c| *c != '\n').is_some() {},
            '/' if !quoted && chars.peek() == Some(&'*') => {
                chars.next();
                let mut star = false;
                for c in chars.by_ref() {
                    if star && c == '/' {
                        break;
                    }
                    star = c == '*';
                }
            }
            ']' | '}' if !quoted => {
                let end = out.trim_end().len();
                if out.get(..end).is_some_and(|kept| kept.ends_with(',')) {
                    out.truncate(end - 1);
                }
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// Collects servers under every key that clients use; Claude Code keeps some per project.
fn search(value: &Value, depth: usize, found: &mut BTreeMap<String, Value>) {
    let Value::Object(object) = value else { return };
    for (key, value) in object.iter().take(4000) {
        match value {
            Value::Object(inner) if KEYS.contains(&key.as_str()) => {
                let servers = inner.iter().filter(|(_, value)| is_server(value));
                let before = found.len();
                found.extend(servers.map(|(name, value)| (name.clone(), value.clone())));
                if found.len() == before && depth > 0 {
                    search(value, depth - 1, found);
                }
            }
            Value::Array(items) if KEYS.contains(&key.as_str()) => {
                let named = |item: &Value| Some((item.get("name")?.as_str()?.to_owned(), item.clone()));
                found.extend(items.iter().filter(|item| is_server(item)).filter_map(named));
            }
            Value::Object(_) if depth > 0 => search(value, depth - 1, found),
            _ => {}
        }
    }
}

/// Something with a command or an address.
fn is_server(value: &Value) -> bool {
    let Value::Object(object) = value else { return false };
    ["command", "cmd", "url", "serverUrl", "httpUrl", "uri", "endpoint"]
        .iter()
        .any(|key| object.get(*key).is_some_and(|v| v.is_string() || v.is_array() || v.is_object()))
}

fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => {
            items.iter().take(200).filter_map(|v| v.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    }
}

fn server(name: &str, value: &Value, path: &str, pack: &Pack) -> Option<Configured> {
    let object = value.as_object()?;
    let first = |keys: &[&str]| keys.iter().find_map(|key| object.get(*key));
    let url = first(&["url", "serverUrl", "httpUrl", "uri", "endpoint"]).and_then(Value::as_str);
    let said = first(&["type", "transport"]).and_then(Value::as_str);
    let env = first(&["env", "environment", "envs"]).and_then(Value::as_object);
    let mut env: Vec<String> = env.map(|env| env.keys().take(100).cloned().collect()).unwrap_or_default();
    let headers = first(&["headers", "http_headers"]).and_then(Value::as_object);
    env.extend(headers.into_iter().flat_map(Map::keys).take(100).map(|name| format!("header {name}")));
    let off = |key: &str, value: bool| object.get(key).and_then(Value::as_bool) == Some(value);
    let mut shown = McpServer {
        name: name.chars().take(100).collect(),
        env,
        config: path.to_owned(),
        disabled: off("disabled", true) || off("enabled", false),
        ..McpServer::default()
    };
    let mut args = command(object);
    if let Some(url) = url.filter(|_| args.is_empty()) {
        shown.transport = said.unwrap_or(if is_sse(url) { "sse" } else { "http" }).to_owned();
        shown.command = redact::url(url);
        shown.reach = url.split_once("://").map(|(_, rest)| {
            let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
            host.rsplit('@').next().unwrap_or(host).to_owned()
        });
        return Some(Configured { shown, args });
    }
    if args.is_empty() {
        return None;
    }
    args.truncate(200);
    shown.transport = "stdio".to_owned();
    shown.command = redact::args(&args).join(" ");
    reach(&mut shown, &args, pack);
    Some(Configured { shown, args })
}

fn is_sse(url: &str) -> bool {
    url.split(['?', '#']).next().is_some_and(|url| url.trim_end_matches('/').ends_with("/sse"))
}

fn command(object: &Map<String, Value>) -> Vec<String> {
    let of = |object: &Map<String, Value>| {
        let mut args =
            texts(object.get("command").or_else(|| object.get("cmd")).or_else(|| object.get("path")));
        // `command = "npx -y x"` without `args`.
        if let ([only], None) = (args.as_slice(), object.get("args"))
            && only.contains(' ')
            && !only.starts_with('/')
        {
            args = identify::shell_words(only);
        }
        args.extend(texts(object.get("args")));
        args
    };
    match object.get("command") {
        // Zed: `"command": { "path": …, "args": […] }`.
        Some(Value::Object(inner)) => of(inner),
        _ => of(object),
    }
}

/// What the server reaches and whether its tools write, where it is well known.
fn reach(shown: &mut McpServer, args: &[String], pack: &Pack) {
    let subject = identify::subject("", args, "/");
    let image =
        subject.image.iter().flat_map(|image| [image.as_str(), image.rsplit('/').next().unwrap_or(image)]);
    let names = subject.package.iter().map(|(_, name)| name.clone()).chain(image.map(str::to_owned));
    let names = names.chain(subject.names.iter().cloned());
    let names = names.chain(subject.module.iter().map(|module| module.replace('_', "-")));
    let in_path = subject.paths.iter().flat_map(|path| identify::packages_in(path)).map(|(_, name)| name);
    let Some(known) = names.chain(in_path).find_map(|name| pack.server(&name).cloned()) else { return };
    let paths: Vec<&str> =
        subject.rest.iter().map(String::as_str).filter(|arg| arg.starts_with('/')).collect();
    shown.reach = Some(match paths.as_slice() {
        [] => known.reach,
        paths => format!("{} {}", known.reach, paths.join(" ")),
    });
    shown.writes =
        Some(known.writes && !args.iter().any(|arg| arg.contains("read-only") || arg.contains("readonly")));
}

#[cfg(test)]
mod tests;
