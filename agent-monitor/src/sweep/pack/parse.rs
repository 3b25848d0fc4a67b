//! Text of a pack file → entries, with every mistake at its line. Total on any text.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use super::{KnownServer, Pack, Signature};
use crate::registry::diagnostic::{Code, Diagnostic, Severity};
use crate::registry::reader::{Reader, Section};
use crate::registry::source::{Position, Source};
use crate::sweep::identify;
use crate::sweep::report::ProductKind;

/// Version of the pack's form.
const SCHEMA: u64 = 1;
/// Longest pack file in bytes.
const MAX_BYTES: usize = 4 << 20;

/// Keys of a product that are lists of texts.
const LISTS: &[&str] = &[
    "aliases",
    "programs",
    "ambiguous",
    "commands",
    "paths",
    "modules",
    "titles",
    "flags",
    "npm",
    "pypi",
    "crates",
    "images",
    "extensions",
    "jetbrains",
    "imports",
    "state",
    "weak_state",
    "credentials",
    "binaries",
    "mcp_configs",
    "project",
    "units",
    "markers",
    "env",
    "hosts",
    "unsafe_flags",
    "sources",
    "examples",
    "counterexamples",
];
/// The others.
const OTHERS: &[&str] =
    &["id", "name", "kind", "ports", "networks", "extend", "disabled", "verified", "notes"];

const KINDS: &[(&str, ProductKind)] = &[
    ("cli_agent", ProductKind::CliAgent),
    ("ide_agent", ProductKind::IdeAgent),
    ("ide", ProductKind::Ide),
    ("desktop_app", ProductKind::DesktopApp),
    ("framework", ProductKind::Framework),
    ("autonomous_agent", ProductKind::AutonomousAgent),
    ("workflow_platform", ProductKind::WorkflowPlatform),
    ("mcp_server", ProductKind::McpServer),
    ("model_server", ProductKind::ModelServer),
    ("gateway", ProductKind::Gateway),
    ("sdk", ProductKind::Sdk),
    ("component", ProductKind::Component),
];

/// What one file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackFile {
    /// Its version.
    pub version: String,
    /// Its products.
    pub products: Vec<Signature>,
    /// MCP servers.
    pub servers: Vec<KnownServer>,
    /// Hosts of model providers.
    pub provider_hosts: Vec<String>,
    /// Variables that hold keys for them.
    pub key_names: Vec<String>,
}

/// Reads a pack file. What is wrong is left out and reported; a file with errors should not be used.
#[must_use]
pub fn parse(text: &str, file: &Path) -> (PackFile, Vec<Diagnostic>) {
    let source = Arc::new(Source::new(file, text));
    let mut reader = Reader::new(Arc::clone(&source));
    if text.len() > MAX_BYTES {
        let problem = format!("the file has more than {MAX_BYTES} bytes");
        reader.error(Code::TooLarge, Position::FILE, problem, "is this the right file?");
        return (PackFile::default(), reader.finish());
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = reader.position(error.span().unwrap_or(0..0));
        reader.error(Code::Syntax, at, error.message().to_owned(), "the file is TOML");
        reader.trust_absence = false;
    }
    let document = reader.document(table.get_ref());
    let mut pack = PackFile::default();
    reader.keys(&document, &["schema", "version", "product", "providers", "mcp_server"]);
    match reader.integer(&document, "schema", 1..=u64::MAX) {
        Some(schema) if schema.value != SCHEMA => {
            let what = format!("schema {} is not known", schema.value);
            reader.error(Code::InvalidValue, schema.at, what, "this agent-monitor reads schema = 1");
        }
        None if !document.has("schema") => reader.missing(&document, "schema", "add schema = 1"),
        _ => {}
    }
    pack.version = reader.string(&document, "version").map(|v| v.value).unwrap_or_default();
    let mut ids = BTreeSet::new();
    for section in reader.sections(&document, "product") {
        if let Some(product) = product(&mut reader, &section) {
            if !ids.insert(product.id.clone()) {
                let what = format!("product `{}` is in this file twice", product.id);
                reader.error(Code::DuplicateId, section.at, what, "make one entry of them");
                continue;
            }
            pack.products.push(product);
        }
    }
    if let Some(section) = reader.section(&document, "providers") {
        reader.keys(&section, &["hosts", "env"]);
        let mut texts = |key| reader.strings(&section, key).into_iter().map(|v| v.value).collect();
        (pack.provider_hosts, pack.key_names) = (texts("hosts"), texts("env"));
    }
    for section in reader.sections(&document, "mcp_server") {
        reader.keys(&section, &["name", "reach", "writes"]);
        let name = reader.string(&section, "name");
        if name.is_none() && !section.has("name") {
            reader.missing(&section, "name", "the package or image of the server");
        }
        let reach = reader.string(&section, "reach").map(|v| v.value).unwrap_or_default();
        let writes = reader.boolean(&section, "writes").is_some_and(|v| v.value);
        pack.servers.extend(name.map(|name| KnownServer { name: name.value, reach, writes }));
    }
    (pack, reader.finish())
}

