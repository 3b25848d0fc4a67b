//! Walks a parsed TOML table, key by key, and notes every problem instead of stopping at the first.
//!
//! Owns the mechanics (types, unknown keys, "did you mean"); what the keys mean is decided by the
//! callers. Never panics and never fails: what cannot be read is reported and left out.

use std::{ops::Range, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    diagnostic::{Code, Diagnostic, Severity},
    parse::SECTIONS,
    source::{Located, Position, Source},
};

/// Most problems that one file may report.
const MAX_DIAGNOSTICS: usize = 100;

/// Collects the problems of one file.
#[derive(Debug)]
pub(crate) struct Reader {
    source: Arc<Source>,
    diagnostics: Vec<Diagnostic>,
    dropped: usize,
    failed: bool,
    /// After a syntax error, what is missing may be what could not be read.
    pub(crate) trust_absence: bool,
}

/// One table and its dotted name, for messages.
#[derive(Debug, Clone)]
pub(crate) struct Section<'a> {
    /// Such as `agent` or `scope.file[2]`; empty for the document.
    pub(crate) name: String,
    pub(crate) at: Position,
    table: &'a DeTable<'a>,
}

impl Section<'_> {
    /// The dotted name of a key in here.
    pub(crate) fn key(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }
}

/// A value as the TOML parser gives it.
pub(crate) type Value<'a> = Spanned<DeValue<'a>>;

impl Reader {
    pub(crate) fn new(source: Arc<Source>) -> Self {
        Self { source, diagnostics: Vec::new(), dropped: 0, failed: false, trust_absence: true }
    }

