//! What is wrong with a record, as plain data, and how it is shown to a person.
//!
//! Rendering escapes everything that a terminal would act on, because record files may come from
//! people who would like to rewrite what the operator sees. Nothing here prints.

use std::{fmt::Write as _, path::PathBuf};

use serde::Serialize;

use super::source::{Position, Source};

/// Most characters of a source line that are shown.
const EXCERPT_CHARS: usize = 100;

/// How bad it is. Ordered: a note is less than a warning is less than an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing needs to change.
    Note,
    /// Probably not what was meant; the record is still accepted.
    Warning,
    /// The record is refused.
    Error,
}

impl Severity {
    /// The word shown to people and written to JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Which check spoke. The kebab-case names are stable, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Two rules say different things about the same access; one of them loses.
    ContradictoryRule,
    /// Two records carry the same id.
    DuplicateId,
    /// Two matches recognise exactly the same processes.
    DuplicateMatch,
    /// The end date has passed.
    Expired,
    /// The end date is more than two years away.
    ExpiryFar,
    /// The file or directory may be changed by someone who may not register agents.
    FilePermissions,
    /// The value has the right type and still makes no sense.
    InvalidValue,
    /// A path that no file can have, or that the kernel cannot follow.
    InvalidPath,
    /// A required key is absent.
    MissingKey,
    /// The path names nothing on this host.
    MissingPath,
    /// No match: the agent is bound only when `agent-monitor exec` launches it.
    NoMatch,
    /// The path exists and is the wrong kind of thing.
    NotAFile,
    /// The file is not UTF-8.
    NotUtf8,
    /// An allowing name pattern opens a hole in a forbidden subtree.
    OverriddenDeny,
    /// The agent is retired; its id is never used again.
    Retired,
    /// The rule changes nothing, because a wider one already says the same.
    RedundantRule,
    /// The agent, or its own user, could approve what it asks for.
    SelfApproval,
    /// The rule can never decide anything.
    ShadowedRule,
    /// There is no room for the record in the kernel's tables.
    NoRoom,
    /// This host cannot hold the rule.
    NotHeld,
    /// Not TOML.
    Syntax,
    /// More problems than are listed.
    TooMany,
    /// The file is larger than a record may be.
    TooLarge,
    /// The match is so wide that it takes in processes that are no agent.
    TooWide,
    /// A key that nothing reads.
    UnknownKey,
    /// A label that no rule adds.
    UnknownLabel,
    /// A systemd unit that is not on this host.
    UnknownUnit,
    /// A user or group that is not on this host.
    UnknownUser,
    /// The file could not be read.
    Unreadable,
    /// The value has the wrong type.
    WrongType,
}

/// Another place that a diagnostic talks about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Related {
    /// The other file.
    pub file: PathBuf,
    /// Where in it.
    #[serde(flatten)]
    pub at: Position,
    /// What is there.
    pub message: String,
}

/// One problem, with everything that is needed to show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Which check spoke.
    pub code: Code,
    /// The file, as it was named by the caller.
    pub file: PathBuf,
    /// Line and column from 1; 0 for the file as a whole.
    #[serde(flatten)]
    pub at: Position,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The offending line, unescaped. Escape it before it goes to a terminal: [`escape`].
    pub text: Option<String>,
    /// The other place, for problems between two.
    pub related: Option<Related>,
}

impl Diagnostic {
    /// A problem at a place in `source`.
    pub fn new(
        source: &Source,
        severity: Severity,
        code: Code,
        at: Position,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code,
            file: source.file().to_path_buf(),
            at,
            message: message.into(),
            hint: None,
            text: source.line(at.line).map(clip_text),
            related: None,
        }
    }

    /// A problem of a file whose text could not be had.
    pub fn of_file(file: PathBuf, code: Code, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            file,
            at: Position::FILE,
            message: message.into(),
            hint: None,
            text: None,
            related: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the other place.
    #[must_use]
    pub fn related(mut self, source: &Source, at: Position, message: impl Into<String>) -> Self {
        self.related = Some(Related { file: source.file().to_path_buf(), at, message: message.into() });
        self
    }

    /// Whether the record must be refused.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Several lines of text, safe for a terminal, ending in a line break:
    ///
    /// ```text
    /// error[missing-key]: agent.owner is missing
    ///   --> agents.d/bot.toml:1:1
    ///    |
    ///  1 | [agent]
    ///    | ^^^^^^^
    ///    = hint: add owner = "team@example.com"
    /// ```
    pub fn render(&self) -> String {
        let mut out =
            format!("{}[{}]: {}\n", self.severity.as_str(), self.code.as_str(), escape(&self.message));
        // Writing to a String cannot fail.
        let _infallible = self.render_place(&mut out);
        out
    }

    fn render_place(&self, out: &mut String) -> std::fmt::Result {
        let file = escape(&self.file.to_string_lossy());
        let gutter = self.at.line.to_string().len().max(2);
        match &self.text {
            Some(text) => {
                let (excerpt, offset, width) = excerpt(text, self.at);
                writeln!(out, "  --> {file}:{}", self.at)?;
                writeln!(out, " {:gutter$} |", "")?;
                writeln!(out, " {:>gutter$} | {excerpt}", self.at.line)?;
                writeln!(out, " {:gutter$} | {:offset$}{}", "", "", "^".repeat(width))?;
            }
            None if self.at.line > 0 => writeln!(out, "  --> {file}:{}", self.at)?,
            None => writeln!(out, "  --> {file}")?,
        }
        if let Some(related) = &self.related {
            writeln!(
                out,
                " {:gutter$} = see {}:{}: {}",
                "",
                escape(&related.file.to_string_lossy()),
                related.at,
                escape(&related.message)
            )?;
        }
        if let Some(hint) = &self.hint {
            writeln!(out, " {:gutter$} = hint: {}", "", escape(hint))?;
        }
        Ok(())
    }
}

