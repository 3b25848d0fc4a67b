//! Building HTML so that text can never become markup: what is written raw is part of the program, everything else is
//! escaped.

use std::fmt::Write as _;

/// A page under construction.
#[derive(Debug, Default)]
pub(super) struct Page {
    out: String,
}

impl Page {
    /// Markup: only what the program itself holds.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.out.push_str(markup);
        self
    }

    /// Text, escaped for element content and quoted attributes. Control characters and those that turn the direction
    /// of text around are shown as such.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                '\'' => self.out.push_str("&#39;"),
                c if is_hidden(c) => {
                    // Writing into a String cannot fail.
                    write!(self.out, "\\u{{{:x}}}", u32::from(c)).ok();
                }
                c => self.out.push(c),
            }
        }
        self
    }

    /// A number or another value whose text needs no thought, escaped all the same.
    pub(super) fn value(&mut self, value: impl ToString) -> &mut Self {
        self.text(&value.to_string())
    }

    /// A link to a record's row.
    pub(super) fn record(&mut self, number: u64) -> &mut Self {
        self.raw("<a class=\"n\" href=\"#r").value(number).raw("\">#").value(number).raw("</a>")
    }

    /// A cell of a table.
    pub(super) fn cell(&mut self, text: &str) -> &mut Self {
        self.raw("<td>").text(text).raw("</td>")
    }

    pub(super) fn finish(self) -> String {
        self.out
    }
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_text_is_markup() {
        let mut page = Page::default();
        page.text("<script>\"'&\u{1b}\u{202e}é\n");
        assert_eq!(page.finish(), "&lt;script&gt;&quot;&#39;&amp;\\u{1b}\\u{202e}é\\u{a}");
    }
}