fn product(reader: &mut Reader, section: &Section<'_>) -> Option<Signature> {
    let known: Vec<&str> = LISTS.iter().chain(OTHERS).copied().collect();
    reader.keys(section, &known);
    let flag = |reader: &mut Reader, key| reader.boolean(section, key).map(|v| v.value);
    let (extend, disabled) =
        (flag(reader, "extend").unwrap_or(false), flag(reader, "disabled").unwrap_or(false));
    let verified = flag(reader, "verified").unwrap_or(true);
    let id = reader.string(section, "id");
    if id.is_none() && !section.has("id") {
        reader.missing(section, "id", "add id = \"my-agent\"");
    }
    let name = reader.string(section, "name");
    let kind = reader.choice(section, "kind", KINDS);
    if !extend && !disabled {
        if !section.has("name") {
            reader.missing(section, "name", "add name = \"My Agent\"");
        }
        if !section.has("kind") {
            reader.missing(section, "kind", "add kind = \"cli_agent\"");
        }
    }
    let mut entry =
        Signature { extend, disabled, verified, kind: kind.map(|k| k.value), ..Signature::default() };
    for key in LISTS {
        let values = reader.strings(section, key);
        for value in &values {
            check_value(reader, key, value.as_str(), value.at);
        }
        if !values.is_empty() {
            entry.lists.insert(key, values.into_iter().map(|v| v.value).collect());
        }
    }
    ports(reader, section, &mut entry);
    for value in reader.strings(section, "networks") {
        match value.as_str().parse() {
            Ok(network) => entry.networks.push(network),
            Err(_) => {
                let what = format!("`{}` is no network", value.as_str());
                reader.error(Code::InvalidValue, value.at, what, "such as 192.0.2.0/24");
            }
        }
    }
    let _notes = reader.string(section, "notes");
    let id = id?;
    if id.as_str().parse::<crate::registry::AgentId>().is_err() {
        let hint = "1 to 63 lower-case letters, digits and -";
        reader.error(Code::InvalidValue, id.at, format!("`{}` is no product id", id.as_str()), hint);
        return None;
    }
    for (key, message) in [("programs", "enough alone"), ("ambiguous", "never enough alone")] {
        let other = if key == "programs" { "ambiguous" } else { "programs" };
        if let Some(name) = entry.list(key).iter().find(|name| entry.list(other).contains(name))
            && key == "ambiguous"
        {
            let what = format!("`{name}` cannot be both enough alone and {message}");
            reader.error(Code::InvalidValue, section.at, what, "keep it in one of the two lists");
        }
    }
    entry.name = name.map_or_else(|| id.value.clone(), |name| name.value);
    entry.id = id.value;
    Some(entry)
}

fn ports(reader: &mut Reader, section: &Section<'_>, entry: &mut Signature) {
    use toml::de::DeValue;
    let Some(value) = reader.value(section, "ports") else { return };
    let name = section.key("ports");
    let DeValue::Array(items) = value.get_ref() else {
        reader.wrong_type(value, &name, "a list of numbers", "write [8080]");
        return;
    };
    for item in items.iter() {
        let number = match item.get_ref() {
            DeValue::Integer(number) => u16::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match number.filter(|port| *port > 0) {
            Some(port) => entry.ports.push(port),
            None => reader.wrong_type(item, &name, "a port number", "1 to 65535"),
        }
    }
}

/// Values whose form matters to the look-ups.
fn check_value(reader: &mut Reader, key: &str, value: &str, at: Position) {
    let (good, hint) = match key {
        "programs" | "ambiguous" => (!value.contains('/'), "a base name; paths go to `paths`"),
        "commands" => (
            value.split(' ').count() == 2 && !value.contains('/'),
            "a program and its first word, such as \"goose session\"",
        ),
        "paths" => {
            (value.contains('/') && value.bytes().any(|b| b != b'*' && b != b'/'), "a glob over a path")
        }
        "state" | "weak_state" | "credentials" | "binaries" => (
            (value.starts_with("~/") || value.starts_with('/')) && !value.contains("/../"),
            "a path that begins with ~/ or /",
        ),
        "project" => (
            !value.starts_with(['~', '/']) && !value.contains("../") && !value.contains('*'),
            "a path inside a project, without wildcards",
        ),
        "images" => (
            value == identify::untagged(value),
            "owner and name, without registry and tag: \"ollama/ollama\"",
        ),
        "extensions" => (value.contains('.'), "publisher.name"),
        "markers" => (!value.starts_with('='), "NAME or NAME=value"),
        _ => return,
    };
    if !good {
        let hint = hint.to_owned();
        reader.error(Code::InvalidValue, at, format!("`{value}` cannot stand in {key}"), hint);
    }
}

/// Runs the examples of a file's entries against the pack that the file gives over the embedded one.
pub(super) fn check_examples(text: &str, file: &Path, new: &PackFile) -> Vec<Diagnostic> {
    let source = Source::new(file, text);
    let pack = Pack::build(std::slice::from_ref(new));
    let mut problems = Vec::new();
    for product in &new.products {
        for (key, wanted) in [("examples", true), ("counterexamples", false)] {
            for line in product.list(key) {
                let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
                let told = identify::best(&pack, &args);
                let is = told.is_some_and(|hit| {
                    pack.product(hit.product).is_some_and(|p| p.id == product.id) && hit.weight >= 50
                });
                if is != wanted {
                    let what =
                        format!("`{line}` is {}told as {}", if wanted { "not " } else { "" }, product.id);
                    let at = place(&source, text, key, line);
                    let problem = Diagnostic::new(&source, Severity::Error, Code::InvalidValue, at, what);
                    problems
                        .push(problem.hint("see programs, ambiguous, commands, paths, modules and packages"));
                }
            }
        }
    }
    problems
}

/// Where a text first stands in quotes, after its key where that is possible.
fn place(source: &Source, text: &str, key: &str, what: &str) -> Position {
    let quoted = crate::registry::format::quote(what);
    let from = text.find(&format!("\n{key}")).unwrap_or(0);
    let found = text.get(from..).and_then(|rest| rest.find(&quoted)).map(|at| from + at);
    found.map_or(Position::FILE, |start| source.position(start..start + quoted.len()))
}