impl Code {
    /// The stable kebab-case name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ContradictoryRule => "contradictory-rule",
            Self::DuplicateId => "duplicate-id",
            Self::DuplicateMatch => "duplicate-match",
            Self::Expired => "expired",
            Self::ExpiryFar => "expiry-far",
            Self::FilePermissions => "file-permissions",
            Self::InvalidValue => "invalid-value",
            Self::InvalidPath => "invalid-path",
            Self::MissingKey => "missing-key",
            Self::MissingPath => "missing-path",
            Self::NoMatch => "no-match",
            Self::NotAFile => "not-a-file",
            Self::NoRoom => "no-room",
            Self::NotHeld => "not-held",
            Self::NotUtf8 => "not-utf8",
            Self::OverriddenDeny => "overridden-deny",
            Self::RedundantRule => "redundant-rule",
            Self::Retired => "retired",
            Self::SelfApproval => "self-approval",
            Self::ShadowedRule => "shadowed-rule",
            Self::Syntax => "syntax",
            Self::TooMany => "too-many",
            Self::TooLarge => "too-large",
            Self::TooWide => "too-wide",
            Self::UnknownKey => "unknown-key",
            Self::UnknownLabel => "unknown-label",
            Self::UnknownUnit => "unknown-unit",
            Self::UnknownUser => "unknown-user",
            Self::Unreadable => "unreadable",
            Self::WrongType => "wrong-type",
        }
    }
}

/// Makes text safe for a terminal: control, formatting and bidirectional characters become `\u{…}`.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        push_escaped(&mut out, character);
    }
    out
}

fn push_escaped(out: &mut String, character: char) {
    match character {
        '\t' => out.push(' '),
        _ if is_dangerous(character) => out.extend(character.escape_unicode()),
        _ => out.push(character),
    }
}

/// Characters that move the cursor, hide or reorder text, or draw nothing.
fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The escaped part of a line round the place, how far in the place begins, and how long it is.
fn excerpt(text: &str, at: Position) -> (String, usize, usize) {
    let start = usize::try_from(at.column.saturating_sub(1)).unwrap_or(0);
    let width = usize::try_from(at.width).unwrap_or(1).max(1);
    let skip = start.saturating_sub(EXCERPT_CHARS / 2);
    let mut out = String::from(if skip > 0 { "…" } else { "" });
    let (mut offset, mut marked) = (out.chars().count(), 0);
    let mut cut = false;
    for (index, character) in text.chars().enumerate().skip(skip) {
        if index >= skip + EXCERPT_CHARS {
            cut = true;
            break;
        }
        let before = out.chars().count();
        push_escaped(&mut out, character);
        let drawn = out.chars().count() - before;
        if index < start {
            offset += drawn;
        } else if index < start + width {
            marked += drawn;
        }
    }
    if cut {
        out.push('…');
    }
    (out, offset, marked.max(1))
}

/// Lines are kept with diagnostics; one line of a hostile file may be a megabyte.
fn clip_text(line: &str) -> String {
    line.chars().take(4096).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn shows_line_caret_and_hint() {
        let source = Source::new(Path::new("bot.toml"), "[agent]\n\tid = \"Bot\"\n");
        let shown = Diagnostic::new(
            &source,
            Severity::Error,
            Code::InvalidValue,
            source.position(14..19),
            "not a DNS label",
        )
        .hint("use lower case")
        .render();
        assert_eq!(
            shown,
            "error[invalid-value]: not a DNS label\n  --> bot.toml:2:7\n    |\n  2 |  id = \"Bot\"\n    |       ^^^^^\n    = hint: use lower case\n"
        );
    }

    #[test]
    fn hostile_text_cannot_drive_the_terminal() {
        let text = "id = \"\u{1b}[2J\u{202e}\u{7}\u{9b}31m\"";
        let source = Source::new(Path::new("\u{1b}]0;x\u{7}.toml"), text);
        let shown = Diagnostic::new(
            &source,
            Severity::Error,
            Code::InvalidValue,
            source.position(5..text.len()),
            text,
        )
        .hint(text)
        .related(&source, Position::FILE, text)
        .render();
        assert!(!shown.chars().any(|c| c != '\n' && is_dangerous(c)), "{shown}");
    }

    #[test]
    fn a_very_long_line_is_cut_round_the_place() {
        let text = format!("{}BAD{}", "a".repeat(5000), "b".repeat(5000));
        let (shown, offset, width) = excerpt(&text, Position { line: 1, column: 5001, width: 3 });
        assert!(shown.chars().count() < 110);
        let marked: String = shown.chars().skip(offset).take(width).collect();
        assert_eq!(marked, "BAD");
    }

    #[test]
    fn code_names_agree_with_their_json() {
        for code in [Code::ContradictoryRule, Code::NotUtf8, Code::TooWide, Code::UnknownUnit] {
            let json = serde_json::to_value(code).map(|v| v.as_str().map(str::to_owned));
            assert_eq!(json.ok().flatten().as_deref(), Some(code.as_str()));
        }
    }
}
