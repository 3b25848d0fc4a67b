//! The text of one record file and the places inside it.
//!
//! Owns the translation from byte offsets to lines and columns. Does no I/O and never panics: an
//! offset that lies outside the text is moved to its nearest end.

use std::{
    fmt,
    ops::{Deref, Range},
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};

/// A place in a record file, for people: both numbers start at 1 and count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
pub struct Position {
    /// Line, from 1. `0` means the file as a whole.
    pub line: u32,
    /// Column in characters (not bytes), from 1. `0` means the file as a whole.
    pub column: u32,
    /// How many characters of that line are meant, at least 1 where the line is known.
    pub width: u32,
}

impl Position {
    /// The file as a whole, where no line is to blame.
    pub const FILE: Self = Self { line: 0, column: 0, width: 0 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and where it was written.
///
/// Equality, order and serialisation look at the value only, so that two records that say the same
/// thing are equal wherever they say it.
#[derive(Debug, Clone, Copy)]
pub struct Located<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub at: Position,
}

impl<T> Located<T> {
    /// Puts a value and its place together.
    pub const fn new(value: T, at: Position) -> Self {
        Self { value, at }
    }

    /// Changes the value and keeps the place.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Located<U> {
        Located::new(f(self.value), self.at)
    }
}

impl<T> Deref for Located<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Located<T> {}

impl<T: Serialize> Serialize for Located<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

/// The text of one record file.
#[derive(Debug, Clone)]
pub struct Source {
    file: PathBuf,
    text: String,
    line_starts: Vec<usize>,
}

impl Source {
    /// Indexes `text`; `file` is only a name for messages and need not exist.
    pub fn new(file: &Path, text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self {
            file: file.to_path_buf(),
            text: text.to_owned(),
            line_starts: std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect(),
        }
    }

    /// The name of the file, as given.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The place of a range of bytes. Out-of-range or mid-character offsets are moved, not refused.
    pub fn position(&self, span: Range<usize>) -> Position {
        let start = self.char_boundary(span.start);
        let end = self.char_boundary(span.end.max(start));
        let index = self.line_starts.partition_point(|line_start| *line_start <= start).saturating_sub(1);
        let line_start = self.line_starts.get(index).copied().unwrap_or(0);
        let line_end = line_start + self.line_at(index).len();
        let chars = |range: Range<usize>| self.text.get(range).map_or(0, |s| s.chars().count());
        Position {
            line: saturate(index + 1),
            column: saturate(chars(line_start..start) + 1),
            width: saturate(chars(start..end.min(line_end)).max(1)),
        }
    }

    /// The text of a line (from 1) without its line break, or `None` where there is no such line.
    pub fn line(&self, line: u32) -> Option<&str> {
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        (index < self.line_starts.len()).then(|| self.line_at(index))
    }

    fn line_at(&self, index: usize) -> &str {
        let start = self.line_starts.get(index).copied().unwrap_or(0);
        let end = self.line_starts.get(index + 1).map_or(self.text.len(), |next| next.saturating_sub(1));
        let line = self.text.get(start..end).unwrap_or_default();
        line.strip_suffix('\r').unwrap_or(line)
    }

    fn char_boundary(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

fn saturate(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_characters_and_clips_to_the_line() {
        let source = Source::new(Path::new("x.toml"), "a = 1\r\nü = \"é\"\nlast");
        let at = source.position(7..9);
        assert_eq!((at.line, at.column, at.width), (2, 1, 1));
        let at = source.position(12..999);
        assert_eq!((at.line, at.column, at.width), (2, 5, 3));
        assert_eq!(source.position(999..1000).line, 3);
        assert_eq!(source.line(1), Some("a = 1"));
        assert_eq!(source.line(0), None);
        assert_eq!(source.line(4), None);
    }

    #[test]
    fn an_empty_file_has_one_line() {
        let source = Source::new(Path::new("x.toml"), "");
        assert_eq!(source.position(0..0).line, 1);
        assert_eq!(source.line(1), Some(""));
    }
}
