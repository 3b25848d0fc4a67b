//! How data is written: tables for people, JSON for programs.

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _};

use agent_monitor::registry::diagnostic::escape;
use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// Form of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people; the form may change.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One JSON object per line.
    Jsonl,
}

/// `-o`, on every reader.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct OutputArgs {
    /// Form of the output
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: Format,
}

/// Standard output, buffered. Errors are returned: a closed pipe ends the program quietly.
pub(crate) struct Out {
    to: BufWriter<StdoutLock<'static>>,
    colour: bool,
}

impl Out {
    /// Takes standard output.
    pub(crate) fn new() -> Self {
        let stdout = io::stdout();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour = stdout.is_terminal() && !plain;
        Self { to: BufWriter::new(stdout.lock()), colour }
    }

    /// Colours are wanted.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// Writes `text` as it is, and a line end.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.to.write_all(text.as_bytes())?;
        self.to.write_all(b"\n")
    }

    /// Writes `text` as it is.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.to.write_all(text.as_bytes())
    }

    /// Writes one value: indented for [`Format::Json`], on one line for [`Format::Jsonl`].
    pub(crate) fn json(&mut self, value: &impl Serialize, format: Format) -> anyhow::Result<()> {
        let text = match format {
            Format::Jsonl => serde_json::to_string(value)?,
            Format::Json | Format::Table => serde_json::to_string_pretty(value)?,
        };
        Ok(self.line(&text)?)
    }

    /// Writes values one by one, without holding them all: an array, or a line each for [`Format::Jsonl`].
    pub(crate) fn list<T: Serialize>(
        &mut self,
        values: impl IntoIterator<Item = T>,
        format: Format,
    ) -> anyhow::Result<()> {
        if format == Format::Jsonl {
            return values.into_iter().try_for_each(|value| Ok(self.line(&serde_json::to_string(&value)?)?));
        }
        let mut before = "[";
        for value in values {
            self.line(before)?;
            self.text(&serde_json::to_string(&value)?)?;
            before = ",";
        }
        self.line(if before == "[" { "[]" } else { "\n]" })?;
        Ok(())
    }

    /// Writes rows under a head, columns aligned. Cells are escaped here.
    pub(crate) fn table(
        &mut self,
        head: &[&str],
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(head.iter().copied());
        for row in rows {
            table.add_row(row.iter().map(|cell| escape(cell)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// Writes names and values, one pair per line. Values are escaped here.
    pub(crate) fn pairs<'a>(&mut self, pairs: impl IntoIterator<Item = (&'a str, String)>) -> io::Result<()> {
        for (name, value) in pairs {
            self.line(format!("{name:<16}{}", escape(&value)).trim_end())?;
        }
        Ok(())
    }

    /// Hands on what is buffered.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// `-` for what is not known.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A byte count for people: `17 B`, `2.0 KiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS.get(unit).copied().unwrap_or_default())
}