    /// Whether any error was reported.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// All problems in the order of the file, the number that did not fit among them.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|problem| (problem.at.line, problem.at.column));
        if self.dropped > 0 {
            self.diagnostics.push(Diagnostic::new(
                &self.source,
                if self.failed { Severity::Error } else { Severity::Warning },
                Code::TooMany,
                Position::FILE,
                format!("{} more problems are not shown", self.dropped),
            ));
        }
        self.diagnostics
    }

    pub(crate) fn document<'a>(&self, table: &'a DeTable<'a>) -> Section<'a> {
        Section { name: String::new(), at: Position { line: 1, column: 1, width: 1 }, table }
    }

    pub(crate) fn position(&self, span: Range<usize>) -> Position {
        self.source.position(span)
    }

    /// Reports a problem; the caller may still add a hint through [`Reader::push`].
    pub(crate) fn push(&mut self, problem: Diagnostic) {
        self.failed |= problem.is_error();
        if self.diagnostics.len() < MAX_DIAGNOSTICS {
            self.diagnostics.push(problem);
        } else {
            self.dropped += 1;
        }
    }

    pub(crate) fn error(
        &mut self,
        code: Code,
        at: Position,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.report(Severity::Error, code, at, message, hint);
    }

    pub(crate) fn report(
        &mut self,
        severity: Severity,
        code: Code,
        at: Position,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let problem = Diagnostic::new(&self.source, severity, code, at, message).hint(hint);
        self.push(problem);
    }

    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Reports every key of `section` that is not among `known`.
    pub(crate) fn keys(&mut self, section: &Section<'_>, known: &[&str]) {
        for key in section.table.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let hint = did_you_mean(name, known)
                .or_else(|| belongs_elsewhere(name))
                .unwrap_or_else(|| format!("known keys here: {}", known.join(", ")));
            let place = if section.name.is_empty() {
                "at the top level".to_owned()
            } else {
                format!("in [{}]", section.name)
            };
            let at = self.position(key.span());
            self.error(Code::UnknownKey, at, format!("unknown key `{name}` {place}"), hint);
        }
    }

    pub(crate) fn missing(&mut self, section: &Section<'_>, key: &str, hint: &str) {
        if self.trust_absence {
            self.error(Code::MissingKey, section.at, format!("{} is missing", section.key(key)), hint);
        }
    }

    pub(crate) fn value<'a>(&self, section: &Section<'a>, key: &str) -> Option<&'a Value<'a>> {
        section.table.get(key)
    }

    pub(crate) fn wrong_type(&mut self, value: &Value<'_>, name: &str, wanted: &str, hint: &str) {
        let at = self.position(value.span());
        let found = type_name(value.get_ref());
        self.error(Code::WrongType, at, format!("{name} must be {wanted}, found {found}"), hint);
    }

    /// A table below `parent`, `None` when absent or reported.
    pub(crate) fn section<'a>(&mut self, parent: &Section<'a>, key: &str) -> Option<Section<'a>> {
        let value = self.value(parent, key)?;
        let name = parent.key(key);
        match value.get_ref() {
            DeValue::Table(table) => Some(Section { at: self.position(value.span()), table, name }),
            _ => {
                let hint = format!("write it as [{name}]");
                self.wrong_type(value, &name, "a table", &hint);
                None
            }
        }
    }

    /// An array of tables below `parent`, each named `key[0]`, `key[1]` …
    pub(crate) fn sections<'a>(&mut self, parent: &Section<'a>, key: &str) -> Vec<Section<'a>> {
        let Some(value) = self.value(parent, key) else {
            return Vec::new();
        };
        let name = parent.key(key);
        let hint = format!("write it as [[{name}]]");
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_type(value, &name, "an array of tables", &hint);
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let name = format!("{name}[{index}]");
            match item.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section { at: self.position(item.span()), table, name })
                }
                _ => self.wrong_type(item, &name, "a table", &hint),
            }
        }
        sections
    }

    /// A string, trimmed of nothing, not empty and without NUL.
    pub(crate) fn string(&mut self, section: &Section<'_>, key: &str) -> Option<Located<String>> {
        let value = self.value(section, key)?;
        self.as_string(value, &section.key(key))
    }

    pub(crate) fn as_string(&mut self, value: &Value<'_>, name: &str) -> Option<Located<String>> {
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(value, name, "a string", "put it in double quotes");
            return None;
        };
        let at = self.position(value.span());
        if text.trim().is_empty() {
            self.error(Code::InvalidValue, at, format!("{name} is empty"), "give a value or remove the key");
            return None;
        }
        if text.contains('\0') {
            self.error(Code::InvalidValue, at, format!("{name} contains a NUL character"), "remove it");
            return None;
        }
        Some(Located::new(text.clone().into_owned(), at))
    }

    /// A list of strings, or one string standing for a list of one. Absent is empty.
    pub(crate) fn strings(&mut self, section: &Section<'_>, key: &str) -> Vec<Located<String>> {
        let Some(value) = self.value(section, key) else {
            return Vec::new();
        };
        let name = section.key(key);
        match value.get_ref() {
            DeValue::String(_) => self.as_string(value, &name).into_iter().collect(),
            DeValue::Array(items) => items
                .iter()
                .enumerate()
                .filter_map(|(index, item)| self.as_string(item, &format!("{name}[{index}]")))
                .collect(),
            _ => {
                self.wrong_type(value, &name, "a list of strings", "write [\"…\", \"…\"]");
                Vec::new()
            }
        }
    }

    pub(crate) fn boolean(&mut self, section: &Section<'_>, key: &str) -> Option<Located<bool>> {
        let value = self.value(section, key)?;
        if let DeValue::Boolean(flag) = value.get_ref() {
            return Some(Located::new(*flag, self.position(value.span())));
        }
        self.wrong_type(value, &section.key(key), "true or false", "without quotes");
        None
    }

    /// A whole number in a range.
    pub(crate) fn integer(
        &mut self,
        section: &Section<'_>,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<Located<u64>> {
        let value = self.value(section, key)?;
        let name = section.key(key);
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(value, &name, "a whole number", "without quotes");
            return None;
        };
        let at = self.position(value.span());
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        if let Some(number) = number.filter(|number| range.contains(number)) {
            return Some(Located::new(number, at));
        }
        self.error(
            Code::InvalidValue,
            at,
            format!("{name} is out of range"),
            format!("from {} to {}", range.start(), range.end()),
        );
        None
    }

    /// One word out of a fixed set.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        words: &[(&str, T)],
    ) -> Option<Located<T>> {
        let word = self.string(section, key)?;
        self.as_choice(word, &section.key(key), words)
    }

    pub(crate) fn as_choice<T: Copy>(
        &mut self,
        word: Located<String>,
        name: &str,
        words: &[(&str, T)],
    ) -> Option<Located<T>> {
        if let Some((_, value)) = words.iter().find(|(known, _)| *known == word.as_str()) {
            return Some(Located::new(*value, word.at));
        }
        let known: Vec<&str> = words.iter().map(|(known, _)| *known).collect();
        let list = format!("one of: {}", known.join(", "));
        let hint = did_you_mean(&word, &known).map_or(list.clone(), |mean| format!("{mean} ({list})"));
        self.error(Code::InvalidValue, word.at, format!("{name} cannot be `{}`", word.value), hint);
        None
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// A hint for a key that is right in another table.
fn belongs_elsewhere(key: &str) -> Option<String> {
    let (section, _) = SECTIONS.iter().find(|(section, keys)| !section.is_empty() && keys.contains(&key))?;
    let repeated =
        matches!(*section, "match" | "scope.file" | "scope.exec" | "scope.net" | "scope.privilege");
    Some(if repeated { format!("it belongs in [[{section}]]") } else { format!("it belongs in [{section}]") })
}

/// A hint with the nearest known word, if one is near.
pub(crate) fn did_you_mean(word: &str, known: &[&str]) -> Option<String> {
    // Nothing in a record is called by a longer name; the comparison is quadratic in the length.
    if word.chars().count() > 40 {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    known
        .iter()
        .map(|candidate| (edit_distance(&plain(word), &plain(candidate)), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min()
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// Levenshtein distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (cell, right) in row.iter_mut().skip(1).zip(&b) {
            let cost = diagonal + usize::from(left != *right);
            diagonal = *cell;
            before = cost.min(*cell + 1).min(before + 1);
            *cell = before;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", ""), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["owner", "purpose", "data_boundary"];
        assert_eq!(did_you_mean("ownr", &known).as_deref(), Some("did you mean `owner`?"));
        assert_eq!(did_you_mean("data-Boundary", &known).as_deref(), Some("did you mean `data_boundary`?"));
        assert_eq!(did_you_mean("colour", &known), None);
    }
}
