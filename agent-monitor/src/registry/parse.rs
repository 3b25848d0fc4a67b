//! From TOML text to a [`Record`], with every problem of the text noted.
//!
//! Total on any input: no I/O, no clock, no panic. What needs the host or the time is checked in
//! [`super::check`]; what needs the other records in [`super::cross`].

mod agent;
mod matches;

pub use self::agent::parse_duration;
pub(crate) use self::matches::read_argv_pattern;

use std::{path::Path, sync::Arc};

use toml::de::DeTable;
use toml_parser::lexer::TokenKind;

use super::{
    diagnostic::{Code, Diagnostic},
    reader::{Reader, Section},
    record::{Match, Offboarding, Record},
    source::{Located, Position, Source},
};
use crate::scope;

/// Largest record file in bytes.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// Most syntax errors that are reported; what follows them is mostly noise.
const MAX_SYNTAX_ERRORS: usize = 10;

/// Most parts of a dotted key; a record needs three.
const MAX_KEY_PARTS: usize = 8;

/// What reading one record gave.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The record, unless there was an error.
    pub record: Option<Record>,
    /// All problems, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// The sections of a record and their keys: the parser's side of the JSON Schema.
pub const SECTIONS: [(&str, &[&str]); 10] = [
    ("", &["agent", "match", "scope", "offboarding"]),
    ("agent", agent::KEYS),
    ("match", matches::KEYS),
    ("offboarding", OFFBOARDING_KEYS),
    ("scope", scope::parse::KEYS),
    ("scope.file", scope::parse::FILE_KEYS),
    ("scope.exec", scope::parse::EXEC_KEYS),
    ("scope.net", scope::parse::NET_KEYS),
    ("scope.privilege", scope::parse::PRIVILEGE_KEYS),
    ("scope.limits", scope::parse::LIMIT_KEYS),
];

const OFFBOARDING_KEYS: &[&str] = &["remove_files", "disable_units", "manual"];

/// Reads a record. `file` is only its name for messages.
pub fn parse_record(text: &str, file: &Path) -> Parsed {
    if text.len() > MAX_RECORD_BYTES {
        let problem = Diagnostic::of_file(
            file.to_path_buf(),
            Code::TooLarge,
            format!("the file has {} bytes", text.len()),
        )
        .hint(format!("a record has at most {MAX_RECORD_BYTES}"));
        return Parsed { record: None, diagnostics: vec![problem] };
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Arc::new(Source::new(file, text));
    let mut reader = Reader::new(source.clone());
    if let Some(span) = too_deep(text) {
        let at = reader.position(span);
        reader.error(
            Code::Syntax,
            at,
            "the key has too many parts",
            format!("a record needs no more than {MAX_KEY_PARTS}"),
        );
        return Parsed { record: None, diagnostics: reader.finish() };
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    reader.trust_absence = errors.is_empty();
    let mut last_line = 0;
    for error in errors.iter().take(MAX_SYNTAX_ERRORS) {
        let at = error.span().map_or(Position::FILE, |span| reader.position(span));
        // What follows on the same line is what the parser made of the first.
        if std::mem::replace(&mut last_line, at.line) == at.line {
            continue;
        }
        let hint = syntax_hint(error.message());
        reader.error(Code::Syntax, at, error.message(), hint);
    }
    let document = reader.document(document.get_ref());
    let record = read_document(&mut reader, &document);
    let record = record.filter(|_| !reader.failed());
    Parsed { record, diagnostics: reader.finish() }
}

/// What makes a bare scope a record.
const BARE: &str = "\n[agent]\nid = \"scope\"\nowner = \"nobody@localhost\"\npurpose = \"none\"\n\
    expires = 9999-01-01T00:00:00Z\n[[match]]\nlaunch = true\n";

/// Reads a file with nothing but `[scope]`, as a record that is nobody's. Lines keep their numbers.
pub fn parse_scope(text: &str, file: &Path) -> Parsed {
    parse_record(&format!("{text}{BARE}"), file)
}

fn read_document(reader: &mut Reader, document: &Section<'_>) -> Option<Record> {
    reader.keys(document, &["agent", "match", "scope", "offboarding"]);
    let agent = match reader.section(document, "agent") {
        Some(section) => agent::read(reader, &section),
        None => {
            if !document.has("agent") {
                reader.missing(
                    document,
                    "agent",
                    "a record begins with [agent] and id, owner, purpose and expires",
                );
            }
            None
        }
    };
    let matches: Vec<Located<Match>> = reader
        .sections(document, "match")
        .iter()
        .filter_map(|section| matches::read(reader, section))
        .collect();
    let scope = reader
        .section(document, "scope")
        .map(|section| scope::parse::read(reader, &section))
        .unwrap_or_default();
    scope::lint::check(reader, &scope);
    let offboarding = reader
        .section(document, "offboarding")
        .map(|section| read_offboarding(reader, &section))
        .unwrap_or_default();
    let agent = agent?;
    agent::check_whole(reader, document, &agent, &scope);
    Some(Record {
        source: reader.source().clone(),
        id: agent.id,
        owner: agent.owner,
        purpose: agent.purpose,
        environment: agent.environment,
        data_boundary: agent.data_boundary,
        expires: agent.expires,
        retire_when_idle: agent.retire_when_idle,
        mode: agent.mode,
        approvers: agent.approvers,
        approvals: agent.approvals,
        degrade: agent.degrade,
        on_daemon_loss: agent.on_daemon_loss,
        hold_timeout: agent.hold_timeout,
        matches,
        scope,
        offboarding,
    })
}

fn read_offboarding(reader: &mut Reader, section: &Section<'_>) -> Offboarding {
    reader.keys(section, OFFBOARDING_KEYS);
    let mut remove_files = reader.strings(section, "remove_files");
    remove_files.retain(|path| matches::check_path(reader, path, "offboarding.remove_files"));
    let mut disable_units = reader.strings(section, "disable_units");
    disable_units.retain(|unit| matches::check_unit(reader, unit, "offboarding.disable_units"));
    Offboarding { remove_files, disable_units, manual: reader.strings(section, "manual") }
}

fn syntax_hint(message: &str) -> &'static str {
    if message.contains("duplicate") {
        "a key or table may be written once; repeat [[match]] and [[scope.…]] with two brackets"
    } else if message.contains("quot") || message.contains("string") {
        "text goes in double quotes, and \\ is written \\\\"
    } else {
        "records are TOML: key = \"text\", key = [\"a\", \"b\"], [table], [[array of tables]]"
    }
}

/// The first dotted key that is too long.
///
/// The TOML parser takes 80 levels of brackets and 80 parts in every key, which multiply to tables
/// so deep that dropping them runs out of stack. Its own lexer is asked, so that the two never
/// disagree about what is a key.
fn too_deep(text: &str) -> Option<std::ops::Range<usize>> {
    let mut parts = 1;
    for token in toml_parser::Source::new(text).lex() {
        match token.kind() {
            TokenKind::Dot => parts += 1,
            TokenKind::Equals
            | TokenKind::Comma
            | TokenKind::Newline
            | TokenKind::LeftCurlyBracket
            | TokenKind::LeftSquareBracket => parts = 1,
            _ => {}
        }
        if parts > MAX_KEY_PARTS {
            return Some(token.span().start()..token.span().end());
        }
    }
    None
}

#[cfg(test)]
#[path = "parse/tests.rs"]
mod tests;
